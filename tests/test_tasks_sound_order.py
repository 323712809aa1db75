"""`sound_order`: which of two sounds is first."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from harness.contracts import AudioItem
from harness.errors import OptionError
from tasks._clips import power
from tasks._long_task import LABELS, RATE_HZ
from tasks.sound_order import LONGEST_EVENT_S, sound_order


def read(**options: Any) -> tuple[AudioItem, ...]:
    task = sound_order(**options)
    assert task.read_starter is not None and task.starter_root is not None
    return task.read_starter(task.starter_root).items


def number(item: AudioItem, name: str) -> float:
    value = item.metadata[name]
    assert isinstance(value, float)
    return value


@pytest.mark.parametrize("place", range(10))
def test_the_reference_is_the_sound_that_is_heard_first(place: int) -> None:
    item = read(background="silence", lengths="10", n=10)[place]
    heard = item.source.load(RATE_HZ).samples
    first = item.source.events[0]  # type: ignore[attr-defined]
    assert item.references == (first.clip.label,)
    start = int(np.flatnonzero(heard)[0])
    sound = first.samples()
    onset = int(np.flatnonzero(sound)[0])
    found = heard[start : start + len(sound) - onset]
    np.testing.assert_allclose(found / np.sqrt(power(found)), sound[onset:] / np.sqrt(power(sound[onset:])), atol=1e-3)


def test_the_two_sounds_are_of_two_classes() -> None:
    assert all(item.metadata["event"] != item.metadata["second"] for item in read(lengths="10", n=50))


def test_the_gap_is_that_between_the_sounds() -> None:
    for item in read(lengths="10", n=20):
        first, second = item.source.events  # type: ignore[attr-defined]
        gap = second.start - first.start - len(first.samples())
        assert gap / RATE_HZ == pytest.approx(number(item, "gap_s"))
        assert gap >= RATE_HZ // 2


def test_the_second_sound_follows_the_first_in_the_metadata() -> None:
    for item in read(lengths="60", n=20):
        assert number(item, "first_s") < number(item, "second_s")


def test_the_second_clip_does_not_follow_from_the_round() -> None:
    # In ten items each class is first once; a class that is second several times there is not always the same clip.
    items = read(lengths="10", n=200)
    seen: dict[tuple[int, str], set[str]] = {}
    for place, item in enumerate(items):
        clip = item.source.events[1].clip  # type: ignore[attr-defined]
        seen.setdefault((place // len(LABELS), clip.label), set()).add(clip.recording)
    assert max(map(len, seen.values())) > 1


def test_each_class_is_first_equally_often() -> None:
    assert Counter(item.references[0] for item in read(lengths="10", n=30)) == dict.fromkeys(LABELS, 3)


def test_no_room_for_both_is_refused() -> None:
    with pytest.raises(OptionError, match=f"lengths from {2 * LONGEST_EVENT_S + 0.5:g} s do"):
        sound_order(lengths="6")
