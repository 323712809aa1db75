"""The training loop: one model, one stream of batches, resumable to the step.

What is learned from comes from a recipe as a pure function of the step, so an interrupted run continues with the very
batches that an uninterrupted one would have seen. The folder of a run holds

    config.json       what was asked for, written first; a folder of another configuration is refused
    curve.jsonl       one line every `log_every` steps: losses, learning rate, gradient norm, clips per second
    checkpoint.pt     weights, average, optimiser and step; written anew, then renamed
    encoded*          what the frozen encoder made of the second round's examples; deleted in the end
    first_round.safetensors   what the first round trained, averaged; another training may start its second from it
    weights.safetensors   the result: the exponential average of the weights
    record.json       what was learned from, versions, machine, times and held-out scores, written last
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.contracts import AudioItem, EncodingModel, OptionValue, Task, TrainableModel, TrainingExample
from harness.curve import CURVE, StepSums, Stopwatch, append_line, cut_curve, seed_step
from harness.encoded_examples import EncodedExamples
from harness.environment import describe_environment
from harness.errors import RecordError, UsageError
from harness.hashing import file_sha256
from harness.held_out import score_held_out
from harness.progress import progress
from harness.ranges import check_ranges
from harness.record_files import write_atomically
from harness.run_folder import locked

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CHECKPOINT = "checkpoint.pt"
FIRST_ROUND = "first_round.safetensors"
CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
RECORD = "record.json"

Batches = Callable[[int], Sequence[TrainingExample]]


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to learn. Rates are of AdamW; the schedule is a linear warm-up, then a cosine to 0.

    The last `second_share` of the steps are a second round (all of them, 1, where another training's first is taken
    over): it starts from the first round's average of weights, with a fresh optimiser and a warm-up and a cosine from
    `second_rate` of its own, in batches of `second_batch_size`, and with `second_freezes` it leaves alone what the
    first trained. What a recipe shows a model then is its choice. With `second_pool` above 0 the frozen encoder hears
    so many examples once, whole batches of them, and the round draws from what it made of them, each example once
    before any comes again; with 0 every example is new.

    A loss named "teacher" counts `teacher_weight`, one named "teacher_logits" `logit_weight`, any other 1. What a round
    leaves is an exponential average of its weights, `average` and `second_average` its decay per step.
    The average begins at the weights after the round's first step, of which decay ** steps is left in the end: a short
    round needs a small decay. `precision` is "float32", or "bfloat16" for torch's autocast: weights, averages and
    optimiser stay in float32 either way.
    """

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    second_share: float
    second_rate: float
    second_batch_size: int
    second_pool: int
    second_freezes: bool
    average: float
    second_average: float
    teacher_weight: float
    logit_weight: float
    gradient_clip: float
    precision: str
    seed: int
    threads: int
    device: str
    checkpoint_every: int
    log_every: int

    def __post_init__(self) -> None:
        """Check ranges once.

        Raises:
            UsageError: a count is not positive, or a rate is out of range.
        """
        check_ranges(
            self,
            at_least_1=("steps", "batch_size", "second_batch_size", "threads", "checkpoint_every", "log_every"),
            positive=("learning_rate", "second_rate", "gradient_clip"),
            at_least_0=("seed", "warmup_steps", "weight_decay", "second_pool", "teacher_weight", "logit_weight"),
        )
        if self.precision not in ("float32", "bfloat16"):
            raise UsageError(f"precision must be float32 or bfloat16, not {self.precision}")
        if not 0 <= self.second_share <= 1:
            raise UsageError(f"second_share must be in [0, 1], not {self.second_share}")
        if self.second_pool and not self.second_freezes:
            raise UsageError("second_pool is for an encoder that stays as it is: it needs second_freezes")
        if self.second_pool % self.second_batch_size:
            raise UsageError(
                f"second_pool must be 0 or whole batches of {self.second_batch_size}, not {self.second_pool} examples"
            )
        for name in ("average", "second_average"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} must be in [0, 1), not {getattr(self, name)}")

    @property
    def first_round(self) -> int:
        """Steps before the second round."""
        return self.steps - round(self.steps * self.second_share)

    def batch_size_at(self, step: int) -> int:
        """Examples of a step, counted from 0."""
        return self.batch_size if step < self.first_round else self.second_batch_size


