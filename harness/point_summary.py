"""From the samples of one point to its row: medians, rates, and the formulas beside them. Nothing is measured here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from harness.contracts import Component, CostedModel, ModelDescription, OptionValue, Work
from harness.energy import Energy
from harness.length_policies import named_cut_s
from harness.memory import COMPONENTS, MemoryUse, Peaks
from harness.noise_bursts import PROMPT
from harness.records import ModelRow
from harness.registry import Created
from harness.scaling_rows import (
    ComponentRow,
    EnergyRow,
    Measured,
    MemoryRow,
    PeakRow,
    SamplesRow,
    SpreadRow,
    StateRow,
    Step,
    WorkRow,
)
from harness.timing import Repeats, Spread, StopRule

TRAIN_HAS_NO_FORMULA = "the formulas are of answering; of a training step operations are counted as they run"


@dataclass(frozen=True)
class PointPlan:
    """What to measure, in types that JSON has. `plugins` are files that hold the model where it is not built in.

    `half_width`, `least_s` and `most_s` are those of `harness.timing.StopRule`.
    """

    model: str
    options: Mapping[str, OptionValue]
    plugins: tuple[str, ...]
    step: Step
    seconds: float
    batch_size: int
    device: str
    dtype: str
    n_tokens: int
    half_width: float
    least_s: float
    most_s: float
    seed: int

    @property
    def rule(self) -> StopRule:
        """When a time was measured often enough."""
        return StopRule(half_width=self.half_width, least_s=self.least_s, most_s=self.most_s)


@dataclass(frozen=True)
class Times:
    """The pass that counts, its device times, and the pass that splits: the same one where nothing works on its own."""

    whole: Repeats
    split: Repeats
    device_s: tuple[float, ...]


@dataclass(frozen=True)
class PointMemory:
    """The model's bytes, None without torch, and what the work used."""

    model_bytes: int | None
    use: MemoryUse


@dataclass(frozen=True)
class Said:
    """Hash of the token ids of the timed run, None where there are none; and whether the first call said the same."""

    tokens_sha256: str | None
    is_alike: bool


@dataclass(frozen=True)
class PointSamples:
    """Everything that was measured. `energy` comes with the reasons why a counter cannot be read.

    `counted` are operations by component, None where formulas tell them or nothing was counted.
    """

    load_s: float
    first_call_s: float
    times: Times
    memory: PointMemory
    energy: tuple[Energy | None, Mapping[str, str]]
    said: Said
    counted: Mapping[Component | Literal["outside"], int] | None


@dataclass(frozen=True)
class PointFacts:
    """What was measured on: the plan, and the loaded model, which still knows its formulas."""

    plan: PointPlan
    created: Created
    description: ModelDescription
    model: CostedModel


def summary(facts: PointFacts, measured: PointSamples) -> Measured:
    """The row of a point."""
    plan, samples = facts.plan, _samples_row(facts.plan, measured.times)
    total = Spread.of(samples.total_s)
    formulas = _formulas(facts)
    whole = sum_of_work(formulas.values()) if formulas else None
    n_flops = whole.flops if whole else sum((measured.counted or {}).values())
    is_answer = plan.step == "infer"
    return Measured(
        description=model_row(facts.created, facts.description),
        kernels=dict(facts.description.kernels),
        load_s=measured.load_s,
        first_call_s=measured.first_call_s,
        total=_spread_row(samples.total_s),
        first_token=_spread_row_or_none(samples.first_token_s),
        per_token=_spread_row_or_none(samples.per_token_s),
        prefill=_spread_row_or_none(samples.component_s.get("prefill", ())) if is_answer else None,
        device_time=_spread_row_or_none(samples.device_s),
        noise=noise_text(plan.device, measured.times.whole.complaint, samples.cpu_s),
        real_time_factor=total.median / (plan.seconds * plan.batch_size),
        clips_per_s=plan.batch_size / total.median,
        answer_tokens_per_s=plan.batch_size * plan.n_tokens / total.median if is_answer else None,
        work=_work_row(whole),
        work_missing="" if whole else TRAIN_HAS_NO_FORMULA,
        flops_per_s=n_flops / total.median if n_flops else None,
        memory=_memory_row(measured.memory),
        components=_component_rows(samples, formulas, measured.memory.use.components),
        state=_state(facts, measured.memory.use),
        energy=_energy_row(*measured.energy),
        energy_missing="; ".join(f"{name}: {why}" for name, why in measured.energy[1].items()),
        tokens_sha256=measured.said.tokens_sha256,
        tokens_alike=measured.said.is_alike if is_answer else None,
        samples=samples,
        counted=None if measured.counted is None else dict(measured.counted),
    )


