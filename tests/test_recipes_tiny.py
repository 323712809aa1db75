"""The recipe of the tiny pair: what may be learned from, and that two models learn from the same."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import registry
from harness.contracts import AudioItem, Task
from harness.errors import OptionError
from harness.recipes import _augment as augment
from harness.recipes import tiny as recipe


def _starter(split: str) -> tuple[AudioItem, ...]:
    task: Task = registry.create("tasks", "esc50", {"split": split}).value
    assert task.read_starter is not None and task.starter_root is not None
    return task.read_starter(task.starter_root).items


@pytest.fixture(scope="module")
def task() -> Task:
    made: Task = registry.create("tasks", "esc50").value
    return made


class _Mute:
    """A teacher that hears nothing."""

    n_classes = 2

    def load(self, device: str, dtype: str) -> None: ...

    def tag(self, clips: Sequence[Any]) -> Any:
        return np.zeros((len(clips), 3, self.n_classes), np.float32)


class _Biased(_Mute):
    """A teacher that never hears the first class, cannot decide on the second, and changes its mind on the third."""

    n_classes = 3

    def tag(self, clips: Sequence[Any]) -> Any:
        return np.tile(np.array([[0.0, 0.5, 0.1], [0.0, 0.5, 0.5]], np.float32), (len(clips), 1, 1))


def _stream(task: Task, seed: int = 0) -> recipe.ExampleStream:
    recordings = recipe.load_recordings(_starter("train")[:6])
    config = replace(
        recipe.DEFAULTS, steps=5, second_share=0.2, batch_size=6, second_batch_size=6, second_pool=6, seed=seed
    )
    return recipe.ExampleStream(recordings, recipe.load_nameless()[:3], task, _Mute(), config)


def test_nothing_of_the_starter_sets_test_split_is_learned_from() -> None:
    test, train = _starter("test"), recipe.training_items((), _starter("train"), None)
    assert not {i.item_id for i in test} & {i.item_id for i in train}
    assert not {i.cluster for i in test} & {i.cluster for i in train}


def test_readme_says_what_was_learned_from(shared_data: Path) -> None:
    task: Task = registry.create("tasks", "esc50").value
    official = task.read_items(shared_data / "esc50_folds1-4").items
    learned = recipe.training_items(official, _starter("train"), None)
    labels = {item.references[0] for item in learned}
    lost = [item for item in _starter("test") if item.references[0] not in labels]
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    said = re.search(
        r"(\d+) clips \((\d+) of ESC-10, (\d+) .*?with (\d+) of the 50.*?other (\d+) .*?the (\d+) that", readme, re.S
    )
    n_starter = len(_starter("train"))
    assert said is not None
    assert [int(number) for number in said.groups()] == [
        *(len(learned), len(learned) - n_starter, n_starter),
        *(len(labels), 50 - len(labels), len(lost)),
    ]


def test_fold_5_and_the_shared_sources_are_never_learned_from(shared_data: Path) -> None:
    task: Task = registry.create("tasks", "esc50").value
    official = task.read_items(shared_data / "esc50_folds1-4").items
    fifth = replace(official[0], item_id="5-1-A-0", metadata={**official[0].metadata, "fold": 5})
    other = replace(official[0], item_id="1-1-A-1", metadata={**official[0].metadata, "esc10": False})
    kept = recipe.training_items([*official, fifth, other], (), None)
    assert fifth not in kept and other not in kept
    assert not {item.cluster for item in kept} & recipe.LEAKED_SOURCES
    assert {item.cluster for item in official} >= recipe.LEAKED_SOURCES


def test_a_held_out_fold_is_not_learned_from(shared_data: Path) -> None:
    task: Task = registry.create("tasks", "esc50").value
    official = task.read_items(shared_data / "esc50_folds1-4").items
    kept = recipe.training_items(official, (), 4)
    held = recipe.held_out_items(official, 4)
    assert {item.metadata["fold"] for item in kept} == {1, 2, 3}
    assert not {i.cluster for i in kept} & {i.cluster for i in held}


def test_what_is_held_out_is_no_starter_test_clip_either(shared_data: Path) -> None:
    task: Task = registry.create("tasks", "esc50").value
    official = task.read_items(shared_data / "esc50_folds1-4").items
    for fold in sorted(recipe.TRAINING_FOLDS):
        assert not {item.cluster for item in recipe.held_out_items(official, fold)} & recipe.LEAKED_SOURCES


def test_what_the_recipe_prepares_is_its_own_training_data(shared_data: Path) -> None:
    config = replace(recipe.DEFAULTS, batch_size=2)
    prepared = recipe.tiny(hold_out_fold=3, teacher="none").prepare(config, shared_data / "esc50_folds1-4")
    assert isinstance(prepared.batches, recipe.ExampleStream)
    n_official = prepared.about["n_clips"] - len(_starter("train"))  # type: ignore[operator]
    assert (n_official, len(prepared.held_out), prepared.teacher_prior) == (232, 80, None)
    assert {recording.label for recording in prepared.batches.recordings} >= {
        i.references[0] for i in _starter("train")
    }


def test_the_same_seed_gives_the_same_examples_and_another_gives_others(task: Task) -> None:
    first, second, other = _stream(task)(3), _stream(task)(3), _stream(task, seed=1)(3)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.samples, b.samples)
        assert (a.prompt, a.answers, a.frame_masks, a.mel_masks) == (b.prompt, b.answers, b.frame_masks, b.mel_masks)
    assert any(not np.array_equal(a.samples, c.samples) for a, c in zip(first, other, strict=True))


def test_the_prior_is_the_mean_log_odds_of_what_the_teacher_says(task: Task) -> None:
    stream = _stream(task)
    stream.teacher = _Biased()
    floor = np.log(1e-5)  # -11.51
    # The log-odds of 0.1 and 0.5 are -2.197 and 0; those of their mean would be -0.847.
    np.testing.assert_allclose(stream.teacher_prior(), [floor, 0.0, -1.0986], atol=1e-4)  # type: ignore[arg-type]


def test_without_a_teacher_there_is_no_prior(task: Task) -> None:
    stream = _stream(task)
    stream.teacher = None
    assert stream.teacher_prior() is None


def test_every_example_is_whole(task: Task) -> None:
    stream = _stream(task)
    for step in range(5):
        for example in stream(step):
            assert example.samples.shape == (recipe.N_SAMPLES,)
            assert np.isfinite(example.samples).all() and np.abs(example.samples).max() <= 1.0
            assert sum(weight for _, weight in example.answers) == pytest.approx(1.0 if step == 4 else 0.0)
            assert all(0 <= start and start + length <= recipe.N_FRAMES for start, length in example.frame_masks)
            assert all(0 <= start and start + length <= recipe.N_MELS for start, length in example.mel_masks)


def test_each_caption_is_read_as_its_own_label(task: Task) -> None:
    from harness.contracts import ScorableAnswer

    captions = recipe.read_captions(task.labels)
    scorer = registry.create("scorers", "exact").value
    answers = [ScorableAnswer(captions[label.name], None) for label in task.labels]
    decided = [decision.label for decision in scorer.decide(answers, task.labels)]
    assert decided == [label.name for label in task.labels]


def test_the_first_round_asks_nothing_and_the_second_always_asks(task: Task) -> None:
    assert not any(example.answers for step in range(4) for example in _stream(task)(step))
    assert all(example.answers for example in _stream(task)(4))


def test_no_example_is_drawn_twice(task: Task) -> None:
    stream = _stream(task)
    drawn = [example.samples.tobytes() for step in range(5) for example in stream(step)]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("fold", [0, 5])
def test_a_fold_that_is_not_for_training_cannot_be_held_out(fold: int) -> None:
    with pytest.raises(OptionError, match="hold_out_fold"):
        recipe.tiny(hold_out_fold=fold)


def test_a_mixture_has_the_energy_shares_it_says() -> None:
    random = np.random.default_rng(0)
    first, second = (random.normal(size=16_000).astype(np.float32) for _ in range(2))
    mixed = augment.mix(first, 5 * second, share=0.8)
    share = np.dot(mixed, first) ** 2 / np.dot(first, first) / np.dot(mixed, mixed)
    assert share == pytest.approx(0.8, abs=0.02)


def test_coloured_noise_falls_as_its_exponent_says() -> None:
    noise = augment.coloured_noise(1 << 16, 2.0, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(noise)) ** 2
    low, high = power[100:200].mean(), power[1000:2000].mean()
    assert 10 * np.log10(low / high) == pytest.approx(20, abs=1.5)


def test_speed_changes_length_and_pitch() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32)
    faster = augment.change_speed(tone, 1.25, 16_000)
    assert len(faster) == pytest.approx(12_800, abs=2)
    assert np.argmax(np.abs(np.fft.rfft(faster))) * 16_000 / len(faster) == pytest.approx(550, abs=2)


def _config_of(**changes: Any) -> dict[str, Any]:
    return {"clips_sha256": "a", "hold_out_fold": None, **asdict(recipe.DEFAULTS), **changes}


def test_a_first_round_over_a_fold_that_is_now_held_out_is_refused() -> None:
    wanted = {"clips_sha256": "b", "hold_out_fold": 4, **recipe.first_round_of(recipe.DEFAULTS)}
    with pytest.raises(OptionError, match="clips_sha256, hold_out_fold"):
        recipe.check_same_first_round(_config_of(), wanted)


@pytest.mark.parametrize(("field", "value"), [("steps", 100), ("learning_rate", 0.1)])
def test_a_first_round_of_other_settings_is_refused(field: str, value: object) -> None:
    wanted = {"clips_sha256": "a", "hold_out_fold": None, **recipe.first_round_of(recipe.DEFAULTS)}
    recipe.check_same_first_round(_config_of(), wanted)
    with pytest.raises(OptionError, match="first_round" if field == "steps" else field):
        recipe.check_same_first_round(_config_of(**{field: value}), wanted)


def test_a_first_round_of_another_seed_is_taken_over_and_told(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "esc50_folds1-4"
    about = recipe.tiny().prepare(recipe.DEFAULTS, root).about
    (tmp_path / "config.json").write_text(json.dumps({**about, **asdict(replace(recipe.DEFAULTS, seed=7))}))
    (tmp_path / "first_round.safetensors").write_bytes(b"weights")
    taken = [
        recipe.tiny(hearing_from=str(tmp_path)).prepare(replace(recipe.DEFAULTS, seed=seed), root).about
        for seed in (1, 7)
    ]
    assert taken[0]["hearing_seed"] == 7 and "hearing_seed" not in taken[1]


def test_without_a_teacher_there_is_one_round_alone() -> None:
    defaults = recipe.tiny(teacher="none").defaults
    assert (defaults.first_round, defaults.second_pool, defaults.second_freezes) == (defaults.steps, 0, False)
