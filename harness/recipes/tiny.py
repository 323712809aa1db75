"""The tiny models' recipe: real recordings, many mixtures of them, and a tagger as teacher.

Clips: folds 1 to 4 of ESC-50's ESC-10 subset (CC0 and CC BY, so weights learned from it may be passed on), the training
split of the starter set, and without names the percussion in `sounds/` (CC0). Never a clip of fold 5 or of the
starter's test split, nor ESC-50's sources 19898, 169127 and 4211, which are the same recordings as four starter test
clips. `hold_out_fold` keeps one more fold back.

Two rounds, after the papers' order (an encoder trained to tag, then a language model that learns to answer):

    1  hearing    the encoder learns what the teacher hears, every half second, in mixtures of one to three clips at
                  other speeds, tilts, places and loudness. A head on the encoder's output says it, in scores and in
                  log-odds, begins at the teacher's mean log-odds, and is thrown away in the end (distillation, as
                  DASS was trained: arXiv 2407.04082). No label is used, so two models with one encoder learn the
                  same; `hearing_from` spares the second.
    2  answering  the connector and the language model learn the answers from the encoder as it is (LTU's first stage,
                  arXiv 2305.10790, freezes it too). It hears a pool of examples once; they are drawn again and again.
                  Half of the clips are nearly as recorded; half are changed more and mixed, and a mixture's answer is
                  both answers, weighted by their share of energy (between-class learning, arXiv 1711.10282).

Every example is a pure function of seed, step and place in the batch, and none of the first round is drawn twice. So
two models given one seed hear the same clips in the same order. A second round may have another seed than the first
that it takes over.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness import registry
from harness.audio import FileSource
from harness.contracts import TEACHER_FLOOR, AudioItem, Label, OptionValue, Tagger, Task, TrainingExample
from harness.datasets import find_items, item_set_hash
from harness.errors import MissingDataError, OptionError, PluginError
from harness.hashing import file_sha256
from harness.recipes import _augment as augment
from harness.recipes._scenes import RATE_HZ, Recording
from harness.training import CONFIG, FIRST_ROUND, Prepared, Recipe, TrainConfig, read_json

N_SAMPLES = 81_920  # 5.12 s, 512 feature frames
N_FRAMES = 510  # feature frames of that many samples
N_MELS = 128
OCTAVE = float(np.log(2.0))
# The same recordings as starter test clips (tasks/starter/esc50/README.md, "Overlap with ESC-50").
LEAKED_SOURCES = frozenset({"19898", "169127", "4211"})
TRAINING_FOLDS = frozenset({1, 2, 3, 4})
SOUNDS = Path(__file__).with_name("sounds")
# How often a sound without a name is drawn in the hearing round: as the first of a mixture, as another.
NAMELESS_FIRST, NAMELESS_OTHER = 0.1, 0.25
# How many of the first batches tell what the teacher says on average.
PRIOR_BATCHES = 8
# Versions of the recipe whose first round is the same.
SAME_HEARING = frozenset({2, 3})
CAPTIONS_FILE = Path(__file__).with_name("tiny_captions.csv")

DEFAULTS = TrainConfig(
    steps=6400,
    batch_size=16,
    learning_rate=1.5e-3,
    weight_decay=0.05,
    warmup_steps=200,
    second_share=3200 / 6400,
    second_rate=1e-3,
    second_batch_size=32,
    second_pool=16_000,
    second_freezes=True,
    average=0.999,
    second_average=0.99,
    teacher_weight=0.3,
    logit_weight=0.5,
    gradient_clip=1.0,
    precision="bfloat16",
    seed=0,
    threads=1,
    device="cpu",
    checkpoint_every=200,
    log_every=100,
)

# Nothing to hear from: one round that trains the whole model to answer.
WITHOUT_TEACHER = replace(DEFAULTS, second_share=0.0, second_pool=0, second_freezes=False)


def training_items(
    official: Sequence[AudioItem], starter: Sequence[AudioItem], hold_out_fold: int | None
) -> list[AudioItem]:
    """The items that may be learned from.

    Args:
        official: items of ESC-50, of any fold.
        starter: items of the starter set's training split.
        hold_out_fold: one of folds 1 to 4 to keep back, or None.
    """
    folds = TRAINING_FOLDS - {hold_out_fold}
    kept = [i for i in official if i.metadata["fold"] in folds and i.metadata["esc10"]]
    return [*(item for item in kept if item.cluster not in LEAKED_SOURCES), *starter]


def held_out_items(official: Sequence[AudioItem], hold_out_fold: int) -> list[AudioItem]:
    """The ESC-10 items of a fold that was kept back, but for those that are starter test clips too."""
    return [
        item
        for item in official
        if item.metadata["fold"] == hold_out_fold and item.metadata["esc10"] and item.cluster not in LEAKED_SOURCES
    ]


@dataclass(frozen=True)
class Clips:
    """What the tiny models learn from, what was kept back, and a sentence that tells of the former."""

    task: Task
    items: Sequence[AudioItem]
    held_out: tuple[AudioItem, ...]
    trained_on: str

    def sha256(self) -> str:
        """Of the clips that are learned from."""
        return item_set_hash(self.items, [item.source.identity() for item in self.items])


def find_clips(recipe: str, data_root: Path | None, hold_out_fold: int | None) -> Clips:
    """Find and check the clips.

    Raises:
        MissingDataError: there is no ESC-50 to learn from.
    """
    task: Task = registry.create("tasks", "esc50").value
    official = find_items(task, data_root)
    if official.origin != "official":
        raise MissingDataError(
            f"The recipe '{recipe}' learns from ESC-50, which was not found. Get it: {task.download}"
        )
    starter_task: Task = registry.create("tasks", "esc50", {"split": "train"}).value
    assert starter_task.read_starter is not None and starter_task.starter_root is not None
    starter = starter_task.read_starter(starter_task.starter_root)
    return Clips(
        task=task,
        items=training_items(official.items, starter.items, hold_out_fold),
        held_out=tuple(held_out_items(official.items, hold_out_fold)) if hold_out_fold else (),
        trained_on=f"ESC-10 of esc50's folds {_folds_text(hold_out_fold)}; the starter set's training split",
    )


def load_recordings(items: Sequence[AudioItem]) -> list[Recording]:
    """Decode all clips; training does not go on without one of them.

    Raises:
        AudioError: a clip cannot be read.
    """
    return [Recording(item.references[0], item.source.load(RATE_HZ).samples) for item in items]


def load_nameless() -> list[Recording]:
    """The CC0 percussion that ships with the recipe (`sounds/SOURCES.md`)."""
    return [Recording(None, FileSource(path).load(RATE_HZ).samples) for path in sorted(SOUNDS.glob("*.flac"))]


def read_captions(labels: Sequence[Label]) -> dict[str, str]:
    """One sentence for each label, our own words.

    Raises:
        MissingDataError: a label has no sentence.
    """
    with CAPTIONS_FILE.open(newline="") as file:
        captions = {row["label"]: row["caption"] for row in csv.DictReader(file)}
    missing = sorted({label.name for label in labels} - captions.keys())
    if missing:
        raise MissingDataError(f"{CAPTIONS_FILE.name} has no caption for {', '.join(missing)}")
    return captions


@dataclass(frozen=True)
class TinyRecipe:
    """See the module's text."""

    hold_out_fold: int | None
    teacher: str | None
    hearing_from: Path | None = None
    name: str = "tiny"
    version: int = 4
    defaults: TrainConfig = DEFAULTS

    def prepare(self, config: TrainConfig, data_root: Path | None) -> Prepared:
        """Find, check and decode the clips, and get the teacher ready.

        Raises:
            MissingDataError: there is no ESC-50 to learn from.
            MissingExtraError: the teacher's packages are not installed.
        """
        clips = find_clips(self.name, data_root, self.hold_out_fold)
        task, items = clips.task, clips.items
        teacher = load_teacher(self.teacher) if self.teacher else None
        nameless = load_nameless() if teacher else []
        hearing = self.hearing_from and self.hearing_from / FIRST_ROUND
        about: dict[str, OptionValue] = {
            "recipe": self.name,
            "recipe_version": self.version,
            "hold_out_fold": self.hold_out_fold,
            "teacher": self.teacher,
            "n_clips": len(items),
            "n_nameless": len(nameless),
            "clips_sha256": clips.sha256(),
            "hearing_from_sha256": _sha256(hearing) if hearing else None,
        }
        if self.hearing_from:
            found = read_json(self.hearing_from / CONFIG)
            check_same_first_round(found, {**about, **first_round_of(config)})
            if found["seed"] != config.seed:
                about["hearing_seed"] = found["seed"]
        stream = ExampleStream(load_recordings(items), nameless, task, teacher, config)
        return Prepared(
            batches=stream,
            teacher_prior=stream.teacher_prior(),
            task=task,
            held_out=clips.held_out,
            trained_on=clips.trained_on,
            first_round=hearing,
            about=about,
        )


