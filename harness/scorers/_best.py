"""The one best of several scores."""

from __future__ import annotations

import math
from collections.abc import Sequence


def unique_best(scores: Sequence[float]) -> int | None:
    """Position of the highest score; None when it is shared, when a score is not a number, or when there are none.

    A shared best is no decision: taking the first would prefer some labels for where they stand in a list.
    """
    if not scores or any(math.isnan(score) for score in scores):
        return None
    best = max(scores)
    positions = [position for position, score in enumerate(scores) if score == best]
    return positions[0] if len(positions) == 1 else None
