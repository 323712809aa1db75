"""The search for an edge on a fixed ladder of lengths: growth to the first failure, bisection, then the edge again.

Nothing is drawn at random and no length depends on a measurement, so two searches try the same lengths and differ only
where a probe itself does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import UsageError
from harness.frontier_rows import Step

# From one rung to the next is 4.4 %, and sixteen of them double the length.
RUNGS_TO_DOUBLE = 16
# How often the edge has to pass in all.
EDGE_PASSES = 3


@dataclass(frozen=True)
class Ladder:
    """Lengths in seconds from the shortest to the longest; the last rung is the longest itself.

    Raises:
        UsageError: the shortest is not positive, or longer than the longest.
    """

    shortest_s: float
    longest_s: float

    def __post_init__(self) -> None:
        if not 0 < self.shortest_s <= self.longest_s:
            raise UsageError(f"The search cannot go from {self.shortest_s:g} s to {self.longest_s:g} s.")

    @property
    def last(self) -> int:
        """Index of the last rung."""
        # Rounded, so that a longest which is a rung does not come twice.
        return math.ceil(round(RUNGS_TO_DOUBLE * math.log2(self.longest_s / self.shortest_s), 6))

    def length_s(self, rung: int) -> float:
        """Length of a rung, to the hundredth of a second."""
        if rung >= self.last:
            return self.longest_s
        return round(self.shortest_s * 2 ** (rung / RUNGS_TO_DOUBLE), 2)


@dataclass(frozen=True)
class Edge:
    """Where a search ended: the highest rung that passed, how often, and the lowest above it that failed."""

    rung: int | None
    n_passes: int
    failed_rung: int | None


def find_edge(ladder: Ladder, passes: Callable[[int, Step], bool]) -> Edge:
    """The highest rung that passes three times, below the first failure met.

    Lengths between rungs of the growth that passed are taken to pass. Where the last rung passes there is no edge to
    repeat, and once is enough.

    Args:
        ladder: where to search.
        passes: tries a rung.
    """
    passed: Counter[int] = Counter()

    def tried(rung: int, step: Step) -> bool:
        ok = passes(rung, step)
        passed[rung] += ok
        return ok

    low, high = _grow(ladder, tried)
    if high is None:
        assert low is not None
        return Edge(low, passed[low], None)
    while low is not None and high - low > 1:
        middle = (low + high) // 2
        if tried(middle, "bisection"):
            low = middle
        else:
            high = middle
    while low is not None and not _passes_again(low, passed, tried):
        low, high = (low - 1 if low else None), low
    return Edge(low, 0 if low is None else passed[low], high)


def _grow(ladder: Ladder, tried: Callable[[int, Step], bool]) -> tuple[int | None, int | None]:
    """Doublings until one fails: the last rung that passed and the one that failed; None where there is none."""
    low, rung = None, 0
    while tried(rung, "growth"):
        if rung == ladder.last:
            return rung, None
        low, rung = rung, min(rung + RUNGS_TO_DOUBLE, ladder.last)
    return low, rung


def _passes_again(rung: int, passed: Counter[int], tried: Callable[[int, Step], bool]) -> bool:
    while passed[rung] < EDGE_PASSES:
        if not tried(rung, "edge"):
            return False
    return True
