"""What is measured on two sets of answers at once, computed anew: audio gains, sensitivity, and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.compare import LEVEL, TIED, ComparisonReport, compare
from harness.control_sources import CONTROLS
from harness.controls import audio_gain, sensitivity
from harness.errors import HarnessError, UsageError
from harness.measuring import BoundMetric
from harness.records import ComparedRuns, ComparisonRow, GainRow, Prediction
from harness.registry import create
from harness.report.differing import differing
from harness.report.loading import KeptComparison, KeptControls, Results
from harness.results_frame import KeptRun
from harness.scores import RunFacts, decided_items, run_facts
from harness.scoring import gives_scores, is_better_low
from harness.statistics import holm
from harness.tables import task_text

# Ask a paid service over the network: `score RUN --scorer ltu` is the command for that.
ASKS_A_SERVICE = ("ltu",)
_SILENCED = "last_second_silenced"
# Of a row of `compare`, what its own pair does not decide.
_OF_THE_FAMILY = frozenset({"p_holm", "better"})
# Of such a row, what an older record does not have.
_LATER = frozenset({"n_flipped", "n_first_only", "n_second_only"})


# --- controls --------------------------------------------------------------------------------------------------------


def gain_differences(
    kept: KeptControls, predictions: Mapping[str, Sequence[Prediction]]
) -> tuple[list[str], list[str], int]:
    """Where gains and sensitivity differ from what the answers give; which were not computed, with the reason; and how
    many gains were.

    Args:
        kept: the controls.
        predictions: the answers of each condition.
    """
    differences: list[str] = []
    missing: list[str] = []
    n_made = 0
    facts = run_facts(kept.record)
    for gain in kept.record.gains:
        place = f"{kept.place}, gain in {gain.metric} by {gain.scorer}"
        if gain.gain is None:
            continue
        lacking = [name for name in ("real", *CONTROLS) if name not in predictions]
        if lacking:
            differences.append(f"{place}: it stands there without answers of {', '.join(lacking)}")
        elif gain.scorer.partition("[")[0] in ASKS_A_SERVICE:
            missing.append(f"{place}: this scorer asks a service over the network")
        else:
            try:
                made = _gain(kept, gain, predictions, facts)
            except HarnessError as error:
                missing.append(f"{place}: {error}")
                continue
            n_made += 1
            differences += [f"{place}, {text}" for text in _first(gain.model_dump(), made.model_dump())]
    found = kept.record.sensitivity
    if found is not None and {"real", _SILENCED} <= predictions.keys():
        made_anew = sensitivity(predictions["real"], predictions[_SILENCED])
        texts = _first(found.model_dump(), made_anew.model_dump())
        differences += [f"{kept.place}, sensitivity, {text}" for text in texts]
    return differences, missing, n_made


def _gain(
    kept: KeptControls, gain: GainRow, predictions: Mapping[str, Sequence[Prediction]], facts: RunFacts
) -> GainRow:
    labels = kept.record.task.labels
    decided = {name: decided_items(predictions[name], labels, gain.scorer, facts) for name in ("real", *CONTROLS)}
    scorer = decided["real"][0]
    names = tuple(label.name for label in labels)
    function = create("metrics", gain.metric).value
    bound = BoundMetric(gain.metric, names, function, gives_scores(scorer), facts.n_trials)
    return audio_gain(scorer.name, bound, {name: items for name, (_, items) in decided.items()})


def _first(stated: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    """The first three differences; what an older record does not have cannot differ."""
    unknown = {name for name in _LATER if stated.get(name) is None}
    one, other = ({name: value for name, value in each.items() if name not in unknown} for each in (stated, made))
    return list(differing(one, other))[:3]


# --- paired tests ----------------------------------------------------------------------------------------------------


def comparison_differences(kept: KeptComparison, results: Results) -> tuple[list[str], list[str], int]:
    """Where a comparison differs from what the answers give; which rows were not computed, with the reason; and how
    many were."""
    made: dict[tuple[str, str, str], ComparisonRow] = {}
    differences, missing = [], []
    left: list[ComparisonRow] = []
    for number, pair in enumerate(kept.record.runs):
        runs = [
            _run(results, pair.first_run_id, pair.first_predictions_sha256),
            _run(results, pair.second_run_id, pair.second_predictions_sha256),
        ]
        of_pair = [row for row in kept.record.comparisons if _is_of(row, pair, runs[0])]
        if runs[0] is None or runs[1] is None:
            missing += [
                f"{_place(kept, row)}: the runs that it compared are not among these results" for row in of_pair
            ]
            left += of_pair
            continue
        for scorer in dict.fromkeys(row.scorer for row in of_pair):
            rows = [row for row in of_pair if row.scorer == scorer]
            try:
                report = _compared(rows, runs[0], runs[1], scorer)
            except HarnessError as error:
                missing += [f"{_place(kept, row)}: {error}" for row in rows]
                left += rows
                continue
            made |= {(row.task, row.scorer, row.metric): row for row in _rows(report)}
            differences += _name_differences(kept, report) if number == 0 else []
    n_made = 0
    for row in kept.record.comparisons:
        new = made.get((row.task, row.scorer, row.metric))
        if new is None and row not in left:
            differences.append(f"{_place(kept, row)}: no pair of runs that it names gives this row")
        elif new is not None and new.unavailable is not None and row.unavailable is None:
            missing.append(f"{_place(kept, row)}: {new.unavailable}")
        elif new is not None and row.unavailable is None:
            n_made += 1
            texts = _first(row.model_dump(exclude=set(_OF_THE_FAMILY)), new.model_dump(exclude=set(_OF_THE_FAMILY)))
            differences += [f"{_place(kept, row)}, {text}" for text in texts]
    return [*dict.fromkeys(differences), *_verdict_differences(kept)], missing, n_made


def _place(kept: KeptComparison, row: ComparisonRow) -> str:
    return f"{kept.place}, {row.task}, {row.metric} by {row.scorer}"


def _run(results: Results, run_id: str, predictions_sha256: str | None) -> KeptRun | None:
    """By both: a run that went on has other answers under its id, and two runs may have the same answers."""
    wanted = (run_id, predictions_sha256)
    return next((run for run in results.runs if (run.record.run_id, run.record.predictions_sha256) == wanted), None)


def _is_of(row: ComparisonRow, pair: ComparedRuns, first: KeptRun | None) -> bool:
    """Whether the pair gave the row; without its runs, one task asked in two ways cannot be told apart."""
    return row.task.partition(" (")[0] == pair.task if first is None else row.task == task_text(first.record)


def _compared(rows: Sequence[ComparisonRow], first: KeptRun, second: KeptRun, scorer: str) -> ComparisonReport:
    """The rows of one pair and scorer, tested again.

    Raises:
        HarnessError: that cannot be done here.
    """
    if scorer.partition("[")[0] in ASKS_A_SERVICE:
        raise UsageError("this scorer asks a service over the network")
    resamples = {row.interval.n_resamples for row in rows if row.interval is not None}
    seeds = {row.interval.seed for row in rows if row.interval is not None}
    return compare(
        str(first.folder),
        str(second.folder),
        results=first.folder,
        scorers=[scorer],
        metrics=list(dict.fromkeys(row.metric for row in rows)),
        n_resamples=resamples.pop() if resamples else 1,
        seed=seeds.pop() if seeds else 0,
    )


def _rows(report: ComparisonReport) -> list[ComparisonRow]:
    return [ComparisonRow.model_validate(asdict(row)) for row in report.comparisons]


def _name_differences(kept: KeptComparison, report: ComparisonReport) -> list[str]:
    """Names of models other than those of the first pair of runs, after which `compare` calls both sides."""
    stated, made = ({"first": each.first, "second": each.second} for each in (kept.record, report))
    return [f"{kept.place}, {text}" for text in differing(stated, made)]


def _verdict_differences(kept: KeptComparison) -> list[str]:
    """Adjusted p-values and verdicts that do not follow from the p-values, over the tasks of a scorer and metric."""
    rows = kept.record.comparisons
    found = []
    for family in sorted({(row.scorer, row.metric) for row in rows}):
        own = [row for row in rows if (row.scorer, row.metric) == family and row.p_value is not None]
        for row, p_holm in zip(own, holm([row.p_value or 0.0 for row in own]), strict=True):
            gain = (row.difference or 0.0) * (-1.0 if is_better_low(row.metric) else 1.0)
            winner = kept.record.second if gain > 0 else kept.record.first
            better = winner if p_holm < LEVEL and gain else TIED
            texts = differing({"p_holm": row.p_holm, "better": row.better}, {"p_holm": p_holm, "better": better})
            found += [f"{_place(kept, row)}, {text}" for text in texts]
    return found
