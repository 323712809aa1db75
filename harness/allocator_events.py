"""What is live in torch's CPU allocator at its peak: its allocations and releases, as torch's profiler reports them.

The profiler slows the work down and takes memory of its own, so that this needs a pass for itself. It sees tensors
alone: what numpy or a library allocates by other ways is in the process's numbers and not in these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.contracts import Component
from harness.memory import COMPONENTS, MemoryUse, Peaks, growth_per_token

_MARK = "lalm-harness:"
_TOKEN = "token"


class AllocationMeter:
    """A `Meter` for a pass under torch's profiler: what is live in torch's CPU allocator at its peak.

    Use: `with AllocationMeter(model_bytes) as meter: run(meter)`, then `meter.use(n_steps)`.
    """

    def __init__(self, n_model_bytes: int | None) -> None:
        self._base = n_model_bytes
        self._profile: Any = None

    def __enter__(self) -> AllocationMeter:
        if self._base is not None:
            from torch.profiler import ProfilerActivity, profile

            self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self._profile.__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        if self._profile is not None:
            self._profile.__exit__(*problem)

    def enter(self, component: Component) -> None:
        """Mark the change among the profiler's events."""
        self._mark(component)

    def token(self) -> None:
        """Mark one more token."""
        self._mark(_TOKEN)

    def use(self, n_steps: int) -> MemoryUse:
        """What was live, from the events; the work had `n_steps` tokens a clip."""
        if self._profile is None or self._base is None:
            return MemoryUse(Peaks(), {}, reasons={"allocated": "the model does not use torch"})
        return live_bytes(_events(self._profile), self._base, n_steps)

    def _mark(self, name: str) -> None:
        if self._profile is not None:
            from torch.profiler import record_function

            with record_function(_MARK + name):
                pass


@dataclass(frozen=True)
class AllocatorEvent:
    """Either `n_bytes` more (or fewer) in use, or a mark: a component that begins, or "token"."""

    n_bytes: int = 0
    mark: str = ""


def live_bytes(events: Sequence[AllocatorEvent], base: int, n_steps: int) -> MemoryUse:
    """Follow allocations in the order of time: the highest sum, overall and by component, above `base` bytes."""
    live = highest = base
    current: Component | None = None
    components: dict[Component, int] = {}
    at_tokens: list[int] = []
    by_name: Mapping[str, Component] = {name: name for name in COMPONENTS}
    for event in events:
        live += event.n_bytes
        if event.mark == _TOKEN:
            at_tokens.append(live)
        elif event.mark:
            current = by_name[event.mark]
        highest = max(highest, live)
        if current is not None:
            components[current] = max(components.get(current, live), live)
    peaks = {component: Peaks(allocated=value) for component, value in components.items()}
    return MemoryUse(Peaks(allocated=highest), peaks, growth_per_token(at_tokens, n_steps))


def _events(profile: Any) -> list[AllocatorEvent]:
    """Allocations and marks in the order of time."""
    found: list[tuple[int, AllocatorEvent]] = []
    for event in profile.profiler.kineto_results.events():
        name = event.name()
        if name == "[memory]":
            found.append((event.start_ns(), AllocatorEvent(n_bytes=event.nbytes())))
        elif name.startswith(_MARK):
            found.append((event.start_ns(), AllocatorEvent(mark=name.removeprefix(_MARK))))
    return [event for _, event in sorted(found, key=lambda pair: pair[0])]
