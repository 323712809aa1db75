"""The table at the end of a run, made from its record and its scores alone: one row a scorer and metric."""

from __future__ import annotations

import csv
import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

from harness.records import ControlsRecord, Counts, IntervalRow, RunRecord, ScoreRow
from harness.statistics import Interval

_SCORE = "score % [95 %]"
_HEADER = ("model", "task", "n", "scorer", _SCORE, "ans. only", "answered", "unparsed", "failed", "trunc.", "seconds")
_FEW_CLUSTERS = 10
NOT_AVAILABLE = "not available"
_TEXT_COLUMNS = frozenset({"model", "task", "scorer", "condition", "metric", "better"})


@dataclass(frozen=True)
class Table:
    """Header and rows of cells that are ready to print."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def score_table(record: RunRecord, scores: Sequence[ScoreRow]) -> Table:
    """One row a score. The score's column is named after the metric where all rows share it."""
    metrics = sorted({row.metric for row in scores})
    shared = metrics[0] if len(metrics) == 1 else None
    header = tuple(f"{shared} % [95 %]" if shared and name == _SCORE else name for name in _HEADER)
    rows = tuple(_cells(record, row, shared is None) for row in scores)
    if not any(row.n_clean is not None for row in scores):
        return Table(header, rows)
    place = header.index("ans. only")
    cells = [(*row[:place], clean_text(score), *row[place:]) for row, score in zip(rows, scores, strict=True)]
    return Table((*header[:place], "clean", *header[place:]), tuple(cells))


def plain_text(table: Table) -> str:
    """Aligned columns, two spaces apart; a line is never wrapped or cut."""
    lines = [table.header, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if name in _TEXT_COLUMNS else cell.rjust(width)
            for name, cell, width in zip(table.header, line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def markdown_text(table: Table) -> str:
    """The table as GitHub shows it; numbers are aligned to the right."""
    rule = tuple(":--" if name in _TEXT_COLUMNS else "--:" for name in table.header)
    rows = (tuple(cell.replace("|", "\\|") for cell in row) for row in (table.header, rule, *table.rows))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def csv_text(table: Table) -> str:
    """The table as comma-separated values (RFC 4180, but for line ends)."""
    return csv_rows((table.header, *table.rows))


def csv_rows(rows: Iterable[Sequence[Any]]) -> str:
    """Rows of any values as comma-separated values; None is empty."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def stacked_text(table: Table) -> str:
    """One line a cell, for a terminal that is too narrow for columns."""
    width = max(len(name) for name in table.header)
    blocks = (zip(table.header, row, strict=True) for row in table.rows)
    return "\n\n".join("\n".join(f"{name.ljust(width)}  {cell}" for name, cell in block) for block in blocks)


def print_result(record: RunRecord, scores: Sequence[ScoreRow], folder: Path, stream: TextIO | None = None) -> None:
    """Print the table, where the record lies, and what a reader must not take the numbers for.

    Args:
        record: of the run.
        scores: the rows to show.
        folder: the run's folder.
        stream: standard output when None.
    """
    stream = sys.stdout if stream is None else stream
    table = score_table(record, scores)
    text = plain_text(table)
    is_too_wide = stream.isatty() and max(map(len, text.splitlines())) > shutil.get_terminal_size().columns
    print(stacked_text(table) if is_too_wide else text, file=stream)
    for line in closing_lines(record, folder, scores):
        print(line, file=stream)


def closing_lines(record: RunRecord, folder: Path, scores: Sequence[ScoreRow] | None = None) -> list[str]:
    """The lines below the table. `scores` are the rows in it, the record's own when None."""
    lines = [f"Record: {folder}"]
    if record.counts.failures:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in record.counts.failures.items())
        lines.append(f"Failed items count as wrong: {kinds}. Reasons are in predictions.jsonl.")
    lines += _cut_lines(record) + _leakage_lines(record)
    if record.counts.n_truncated:
        lines.append(
            f"Truncated items count as wrong: the model heard only a part of {record.counts.n_truncated} clips "
            f"(its policy: {record.model.length_policy})."
        )
    if record.counts.n_answers_cut:
        lines.append(
            f"{record.counts.n_answers_cut} answers reached the model's limit of tokens before their end; they are "
            "scored as they are."
        )
    if record.counts.notes:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in record.counts.notes.items())
        lines.append(f"Notes on clips: {kinds}. They are in predictions.jsonl; such clips are asked like any other.")
    if any(session.n_processes > 1 for session in record.sessions):
        counts = ", then ".join(str(n) for n, _ in groupby(session.n_processes for session in record.sessions))
        lines.append(f"Answered in {counts} processes.")
    rows = scores or record.scores
    lines += _remarks(rows)
    intervals = [row.interval for row in rows if row.interval]
    n_clusters = min((interval.n_clusters for interval in intervals), default=_FEW_CLUSTERS)
    if n_clusters < _FEW_CLUSTERS:
        recordings = "one recording" if n_clusters == 1 else f"only {n_clusters} recordings"
        lines.append(f"The clips come from {recordings}: too few for an interval to be relied on.")
    lines += no_width_lines(intervals)
    if record.model.trained_on:
        lines.append(f"The model learned from: {record.model.trained_on.rstrip('.')}.")
    if record.task.origin == "starter":
        lines.append(
            f"This is the starter set that comes with the harness: its scores are not {record.task.name} scores."
        )
    if record.task.origin == "generated":
        lines.append(
            "These items were generated by the harness: they are no published benchmark's. "
            f"`score {folder} --scorer NAME --by length_s,snr_db` splits the scores."
        )
    return lines


