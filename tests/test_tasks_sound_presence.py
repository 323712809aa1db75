"""`sound_presence`: whether a certain sound is there."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from harness import registry
from harness.contracts import AudioItem, ScorableAnswer
from harness.errors import OptionError
from tasks._long_task import RATE_HZ
from tasks.sound_presence import YES_NO, sound_presence


def read(**options: Any) -> tuple[AudioItem, ...]:
    task = sound_presence(**options)
    assert task.read_starter is not None and task.starter_root is not None
    return task.read_starter(task.starter_root).items


def test_the_answer_is_yes_where_the_sound_asked_about_is_the_one_heard() -> None:
    for item in read(sound="cow", lengths="10", n=12):
        (event,) = item.source.events  # type: ignore[attr-defined]
        assert item.references == (("yes",) if event.clip.label == "cow" else ("no",))


def test_it_is_there_in_half_of_the_items() -> None:
    assert Counter(item.references for item in read(lengths="10", n=20)) == {("yes",): 10, ("no",): 10}


def test_what_is_heard_instead_is_not_always_the_same() -> None:
    heard = {item.metadata["event"] for item in read(lengths="10", n=40)} - {"dog"}
    assert len(heard) > 4


def test_the_sound_begins_where_the_metadata_says() -> None:
    for item in read(background="silence", lengths="10", n=4):
        (event,) = item.source.events  # type: ignore[attr-defined]
        assert item.metadata["start_s"] == event.start / RATE_HZ


def test_items_of_one_number_have_the_same_answer_at_every_length() -> None:
    found = read(lengths="10,100", n=6)
    assert [item.references for item in found[:6]] == [item.references for item in found[6:]]


def test_the_question_names_the_sound() -> None:
    assert all("'car horn'" in prompt for prompt in sound_presence(sound="car_horn").prompts.values())


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("No.", "no"),
        ("Yes, there is a dog.", "yes"),
        ("a dog", None),
        ("yes and no", None),
    ],
)
def test_yes_and_no_are_read_from_an_answer(said: str, label: str | None) -> None:
    scorer = registry.create("scorers", "exact").value
    (decision,) = scorer.decide([ScorableAnswer(said, None)], YES_NO)
    assert decision.label == label


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sound": "unicorn"}, "'unicorn' is none of the sounds, which are dog, rooster"),
        ({"lengths": "2.9"}, "has no room; lengths from 3 s do"),
        ({"background": "mean_level"}, "neither a file nor one of silence, white, babble, ambience"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        sound_presence(**options)
