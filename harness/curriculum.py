"""Training in stages: what each stage trains and learns from, and what a model and a recipe must offer for it.

The stages and their settings are a recipe's; the loop is `harness.staged_training`, the forecast of its cost
`harness.training_forecast`. Beside `harness.training`, where a model starts from nothing and is taught to hear, this is
for released parts that learn to work together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from harness.contracts import OptionValue, Question, TrainableModel
from harness.errors import UsageError
from harness.ranges import check_ranges

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Part = Literal["encoder", "connector", "lora"]


@dataclass(frozen=True)
class Stage:
    """One lesson plan: which parts learn, from which data, how fast and for how long.

    `data` names one of the recipe's sources; `published_steps` is how many steps the recipe's own authors handed on,
    for a forecast where the data is not there.
    """

    name: str
    trains: tuple[Part, ...]
    data: str
    learning_rate: float
    epochs: int
    published_steps: int


@dataclass(frozen=True)
class CurriculumConfig:
    """All that decides what a training in stages does, but for its data and its model.

    Every step learns from `batch_size` items, `micro_batch_size` of them at a time: gradients are added up, and the
    loss is the mean over all tokens of the step that count, so the smaller number changes memory, rounding and the
    draws of dropout alone. Rates are of AdamW, with a linear warm-up and a linear fall to 0 in each stage. With
    `loss_on_prompt` the question's tokens count too. A stage takes `max_steps` at most; None is all of its epochs.
    Precision "bfloat16" is torch's autocast: what learns, and the optimiser, stay in float32. With `recompute` blocks
    are computed again for the backward pass.
    """

    stages: tuple[Stage, ...]
    batch_size: int
    micro_batch_size: int
    warmup_steps: int
    weight_decay: float
    gradient_clip: float
    max_text_tokens: int
    loss_on_prompt: bool
    lora_dropout: float
    precision: str
    recompute: bool
    max_steps: int | None
    seed: int
    threads: int
    device: str
    checkpoint_every: int
    log_every: int
    held_out_every: int

    def __post_init__(self) -> None:
        """Check ranges once.

        Raises:
            UsageError: a count is not positive, or a rate is out of range.
        """
        counts = ("batch_size", "micro_batch_size", "threads", "checkpoint_every", "log_every", "held_out_every")
        check_ranges(self, counts, positive=("gradient_clip",), at_least_0=("seed", "warmup_steps", "weight_decay"))
        if self.max_steps is not None and self.max_steps < 1:
            raise UsageError(f"max_steps must be at least 1, not {self.max_steps}")
        if self.max_text_tokens < 2:
            raise UsageError(f"max_text_tokens must be at least 2, not {self.max_text_tokens}")
        if self.precision not in ("float32", "bfloat16"):
            raise UsageError(f"precision must be float32 or bfloat16, not {self.precision}")
        if not 0 <= self.lora_dropout < 1:
            raise UsageError(f"lora_dropout must be in [0, 1), not {self.lora_dropout}")
        for stage in self.stages:
            if not 0 < stage.learning_rate < math.inf:
                raise UsageError(f"learning_rate must be positive and finite, not {stage.learning_rate}")

    def steps_of(self, stage: Stage, n_items: int) -> int:
        """Steps of a stage on so many items: whole batches of all its epochs, at least one, at most `max_steps`."""
        steps = max(1, stage.epochs * n_items // self.batch_size)
        return steps if self.max_steps is None else min(steps, self.max_steps)


def linear_rate(peak: float, step: int, n_steps: int, warmup_steps: int) -> float:
    """The rate of a step of a stage, counted from 0: up in a line, then down in a line to 0 after the last.

    As transformers' linear schedule, whose step s has the rate after s steps: the first one's is 0 there; here the
    warm-up is one step ahead, so that no step is without effect.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * (n_steps - step) / max(1, n_steps - warmup_steps)


@dataclass(frozen=True)
class Lesson:
    """One item to learn from. `item` says where it stands, such as "openaqa_toy.json:17"."""

    item: str
    audio: Path
    question: Question


class Lessons(Protocol):
    """The items of one source, in the order of a training."""

    def __len__(self) -> int:
        """How many there are."""

    def batch(self, step: int, batch_size: int) -> Sequence[Lesson]:
        """Those of a step: a pure function of the step, so that a resumed training sees the very same."""

    def files(self) -> set[str]:
        """Paths of all their clips."""


@dataclass(frozen=True)
class PreparedCurriculum:
    """What a recipe hands to the loop.

    `sources` are by the names that stages have for them; `held_out` is never learned from. `n_malformed` counts items
    that are none, with a reason each in `malformed`. `about` says what is learned from, for the record.
    """

    sources: Mapping[str, Lessons]
    held_out: Sequence[Lesson]
    malformed: Sequence[tuple[str, str]]
    about: Mapping[str, OptionValue]
    trained_on: str
    features_folder: Path | None = None


class CurriculumRecipe(Protocol):
    """What the function of a recipe file returns, where the training is one in stages."""

    @property
    def name(self) -> str:
        """The recipe's name."""

    @property
    def version(self) -> int:
        """Rises when the trained weights would change."""

    @property
    def defaults(self) -> CurriculumConfig:
        """As published."""

    def prepare(self, config: CurriculumConfig, data_root: Path | None) -> PreparedCurriculum:
        """Read the items.

        Raises:
            MissingDataError: a file of items is not there.
        """


@runtime_checkable
class CurriculumModel(TrainableModel, Protocol):
    """A model of released parts that can be trained in stages. Tensors are torch's, and their type stays open."""

    def start_stages(self, lora_dropout: float, precision: str, is_recomputed: bool, device: str) -> Any:
        """The network with the weights that the model's options name, and nothing learning."""

    def train_parts(self, parts: Sequence[str]) -> Mapping[str, int]:
        """Let these parts learn and no other, in training mode; parameters of each."""

    def features(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What the encoder is given of a clip, shape (frames, mel), of one shape for all clips."""

    def text_tokens(self, question: Question, limit: int) -> tuple[Sequence[int], int]:
        """Prompt and first answer as at most `limit` token ids, and where the answer begins.

        Raises:
            ValueError: this text cannot be learned from.
        """

    def text_losses(
        self, heard: npt.NDArray[np.float32], texts: Sequence[Sequence[int]], starts: Sequence[int]
    ) -> tuple[Any, Any, Any]:
        """Of each token from its text's start on: loss in nats, whether it was the likeliest, row; each of shape (N,).

        Args:
            heard: features, shape (batch, frames, mel).
        """

    def n_audio_tokens(self) -> int:
        """Audio tokens of one clip in training."""

    def save_trained(self, folder: Path, trained_on: str) -> None:
        """Write the folder that the model's option `weights` reads."""

    def training_needs(
        self, parts: Sequence[str], n_clips: int, n_text_tokens: int, precision: str, is_recomputed: bool
    ) -> Mapping[str, Mapping[str, int]]:
        """From shapes alone: "parameters" and "trainable" by part, and "bytes" of a step: "parameters", "gradients",
        "optimiser", "activations".
        """
