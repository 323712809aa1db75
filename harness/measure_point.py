"""One point of a scaling curve, measured in the process that calls this; `scaling` gives each point a fresh one.

Passes over the same work, one after another, since each would disturb the others: the first call, peaks of memory by
component, on the CPU the allocator's events, times, energy, and of a training step the operations. Inputs and the
results of formulas are made outside of them. What goes in and out is plain data, as `harness.fresh_process` wants it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.allocator_events import AllocationMeter
from harness.contracts import AudioClip, CostedModel, Meter
from harness.energy import Energy, find_counters, measure_energy
from harness.errors import ModelLimitError, PluginError
from harness.flop_counting import FlopCounter, Place
from harness.fresh_process import WrongNumbers
from harness.memory import MemoryMeter, model_bytes
from harness.memory_probes import probe_for
from harness.noise_bursts import PROMPT, NoiseBursts
from harness.point_summary import PointFacts, PointMemory, PointPlan, PointSamples, Said, Times, summary
from harness.promises import described, load_model
from harness.registry import Created, add_plugin_file, create
from harness.scaling_rows import Measured
from harness.timing import ComponentClock, Stopwatch, Timeline, repeat, wait_for_device

# What a training step learns to say.
ANSWER = "A dog barks and a bell rings."


def measure(**plan: Any) -> dict[str, Any]:
    """Measure one point.

    Args:
        plan: the fields of `PointPlan`.

    Returns:
        `Measured`, as plain data.

    Raises:
        ModelLimitError: the model does not take so long a clip.
        WrongNumbers: a loss that is not finite.
        PluginError: the model cannot be measured, or tells its meter what cannot be.
        CoverageError: an operation of a training step cannot be counted.
    """
    point = PointPlan(**{**plan, "plugins": tuple(plan["plugins"])})
    return measure_point(point).model_dump(mode="json")


def measure_point(plan: PointPlan) -> Measured:
    """Measure one point in this process. Errors are those of `measure`."""
    created = made(plan)
    model: CostedModel = created.value
    clock = Stopwatch(wait=wait_for_device(plan.device))
    clock.start()
    load_model(model, plan.model, plan.device, plan.dtype)
    load_s = clock.stop()
    description = described(model, plan.model)
    if description.max_audio_s is not None and plan.seconds > description.max_audio_s:
        raise ModelLimitError(f"{plan.seconds:g} s of audio; the model takes at most {description.max_audio_s:g} s")
    work = _WorkOfPoint(model, plan, noise_clips(plan, description.sample_rate_hz))
    first_s = work.first_call()
    memory = _measure_memory(work)
    times = _measure_times(work)
    said = Said(work.last_tokens, work.first_tokens == work.last_tokens)
    samples = PointSamples(load_s, first_s, times, memory, _energy(work), said, _counted(work))
    return summary(PointFacts(plan, created, description, model), samples)


def made(plan: PointPlan) -> Created:
    """The model, with plugin files known.

    Raises:
        PluginError: it does not tell its cost.
    """
    for file in plan.plugins:
        add_plugin_file(Path(file))
    created = create("models", plan.model, plan.options)
    if not isinstance(created.value, CostedModel):
        raise PluginError(f"The model '{plan.model}' does not tell its cost: it lacks answer_metered, work or more.")
    return created


def noise_clips(plan: PointPlan, sample_rate_hz: int) -> list[AudioClip]:
    """One clip for each place in the batch, all different; long ones are read while they are heard."""
    return [NoiseBursts(plan.seconds, plan.seed + index).heard_as(sample_rate_hz) for index in range(plan.batch_size)]


class _WorkOfPoint:
    """The work of a point, to be done again and again with whatever meter, and what it said each time."""

    def __init__(self, model: CostedModel, plan: PointPlan, clips: Sequence[AudioClip]) -> None:
        self.model = model
        self.plan = plan
        self.clips = clips
        self.wait = wait_for_device(plan.device)
        self.first_tokens: str | None = None
        self.last_tokens: str | None = None

    def run(self, meter: Meter) -> None:
        """Once."""
        if self.plan.step == "train":
            loss = self.model.train_step(self.clips, PROMPT, ANSWER, meter)
            if not math.isfinite(loss):
                raise WrongNumbers(f"the loss is {loss}")
            return
        said = self.model.answer_metered(self.clips, PROMPT, self.plan.n_tokens, meter)
        counts = {len(ids) for ids in said}
        if len(said) != len(self.clips) or counts != {self.plan.n_tokens}:
            raise PluginError(
                f"The model gave {sorted(counts)} tokens to {len(said)} clips instead of {self.plan.n_tokens} to "
                f"{len(self.clips)}."
            )
        ids = [[int(token) for token in one] for one in said]
        self.last_tokens = hashlib.sha256(json.dumps(ids).encode()).hexdigest()

    def first_call(self) -> float:
        """Seconds of the first time: compilers, caches and allocators have their turn here."""
        timeline = self.timed(ComponentClock(wait=self.wait))
        self.first_tokens = self.last_tokens
        return timeline.total_s

    def timed(self, clock: ComponentClock) -> Timeline:
        """Once, on a clock.

        Raises:
            PluginError: the model told more or fewer tokens than it gave.
        """
        clock.start()
        self.run(clock)
        timeline = clock.stop()
        n_told, n = len(timeline.token_s), self.plan.n_tokens
        # A batch may tell one token for each step, or one for each clip.
        if self.plan.step == "infer" and n_told not in (n, n * self.plan.batch_size):
            raise PluginError(f"The model told its meter of {n_told} tokens where it gave {n} a clip.")
        return timeline


def _measure_memory(work: _WorkOfPoint) -> PointMemory:
    """The model's bytes, and peaks by component: by the probe in one pass, of the CPU's allocator in another."""
    n_model_bytes, n_steps = model_bytes(work.plan.device), work.plan.n_tokens
    meter = MemoryMeter(probe_for(work.plan.device, n_model_bytes))
    work.run(meter)
    work.wait()
    use = meter.stop(n_steps)
    if work.plan.device == "cpu":
        with AllocationMeter(n_model_bytes) as allocations:
            work.run(allocations)
        use = use.joined_with(allocations.use(n_steps))
    return PointMemory(n_model_bytes, use)


def _measure_times(work: _WorkOfPoint) -> Times:
    if not work.plan.device.startswith("cuda"):
        whole = repeat(lambda: work.timed(ComponentClock(wait=work.wait)), work.plan.rule)
        return Times(whole, whole, ())
    device_s: list[float] = []

    def run() -> Timeline:
        timeline, seconds = _timed_by_events(work)
        device_s.append(seconds)
        return timeline

    whole = repeat(run, work.plan.rule)
    split = repeat(lambda: work.timed(ComponentClock(wait=work.wait)), work.plan.rule)
    return Times(whole, split, tuple(device_s))


def _counted(work: _WorkOfPoint) -> dict[Place, int] | None:
    """Operations of a training step as they run, by component; None for an answer, whose formulas tell them.

    Raises:
        CoverageError: one that must be counted cannot be.
    """
    if work.plan.step != "train":
        return None
    with FlopCounter() as counter:
        work.run(counter)
    count = counter.count()
    count.require_coverage()
    return {place: count.flops(place) for place in count.parts} or None


def _timed_by_events(work: _WorkOfPoint) -> tuple[Timeline, float]:
    """Once, by the host's clock and by the device's own, which have to agree: idle moments are in both."""
    import torch

    with torch.cuda.device(work.plan.device):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        timeline = work.timed(ComponentClock(wait=work.wait, splits=False))
        end.record()
        end.synchronize()
        return timeline, begin.elapsed_time(end) / 1e3


def _energy(work: _WorkOfPoint) -> tuple[Energy | None, dict[str, str]]:
    """Joules of one run, where a counter can be read; and why the others cannot."""
    counters = find_counters(work.plan.device)
    if not counters.joules:
        return None, dict(counters.reasons)
    clock = ComponentClock(wait=work.wait, splits=False)
    return measure_energy(lambda: work.timed(clock), counters.joules), dict(counters.reasons)
