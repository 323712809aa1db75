"""A third round for a model that the recipe `tiny` trained: to talk about scenes, not only to name one clip.

The encoder stays as it is; connector and language model go on learning, from a pool of examples that the encoder hears
once, in batches of one length (`CYCLE`):

    clips    5 s, the lessons of `tiny`, so that they are not forgotten; and whether a certain sound is there
    scenes   10 s and 41 s of up to five sounds one after the other, in silence or noise, with the questions of the
             long-audio tasks: which, how many, which first, is it there, describe

The order is that of LTU's curriculum, which goes from classification to open questions (arXiv 2305.10790, section 4).
Scenes are made of the clips that `tiny` learns from, and never of another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.contracts import OptionValue, TrainingExample
from harness.errors import OptionError
from harness.hashing import file_sha256
from harness.recipes import _augment as augment
from harness.recipes import tiny
from harness.recipes._questions import scene_questions
from harness.recipes._scenes import Scene, SceneMaker
from harness.training import CONFIG, RECORD, WEIGHTS, Prepared, Recipe, TrainConfig, read_json

# Samples of the batches, over and over: clips in 12 of 20, scenes of 10 s in 7, of 41 s in 1.
CYCLE = tuple(n * tiny.N_SAMPLES for n in (1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 8, 1, 2, 1, 2))
ODDS_OF_PRESENCE = 0.15  # of the question about a clip that is not mixed
ENCODER = "hear.encoder."

# As `tiny` trains, but for what a single round from another training's end needs.
DEFAULTS = replace(tiny.DEFAULTS, steps=2400, batch_size=32, learning_rate=1e-3, second_share=1.0, second_pool=8_000)


@dataclass(frozen=True)
class ScenesRecipe:
    """See the module's text."""

    start_from: Path
    name: str = "scenes"
    version: int = 1
    defaults: TrainConfig = DEFAULTS

    def prepare(self, config: TrainConfig, data_root: Path | None) -> Prepared:
        """Check what the training starts from; find, check and decode the clips.

        Raises:
            OptionError: `start_from` is no finished training of `tiny`.
            MissingDataError: there is no ESC-50 to learn from.
        """
        begun = finished_training(self.start_from)
        clips = tiny.find_clips(self.name, data_root, begun["hold_out_fold"])
        about: dict[str, OptionValue] = {
            "recipe": self.name,
            "recipe_version": self.version,
            "hold_out_fold": begun["hold_out_fold"],
            "n_clips": len(clips.items),
            "clips_sha256": clips.sha256(),
            "start_model": begun["model"],
            "start_recipe_version": begun["recipe_version"],
            "start_seed": begun["seed"],
            "start_weights_sha256": file_sha256(self.start_from / WEIGHTS),
        }
        recordings = tiny.load_recordings(clips.items)
        return Prepared(
            batches=SceneStream(tiny.ExampleStream(recordings, [], clips.task, None, config), config),
            teacher_prior=None,
            task=clips.task,
            held_out=clips.held_out,
            trained_on=clips.trained_on,
            first_round=self.start_from / WEIGHTS,
            frozen_prefix=ENCODER,
            continues=begun,
            about=about,
        )


def scenes(start_from: str) -> Recipe:
    """A tiny model goes on to count, order, describe and miss sounds.

    Args:
        start_from: the folder of a finished training of the same model by the recipe `tiny`.
    """
    return ScenesRecipe(Path(start_from))


def finished_training(folder: Path) -> dict[str, Any]:
    """The configuration of a training of `tiny` that came to its end.

    Raises:
        OptionError: there is none in the folder.
    """
    for name in (CONFIG, RECORD, WEIGHTS):
        if not (folder / name).is_file():
            raise OptionError(f"start_from: {folder} holds no finished training: there is no {name}")
    config: dict[str, Any] = read_json(folder / CONFIG)
    if config.get("recipe") != "tiny":
        raise OptionError(f"start_from: {folder} is a training of '{config.get('recipe')}', not of 'tiny'")
    return config


class SceneStream:
    """Batches by step. Everything random comes from the seed, the step and the place in the batch."""

    def __init__(self, clips: tiny.ExampleStream, config: TrainConfig) -> None:
        self.clips, self.config = clips, config
        self.scenes = SceneMaker(clips.recordings)
        names = self.scenes.labels
        self.questions = scene_questions({name: clips.answers["classify"][name] for name in names})

    def __call__(self, step: int) -> list[TrainingExample]:
        """The batch of a step: all of one length."""
        n_samples = CYCLE[step % len(CYCLE)]
        make = self._clip if n_samples == tiny.N_SAMPLES else self._scene
        # 3 sets these numbers apart from those of the rounds before.
        places = range(self.config.batch_size_at(step))
        return [make(n_samples, np.random.default_rng((self.config.seed, step, place, 3))) for place in places]

    def _clip(self, n_samples: int, random: augment.Generator) -> TrainingExample:
        draft = self.clips.answering(random)
        asked, answers = draft.prompt, draft.answers
        if len(answers) == 1 and random.random() < ODDS_OF_PRESENCE:
            asked, answer = self.questions.ask_presence(Scene(draft.samples, draft.labels, None), random)
            answers = ((answer, 1.0),)
        return TrainingExample(
            samples=draft.samples,
            prompt=asked,
            answers=answers,
            frame_masks=augment.masks(tiny.N_FRAMES, 2, 40, random),
            mel_masks=augment.masks(tiny.N_MELS, 2, 20, random),
        )

    def _scene(self, n_samples: int, random: augment.Generator) -> TrainingExample:
        """Without masks over time, as one could hide what is asked for."""
        scene = self.scenes.draw(n_samples, random)
        asked, answer = self.questions.ask(scene, random)
        return TrainingExample(
            samples=scene.samples,
            prompt=asked,
            answers=((answer, 1.0),),
            mel_masks=augment.masks(tiny.N_MELS, 2, 20, random),
        )
