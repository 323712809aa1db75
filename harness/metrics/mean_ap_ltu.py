"""mAP as LTU's scripts compute it: a class without a positive item counts as 0."""

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


def mean_ap_ltu(scored: Sequence[Scored], labels: tuple[str, ...] = (), gives_scores: bool | None = None) -> float:
    """Mean over all classes of average precision, 0 for those without a positive, in [0, 1]; higher is better.

    On a part of a test set this is lower than `mean_ap`, for no fault of the model.

    Args:
        scored: the items.
        labels, gives_scores: as in `mean_ap`.

    Raises:
        MetricUnavailable, ValueError: as in `mean_ap`.
    """
    import numpy as np

    ranking = Ranking(scored, labels, gives_scores)
    return float(np.nansum(ranking.average_precisions()) / len(ranking.labels))


def weighted_many(
    scored: Sequence[Scored], labels: tuple[str, ...] = (), gives_scores: bool | None = None
) -> Callable[[npt.NDArray[np.int32]], npt.NDArray[np.float64]]:
    """The same of many resamples at once."""
    import numpy as np

    ranking = Ranking(scored, labels, gives_scores)
    average_precisions, n_labels = ranking.resampled(), len(ranking.labels)
    return lambda counts: np.asarray(np.nansum(average_precisions(counts), axis=0) / n_labels)


def remarks(
    scored: Sequence[Scored], labels: tuple[str, ...] = (), gives_scores: bool | None = None
) -> tuple[str, ...]:
    """How many classes count as 0 for want of a positive, where there are some."""
    ranking = Ranking(scored, labels, gives_scores)
    n_without = ranking.n_without_positives
    return (f"{n_without} of {len(ranking.labels)} classes have no positive item and count as 0",) if n_without else ()