def first_round_of(config: TrainConfig) -> dict[str, OptionValue]:
    """The part of a configuration that decides what a first round leaves, but for the seed."""
    deciding = (
        "batch_size learning_rate weight_decay warmup_steps average teacher_weight logit_weight gradient_clip "
        "precision threads device"
    ).split()
    return {"first_round": config.first_round, **{name: getattr(config, name) for name in deciding}}


def check_same_first_round(found: Mapping[str, Any], wanted: Mapping[str, OptionValue]) -> None:
    """Refuse to take over a first round that is not the one that this training would take, from whichever seed.

    Args:
        found: the other training's config.json.
        wanted: what this training's would say, with `first_round_of` its configuration.

    Raises:
        OptionError: they differ; the message names where.
    """
    steps, share = found.get("steps", 0), found.get("second_share", 0)
    own = {**found, "first_round": steps - round(steps * share)}
    if {own.get("recipe_version"), wanted.get("recipe_version")} <= SAME_HEARING:
        own["recipe_version"] = wanted["recipe_version"]
    passed_over = {"hearing_from_sha256"}
    unlike = sorted(name for name in wanted.keys() - passed_over if own.get(name) != wanted[name])
    if unlike:
        raise OptionError(f"hearing_from: that training had other {', '.join(unlike)}, so its first round is another")


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise OptionError(f"hearing_from: {path} cannot be read: {error.strerror}") from error