@dataclass(frozen=True)
class Prepared:
    """What a recipe hands to the loop.

    `teacher_prior` is for `TrainableModel.start_training`, None without a teacher. `about` says what is learned from,
    for the record, and `trained_on` says it in one sentence that stays with the weights; `held_out` items of `task` are
    scored at the end. `first_round` is what another training's first round left (the same clips and settings, the same
    network as far as the file goes): it is not repeated. What begins with `frozen_prefix` in that file is what a second
    round that freezes leaves alone; with a prefix, the file is a whole network. `continues` is the configuration of a
    training that goes on in this one: it must be of the same model.
    """

    batches: Batches
    teacher_prior: npt.NDArray[np.float32] | None
    task: Task
    held_out: tuple[AudioItem, ...]
    about: Mapping[str, OptionValue]
    trained_on: str
    first_round: Path | None = None
    frozen_prefix: str = ""
    continues: Mapping[str, Any] | None = None


class Recipe(Protocol):
    """A file `harness/recipes/<name>.py` defines a function `<name>(...) -> Recipe`."""

    @property
    def name(self) -> str:
        """The recipe's name."""

    @property
    def version(self) -> int:
        """Rises when the trained weights would change."""

    @property
    def defaults(self) -> TrainConfig:
        """How the published weights were trained."""

    def prepare(self, config: TrainConfig, data_root: Path | None) -> Prepared:
        """Read the data and make the stream of batches."""


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of a step, counted from 0."""
    first_round = config.first_round
    if step < first_round:
        return _rise_and_fall(config.learning_rate, step, first_round, config.warmup_steps)
    return _rise_and_fall(config.second_rate, step - first_round, config.steps - first_round, config.warmup_steps // 6)


def _rise_and_fall(peak: float, step: int, steps: int, warmup_steps: int) -> float:
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


class Trainer:
    """The state of one training run.

    `sums` gathers the next line of the curve, and `watch` counts the seconds of steps.
    """

    def __init__(
        self,
        model: TrainableModel,
        batches: Batches,
        config: TrainConfig,
        folder: Path,
        teacher_prior: npt.NDArray[np.float32] | None,
    ) -> None:
        """The network as it starts.

        Raises:
            UsageError: the second round has a pool, and the model cannot encode examples once.
        """
        import torch

        if config.second_pool and config.first_round < config.steps and not isinstance(model, EncodingModel):
            raise UsageError(f"the model '{model.name}' cannot encode examples once: set second_pool to 0")
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.model, self.batches, self.config, self.folder = model, batches, config, folder
        self.network: Any = model.start_training(teacher_prior, config.device)
        self.step = 0
        self.frozen: list[str] = []
        self._start_round()
        self.sums, self.watch = StepSums(), Stopwatch()
        self._encoded: EncodedExamples | None = None

    def _start_round(self) -> None:
        """A fresh optimiser, and an average that begins at the weights as they are."""
        import torch
        from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

        decay = self.config.average if self.step < self.config.first_round else self.config.second_average
        average = get_ema_multi_avg_fn(decay)
        self.average = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.optimiser = torch.optim.AdamW(parameter_groups(self.network, self.config.weight_decay), lr=0.0)

    def _start_second_round(self, trained: Sequence[str]) -> None:
        """`trained` names what the first round trained."""
        self.frozen = list(trained) if self.config.second_freezes else []
        for name in self.frozen:
            self.network.get_parameter(name).requires_grad_(False)
        if not any(parameter.requires_grad for parameter in self.network.parameters()):
            raise UsageError(
                "the first round trained all there is, so a second round that freezes it has nothing to do"
            )
        self._start_round()

    def finish_first_round(self) -> None:
        """Save what the round trained, averaged, and start the second round from it."""
        from safetensors.torch import save_file

        names = {parameter: name for name, parameter in self.network.named_parameters()}
        trained = {names[parameter] for parameter in self.optimiser.state}
        self.network.load_state_dict(self.average.module.state_dict())
        kept = {name: p.detach().cpu().contiguous() for p, name in names.items() if name in trained}
        temporary = self.folder / f"{FIRST_ROUND}.part"
        save_file(kept, temporary)
        temporary.replace(self.folder / FIRST_ROUND)
        self._start_second_round(sorted(trained))

    def skip_first_round(self, path: Path, frozen_prefix: str = "") -> None:
        """Start the second round from what another training left in `path`.

        Args:
            path: what the other's first round trained; with a prefix, the whole of its network.
            frozen_prefix: with which the names of what stays as it is begin.

        Raises:
            UsageError: the file cannot be read, or is of another network.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise UsageError(f"The first round {path} cannot be read: {error}.") from error
        own = self.network.state_dict()
        unlike = [name for name, tensor in found.items() if name not in own or own[name].shape != tensor.shape]
        if unlike:
            raise UsageError(f"{path} is the first round of another network: it has {unlike[0]}, or in another shape.")
        self.network.load_state_dict(found, strict=False)
        self.step = self.config.first_round
        parameters = {name for name, _ in self.network.named_parameters()}
        if frozen_prefix:
            lacking = parameters - found.keys()
            if lacking:
                raise UsageError(f"{path} is not the whole of {self.model.name}: it lacks {min(lacking)}")
        frozen = sorted(name for name in parameters & found.keys() if name.startswith(frozen_prefix))
        if self.config.second_pool and not frozen:
            raise UsageError(f"{path} holds nothing that stays as it is ({frozen_prefix}*), so no pool can be encoded")
        self._start_second_round(frozen)

    def resume(self) -> int:
        """Go back to the last checkpoint, if there is one; returns the step it stands at.

        Lines of the curve that came after it are dropped: those steps are taken again.
        """
        import torch

        path = self.folder / CHECKPOINT
        if path.exists():
            state = torch.load(path, map_location=self.config.device, weights_only=True)
            self.step = state["step"]
            # The round's own average and optimiser, to be filled.
            self._start_second_round(state["frozen"])
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.sums.load(state)
            self.watch.trained_s = state["trained_s"]
        cut_curve(self.folder / CURVE, self.step)
        return self.step

    def checkpoint(self) -> None:
        """Save everything that the next step depends on."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "frozen": self.frozen,
            "trained_s": self.watch.trained_s,
            **self.sums.state(),
        }
        write_checkpoint(self.folder, state)

    def take_step(self) -> Mapping[str, float]:
        """One batch forward, backward and into the weights; returns the step's numbers.

        Raises:
            RecordError: the loss or its gradient is not finite; the message names the step. The weights are as before.
        """
        import torch

        # A first round shared by two models drops the very same branches in both.
        seed_step(self.config.seed, self.step)
        self.network.train()
        rate = learning_rate(self.config, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        is_bfloat16 = self.config.precision == "bfloat16"
        with torch.autocast(self.config.device.split(":")[0], torch.bfloat16, enabled=is_bfloat16):
            losses = self._losses()
        total = sum(self._weight(name) * loss for name, loss in losses.items())
        if not bool(torch.isfinite(total.detach())):
            raise RecordError(f"the loss is {total.item()} at step {self.step}; the checkpoint is as before")
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        if not bool(torch.isfinite(norm)):
            raise RecordError(f"the gradient's norm is {norm.item()} at step {self.step}; the checkpoint is as before")
        self.optimiser.step()
        self.average.update_parameters(self.network)
        self.step += 1
        parts = {f"{name}_loss": value.item() for name, value in losses.items()}
        return {**parts, "learning_rate": rate, "gradient_norm": float(norm)}

    def _losses(self) -> Mapping[str, Any]:
        """Of the step's batch: new examples, or in a second round with a pool some that were encoded before."""
        config, second_step = self.config, self.step - self.config.first_round
        if second_step < 0 or not config.second_pool:
            return self.model.losses(self.batches(self.step))
        assert isinstance(self.model, EncodingModel), "checked at the start"
        if self._encoded is None:
            self._encoded = self._encode(self.model)
        drawn = self._encoded.draw(second_step, config.seed)
        return self.model.answering_losses(*drawn)

    def _encode(self, model: EncodingModel) -> EncodedExamples:
        """The pool, from this folder where these very weights made it, else by the frozen encoder as it is."""
        import torch

        def encoded_batches() -> Iterator[tuple[Any, Sequence[TrainingExample]]]:
            self.network.eval()
            label = f"{self.model.name}: encoding the second round's examples"
            with progress(label, self.config.second_pool) as advance:
                for batch in range(self.config.second_pool // self.config.second_batch_size):
                    examples = self.batches(self.config.first_round + batch)
                    with torch.no_grad():
                        yield model.encode(examples), examples
                    advance(len(examples))

        made_by = parameters_sha256(self.network, self.frozen)
        found = EncodedExamples.make_or_open(self.folder, made_by, encoded_batches())
        self.network.train()
        return found

    def _weight(self, loss: str) -> float:
        return {"teacher": self.config.teacher_weight, "teacher_logits": self.config.logit_weight}.get(loss, 1.0)

    def run(self, on_line: Callable[[Mapping[str, float]], None]) -> None:
        """All steps that are left; `on_line` hears each line of the curve, with the speed of this session."""
        n_timed = 0  # clips
        while self.step < self.config.steps:
            started = time.perf_counter()
            self.sums.add(self.take_step())
            is_round_end = self.step == self.config.first_round < self.config.steps
            n_timed += self.config.batch_size_at(self.step - 1)
            self.watch.add(time.perf_counter() - started)
            is_last = self.step == self.config.steps
            if self.step % self.config.log_every == 0 or is_round_end or is_last:
                line = {"step": self.step, **self.sums.take(), "clips_per_s": n_timed / self.watch.take()}
                append_line(self.folder / CURVE, line)
                on_line(line)
                n_timed = 0
            if is_round_end:
                self.finish_first_round()
            if self.step % self.config.checkpoint_every == 0 or is_round_end or is_last:
                self.checkpoint()

    def use_average(self) -> None:
        """Put the averaged weights into the network, for saving and for answering."""
        self.network.load_state_dict(self.average.module.state_dict())
        self.network.eval()


@dataclass(frozen=True)
class TrainOutcome:
    """What a finished training left behind; `already_done` when the folder held it before."""

    folder: Path
    record: Mapping[str, Any]
    already_done: bool


def train(
    model: TrainableModel,
    recipe: Recipe,
    config: TrainConfig,
    folder: Path,
    data_root: Path | None,
    model_options: Mapping[str, OptionValue],
    on_start: Callable[[int], None],
    on_line: Callable[[Mapping[str, float]], None],
) -> TrainOutcome:
    """Train from where `folder` stands to the last step, save the averaged weights, score what was held out.

    Args:
        model_options: what the model was made with, defaults included; part of what identifies the training.
        on_start: hears the step that training starts or continues at.
        on_line: hears each line of the curve.

    Raises:
        UsageError: the folder belongs to another configuration.
    """
    prepared = recipe.prepare(config, data_root)
    about = {**prepared.about, "model": model.name, "model_options": dict(model_options)}
    claim_folder(folder, config, about)
    if (folder / RECORD).exists():
        EncodedExamples.delete(folder)
        return TrainOutcome(folder, read_json(folder / RECORD), already_done=True)
    if not config.first_round and prepared.first_round is None:
        raise UsageError("second_share of 1 leaves no first round, and no other training's is taken over")
    if prepared.continues is not None:
        check_same_model(prepared.continues, model.name, model_options)
    with locked(folder, "training"):
        trainer = Trainer(model, prepared.batches, config, folder, prepared.teacher_prior)
        if not trainer.resume() and prepared.first_round is not None:
            trainer.skip_first_round(prepared.first_round, prepared.frozen_prefix)
        on_start(trainer.step)
        trainer.run(on_line)
        trainer.use_average()
        model.save(folder / WEIGHTS, prepared.trained_on)
        record = _record_of(model, prepared, config, folder, trainer.watch.trained_s, model_options)
        write_atomically(folder / RECORD, json.dumps(record, indent=2) + "\n")
        EncodedExamples.delete(folder)
    return TrainOutcome(folder, record, already_done=False)


def _record_of(
    model: TrainableModel,
    prepared: Prepared,
    config: TrainConfig,
    folder: Path,
    trained_s: float,
    model_options: Mapping[str, OptionValue],
) -> dict[str, Any]:
    """What the weights were made from, and how they do on what was held out."""
    held_out = score_held_out(model, prepared.task, prepared.held_out) if prepared.held_out else []
    return {
        "schema_version": 1,
        "model": model.name,
        "model_options": dict(model_options),
        "learned_from": dict(prepared.about),
        "config": asdict(config),
        "trained_s": trained_s,
        "weights_sha256": file_sha256(folder / WEIGHTS),
        "held_out": [asdict(report) for report in held_out],
        "environment": describe_environment(config.device).model_dump(),
    }


def read_json(path: Path) -> Any:
    """A JSON file of a training folder.

    Raises:
        RecordError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read: {error}. Delete its folder, or name another with --out.") from error


def check_same_model(found: Mapping[str, Any], name: str, options: Mapping[str, OptionValue]) -> None:
    """Refuse to go on from a training of another model, or of the same with other options.

    Args:
        found: the other training's config.json.
        name: the model that is to be trained.
        options: what it was made with, defaults included.

    Raises:
        UsageError: they differ; the message names where.
    """
    if found["model"] != name:
        raise UsageError(f"what is to be continued is a training of {found['model']}, not of {name}")
    before, now = found["model_options"], json.loads(json.dumps(dict(options)))
    unlike = differing_keys(before, now)
    if unlike:
        raise UsageError(f"what is to be continued was trained with other {', '.join(unlike)}")


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Where two configurations differ, sorted; what one lacks is None there."""
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def parameters_sha256(network: Any, names: Iterable[str]) -> str:
    """SHA-256 over the names, shapes, types and bytes of some of a network's parameters, in the order of names."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(names):
        parameter = network.get_parameter(name).detach().cpu().contiguous()
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}\n".encode())
        digest.update(parameter.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def parameter_groups(network: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; vectors (norms, biases), embeddings' positions and the scan's own parameters do not."""
    spared = ("A_log", "A_logs", "dt_projs_bias", "pos_embed_a", "modality_a")
    decays: list[Any] = []
    spares: list[Any] = []
    for name, parameter in network.named_parameters():
        is_spared = parameter.ndim < 2 or name.rsplit(".", 1)[-1] in spared
        (spares if is_spared else decays).append(parameter)
    return [{"params": decays, "weight_decay": weight_decay}, {"params": spares, "weight_decay": 0.0}]


def claim_folder(folder: Path, config: Any, about: Mapping[str, Any]) -> None:
    """Make the run's folder, or check that it belongs to this very configuration.

    Args:
        config: a dataclass of plain values.

    Raises:
        UsageError: the folder holds a run of another configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = json.loads(json.dumps({**about, **asdict(config)}))  # as the file will give it back: tuples are lists
    path = folder / CONFIG
    if not path.exists():
        write_atomically(path, json.dumps(wanted, indent=2) + "\n")
        return
    found = read_json(path)
    unlike = differing_keys(found, wanted)
    if unlike:
        raise UsageError(f"{folder} holds a training with other {', '.join(unlike)}. Name another folder with --out.")


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Put a state in the place of a folder's last checkpoint, once it is whole on the disk."""
    import torch

    temporary = folder / f"{CHECKPOINT}.part"
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / CHECKPOINT)
