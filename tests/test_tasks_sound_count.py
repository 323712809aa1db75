"""`sound_count`: how many times one sound occurs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from harness.contracts import AudioItem
from harness.errors import OptionError
from tasks._long_items import GAP_S
from tasks._long_task import RATE_HZ
from tasks.sound_count import LONGEST_EVENT_S, sound_count


def read(**options: Any) -> tuple[AudioItem, ...]:
    task = sound_count(**options)
    assert task.read_starter is not None and task.starter_root is not None
    return task.read_starter(task.starter_root).items


def starts_of(item: AudioItem) -> list[int]:
    return [event.start for event in item.source.events]  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", range(10))
def test_the_sound_is_heard_as_often_as_the_reference_says(number: int) -> None:
    item = read(background="silence", lengths="12", n=10)[number]
    heard = item.source.load(RATE_HZ).samples
    sounding = np.flatnonzero(heard)
    # Silence of half a second parts two occurrences; a clip's own pauses are shorter.
    n_found = 1 + int((np.diff(sounding) > 0.45 * RATE_HZ).sum())
    assert item.references == (str(n_found),)


def test_each_occurrence_begins_where_the_metadata_says() -> None:
    for item in read(lengths="10", n=5):
        told = [float(text) for text in str(item.metadata["starts_s"]).split()]
        assert told == pytest.approx([start / RATE_HZ for start in starts_of(item)], abs=0.0006)


def test_occurrences_keep_their_distance() -> None:
    for item in read(lengths="7", n=25):
        assert all(b - a >= GAP_S * RATE_HZ for a, b in zip(starts_of(item), starts_of(item)[1:], strict=False))


def test_each_number_comes_equally_often() -> None:
    found = read(lengths="10", most=4, n=20)
    assert Counter(item.references[0] for item in found) == dict.fromkeys("1234", 5)


def test_the_number_is_not_known_from_the_sound() -> None:
    pairs = {(item.metadata["event"], item.metadata["count"]) for item in read(lengths="10", n=100)}
    assert len(pairs) > 35


def test_items_of_one_number_have_the_same_answer_at_every_length() -> None:
    found = read(lengths="10,100", n=6)
    assert [item.references for item in found[:6]] == [item.references for item in found[6:]]


def test_labels_are_numbers_with_their_words() -> None:
    assert [(label.name, label.text) for label in sound_count(most=3).labels] == [
        ("1", "one"),
        ("2", "two"),
        ("3", "three"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"most": 1}, "count up to 2 to 10, not 1"),
        ({"most": 11}, "not 11"),
        ({"lengths": "6.9"}, "has no room; lengths from 7 s do"),
        ({"background": "mean_level"}, "neither a file nor one of silence, white, babble, ambience"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        sound_count(**options)


def test_no_occurrence_is_longer_than_a_second() -> None:
    for item in read(lengths="10", n=25):
        assert all(len(e.samples()) <= LONGEST_EVENT_S * RATE_HZ for e in item.source.events)  # type: ignore[attr-defined]
