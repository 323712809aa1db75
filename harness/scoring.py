"""Answers to a report: scorer, metric, interval, counts, per-class table and confusion table of one run.

Every declared item is in the denominator. An item that failed, or whose answer the scorer could not read, is wrong
in `value`; `answered_only` leaves out the failed ones and stands beside it, never instead.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.contracts import Decision, Label, Metric, ScorableAnswer, Scored, Scorer
from harness.errors import MetricUnavailable, PluginError, UsageError
from harness.measuring import BoundMetric
from harness.promises import called_plugin
from harness.statistics import (
    Interval,
    bootstrap_centred_interval,
    bootstrap_mean_interval,
    bootstrap_weighted_interval,
)

UNPARSED = "(unparsed)"
FAILED = "(failed)"
VERBATIM = "verbatim"
"""Stands for the scorer where nothing is turned into a label: captions and transcripts are judged as they are."""
# By which two means of the same values may differ.
_SAME_MEAN = 1e-9

_BETTER_LOW = frozenset({"wer"})
# Metrics that are a mean of one number in [0, 1] an item: where all items are alike, their interval is exact.
_MEANS_OVER_ITEMS = frozenset({"accuracy"})


class Verbatim:
    """The scorer that decides nothing."""

    name = VERBATIM
    version = 1
    needs_label_scores = False
    gives_scores = False

    def decide(self, answers: Sequence[ScorableAnswer], labels: Sequence[Label]) -> Sequence[Decision]:
        """No label for any answer."""
        return [Decision(None) for _ in answers]


@dataclass(frozen=True)
class ScoringInput:
    """One item with what the model said of it. `text` is "" and `label_scores` None when `answered` is False."""

    item_id: str
    references: tuple[str, ...]
    cluster: str
    answered: bool
    text: str
    label_scores: tuple[float, ...] | None


@dataclass(frozen=True)
class ClassCount:
    """Of `n` items with this reference, `n_right` were decided right."""

    label: str
    n: int
    n_right: int


@dataclass(frozen=True)
class ScoreReport:
    """One run under one scorer and one metric.

    `value` counts every item; `answered_only` is the metric over answered items, None when there are none.
    `n_answered` + `n_failed` = `n_items`; `n_unparsed` of the answered ones name no label, or say nothing where the
    text itself is judged. `per_class` lists every label in the task's order, empty ones too. `confusion` maps
    reference to decided label name, "(unparsed)" or "(failed)", to a count; an item with several references is counted
    under each. A metric that could not be computed has no value and no interval, and `unavailable` says why; `notes`
    are what a reader must know of the value. `clean` is the metric over the `n_clean` items that the model did not
    learn from; both are None where it learned from none of them. `item_values` maps an item's id to its own value, of a
    metric over texts that is the mean of its items' values; None of any other.
    """

    scorer: str
    scorer_version: int
    metric: str
    value: float | None
    interval: Interval | None
    answered_only: float | None
    n_items: int
    n_answered: int
    n_failed: int
    n_unparsed: int
    per_class: tuple[ClassCount, ...]
    confusion: Mapping[str, Mapping[str, int]]
    unavailable: str | None = None
    notes: tuple[str, ...] = ()
    clean: float | None = None
    n_clean: int | None = None
    item_values: Mapping[str, float] | None = None


@dataclass(frozen=True)
class _Measured:
    """The part of a report that a metric makes."""

    value: float | None
    interval: Interval | None
    answered_only: float | None
    unavailable: str | None = None
    notes: tuple[str, ...] = ()


def score_items(
    items: Sequence[ScoringInput],
    labels: Sequence[Label],
    scorer: Scorer,
    metric_name: str,
    metric: Metric,
    seed: int = 0,
    n_resamples: int = 1000,
    learned_from: Collection[str] = (),
    n_trials: int = 1,
) -> ScoreReport:
    """Score a run. The same inputs and seed give the same report.

    Args:
        items: every item of the run.
        labels: of the task.
        scorer: makes a label of each answer.
        metric_name, metric: what is computed.
        seed, n_resamples: of the bootstrap.
        learned_from: ids of items that the model may have heard in training.
        n_trials: how often each clip was asked, see `BoundMetric`.

    Raises:
        UsageError: the scorer needs label scores and no answer has them.
        PluginError: the scorer, or a reference, does not fit the labels.
        ValueError: there are no items.
    """
    scored = decide_items(items, labels, scorer)
    answered = [item for item in scored if item.answered]
    bound = BoundMetric(metric_name, tuple(label.name for label in labels), metric, gives_scores(scorer), n_trials)
    measured = _measure(bound, scored, answered, seed, n_resamples)
    is_clean = [item.item_id not in learned_from for item in scored]
    return ScoreReport(
        scorer=scorer.name,
        scorer_version=scorer.version,
        metric=metric_name,
        value=measured.value,
        interval=measured.interval,
        answered_only=measured.answered_only,
        n_items=len(scored),
        n_answered=len(answered),
        n_failed=len(scored) - len(answered),
        n_unparsed=_n_unparsed(answered, scorer, bound.counts_sets),
        per_class=() if scorer.name == VERBATIM else _per_class(scored, labels, bound.counts_sets),
        confusion={} if scorer.name == VERBATIM else _confusion(scored, labels, bound.counts_sets),
        unavailable=measured.unavailable,
        notes=measured.notes,
        clean=_value_within(bound, scored, measured.value, is_clean) if learned_from else None,
        n_clean=sum(is_clean) if learned_from else None,
        item_values=_item_values(bound, scored, measured.value) if scorer.name == VERBATIM else None,
    )


def decide_items(items: Sequence[ScoringInput], labels: Sequence[Label], scorer: Scorer) -> list[Scored]:
    """Each item with what the scorer made of its answer; a failed item reaches no scorer.

    Args:
        items: every item of a run.
        labels: of the task; none where the text itself is judged.
        scorer: sees the answered items, and nothing of the references.

    Raises:
        UsageError, PluginError, ValueError: as in `score_items`.
    """
    if not items:
        raise ValueError("there is nothing to score")
    _check_references(items, None if scorer.name == VERBATIM else labels)
    return _decide(items, labels, scorer)


def _measure(
    bound: BoundMetric, scored: Sequence[Scored], answered: Sequence[Scored], seed: int, n_resamples: int
) -> _Measured:
    try:
        value = bound.value(scored)
        interval = _interval(scored, bound, value, seed, n_resamples)
        answered_only = value if len(answered) == len(scored) else _value_of_part(bound, answered)
        return _Measured(value, interval, answered_only, notes=bound.remarks(scored))
    except MetricUnavailable as error:
        return _Measured(None, None, None, unavailable=str(error))


def _item_values(bound: BoundMetric, scored: Sequence[Scored], value: float | None) -> dict[str, float] | None:
    """Each item's own value where the metric is their mean.

    A score of labels is computed anew from the answers wherever it is asked for. One of texts may need what few
    machines have (Java, CoreNLP), and then its items' values are all that it can be resampled from.
    """
    if value is None:
        return None
    try:
        values = bound.per_item(scored)
    except MetricUnavailable:
        return None
    if values is None or not is_mean_of(value, values):
        return None
    return {item.item_id: float(one) for item, one in zip(scored, values, strict=True)}


def is_mean_of(value: float, values: Iterable[float]) -> bool:
    """Whether a score is the mean of its items' values; never where there are none, or one is not finite."""
    known = list(values)
    if not known or not all(map(math.isfinite, known)):
        return False
    mean = math.fsum(one / len(known) for one in known)
    return math.isclose(mean, value, rel_tol=0.0, abs_tol=_SAME_MEAN)


