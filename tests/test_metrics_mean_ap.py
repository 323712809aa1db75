"""mAP against scikit-learn, its resampling against recomputing, and what becomes of classes and items without."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from harness.contracts import Decision, Scored
from harness.errors import MetricUnavailable
from harness.measuring import BoundMetric
from harness.metrics.mean_ap import mean_ap
from harness.metrics.mean_ap_ltu import mean_ap_ltu
from harness.scoring import _interval
from harness.statistics import (
    CENTRED,
    bootstrap_centred_interval,
    bootstrap_weighted_interval,
    resampled_values,
)

LABELS = ("dog", "cat", "rain", "wind", "bell")


def some_items(seed: int, n: int = 40, coarse: bool = True) -> list[Scored]:
    """Clips with one or two of the first four labels; coarse scores have many ties."""
    rng = np.random.default_rng(seed)
    items = []
    for number in range(n):
        scores = rng.integers(0, 4, len(LABELS)) / 4 if coarse else rng.random(len(LABELS))
        references = tuple(rng.choice(LABELS[:4], size=rng.integers(1, 3), replace=False).tolist())
        decision = Decision(LABELS[int(scores.argmax())], tuple(scores.tolist()))
        items.append(Scored(f"i{number}", references, f"c{number // 2}", True, decision))
    return items


def scikit_learns(items: list[Scored]) -> list[float]:
    """AP of each class that has positives."""
    from sklearn.metrics import average_precision_score

    truth = np.array([[label in item.references for label in LABELS] for item in items])
    scores = np.array([item.decision.scores for item in items])
    return [average_precision_score(truth[:, k], scores[:, k]) for k in np.flatnonzero(truth.any(axis=0))]


@pytest.mark.parametrize(("seed", "coarse"), list(itertools.product(range(3), (True, False))))
def test_it_is_the_mean_of_scikit_learns_average_precisions(seed: int, coarse: bool) -> None:
    items = some_items(seed, coarse=coarse)
    assert mean_ap(items, LABELS) == pytest.approx(np.mean(scikit_learns(items)), abs=1e-12)


def test_ltu_counts_a_class_without_positives_as_zero() -> None:
    items = some_items(0)
    assert mean_ap_ltu(items, LABELS) == pytest.approx(sum(scikit_learns(items)) / 5, abs=1e-12)


def test_classes_without_positives_are_counted_in_a_remark() -> None:
    remarks = BoundMetric("mean_ap", LABELS, mean_ap).remarks(some_items(0))
    assert remarks == ("1 of 5 classes have no positive item and are left out",)


def test_where_every_class_has_positives_there_is_no_remark() -> None:
    items = [*some_items(0), Scored("x", ("bell",), "c", True, Decision("bell", (0.0,) * 5))]
    assert BoundMetric("mean_ap", LABELS, mean_ap).remarks(items) == ()


def test_an_answer_without_scores_is_an_error_that_names_the_scorers_with_scores() -> None:
    with pytest.raises(MetricUnavailable, match="loglik, embed, clap, ltu"):
        mean_ap([Scored("x", ("dog",), "c", True, Decision("dog"))], LABELS)


@pytest.mark.parametrize("metric", [mean_ap, mean_ap_ltu])
def test_answers_that_a_scorer_with_scores_could_not_read_are_found_for_no_class(metric: object) -> None:
    silent = [Scored("x", ("dog",), "c", True, Decision(None))] * 3
    bound = BoundMetric("mean_ap", LABELS, metric, gives_scores=True)  # type: ignore[arg-type]
    counts = np.array([[2], [0], [1]], dtype=np.int32)
    assert (bound.value(silent), bound.resampled(silent)(counts).tolist()) == (0.0, [0.0])


def test_a_scorer_without_scores_has_none_although_every_item_failed() -> None:
    failed = [Scored("b", ("dog",), "b", False, Decision(None))]
    with pytest.raises(MetricUnavailable, match="the scorer gives none"):
        mean_ap(failed, LABELS, gives_scores=False)


def test_a_failed_item_is_found_for_no_class() -> None:
    right = Scored("a", ("dog",), "a", True, Decision("dog", (1.0, 0.0, 0.0, 0.0, 0.0)))
    failed = Scored("b", ("dog",), "b", False, Decision(None))
    assert mean_ap([right, failed], LABELS) == pytest.approx(0.5)


def test_a_run_in_which_all_failed_scores_nothing() -> None:
    assert mean_ap([Scored("b", ("dog",), "b", False, Decision(None))] * 3, LABELS) == 0.0


def test_a_score_that_is_no_number_is_an_error() -> None:
    bad = Scored("x", ("dog",), "c", True, Decision("dog", (float("nan"),) * 5))
    with pytest.raises(ValueError, match="not finite"):
        mean_ap([bad], LABELS)


def test_scores_that_do_not_fit_the_labels_are_an_error() -> None:
    with pytest.raises(ValueError, match="5 scores for 4 labels"):
        mean_ap(some_items(0), LABELS[:4])


def test_the_labels_order_is_learned_from_decisions_where_it_is_not_told() -> None:
    items = [item for item in some_items(3, 80, coarse=False) if "bell" not in item.references]
    assert mean_ap(items) == pytest.approx(mean_ap(items, LABELS))


def test_an_order_that_decisions_do_not_tell_is_an_error() -> None:
    with pytest.raises(ValueError, match="order of the labels"):
        mean_ap([Scored("x", ("dog",), "c", True, Decision("cat", (0.0, 1.0)))])


def with_failures(items: list[Scored]) -> list[Scored]:
    return [
        Scored(i.item_id, i.references, i.cluster, False, Decision(None)) if n % 5 == 0 else i
        for n, i in enumerate(items)
    ]


@pytest.mark.parametrize("metric", [mean_ap, mean_ap_ltu])
@pytest.mark.parametrize("items", [some_items(5), some_items(6, coarse=False), with_failures(some_items(7))])
def test_multiplicities_give_what_repeated_items_give(metric: object, items: list[Scored]) -> None:
    counts = np.random.default_rng(0).integers(0, 3, size=(len(items), 6)).astype(np.int32)
    bound = BoundMetric(metric.__name__, LABELS, metric)  # type: ignore[attr-defined, arg-type]
    repeated = [
        bound.value([item for item, n in zip(items, column, strict=True) for _ in range(n)]) for column in counts.T
    ]
    assert bound.resampled(items)(counts) == pytest.approx(repeated, abs=1e-9)


def test_the_fast_interval_equals_that_of_the_plain_bootstrap() -> None:
    items = some_items(8)
    bound = BoundMetric("mean_ap", LABELS, mean_ap)
    clusters = [item.cluster for item in items]

    def item_by_item(counts: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        drawn = [[item for item, n in zip(items, column, strict=True) for _ in range(n)] for column in counts.T]
        return np.array([bound.value(sample) for sample in drawn])

    plain = bootstrap_weighted_interval(item_by_item, clusters, n_resamples=100, seed=3)
    fast = bootstrap_weighted_interval(bound.resampled(items), clusters, n_resamples=100, seed=3)
    assert (fast.low, fast.high) == pytest.approx((plain.low, plain.high), abs=1e-9)


def rare_items(seed: int, n: int = 12) -> list[Scored]:
    """A small set on which three of five classes have a single positive."""
    rng = np.random.default_rng(seed)
    items = []
    for number in range(n):
        references = (LABELS[2 + number],) if number < 3 else (LABELS[number % 2],)
        scores = tuple(float(x) for x in rng.random(len(LABELS)))
        items.append(Scored(f"i{number}", references, f"c{number}", True, Decision(None, scores)))
    return items


def test_the_interval_of_a_small_set_with_rare_classes_holds_the_value() -> None:
    outside = {"percentile": 0, "reported": 0}
    for seed in range(40):
        items = rare_items(seed)
        bound = BoundMetric("mean_ap", LABELS, mean_ap)
        value, clusters = bound.value(items), [item.cluster for item in items]
        plain = bootstrap_weighted_interval(bound.resampled(items, value), clusters, n_resamples=200)
        reported = _interval(items, bound, value, seed=0, n_resamples=200)
        outside["percentile"] += not plain.low <= value <= plain.high
        outside["reported"] += not reported.low <= value <= reported.high
        assert reported.method == CENTRED and 0.0 <= reported.low <= reported.high <= 1.0
    assert outside["reported"] == 0 and outside["percentile"] > 0


def test_the_interval_is_the_percentile_interval_less_the_bootstraps_bias() -> None:
    items = some_items(4)
    bound = BoundMetric("mean_ap", LABELS, mean_ap)
    value, clusters = bound.value(items), [item.cluster for item in items]
    values = resampled_values(bound.resampled(items), clusters, 300, 0)
    low, high = np.quantile(values, [0.025, 0.975]) - (values.mean() - value)
    found = bootstrap_centred_interval(bound.resampled(items), value, clusters, n_resamples=300)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
