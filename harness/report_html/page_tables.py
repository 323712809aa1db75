"""The tables of the page: cells with what is shown and what they are sorted by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.frontier_rows import PROBES_FILE, FrontierRow, load_frontier
from harness.frontier_table import length_text, model_name
from harness.records import ScoreRow
from harness.report_html.found_runs import FoundRun, Skipped
from harness.results_frame import model_order
from harness.scaling_rows import POINTS_FILE, PointRow, SpreadRow, load_points, newest_points
from harness.tables import NOT_AVAILABLE, clean_text, task_text, truncated_text

_ORIGINS = {
    "official": "Official data",
    "starter": "Starter sets: small sets that come with the harness; their scores are not the benchmarks' scores",
    "generated": "Generated data: no published benchmark's",
}


@dataclass(frozen=True)
class Cell:
    """`value` sorts the column, None goes last; `small` is a second line; `run` makes the cell a link to its items."""

    text: str
    value: float | str | None
    small: str = ""
    run: str = ""


@dataclass(frozen=True)
class PageTable:
    """`note` is read below the caption; `numeric` names the columns that are aligned to the right."""

    caption: str
    note: str
    header: tuple[str, ...]
    numeric: frozenset[str]
    rows: tuple[tuple[Cell, ...], ...]


def score_tables(runs: Sequence[FoundRun], names: Mapping[str, str]) -> list[PageTable]:
    """One table for each origin of the data and metric: a row a run, a column a scorer.

    Args:
        runs: what to show.
        names: what each run's model is called, by the run's place.
    """
    tables = []
    for origin, title in _ORIGINS.items():
        of_origin = [run for run in runs if run.record.task.origin == origin]
        for metric in sorted({row.metric for run in of_origin for row in run.scores}):
            tables.append(_score_table(of_origin, names, metric, title))
    return tables


def _score_table(runs: Sequence[FoundRun], names: Mapping[str, str], metric: str, title: str) -> PageTable:
    shown = [run for run in runs if any(row.metric == metric for row in run.scores)]
    scorers = sorted({row.scorer for run in shown for row in run.scores if row.metric == metric})
    scored = tuple(f"{scorer} %" for scorer in scorers)
    return PageTable(
        caption=f"{metric}: {title}",
        note="Percent with 95 % intervals over all items; failed, unparsed and truncated ones count as wrong. Each "
        "column is one scorer: numbers of different scorers are not comparable.",
        header=("model", "task", "items", "n", *scored, "failed", "truncated", "seconds"),
        numeric=frozenset({"n", *scored, "failed", "truncated", "seconds"}),
        rows=tuple(_score_cells(run, names[run.place], metric, scorers) for run in shown),
    )


def _score_cells(run: FoundRun, name: str, metric: str, scorers: Sequence[str]) -> tuple[Cell, ...]:
    record = run.record
    by_scorer = {row.scorer: row for row in run.scores if row.metric == metric}
    seconds = record.times.wall_s
    return (
        _text(name),
        _text(task_text(record)),
        # Not at the end, where a narrow window would hide the way to the items.
        Cell("browse", run.key, run=run.key),
        Cell(str(record.counts.n_items), record.counts.n_items),
        *(_score_cell(by_scorer.get(scorer)) for scorer in scorers),
        Cell(str(record.counts.n_failed), record.counts.n_failed),
        Cell(truncated_text(record.counts), record.counts.n_truncated),
        Cell(f"{seconds:.1f}", seconds),
    )


def _score_cell(row: ScoreRow | None) -> Cell:
    if row is None:
        return Cell("-", None)
    if row.value is None or row.interval is None:
        return Cell(NOT_AVAILABLE, None, small=row.unavailable or "")
    interval = f"[{row.interval.low * 100:.1f}, {row.interval.high * 100:.1f}]"
    return Cell(f"{row.value * 100:.1f} {interval}", row.value, small="; ".join(_beside(row)))


def _beside(row: ScoreRow) -> list[str]:
    """What stands beside the score where it says something else."""
    parts = []
    if row.n_answered != row.n_items and row.answered_only is not None:
        parts.append(f"answered only {row.answered_only * 100:.1f} (n {row.n_answered})")
    if row.n_unparsed:
        parts.append(f"{row.n_unparsed} unparsed")
    if row.n_clean is not None:
        parts.append(f"not learned from: {clean_text(row)}")
    return [*parts, *row.notes]


# --- cost ------------------------------------------------------------------------------------------------------------


def scaling_tables(results: Path) -> tuple[list[PageTable], list[Skipped]]:
    """One table for each folder with measured points: times of a whole batch, the newest of each point."""
    tables, skipped = [], []
    for path in sorted(results.glob(f"**/scaling/*/{POINTS_FILE}")):
        key = path.parent.relative_to(results).as_posix()
        try:
            points = newest_points(load_points(path.parent))
        except HarnessError as error:
            skipped.append(Skipped(key, str(error)))
            continue
        tables.append(_scaling_table(key, points))
    return tables, skipped


def _scaling_table(key: str, points: Sequence[PointRow]) -> PageTable:
    numbers = ("audio s", "batch", "time s", "first token s", "per token s", "FLOPs G", "allocated MB", "process MB")
    return PageTable(
        caption=f"Cost by length: {key}",
        note="Medians with 95 % intervals, of a whole batch. G is 10^9 and MB 10^6 bytes; one multiplication or one "
        "addition is one FLOP, from formulas.",
        header=("model", "step", "device", *numbers, "outcome"),
        numeric=frozenset(numbers),
        rows=tuple(_scaling_cells(point) for point in sorted(points, key=_place_of_point)),
    )


def _place_of_point(point: PointRow) -> tuple[object, ...]:
    key = point.key
    return (model_order(key.model), key.full_name, key.step, key.batch_size, key.seconds)


def _scaling_cells(point: PointRow) -> tuple[Cell, ...]:
    found, key = point.measured, point.key
    work = found.work if found else None
    return (
        _text(key.full_name),
        _text(key.step),
        _text(f"{key.device}, {key.dtype}, {key.threads} thread{'s' * (key.threads != 1)}"),
        Cell(f"{key.seconds:g}", key.seconds),
        Cell(str(key.batch_size), key.batch_size),
        _spread(found.total if found else None),
        _spread(found.first_token if found else None),
        _spread(found.per_token if found else None),
        _number(work.flops if work else None, 1e9),
        _number(found.memory.peak.allocated if found else None, 1e6),
        _number(found.memory.peak.process if found else None, 1e6),
        Cell(point.outcome, point.outcome, small=point.message),
    )


def frontier_tables(results: Path) -> tuple[list[PageTable], list[Skipped]]:
    """One table for each `frontier` command: a row a model."""
    tables, skipped = [], []
    for path in sorted(results.glob(f"**/frontier/*/{PROBES_FILE}")):
        key = path.parent.relative_to(results).as_posix()
        try:
            record = load_frontier(path.parent)
        except HarnessError as error:
            skipped.append(Skipped(key, str(error)))
            continue
        tables.append(_frontier_table(key, record.rows))
    return tables, skipped


def _frontier_table(key: str, rows: Sequence[FrontierRow]) -> PageTable:
    return PageTable(
        caption=f"Longest audio: {key}",
        note="The longest audio that passed all its probes under the caps of the record.",
        header=("model", "longest audio", "passed", "breaks at", "by", "says"),
        numeric=frozenset({"longest audio", "passed", "breaks at"}),
        rows=tuple(_frontier_cells(row) for row in rows),
    )


def _frontier_cells(row: FrontierRow) -> tuple[Cell, ...]:
    is_bound = row.edge_s is not None and row.breaks_by is None
    return (
        _text(model_name(row)),
        _length(row.edge_s, "at least " if is_bound else ""),
        Cell(str(row.n_passes), row.n_passes),
        _length(row.breaks_at_s),
        _text("-" if row.breaks_by is None else row.breaks_by.replace("_", " ")),
        _text(row.breaks_message or "-"),
    )


def _text(text: str) -> Cell:
    return Cell(text, text)


def _number(value: float | None, unit: float) -> Cell:
    return Cell("-", None) if value is None else Cell(f"{value / unit:.4g}", value)


def _spread(spread: SpreadRow | None) -> Cell:
    if spread is None:
        return Cell("-", None)
    has_interval = spread.low is not None and spread.high is not None
    interval = f" [{spread.low:.3g}, {spread.high:.3g}]" if has_interval else ""
    return Cell(f"{spread.median:.3g}{interval}", spread.median)


def _length(seconds: float | None, before: str = "") -> Cell:
    return Cell("-", None) if seconds is None else Cell(f"{before}{length_text(seconds)}", seconds)
