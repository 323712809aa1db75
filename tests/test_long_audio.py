"""Long clips reach a model unread: it hears the same samples, and what is wrong with them is still told."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from harness import registry
from harness.answering import Question, answer_batch
from harness.audio import ArraySource, FileSource
from harness.clips import UnreadClip
from harness.contracts import Answer, AudioClip, AudioFacts, AudioItem, AudioSource, BlockSource, Query
from harness.control_sources import Change, ChangedSource, SilentSource
from harness.errors import AudioError, MissingDataError
from harness.hearing import BatchItem, HeardItem, hear_batches, partition
from harness.records import Prediction

REPOSITORY = Path(__file__).resolve().parents[1]
RATE_HZ = 16_000
QUESTION = Question("What is it?", None)
Samples = npt.NDArray[np.float32]


@pytest.fixture(autouse=True)
def _one_second_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.hearing.LONG_S", 1.0)


def noise(n_frames: int, channels: int = 1) -> npt.NDArray[np.float64]:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (n_frames, channels))


def write(path: Path, samples: npt.NDArray[np.float64], rate_hz: int = RATE_HZ, subtype: str = "PCM_16") -> FileSource:
    soundfile.write(path, samples, rate_hz, subtype=subtype)
    return FileSource(path)


@dataclass(frozen=True)
class Scripted:
    """A source of ones whose header says 2 s, and that ends with an error where one is given."""

    error: Exception | None = None
    n_blocks: int = 2
    header_s: float | None = 2.0

    def blocks(self, sample_rate_hz: int) -> Generator[Samples, None, AudioFacts | None]:
        for _ in range(self.n_blocks):
            yield np.ones(sample_rate_hz, dtype=np.float32)
        if self.error is not None:
            raise self.error
        return AudioFacts(44_100, 2, 88_200, ("worn",))

    def load(self, sample_rate_hz: int) -> AudioClip:
        raise AssertionError("a source with blocks was loaded")

    def identity(self) -> str:
        return "scripted"

    def duration_s(self) -> float | None:
        return self.header_s


class Hearer:
    """Answers with what a function makes of each clip."""

    def __init__(self, hear: Callable[[AudioClip], object]) -> None:
        self.hear = hear
        self.n_asked = 0

    def answer(self, queries: Sequence[Query]) -> Sequence[Answer]:
        self.n_asked += 1
        return [Answer(str(self.hear(query.clip))) for query in queries]


def in_blocks(clip: AudioClip) -> int:
    return sum(len(block) for block in clip.blocks())


def batch_of(*sources: AudioSource, max_audio_s: float | None = None) -> tuple[HeardItem, ...]:
    items = [BatchItem(AudioItem(str(n), s, ("a",), "c"), "id", s.duration_s()) for n, s in enumerate(sources)]
    return next(hear_batches([items], RATE_HZ, max_audio_s))


def predictions(model: Hearer, *sources: AudioSource) -> list[Prediction]:
    return answer_batch(model, batch_of(*sources), QUESTION, 0, 0)  # type: ignore[arg-type]


# --- the same samples ------------------------------------------------------------------------------------------------


def sources_of_sound(folder: Path) -> dict[str, BlockSource]:
    """Sources of some seconds, in several blocks of what the tests make a block."""
    file = write(folder / "a.wav", noise(60_011, 2), 44_100, "FLOAT")
    changes: tuple[Change, ...] = ("silence", "noise", "reversed", "last_second_silenced")
    return {
        "file": file,
        "at its own rate": write(folder / "b.flac", noise(40_000), RATE_HZ),
        "array": ArraySource(noise(30_000, 2), 22_050),
        "silent": SilentSource(1.7),
        **{change: ChangedSource(file, change, "seed") for change in changes},
    }


NAMES = ("file", "at its own rate", "array", "silent", "silence", "noise", "reversed", "last_second_silenced")


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_the_loaded_samples_bit_for_bit(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("audio", "contracts", "control_sources"):
        monkeypatch.setattr(f"harness.{module}._BLOCK_SAMPLES", 10_000)
    source = sources_of_sound(tmp_path)[name]
    blocks = list(source.blocks(RATE_HZ))
    assert len(blocks) > 1 or name == "reversed"
    np.testing.assert_array_equal(np.concatenate(blocks), source.load(RATE_HZ).samples)


@pytest.mark.parametrize("name", NAMES)
def test_an_unread_clip_tells_of_itself_what_the_loaded_one_does(tmp_path: Path, name: str) -> None:
    source = sources_of_sound(tmp_path)[name]
    told = [
        (c.n_samples, c.sample_rate_hz, c.duration_s, c.source_rate_hz, c.source_channels, c.source_frames, c.notes)
        for c in (source.load(RATE_HZ), UnreadClip(source, RATE_HZ))
    ]
    assert told[0] == told[1]


def test_an_unread_clip_that_is_asked_for_its_samples_keeps_them(tmp_path: Path) -> None:
    clip = UnreadClip(sources_of_sound(tmp_path)["file"], RATE_HZ)
    assert clip.is_unread
    samples = clip.samples
    assert clip.samples is samples and not clip.is_unread
    np.testing.assert_array_equal(np.concatenate(list(clip.blocks())), samples)


def test_blocks_begin_anew_at_every_call() -> None:
    clip = UnreadClip(Scripted(), RATE_HZ)
    next(iter(clip.blocks()))
    assert [in_blocks(clip), in_blocks(clip)] == [2 * RATE_HZ] * 2


def test_a_source_without_facts_is_described_by_its_samples() -> None:
    clip = UnreadClip(SilentSource(2.0), RATE_HZ)
    assert (clip.source_rate_hz, clip.source_channels, clip.source_frames) == (RATE_HZ, 1, 2 * RATE_HZ)
    assert clip.notes == ("silent",)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: FileSource(folder / "none.wav"), "no such file"),
        (lambda folder: write(folder / "a.wav", np.zeros((0, 1))), "holds no samples"),
        (lambda folder: write(folder / "a.wav", np.full((9, 1), np.inf), subtype="FLOAT"), "NaN or infinite"),
        (lambda folder: ArraySource(np.full(9, np.nan), RATE_HZ), "NaN or infinite"),
        (lambda folder: ArraySource(np.ones(1), 96_000_000), "shorter than one sample"),
    ],
)
def test_blocks_of_bad_audio_fail_as_loading_does(
    tmp_path: Path, make: Callable[[Path], BlockSource], reason: str
) -> None:
    with pytest.raises(AudioError, match=reason):
        list(make(tmp_path).blocks(RATE_HZ))


def test_only_a_block_of_a_clip_is_in_memory_while_it_is_heard(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 8_000, 1, "PCM_U8") as file:
        for _ in range(600):
            file.write(np.full(8_000, 0.25))
    tracemalloc.start()
    assert in_blocks(UnreadClip(FileSource(path), RATE_HZ)) == 600 * RATE_HZ
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 600 * RATE_HZ * 4 / 2


# --- what reaches a model, and what comes of it ----------------------------------------------------------------------


def test_a_long_clip_reaches_the_model_unread_and_a_short_one_decoded() -> None:
    long, short = batch_of(Scripted(), ArraySource(np.ones(100), RATE_HZ))
    assert isinstance(long.heard, UnreadClip) and not isinstance(short.heard, UnreadClip)


def test_a_source_whose_header_does_not_tell_is_measured() -> None:
    long, short = batch_of(Scripted(header_s=None), ArraySource(np.ones(100), RATE_HZ))
    assert isinstance(long.heard, UnreadClip) and not isinstance(short.heard, UnreadClip)


def test_a_long_clip_of_a_source_without_blocks_is_loaded() -> None:
    class Whole:
        load, identity, duration_s = ArraySource(np.ones(40_000), RATE_HZ).load, lambda self: "", lambda self: 2.5

    (heard,) = batch_of(Whole())  # type: ignore[arg-type]
    assert isinstance(heard.heard, AudioClip) and not heard.heard.is_unread


def test_an_unread_clip_is_a_batch_of_its_own() -> None:
    sources = [ArraySource(np.ones(9), RATE_HZ), Scripted(), Scripted(), *[ArraySource(np.ones(9), RATE_HZ)] * 2]
    items = [BatchItem(AudioItem("", s, (), ""), "", s.duration_s()) for s in sources]
    assert [len(batch) for batch in partition(items, 8, None)] == [1, 1, 1, 2]


@pytest.mark.parametrize("hear", [in_blocks, lambda clip: len(clip.samples)], ids=["blocks", "samples"])
def test_facts_of_a_clip_heard_to_its_end_are_in_its_prediction(hear: Callable[[AudioClip], object]) -> None:
    (row,) = predictions(Hearer(hear), Scripted())
    assert (row.status, row.text, row.duration_s) == ("ok", str(2 * RATE_HZ), 2.0)
    assert (row.source_rate_hz, row.source_channels, row.notes) == (44_100, 2, ("worn",))


def test_facts_of_a_clip_that_the_model_left_early_are_in_its_prediction() -> None:
    (row,) = predictions(Hearer(lambda clip: len(next(iter(clip.blocks())))), Scripted())
    assert (row.text, row.duration_s, row.notes) == (str(RATE_HZ), 2.0, ("worn",))


@pytest.mark.parametrize("hear", [in_blocks, lambda clip: len(clip.samples), lambda clip: "deaf"])
@pytest.mark.parametrize("error", [AudioError("torn at 2 s"), MissingDataError("torn at 2 s"), OSError("torn at 2 s")])
def test_a_clip_found_bad_late_fails_with_its_reason(hear: Callable[[AudioClip], object], error: Exception) -> None:
    (row,) = predictions(Hearer(hear), Scripted(error))
    assert (row.status, row.error_type, row.error) == ("failed", type(error).__name__, "torn at 2 s")


def test_a_clip_found_bad_late_fails_alone() -> None:
    bad = Scripted(MissingDataError("torn"), header_s=None)
    rows = predictions(Hearer(in_blocks), ArraySource(np.ones(9), RATE_HZ), bad, Scripted())
    assert [row.status for row in rows] == ["ok", "failed", "ok"]


def test_an_answer_from_a_clip_that_turned_out_bad_does_not_count() -> None:
    def forgiving(clip: AudioClip) -> str:
        try:
            return str(in_blocks(clip))
        except AudioError:
            return "something"

    (row,) = predictions(Hearer(forgiving), Scripted(AudioError("torn")))
    assert (row.status, row.error) == ("failed", "torn")


def test_a_model_that_fails_on_a_good_clip_leaves_the_clips_facts() -> None:
    (row,) = predictions(Hearer(lambda clip: 1 / 0), Scripted())
    assert (row.error_type, row.duration_s, row.notes) == ("ZeroDivisionError", 2.0, ("worn",))


def test_a_clip_longer_than_its_model_takes_fails_though_its_header_does_not_tell() -> None:
    (heard,) = batch_of(Scripted(header_s=None, n_blocks=5), max_audio_s=3.0)
    assert "lasts 5.0 s" in str(heard.heard)


def test_time_to_read_counts_as_loading_and_not_as_answering(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now_s[0])

    class Slow(Scripted):
        def blocks(self, sample_rate_hz: int) -> Generator[Samples, None, AudioFacts | None]:
            for block in (np.ones(9, dtype=np.float32), np.ones(9, dtype=np.float32)):
                now_s[0] += 3.0
                yield block
            return None

    def thinks(clip: AudioClip) -> int:
        now_s[0] += 4.0
        return in_blocks(clip)

    (row,) = predictions(Hearer(thinks), Slow())
    assert (row.load_s, row.answer_s) == (6.0, 4.0)


# --- through our own models ------------------------------------------------------------------------------------------


@functools.cache
def loaded(name: str, **options: Any) -> Any:
    """A model with random weights, ready; shared by the tests, which do not change it."""
    model: Any = registry.create("models", name, options | {"weights": "random", "max_new_tokens": 2}).value
    model.load("cpu", "float32")
    return model


def twelve_seconds() -> ArraySource:
    return ArraySource(np.random.default_rng(0).normal(0, 0.1, 12 * RATE_HZ), RATE_HZ)


@pytest.mark.parametrize("name", ["ssalm", "ltu", "hybrid", "ast_mamba"])
def test_a_clip_in_blocks_is_answered_as_the_same_clip_in_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.nn.hearing.WINDOW_FRAMES", 1024)
    monkeypatch.setattr("harness.audio._BLOCK_SAMPLES", 30_011)
    source = twelve_seconds()
    whole, unread = loaded(name).answer(
        [
            Query("a", clip, "What is it?", ("dog", "rain"))
            for clip in (source.load(RATE_HZ), UnreadClip(source, RATE_HZ))
        ]
    )
    assert whole == unread and whole.frames_total == 1198


@pytest.mark.parametrize("policy", ["full", "first_10_24s"])
def test_every_length_policy_answers_a_clip_in_blocks_as_one_in_memory(policy: str) -> None:
    source = twelve_seconds()
    whole, unread = loaded("ssalm", length_policy=policy).answer(
        [
            Query("a", clip, "What is it?", ("dog", "rain"))
            for clip in (source.load(RATE_HZ), UnreadClip(source, RATE_HZ))
        ]
    )
    assert (unread.text, unread.frames_total, unread.frames_heard) == (
        whole.text,
        1198,
        1198 if policy == "full" else 1024,
    )
    np.testing.assert_allclose(unread.label_scores, whole.label_scores, atol=1e-4)


@pytest.mark.parametrize("policy", ["full", "window"])
def test_a_bad_clip_among_good_ones_is_an_error_of_that_item_only(policy: str) -> None:
    good = Query("a", twelve_seconds().load(RATE_HZ), "What is it?")
    bad = Query("b", UnreadClip(Scripted(AudioError("torn")), RATE_HZ), "What is it?")
    answers = loaded("ssalm", length_policy=policy).answer([good, bad])
    assert [answer.error for answer in answers] == [None, "AudioError: torn"]


PEAK_OF_ONE_ANSWER = """
import sys
from pathlib import Path
from harness import registry
from harness import registry
from harness.answering import Question, answer_batch
from harness.hearing import BatchItem, hear_batches
from harness.audio import FileSource
from harness.contracts import AudioItem

