"""`chance`: one of the candidate labels, each equally likely. The floor under every other score."""

from __future__ import annotations

import math

from harness.contracts import Answer, ModelAdapter, Query
from models._weightless import WeightlessModel, unit_hash

# Nats: enough to order the labels, too little to mean anything beside log(1 / n).
_SPREAD = 1e-3


def chance(seed: int = 0) -> ModelAdapter:
    """Picks one of the query's labels at random; hears nothing.

    The pick follows from seed, item id and labels alone, not from the order of the labels or of the items. It needs
    the labels. Each label's score is log(1 / n) and up to half a thousandth of a nat
    of noise; the highest is the pick.

    Args:
        seed: another seed, another pick.
    """
    return _Chance(seed)


class _Chance(WeightlessModel):
    def __init__(self, seed: int) -> None:
        summary = "Picks one of the labels at random; hears nothing"
        super().__init__("chance", summary, {"seed": seed}, can_score_labels=True, needs_labels=True)
        self._seed = seed

    def answer_one(self, query: Query) -> Answer:
        if not query.labels:
            problem = "'chance' chooses among a task's labels, and this task has none"
            return Answer(text="", error=f"ModelLimitError: {problem}")
        uniform = -math.log(len(query.labels))
        scores = tuple(
            uniform + _SPREAD * (unit_hash(self._seed, query.item_id, label) - 0.5) for label in query.labels
        )
        pick = max(zip(scores, query.labels, strict=True))[1]
        return Answer(text=pick, label_scores=scores)
