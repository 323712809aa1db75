"""Uncertainty of a mean over clips that are not independent: the cluster bootstrap.

Clips cut from one recording are alike, so a resample draws whole recordings (clusters) with replacement and takes
the mean over all clips in them: a ratio of two sums, since clusters differ in size. The interval is the percentile
interval of these means (Efron 1979; Davison and Hinkley 1997, section 3.8, for the resampling of clusters).

When every item is 0, or every item is 1, all resamples are alike and the percentile interval has no width, which is
not knowledge: the exact interval over clusters (Clopper and Pearson 1934) stands in its place. With few clusters a
percentile interval is too short, and with a single one it has no width: `Interval.n_clusters` lets the reader judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Clusters drawn at a time, times resamples: bounds memory at about 64 MB whatever the number of items.
_DRAWS_AT_ONCE = 4_000_000

BOOTSTRAP = "cluster bootstrap, percentile"
EXACT = "exact, all alike"


@dataclass(frozen=True)
class Interval:
    """`low` and `high` bound the mean with `confidence` in (0, 1). `method` is BOOTSTRAP, or EXACT without them."""

    low: float
    high: float
    confidence: float
    n_resamples: int
    n_clusters: int
    seed: int
    method: str = BOOTSTRAP


def bootstrap_mean_interval(
    values: Sequence[float],
    clusters: Sequence[str],
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean of `values` under a bootstrap that draws clusters; exact where all are 0 or 1.

    The order of the items does not matter: clusters are sorted by name before drawing.

    Args:
        values: one finite number an item.
        clusters: the item's cluster, in the same order.
        n_resamples: bootstrap samples, at least 1.
        confidence: of the two-sided interval, in (0, 1).
        seed: of numpy's PCG64; the same inputs and seed give the same interval.

    Raises:
        ValueError: nothing to average, lengths that differ, a value that is not finite, or an argument out of range.
    """
    _check(values, clusters, n_resamples, confidence)
    if all(value == 0.0 for value in values) or all(value == 1.0 for value in values):
        return _exact_interval(values[0], len(set(clusters)), confidence, seed)
    members = [positions for _, positions in _members(clusters)]
    sums = [math.fsum(values[position] for position in positions) for positions in members]
    means = _resampled_means(sums, [len(positions) for positions in members], n_resamples, seed)
    low, high = _quantiles(means, confidence)
    return Interval(low, high, confidence, n_resamples, len(members), seed)


def bootstrap_statistic_interval(
    statistic: Callable[[Sequence[int]], float],
    clusters: Sequence[str],
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The same interval for any statistic of a sample of items, one call of `statistic` a resample.

    Args:
        statistic: gets the positions of the drawn items (with repetitions) and returns a number.
        clusters: each item's cluster.
        n_resamples, confidence, seed: as in `bootstrap_mean_interval`, which draws the same samples.

    Raises:
        ValueError: no items, or an argument out of range.
    """
    import numpy as np

    _check([0.0] * len(clusters), clusters, n_resamples, confidence)
    members = [positions for _, positions in _members(clusters)]
    rng = np.random.default_rng(seed)
    results = np.empty(n_resamples)
    for index in range(n_resamples):
        drawn = rng.integers(0, len(members), size=len(members))
        results[index] = statistic([position for cluster in drawn for position in members[cluster]])
    low, high = _quantiles(results, confidence)
    return Interval(low, high, confidence, n_resamples, len(members), seed)


def _check(values: Sequence[float], clusters: Sequence[str], n_resamples: int, confidence: float) -> None:
    if len(values) == 0:
        raise ValueError("an interval needs at least one value")
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values but {len(clusters)} clusters")
    if not all(math.isfinite(value) for value in values):
        raise ValueError("an interval needs finite values")
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, not {n_resamples}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")


def _exact_interval(value: float, n_clusters: int, confidence: float, seed: int) -> Interval:
    """Clopper and Pearson's interval of a share, for 0 or all of `n_clusters`: each a trial of its own."""
    width = 1.0 - ((1.0 - confidence) / 2.0) ** (1.0 / n_clusters)
    low, high = (0.0, width) if value == 0.0 else (1.0 - width, 1.0)
    return Interval(low, high, confidence, n_resamples=0, n_clusters=n_clusters, seed=seed, method=EXACT)


def _members(clusters: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Each cluster with the positions of its items, sorted by name."""
    members: dict[str, list[int]] = {}
    for position, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(position)
    return sorted(members.items())


def _resampled_means(
    sums: Sequence[float], sizes: Sequence[int], n_resamples: int, seed: int
) -> npt.NDArray[np.float64]:
    import numpy as np

    sum_of = np.asarray(sums, dtype=np.float64)
    size_of = np.asarray(sizes, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty(n_resamples)
    step = max(1, _DRAWS_AT_ONCE // len(sum_of))
    for start in range(0, n_resamples, step):
        drawn = rng.integers(0, len(sum_of), size=(min(step, n_resamples - start), len(sum_of)))
        means[start : start + len(drawn)] = sum_of[drawn].sum(axis=1) / size_of[drawn].sum(axis=1)
    return means


def _quantiles(results: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
    import numpy as np

    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(results, [tail, 1.0 - tail])
    return float(low), float(high)
