"""`majority`: always the same class, the most frequent one. The floor for a test set whose classes differ in size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from harness.contracts import Answer, ModelAdapter, ModelDescription, Query
from models._weightless import WeightlessModel, fingerprint

# Of the one class; the others share the rest evenly.
_PROBABILITY = 0.99


def majority(label: str | None = None) -> ModelAdapter:
    """Always answers one class; hears nothing.

    Which class is most frequent it learns from the counts of the labels of the very items that it is asked about, and
    its description says so: no constant answer is right more often. Its label scores are log probabilities: 0.99 for
    the class, the rest shared by the others. A class that the task does not have gets no score, so that all labels
    tie: unparsed for every scorer that reads words or scores.

    Args:
        label: what to answer instead, as it reads in a sentence, such as the most frequent class of a training set.
    """
    return _Majority(label)


class _Majority(WeightlessModel):
    def __init__(self, label: str | None) -> None:
        summary = "Always answers one class; hears nothing"
        super().__init__("majority", summary, {"label": label}, can_score_labels=True, needs_labels=True)
        self._label = label
        self._counted = ""

    def count_labels(self, counts: Mapping[str, int]) -> None:
        """Take the most frequent label, the first of equally frequent ones, unless another was asked for."""
        if self._label is None and counts:
            self._label = max(counts, key=lambda label: counts[label])
            self._counted = f"label counts of the task's own items: {self._label} {counts[self._label]} times"

    def describe(self) -> ModelDescription:
        """Facts for the record, the class among them."""
        generation = {"label": self._label, "label_counts": bool(self._counted)}
        return replace(
            super().describe(),
            generation=generation,
            fingerprint=fingerprint("majority", generation),
            trained_on=self._counted,
        )

    def answer_one(self, query: Query) -> Answer:
        label = self._label
        if label is None:
            # Nothing was counted: all labels are equally frequent, and the first stands for them.
            label = query.labels[0] if query.labels else None
        if label is None:
            return Answer(text="", error="ModelLimitError: 'majority' was told no label, and this task has none")
        if query.labels is None:
            return Answer(text=label)
        rest = math.log((1.0 - _PROBABILITY) / max(1, sum(other != label for other in query.labels)))
        top = math.log(_PROBABILITY)
        return Answer(text=label, label_scores=tuple(top if other == label else rest for other in query.labels))
