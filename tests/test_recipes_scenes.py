"""Scenes of the tiny recipe, and questions about them that have one right answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from harness import registry
from harness.contracts import ScorableAnswer, Task
from harness.errors import OptionError
from harness.recipes import scenes as recipe
from harness.recipes import tiny
from harness.recipes._questions import SceneQuestions, scene_questions
from harness.recipes._scenes import GAP, RATE_HZ, Recording, Scene, SceneMaker, lay_out, without_lead
from harness.training import Trainer

TEXTS = {"dog": "dog", "cow": "cow", "car_horn": "car horn", "crow": "crow", "sheep": "sheep"}
N_SAMPLES = 163_840


def tone(hertz: float) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(2 * RATE_HZ) / RATE_HZ).astype(np.float32)


@pytest.fixture(scope="module")
def maker() -> SceneMaker:
    return SceneMaker([Recording(label, tone(300.0 * (n + 1))) for n, label in enumerate(TEXTS)])


@pytest.fixture(scope="module")
def questions() -> SceneQuestions:
    return scene_questions(TEXTS)


def prompts(task: str, **options: str) -> Mapping[str, str]:
    made: Mapping[str, str] = registry.create("tasks", task, options).value.prompts
    return made


def asked(questions: SceneQuestions, scene: Scene, n: int = 200) -> set[tuple[str, str]]:
    random = np.random.default_rng(0)
    return {questions.ask(scene, random) for _ in range(n)}


def scene_of(*labels: str, behind: str | None = None) -> Scene:
    return Scene(np.zeros(1, np.float32), labels, behind)


def test_a_scene_in_silence_has_as_many_stretches_of_sound_as_labels(maker: SceneMaker) -> None:
    random = np.random.default_rng(0)
    silent = [scene for scene in (maker.draw(N_SAMPLES, random) for _ in range(60)) if scene.behind is None]
    assert silent
    for scene in silent:
        sounding = np.flatnonzero(np.abs(scene.samples) > 1e-4)
        assert 1 + int((np.diff(sounding) > 0.9 * GAP).sum()) == len(scene.labels)


def test_a_scene_is_whole_and_within_full_scale(maker: SceneMaker) -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        samples = maker.draw(N_SAMPLES, random).samples
        assert samples.shape == (N_SAMPLES,) and np.isfinite(samples).all() and np.abs(samples).max() <= 1.0


def test_labels_repeat_all_or_not_at_all(maker: SceneMaker) -> None:
    random = np.random.default_rng(2)
    for _ in range(60):
        labels = maker.draw(N_SAMPLES, random).labels
        assert len(set(labels)) in (1, len(labels))


def test_the_same_numbers_make_the_same_scene(maker: SceneMaker) -> None:
    first, second = (maker.draw(N_SAMPLES, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.samples, second.samples)
    assert first.labels == second.labels


def test_sounds_lie_in_order_and_apart() -> None:
    for seed in range(20):
        sounds = [np.full(n, level, np.float32) for n, level in ((100, 1.0), (200, 2.0), (50, 3.0))]
        out = lay_out(sounds, 3 * GAP, np.random.default_rng(seed))
        runs = [np.flatnonzero(out == level) for level in (1.0, 2.0, 3.0)]
        assert [len(run) for run in runs] == [100, 200, 50]
        assert all(after[0] - before[-1] > GAP for before, after in zip(runs, runs[1:], strict=False))


def test_what_is_too_soft_to_be_heard_before_a_sound_is_cut_off() -> None:
    found = without_lead(np.array([0.0, 0.001, 0.5, 0.0, 1.0], np.float32))
    np.testing.assert_array_equal(found, np.array([0.5, 0.0, 1.0], np.float32))


def test_a_repeated_sound_is_counted_in_the_words_of_the_task(questions: SceneQuestions) -> None:
    found = dict(asked(questions, scene_of("cow", "cow", "cow")))
    assert [found[prompt] for prompt in prompts("sound_count").values()] == ["three", "three"]


def test_the_first_of_two_sounds_is_told_in_the_words_of_the_task(questions: SceneQuestions) -> None:
    found = dict(asked(questions, scene_of("car_horn", "cow")))
    assert [found[prompt] for prompt in prompts("sound_order").values()] == ["car horn", "car horn"]


def test_a_question_that_speaks_of_two_sounds_is_not_asked_of_three(questions: SceneQuestions) -> None:
    assert not any("two" in prompt for prompt, _ in asked(questions, scene_of("car_horn", "cow", "dog")))


def test_which_sounds_occur_is_told_in_order(questions: SceneQuestions) -> None:
    found = dict(asked(questions, scene_of("car_horn", "cow")))
    assert found[prompts("soundscape")["which"]] == "car horn, cow"


def test_a_description_is_one_of_the_references_of_soundscape(questions: SceneQuestions) -> None:
    describing = set(prompts("soundscape", answer="caption").values())
    told = {
        answer for prompt, answer in asked(questions, scene_of("cow", "dog", behind="rain")) if prompt in describing
    }
    assert told == {
        "The sound of cow followed by dog with rain in the background.",
        "There is cow, then dog, while rain can be heard throughout.",
    }


def test_presence_is_asked_as_often_of_a_sound_that_is_there_as_of_one_that_is_not(questions: SceneQuestions) -> None:
    random, scene = np.random.default_rng(0), scene_of("cow", "dog")
    found = [questions.ask_presence(scene, random) for _ in range(400)]
    for prompt, answer in found:
        (sound,) = re.findall(r"'(.*)'", prompt)
        assert answer == ("yes" if sound in ("cow", "dog") else "no")
    assert 160 < sum(answer == "yes" for _, answer in found) < 240


def test_presence_is_asked_in_the_words_of_the_task(questions: SceneQuestions) -> None:
    found = {prompt for prompt, _ in asked(questions, scene_of("cow"), 400)}
    assert found >= set(prompts("sound_presence", sound="car_horn").values())


@pytest.mark.parametrize("task", ["needle", "sound_order", "sound_count"])
def test_each_answer_is_read_as_its_label(task: str) -> None:
    made = registry.create("tasks", task).value
    answers = [ScorableAnswer(label.text, None) for label in made.labels]
    decided = registry.create("scorers", "exact").value.decide(answers, made.labels)
    assert [decision.label for decision in decided] == [label.name for label in made.labels]


@pytest.fixture(scope="module")
def stream() -> recipe.SceneStream:
    task: Task = registry.create("tasks", "esc50").value
    recordings = [Recording(label, tone(300.0 * (n + 1))) for n, label in enumerate(TEXTS)]
    config = replace(recipe.DEFAULTS, second_batch_size=40, second_pool=40)
    return recipe.SceneStream(tiny.ExampleStream(recordings, [], task, None, config), config)


def test_the_batches_go_round_the_cycle_of_lengths(stream: recipe.SceneStream) -> None:
    for step in (0, 1, 20, 21):
        assert {len(example.samples) for example in stream(step)} == {recipe.CYCLE[step % 20]}


def test_each_lesson_has_a_question_and_answers_whose_weights_add_up_to_one(stream: recipe.SceneStream) -> None:
    for example in [*stream(0), *stream(1)]:
        assert example.prompt and sum(weight for _, weight in example.answers) == pytest.approx(1.0)


def test_nothing_hides_a_part_of_a_scene(stream: recipe.SceneStream) -> None:
    assert not any(example.frame_masks for example in stream(1)) and all(e.frame_masks for e in stream(0))


def test_a_clip_is_asked_for_its_name_a_caption_and_whether_a_sound_is_there(stream: recipe.SceneStream) -> None:
    task: Task = registry.create("tasks", "esc50").value
    asked = {example.prompt for step in (0, 2, 3) for example in stream(step)}
    assert asked > set(task.prompts.values())
    assert any(prompt.startswith("Does the sound event") for prompt in asked)


def test_the_same_step_of_the_same_seed_is_the_same_batch(stream: recipe.SceneStream) -> None:
    for first, second in zip(stream(1), stream(1), strict=True):
        np.testing.assert_array_equal(first.samples, second.samples)
        assert (first.prompt, first.answers) == (second.prompt, second.answers)


def begun(folder: Path, **changes: Any) -> Path:
    config = {**asdict(tiny.DEFAULTS), "recipe": "tiny", "recipe_version": 3, "model": "ltu", "hold_out_fold": 4}
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    (folder / "record.json").write_text("{}")
    (folder / "weights.safetensors").write_bytes(b"weights")
    return folder


def test_a_fold_that_was_held_out_stays_held_out(shared_data: Path, tmp_path: Path) -> None:
    made = recipe.scenes(str(begun(tmp_path)))
    prepared = made.prepare(recipe.DEFAULTS, shared_data / "esc50_folds1-4")
    assert prepared.about["hold_out_fold"] == 4 and {item.metadata["fold"] for item in prepared.held_out} == {4}


def test_the_record_tells_what_the_training_started_from(shared_data: Path, tmp_path: Path) -> None:
    made = recipe.scenes(str(begun(tmp_path, seed=5)))
    about = made.prepare(recipe.DEFAULTS, shared_data / "esc50_folds1-4").about
    assert (about["start_model"], about["start_recipe_version"], about["start_seed"]) == ("ltu", 3, 5)


@pytest.mark.parametrize("lacking", ["config.json", "record.json", "weights.safetensors"])
def test_a_training_that_did_not_end_is_refused(lacking: str, tmp_path: Path) -> None:
    (begun(tmp_path) / lacking).unlink()
    with pytest.raises(OptionError, match=f"no finished training: there is no {lacking}"):
        recipe.finished_training(tmp_path)


def test_a_training_of_another_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="a training of 'openaqa', not of 'tiny'"):
        recipe.finished_training(begun(tmp_path, recipe="openaqa"))


@pytest.mark.slow
def test_a_tiny_model_goes_on_with_scenes_and_keeps_its_encoder(stream: recipe.SceneStream, tmp_path: Path) -> None:
    """Steps of clips and of 10 s, from a file as `tiny` leaves it."""
    config = replace(recipe.DEFAULTS, steps=2, second_batch_size=2, second_pool=4, warmup_steps=0, precision="float32")
    model = registry.create("models", "ltu", {"variant": "tiny"}).value
    model.start_training(None, "cpu")
    model.save(tmp_path / "weights.safetensors", "nothing")
    trainer = Trainer(model, recipe.SceneStream(stream.clips, config), config, tmp_path, None)
    trainer.skip_first_round(tmp_path / "weights.safetensors", recipe.ENCODER)
    trainer.run(lambda line: None)
    before, after = load_file(tmp_path / "weights.safetensors"), dict(trainer.network.named_parameters())
    changed = {name for name in after if not bool((before[name] == after[name]).all())}
    assert changed and not any(name.startswith(recipe.ENCODER) for name in changed)
