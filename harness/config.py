"""What a `run` command says, checked in one place, and the values it resolves to on this machine."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.contracts import OptionValue
from harness.errors import UsageError

DTYPES = ("float32", "bfloat16", "float16")
DEFAULT_BATCH_SIZE = 8
DATA_VARIABLE = "LALM_HARNESS_DATA"
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
# A machine without any of these has no CUDA device, and torch need not be imported to learn that.
_CUDA_SIGNS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")


@dataclass(frozen=True)
class FailureLimit:
    """How many failed items a run may have: a count, or a share of the items in [0, 1]."""

    count: int | None = 0
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> FailureLimit:
        """Read "5" (items), "5%" or "0.05" (share of the items).

        Raises:
            UsageError: it is none of these, or out of range.
        """
        cleaned = text.strip()
        if re.fullmatch(r"\d+", cleaned):
            return cls(count=int(cleaned))
        percent = re.fullmatch(r"(\d+(?:\.\d*)?)\s*%", cleaned)
        share = float(percent[1]) / 100 if percent else _fraction(cleaned)
        if share is None or not 0 <= share <= 1:
            raise UsageError(
                f"--max-failures '{text}' is neither a number of items (5) nor a share of them (5% or 0.05)."
            )
        return cls(count=None, share=share)

    def is_exceeded(self, n_failed: int, n_items: int) -> bool:
        """Whether more items failed than allowed."""
        allowed = self.count if self.count is not None else (self.share or 0.0) * n_items
        return n_failed > allowed

    def __str__(self) -> str:
        return str(self.count) if self.count is not None else f"{(self.share or 0.0) * 100:g}%"


def _fraction(text: str) -> float | None:
    return float(text) if re.fullmatch(r"0?\.\d+|1\.0+|0\.", text) else None


@dataclass(frozen=True)
class RunConfig:
    """One `run` command. None stands for "not given"; the `resolved_*` methods say what is used then.

    `model_options` and `task_options` are as given with -m and -t. `scorers` empty means every scorer that fits.
    `limit` takes that many items at random, drawn with `seed`. `protocol` names a published protocol, which fixes some
    of the other values (see `harness.protocols`).

    Raises:
        UsageError: a value is out of range, or two of them contradict each other.
    """

    model: str
    task: str
    variant: str | None = None
    model_options: Mapping[str, OptionValue] = field(default_factory=dict)
    task_options: Mapping[str, OptionValue] = field(default_factory=dict)
    prompt: str | None = None
    limit: int | None = None
    items: Path | None = None
    seed: int = 0
    batch_size: int | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    data_root: Path | None = None
    results: Path = Path("results")
    scorers: tuple[str, ...] = ()
    max_failures: FailureLimit = FailureLimit()
    fresh: bool = False
    protocol: str | None = None

    def __post_init__(self) -> None:
        _check_at_least("--limit", self.limit, 1)
        _check_at_least("--batch-size", self.batch_size, 1)
        _check_at_least("--threads", self.threads, 1)
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed {self.seed} is out of range: it must lie in 0 to {2**32 - 1}.")
        if self.device is not None and not _DEVICE.fullmatch(self.device):
            raise UsageError(f"--device '{self.device}' is unknown. Use auto, cpu, mps, cuda or cuda:N.")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UsageError(f"--dtype '{self.dtype}' is unknown. Use {', '.join(DTYPES)}.")
        if self.limit is not None and self.items is not None:
            raise UsageError("--limit and --items contradict each other: give one of them.")
        if self.variant is not None and "variant" in self.model_options:
            raise UsageError(f"The variant was given twice: as '{self.model}:{self.variant}' and with -m variant=.")
        repeated = sorted({name for name in self.scorers if self.scorers.count(name) > 1})
        if repeated:
            raise UsageError(f"--scorer names {', '.join(repeated)} more than once.")

    def resolved_batch_size(self) -> int:
        """Clips a model is asked about at once."""
        return self.batch_size if self.batch_size is not None else DEFAULT_BATCH_SIZE

    def resolved_dtype(self) -> str:
        """torch's name of the number type that weights are read into."""
        return self.dtype if self.dtype is not None else DTYPES[0]

    def resolved_threads(self) -> int:
        """CPU threads for the model's work."""
        return self.threads if self.threads is not None else usable_cores()

    def resolved_device(self) -> str:
        """The device asked for; "cuda" or "cpu" when it was left to the machine.

        Raises:
            UsageError: the device asked for is not there.
        """
        if self.device in (None, "auto"):
            return "cuda" if _has_cuda() else "cpu"
        device = str(self.device)
        if device == "mps":
            _check_mps()
        if device.startswith("cuda"):
            _check_cuda(device)
        return device

    def all_model_options(self) -> dict[str, OptionValue]:
        """The options for the model's function, the variant among them."""
        variant = {} if self.variant is None else {"variant": self.variant}
        return {**variant, **self.model_options}

    def as_record(self) -> dict[str, Any]:
        """The values as given, in types that JSON has."""
        return {
            "model": self.model,
            "variant": self.variant,
            "task": self.task,
            "model_options": dict(self.model_options),
            "task_options": dict(self.task_options),
            "prompt": self.prompt,
            "limit": self.limit,
            "items": None if self.items is None else str(self.items),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "device": self.device,
            "dtype": self.dtype,
            "threads": self.threads,
            "data_root": None if self.data_root is None else str(self.data_root),
            "results": str(self.results),
            "scorers": list(self.scorers),
            "max_failures": str(self.max_failures),
            "fresh": self.fresh,
            "protocol": self.protocol,
        }


def usable_cores() -> int:
    """Logical cores that this process may use: its affinity mask, and a container's CPU quota (cgroup v2)."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return affinity
    if quota == "max":
        return affinity
    return max(1, min(affinity, math.ceil(int(quota) / int(period))))


def pin_threads(n_threads: int) -> None:
    """Bound the thread pools of numerical libraries. Works only before they are imported.

    OpenMP workers that spin while they wait take the cores from the other pools, hence the passive wait policy.
    """
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(n_threads)
    # numba refuses another number once its threads run.
    if "numba" not in sys.modules:
        os.environ["NUMBA_NUM_THREADS"] = str(n_threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def limit_loaded_pools(n_threads: int) -> None:
    """Bound the pools of torch and numba where they are loaded already. numba cannot grow beyond its first number."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n_threads)
    if "numba" in sys.modules:
        numba = sys.modules["numba"]
        numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))


def _check_at_least(option: str, value: int | None, low: int) -> None:
    if value is not None and value < low:
        raise UsageError(f"{option} {value} is out of range: it must be at least {low}.")


def _has_cuda() -> bool:
    signs = any(Path(sign).exists() for sign in _CUDA_SIGNS) or shutil.which("nvidia-smi") is not None
    if not signs or find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def _check_mps() -> None:
    # Only a Mac has it, so that torch need not be imported elsewhere to learn that there is none.
    if sys.platform == "darwin" and find_spec("torch") is not None:
        import torch

        if torch.backends.mps.is_available():
            return
    raise UsageError("--device mps: torch sees no Apple GPU here. Use --device cpu.")


def _check_cuda(device: str) -> None:
    if not _has_cuda():
        raise UsageError(f"--device {device}: torch sees no CUDA device here. Use --device cpu.")
    import torch

    index = int(device.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        raise UsageError(f"--device {device}: there are only {torch.cuda.device_count()} CUDA devices, counted from 0.")
