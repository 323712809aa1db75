"""Scores and summaries computed anew from what they were made of: answers, samples, probes.

What cannot be computed here, for want of a tool or a service, keeps its recorded value and is told of in one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.errors import HarnessError
from harness.frontier import full_name
from harness.records import ControlsRecord, LabelRow, Prediction, RunRecord, ScoreRow, load_predictions
from harness.report.differing import differing
from harness.report.loading import KeptControls, KeptFrontier, KeptScaling, KeptStreaming, Results
from harness.report.rederiving_pairs import ASKS_A_SERVICE, comparison_differences, gain_differences
from harness.scores import RunFacts, compute_scores, make_scorer, run_facts, told_as
from harness.timing import Spread

_SPREADS = {"total": "total_s", "first_token": "first_token_s", "per_token": "per_token_s"}


@dataclass(frozen=True)
class Rederived:
    """The results with every score computed anew; what differs from the records, and what could not be computed."""

    results: Results
    n_values: int
    differences: tuple[str, ...]
    not_rederived: tuple[str, ...]


def rederive(results: Results) -> Rederived:
    """Compute anew all that tables and figures show, and set it beside the records."""
    runs, differences, missing, n_values = [], [], [], 0
    for run in results.runs:
        scores, found, left = _scores(run.scores, run.predictions, run.record.task.labels, run_facts(run.record))
        runs.append(replace(run, scores=tuple(scores)))
        differences += [f"{run.place}: {text}" for text in found]
        missing += [f"{run.place}: {text}" for text in left]
        n_values += len(scores) - len(left)
    for controls in results.controls:
        found, left, n = _controls(controls)
        differences += found
        missing += left
        n_values += n
    for comparison in results.comparisons:
        found, left, n = comparison_differences(comparison, results)
        differences += found
        missing += left
        n_values += n
    for scaling in results.scaling:
        differences += _scaling_differences(scaling)
        n_values += sum(point.measured is not None for point in scaling.points)
    for frontier in results.frontiers:
        differences += _frontier_differences(frontier)
        n_values += len(frontier.record.rows)
    for streaming in results.streaming:
        differences += _streaming_differences(streaming)
        n_values += len(streaming.record.rows)
    return Rederived(replace(results, runs=tuple(runs)), n_values, tuple(differences), tuple(missing))


# --- scores ----------------------------------------------------------------------------------------------------------


def _scores(
    stored: Sequence[ScoreRow], predictions: Sequence[Prediction], labels: Sequence[LabelRow], facts: RunFacts
) -> tuple[list[ScoreRow], list[str], list[str]]:
    """The scores computed anew where that is possible; where they differ; and which were not computed."""
    made: list[ScoreRow] = []
    differences: list[str] = []
    missing: list[str] = []
    for old in stored:
        new = _anew(old, predictions, labels, facts)
        name = f"{old.metric} by {old.scorer}"
        if isinstance(new, str):
            missing.append(f"{name}: {new}")
            made.append(old)
            continue
        made.append(new)
        stated, found = old.model_dump(mode="json"), new.model_dump(mode="json")
        differences += [f"{name}, {text}" for text in list(differing(stated, found))[:3]]
    return made, differences, missing


def _anew(
    old: ScoreRow, predictions: Sequence[Prediction], labels: Sequence[LabelRow], facts: RunFacts
) -> ScoreRow | str:
    """The score computed anew, or why it cannot be."""
    if old.scorer.partition("[")[0] in ASKS_A_SERVICE:
        return "this scorer asks a service over the network"
    try:
        version = make_scorer(old.scorer).version
        if version != old.scorer_version:
            return f"scored by version {old.scorer_version} of the scorer; this program has version {version}"
        (new,) = compute_scores(predictions, labels, old.scorer, [old.metric], facts)
    except HarnessError as error:
        return str(error)
    if new.unavailable is not None and old.unavailable is None:
        return new.unavailable
    # What was not available then need not be so now.
    return old if old.unavailable is not None else told_as(old, new)


def _controls(kept: KeptControls) -> tuple[list[str], list[str], int]:
    """Differences, what was not computed, and how many values were."""
    record: ControlsRecord | RunRecord = kept.record
    differences: list[str] = []
    missing: list[str] = []
    answers: dict[str, list[Prediction]] = {}
    n_values = 0
    for condition in kept.record.conditions:
        place = f"{kept.place}/{condition.name}"
        try:
            predictions = load_predictions(kept.folder / condition.name)
        except HarnessError as error:
            differences.append(str(error))
            continue
        answers[condition.name] = predictions
        made, found, left = _scores(condition.scores, predictions, record.task.labels, run_facts(record))
        differences += [f"{place}: {text}" for text in found]
        missing += [f"{place}: {text}" for text in left]
        n_values += len(made) - len(left)
    found, left, n_gains = gain_differences(kept, answers)
    return [*differences, *found], [*missing, *left], n_values + n_gains


# --- costs -----------------------------------------------------------------------------------------------------------


def _scaling_differences(kept: KeptScaling) -> list[str]:
    """Medians and intervals that do not follow from their samples."""
    found = []
    for point in kept.points:
        if point.measured is None:
            continue
        for name, field in _SPREADS.items():
            stated, samples = getattr(point.measured, name), getattr(point.measured.samples, field)
            if stated is not None and samples:
                made = Spread.of(samples)
                expected = {"median": made.median, "low": made.low, "high": made.high, "n_samples": made.n_samples}
                place = f"{kept.place}: {point.key.full_name} at {point.key.seconds:g} s, {name}"
                found += [f"{place}, {text}" for text in differing(stated.model_dump(), expected)]
    return found


def _frontier_differences(kept: KeptFrontier) -> list[str]:
    """Frontiers that do not follow from their probes."""
    found = []
    for row in kept.record.rows:
        name = f"{row.model.name}:{row.model.variant}" if row.model.variant else row.model.name
        probes = [probe for probe in kept.probes if probe.model == name]
        at_edge = [probe for probe in probes if probe.length_s == row.edge_s]
        above = [p.length_s for p in probes if p.kind != "ok" and (row.edge_s is None or p.length_s > row.edge_s)]
        if row.edge_s is not None and (not at_edge or any(probe.kind != "ok" for probe in at_edge)):
            found.append(f"{kept.place}: {name} has an edge of {row.edge_s:g} s, which not all its probes passed")
        if row.breaks_at_s != (min(above) if above else None):
            found.append(f"{kept.place}: {name} is said to break at {row.breaks_at_s} s, its probes at {above}")
    return found


def _streaming_differences(kept: KeptStreaming) -> list[str]:
    """Rows that tell other minutes than those which were logged, or a time that these do not fit into."""
    found = []
    for row in kept.record.rows:
        name = full_name(row.model)
        minutes = [point for point in kept.minutes if point.model == name]
        if [point.minute for point in minutes] != list(range(1, row.n_minutes + 1)):
            found.append(
                f"{kept.place}: {name} is said to have heard {row.n_minutes} minutes; {len(minutes)} are there"
            )
        elif row.listening_s is not None and sum(point.wall_s for point in minutes) > row.listening_s * (1 + 1e-9):
            found.append(f"{kept.place}: the minutes of {name} took longer than the {row.listening_s:g} s of listening")
    return found
