"""Macro F1: the mean over classes of each class's own F1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.contracts import Scored
from harness.metrics._f1 import ClassCounts, macro, most_with_one_label

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

KINDS = ("classification",)
COUNTS_SETS = True


def macro_f1(scored: Sequence[Scored]) -> float:
    """Mean over classes of each class's own F1, in [0, 1]; higher is better.

    Classes that are neither a reference nor decided have no F1 and are left out, as in scikit-learn.

    Raises:
        ValueError: there is nothing to score.
    """
    import numpy as np

    return weighted(scored)(np.ones(len(scored)))


def weighted(scored: Sequence[Scored]) -> Callable[[npt.NDArray[np.floating]], float]:
    """The same of a set in which item i stands so many times."""
    return macro(ClassCounts(scored))


def remarks(scored: Sequence[Scored]) -> tuple[str, ...]:
    """What one decided label a clip costs, where clips have several."""
    return most_with_one_label(scored)
