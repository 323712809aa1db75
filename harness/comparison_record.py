"""The record of a comparison and its table, made from the record alone: `results/compare/<utc>-<id>/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.compare import LEVEL, ComparisonReport, comparison_table
from harness.environment import describe_environment
from harness.hashing import canonical_sha256
from harness.record_files import to_json, write_atomically
from harness.records import RECORD_FILE, ComparedRuns, ComparisonRecord, ComparisonRow, load_comparison, load_record
from harness.run_folder import ID_LENGTH, create_run, newest_run, utc_now
from harness.tables import csv_text, markdown_text


def keep(report: ComparisonReport, results: Path, command: Sequence[str], seed: int) -> Path:
    """Write a comparison down, and return its folder; the same one as before where nothing changed since.

    Args:
        report: what was found.
        results: where records lie.
        command: the words of the command line.
        seed: of the bootstrap.

    Raises:
        RecordError: a run's record is gone or damaged, or the folder cannot be written.
        UsageError: the folder cannot be made.
    """
    runs = tuple(compared_runs(one, other) for one, other in report.folders)
    rows = tuple(ComparisonRow.model_validate(asdict(row)) for row in report.comparisons)
    asked = {
        "runs": [
            [r.first_run_id, r.first_predictions_sha256, r.second_run_id, r.second_predictions_sha256] for r in runs
        ],
        "rows": [[row.task, row.scorer, row.metric] for row in rows],
        "resamples": [row.interval.n_resamples for row in rows if row.interval is not None],
        "seed": seed,
    }
    comparison_id = canonical_sha256(asked)[:ID_LENGTH]
    place = results / "compare"
    before = newest_run(place, comparison_id)
    kept = None if before is None else load_comparison(before)
    if before is not None and kept is not None and (kept.comparisons, kept.runs) == (rows, runs):
        return before
    folder = create_run(place, comparison_id)
    table = comparison_table(report)
    # The record last: a folder without one is what an interrupted command left.
    write_atomically(folder / "table.md", markdown_text(table))
    write_atomically(folder / "table.csv", csv_text(table))
    record = ComparisonRecord(
        comparison_id=comparison_id,
        asked=asked,
        command=tuple(command),
        created_utc=utc_now(),
        environment=describe_environment("cpu"),
        first=report.first,
        second=report.second,
        level=LEVEL,
        runs=runs,
        comparisons=rows,
        remarks=report.remarks,
    )
    write_atomically(folder / RECORD_FILE, to_json(record))
    return folder


def compared_runs(one: Path, other: Path) -> ComparedRuns:
    """What a comparison keeps of the two runs in these folders."""
    first, second = load_record(one), load_record(other)
    assert first is not None and second is not None
    return ComparedRuns(
        task=first.task.name,
        first_folder=str(one),
        second_folder=str(other),
        first_run_id=first.run_id,
        second_run_id=second.run_id,
        first_predictions_sha256=first.predictions_sha256,
        second_predictions_sha256=second.predictions_sha256,
    )
