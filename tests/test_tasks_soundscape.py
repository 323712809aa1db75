"""`soundscape`: which of several sounds occur, as labels or as a caption."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from harness.contracts import AudioItem
from harness.errors import OptionError
from harness.scene_captions import scene_captions
from tasks._long_task import RATE_HZ
from tasks.soundscape import soundscape


def read(**options: Any) -> tuple[AudioItem, ...]:
    task = soundscape(**options)
    assert task.read_starter is not None and task.starter_root is not None
    return task.read_starter(task.starter_root).items


def test_the_references_are_the_classes_of_all_events_in_order() -> None:
    for item in read(lengths="10", n=20):
        assert item.references == tuple(event.clip.label for event in item.source.events)  # type: ignore[attr-defined]


def test_no_class_comes_twice_in_one_item() -> None:
    assert all(len(set(item.references)) == len(item.references) for item in read(lengths="10", n=40))


def test_items_that_follow_one_another_do_not_share_the_clip_of_a_class() -> None:
    clips: dict[str, set[str]] = {}
    for item in read(lengths="10", n=10):
        for event in item.source.events:  # type: ignore[attr-defined]
            clips.setdefault(event.clip.label, set()).add(event.clip.recording)
    assert max(map(len, clips.values())) > 1


def test_the_metadata_names_every_recording() -> None:
    for item in read(lengths="10", n=5):
        events = item.source.events  # type: ignore[attr-defined]
        assert item.metadata["recordings"] == " ".join(event.clip.recording for event in events)


def test_one_to_four_sounds_come_equally_often() -> None:
    found = read(lengths="10", n=20)
    assert Counter(item.metadata["n_events"] for item in found) == {1: 5, 2: 5, 3: 5, 4: 5}


def test_events_are_heard_one_after_the_other() -> None:
    for item in read(lengths="10", n=20):
        events = item.source.events  # type: ignore[attr-defined]
        ends = [event.start + len(event.samples()) for event in events]
        assert all(after.start - end >= RATE_HZ // 2 for end, after in zip(ends, events[1:], strict=False))


def test_labels_are_scored_as_a_multi_label_set() -> None:
    assert soundscape().metrics == ("micro_f1", "mean_ap")


def test_a_caption_names_the_sounds_in_order_and_the_background() -> None:
    assert scene_captions(["cow", "car_horn"], "rain") == (
        "The sound of cow followed by car horn with rain in the background.",
        "There is cow, then car horn, while rain can be heard throughout.",
    )


def test_a_caption_of_one_sound_in_silence_names_nothing_else() -> None:
    assert scene_captions(["cow"], None) == ("The sound of cow.", "There is cow.")


def test_a_captioning_task_has_captions_for_references_and_no_labels() -> None:
    task = soundscape(answer="caption", background="ambience")
    assert (task.kind, task.labels) == ("captioning", ())
    labels, told = (read(answer=answer, background="ambience", lengths="10", n=8) for answer in ("labels", "caption"))
    for named, item in zip(labels, told, strict=True):
        heard = item.source.background.clip.label.replace("_", " ")  # type: ignore[attr-defined]
        assert item.references == scene_captions(named.references, heard)


def test_both_answers_are_about_the_same_audio() -> None:
    labels, told = (read(answer=answer, lengths="10", n=4) for answer in ("labels", "caption"))
    assert [item.source.identity() for item in labels] == [item.source.identity() for item in told]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answer": "list"}, "no answer 'list'"),
        ({"lengths": "7"}, "lengths from 7.5 s do"),
        ({"answer": "caption", "background": __file__}, "cannot tell what is in a background of your own"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        soundscape(**options)
