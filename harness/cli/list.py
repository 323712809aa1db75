"""`list`: the plugins that can be named on the command line, none of them imported; and what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli._options import PluginFiles, ResultsFolder, add_plugins

if TYPE_CHECKING:
    from harness.registry import PluginInfo


def list_plugins(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[models|tasks|scorers|metrics|recipes|benches|results]", help="Leave out for all plugins."
        ),
    ] = None,
    results: ResultsFolder = Path("results"),
    plugin: PluginFiles = None,
) -> None:
    """List models, tasks, scorers, metrics, training recipes and benches; or the results that were measured."""
    from harness.registry import KINDS, summaries

    if kind == "results":
        _print_results(results)
        return
    add_plugins(plugin)
    if kind is not None:
        _print_lines(_table(summaries(kind)), indent="")
        return
    for each in KINDS:
        typer.echo(f"{each}:")
        _print_lines(_table(summaries(each)), indent="  ")


def _table(plugins: list[PluginInfo]) -> list[str]:
    """One line a plugin: name, summary and origin in aligned columns."""
    name_width = max((len(plugin.name) for plugin in plugins), default=0)
    summary_width = max((len(plugin.summary) for plugin in plugins), default=0)
    return [
        f"{plugin.name:{name_width}}  {plugin.summary:{summary_width}}  {plugin.origin}".rstrip() for plugin in plugins
    ]


def _print_lines(lines: list[str], indent: str) -> None:
    for line in lines or ["none"]:
        typer.echo(indent + line)


def _print_results(results: Path) -> None:
    """One line a run and other measurement, and one for each that cannot be read."""
    from harness.report.listing import results_table

    table, problems = results_table(results)
    lines = [table.header, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.header))]
    for row in lines if table.rows else ():
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if not table.rows:
        typer.echo(f"There are no results in {results}.")
    for line in problems:
        typer.echo(line)
