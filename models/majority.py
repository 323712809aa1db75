"""`majority`: always the same class. The floor for a test set whose classes differ in size."""

from __future__ import annotations

import math

from harness.contracts import Answer, ModelAdapter, Query
from models._weightless import WeightlessModel

# The largest class of the train split of esc50's starter set. In ESC-50 itself all classes have 40 clips.
DEFAULT_LABEL = "chirping birds"

# Of the fixed class; the others share the rest evenly.
_PROBABILITY = 0.99


def majority(label: str = DEFAULT_LABEL) -> ModelAdapter:
    """Always answers one class; hears nothing.

    A constant answer can only be chosen on training data: an adapter never sees the references. Its label scores are
    log probabilities: 0.99 for the class, the rest shared by the others. A class that the task does not have gets no
    score, so that all labels tie: unparsed for every scorer that reads words or scores.

    Args:
        label: what to answer, as it reads in a sentence. The default is the most frequent class of the train split
            of esc50's starter set; give the most frequent training class of any other task.
    """
    return _Majority(label)


class _Majority(WeightlessModel):
    def __init__(self, label: str) -> None:
        super().__init__("majority", "Always answers one class; hears nothing", {"label": label}, can_score_labels=True)
        self._label = label

    def answer_one(self, query: Query) -> Answer:
        if query.labels is None:
            return Answer(text=self._label)
        rest = math.log((1.0 - _PROBABILITY) / max(1, sum(label != self._label for label in query.labels)))
        top = math.log(_PROBABILITY)
        return Answer(
            text=self._label,
            label_scores=tuple(top if label == self._label else rest for label in query.labels),
        )