def asked_labels(labels: Sequence[Label]) -> tuple[str, ...]:
    """The labels' texts as a model is asked about them.

    A text may have two spaces for the sake of a scorer; a model would score them as other words.
    """
    return tuple(" ".join(label.text.split()) for label in labels)


def gives_scores(scorer: Scorer) -> bool | None:
    """Whether a scorer gives a score for each label to an answer that it can read; None where it does not say.

    A scorer says so by an attribute `gives_scores`. One that needs the model's scores gives scores.
    """
    said: bool | None = getattr(scorer, "gives_scores", None)
    return True if said is None and scorer.needs_label_scores else said


def is_better_low(metric_name: str) -> bool:
    """Whether a lower value of the metric is the better one."""
    return metric_name in _BETTER_LOW


def _value_of_part(bound: BoundMetric, answered: Sequence[Scored]) -> float | None:
    """None where nothing was answered, or less than the metric needs."""
    try:
        return bound.value(answered) if answered else None
    except MetricUnavailable:
        return None


def _value_within(
    bound: BoundMetric, scored: Sequence[Scored], value: float | None, is_kept: Sequence[bool]
) -> float | None:
    """The metric of some of the items, weighed as among all, so that it stands beside the value of all.

    CIDEr-D, for one, weighs a word by how rare it is in the whole set. None where nothing is kept, or less than the
    metric needs.
    """
    if value is None or not any(is_kept):
        return None
    import numpy as np

    try:
        return float(bound.resampled(scored, value)(np.array(is_kept, dtype=np.int32)[:, np.newaxis])[0])
    except MetricUnavailable:
        return None


def _n_unparsed(answered: Sequence[Scored], scorer: Scorer, counts_sets: bool) -> int:
    if scorer.name == VERBATIM:
        return sum(not item.text.strip() for item in answered)
    return sum(not item.decision.decided(counts_sets) for item in answered)


