"""Results split by what the items say of themselves: a metric by length, depth and signal-to-noise ratio.

An item's metadata is in its line of `predictions.jsonl`, so nothing is read again. Every combination of values that
occurs is a stratum. Each is scored like a run of its own: every declared item in the denominator, the same cluster
bootstrap. Items of one recording are in one cluster and may be in many strata, so two strata's intervals are not
independent.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.contracts import OptionValue
from harness.errors import UsageError
from harness.record_files import write_atomically
from harness.records import Prediction, RunRecord, ScoreRow, load_predictions
from harness.scores import check_metric_fits, check_scorer_fits, compute_scores, load_finished, run_facts
from harness.tables import Table, few_clusters_lines, no_width_lines, score_text

MOST_STRATA = 500
_LISTED = 12


@dataclass(frozen=True)
class Stratum:
    """The items with the same values of some metadata, and their score."""

    values: tuple[OptionValue, ...]
    score: ScoreRow


@dataclass(frozen=True)
class StrataReport:
    """One run, one scorer, one metric, split by the metadata `by`; strata in the order of their values."""

    by: tuple[str, ...]
    scorer: str
    metric: str
    strata: tuple[Stratum, ...]


def strata_of(
    folder: Path, scorers: Sequence[str], by: Sequence[str], metrics: Sequence[str] = ()
) -> tuple[RunRecord, list[StrataReport]]:
    """Score the strata of a finished run, and write `strata-<scorer>-<metric>-by-<names>.csv` beside its predictions.

    Args:
        folder: a run's folder.
        scorers: their names.
        by: names of metadata, such as ("length_s", "depth", "snr_db").
        metrics: their names; the task's own when empty.

    Raises:
        RecordError: the run is damaged, or has no record.
        UsageError: the run is not finished, its items lack such metadata, or it has too many values to be strata; or a
            scorer or metric does not fit.
    """
    record = load_finished(folder)
    groups = grouped(load_predictions(folder), by)
    wanted = tuple(metrics) or record.task.metrics
    for metric in wanted:
        check_metric_fits(metric, record.task.kind)
    reports = []
    for scorer in scorers:
        check_scorer_fits(scorer, record.task.kind)
        for report in _reports(record, groups, scorer, wanted, by):
            write_atomically(strata_file(folder, report), strata_csv(report))
            reports.append(report)
    return record, reports


def grouped(predictions: Sequence[Prediction], by: Sequence[str]) -> dict[tuple[OptionValue, ...], list[Prediction]]:
    """Predictions by their values of `by`, in the order of the values: numbers, then texts, then none.

    Raises:
        UsageError: an item lacks one of them, or there are more than MOST_STRATA combinations.
    """
    if not by or len(set(by)) < len(by):
        raise UsageError("--by needs names of metadata, each once, such as length_s,depth.")
    groups: dict[tuple[OptionValue, ...], list[Prediction]] = {}
    for prediction in predictions:
        values = tuple(_value(prediction, name, predictions) for name in by)
        groups.setdefault(values, []).append(prediction)
    if len(groups) > MOST_STRATA:
        raise UsageError(f"--by {','.join(by)} makes {len(groups)} strata; {MOST_STRATA} are the most.")
    return {values: groups[values] for values in sorted(groups, key=lambda values: [_order(value) for value in values])}


def _value(prediction: Prediction, name: str, predictions: Sequence[Prediction]) -> OptionValue:
    if name in prediction.metadata:
        return prediction.metadata[name]
    known = sorted(set.intersection(*(set(row.metadata) for row in predictions)))
    shown = ", ".join(known[:_LISTED]) if known else "none; a run of before metadata was recorded has none"
    raise UsageError(f"--by {name}: the item '{prediction.item_id}' has no such metadata. All items have: {shown}.")


def _order(value: OptionValue) -> tuple[int, float, str]:
    if value is None:
        return 2, 0.0, ""
    return (1, 0.0, value) if isinstance(value, str) else (0, float(value), "")


def _reports(
    record: RunRecord,
    groups: Mapping[tuple[OptionValue, ...], Sequence[Prediction]],
    scorer: str,
    metrics: Sequence[str],
    by: Sequence[str],
) -> list[StrataReport]:
    """One report a metric."""
    facts = run_facts(record)
    rows = [compute_scores(items, record.task.labels, scorer, metrics, facts) for items in groups.values()]
    return [
        StrataReport(
            by=tuple(by),
            scorer=rows[0][place].scorer,
            metric=metric,
            strata=tuple(Stratum(values, row[place]) for values, row in zip(groups, rows, strict=True)),
        )
        for place, metric in enumerate(metrics)
    ]


# --- showing ---------------------------------------------------------------------------------------------------------


def strata_table(report: StrataReport) -> Table:
    """One row a stratum."""
    header = (*report.by, "n", f"{report.metric} % [95 %]", "unparsed", "failed")
    rows = tuple(
        (
            *(_text(value) for value in stratum.values),
            str(stratum.score.n_items),
            score_text(stratum.score),
            str(stratum.score.n_unparsed),
            str(stratum.score.n_failed),
        )
        for stratum in report.strata
    )
    return Table(header, rows)


def strata_lines(report: StrataReport) -> list[str]:
    """What a reader must know of the table's intervals, which are of few items each."""
    intervals = [stratum.score.interval for stratum in report.strata if stratum.score.interval is not None]
    reasons = dict.fromkeys(stratum.score.unavailable for stratum in report.strata if stratum.score.unavailable)
    missing = [f"{report.metric} is not available: {reason}" for reason in reasons]
    return [*missing, *few_clusters_lines(intervals), *no_width_lines(intervals)]


def strata_csv(report: StrataReport) -> str:
    """The same for other programs: shares in [0, 1], empty where there is none."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    counts = ("n_items", "n_clusters", "n_answered", "n_unparsed", "n_failed")
    writer.writerow([*report.by, "scorer", "metric", "value", "low", "high", "confidence", *counts, "unavailable"])
    for stratum in report.strata:
        score = stratum.score
        interval = score.interval
        bounds = [interval.low, interval.high, interval.confidence] if interval else ["", "", ""]
        n_clusters = interval.n_clusters if interval else ""
        writer.writerow(
            [
                *("" if value is None else value for value in stratum.values),
                *(report.scorer, report.metric, "" if score.value is None else score.value, *bounds),
                *(score.n_items, n_clusters, score.n_answered, score.n_unparsed, score.n_failed),
                score.unavailable or "",
            ]
        )
    return stream.getvalue()


def _text(value: OptionValue) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def strata_file(folder: Path, report: StrataReport) -> Path:
    """Where the table of a report lies in its run's folder."""
    # A scorer's options are part of its name, and may hold what a file's name cannot.
    name = f"strata-{report.scorer}-{report.metric}-by-{'-'.join(report.by)}"
    return folder / (re.sub(r"[^\w.=-]+", "_", name) + ".csv")