def _folds_text(hold_out_fold: int | None) -> str:
    return ", ".join(str(fold) for fold in sorted(TRAINING_FOLDS - {hold_out_fold}))


def tiny(
    hold_out_fold: int | None = None, teacher: Literal["yamnet", "none"] = "yamnet", hearing_from: str | None = None
) -> Recipe:
    """Small models, small data, a teacher.

    Args:
        hold_out_fold: a fold of 1 to 4 to keep out of training and to score at the end.
        teacher: "yamnet" needs the extra of that name; without one there is one round alone, of answering.
        hearing_from: the folder of a finished training of a model with the same encoder, by the same settings; its
            first round is taken over instead of being repeated. Its seed may be another: trainings with several seeds
            that take over one first round differ in their second alone, and their records say so (hearing_seed).
    """
    if hold_out_fold is not None and hold_out_fold not in TRAINING_FOLDS:
        raise OptionError(f"hold_out_fold must be one of 1 to 4, not {hold_out_fold}; fold 5 is never trained on")
    if teacher == "none":
        return TinyRecipe(hold_out_fold, None, defaults=WITHOUT_TEACHER)
    return TinyRecipe(hold_out_fold, teacher, Path(hearing_from) if hearing_from else None)


def load_teacher(name: str) -> Tagger:
    """A registered model that can tag.

    Raises:
        PluginError: the model cannot.
    """
    teacher = registry.create("models", name).value
    if not isinstance(teacher, Tagger):
        raise PluginError(f"The model '{name}' cannot teach: it has no tag().")
    teacher.load("cpu", "float32")
    return teacher


