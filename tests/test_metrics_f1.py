"""Micro and macro F1 against scikit-learn, and by their conventions."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from harness.contracts import Decision, Scored
from harness.measuring import BoundMetric
from harness.metrics.macro_f1 import macro_f1
from harness.metrics.micro_f1 import micro_f1

LABELS = tuple("abcdefg")


def item(label: str | None, *references: str, answered: bool = True, cluster: str = "c") -> Scored:
    return Scored("x", references, cluster, answered, Decision(label))


def some_items(seed: int, n: int = 60) -> list[Scored]:
    """Clips with one to three labels of six; some answers are unparsed, and "g" is never a reference."""
    rng = random.Random(seed)
    return [
        item(rng.choice([*LABELS, None]), *rng.sample(LABELS[:6], rng.randint(1, 3)), answered=rng.random() < 0.9)
        for _ in range(n)
    ]


def matrices(items: list[Scored]) -> tuple[np.ndarray, np.ndarray]:
    """One row an item, one column a label: references, and decided labels."""
    truth = np.array([[label in each.references for label in LABELS] for each in items])
    decided = np.array([[each.answered and label == each.decision.label for label in LABELS] for each in items])
    return truth.astype(int), decided.astype(int)


@pytest.mark.parametrize("seed", range(5))
def test_micro_f1_of_clips_with_several_labels_equals_scikit_learns(seed: int) -> None:
    from sklearn.metrics import f1_score

    items = some_items(seed)
    assert micro_f1(items) == pytest.approx(f1_score(*matrices(items), average="micro"), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_of_clips_with_several_labels_equals_scikit_learns(seed: int) -> None:
    from sklearn.metrics import f1_score

    items = some_items(seed)
    expected = f1_score(*matrices(items), average="macro", zero_division=np.nan)
    assert macro_f1(items) == pytest.approx(expected, abs=1e-12)


def test_with_one_label_a_row_and_every_row_decided_micro_f1_is_accuracy() -> None:
    rng = random.Random(1)
    items = [item(rng.choice(LABELS), rng.choice(LABELS)) for _ in range(50)]
    right = sum(each.decision.label in each.references for each in items)
    assert micro_f1(items) == pytest.approx(right / 50)


def test_a_clip_with_two_labels_of_which_one_is_decided_misses_the_other() -> None:
    assert micro_f1([item("a", "a", "b")]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", [micro_f1, macro_f1])
def test_failed_and_unparsed_items_miss_their_references(metric: object) -> None:
    items = [item("a", "a"), item(None, "a"), item("a", "a", answered=False)]
    assert metric(items) == pytest.approx(2 * 1 / (2 * 1 + 2))  # type: ignore[operator]


def test_a_class_that_nobody_names_does_not_enter_macro_f1() -> None:
    assert macro_f1([item("a", "a"), item("b", "b")]) == 1.0


@pytest.mark.parametrize("metric", [micro_f1, macro_f1])
def test_nothing_to_score_is_an_error(metric: object) -> None:
    with pytest.raises(ValueError, match="at least one"):
        metric([])  # type: ignore[operator]


@pytest.mark.parametrize("metric", [micro_f1, macro_f1])
def test_multiplicities_give_what_repeated_items_give(metric: object) -> None:
    items = some_items(9, 20)
    counts = np.random.default_rng(0).integers(0, 3, size=(20, 4)).astype(np.int32)
    bound = BoundMetric(metric.__name__, LABELS, metric)  # type: ignore[attr-defined, arg-type]
    repeated = [metric([each for each, n in zip(items, column, strict=True) for _ in range(n)]) for column in counts.T]  # type: ignore[operator]
    assert bound.resampled(items)(counts) == pytest.approx(repeated)


# --- sets of labels ---------------------------------------------------------------------------------------------------


def set_items(seed: int, n: int = 60) -> list[Scored]:
    """Clips with one to three labels, and answers that name none to four."""
    rng = random.Random(seed)
    items = []
    for number in range(n):
        said = tuple(sorted(rng.sample(LABELS, rng.randint(0, 4))))
        decision = Decision(said[0] if len(said) == 1 else None, labels=said)
        references = tuple(rng.sample(LABELS[:6], rng.randint(1, 3)))
        items.append(Scored("x", references, f"c{number // 2}", rng.random() < 0.9, decision))
    return items


@pytest.mark.parametrize(("metric", "average"), [(micro_f1, "micro"), (macro_f1, "macro")])
def test_f1_of_sets_of_labels_equals_scikit_learns(metric: Callable[..., float], average: str) -> None:
    from sklearn.metrics import f1_score

    items = set_items(2)
    truth = np.array([[label in each.references for label in LABELS] for each in items]).astype(int)
    said = [each.decision.decided() if each.answered else () for each in items]
    decided = np.array([[label in each for label in LABELS] for each in said]).astype(int)
    expected = f1_score(truth, decided, average=average, zero_division=np.nan)
    assert metric(items) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", [micro_f1, macro_f1])
def test_f1_of_sets_is_resampled_as_it_is_computed(metric: Callable[..., float]) -> None:
    items = set_items(3)
    counts = np.random.default_rng(0).integers(0, 3, size=(len(items), 4)).astype(np.int32)
    repeated = [metric([i for i, n in zip(items, column, strict=True) for _ in range(n)]) for column in counts.T]
    assert BoundMetric(metric.__name__, LABELS, metric).resampled(items)(counts) == pytest.approx(repeated, abs=1e-9)


def test_a_scorer_of_single_labels_on_clips_with_several_says_what_that_costs() -> None:
    items = [item("a", "a", "b"), item("b", "b")]
    assert micro_f1(items) == pytest.approx(0.8)
    assert BoundMetric("micro_f1", LABELS, micro_f1).remarks(items) == (
        "the scorer decides for one label a clip, and 2 clips have 3: micro F1 can be 80.0 % at most",
    )


def test_a_scorer_of_sets_needs_no_such_remark() -> None:
    assert BoundMetric("micro_f1", LABELS, micro_f1).remarks(set_items(4)) == ()
