"""Micro F1: decided labels against all references, every decision weighing the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.contracts import Scored
from harness.metrics._f1 import ClassCounts, micro, most_with_one_label

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

KINDS = ("classification",)
COUNTS_SETS = True


def micro_f1(scored: Sequence[Scored]) -> float:
    """F1 of hits, false positives and misses summed over all classes, in [0, 1]; higher is better.

    Where a clip has all its labels as references this is the F1 of DCASE 2017 task 4, subtask A: of sets of labels, as
    far as the scorer decides for several (`exact` does). Where every item has one reference and one decided label it is
    accuracy, as in LTU, whose rows are pairs of a clip and one of its labels.

    Raises:
        ValueError: there is nothing to score.
    """
    import numpy as np

    return weighted(scored)(np.ones(len(scored)))


def weighted(scored: Sequence[Scored]) -> Callable[[npt.NDArray[np.floating]], float]:
    """The same of a set in which item i stands so many times."""
    return micro(ClassCounts(scored))


def remarks(scored: Sequence[Scored]) -> tuple[str, ...]:
    """What one decided label a clip costs, where clips have several."""
    return most_with_one_label(scored)
