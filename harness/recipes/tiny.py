"""The tiny models' recipe: real recordings, many mixtures of them, and a tagger as teacher.

Clips: folds 1 to 4 of ESC-50's ESC-10 subset (CC0 and CC BY, so weights learned from it may be passed on) and the
training split of the starter set. Never a clip of fold 5 or of the starter's test split, nor ESC-50's sources 19898,
169127 and 4211, which are the same recordings as four starter test clips. `hold_out_fold` keeps one more fold back.

Before training, POOL examples are made, each a pure function of seed and number: a clip at another speed, loudness,
tilt and position, half of the time mixed with a second clip, half of the time over coloured noise. Every step draws
from them by seed and step, and masks spans of time and frequency anew. So two models given one seed hear the same
clips in the same order. A mixture's answer is both answers, weighted by their share of energy (between-class
learning, arXiv 1711.10282). The teacher hears the mixture itself; its 521 scores of every half second are learned by a
head on the encoder that is thrown away afterwards (distillation, as DASS was trained: arXiv 2407.04082). In the last
fifth of the steps the clips are nearly as recorded, one at a time, and only their names are learned.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from harness import registry
from harness.contracts import AudioItem, Label, Tagger, Task, TrainingExample
from harness.datasets import find_items, item_set_hash
from harness.errors import MissingDataError, OptionError, PluginError
from harness.recipes import _augment as augment
from harness.training import Prepared, Recipe, TrainConfig

RATE_HZ = 16_000
N_SAMPLES = 81_920  # 5.12 s, 512 feature frames
N_FRAMES = 510  # feature frames of that many samples
N_MELS = 128
# The same recordings as starter test clips (tasks/starter/esc50/README.md, "Overlap with ESC-50").
LEAKED_SOURCES = frozenset({"19898", "169127", "4211"})
TRAINING_FOLDS = frozenset({1, 2, 3, 4})
# Examples made ahead: 1.3 GB as 16-bit samples, some two minutes of work on one core.
POOL = 8192
POLISH_POOL = 4096
TEACHER_BATCH = 16
CAPTIONS_FILE = Path(__file__).with_name("tiny_captions.csv")

DEFAULTS = TrainConfig(
    steps=6000,
    batch_size=16,
    learning_rate=2e-3,
    weight_decay=0.05,
    warmup_steps=300,
    polish_share=0.2,
    polish_rate=1e-3,
    average=0.999,
    teacher_weight=0.3,
    gradient_clip=1.0,
    precision="bfloat16",
    seed=0,
    threads=1,
    device="cpu",
    checkpoint_every=200,
    log_every=100,
)


@dataclass(frozen=True, eq=False)
class Recording:
    """One training clip in memory, at 16 kHz."""

    label: str
    samples: augment.Samples


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


def load_recordings(items: Sequence[AudioItem]) -> list[Recording]:
    """Decode all clips; training does not go on without one of them.

    Raises:
        AudioError: a clip cannot be read.
    """
    return [Recording(item.references[0], item.source.load(RATE_HZ).samples) for item in items]


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
    name: str = "tiny"
    version: int = 1
    defaults: TrainConfig = DEFAULTS

    def prepare(self, config: TrainConfig, data_root: Path | None) -> Prepared:
        """Find, check and decode the clips, and get the teacher ready.

        Raises:
            MissingDataError: there is no ESC-50 to learn from.
            MissingExtraError: the teacher's packages are not installed.
        """
        task: Task = registry.create("tasks", "esc50").value
        official = find_items(task, data_root)
        if official.origin != "official":
            raise MissingDataError(
                f"The recipe 'tiny' learns from ESC-50, which was not found. Get it: {task.download}"
            )
        starter_task: Task = registry.create("tasks", "esc50", {"split": "train"}).value
        assert starter_task.read_starter is not None and starter_task.starter_root is not None
        starter = starter_task.read_starter(starter_task.starter_root)
        items = training_items(official.items, starter.items, self.hold_out_fold)
        teacher = load_teacher(self.teacher) if self.teacher else None
        return Prepared(
            batches=ExampleStream(load_recordings(items), task, teacher, config),
            n_teacher_scores=teacher.n_classes if teacher else 0,
            task=task,
            held_out=tuple(held_out_items(official.items, self.hold_out_fold)) if self.hold_out_fold else (),
            trained_on=f"ESC-10 of esc50's folds {_folds_text(self.hold_out_fold)}; the starter set's training split",
            about={
                "recipe": self.name,
                "recipe_version": self.version,
                "hold_out_fold": self.hold_out_fold,
                "teacher": self.teacher,
                "n_clips": len(items),
                "clips_sha256": item_set_hash(items, [item.source.identity() for item in items]),
            },
        )


def _folds_text(hold_out_fold: int | None) -> str:
    return ", ".join(str(fold) for fold in sorted(TRAINING_FOLDS - {hold_out_fold}))


def tiny(hold_out_fold: int | None = None, teacher: Literal["yamnet", "none"] = "yamnet") -> Recipe:
    """Small models, small data, a teacher.

    Args:
        hold_out_fold: a fold of 1 to 4 to keep out of training and to score at the end.
        teacher: "yamnet" needs the extra of that name; "none" learns from labels alone.
    """
    if hold_out_fold is not None and hold_out_fold not in TRAINING_FOLDS:
        raise OptionError(f"hold_out_fold must be one of 1 to 4, not {hold_out_fold}; fold 5 is never trained on")
    return TinyRecipe(hold_out_fold, None if teacher == "none" else teacher)


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


@dataclass(frozen=True, eq=False)
class PoolEntry:
    """One example made ahead: 16-bit samples, shape (N_SAMPLES,), and scores, shape (n_times, n_teacher)."""

    samples: npt.NDArray[np.int16]
    prompt: str
    answers: tuple[tuple[str, float], ...]
    teacher_scores: npt.NDArray[np.float16] | None


class ExampleStream:
    """Batches by step, drawn from a pool that is made at the first call.

    Everything random comes from the seed, the number of the example and the step.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        task: Task,
        teacher: Tagger | None,
        config: TrainConfig,
        pool_size: int = POOL,
    ) -> None:
        self.recordings = list(recordings)
        self.teacher = teacher
        self.config = config
        self.pool_size = pool_size
        self.prompts = dict(task.prompts)
        captions = read_captions(task.labels)
        self.answers: Mapping[str, Mapping[str, str]] = {
            "classify": {label.name: label.text for label in task.labels},
            "ltu": captions,
        }
        counts = {r.label: sum(other.label == r.label for other in recordings) for r in recordings}
        # Between "every class alike" and "every clip alike": some classes have 32 clips, some 2.
        weights = np.array([counts[r.label] ** -0.5 for r in recordings])
        self.odds = weights / weights.sum()

    def __call__(self, step: int) -> list[TrainingExample]:
        """The batch of a step."""
        random = np.random.default_rng((self.config.seed, 1, step))
        is_polish = step >= self.config.first_round
        pool = self.polish_pool if is_polish else self.pool
        numbers = random.integers(0, len(pool), size=self.config.batch_size)
        return [self._masked(pool[number], random, 1 if is_polish else 2) for number in numbers]

    @cached_property
    def polish_pool(self) -> list[PoolEntry]:
        """Examples of the last steps: single clips, little changed, without a teacher."""
        made = [self._make_plain(number) for number in range(min(self.pool_size, POLISH_POOL))]
        return [PoolEntry(_to_16_bits(samples), prompt, answers, None) for samples, prompt, answers in made]

    @cached_property
    def pool(self) -> list[PoolEntry]:
        """Examples of all other steps, without masks."""
        entries: list[PoolEntry] = []
        for start in range(0, self.pool_size, TEACHER_BATCH):
            made = [self._make(number) for number in range(start, min(start + TEACHER_BATCH, self.pool_size))]
            scores = self._teach([samples for samples, *_ in made])
            entries += [PoolEntry(_to_16_bits(s), p, a, row) for (s, p, a), row in zip(made, scores, strict=True)]
        return entries

    def _teach(self, clips: Sequence[augment.Samples]) -> Sequence[npt.NDArray[np.float16] | None]:
        if self.teacher is None:
            return [None] * len(clips)
        return list(self.teacher.tag(clips).astype(np.float16))

    @staticmethod
    def _masked(entry: PoolEntry, random: augment.Generator, n_masks: int) -> TrainingExample:
        return TrainingExample(
            samples=entry.samples.astype(np.float32) / 32768.0,
            prompt=entry.prompt,
            answers=entry.answers,
            teacher_scores=entry.teacher_scores,
            frame_masks=augment.masks(N_FRAMES, n_masks, 32 * n_masks, random),
            mel_masks=augment.masks(N_MELS, n_masks, 12 * n_masks, random),
        )

    def _make(self, number: int) -> tuple[augment.Samples, str, tuple[tuple[str, float], ...]]:
        """Samples, prompt and weighted answers of one example."""
        random = np.random.default_rng((self.config.seed, 0, number))
        first = self.recordings[int(random.choice(len(self.recordings), p=self.odds))]
        samples, parts = self._vary(first, random), [(first.label, 1.0)]
        if random.random() < 0.5:
            second = self.recordings[int(random.choice(len(self.recordings), p=self.odds))]
            share = float(random.uniform(0.05, 0.95))
            samples = augment.mix(samples, self._vary(second, random), share)
            parts = [(first.label, share), (second.label, 1.0 - share)]
        question = self._question(parts, random)
        return self._finish(samples, random), *question

    def _question(
        self, parts: Sequence[tuple[str, float]], random: augment.Generator
    ) -> tuple[str, tuple[tuple[str, float], ...]]:
        """One of the prompts, and the weighted answers to it."""
        prompt = "classify" if random.random() < 0.7 else "ltu"
        return self.prompts[prompt], tuple((self.answers[prompt][label], weight) for label, weight in parts)

    def _make_plain(self, number: int) -> tuple[augment.Samples, str, tuple[tuple[str, float], ...]]:
        """One clip at another place, and up to 10 % faster or slower and 6 dB louder or softer."""
        random = np.random.default_rng((self.config.seed, 2, number))
        recording = self.recordings[int(random.choice(len(self.recordings), p=self.odds))]
        samples = augment.change_speed(recording.samples, float(np.exp(random.uniform(-0.1, 0.1))), RATE_HZ)
        samples = augment.place(samples, N_SAMPLES, random) * augment.decibel(float(random.uniform(-6, 6)))
        clipped = np.clip(samples, -1.0, 1.0).astype(np.float32)
        return clipped, *self._question([(recording.label, 1.0)], random)

    def _vary(self, recording: Recording, random: augment.Generator) -> augment.Samples:
        """One recording at another speed, tilt and place."""
        samples = augment.change_speed(recording.samples, float(np.exp(random.uniform(-0.25, 0.25))), RATE_HZ)
        if random.random() < 0.3:
            keep = int(len(samples) * random.uniform(0.2, 1.0))
            start = int(random.integers(0, len(samples) - keep + 1))
            samples = samples[start : start + keep]
        samples = augment.place(samples, N_SAMPLES, random)
        if random.random() < 0.5:
            low_pass = float(random.uniform(2500, 7000)) if random.random() < 0.3 else None
            samples = augment.tilt_spectrum(samples, float(random.uniform(-4, 4)), low_pass, RATE_HZ)
        return samples

    @staticmethod
    def _finish(samples: augment.Samples, random: augment.Generator) -> augment.Samples:
        """Background and loudness, in the range of 16 bits."""
        if random.random() < 0.5:
            noise = augment.coloured_noise(len(samples), float(random.uniform(0, 2)), random)
            level = augment.rms(samples) * augment.decibel(-float(random.uniform(5, 40)))
            samples = samples + noise * level
        samples = samples * augment.decibel(float(random.uniform(-15, 6)))
        return np.clip(samples, -1.0, 1.0).astype(np.float32)


def _to_16_bits(samples: augment.Samples) -> npt.NDArray[np.int16]:
    return np.round(samples * 32767.0).astype(np.int16)
