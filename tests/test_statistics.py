"""The cluster bootstrap against a slow loop, against SciPy, and by its coverage."""

from __future__ import annotations

import random
from importlib.util import find_spec

import numpy as np
import pytest

from harness.statistics import (
    BOOTSTRAP,
    EXACT,
    bootstrap_mean_interval,
    bootstrap_weighted_interval,
    compare_paired,
    holm,
    mcnemar_exact,
    resampled_values,
)

VALUES = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0]
CLUSTERS = ["a", "a", "a", "b", "b", "c", "d", "d", "d", "d", "e", "f"]


def slow_interval(values: list[float], clusters: list[str], n_resamples: int, seed: int) -> tuple[float, float]:
    """The same idea with Python's own generator and one list per resample."""
    rng = random.Random(seed)
    names = sorted(set(clusters))
    means = []
    for _ in range(n_resamples):
        drawn: list[float] = []
        for name in rng.choices(names, k=len(names)):
            drawn.extend(value for value, cluster in zip(values, clusters, strict=True) if cluster == name)
        means.append(sum(drawn) / len(drawn))
    means.sort()
    return means[int(0.025 * n_resamples)], means[int(0.975 * n_resamples)]


def test_the_interval_equals_that_of_a_slow_loop() -> None:
    interval = bootstrap_mean_interval(VALUES, CLUSTERS, n_resamples=20_000, seed=3)
    low, high = slow_interval(VALUES, CLUSTERS, 20_000, seed=5)
    assert abs(interval.low - low) < 0.02 and abs(interval.high - high) < 0.02


@pytest.mark.skipif(find_spec("scipy") is None, reason="scipy is not installed")
def test_with_one_item_a_cluster_the_interval_equals_scipys() -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(1).normal(2.0, 3.0, size=60)
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(2))
    ours = bootstrap_mean_interval(values.tolist(), [str(n) for n in range(60)], n_resamples=20_000)
    assert np.allclose([ours.low, ours.high], theirs.confidence_interval, atol=0.03)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    n_trials, n_clusters, size, truth = 300, 60, 3, 0.6
    covered = 0
    for trial in range(n_trials):
        # Items of a cluster are all right or all wrong: an interval that drew clips would be far too short.
        values = np.repeat(rng.random(n_clusters) < truth, size).astype(float).tolist()
        clusters = [str(n) for n in range(n_clusters) for _ in range(size)]
        interval = bootstrap_mean_interval(values, clusters, n_resamples=400, seed=trial)
        covered += interval.low <= truth <= interval.high
    assert 0.90 < covered / n_trials < 0.985


