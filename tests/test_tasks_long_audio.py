"""Generated long audio: the ratio that was asked, no clipping, alike in blocks and whole, and an identity to trust."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from harness.contracts import BlockSource
from harness.errors import AudioError
from tasks._backgrounds import Background, make_background
from tasks._clips import Clip, power, starter_sounds
from tasks._dass_haystack import NEEDLE_SAMPLES, HaystackSource, needle_frame
from tasks._long_audio import EVENT_RMS, PEAK_LIMIT, Event, LongSource
from tasks._long_task import LABELS, RATE_HZ, spread
from tasks._long_task import random_of as draws_of

N = 25 * RATE_HZ + 7
NOISES = ("white", "babble", "ambience")


def clip(number: int = 5) -> Clip:
    return starter_sounds(LABELS)[number]


def source(background: str = "white", snr_db: float | None = 10.0, number: int = 5) -> LongSource:
    events = (Event(clip(number), 9 * RATE_HZ, 3.0), Event(clip(number + 7), 20 * RATE_HZ, 3.0))
    return LongSource(N, make_background(background, 4), events, snr_db)


def decibels(samples: np.ndarray) -> float:
    return 10 * float(np.log10(power(samples)))


def spans(made: LongSource) -> list[slice]:
    return [slice(event.start, event.start + len(event.samples())) for event in made.events]


# --- ratio and level -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr_db", [-20.0, 0.0, 10.0, 30.0])
@pytest.mark.parametrize("background", NOISES)
def test_the_ratio_over_each_event_is_the_one_that_was_asked(background: str, snr_db: float) -> None:
    made = source(background, snr_db)
    heard = made.load(RATE_HZ).samples
    # What is heard where there is no event is the background in its final level, and tells its gain.
    alone = made.background.section(0, 8 * RATE_HZ)
    gain = np.dot(heard[: 8 * RATE_HZ].astype(np.float64), alone) / np.dot(alone.astype(np.float64), alone)
    for span in spans(made):
        under = gain * made.background.section(span.start, span.stop)
        assert decibels(heard[span] - under) - decibels(under) == pytest.approx(snr_db, abs=0.01)


@pytest.mark.parametrize("snr_db", [-40.0, -20.0, 0.0, 40.0])
@pytest.mark.parametrize("background", NOISES)
@pytest.mark.parametrize("number", range(0, 40, 8))
def test_no_sample_reaches_full_scale(background: str, snr_db: float, number: int) -> None:
    assert np.abs(source(background, snr_db, number).load(RATE_HZ).samples).max() <= PEAK_LIMIT * (1 + 1e-5)


def test_events_in_silence_have_the_usual_power() -> None:
    made = source("silence", None)
    heard = made.load(RATE_HZ).samples
    events = np.concatenate([heard[span] for span in spans(made)])
    assert np.sqrt(power(events)) == pytest.approx(EVENT_RMS, rel=1e-4)


def test_silence_is_silent_between_events() -> None:
    made = source("silence", None)
    heard = made.load(RATE_HZ).samples.copy()
    for span in spans(made):
        heard[span] = 0.0
    assert not heard.any()


def test_a_long_event_is_cut_and_faded_out() -> None:
    longest = max(starter_sounds(LABELS), key=lambda one: len(one.samples()))
    cut = longest.samples(0.5)
    assert len(cut) == RATE_HZ // 2
    assert cut[-1] == 0.0
    np.testing.assert_array_equal(cut[: len(cut) - 320], longest.samples()[: len(cut) - 320])


# --- blocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", ["silence", *NOISES])
def test_blocks_are_the_sum_of_background_and_events(background: str) -> None:
    made = source(background, None if background == "silence" else 3.0)
    gain, parts = made.parts()
    plain = made.background.section(0, N) * np.float32(gain)
    for part in parts:
        plain[part.start : part.stop] += part.samples
    np.testing.assert_allclose(np.concatenate(list(made.blocks(RATE_HZ))), plain, atol=1e-7)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
def test_load_is_all_blocks_together(rate_hz: int) -> None:
    made = source()
    np.testing.assert_array_equal(made.load(rate_hz).samples, np.concatenate(list(made.blocks(rate_hz))))


def test_another_rate_is_the_same_sound_resampled() -> None:
    made = source()
    whole = soxr.resample(made.load(RATE_HZ).samples, RATE_HZ, 44_100)
    heard = made.load(44_100).samples
    assert abs(len(heard) - len(whole)) <= 1
    n_shared = min(len(heard), len(whole))
    np.testing.assert_allclose(heard[:n_shared], whole[:n_shared], atol=1e-4)


def test_the_duration_is_exact() -> None:
    made = source()
    loaded = made.load(RATE_HZ)
    assert len(loaded.samples) == N
    assert made.duration_s() == N / RATE_HZ == loaded.duration_s


def test_it_can_be_heard_in_blocks_by_contract() -> None:
    assert isinstance(source(), BlockSource)
    assert isinstance(haystack(), BlockSource)


@pytest.mark.parametrize("background", ["white", "ambience"])
def test_ten_minutes_take_no_more_memory_than_one(background: str) -> None:
    peaks = []
    for minutes in (1, 10):
        made = replace(source(background), n_samples=minutes * 60 * RATE_HZ)
        next(made.blocks(RATE_HZ))
        tracemalloc.start()
        for _ in made.blocks(RATE_HZ):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 50e6


# --- identity --------------------------------------------------------------------------------------------------------


def test_the_same_parameters_are_the_same_audio() -> None:
    assert source().identity() == source().identity()
    np.testing.assert_array_equal(source().load(RATE_HZ).samples, source().load(RATE_HZ).samples)


@pytest.mark.parametrize(
    "other",
    [
        replace(source(), n_samples=N + 1),
        replace(source(), snr_db=11.0),
        replace(source(), background=make_background("white", 5)),
        replace(source(), events=source().events[:1]),
        replace(source(), events=(replace(source().events[0], start=1), source().events[1])),
        replace(source(), events=(replace(source().events[0], longest_s=2.0), source().events[1])),
    ],
    ids=["length", "ratio", "background", "events", "start", "cut"],
)
def test_any_other_parameter_is_another_identity(other: LongSource) -> None:
    assert other.identity() != source().identity()


def test_a_changed_clip_is_another_identity_and_another_sound(tmp_path: Path) -> None:
    path = tmp_path / "dog.wav"
    made = LongSource(N, make_background("silence", 0), (Event(Clip("dog", path, "dog"), 0),), None)
    found = []
    for sound in (np.full(800, 0.1), np.linspace(0.0, 0.2, 800)):
        soundfile.write(path, sound, RATE_HZ)
        found.append((made.identity(), made.load(RATE_HZ).samples))
    assert found[0][0] != found[1][0]
    assert not np.array_equal(found[0][1], found[1][1])


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [-1, N - 10, 9 * RATE_HZ + 5])
def test_an_event_without_room_is_refused(start: int) -> None:
    made = source()
    with pytest.raises(AudioError, match="has no room before"):
        next(replace(made, events=(made.events[0], Event(clip(8), start))).blocks(RATE_HZ))


def test_a_background_that_is_silent_under_an_event_is_refused() -> None:
    with pytest.raises(AudioError, match=r"silent at 9\.000 s"):
        next(source("silence", 10.0).blocks(RATE_HZ))


def test_a_silent_clip_is_no_event(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(800), RATE_HZ)
    with pytest.raises(AudioError, match="is silent"):
        Clip("none", tmp_path / "none.wav", "none").samples()


# --- places ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(50))
def test_spread_events_keep_their_gap_and_their_order(number: int) -> None:
    durations = [1000, 20_000, 300]
    starts = spread(durations, 40_000, 8000, draws_of("test", number))
    ends = [start + duration for start, duration in zip(starts, durations, strict=True)]
    assert starts[0] >= 0
    assert ends[-1] <= 40_000
    assert all(after - end >= 8000 for end, after in zip(ends, starts[1:], strict=False))


def test_spread_events_lie_at_the_same_shares_of_any_length() -> None:
    short, long = (spread([100, 100], n, 0, draws_of("test", 1)) for n in (100_200, 1_000_200))
    assert [round(start / 1000) for start in long] == pytest.approx([start / 100 for start in short], abs=2)


# --- DASS's haystack -------------------------------------------------------------------------------------------------


def haystack(depth: float = 0.5, background: Background | None = None, snr_db: float | None = 10.0) -> HaystackSource:
    return HaystackSource(2500, depth, clip(), background or make_background("white", 1), snr_db)


@pytest.mark.parametrize(
    ("n_frames", "depth", "frame"),
    # int(L * t) as published, and the last place that there is where that would reach beyond the end.
    [(5000, 0.0, 0), (5000, 0.5, 2500), (5000, 0.7, 3500), (5000, 0.9, 3976), (5000, 1.0, 3976), (1024, 0.5, 0)],
)
def test_the_needle_lies_at_the_published_frame_or_the_last(n_frames: int, depth: float, frame: int) -> None:
    assert needle_frame(n_frames, depth) == frame


def test_no_haystack_is_heard_under_the_needle() -> None:
    heard = haystack().load(RATE_HZ).samples
    start = needle_frame(2500, 0.5) * 160
    n_sound = len(clip().samples())
    np.testing.assert_allclose(heard[start : start + n_sound], clip().samples(), atol=1e-7)
    assert not heard[start + n_sound : start + NEEDLE_SAMPLES].any()


def test_the_haystack_has_the_ratio_to_the_clip() -> None:
    heard = haystack(depth=1.0).load(RATE_HZ).samples
    noise = heard[: -NEEDLE_SAMPLES - 1]
    assert decibels(clip().samples()) - decibels(noise) == pytest.approx(10.0, abs=0.1)


def test_the_haystack_is_as_long_as_its_frames() -> None:
    assert len(haystack().load(RATE_HZ).samples) == 2500 * 160
    assert haystack().duration_s() == 25.0


def test_a_haystack_at_the_mean_level_is_not_scaled() -> None:
    background = make_background("mean_level", 1)
    heard = haystack(1.0, background, None).load(RATE_HZ).samples
    np.testing.assert_allclose(heard[:1000], background.section(0, 1000), atol=1e-7)
