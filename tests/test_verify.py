"""`verify` finds each kind of fault, planted one by one into a small set in ESC-50's layout, and none in a good one."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from harness.audio import ArraySource, FileSource
from harness.contracts import AudioItem, ItemSet, Label, Task
from harness.verify import KINDS, Report, count_clips, missing_clips, paths_of_other_splits, verify
from tasks.esc50 import CATEGORIES, COLUMNS, esc50

RATE_HZ = 8_000
N_CLIPS = 12
NAMES = [f"1-{100 + number}-A-{number}.wav" for number in range(N_CLIPS)]

Plant = Callable[[Path], object]


def noise(seed: int, n_channels: int = 1, n_frames: int = 800) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (n_frames, n_channels))


def write_esc50(root: Path) -> Path:
    """An official layout of twelve clips of a tenth of a second, each of its own class."""
    (root / "meta").mkdir(parents=True)
    (root / "audio").mkdir()
    rows = [
        f"{name},1,{number},{CATEGORIES[number]},{number == 0},{100 + number},A" for number, name in enumerate(NAMES)
    ]
    (root / "meta" / "esc50.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    for number, name in enumerate(NAMES):
        soundfile.write(root / "audio" / name, noise(number), RATE_HZ)
    return root


# ESC-10 is what is here of ESC-50.
OTHER_CLASSES = set(CATEGORIES) - set(
    "dog rooster rain sea_waves crackling_fire crying_baby sneezing clock_tick helicopter chainsaw".split()
)


def some_task() -> Task:
    """ESC-50 without its published counts: of these sets nothing was published."""
    return replace(esc50(), published_counts={})


def check(root: Path, **counts: int) -> Report:
    """What verify says of the set, which is taken to be whole with twelve clips."""
    task = replace(esc50(), published_counts={"clips": N_CLIPS, **counts})
    return verify(task, replace(task.read_items(root), n_declared=N_CLIPS))


def found(report: Report) -> list[tuple[str, str]]:
    return [(fault.kind, fault.clip) for fault in report.faults]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_esc50(tmp_path / "ESC-50")


# --- what is planted --------------------------------------------------------------------------------------------------


def make_silent(path: Path) -> None:
    soundfile.write(path, np.zeros(800), RATE_HZ)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def make_infinite(path: Path) -> None:
    soundfile.write(path, np.full(800, np.inf), RATE_HZ, "FLOAT")


def make_without_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0), RATE_HZ)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


FAULTS: dict[str, tuple[str, Plant]] = {
    "a file that is gone": ("missing", Path.unlink),
    "no audio": ("unreadable", lambda path: path.write_bytes(b"this is no sound")),
    "a folder": ("unreadable", make_folder),
    "a link that leads nowhere": ("unreadable", make_dangling),
    "infinite samples": ("unreadable", make_infinite),
    "no bytes": ("zero_length", lambda path: path.write_bytes(b"")),
    "a header alone": ("zero_length", make_without_samples),
    "silence": ("silent", make_silent),
    "a cut file": ("ends_early", cut),
    "another rate": ("wrong_rate", lambda path: soundfile.write(path, noise(50), 16_000)),
    "two channels": ("wrong_channels", lambda path: soundfile.write(path, noise(50, 2), RATE_HZ)),
    "a copy of another": ("duplicate", lambda path: path.write_bytes((path.parent / NAMES[0]).read_bytes())),
}


@pytest.mark.parametrize("planted", FAULTS)
def test_a_planted_fault_is_found_and_nothing_else(root: Path, planted: str) -> None:
    kind, plant = FAULTS[planted]
    plant(root / "audio" / NAMES[5])
    assert found(check(root)) == [(kind, f"audio/{NAMES[5]}")]


def test_all_faults_at_once_are_each_found(root: Path) -> None:
    planted = ["a file that is gone", "no audio", "no bytes", "silence", "a cut file", "another rate", "two channels"]
    for name, fault in zip(NAMES[1:], [*planted, "a copy of another"], strict=False):
        FAULTS[fault][1](root / "audio" / name)
    soundfile.write(root / "audio" / "stray.wav", noise(60), RATE_HZ)
    report = check(root, dog=2)
    assert [kind for kind, _ in found(report)] == list(KINDS)


def test_a_good_set_has_no_fault(root: Path) -> None:
    report = check(root, labels=12, rows=12, items=12)
    assert (report.is_clean, report.faults, report.unchecked) == (True, (), ())
    assert (report.n_items, report.n_clips, report.n_heard, report.rate_hz, report.channels) == (12, 12, 12, RATE_HZ, 1)


def test_the_real_part_of_esc50_lacks_only_clips(shared_data: Path) -> None:
    task = esc50(fold=1)
    items = task.read_items(shared_data / "esc50_folds1-4")
    report = verify(task, items)
    faults = [fault for fault in report.faults if fault.kind != "extra"]
    counts = {fault.clip: fault.detail for fault in faults if fault.kind == "wrong_count"}
    assert counts.pop("items").endswith("instead of 400") and counts.pop("clips").endswith("instead of 400")
    assert counts.pop("labels") == "10 instead of 50"
    # Of each other class all clips are missing; the copy here is of 16 kHz.
    assert {detail for name, detail in counts.items() if name in OTHER_CLASSES} == {"0 instead of 8"}
    assert {fault.kind for fault in faults} == {"wrong_count", "wrong_rate"}
    assert report.rate_hz == 44_100


# --- kinds that need a closer look ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stray.wav", "stray.MP3", "stray.m4a"])
def test_an_audio_file_that_no_item_names_is_extra(root: Path, name: str) -> None:
    (root / "audio" / name).write_bytes(b"x")
    assert found(check(root)) == [("extra", f"audio/{name}")]


def test_an_audio_file_in_a_folder_below_is_extra(root: Path) -> None:
    (root / "audio" / "old").mkdir()
    (root / "audio" / "old" / "stray.wav").write_bytes(b"x")
    assert found(check(root)) == [("extra", "audio/old/stray.wav")]


@pytest.mark.parametrize("name", ["readme.txt", "._1-100-A-0.wav", "1-100-A-0.wav.part"])
def test_what_is_no_clip_is_not_extra(root: Path, name: str) -> None:
    (root / "audio" / name).write_bytes(b"x")
    assert check(root).is_clean


def test_another_set_beside_the_clips_folders_is_not_extra(tmp_path: Path) -> None:
    for folder in ("yes", "no", "other_set/audio"):
        (tmp_path / folder).mkdir(parents=True)
        soundfile.write(tmp_path / folder / "a.wav", noise(len(folder)), RATE_HZ)
    items = [AudioItem(name, FileSource(tmp_path / name / "a.wav"), ("dog",), name) for name in ("yes", "no")]
    assert verify(some_task(), ItemSet(tuple(items), "official", 2, tmp_path)).is_clean


def test_clips_of_other_splits_are_not_extra(root: Path) -> None:
    items = esc50().read_items(root)
    half = replace(items, items=items.items[:6], n_declared=6)
    others = {item.source.path for item in items.items[6:] if isinstance(item.source, FileSource)}
    assert [kind for kind, _ in found(verify(some_task(), half))] == ["extra"] * 6
    assert verify(some_task(), half, others).is_clean


def test_other_splits_are_found_by_the_options_of_the_task() -> None:
    starter = esc50().starter_root
    assert starter is not None
    train = esc50(split="train").read_starter
    assert train is not None
    others = paths_of_other_splits(esc50, {"split": "test"}, starter, "starter")
    assert {item.source.path for item in train(starter).items if isinstance(item.source, FileSource)} <= others


def test_the_whole_set_is_known_when_a_part_was_asked_for(root: Path) -> None:
    assert len(paths_of_other_splits(esc50, {"fold": 1}, root, "official")) == N_CLIPS


def test_the_same_audio_in_another_format_is_a_duplicate(root: Path) -> None:
    (root / "audio" / NAMES[5]).unlink()
    samples, rate_hz = soundfile.read(root / "audio" / NAMES[0])
    soundfile.write(root / "audio" / NAMES[5].replace(".wav", ".flac"), samples, rate_hz)
    (fault,) = check(root).faults
    assert (fault.kind, fault.detail) == ("duplicate", f"same audio as audio/{NAMES[0]}, with other labels (dog)")


def test_three_copies_are_two_duplicates_of_the_first(root: Path) -> None:
    for name in NAMES[1:3]:
        (root / "audio" / name).write_bytes((root / "audio" / NAMES[0]).read_bytes())
    assert [fault.detail.split(",")[0] for fault in check(root).faults] == [f"same audio as audio/{NAMES[0]}"] * 2


def test_two_silent_clips_are_silent_and_no_duplicates(root: Path) -> None:
    for name in NAMES[1:3]:
        make_silent(root / "audio" / name)
    assert [fault.kind for fault in check(root).faults] == ["silent", "silent"]


def test_a_published_rate_outvotes_most_clips(root: Path) -> None:
    for name in NAMES[1:]:
        soundfile.write(root / "audio" / name, noise(int(name[2:5])), 44_100)
    assert [fault.clip for fault in check(root).of_kind("wrong_rate")] == [f"audio/{NAMES[0]}"]
    report = check(root, sample_rate_hz=RATE_HZ, channels=1)
    assert (len(report.of_kind("wrong_rate")), report.rate_hz, report.unchecked) == (11, RATE_HZ, ())


@pytest.mark.parametrize(
    ("name", "number", "detail"),
    [("clips", 13, "12 instead of 13"), ("labels", 50, "12 instead of 50"), ("dog", 40, "1 instead of 40")],
)
def test_a_count_that_is_not_the_published_one_is_named(root: Path, name: str, number: int, detail: str) -> None:
    (fault,) = check(root, **{name: number}).faults
    assert (fault.kind, fault.clip, fault.detail) == ("wrong_count", name, detail)


def test_a_part_of_the_set_does_not_pass_for_the_whole(root: Path) -> None:
    task = some_task()
    (fault,) = verify(task, task.read_items(root)).faults
    assert (fault.clip, fault.detail) == ("items", "12 instead of 2000")


def test_esc50s_published_counts_are_compared(root: Path) -> None:
    task = esc50()
    faults = {fault.clip: fault.detail for fault in verify(task, task.read_items(root)).of_kind("wrong_count")}
    assert (faults["clips"], faults["labels"], faults["dog"]) == (
        "12 instead of 2000",
        "12 instead of 50",
        "1 instead of 40",
    )
    assert len(faults) == 2 + 1 + len(CATEGORIES)


def test_a_published_count_that_means_nothing_here_is_said(root: Path) -> None:
    report = check(root, takes=5)
    assert (report.is_clean, report.unchecked) == (True, ("takes",))


def test_published_counts_are_not_those_of_a_starter_set(root: Path) -> None:
    task = replace(esc50(), published_counts={"clips": 2000})
    items = replace(task.read_items(root), origin="starter", n_declared=N_CLIPS)
    assert verify(task, items).is_clean


def caption_task(tmp_path: Path) -> tuple[Task, ItemSet]:
    """Two questions about one clip, and one about another, of one speaker."""
    for number in range(2):
        soundfile.write(tmp_path / f"{number}.wav", noise(number), RATE_HZ)
    files = [FileSource(tmp_path / name) for name in ("0.wav", "0.wav", "1.wav")]
    items = [AudioItem(f"item {n}", file, ("a dog", "it barks"), "speaker") for n, file in enumerate(files)]
    counts = {"clips": 2, "captions": 4, "speakers": 1}
    return replace(esc50(), published_counts=counts), ItemSet(tuple(items), "official", 3, tmp_path)


def test_items_of_one_file_are_one_clip(tmp_path: Path) -> None:
    task, items = caption_task(tmp_path)
    report = verify(task, items)
    assert (report.faults, report.n_items, report.n_clips, count_clips(items)) == ((), 3, 2, 2)


def test_generated_sounds_are_heard_too() -> None:
    sources = [ArraySource(noise(1)[:, 0], 16_000), ArraySource(np.zeros(800), 16_000)]
    items = [AudioItem(f"item {n}", source, ("dog",), str(n)) for n, source in enumerate(sources)]
    task = replace(some_task(), labels=(Label("dog", "dog"),))
    assert found(verify(task, ItemSet(tuple(items), "official", 2, Path("none")))) == [("silent", "item 1")]


def test_a_long_clip_is_heard_a_block_at_a_time(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.tile(noise(0, n_frames=RATE_HZ), (1200, 1)), RATE_HZ)
    item = AudioItem("long", FileSource(tmp_path / "long.wav"), ("dog",), "long")
    tracemalloc.start()
    try:
        report = verify(some_task(), ItemSet((item,), "official", 1, tmp_path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.is_clean and peak < 0.5 * 4 * 1200 * RATE_HZ


def test_missing_clips_are_counted_without_decoding(root: Path) -> None:
    (root / "audio" / NAMES[3]).unlink()
    (root / "audio" / NAMES[4]).write_bytes(b"")
    assert missing_clips(esc50().read_items(root)) == 1


def test_progress_counts_every_clip(root: Path) -> None:
    done: list[int] = []
    verify(esc50(), esc50().read_items(root), advance=done.append)
    assert sum(done) == N_CLIPS


def test_the_report_is_json_with_every_fault_under_its_kind(root: Path) -> None:
    make_silent(root / "audio" / NAMES[1])
    saved = json.loads(json.dumps(check(root).as_json()))
    assert (saved["clean"], saved["n_faults"], list(saved["faults"])) == (False, 1, list(KINDS))
    assert saved["faults"]["silent"] == [{"kind": "silent", "clip": f"audio/{NAMES[1]}", "detail": "0.10 s of silence"}]