def _cut_lines(record: RunRecord) -> list[str]:
    """How much was heard, where the model's length policy names a cut that was made."""
    counts = record.counts
    if not counts.n_cut:
        return []
    policy, share = record.model.length_policy.partition(":")[0], counts.frames_heard / counts.frames_total
    return [
        f"{counts.n_cut} clips were cut as the policy {policy} says, and count as answered: the model heard "
        f"{counts.frames_heard} of {counts.frames_total} frames ({share * 100:.1f} %) of all clips."
    ]


def _leakage_lines(record: RunRecord) -> list[str]:
    """How many clips the model may have heard in training, and what that could not be told of."""
    leakage = record.leakage
    if leakage is None:
        return []
    lines = [
        f"The clips could not be compared with all that the model learned from: {what}." for what in leakage.unchecked
    ]
    if not leakage.flagged:
        return lines
    return [
        f"{len(leakage.flagged)} of {record.counts.n_items} clips, or their recordings, are among what the model "
        "learned from: record.json names them, and the column 'clean' leaves them out.",
        *lines,
    ]


def _remarks(rows: Sequence[ScoreRow]) -> list[str]:
    """Why a metric is not available, and what a reader must know of one that is; each thing once."""
    missing = [f"{row.metric} is not available: {row.unavailable}" for row in rows if row.unavailable is not None]
    notes = [f"{row.metric} ({row.scorer}): {note}" for row in rows for note in row.notes]
    return list(dict.fromkeys([*missing, *notes]))


def no_width_lines(intervals: Sequence[IntervalRow] | Sequence[Interval]) -> list[str]:
    """What a reader must not take for certainty: an interval of resamples that were all alike."""
    n_without = sum(interval.low == interval.high for interval in intervals)
    return [f"{n_without} intervals have no width, as all resamples were alike: that is not certainty."] * bool(
        n_without
    )


def few_clusters_lines(intervals: Sequence[IntervalRow]) -> list[str]:
    """How many of a table's intervals rest on too few recordings."""
    n_few = sum(interval.n_clusters < _FEW_CLUSTERS for interval in intervals)
    if not n_few:
        return []
    return [
        f"{n_few} of {len(intervals)} intervals are of fewer than {_FEW_CLUSTERS} recordings: too few to be relied on."
    ]


def score_text(row: ScoreRow) -> str:
    """The value in percent with its interval, or that there is none."""
    if row.value is None or row.interval is None:
        return NOT_AVAILABLE
    return f"{row.value * 100:.1f} [{row.interval.low * 100:.1f}, {row.interval.high * 100:.1f}]"


def clean_text(row: ScoreRow) -> str:
    """The score of the clips that the model did not learn from, "-" where there is none of its own."""
    return "-" if row.clean is None else f"{row.clean * 100:.1f} (n {row.n_clean})"


def truncated_text(counts: Counts) -> str:
    """How many clips were truncated, and how many cut as the model's policy says."""
    return f"{counts.n_truncated} + {counts.n_cut} cut" if counts.n_cut else str(counts.n_truncated)


def model_text(record: RunRecord | ControlsRecord) -> str:
    """The model as it is typed, such as "ssalm:tiny"."""
    return f"{record.model.name}:{record.model.variant}" if record.model.variant else record.model.name


def task_text(record: RunRecord) -> str:
    """The task with all that tells its clips and its question from those of another run.

    That is the origin of the data, options and a prompt that are not the defaults, how much of the benchmark was asked
    where that is not all, and how a part of the clips was chosen where the same number of others might have been.
    """
    task, n_items = record.task, record.counts.n_items
    parts = [str(task.origin), *(f"{name}={value}" for name, value in task.options_changed.items())]
    if record.protocol is not None:
        parts.append(f"protocol={record.protocol}")
    elif not record.prompt.is_default:
        parts.append(f"prompt={record.prompt.name}")
    if task.origin == "official" and n_items < task.n_declared:
        parts.append(f"{n_items} of {task.n_declared}")
    if n_items < task.n_found:
        parts += _choice_parts(record)
    return f"{task.name} ({', '.join(parts)})"


def _choice_parts(record: RunRecord) -> list[str]:
    items, seed = record.config_passed["items"], record.config_passed["seed"]
    if items is not None:
        return [f"items={Path(items).name}"]
    return [f"seed={seed}"] if seed else []


def _cells(record: RunRecord, row: ScoreRow, names_metric: bool) -> tuple[str, ...]:
    score = score_text(row)
    return (
        model_text(record),
        task_text(record),
        str(row.n_items),
        row.scorer,
        f"{row.metric} {score}" if names_metric else score,
        "-" if row.answered_only is None else f"{row.answered_only * 100:.1f}",
        str(row.n_answered),
        str(row.n_unparsed),
        str(record.counts.n_failed),
        truncated_text(record.counts),
        f"{record.times.wall_s:.1f}",
    )
