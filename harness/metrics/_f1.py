"""True positives, false positives and misses by class, of decided labels against references; and F1 of them.

An item has any number of decided labels, as far as its scorer decides for several. Each is a true positive where it is
among the references, a false positive where it is not; each reference that was not decided is a miss. An item that
failed or names no label misses each of its references, and is no false positive: scikit-learn's row of zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.contracts import Scored

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class ClassCounts:
    """Per-item hits, false positives and misses, as lists of (item, class)."""

    def __init__(self, scored: Sequence[Scored]) -> None:
        import numpy as np

        if not scored:
            raise ValueError("F1 needs at least one item")
        hits, false_positives, misses = _events(scored)
        classes = sorted({label for events in (hits, false_positives, misses) for _, label in events})
        position = {label: index for index, label in enumerate(classes)}
        self.n_classes = len(classes)
        self._events = [
            (
                np.array([item for item, _ in events], dtype=np.intp),
                np.array([position[label] for _, label in events], dtype=np.intp),
            )
            for events in (hits, false_positives, misses)
        ]

    def totals(self, multiplicities: npt.NDArray[np.floating]) -> list[npt.NDArray[np.float64]]:
        """True positives, false positives and misses, each of shape (n_classes,), where item i counts so many times."""
        import numpy as np

        return [
            np.bincount(classes, weights=multiplicities[items], minlength=self.n_classes).astype(np.float64)
            for items, classes in self._events
        ]


def micro(counts: ClassCounts) -> Callable[[npt.NDArray[np.floating]], float]:
    """F1 of the counts summed over classes."""

    def value(multiplicities: npt.NDArray[np.floating]) -> float:
        hits, false_positives, misses = (float(total.sum()) for total in counts.totals(multiplicities))
        return 2 * hits / (2 * hits + false_positives + misses)

    return value


def macro(counts: ClassCounts) -> Callable[[npt.NDArray[np.floating]], float]:
    """Mean over the classes that are a reference or were decided."""

    def value(multiplicities: npt.NDArray[np.floating]) -> float:
        hits, false_positives, misses = counts.totals(multiplicities)
        present = hits + false_positives + misses > 0
        return float((2 * hits[present] / (2 * hits + false_positives + misses)[present]).mean())

    return value


Events = list[tuple[int, str]]


def _events(scored: Sequence[Scored]) -> tuple[Events, Events, Events]:
    hits: Events = []
    false_positives: Events = []
    misses: Events = []
    for number, item in enumerate(scored):
        decided = set(item.decision.decided()) if item.answered else set[str]()
        references = set(item.references)
        # Sorted: the order of a set of texts differs from process to process.
        hits += [(number, label) for label in sorted(decided & references)]
        false_positives += [(number, label) for label in sorted(decided - references)]
        misses += [(number, label) for label in sorted(references - decided)]
    return hits, false_positives, misses


def most_with_one_label(scored: Sequence[Scored]) -> tuple[str, ...]:
    """A remark where clips have several labels and the scorer decided for one: the most that micro F1 can be then."""
    n_references = sum(len(set(item.references)) for item in scored)
    is_of_sets = any(item.decision.labels is not None for item in scored)
    if n_references == len(scored) or is_of_sets or not any(item.answered for item in scored):
        return ()
    most = 2 * len(scored) / (len(scored) + n_references)
    return (
        f"the scorer decides for one label a clip, and {len(scored)} clips have {n_references}: "
        f"micro F1 can be {most * 100:.1f} % at most",
    )
