"""Five memory numbers of a piece of work, by component; none can stand for another.

1. model: parameters and buffers of the networks in memory, exactly.
2. peak allocated: live tensors at their peak, the model's among them: the number of the architecture.
3. peak reserved: what the allocator held of the system at its peak: the number that decides whether it fits.
4. process: all that the process held at its peak: interpreter and libraries, or on a GPU the context, besides.
5. device: all that was in use of the device, by anyone.

Where they are read: `harness.memory_probes`, and number 2 on the CPU `harness.allocator_events`.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from harness.contracts import Component

COMPONENTS: tuple[Component, ...] = ("front_end", "encoder", "connector", "prefill", "decode")


@dataclass(frozen=True)
class Peaks:
    """Numbers 2 to 5, in bytes; None where one cannot be had."""

    allocated: int | None = None
    reserved: int | None = None
    process: int | None = None
    device: int | None = None

    def highest_with(self, other: Peaks) -> Peaks:
        """The higher of both, number by number."""
        pairs = ((vars(self)[name], vars(other)[name]) for name in vars(self))
        return Peaks(*(max((n for n in pair if n is not None), default=None) for pair in pairs))


@dataclass(frozen=True)
class MemoryUse:
    """Peaks of a piece of work, as a whole and by component.

    `growth_per_token` is how many bytes more are live after each answer token, in the long run.
    `base` is what was held before the work: by the process, or on CUDA by live tensors. `reasons` say why a
    number is None.
    """

    total: Peaks
    components: Mapping[Component, Peaks]
    growth_per_token: float | None = None
    base: int | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def joined_with(self, other: MemoryUse) -> MemoryUse:
        """Two passes over the same work as one; `other` has what this one could not see."""
        names = [name for name in COMPONENTS if name in self.components or name in other.components]
        parts = {n: self.components.get(n, Peaks()).highest_with(other.components.get(n, Peaks())) for n in names}
        growth = self.growth_per_token if self.growth_per_token is not None else other.growth_per_token
        total = self.total.highest_with(other.total)
        # What the other pass found needs no excuse any more.
        known = {name for name, value in vars(total).items() if value is not None}
        reasons = {name: why for name, why in {**other.reasons, **self.reasons}.items() if name not in known}
        return replace(self, total=total, components=parts, growth_per_token=growth, reasons=reasons)


def model_bytes(device: str) -> int | None:
    """Parameters and buffers of every network that is alive on the device, each storage once; None without torch."""
    if "torch" not in sys.modules:
        return None
    import torch

    gc.collect()
    kind = torch.device(device).type
    sizes: dict[int, int] = {}
    # The type is asked, not the object: some of those that lie about warn when they are looked at.
    for module in (thing for thing in gc.get_objects() if issubclass(type(thing), torch.nn.Module)):
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.device.type == kind:
                storage = tensor.untyped_storage()
                sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


class Probe(Protocol):
    """Where peaks are read. `reset` begins a new peak; `peaks` gives those since then; `outside` those of the end."""

    reasons: dict[str, str]

    def settle(self) -> int | None:
        """Give back what is not in use and begin anew; bytes that are held now."""

    def reset(self) -> None:
        """Forget the peaks so far."""

    def peaks(self) -> Peaks:
        """Peaks since the last reset."""

    def outside(self) -> Peaks:
        """Numbers that are read once, when the work is done."""

    def allocated_now(self) -> int | None:
        """Bytes of live tensors."""


class MemoryMeter:
    """A `Meter` that takes the peaks of each component apart."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._base = probe.settle()
        self._current: Component | None = None
        self._total = Peaks()
        self._components: dict[Component, Peaks] = {}
        self._live: list[int] = []

    def enter(self, component: Component) -> None:
        """The peaks so far are those of the component that ends here."""
        self._close()
        self._current = component
        self._probe.reset()

    def token(self) -> None:
        """Note how much is live after one more token."""
        live = self._probe.allocated_now()
        if live is not None:
            self._live.append(live)

    def stop(self, n_steps: int) -> MemoryUse:
        """The work is done, with `n_steps` tokens a clip."""
        self._close()
        total = self._total.highest_with(self._probe.outside())
        growth = growth_per_token(self._live, n_steps)
        return MemoryUse(total, dict(self._components), growth, self._base, dict(self._probe.reasons))

    def _close(self) -> None:
        peaks = self._probe.peaks()
        self._total = self._total.highest_with(peaks)
        if self._current is not None:
            self._components[self._current] = self._components.get(self._current, Peaks()).highest_with(peaks)


def growth_per_token(live: Sequence[int], n_steps: int) -> float | None:
    """Bytes more with each token, from what was live at each of `n_steps` tokens a clip; None below three.

    From the second to the last: at the first, what the steps work with is not there yet.
    """
    n_told_a_step = len(live) // n_steps if n_steps else 0
    if n_steps < 3 or n_told_a_step < 1:
        return None
    return (live[-1] - live[n_told_a_step]) / (n_steps - 2)