def test_items_of_one_recording_widen_the_interval() -> None:
    values = [float(n % 20 < 10) for n in range(200)]
    alone = bootstrap_mean_interval(values, [str(n) for n in range(200)])
    together = bootstrap_mean_interval(values, [str(n // 10) for n in range(200)])
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_the_same_seed_gives_the_same_interval() -> None:
    assert bootstrap_mean_interval(VALUES, CLUSTERS, seed=9) == bootstrap_mean_interval(VALUES, CLUSTERS, seed=9)


def test_the_order_of_the_items_does_not_matter() -> None:
    order = list(range(len(VALUES)))
    random.Random(0).shuffle(order)
    shuffled = bootstrap_mean_interval([VALUES[n] for n in order], [CLUSTERS[n] for n in order])
    assert shuffled == bootstrap_mean_interval(VALUES, CLUSTERS)


def test_many_clusters_in_several_portions_equal_one_portion(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap_mean_interval(VALUES, CLUSTERS, n_resamples=100)
    monkeypatch.setattr("harness.statistics._DRAWS_AT_ONCE", 20)
    assert bootstrap_mean_interval(VALUES, CLUSTERS, n_resamples=100) == whole


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, 0.0, 0.3085), (1.0, 0.6915, 1.0)])
def test_equal_values_everywhere_get_the_exact_interval_over_clusters(value: float, low: float, high: float) -> None:
    # 10 clusters of 2: tables of Clopper and Pearson's interval have 30.85 % for 0 of 10.
    interval = bootstrap_mean_interval([value] * 20, [str(n // 2) for n in range(20)])
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)
    assert (interval.method, interval.n_resamples, interval.n_clusters) == (EXACT, 0, 10)


@pytest.mark.skipif(find_spec("scipy") is None, reason="scipy is not installed")
@pytest.mark.parametrize("n_clusters", [1, 7, 193])
def test_the_exact_interval_equals_scipys(n_clusters: int) -> None:
    from scipy.stats import binomtest

    theirs = binomtest(n_clusters, n_clusters).proportion_ci(0.9, method="exact")
    ours = bootstrap_mean_interval([1.0] * n_clusters, [str(n) for n in range(n_clusters)], confidence=0.9)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_values_that_differ_are_bootstrapped() -> None:
    assert bootstrap_mean_interval(VALUES, CLUSTERS).method == BOOTSTRAP


def test_one_cluster_gives_no_width_and_says_so() -> None:
    interval = bootstrap_mean_interval([1.0, 0.0], ["a", "a"])
    assert (interval.low, interval.high, interval.n_clusters) == (0.5, 0.5, 1)


@pytest.mark.parametrize(
    ("values", "clusters", "options", "message"),
    [
        ([], [], {}, "at least one value"),
        ([1.0], ["a", "b"], {}, "1 values but 2 clusters"),
        ([float("nan")], ["a"], {}, "finite"),
        ([1.0], ["a"], {"n_resamples": 0}, "n_resamples"),
        ([1.0], ["a"], {"confidence": 1.0}, "confidence"),
    ],
)
def test_senseless_arguments_are_refused(
    values: list[float], clusters: list[str], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_mean_interval(values, clusters, **options)  # type: ignore[arg-type]


# --- multiplicities --------------------------------------------------------------------------------------------------


def weighted_mean(counts: np.ndarray) -> np.ndarray:
    """The mean of VALUES, of each column of multiplicities."""
    return np.asarray(np.array(VALUES) @ counts / counts.sum(axis=0))


@pytest.mark.parametrize("n_resamples", [1, 64, 65, 300])
def test_the_bootstrap_by_multiplicities_draws_the_same_samples(n_resamples: int) -> None:
    fast = bootstrap_weighted_interval(weighted_mean, CLUSTERS, n_resamples=n_resamples, seed=4)
    slow = bootstrap_mean_interval(VALUES, CLUSTERS, n_resamples=n_resamples, seed=4)
    assert (fast.low, fast.high, fast.n_clusters) == pytest.approx((slow.low, slow.high, slow.n_clusters), abs=1e-12)


def test_multiplicities_are_those_of_whole_clusters() -> None:
    seen = []

    def remember(counts: np.ndarray) -> np.ndarray:
        seen.append(counts)
        return np.zeros(counts.shape[1])

    resampled_values(remember, CLUSTERS, 10, seed=0)
    counts = np.concatenate(seen, axis=1)
    first = {name: CLUSTERS.index(name) for name in CLUSTERS}
    assert all((counts[n] == counts[first[name]]).all() for n, name in enumerate(CLUSTERS))
    assert (counts[sorted(first.values())].sum(axis=0) == len(first)).all()


# --- two runs --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("scipy") is None, reason="scipy is not installed")
@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 12), (12, 3), (7, 7), (40, 61), (1000, 1100)])
def test_mcnemars_p_value_equals_scipys_binomial_test(first: int, second: int) -> None:
    from scipy.stats import binomtest

    theirs = binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    assert mcnemar_exact(first, second) == pytest.approx(theirs, rel=1e-9)


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact(-1, 2)


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # Holm's method by hand: 4, 1, 2, 3 times ranks
        ([0.5], [0.5]),
        ([0.9, 0.8], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holms_adjustment(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)


def test_a_p_value_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.5])


@pytest.mark.skipif(find_spec("scipy") is None, reason="scipy is not installed")
def test_the_paired_bootstrap_equals_scipys_paired_bootstrap() -> None:
    from scipy.stats import bootstrap

    rng = np.random.default_rng(3)
    first = rng.normal(0.0, 1.0, 80)
    second = first + rng.normal(0.15, 1.0, 80)
    ours = compare_paired(
        lambda counts: first @ counts / counts.sum(axis=0),
        lambda counts: second @ counts / counts.sum(axis=0),
        [str(n) for n in range(80)],
        n_resamples=20_000,
    )
    theirs = bootstrap(
        (first, second),
        lambda a, b, axis: b.mean(axis=axis) - a.mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    below = (theirs.bootstrap_distribution <= 0).mean()
    assert (ours.interval.low, ours.interval.high) == pytest.approx(theirs.confidence_interval, abs=0.02)
    assert ours.p_value == pytest.approx(2 * min(below, 1 - below), abs=0.02)


def test_two_equal_runs_differ_by_nothing() -> None:
    paired = compare_paired(weighted_mean, weighted_mean, CLUSTERS)
    assert (paired.difference, paired.interval.low, paired.interval.high, paired.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_a_p_value_of_the_bootstrap_is_never_zero() -> None:
    better = compare_paired(lambda counts: np.zeros(counts.shape[1]), lambda counts: np.ones(counts.shape[1]), CLUSTERS)
    assert better.p_value == pytest.approx(2 / 1001)
