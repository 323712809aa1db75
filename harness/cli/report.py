"""`report`: tables and figures for a paper, a page to browse, and whether they follow from the records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli._options import PluginFiles, ResultsFolder, add_plugins
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.report.verifying import Verification

EXIT_DIFFERS = 1
_SHOWN = 50


def report(
    results: ResultsFolder = Path("results"),
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where tables and figures go. [default: the results folder]")
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="Also write report.html, one page to browse.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Write nothing: compute everything anew, and fail where a file differs.")
    ] = False,
    diff: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--diff", metavar="A B", help="Write nothing: compare two results folders, score by score."),
    ] = None,
    plugin: PluginFiles = None,
) -> int:
    """Write every table and figure that the results give: tables as csv, md and tex, figures as svg, pdf and png.

    Reads the results folder alone; no model is loaded. Exit code 1: a record was left out, or a file differs.
    """
    add_plugins(plugin)
    if diff is not None:
        if verify or html or out is not None:
            raise UsageError("--diff compares two folders and writes nothing: leave --verify, --html and --out out.")
        return _show_differences(*diff)
    if verify and html:
        raise UsageError("--verify writes nothing: leave --html out.")
    return _verify(results, out or results) if verify else _write(results, out or results, html)


def _write(results: Path, out: Path, with_page: bool) -> int:
    from harness.report.loading import load_all
    from harness.report.writing import FIGURES, TABLES, make_report, write_report

    read = load_all(results)
    made = make_report(read)
    written = write_report(made, out)
    if with_page:
        from harness.report_html import write_page

        typer.echo(f"Page: {write_page(results, out / 'report.html')}")
    for line in (*read.problems, *made.remarks, *(f"Removed, as nothing makes it: {path}" for path in written.removed)):
        typer.echo(line)
    typer.echo(f"{len(made.tables)} tables: {out / TABLES}; {len(made.figures)} figures: {out / FIGURES}")
    return EXIT_DIFFERS if read.problems else 0


def _verify(results: Path, out: Path) -> int:
    from harness.report.loading import load_all
    from harness.report.verifying import verify_report

    read = load_all(results)
    found = verify_report(read, out)
    for line in (*read.problems, *_lines(found)):
        typer.echo(line)
    return EXIT_DIFFERS if found.differences or read.problems else 0


def _lines(found: Verification) -> list[str]:
    lines = [f"Differs: {text}" for text in found.differences[:_SHOWN]]
    if len(found.differences) > _SHOWN:
        lines.append(f"... and {len(found.differences) - _SHOWN} more differences.")
    lines += [f"Not computed anew, taken from the record: {text}" for text in found.not_rederived]
    n_differences, n_kept = len(found.differences), len(found.not_rederived)
    return [
        *lines,
        f"{found.n_values} recorded values were computed anew, {n_kept} were not. From them follow {found.n_cells} "
        f"cells of {found.n_tables} tables and the numbers of {found.n_figures} figures: "
        f"{f'{n_differences} differences' if n_differences else 'no difference'}.",
    ]


def _show_differences(first: Path, second: Path) -> int:
    from harness.report.differences import difference_table
    from harness.tables import plain_text

    table, lines = difference_table(first, second)
    if table.rows:
        typer.echo(plain_text(table))
    for line in lines:
        typer.echo(line)
    return 0