def _check_references(items: Sequence[ScoringInput], labels: Sequence[Label] | None) -> None:
    """`labels` None stands for references that are texts."""
    names = None if labels is None else {label.name for label in labels}
    for item in items:
        if not item.references:
            raise PluginError(f"The item '{item.item_id}' has no reference.")
        strangers = [] if names is None else [reference for reference in item.references if reference not in names]
        if strangers:
            raise PluginError(f"The item '{item.item_id}' has the reference '{strangers[0]}', which is no label.")


def _decide(items: Sequence[ScoringInput], labels: Sequence[Label], scorer: Scorer) -> list[Scored]:
    """Let the scorer see the answered items, and nothing of the references."""
    answers = [ScorableAnswer(item.text, item.label_scores) for item in items if item.answered]
    if scorer.needs_label_scores and answers and all(answer.label_scores is None for answer in answers):
        raise UsageError(f"The scorer '{scorer.name}' needs a score for each label, and no answer has them.")
    decisions = _decisions(scorer, answers, labels) if answers else []
    remaining = iter(decisions)
    return [
        Scored(
            item_id=item.item_id,
            references=item.references,
            cluster=item.cluster,
            answered=item.answered,
            decision=next(remaining) if item.answered else Decision(None),
            text=item.text if item.answered else "",
        )
        for item in items
    ]


def _decisions(scorer: Scorer, answers: Sequence[ScorableAnswer], labels: Sequence[Label]) -> list[Decision]:
    made: object = called_plugin(lambda: scorer.decide(answers, labels), f"The scorer '{scorer.name}' failed")
    if not isinstance(made, Sequence) or not all(isinstance(decision, Decision) for decision in made):
        raise PluginError(f"The scorer '{scorer.name}' gave something else than a sequence of decisions.")
    _check_decisions(made, len(answers), labels, scorer.name)
    return list(made)


def _check_decisions(decisions: Sequence[Decision], n_answers: int, labels: Sequence[Label], scorer: str) -> None:
    if len(decisions) != n_answers:
        raise PluginError(f"The scorer '{scorer}' made {len(decisions)} decisions for {n_answers} answers.")
    names = {label.name for label in labels}
    for decision in decisions:
        decided = [*decision.decided(), *decision.decided(as_set=False)]
        strangers = [label for label in decided if label not in names]
        if strangers:
            raise PluginError(f"The scorer '{scorer}' decided for '{strangers[0]}', which is no label's name.")
        if decision.labels is not None and len(set(decision.labels)) < len(decision.labels):
            raise PluginError(f"The scorer '{scorer}' decided for one label twice: {', '.join(decision.labels)}.")
        if decision.scores is not None and len(decision.scores) != len(labels):
            raise PluginError(f"The scorer '{scorer}' gave {len(decision.scores)} scores for {len(labels)} labels.")


def _interval(scored: Sequence[Scored], bound: BoundMetric, value: float, seed: int, n_resamples: int) -> Interval:
    clusters = [item.cluster for item in scored]
    if bound.name in _MEANS_OVER_ITEMS:
        values = [bound.value([item]) for item in scored]
        return bootstrap_mean_interval(values, clusters, n_resamples=n_resamples, seed=seed)
    resampled = bound.resampled(scored, value)
    if bound.bootstrap_is_biased:
        return bootstrap_centred_interval(resampled, value, clusters, n_resamples=n_resamples, seed=seed)
    return bootstrap_weighted_interval(resampled, clusters, n_resamples=n_resamples, seed=seed)


def _per_class(scored: Sequence[Scored], labels: Sequence[Label], counts_sets: bool) -> tuple[ClassCount, ...]:
    total = {label.name: 0 for label in labels}
    right = dict(total)
    for item in scored:
        # Of one label, it is enough that it is among the references.
        decided = set(item.decision.decided(counts_sets)) if item.answered else set[str]()
        for reference in set(item.references):
            total[reference] += 1
            right[reference] += bool(decided & ({reference} if counts_sets else set(item.references)))
    return tuple(ClassCount(label.name, total[label.name], right[label.name]) for label in labels)


def _confusion(scored: Sequence[Scored], labels: Sequence[Label], counts_sets: bool) -> dict[str, dict[str, int]]:
    """Rows and columns in the task's label order, so that equal runs print equal tables.

    Where several labels were decided, a reference among them was taken for itself, and any other for each of them.
    """
    order = [label.name for label in labels] + [UNPARSED, FAILED]
    counts: dict[str, dict[str, int]] = {}
    for item in scored:
        decided = (item.decision.decided(counts_sets) or (UNPARSED,)) if item.answered else (FAILED,)
        for reference in set(item.references):
            row = counts.setdefault(reference, {})
            for label in (reference,) if reference in decided else decided:
                row[label] = row.get(label, 0) + 1
    return {row: {name: counts[row][name] for name in order if name in counts[row]} for row in order if row in counts}