name, path = sys.argv[1:]
model = registry.create("models", name, {"max_new_tokens": 4}).value
model.load("cpu", "float32")
source = FileSource(Path(path))
(batch,) = hear_batches([[BatchItem(AudioItem("a", source, ("a",), "c"), "", source.duration_s())]], 16_000)
(row,) = answer_batch(model, batch, Question("What is it?", None), 0, 0)
assert row.status == "ok", row
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def peak_kib(name: str, path: Path) -> int:
    """Peak resident memory of a fresh process that answers one file."""
    command = [sys.executable, "-c", PEAK_OF_ONE_ANSWER, name, str(path)]
    done = subprocess.run(command, cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process")
@pytest.mark.parametrize("name", ["ssalm", "ltu"])
def test_an_hour_takes_at_most_three_tenths_more_memory_than_a_minute(tmp_path: Path, name: str) -> None:
    minute = np.random.default_rng(0).normal(0, 0.1, 60 * 8_000).clip(-1, 1)
    for file_name, n_minutes in (("minute.wav", 1), ("hour.wav", 60)):
        with soundfile.SoundFile(tmp_path / file_name, "w", 8_000, 1, "PCM_U8") as file:
            for _ in range(n_minutes):
                file.write(minute)
    assert peak_kib(name, tmp_path / "hour.wav") <= 1.3 * peak_kib(name, tmp_path / "minute.wav")
