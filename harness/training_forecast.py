"""What a training in stages will need, before anything of it is there: weights, memory, steps, tokens, hours.

Everything is computed from shapes; nothing is measured but the speed, which the caller gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.curriculum import CurriculumConfig, CurriculumModel, CurriculumRecipe, PreparedCurriculum, Stage
from harness.errors import MissingDataError

GIB = 2**30


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
) -> tuple[list[StageForecast], str]:
    """Every stage's needs, and why the data was not counted, "" where it was.

    Args:
        clips_per_s: how many clips a second a machine learns from; hours are None without it.
    """
    prepared, reason = None, ""
    try:
        prepared = recipe.prepare(config, data_root)
    except MissingDataError as error:
        reason = str(error)
    return [_of_stage(model, config, stage, prepared, clips_per_s) for stage in config.stages], reason


def _of_stage(
    model: CurriculumModel,
    config: CurriculumConfig,
    stage: Stage,
    prepared: PreparedCurriculum | None,
    clips_per_s: float | None,
) -> StageForecast:
    n_items = len(prepared.sources[stage.data]) if prepared else None
    n_steps = stage.published_steps if n_items is None else config.steps_of(stage, n_items)
    n_steps = min(n_steps, config.max_steps or n_steps)
    n_clips = n_steps * config.batch_size
    at_once = min(config.micro_batch_size, config.batch_size)
    needs = model.training_needs(stage.trains, at_once, config.max_text_tokens, config.precision, config.recompute)
    n_tokens = n_clips * (model.n_audio_tokens() + config.max_text_tokens)
    return StageForecast(
        stage, needs, n_items, n_steps, n_tokens, n_clips / clips_per_s / 3600 if clips_per_s else None
    )


def forecast_text(
    stages: list[StageForecast], reason: str, config: CurriculumConfig, label: str, clips_per_s: float | None
) -> str:
    """The forecast for a reader, each figure with how it came about."""
    parameters = stages[0].needs["parameters"]
    total = sum(parameters.values())
    lines = [f"{label}: {total:,} parameters ({_counts(parameters)})"]
    if reason:
        lines.append(f"steps are those that LTU's authors handed on, not counted from data: {reason}")
    for number, forecast in enumerate(stages, 1):
        lines += _stage_lines(number, forecast)
    lines += _explanations(config, clips_per_s)
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


def _explanations(config: CurriculumConfig, clips_per_s: float | None) -> list[str]:
    """How the figures came about."""
    again = ", inputs of blocks and one block's inside, which is recomputed" if config.recompute else ""
    speed = f"hours: at {clips_per_s:g} clips a second, as given" if clips_per_s else "hours: give --speed CLIPS_PER_S"
    return [
        f"parameters: what learns in float32, the frozen language model in {config.precision}; gradients: 4 bytes for "
        "each that learns; optimiser: AdamW's two moments, 8 bytes for each;",
        f"activations: tensors that torch's autograd keeps of {config.micro_batch_size} clips with texts of "
        f"{config.max_text_tokens} tokens, from shapes{again}; not counted: workspace of kernels, the "
        "allocator's spare, the context of a GPU;",
        f"tokens: audio and text of {config.batch_size} items a step, each text at its longest; {speed}",
    ]
