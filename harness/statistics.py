"""Uncertainty of a mean over clips that are not independent: the cluster bootstrap.

Clips cut from one recording are alike, so a resample draws whole recordings (clusters) with replacement and takes
the mean over all clips in them: a ratio of two sums, since clusters differ in size. The interval is the percentile
interval of these means (Efron 1979; Davison and Hinkley 1997, section 3.8, for the resampling of clusters).

When every item is 0, or every item is 1, all resamples are alike and the percentile interval has no width, which is
not knowledge: the exact interval over clusters (Clopper and Pearson 1934) stands in its place. With few clusters a
percentile interval is too short, and with a single one it has no width: `Interval.n_clusters` lets the reader judge.

Some metrics have another mean over resamples than over sets of the same size: an average precision rises when an item
is drawn twice, and a rare class that a resample lacks takes its own with it. The percentile interval of such a metric
may lie wholly to one side of the value. It is moved back by the bootstrap's own estimate of that bias, the mean of the
resamples less the value (Efron and Tibshirani 1993, section 10.2). On 120 generated sets of 12 classes, rare ones among
them, 95 % intervals held the mean score of such sets in this share of cases, with 40 and with 150 items: this one 93
and 95 %, the percentile interval 86 and 92 %, the bias-corrected (section 14.3) 80 and 90 %, BCa 78 and 88 %.

A resample is known by how often each item is in it, its multiplicity. A metric that can be computed from per-item
numbers and multiplicities is never computed anew from the items (`bootstrap_weighted_interval`), and two runs that are
resampled alike are compared item by item (`compare_paired`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Clusters drawn at a time, times resamples: bounds memory at about 64 MB whatever the number of items.
_DRAWS_AT_ONCE = 4_000_000
# Resamples whose multiplicities are held at a time: as many as fit a core's cache for 20 000 items.
_RESAMPLES_AT_ONCE = 64

Resampled = Callable[["npt.NDArray[np.int32]"], "npt.NDArray[np.float64]"]
"""From multiplicities, shape (n_items, n_resamples), to one number a resample."""

BOOTSTRAP = "cluster bootstrap, percentile"
CENTRED = "cluster bootstrap, percentile less its bias"
EXACT = "exact, all alike"


@dataclass(frozen=True)
class Interval:
    """`low` and `high` bound a value with `confidence` in (0, 1). `method` is BOOTSTRAP, CENTRED, or EXACT."""

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
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values but {len(clusters)} clusters")
    if not all(math.isfinite(value) for value in values):
        raise ValueError("an interval needs finite values")
    _check(clusters, n_resamples, confidence)
    if all(value == 0.0 for value in values) or all(value == 1.0 for value in values):
        return _exact_interval(values[0], len(set(clusters)), confidence, seed)
    members = _members(clusters)
    sums = [math.fsum(values[position] for position in positions) for positions in members]
    means = _resampled_means(sums, [len(positions) for positions in members], n_resamples, seed)
    return percentile_interval(means, clusters, confidence, seed)


def bootstrap_weighted_interval(
    statistic: Resampled,
    clusters: Sequence[str],
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The same interval for any statistic that can be computed from multiplicities; the same samples are drawn.

    Args:
        statistic: takes multiplicities, shape (n_items, n), whole numbers from 0, and returns n numbers.
        clusters, n_resamples, confidence, seed: as in `bootstrap_mean_interval`.

    Raises:
        ValueError: no items, or an argument out of range.
    """
    _check(clusters, n_resamples, confidence)
    return percentile_interval(resampled_values(statistic, clusters, n_resamples, seed), clusters, confidence, seed)


