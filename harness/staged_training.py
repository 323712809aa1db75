"""The loop of a training in stages: one model, one stage after another, resumable to the step.

The folder of a run holds

    config.json        what was asked for, written first; a folder of another configuration is refused
    curve.jsonl        a line every `log_every` steps, and one for each time that the held-out items were asked
    bad_items.jsonl    each item that could not be learned from, once, with the reason
    checkpoint.pt      what learns, its optimiser and the step; written anew, then renamed
    stage1, stage2, .. what each stage left: folders that the model's option `weights` reads
    record.json        what was learned from, versions, machine and times, written last

Several devices would join in `take_step`: each process takes its share of the step's items, and what they must add up
is there alone: the number of tokens that count before the backward pass, the gradients after it, and the loss.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.contracts import OptionValue
from harness.curriculum import (
    CurriculumConfig,
    CurriculumModel,
    CurriculumRecipe,
    PreparedCurriculum,
    Stage,
    linear_rate,
)
from harness.environment import describe_environment
from harness.errors import RecordError
from harness.lesson_batches import LessonBatches, Taught
from harness.records import write_atomically
from harness.run_folder import locked
from harness.training import (
    CHECKPOINT,
    CURVE,
    RECORD,
    TrainOutcome,
    append_line,
    claim_folder,
    cut_curve,
    parameter_groups,
    read_json,
    write_checkpoint,
)

BAD_ITEMS = "bad_items.jsonl"
NOT_FINITE = "not_finite.json"
OnLine = Callable[[Mapping[str, Any]], None]


class StagedTrainer:
    """The state of one training run.

    `stage` and `step` say what comes next: the step is counted from 0 in each stage. `sums` and `n_summed` gather the
    next line of the curve; they are part of a checkpoint, so that a resumed run's curve is that of an unbroken one.
    """

    def __init__(
        self, model: CurriculumModel, prepared: PreparedCurriculum, config: CurriculumConfig, folder: Path
    ) -> None:
        import torch

        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.model, self.prepared, self.config, self.folder = model, prepared, config, folder
        self.network: Any = model.start_stages(config.lora_dropout, config.precision, config.recompute, config.device)
        self.n_steps = [config.steps_of(stage, len(prepared.sources[stage.data])) for stage in config.stages]
        self.n_trained = {stage.name: dict(model.train_parts(stage.trains)) for stage in config.stages}
        self.learners = self._learners()
        self.batches = LessonBatches(model, prepared, config, folder / BAD_ITEMS)
        self.stage = self.step = self.n_skipped = 0
        self.sums: dict[str, float] = {}
        self.n_summed = 0
        self.trained_s = 0.0
        self._begin_stage()

    # --- where it stands ----------------------------------------------------------------------------------------------

    @property
    def done_steps(self) -> int:
        """Steps taken in all stages."""
        return sum(self.n_steps[: self.stage]) + self.step

    @property
    def is_done(self) -> bool:
        """Whether the last stage is over."""
        return self.stage == len(self.config.stages)

    def _learners(self) -> list[str]:
        """Names of all parameters that some stage trains: what a checkpoint must hold."""
        names = set()
        for stage in self.config.stages:
            self.model.train_parts(stage.trains)
            names |= {name for name, parameter in self.network.named_parameters() if parameter.requires_grad}
        return sorted(names)

    def _begin_stage(self) -> None:
        """The stage's parts begin to learn, with a fresh optimiser."""
        import torch

        if self.is_done:
            return
        self.model.train_parts(self.config.stages[self.stage].trains)
        groups = parameter_groups(self.network, self.config.weight_decay)
        learning = [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups]
        is_cuda = self.config.device.startswith("cuda")
        self.optimiser = torch.optim.AdamW([g for g in learning if g["params"]], lr=0.0, fused=is_cuda or None)

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def resume(self) -> int:
        """Go back to the last checkpoint, if there is one; returns how many steps were taken."""
        import torch

        path = self.folder / CHECKPOINT
        if path.exists():
            state = torch.load(path, map_location=self.config.device, weights_only=True)
            self.stage, self.step, self.n_skipped = state["stage"], state["step"], state["n_skipped"]
            with torch.no_grad():
                for name, kept in state["learned"].items():
                    self.network.get_parameter(name).copy_(kept)
            self._begin_stage()
            if state["optimiser"] is not None:
                self.optimiser.load_state_dict(state["optimiser"])
            self.sums, self.n_summed = state["sums"], state["n_summed"]
            self.trained_s = state["trained_s"]
        cut_curve(self.folder / CURVE, self.done_steps)
        return self.done_steps

    def checkpoint(self) -> None:
        """Save everything that the next step depends on."""
        learned = {name: self.network.get_parameter(name).detach() for name in self.learners}
        state = {
            "learned": learned,
            # A stage begins with an optimiser that remembers nothing.
            "optimiser": self.optimiser.state_dict() if self.step else None,
            "stage": self.stage,
            "step": self.step,
            "n_skipped": self.n_skipped,
            "sums": self.sums,
            "n_summed": self.n_summed,
            "trained_s": self.trained_s,
        }
        write_checkpoint(self.folder, state)

    # --- steps --------------------------------------------------------------------------------------------------------

    def take_step(self) -> dict[str, float]:
        """One batch, some items at a time, into the weights; returns the step's numbers.

        Raises:
            RecordError: no item of the step could be learned from; or a loss or the gradient is not finite, and the
                message names the items. The weights are as before.
        """
        import torch

        # Seeded anew each step: a resumed step drops the very same branches and inputs.
        torch.manual_seed(self.config.seed * 1_000_003 + self.done_steps)
        stage = self.config.stages[self.stage]
        batch = self.batches.of_step(stage, self.step, self.n_steps[self.stage])
        rate = linear_rate(stage.learning_rate, self.step, self.n_steps[self.stage], self.config.warmup_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        n_counted = sum(taught.n_counted for taught in batch)
        self.optimiser.zero_grad(set_to_none=True)
        size = self.config.micro_batch_size
        loss = sum(self._learn(batch[i : i + size], n_counted) for i in range(0, len(batch), size))
        learning = [p for group in self.optimiser.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(learning, self.config.gradient_clip))
        if not norm < float("inf"):
            raise self._not_finite(f"the gradient's norm is {norm}", batch)
        self.optimiser.step()
        self.step += 1
        self.n_skipped += self.config.batch_size - len(batch)
        n_tokens = len(batch) * self.model.n_audio_tokens() + sum(len(taught.tokens) for taught in batch)
        return {
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": norm,
            "n_clips": float(len(batch)),
            "n_tokens": float(n_tokens),
        }

    def _learn(self, some: Sequence[Taught], n_counted: int) -> float:
        """Gradients of some items' share in the step's mean loss; returns that share."""
        import torch

        with self._autocast():
            losses_N, _, _ = self._losses(some)
            share = losses_N.sum() / n_counted
        value = float(share.detach())
        if not bool(torch.isfinite(share.detach())):
            raise self._not_finite(f"the loss is {value}", some)
        share.backward()
        return value

    def _losses(self, some: Sequence[Taught]) -> tuple[Any, Any, Any]:
        import numpy as np

        heard = np.stack([taught.features for taught in some])
        return self.model.text_losses(heard, [t.tokens for t in some], [t.start for t in some])

    def _autocast(self) -> Any:
        import torch

        kind = self.config.device.split(":")[0]
        return torch.autocast(kind, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _not_finite(self, what: str, items: Sequence[Taught]) -> RecordError:
        """The error, with all the items in a file and the first of them in the message."""
        named = [{"item": taught.lesson.item, "audio": str(taught.lesson.audio)} for taught in items]
        where = {"stage": self.config.stages[self.stage].name, "step": self.step, "what": what}
        path = self.folder / NOT_FINITE
        write_atomically(path, json.dumps({**where, "items": named}, indent=2) + "\n")
        first = ", ".join(entry["item"] for entry in named[:8])
        more = f" and {len(named) - 8} more, all in {path}" if len(named) > 8 else ""
        return RecordError(
            f"{what} at step {self.step} of stage {where['stage']}, on {first}{more}; the checkpoint is as before"
        )

    # --- held-out items -----------------------------------------------------------------------------------------------

    def held_out(self) -> dict[str, float]:
        """How the network does on what it never learns from: loss and accuracy of the answers' tokens alone.

        An answer counts as right when each of its tokens was the likeliest after those before: greedy decoding then
        says it word for word.
        """
        import torch

        items = self.batches.ready(self.prepared.held_out, from_prompt=False)
        self.network.eval()
        loss, n_tokens, n_right, n_answers = 0.0, 0, 0, 0
        with torch.no_grad():
            for i in range(0, len(items), self.config.micro_batch_size):
                some = items[i : i + self.config.micro_batch_size]
                with self._autocast():
                    losses_N, is_likeliest_N, rows_N = self._losses(some)
                loss, n_tokens = loss + float(losses_N.sum()), n_tokens + len(losses_N)
                n_right += int(is_likeliest_N.sum())
                n_answers += len(some) - len(set(rows_N[~is_likeliest_N].tolist()))
        self.model.train_parts(self.config.stages[self.stage].trains)
        return {
            "held_out_loss": loss / n_tokens,
            "held_out_token_accuracy": n_right / n_tokens,
            "held_out_answer_accuracy": n_answers / len(items),
            "n_held_out": len(items),
        }

    # --- the whole ----------------------------------------------------------------------------------------------------

    def run(self, on_line: OnLine) -> None:
        """All steps that are left, and what each stage leaves; `on_line` hears each line of the curve."""
        timed: dict[str, float] = {}
        while not self.is_done:
            started = time.perf_counter()
            numbers = self.take_step()
            elapsed_s = time.perf_counter() - started
            self.trained_s += elapsed_s
            for key, value in {"s": elapsed_s, "clips": numbers["n_clips"], "tokens": numbers["n_tokens"]}.items():
                timed[key] = timed.get(key, 0.0) + value
            for name in ("loss", "learning_rate", "gradient_norm"):
                self.sums[name] = self.sums.get(name, 0.0) + numbers[name]
            self.n_summed += 1
            is_end = self.step == self.n_steps[self.stage]
            if self.step % self.config.log_every == 0 or is_end:
                self._write(on_line, self._line(timed))
                self.sums, self.n_summed, timed = {}, 0, {}
            if self.prepared.held_out and (self.step % self.config.held_out_every == 0 or is_end):
                self._write(on_line, self.held_out())
            if is_end:
                self._end_stage()
            if self.step % self.config.checkpoint_every == 0 or is_end:
                self.checkpoint()

    def _line(self, timed: Mapping[str, float]) -> dict[str, Any]:
        means = {name: value / self.n_summed for name, value in self.sums.items()}
        speeds = {"clips_per_s": timed["clips"] / timed["s"], "tokens_per_s": timed["tokens"] / timed["s"]}
        return {**means, "n_skipped": self.n_skipped, **speeds, "peak_memory_bytes": peak_memory(self.config.device)}

    def _write(self, on_line: OnLine, numbers: Mapping[str, Any]) -> None:
        stage = self.config.stages[self.stage]
        place = {"step": self.done_steps, "stage": stage.name, "stage_step": self.step}
        line = {**place, "stage_steps": self.n_steps[self.stage], **numbers}
        append_line(self.folder / CURVE, line)
        on_line(line)

    def _end_stage(self) -> None:
        """Leave the stage's weights in a folder of their own, and go on to the next."""
        place = self.folder / f"stage{self.stage + 1}"
        partial = place.with_suffix(".part")
        shutil.rmtree(partial, ignore_errors=True)
        names = ", ".join(stage.name for stage in self.config.stages[: self.stage + 1])
        self.model.save_trained(partial, f"{self.prepared.trained_on} (stages {names})")
        shutil.rmtree(place, ignore_errors=True)
        partial.replace(place)
        self.stage, self.step = self.stage + 1, 0
        self._begin_stage()

    def close(self) -> None:
        """Let the threads go."""
        self.batches.close()


def peak_memory(device: str) -> int:
    """Most bytes so far: live tensors on a GPU; on the CPU all that the process held."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def train_in_stages(
    model: CurriculumModel,
    recipe: CurriculumRecipe,
    config: CurriculumConfig,
    folder: Path,
    data_root: Path | None,
    model_options: Mapping[str, OptionValue],
    on_start: Callable[[StagedTrainer], None],
    on_line: OnLine,
) -> TrainOutcome:
    """Train from where `folder` stands to the end of the last stage.

    Args:
        model_options: what the model was made with, defaults included; part of what identifies the training.
        on_start: hears the trainer as it starts or continues.
        on_line: hears each line of the curve.

    Raises:
        UsageError: the folder belongs to another configuration.
    """
    prepared = recipe.prepare(config, data_root)
    about = {**prepared.about, "model": model.name, "model_options": dict(model_options)}
    claim_folder(folder, config, about)
    if (folder / RECORD).exists():
        return TrainOutcome(folder, read_json(folder / RECORD), already_done=True)
    with locked(folder, "training"):
        trainer = StagedTrainer(model, prepared, config, folder)
        try:
            trainer.resume()
            on_start(trainer)
            trainer.run(on_line)
        finally:
            trainer.close()
        record = _record_of(model, trainer, model_options)
        write_atomically(folder / RECORD, json.dumps(record, indent=2) + "\n")
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return TrainOutcome(folder, record, already_done=False)


def _record_of(
    model: CurriculumModel, trainer: StagedTrainer, model_options: Mapping[str, OptionValue]
) -> dict[str, Any]:
    """What the weights were made from, what could not be learned from, and how the last stage's end was measured."""
    config, prepared = trainer.config, trainer.prepared
    lines = [json.loads(text) for text in (trainer.folder / CURVE).read_text(encoding="utf-8").splitlines()]
    held_out = [line for line in lines if "held_out_loss" in line]
    return {
        "schema_version": 1,
        "model": model.name,
        "model_options": dict(model_options),
        "learned_from": dict(prepared.about),
        "config": asdict(config),
        "stages": [_stage_record(trainer, index, stage) for index, stage in enumerate(config.stages)],
        "trained_s": trainer.trained_s,
        "bad_items": {
            "n_malformed": len(prepared.malformed),
            "malformed": [{"item": item, "reason": reason} for item, reason in prepared.malformed[:20]],
            "n_not_learned_from": len(trainer.batches.bad.reasons),
            "n_times_skipped": trainer.n_skipped,
            "all_in": BAD_ITEMS if trainer.batches.bad.reasons else None,
        },
        "held_out": held_out[-1:],
        "environment": describe_environment(config.device).model_dump(),
    }


def _stage_record(trainer: StagedTrainer, index: int, stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "n_items": len(trainer.prepared.sources[stage.data]),
        "steps": trainer.n_steps[index],
        "trained_parameters": trainer.n_trained[stage.name],
        "weights": f"stage{index + 1}",
    }
