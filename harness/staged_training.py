"""The loop of a training in stages: one model, one stage after another, resumable to the step.

The folder of a run holds

    config.json        what was asked for, written first; a folder of another configuration is refused
    curve.jsonl        a line every `log_every` steps, and one for each time that the held-out items were asked
    bad_items.jsonl    each item that could not be learned from, once, with the reason
    checkpoint.pt      what learns, its optimiser and the step; written anew, then renamed
    stage1, stage2, .. what each stage left: folders that the model's option `weights` reads
    record.json        what was learned from, versions, machine and times, written last

Several processes take a step together: each learns from its share of the step's items, and they add up how many tokens
count, before the backward pass, and gradients and losses after it. So a step is that of one process with the same
items, but for rounding and for what is dropped at random. The main process writes all of the folder.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from harness.contracts import OptionValue
from harness.curriculum import (
    CurriculumConfig,
    CurriculumModel,
    CurriculumRecipe,
    Part,
    PreparedCurriculum,
    Stage,
    linear_rate,
)
from harness.curve import CURVE, StepSums, Stopwatch, append_line, cut_curve, seed_step
from harness.environment import describe_environment
from harness.errors import RecordError, UsageError
from harness.lesson_batches import LessonBatches, Taught
from harness.processes import ALONE, Processes, ProcessesError
from harness.record_files import write_atomically
from harness.run_folder import locked
from harness.sharding import is_asked_for, shard_frozen_blocks
from harness.training import (
    CHECKPOINT,
    CONFIG,
    RECORD,
    TrainOutcome,
    claim_folder,
    parameter_groups,
    read_json,
    write_checkpoint,
)

BAD_ITEMS = "bad_items.jsonl"
NOT_FINITE = "not_finite.json"
OnLine = Callable[[Mapping[str, Any]], None]


class StagedTrainer:
    """The state of one training run.

    `stage` and `step` say what comes next: the step is counted from 0 in each stage. `sums` gathers the next line of
    the curve, and `watch` counts the seconds of steps.
    """

    def __init__(
        self,
        model: CurriculumModel,
        prepared: PreparedCurriculum,
        config: CurriculumConfig,
        folder: Path,
        processes: Processes = ALONE,
        is_sharded: bool = False,
    ) -> None:
        """The network as it starts.

        Args:
            processes: this one among those that train together.
            is_sharded: whether they share the frozen language model's weights out among them.

        Raises:
            UsageError: a step has fewer items than there are processes; or what `LessonBatches` and
                `shard_frozen_blocks` refuse.
        """
        import torch

        if config.batch_size < processes.count:
            raise UsageError(f"batch_size {config.batch_size} leaves some of {processes.count} processes without items")
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.model, self.prepared, self.config, self.folder = model, prepared, config, folder
        self.processes, self.is_sharded = processes, is_sharded
        self.network: Any = model.start_stages(config.lora_dropout, config.precision, config.recompute, config.device)
        self.n_steps = [config.steps_of(stage, len(prepared.sources[stage.data])) for stage in config.stages]
        self.n_trained = {stage.name: dict(model.train_parts(stage.trains)) for stage in config.stages}
        self.learners = self._learners()
        if is_sharded:
            model.train_parts(get_args(Part))  # so that nothing is shared out that a later training trains
            shard_frozen_blocks(self.network, processes)
        self.batches = LessonBatches(model, prepared, config, folder / BAD_ITEMS, processes)
        self.stage = self.step = self.n_skipped = 0
        self.sums, self.watch = StepSums(), Stopwatch()
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
        """Go back to the last checkpoint, if there is one; returns how many steps were taken.

        Raises:
            ProcessesError: not every process found the same checkpoint.
        """
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
            self.sums.load(state)
            self.watch.trained_s = state["trained_s"]
        if len(set(self.processes.gather(self.done_steps))) > 1:
            raise ProcessesError(f"the processes do not see the same {path}: they need one file system")
        self.processes.copy_from_main(self.network.get_parameter(name).data for name in self.learners)
        if self.processes.is_main:
            cut_curve(self.folder / CURVE, self.done_steps)
        return self.done_steps

    def checkpoint(self) -> None:
        """Save everything that the next step depends on."""
        if not self.processes.is_main:
            return
        learned = {name: self.network.get_parameter(name).detach() for name in self.learners}
        state = {
            "learned": learned,
            # A stage begins with an optimiser that remembers nothing.
            "optimiser": self.optimiser.state_dict() if self.step else None,
            "stage": self.stage,
            "step": self.step,
            "n_skipped": self.n_skipped,
            "trained_s": self.watch.trained_s,
            **self.sums.state(),
        }
        write_checkpoint(self.folder, state)

    # --- steps --------------------------------------------------------------------------------------------------------

    def take_step(self) -> dict[str, float]:
        """One batch, some items at a time, into the weights; returns the step's numbers, of all processes.

        Raises:
            RecordError: no item of the step could be learned from; or a loss or the gradient is not finite, and the
                message names the items. The weights are as before, and every process raises it.
        """
        import torch

        seed_step(self.config.seed, self.done_steps, self.processes.rank)
        stage = self.config.stages[self.stage]
        batch = self.batches.of_step(stage, self.step, self.n_steps[self.stage])
        n_items, n_counted, n_tokens = self._totals(batch)
        rate = linear_rate(stage.learning_rate, self.step, self.n_steps[self.stage], self.config.warmup_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._learn(batch, n_counted)
        learning = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.processes.add_gradients(learning)
        norm = float(torch.nn.utils.clip_grad_norm_(learning, self.config.gradient_clip))
        if not norm < float("inf"):
            raise self._not_finite(f"the gradient's norm is {norm}", batch)
        self.optimiser.step()
        self.step += 1
        self.n_skipped += self.config.batch_size - round(n_items)
        return {
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": norm,
            "n_clips": n_items,
            "n_tokens": n_items * self.model.n_audio_tokens() + n_tokens,
        }

    def _totals(self, batch: Sequence[Taught]) -> list[float]:
        """Of all processes' items: how many there are, their tokens that count, and all tokens of their texts.

        Raises:
            RecordError: there is none; the message has the last reasons.
        """
        counted, tokens = (sum(taught.n_counted for taught in batch), sum(len(taught.tokens) for taught in batch))
        totals = self.processes.sums([len(batch), counted, tokens])
        self.batches.bad.hand_over(self.processes)
        if not totals[0]:
            reasons = "; ".join(list(self.batches.bad.reasons.values())[-2:])
            stage = self.config.stages[self.stage].name
            raise RecordError(f"no item of step {self.step} of stage {stage} can be learned from: {reasons}")
        return totals

    def _learn(self, batch: Sequence[Taught], n_counted: float) -> float:
        """Gradients of this process's share in the step's mean loss; returns the loss of all.

        Raises:
            RecordError: it is not finite in one of the processes.
        """
        loss, bad, what = 0.0, list[Taught](), ""
        for some, weight in self._micro_batches(batch):
            with self._autocast():
                losses_N, _, _ = self._losses(some)
                share = weight * losses_N.sum() / n_counted
            value = float(share.detach())
            if not math.isfinite(value) and not bad:
                bad, what = list(some), f"the loss is {value}"
            loss += value
            share.backward()
        whole, n_bad = self.processes.sums([loss, float(bool(bad))])
        if n_bad:
            raise self._not_finite(next(filter(None, self.processes.gather(what))), bad)
        return whole

    def _micro_batches(self, items: Sequence[Taught]) -> Iterator[tuple[Sequence[Taught], float]]:
        """Some items at a time, and what their losses count.

        Where weights are shared out every process has as many: those that run out of items go on with silence, for
        nothing.
        """
        size = self.config.micro_batch_size
        n_own = -(-len(items) // size)
        # Asked before the first of them: from then on a process must do nothing but what all do.
        n_all = round(self.processes.largest(n_own)) if self.is_sharded else n_own
        for start in range(0, len(items), size):
            yield items[start : start + size], 1.0
        for _ in range(n_own, n_all):
            yield [self.batches.filler()], 0.0

    def _losses(self, some: Sequence[Taught]) -> tuple[Any, Any, Any]:
        import numpy as np

        heard = np.stack([taught.features for taught in some])
        return self.model.text_losses(heard, [t.tokens for t in some], [t.start for t in some])

    def _autocast(self) -> Any:
        import torch

        kind = self.config.device.split(":")[0]
        return torch.autocast(kind, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _not_finite(self, what: str, items: Sequence[Taught]) -> RecordError:
        """The error, with all processes' items in a file and the first of them in the message."""
        own = [{"item": taught.lesson.item, "audio": str(taught.lesson.audio)} for taught in items]
        named = [entry for entries in self.processes.gather(own) for entry in entries]
        where = {"stage": self.config.stages[self.stage].name, "step": self.step, "what": what}
        path = self.folder / NOT_FINITE
        if self.processes.is_main:
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
        says it word for word. Empty where no item can be heard, which `bad_items.jsonl` tells.
        """
        import torch

        items = self.batches.ready(self.processes.share(self.prepared.held_out), from_prompt=False)
        self.network.eval()
        loss, n_tokens, n_right, n_answers = 0.0, 0.0, 0, 0
        with torch.no_grad():
            for some, weight in self._micro_batches(items):
                with self._autocast():
                    losses_N, is_likeliest_N, rows_N = self._losses(some)
                if weight:
                    loss, n_tokens = loss + float(losses_N.sum()), n_tokens + len(losses_N)
                    n_right += int(is_likeliest_N.sum())
                    n_answers += len(some) - len(set(rows_N[~is_likeliest_N].tolist()))
        self.model.train_parts(self.config.stages[self.stage].trains)
        loss, n_tokens, right, answers, n_items = self.processes.sums([loss, n_tokens, n_right, n_answers, len(items)])
        self.batches.bad.hand_over(self.processes)
        if not n_tokens:
            return {}
        return {
            "held_out_loss": loss / n_tokens,
            "held_out_token_accuracy": right / n_tokens,
            "held_out_answer_accuracy": answers / n_items,
            "n_held_out": round(n_items),
        }

    # --- the whole ----------------------------------------------------------------------------------------------------

    def run(self, on_line: OnLine) -> None:
        """All steps that are left, and what each stage leaves; `on_line` hears each line of the curve."""
        counts = {"clips": 0.0, "tokens": 0.0}  # of this session's steps since the last line
        while not self.is_done:
            started = time.perf_counter()
            numbers = self.take_step()
            self.watch.add(time.perf_counter() - started)
            self.sums.add({name: numbers[name] for name in ("loss", "learning_rate", "gradient_norm")})
            counts = {what: count + numbers[f"n_{what}"] for what, count in counts.items()}
            is_end = self.step == self.n_steps[self.stage]
            if self.step % self.config.log_every == 0 or is_end:
                self._write(on_line, self._line(counts))
                counts = dict.fromkeys(counts, 0.0)
            if self.prepared.held_out and (self.step % self.config.held_out_every == 0 or is_end):
                self._write(on_line, self.held_out())
            if is_end:
                self._end_stage()
            if self.step % self.config.checkpoint_every == 0 or is_end:
                self.checkpoint()

    def _line(self, counts: Mapping[str, float]) -> dict[str, Any]:
        line_s = self.watch.take()
        speeds = {f"{what}_per_s": count / line_s for what, count in counts.items()}
        means, peak = self.sums.take(), self.processes.largest(peak_memory(self.config.device))
        return {**means, "n_skipped": self.n_skipped, **speeds, "peak_memory_bytes": round(peak)}

    def _write(self, on_line: OnLine, numbers: Mapping[str, Any]) -> None:
        if not (self.processes.is_main and numbers):
            return
        stage = self.config.stages[self.stage]
        place = {"step": self.done_steps, "stage": stage.name, "stage_step": self.step}
        line = {**place, "stage_steps": self.n_steps[self.stage], **numbers}
        append_line(self.folder / CURVE, line)
        on_line(line)

    def _end_stage(self) -> None:
        """Leave the stage's weights in a folder of their own, and go on to the next."""
        if self.processes.is_main:
            self._save_stage()
        self.stage, self.step = self.stage + 1, 0
        self._begin_stage()

    def _save_stage(self) -> None:
        place = self.folder / f"stage{self.stage + 1}"
        partial = place.with_suffix(".part")
        shutil.rmtree(partial, ignore_errors=True)
        names = ", ".join(stage.name for stage in self.config.stages[: self.stage + 1])
        self.model.save_trained(partial, f"{self.prepared.trained_on} (stages {names})")
        shutil.rmtree(place, ignore_errors=True)
        partial.replace(place)

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
    processes: Processes = ALONE,
) -> TrainOutcome | None:
    """Train from where `folder` stands to the end of the last stage; None for all processes but the main one.

    Args:
        model_options: what the model was made with, defaults included; part of what identifies the training.
        on_start: hears the trainer as it starts or continues, in the main process alone.
        on_line: hears each line of the curve, likewise.
        processes: this one among those that train together.

    Raises:
        UsageError: the folder belongs to another configuration, or the processes do not share a file system.
    """
    is_sharded = _is_sharded(processes, model_options)
    prepared = recipe.prepare(config, data_root)
    about = {**prepared.about, "model": model.name, "model_options": dict(model_options)}
    with processes.main_first():
        if not processes.is_main and not (folder / CONFIG).exists():
            raise UsageError(f"process {processes.rank} does not see {folder}: all need one file system")
        claim_folder(folder, config, about)
    if (folder / RECORD).exists():
        return TrainOutcome(folder, read_json(folder / RECORD), already_done=True) if processes.is_main else None
    with _locked_by_main(folder, processes):
        trainer = StagedTrainer(model, prepared, config, folder, processes, is_sharded)
        try:
            trainer.resume()
            if processes.is_main:
                on_start(trainer)
            trainer.run(on_line)
        finally:
            trainer.close()
        if not processes.is_main:
            return None
        record = _record_of(model, trainer, model_options)
        write_atomically(folder / RECORD, json.dumps(record, indent=2) + "\n")
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return TrainOutcome(folder, record, already_done=False)


def _is_sharded(processes: Processes, model_options: Mapping[str, OptionValue]) -> bool:
    """Whether frozen weights are shared out; what a stage leaves must not have to hold them then."""
    if processes.is_alone or not is_asked_for():
        return False
    if not model_options.get("lm"):
        raise UsageError("FSDP shares out the weights of a language model in a folder of its own: -m lm=FOLDER")
    return True


def _locked_by_main(folder: Path, processes: Processes) -> AbstractContextManager[None]:
    return locked(folder, "training") if processes.is_main else nullcontext()


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
        "trained_s": trainer.watch.trained_s,
        "n_processes": trainer.processes.count,
        "is_sharded": trainer.is_sharded,
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
