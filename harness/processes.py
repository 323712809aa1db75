"""Several processes that carry out one command together, started by torchrun or `accelerate launch`.

A launcher starts the same command once for each device, on one node or several, and tells each by the environment which
one it is (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT). accelerate's `PartialState` brings them together:
NCCL where they compute on GPUs, gloo where they compute on CPUs.

One of them, the main one, writes results and speaks; all must see one file system. Without a launcher a command is
`ALONE`, and none of this imports anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from harness.errors import HarnessError, MissingExtraError, UsageError

EXTRA = "devices"
_LAUNCHERS_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Processes wait for each other at the end of unequal shares, and while one of them reads gigabytes of items.
_PATIENCE = timedelta(hours=6)
# Gradients are added up so many numbers at a time: 128 MiB in float32.
_BUCKET = 2**25


class ProcessesError(HarnessError):
    """Another process of this command ended or cannot be reached."""


@dataclass(frozen=True)
class Processes:
    """This process among those of its command: `rank` counts from 0, the main one. Alone, every method is trivial."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def is_main(self) -> bool:
        """Whether this one writes and speaks."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other."""
        return self.count == 1

    def share(self, things: Sequence[Any]) -> Sequence[Any]:
        """This process's part: every `count`-th, so that neighbours, which are alike, are spread."""
        return things[self.rank :: self.count]

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Each number added up over the processes, in float64."""
        return list(numbers) if self.is_alone else self._reduced(numbers, "SUM")

    def largest(self, number: float) -> float:
        """The largest of the processes' numbers."""
        return number if self.is_alone else self._reduced([number], "MAX")[0]

    def _reduced(self, numbers: Sequence[float], how: str) -> list[float]:
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(list(numbers), dtype=torch.float64, device=self.device)
        _together(lambda: dist.all_reduce(tensor, getattr(dist.ReduceOp, how)))
        return [float(value) for value in tensor.tolist()]

    def gather(self, thing: Any) -> list[Any]:
        """What each process has, by rank."""
        if self.is_alone:
            return [thing]
        import torch.distributed as dist

        things: list[Any] = [None] * self.count
        _together(lambda: dist.all_gather_object(things, thing))
        return things

    def from_main(self, thing: Any) -> Any:
        """What the main process has; the others' argument does not matter."""
        return self.gather(thing if self.is_main else None)[0]

    def wait(self) -> None:
        """Go on when all have come here."""
        self.largest(0.0)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process carries out the block before the others do."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()

    def add_gradients(self, parameters: Iterable[Any]) -> None:
        """Give every process the sum of all processes' gradients; where none has a gradient, there is none."""
        if self.is_alone:
            return
        import torch

        own = list(parameters)
        anyones = self._reduced([float(parameter.grad is not None) for parameter in own], "MAX")
        some: list[Any] = []
        for parameter, is_anyones in zip(own, anyones, strict=True):
            if not is_anyones:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            some.append(parameter.grad)
            if sum(gradient.numel() for gradient in some) > _BUCKET:
                self._add(some)
                some = []
        self._add(some)

    def _add(self, tensors: Sequence[Any]) -> None:
        import torch
        import torch.distributed as dist

        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        _together(lambda: dist.all_reduce(flat))
        for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))

    def copy_from_main(self, tensors: Iterable[Any]) -> None:
        """Make every process's tensors those of the main one."""
        if self.is_alone:
            return
        import torch.distributed as dist

        for tensor in tensors:
            _together(partial(dist.broadcast, tensor, src=0))


ALONE = Processes()


def is_launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return all(name in os.environ for name in _LAUNCHERS_VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """This process among those that a launcher started with it to compute together, or `ALONE`.

    Args:
        device: what the command computes on. With "cuda" each process takes the GPU of its place on its node, which is
            "cuda" for it from here on, and they speak by NCCL.

    Raises:
        UsageError: a single GPU was named for several processes, or a node has fewer GPUs than processes.
        MissingExtraError: accelerate is not installed.
        ProcessesError: the others cannot be reached.
    """
    if not is_launched():
        yield ALONE
        return
    _take_device(device)
    with _group(is_cpu=not device.startswith("cuda")) as processes:
        yield processes


@contextmanager
def joined_to_answer(device: str) -> Iterator[Processes]:
    """As `joined`, for processes that compute on `device` each alone and only tell each other: by gloo."""
    if not is_launched():
        yield ALONE
        return
    _take_device(device)
    with _group(is_cpu=True) as processes:
        yield processes


def _take_device(device: str) -> None:
    kind, _, index = device.partition(":")
    if index:
        raise UsageError(f"--device {device}: each of several processes has a device of its own; use --device {kind}")
    if kind != "cuda":
        return
    import torch

    place = int(os.environ.get("LOCAL_RANK", "0"))
    if place >= torch.cuda.device_count():
        raise UsageError(
            f"--device cuda: this node has {torch.cuda.device_count()} GPUs for {place + 1} processes or more"
        )
    torch.cuda.set_device(place)


@contextmanager
def _group(is_cpu: bool) -> Iterator[Processes]:
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise MissingExtraError("accelerate", EXTRA, "a command in several processes") from error
    import torch.distributed as dist

    try:
        state: Any = PartialState(cpu=is_cpu, timeout=_PATIENCE)
    except RuntimeError as error:
        raise ProcessesError(f"the processes could not be brought together: {_reason(error)}") from error
    try:
        yield Processes(state.process_index, state.num_processes, str(state.device))
    finally:
        dist.destroy_process_group()


def _together(act: Callable[[], Any]) -> Any:
    """Do what needs the others.

    Raises:
        ProcessesError: one of them is not there any more.
    """
    try:
        return act()
    except RuntimeError as error:  # what torch raises for a closed connection and for a time-out
        raise ProcessesError(f"another process of this command ended or does not answer: {_reason(error)}") from error


def _reason(error: RuntimeError) -> str:
    """The first line of what torch says, without the places in gloo's source and its wishes."""
    first = next(iter(str(error).splitlines()), "")
    plain = re.sub(r"\[[^\]\s]*\.(?:cc|cpp|h):\d+\]\s*|[\s.]*\bGLHF\b[^\w\[]*", "", first).strip()
    return plain or type(error).__name__
