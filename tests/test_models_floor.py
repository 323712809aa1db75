"""`echo`, `chance` and `majority`: floors that hear nothing."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from harness.contracts import AudioClip, ModelAdapter, Query
from models.chance import chance
from models.echo import echo
from models.majority import majority

LABELS = ("dog", "cat", "rain", "chirping birds")
FLOORS = [echo(), echo(scores=True), chance(), majority()]


def query(item_id: str = "a", labels: tuple[str, ...] | None = LABELS) -> Query:
    clip = AudioClip(np.zeros(1600, dtype=np.float32), 16_000, 16_000, 1, 1600)
    return Query(item_id, clip, "What is this?", labels)


def test_echo_says_the_prompt() -> None:
    assert echo().answer([query()])[0].text == "What is this?"


def test_echo_says_the_text_that_it_was_given() -> None:
    assert echo(text="dog").answer([query()])[0].text == "dog"


def test_echo_says_nothing_when_told_so() -> None:
    assert echo(text="").answer([query()])[0].text == ""


def test_echo_scores_labels_only_when_asked_to() -> None:
    assert echo().answer([query()])[0].label_scores is None
    assert len(echo(scores=True).answer([query()])[0].label_scores or ()) == 4


def test_chance_says_the_label_that_it_scores_highest() -> None:
    answer = chance().answer([query()])[0]
    assert answer.label_scores is not None
    assert LABELS[int(np.argmax(answer.label_scores))] == answer.text


def test_chance_picks_each_label_about_equally_often() -> None:
    picks = Counter(answer.text for answer in chance().answer([query(str(n)) for n in range(4000)]))
    assert all(abs(picks[label] - 1000) < 120 for label in LABELS)


def test_chance_does_not_depend_on_the_order_of_the_labels() -> None:
    assert chance().answer([query()])[0].text == chance().answer([query(labels=LABELS[::-1])])[0].text


def test_another_seed_is_another_pick() -> None:
    queries = [query(str(n)) for n in range(50)]
    picks = [[answer.text for answer in chance(seed=seed).answer(queries)] for seed in (0, 1)]
    assert picks[0] != picks[1]


def test_scores_of_chance_are_nearly_uniform() -> None:
    scores = chance().answer([query()])[0].label_scores or ()
    assert all(abs(score - math.log(1 / 4)) <= 1e-3 for score in scores)


def test_chance_without_labels_fails_the_item_and_says_why() -> None:
    error = chance().answer([query(labels=None)])[0].error
    assert error is not None and error.startswith("ModelLimitError: ")


def test_majority_always_says_the_same() -> None:
    assert {answer.text for answer in majority().answer([query("a"), query("b")])} == {"chirping birds"}


def test_majority_scores_its_label_highest_and_as_probabilities() -> None:
    scores = majority("rain").answer([query()])[0].label_scores or ()
    assert int(np.argmax(scores)) == 2
    assert sum(map(math.exp, scores)) == pytest.approx(1.0)


def test_majority_prefers_no_label_when_its_own_is_not_there() -> None:
    assert len(set(majority("snore").answer([query()])[0].label_scores or ())) == 1


def test_majority_answers_without_labels() -> None:
    assert majority("rain").answer([query(labels=None)])[0].text == "rain"


@pytest.mark.parametrize("model", FLOORS)
def test_answers_do_not_depend_on_their_neighbours(model: ModelAdapter) -> None:
    queries = [query("a"), query("b"), query("c")]
    assert list(model.answer(queries)) == [model.answer([each])[0] for each in queries]


@pytest.mark.parametrize("model", FLOORS)
def test_scores_come_exactly_when_the_description_says_so(model: ModelAdapter) -> None:
    assert (model.answer([query()])[0].label_scores is not None) == model.describe().can_score_labels


def test_every_option_changes_the_fingerprint() -> None:
    models = [echo(), echo(text="x"), echo(scores=True), chance(), chance(seed=1), majority(), majority("rain")]
    assert len({model.describe().fingerprint for model in models}) == len(models)


def test_the_fingerprint_is_the_same_every_time() -> None:
    assert chance().describe() == chance().describe()