def bootstrap_centred_interval(
    statistic: Resampled,
    value: float,
    clusters: Sequence[str],
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The same interval less the bootstrap's bias, within [0, 1]: for shares that are no mean over items.

    Args:
        statistic, clusters, n_resamples, confidence, seed: as in `bootstrap_weighted_interval`.
        value: the statistic of the items as they are, in [0, 1].

    Raises:
        ValueError: no items, or an argument out of range.
    """
    if not math.isfinite(value):
        raise ValueError("an interval needs finite values")
    _check(clusters, n_resamples, confidence)
    values = resampled_values(statistic, clusters, n_resamples, seed)
    interval = percentile_interval(values, clusters, confidence, seed)
    bias = float(values.mean()) - value
    low, high = (min(1.0, max(0.0, bound - bias)) for bound in (interval.low, interval.high))
    return replace(interval, low=low, high=high, method=CENTRED)


def resampled_values(
    statistic: Resampled, clusters: Sequence[str], n_resamples: int, seed: int
) -> npt.NDArray[np.float64]:
    """The statistic of each resample, shape (n_resamples,); of several statistics at once (k, n_resamples)."""
    import numpy as np

    parts = [statistic(counts) for counts in _multiplicities(clusters, n_resamples, seed)]
    return np.concatenate(parts, axis=-1)


@dataclass(frozen=True)
class PairedDifference:
    """`difference` is second minus first; `p_value` is two-sided, in (0, 1]."""

    difference: float
    interval: Interval
    p_value: float


def compare_paired(
    first: Resampled,
    second: Resampled,
    clusters: Sequence[str],
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Paired cluster bootstrap of the difference of one metric between two runs over the same items.

    Both are computed on the same resamples. The p-value is twice the smaller share of resampled differences on either
    side of zero, those at zero counted on both, with one added to count and total so that it is never 0 (Efron and
    Tibshirani 1993, section 15.4; Davison and Hinkley 1997, section 4.2).

    Args:
        first, second: as `statistic` of `bootstrap_weighted_interval`.
        clusters, n_resamples, confidence, seed: as there.
    """
    import numpy as np

    _check(clusters, n_resamples, confidence)
    ones = np.ones((len(clusters), 1), dtype=np.int32)
    differences = resampled_values(lambda counts: second(counts) - first(counts), clusters, n_resamples, seed)
    rarer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return PairedDifference(
        difference=float(second(ones)[0] - first(ones)[0]),
        interval=percentile_interval(differences, clusters, confidence, seed),
        p_value=min(1.0, 2.0 * (rarer + 1) / (n_resamples + 1)),
    )


def mcnemar_exact(n_first_only: int, n_second_only: int) -> float:
    """Two-sided exact p-value that two runs are right equally often (McNemar 1947, binomial form).

    Args:
        n_first_only: items that only the first run has right.
        n_second_only: items that only the second has right.

    Raises:
        ValueError: a count is negative.
    """
    if n_first_only < 0 or n_second_only < 0:
        raise ValueError(f"counts cannot be negative: {n_first_only}, {n_second_only}")
    n_differing = n_first_only + n_second_only
    smaller = min(n_first_only, n_second_only)
    # Binomial coefficients as whole numbers, each from the one before: exact for any count.
    ways = tail = 1
    for k in range(smaller):
        ways = ways * (n_differing - k) // (k + 1)
        tail += ways
    return min(1.0, float(2 * tail / 2**n_differing))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for as many tests as there are, in the order given (Holm 1979).

    Raises:
        ValueError: one is outside of [0, 1].
    """
    if not all(0.0 <= p <= 1.0 for p in p_values):
        raise ValueError(f"p-values lie between 0 and 1: {list(p_values)}")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda n: p_values[n])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def _multiplicities(clusters: Sequence[str], n_resamples: int, seed: int) -> Iterator[npt.NDArray[np.int32]]:
    """How often each item is in each resample, shape (n_items, n) a portion; the draws are those of the other ways."""
    import numpy as np

    names = sorted(set(clusters))
    place = {name: index for index, name in enumerate(names)}
    cluster_of = np.array([place[name] for name in clusters])
    rng = np.random.default_rng(seed)
    for start in range(0, n_resamples, _RESAMPLES_AT_ONCE):
        size = min(_RESAMPLES_AT_ONCE, n_resamples - start)
        counts = np.empty((len(names), size), dtype=np.int32)
        for column in range(size):
            drawn = rng.integers(0, len(names), size=len(names))
            counts[:, column] = np.bincount(drawn, minlength=len(names))
        yield counts[cluster_of]


def _check(clusters: Sequence[str], n_resamples: int, confidence: float) -> None:
    if len(clusters) == 0:
        raise ValueError("an interval needs at least one value")
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, not {n_resamples}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")


def percentile_interval(
    results: npt.NDArray[np.float64], clusters: Sequence[str], confidence: float, seed: int
) -> Interval:
    """The interval of one result a resample, `results` of shape (n_resamples,)."""
    import numpy as np

    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(results, [tail, 1.0 - tail])
    return Interval(float(low), float(high), confidence, len(results), len(set(clusters)), seed)


def _exact_interval(value: float, n_clusters: int, confidence: float, seed: int) -> Interval:
    """Clopper and Pearson's interval of a share, for 0 or all of `n_clusters`: each a trial of its own."""
    width = 1.0 - ((1.0 - confidence) / 2.0) ** (1.0 / n_clusters)
    low, high = (0.0, width) if value == 0.0 else (1.0 - width, 1.0)
    return Interval(low, high, confidence, n_resamples=0, n_clusters=n_clusters, seed=seed, method=EXACT)


def _members(clusters: Sequence[str]) -> list[list[int]]:
    """The positions of each cluster's items; clusters sorted by name."""
    members: dict[str, list[int]] = {}
    for position, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(position)
    return [positions for _, positions in sorted(members.items())]


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
