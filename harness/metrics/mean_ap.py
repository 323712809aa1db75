"""Mean average precision (mAP): scikit-learn's average precision of each class, and the mean over classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.contracts import Scored
from harness.metrics._average_precision import Ranking

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

KINDS = ("classification",)
BOOTSTRAP_IS_BIASED = True


def mean_ap(scored: Sequence[Scored], labels: tuple[str, ...] = (), gives_scores: bool | None = None) -> float:
    """Mean over the classes that have a positive of each one's average precision, in [0, 1]; higher is better.

    Every item is ranked in every class by its score for that label. An item that failed, or has no scores, is found for
    no class. Classes that no item has as a reference have no average precision: they are left out, and counted in the
    remarks. `mean_ap_ltu` counts them as 0.

    Args:
        scored: the items.
        labels: names of all labels in the order of the scores; learned from the decisions where left out.
        gives_scores: whether the scorer gives scores; learned from the decisions where None.

    Raises:
        MetricUnavailable: the scorer gives no scores; the message names the scorers that give them.
        ValueError: there is nothing to score, or the scores do not fit the labels.
    """
    import numpy as np

    return float(np.nanmean(Ranking(scored, labels, gives_scores).average_precisions()))


def weighted_many(
    scored: Sequence[Scored], labels: tuple[str, ...] = (), gives_scores: bool | None = None
) -> Callable[[npt.NDArray[np.int32]], npt.NDArray[np.float64]]:
    """The same of many resamples at once; a class without a positive in one of them is left out of that one."""
    import numpy as np

    average_precisions = Ranking(scored, labels, gives_scores).resampled()
    return lambda counts: np.asarray(np.nanmean(average_precisions(counts), axis=0))


def remarks(
    scored: Sequence[Scored], labels: tuple[str, ...] = (), gives_scores: bool | None = None
) -> tuple[str, ...]:
    """How many classes were left out, where there are some."""
    ranking = Ranking(scored, labels, gives_scores)
    n_without = ranking.n_without_positives
    if not n_without:
        return ()
    return (f"{n_without} of {len(ranking.labels)} classes have no positive item and are left out",)
