"""Scores and summaries computed anew from what they were made of: answers, samples, probes.

What cannot be computed here, for want of a tool or a service, keeps its recorded value and is told of in one line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import HarnessError
from harness.records import ControlsRecord, LabelRow, Prediction, RunRecord, ScoreRow, load_predictions
from harness.report.loading import KeptControls, KeptFrontier, KeptScaling, Results
from harness.scores import RunFacts, compute_scores, make_scorer, run_facts
from harness.timing import Spread

# Asks a paid service over the network: `score RUN --scorer ltu` is the command for that.
_ASKS_A_SERVICE = ("ltu",)
_TOLERANCE = 1e-9
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
    for scaling in results.scaling:
        differences += _scaling_differences(scaling)
        n_values += sum(point.measured is not None for point in scaling.points)
    for frontier in results.frontiers:
        differences += _frontier_differences(frontier)
        n_values += len(frontier.record.rows)
    return Rederived(replace(results, runs=tuple(runs)), n_values, tuple(differences), tuple(missing))


def differing(stored: Any, made: Any, place: str = "") -> Iterator[str]:
    """Where two values of plain data differ, by their path; numbers may differ by one part in 10^9."""
    if isinstance(stored, Mapping) and isinstance(made, Mapping):
        for key in sorted(set(stored) | set(made), key=str):
            yield from differing(stored.get(key), made.get(key), f"{place}.{key}".lstrip("."))
    elif _is_list(stored) and _is_list(made) and len(stored) == len(made):
        for number, (one, other) in enumerate(zip(stored, made, strict=True)):
            yield from differing(one, other, f"{place}.{number}".lstrip("."))
    elif not _is_same(stored, made):
        yield f"{place}: {_short(stored)} stands there, {_short(made)} follows from the records"


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(one == other)


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


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
    if old.scorer.partition("[")[0] in _ASKS_A_SERVICE:
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
    return old if old.unavailable is not None else new


def _controls(kept: KeptControls) -> tuple[list[str], list[str], int]:
    """Differences, what was not computed, and how many values were."""
    record: ControlsRecord | RunRecord = kept.record
    differences: list[str] = []
    missing: list[str] = []
    n_values = 0
    for condition in kept.record.conditions:
        place = f"{kept.place}/{condition.name}"
        try:
            predictions = load_predictions(kept.folder / condition.name)
        except HarnessError as error:
            differences.append(str(error))
            continue
        made, found, left = _scores(condition.scores, predictions, record.task.labels, run_facts(record))
        differences += [f"{place}: {text}" for text in found]
        missing += [f"{place}: {text}" for text in left]
        n_values += len(made) - len(left)
    return [*differences, *_gain_differences(kept)], missing, n_values


def _gain_differences(kept: KeptControls) -> list[str]:
    """Gains whose two sides are not the conditions' own scores, or whose difference is another."""
    scores = {
        (row.name, score.scorer, score.metric): score.value for row in kept.record.conditions for score in row.scores
    }
    found = []
    for gain in kept.record.gains:
        if gain.gain is None or gain.real is None or gain.control is None:
            continue
        real = scores.get(("real", gain.scorer, gain.metric))
        control = scores.get((gain.best_control or "", gain.scorer, gain.metric))
        expected = {"real": real, "control": control, "gain": abs(gain.real - gain.control)}
        stated = {"real": gain.real, "control": gain.control, "gain": abs(gain.gain)}
        found += [f"{kept.place}, {gain.metric} by {gain.scorer}, {text}" for text in differing(stated, expected)]
    return found


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
