"""What each scorer made of each answer, item by item: a record keeps the totals, and this page shows the items.

Only scorers that need nothing but the predictions are asked again; the others would need a model or a network. What
comes out must add up to the stored score, or it is not shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.contracts import Scored
from harness.errors import HarnessError
from harness.measuring import BoundMetric
from harness.records import ScoreRow
from harness.registry import create
from harness.report_html.found_runs import FoundRun
from harness.scores import decided_items, run_facts
from harness.scoring import FAILED as FAILED_NAME
from harness.scoring import UNPARSED as UNPARSED_NAME
from harness.scoring import VERBATIM

ASKED_AGAIN = ("exact", "loglik")

RIGHT, PARTLY, WRONG, UNPARSED, FAILED = "r", "p", "w", "u", "f"


@dataclass(frozen=True)
class ItemOutcomes:
    """One scorer over the items of one run, in the order of its predictions.

    `labels` are the decided labels of each item, none where it failed or was not understood; `outcomes` has one letter
    an item: r right, p some of several right, w wrong, u no label found, f failed. Both are empty where `reason` says
    why they are not known here.
    """

    scorer: str
    labels: tuple[tuple[str, ...], ...] = ()
    outcomes: str = ""
    reason: str = ""


def item_outcomes(run: FoundRun) -> list[ItemOutcomes]:
    """One entry for each scorer of labels that the run has a score of, by name."""
    by_scorer: dict[str, list[ScoreRow]] = {}
    for row in run.scores:
        if row.scorer != VERBATIM:
            by_scorer.setdefault(row.scorer, []).append(row)
    return [_of_scorer(run, name, rows) for name, rows in by_scorer.items()]


def _of_scorer(run: FoundRun, name: str, rows: Sequence[ScoreRow]) -> ItemOutcomes:
    if name.partition("[")[0] not in ASKED_AGAIN:
        reason = f"The labels that '{name}' found are not kept item by item; finding them again needs a model."
        return ItemOutcomes(name, reason=reason)
    try:
        _, items = decided_items(run.predictions, run.record.task.labels, name, run_facts(run.record))
        counts_sets = any(_counts_sets(row.metric) for row in rows)
    except HarnessError as error:
        return ItemOutcomes(name, reason=f"The labels that '{name}' found cannot be shown: {error}")
    found = [_labels(item, counts_sets) for item in items]
    if not _adds_up(items, found, rows[0]):
        reason = f"'{name}' decides otherwise now than when the score was made, so no labels are shown."
        return ItemOutcomes(name, reason=reason)
    letters = [_outcome(item, labels, counts_sets) for item, labels in zip(items, found, strict=True)]
    return ItemOutcomes(name, tuple(found), "".join(letters))


def _counts_sets(metric: str) -> bool:
    return BoundMetric(metric, (), create("metrics", metric).value).counts_sets


def _labels(item: Scored, counts_sets: bool) -> tuple[str, ...]:
    return item.decision.decided(counts_sets) if item.answered else ()


def _adds_up(items: Sequence[Scored], found: Sequence[tuple[str, ...]], row: ScoreRow) -> bool:
    """Whether the items come to the stored score's own table of what was taken for what."""
    counts: dict[str, dict[str, int]] = {}
    for item, labels in zip(items, found, strict=True):
        decided = (labels or (UNPARSED_NAME,)) if item.answered else (FAILED_NAME,)
        for reference in set(item.references):
            line = counts.setdefault(reference, {})
            for label in (reference,) if reference in decided else decided:
                line[label] = line.get(label, 0) + 1
    return row.n_items == len(items) and counts == row.confusion


def _outcome(item: Scored, labels: tuple[str, ...], counts_sets: bool) -> str:
    """Of one label, it is enough that it is among the references; of a set, it must be theirs."""
    if not item.answered:
        return FAILED
    if not labels:
        return UNPARSED
    if not counts_sets:
        return RIGHT if labels[0] in item.references else WRONG
    if set(labels) == set(item.references):
        return RIGHT
    return PARTLY if set(labels) & set(item.references) else WRONG
