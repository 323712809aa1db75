"""From what was read to files: tables as csv, md and tex, figures as svg, pdf and png, and a sidecar beside each.

A sidecar, `<name>.json`, tells the title, the notes, the runs that were used, the hashes of the files, and of a figure
all numbers that it draws. The same results give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import RecordError
from harness.hashing import file_sha256
from harness.record_files import write_atomically
from harness.report.accuracy import accuracy_tables
from harness.report.architecture_plots import architecture_figures
from harness.report.architecture_tables import architecture_tables, two_by_twos_of
from harness.report.comparison_plots import comparison_figures
from harness.report.cost_plots import cost_figures
from harness.report.costs import cost_tables
from harness.report.kept_tables import kept_tables
from harness.report.loading import Results
from harness.report.main_tables import main_tables
from harness.report.needle_plots import needle_figures
from harness.report.other_plots import other_figures
from harness.report.over_seeds import seed_tables
from harness.report.rendering import ReportTable, Source, to_csv, to_latex, to_markdown
from harness.report.run_plots import run_figures
from harness.report.streaming_plots import streaming_figures
from harness.report.style import FigureSpec, write_figure
from harness.report.training_tables import training_tables

MADE_BY = "lalm-harness report"
TABLES, FIGURES = "tables", "figures"
_MISSING: Mapping[str, str] = {
    "runs": "There is no finished run: `run --model MODEL --task TASK` makes one.",
    "scaling": "There is no scaling record: `scaling` makes one.",
    "frontiers": "There is no frontier: `frontier` finds one.",
    "streaming": "There is no cost of listening on: `frontier --streaming` measures it.",
    "controls": "There are no controls: `controls --model MODEL --task TASK` makes them.",
    "comparisons": "There is no paired test: `compare A B` makes one.",
    "training": "There is no training curve: `train` writes one.",
}


@dataclass(frozen=True)
class Report:
    """All tables and figures of a results folder, not yet written, and what a reader must know of what is not there."""

    tables: tuple[ReportTable, ...]
    figures: tuple[FigureSpec, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Written:
    """Paths of what was written, and of old files that nothing makes any more and that were removed."""

    paths: tuple[Path, ...]
    removed: tuple[Path, ...]


def make_report(results: Results) -> Report:
    """Make every table and figure; nothing is written."""
    heat_maps, remarks = needle_figures(results)
    fourfold = two_by_twos_of(results)
    tables = [
        *main_tables(results),
        *accuracy_tables(results),
        *seed_tables(results),
        *architecture_tables(fourfold, results),
        *cost_tables(results),
        *kept_tables(results),
    ]
    tables += training_tables(results)
    figures = [
        *run_figures(results),
        *architecture_figures(fourfold),
        *cost_figures(results),
        *streaming_figures(results),
        *comparison_figures(results),
        *heat_maps,
        *other_figures(results),
    ]
    missing = [sentence for kind, sentence in _MISSING.items() if not getattr(results, kind)]
    for kind, names in (("tables", [t.name for t in tables]), ("figures", [f.name for f in figures])):
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise RecordError(f"Two {kind} of one name: {', '.join(doubled)}. Report this with the results folder.")
    return Report(tuple(tables), tuple(figures), (*missing, *remarks))


def write_report(report: Report, out: Path, tick: Callable[[], None] = lambda: None) -> Written:
    """Write all into `out`/tables and `out`/figures, and remove what an earlier report wrote and this one does not.

    Args:
        report: what to write.
        out: a folder; it is made where it is missing.
        tick: called after each table and figure.

    Raises:
        RecordError: a file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    folders = {name: out / name for name in (TABLES, FIGURES)}
    for folder in folders.values():
        _make_folder(folder)
    paths = []
    for table in report.tables:
        paths += _write_table(table, folders[TABLES])
        tick()
    for spec in report.figures:
        drawn = write_figure(spec, folders[FIGURES])
        sidecar = folders[FIGURES] / f"{spec.name}.json"
        write_atomically(sidecar, sidecar_text(figure_facts(spec), drawn))
        paths += [*drawn, sidecar]
        tick()
    removed = [old for folder in folders.values() for old in stale_files(folder, {path.name for path in paths})]
    for old in removed:
        old.unlink()
    return Written(tuple(paths), tuple(removed))


def table_texts(table: ReportTable) -> dict[str, str]:
    """File name to content, without the sidecar."""
    makers = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
    return {f"{table.name}.{suffix}": make(table) for suffix, make in makers.items()}


def table_facts(table: ReportTable) -> dict[str, Any]:
    """What the sidecar of a table tells beside the hashes."""
    return _facts(table.name, table.title, table.all_notes(), table.sources)


def figure_facts(spec: FigureSpec) -> dict[str, Any]:
    """What the sidecar of a figure tells beside the hashes."""
    facts = _facts(spec.name, spec.title, spec.notes, spec.sources) | {"data": spec.data}
    # As it will be read back: lists for tuples, texts for keys.
    return dict(json.loads(json.dumps(facts, allow_nan=False)))


def sidecar_text(facts: Mapping[str, Any], files: Sequence[Path]) -> str:
    """The sidecar's content."""
    hashes = {path.name: file_sha256(path) for path in files}
    return json.dumps({**facts, "files": hashes}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def stale_files(folder: Path, current: set[str]) -> list[Path]:
    """Files that a sidecar names as its own, and the sidecars, whose names are not among the current ones."""
    names = {name for path, facts in sidecars(folder) for name in (path.name, *facts["files"])}
    return [folder / name for name in sorted(names - current) if (folder / name).is_file()]


def sidecars(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The sidecars of a folder, by name.

    Raises:
        RecordError: one is damaged.
    """
    for path in sorted(folder.glob("*.json")):
        facts = _read_json(path)
        if isinstance(facts, dict) and facts.get("made_by") == MADE_BY:
            yield path, _checked_sidecar(path, facts)


def load_sidecar(path: Path) -> dict[str, Any]:
    """A sidecar that this program wrote; of its "files", those that lie beside it.

    Raises:
        RecordError: it is damaged.
    """
    return _checked_sidecar(path, _read_json(path))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise RecordError(f"{path} is not JSON: {error}. Remove it, and write the report again.") from error


def _checked_sidecar(path: Path, facts: Any) -> dict[str, Any]:
    files = facts.get("files") if isinstance(facts, dict) else None
    if not isinstance(files, dict):
        raise RecordError(f"{path} names no files with their hashes. Remove it, and write the report again.")
    # Names alone: a path would reach files that are not the report's.
    return {**facts, "files": {name: sha for name, sha in files.items() if Path(name).name == name}}


def _facts(name: str, title: str, notes: Sequence[str], sources: Sequence[Source]) -> dict[str, Any]:
    return {
        "made_by": MADE_BY,
        "name": name,
        "title": title,
        "notes": list(notes),
        "sources": [asdict(source) for source in sources],
    }


def _write_table(table: ReportTable, folder: Path) -> list[Path]:
    paths = []
    for name, text in table_texts(table).items():
        write_atomically(folder / name, text)
        paths.append(folder / name)
    sidecar = folder / f"{table.name}.json"
    write_atomically(sidecar, sidecar_text(table_facts(table), paths))
    return [*paths, sidecar]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"{folder} cannot be made: {error.strerror or error}.") from error
