"""What a training in stages will need, before anything of it is there: weights, memory, steps, tokens, hours.

Everything is computed from shapes; nothing is measured but the speed, which the caller gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.curriculum import CurriculumConfig, CurriculumModel, CurriculumRecipe, PreparedCurriculum, Stage
from harness.errors import MissingDataError, UsageError

GIB = 2**30
ASK_FOR_SPEED = "hours: give --speed CLIPS_PER_S"
LEARNING_BYTES = 4  # of a weight that learns, in float32


@dataclass(frozen=True)
class Devices:
    """How many devices train together, and whether they share the frozen weights out (FSDP) or hold them all."""

    count: int = 1
    is_sharded: bool = False

    def held_by_one(self, whole: Mapping[str, int], n_trainable: int) -> dict[str, int]:
        """The bytes of one device, given those of a device that holds everything, by what they are for.

        Of the weights what learns stays whole in each; the block that is just being used, which each holds whole for
        a moment, is not counted.
        """
        if not self.is_sharded:
            return dict(whole)
        learning = LEARNING_BYTES * n_trainable
        frozen = whole["parameters"] - learning
        return {**whole, "parameters": learning + math.ceil(frozen / self.count)}

    def explanation(self, batch_size: int) -> str:
        """In words."""
        share = math.ceil(batch_size / self.count)
        how = f"frozen weights shared out, 1/{self.count} each" if self.is_sharded else "all weights in each"
        return f"{self.count} devices: {share} of a step's {batch_size} items each at most, {how};"


@dataclass(frozen=True)
class StageForecast:
    """One stage. `needs` is what `CurriculumModel.training_needs` says; `n_items` is None where the data is not there.

    `n_tokens` are audio and text positions of all steps at most, every text at its longest.
    """

    stage: Stage
    needs: Mapping[str, Mapping[str, int]]
    n_items: int | None
    n_steps: int
    n_tokens: int
    hours: float | None


def forecast(
    model: CurriculumModel,
    recipe: CurriculumRecipe,
    config: CurriculumConfig,
    data_root: Path | None,
    clips_per_s: float | None,
    devices: Devices = Devices(),
) -> tuple[list[StageForecast], str]:
    """Every stage's needs, and why the data was not counted, "" where it was.

    Args:
        clips_per_s: how many clips a second one device learns from; hours are None without it.

    Raises:
        UsageError: a step has fewer items than there are devices.
    """
    if config.batch_size < devices.count:
        raise UsageError(f"batch_size {config.batch_size} leaves some of {devices.count} devices without items")
    prepared, reason = None, ""
    try:
        prepared = recipe.prepare(config, data_root)
    except MissingDataError as error:
        reason = str(error)
    return [_of_stage(model, config, stage, prepared, clips_per_s, devices) for stage in config.stages], reason


def _of_stage(
    model: CurriculumModel,
    config: CurriculumConfig,
    stage: Stage,
    prepared: PreparedCurriculum | None,
    clips_per_s: float | None,
    devices: Devices,
) -> StageForecast:
    n_items = len(prepared.sources[stage.data]) if prepared else None
    n_steps = stage.published_steps if n_items is None else config.steps_of(stage, n_items)
    n_steps = min(n_steps, config.max_steps or n_steps)
    n_clips = n_steps * config.batch_size
    at_once = min(config.micro_batch_size, math.ceil(config.batch_size / devices.count))
    whole = model.training_needs(stage.trains, at_once, config.max_text_tokens, config.precision, config.recompute)
    needs = {**whole, "bytes": devices.held_by_one(whole["bytes"], sum(whole["trainable"].values()))}
    n_tokens = n_clips * (model.n_audio_tokens() + config.max_text_tokens)
    hours = n_clips / (clips_per_s * devices.count) / 3600 if clips_per_s else None
    return StageForecast(stage, needs, n_items, n_steps, n_tokens, hours)


def forecast_text(
    stages: list[StageForecast],
    reason: str,
    config: CurriculumConfig,
    label: str,
    clips_per_s: float | None,
    devices: Devices = Devices(),
) -> str:
    """The forecast for a reader, each figure with how it came about."""
    parameters = stages[0].needs["parameters"]
    total = sum(parameters.values())
    lines = [f"{label}: {total:,} parameters ({_counts(parameters)})"]
    if reason:
        lines.append(f"steps are those that LTU's authors handed on, not counted from data: {reason}")
    for number, forecast in enumerate(stages, 1):
        lines += _stage_lines(number, forecast)
    lines += _explanations(config, clips_per_s, devices)
    hours = [forecast.hours for forecast in stages if forecast.hours is not None]
    if hours:
        lines.append(f"all stages: {sum(hours):.1f} h")
    return "\n".join(lines)


def _stage_lines(number: int, forecast: StageForecast) -> list[str]:
    stage, needs = forecast.stage, forecast.needs
    n_trainable, held = sum(needs["trainable"].values()), needs["bytes"]
    items = "items not counted" if forecast.n_items is None else f"{forecast.n_items:,} items"
    memory = ", ".join(f"{name} {n_bytes / GIB:.2f}" for name, n_bytes in held.items())
    time = "" if forecast.hours is None else f", {forecast.hours:.1f} h"
    return [
        f"stage {number} ({stage.name}): learns {n_trainable:,} parameters ({_counts(needs['trainable'])})",
        f"  {items}, {forecast.n_steps:,} steps at rate {stage.learning_rate:g}, "
        f"at most {forecast.n_tokens:,} tokens{time}",
        f"  memory of one device: {sum(held.values()) / GIB:.2f} GiB ({memory})",
    ]


def _counts(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{part} {count:,}" for part, count in parts.items())


def _explanations(config: CurriculumConfig, clips_per_s: float | None, devices: Devices) -> list[str]:
    """How the figures came about."""
    many = [] if devices.count == 1 else [devices.explanation(config.batch_size)]
    again = ", inputs of blocks and one block's inside, which is recomputed" if config.recompute else ""
    each = "" if devices.count == 1 else " and device, nothing lost between devices"
    speed = f"hours: at {clips_per_s:g} clips a second{each}, as given" if clips_per_s else ASK_FOR_SPEED
    return [
        *many,
        f"parameters: what learns in float32, the frozen language model in {config.precision}; gradients: 4 bytes for "
        "each that learns; optimiser: AdamW's two moments, 8 bytes for each;",
        f"activations: tensors that torch's autograd keeps of {config.micro_batch_size} clips with texts of "
        f"{config.max_text_tokens} tokens, from shapes{again}; not counted: workspace of kernels, the "
        "allocator's spare, the context of a GPU;",
        f"tokens: audio and text of {config.batch_size} items a step, each text at its longest; {speed}",
    ]