def noise_text(device: str, complaint: str, cpu_s: Sequence[float]) -> str:
    """What the times lack; and, where only the CPU works, how steady the processor time was: if it was, others came in.

    Processor time is no measure of what a user waits for, so that it never makes a point less noisy.
    """
    width = Spread.of(cpu_s).relative_half_width if cpu_s else math.inf
    if not complaint or device != "cpu" or math.isinf(width):
        return complaint
    return f"{complaint}; of processor time {100 * width:.1f} %"


def _formulas(facts: PointFacts) -> Mapping[Component, Work]:
    plan = facts.plan
    if plan.step == "train":
        return {}
    n_samples = max(1, round(plan.seconds * facts.description.sample_rate_hz))
    return facts.model.work(n_samples, PROMPT, plan.n_tokens, plan.batch_size)


def _samples_row(plan: PointPlan, times: Times) -> SamplesRow:
    whole, split = times.whole.timelines, times.split.timelines
    firsts = [t.first_token_s for t in whole if t.first_token_s is not None]
    later = [t.per_token_s(plan.n_tokens) for t in whole]
    named = [c for c in COMPONENTS if any(c in t.component_s for t in split)]
    return SamplesRow(
        total_s=tuple(t.total_s for t in whole),
        first_token_s=tuple(firsts),
        per_token_s=tuple(s for s in later if s is not None),
        component_s={c: tuple(t.component_s.get(c, 0.0) for t in split) for c in named},
        device_s=times.device_s,
        token_s=whole[-1].token_s,
        cpu_s=tuple(t.cpu_s for t in whole if t.cpu_s is not None),
    )


def _memory_row(memory: PointMemory) -> MemoryRow:
    use = memory.use
    return MemoryRow(
        model=memory.model_bytes, peak=PeakRow(**asdict(use.total)), base=use.base, reasons=dict(use.reasons)
    )


def _component_rows(
    samples: SamplesRow, formulas: Mapping[Component, Work], peaks: Mapping[Component, Peaks]
) -> tuple[ComponentRow, ...]:
    times = samples.component_s
    known = [c for c in COMPONENTS if c in times or c in formulas or c in peaks]
    return tuple(_component_row(c, times.get(c, ()), formulas.get(c), peaks.get(c)) for c in known)


def _component_row(name: Component, seconds: Sequence[float], work: Work | None, peak: Peaks | None) -> ComponentRow:
    spread = _spread_row_or_none(seconds)
    return ComponentRow(
        component=name,
        seconds=spread,
        work=_work_row(work),
        flops_per_s=work.flops / spread.median if work and spread and spread.median > 0 else None,
        peak=None if peak is None else PeakRow(**asdict(peak)),
    )


def _state(facts: PointFacts, use: MemoryUse) -> StateRow:
    rate, plan = facts.description.audio_tokens_per_s, facts.plan
    growth = None if use.growth_per_token is None else use.growth_per_token / plan.batch_size
    if rate is None:
        return StateRow(
            n_tokens=None,
            growing=None,
            constant=None,
            formula_growth_per_token=None,
            measured_growth_per_token=growth,
        )
    # What a policy cuts off by its name never reaches the language model.
    cut_s = named_cut_s(facts.description.length_policy)
    n_tokens = round(rate * min(plan.seconds, cut_s or plan.seconds))
    now, next_one = facts.model.state_bytes(n_tokens), facts.model.state_bytes(n_tokens + 1)
    return StateRow(
        n_tokens=n_tokens,
        growing=now.growing,
        constant=now.constant,
        formula_growth_per_token=next_one.growing - now.growing,
        measured_growth_per_token=growth,
    )


def _energy_row(energy: Energy | None, reasons: Mapping[str, str]) -> EnergyRow | None:
    return None if energy is None else EnergyRow(**asdict(energy), reasons=dict(reasons))


def model_row(created: Created, description: ModelDescription) -> ModelRow:
    """The model as it describes itself, with the options that made it."""
    return ModelRow.model_validate(
        {
            **asdict(description),
            "options_passed": dict(created.options_passed),
            "options_resolved": dict(created.options_resolved),
            "plugin": created.source.name if created.source is not None else None,
        }
    )


def sum_of_work(parts: Iterable[Work]) -> Work:
    """Operations of several components together."""
    works = list(parts)
    split: dict[str, int] = {}
    for work in works:
        for name, flops in work.parts.items():
            split[name] = split.get(name, 0) + flops
    return Work(sum(w.flops for w in works), sum(w.macs for w in works), sum(w.other for w in works), split)


def _work_row(work: Work | None) -> WorkRow | None:
    return None if work is None else WorkRow(**{**asdict(work), "parts": dict(work.parts)})


def _spread_row(samples: Sequence[float]) -> SpreadRow:
    return SpreadRow(**asdict(Spread.of(samples)))


def _spread_row_or_none(samples: Sequence[float]) -> SpreadRow | None:
    return _spread_row(samples) if samples else None
