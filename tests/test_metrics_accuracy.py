"""Accuracy counts every item."""

from __future__ import annotations

import pytest

from harness.contracts import Decision, Scored
from harness.metrics.accuracy import accuracy


def item(label: str | None, *references: str, answered: bool = True) -> Scored:
    return Scored("x", references or ("dog",), "c", answered, Decision(label))


def test_all_right_is_one() -> None:
    assert accuracy([item("dog"), item("dog")]) == 1.0


def test_a_wrong_label_counts() -> None:
    assert accuracy([item("dog"), item("cat"), item("cat"), item("dog")]) == 0.5


def test_any_of_several_references_is_right() -> None:
    assert accuracy([item("cat", "dog", "cat")]) == 1.0


def test_an_unparsed_answer_is_wrong() -> None:
    assert accuracy([item("dog"), item(None)]) == 0.5


def test_a_failed_item_is_wrong() -> None:
    assert accuracy([item("dog"), item(None, answered=False)]) == 0.5


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        accuracy([])