def _shares(weights: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.asarray(weights, dtype=np.float64) / sum(weights)


@dataclass(frozen=True)
class Draft:
    """One example before its teacher has heard it and before its masks are drawn."""

    samples: augment.Samples
    prompt: str
    answers: tuple[tuple[str, float], ...]
    labels: tuple[str, ...] = ()


class ExampleStream:
    """Batches by step. Everything random comes from the seed, the step and the place in the batch."""

    def __init__(
        self,
        recordings: Sequence[Recording],
        nameless: Sequence[Recording],
        task: Task,
        teacher: Tagger | None,
        config: TrainConfig,
    ) -> None:
        self.recordings, self.nameless = list(recordings), list(nameless)
        self.teacher = teacher
        self.config = config
        self.prompts = dict(task.prompts)
        captions = read_captions(task.labels)
        self.answers: Mapping[str, Mapping[str, str]] = {
            "classify": {label.name: label.text for label in task.labels},
            "ltu": captions,
        }
        counts = Counter(recording.label for recording in recordings)
        # Some classes have 32 clips, some 2. Hearing lies between "every clip alike" and "every class alike"; answering
        # is every class alike, or the names of the small ones are hardly learned.
        self.hearing_odds, self.answering_odds = (
            _shares([counts[recording.label] ** -power for recording in recordings]) for power in (0.5, 1.0)
        )

    def __call__(self, step: int) -> list[TrainingExample]:
        """The batch of a step."""
        teacher = self.teacher if step < self.config.first_round else None
        make = self._hearing if teacher else self.answering
        n_examples = self.config.batch_size_at(step)
        randoms = [np.random.default_rng((self.config.seed, step, place)) for place in range(n_examples)]
        drafts = [make(random) for random in randoms]
        scores = teacher.tag([draft.samples for draft in drafts]) if teacher else [None] * len(drafts)
        return [
            TrainingExample(
                samples=draft.samples,
                prompt=draft.prompt,
                answers=draft.answers,
                teacher_scores=row,
                frame_masks=augment.masks(N_FRAMES, 2, 40, random),
                mel_masks=augment.masks(N_MELS, 2, 20, random),
            )
            for draft, row, random in zip(drafts, scores, randoms, strict=True)
        ]

    def teacher_prior(self) -> npt.NDArray[np.float32] | None:
        """The mean log-odds that a teacher gives each class in the first batches, shape (n_teacher,)."""
        if self.teacher is None or not self.config.first_round:
            return None
        examples = [example for step in range(min(PRIOR_BATCHES, self.config.first_round)) for example in self(step)]
        heard = [example.teacher_scores for example in examples if example.teacher_scores is not None]
        scores = np.clip(np.stack(heard).astype(np.float64), TEACHER_FLOOR, 1.0 - TEACHER_FLOOR)
        return np.asarray(np.log(scores / (1.0 - scores)).mean(axis=(0, 1)), dtype=np.float32)

    def _hearing(self, random: augment.Generator) -> Draft:
        """One to three clips at once, changed up to half an octave and more, and no question."""
        samples = self._vary(self._draw_to_hear(random, NAMELESS_FIRST), random, 0.65 * OCTAVE)
        for odds in (0.5, 0.3):
            if random.random() < odds:
                other = self._vary(self._draw_to_hear(random, NAMELESS_OTHER), random, 0.65 * OCTAVE)
                samples = augment.mix(samples, other, float(random.uniform(0.2, 0.95)))
        return Draft(self._finish(samples, random), "", ())

    def answering(self, random: augment.Generator) -> Draft:
        """A question about a clip nearly as recorded, or about one or two clips changed more."""
        first = self._draw(random, self.answering_odds)
        if random.random() < 0.5:
            return self._draft(self._nearly_as_recorded(first, random), [(first, 1.0)], random)
        samples, parts = self._vary(first, random, 0.25), [(first, 1.0)]
        if random.random() < 0.5:
            second, share = self._draw(random, self.answering_odds), float(random.uniform(0.05, 0.95))
            samples = augment.mix(samples, self._vary(second, random, 0.25), share)
            parts = [(first, share), (second, 1.0 - share)]
        return self._draft(self._finish(samples, random), parts, random)

    def _draw_to_hear(self, random: augment.Generator, nameless: float) -> Recording:
        if self.nameless and random.random() < nameless:
            return self.nameless[int(random.integers(len(self.nameless)))]
        return self._draw(random, self.hearing_odds)

    def _draw(self, random: augment.Generator, odds: npt.NDArray[np.float64]) -> Recording:
        return self.recordings[int(random.choice(len(self.recordings), p=odds))]

    def _draft(
        self, samples: augment.Samples, parts: Sequence[tuple[Recording, float]], random: augment.Generator
    ) -> Draft:
        """With one of the prompts, and the weighted answers to it."""
        prompt = "classify" if random.random() < 0.7 else "ltu"
        labels = tuple(part.label or "" for part, _ in parts)
        answers = tuple((self.answers[prompt][label], w) for label, (_, w) in zip(labels, parts, strict=True))
        return Draft(samples, self.prompts[prompt], answers, labels)

    @staticmethod
    def _nearly_as_recorded(recording: Recording, random: augment.Generator) -> augment.Samples:
        """The clip at another place, up to 10 % faster or slower and 6 dB louder or softer."""
        samples = augment.change_speed(recording.samples, float(np.exp(random.uniform(-0.1, 0.1))), RATE_HZ)
        samples = augment.place(samples, N_SAMPLES, random) * augment.decibel(float(random.uniform(-6, 6)))
        return np.clip(samples, -1.0, 1.0).astype(np.float32)

    @staticmethod
    def _vary(recording: Recording, random: augment.Generator, log_speed: float) -> augment.Samples:
        """One recording at another speed, length, place and tilt."""
        speed = float(np.exp(random.uniform(-log_speed, log_speed)))
        samples = augment.change_speed(recording.samples, speed, RATE_HZ)
        if random.random() < 0.3:
            keep = int(len(samples) * random.uniform(0.2, 1.0))
            start = int(random.integers(0, len(samples) - keep + 1))
            samples = samples[start : start + keep]
        samples = augment.place(samples, N_SAMPLES, random)
        if random.random() < 0.5:
            low_pass = float(random.uniform(2000, 7000)) if random.random() < 0.3 else None
            samples = augment.tilt_spectrum(samples, float(random.uniform(-5, 5)), low_pass, RATE_HZ)
        return samples

    @staticmethod
    def _finish(samples: augment.Samples, random: augment.Generator) -> augment.Samples:
        """Background and loudness, within full scale."""
        if random.random() < 0.5:
            noise = augment.coloured_noise(len(samples), float(random.uniform(0, 2)), random)
            level = augment.rms(samples) * augment.decibel(-float(random.uniform(5, 40)))
            samples = samples + noise * level
        samples = samples * augment.decibel(float(random.uniform(-15, 6)))
        return np.clip(samples, -1.0, 1.0).astype(np.float32)
