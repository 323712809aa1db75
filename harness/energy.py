"""Energy counters of the machine: RAPL of the processor, NVML of the GPU. Where none can be read, the reason.

Joules of a stretch of work, less what the idle machine takes in the same time. A counter counts for everyone who uses
the device; it is updated some ten to some thousand times a second, so that a window lasts seconds.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

RAPL_ROOT = Path("/sys/class/powercap")
IDLE_S = 1.0
LEAST_WINDOW_S = 2.0
_NVML_LIBRARY = "libnvidia-ml.so.1"

Joules = Callable[[], float]
"""Joules since some moment; only differences mean something."""


@dataclass(frozen=True)
class Counters:
    """Counters by name ("cpu", "gpu"), and why the others are not there."""

    joules: Mapping[str, Joules]
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class Energy:
    """`joules` of one run, by counter, idle power subtracted; `gross_joules` with it; `idle_watts` as measured."""

    joules: Mapping[str, float]
    gross_joules: Mapping[str, float]
    idle_watts: Mapping[str, float]
    n_runs: int
    window_s: float


def find_counters(device: str, rapl_root: Path = RAPL_ROOT) -> Counters:
    """The counters that can be read here: the processor's always, the GPU's where `device` is one."""
    joules: dict[str, Joules] = {}
    reasons: dict[str, str] = {}
    finders: dict[str, Callable[[], Joules]] = {"cpu": lambda: rapl(rapl_root)}
    if device.startswith("cuda"):
        finders["gpu"] = lambda: nvml(device)
    for name, find in finders.items():
        try:
            counter = find()
            counter()
        except OSError as error:
            reasons[name] = str(error)
        else:
            joules[name] = counter
    return Counters(joules, reasons)


def measure_energy(
    run: Callable[[], object], joules: Mapping[str, Joules], now: Callable[[], float] = time.perf_counter
) -> Energy:
    """Idle for a moment, then run until the window is long enough; energy of one run."""
    idle_before = {name: read() for name, read in joules.items()}
    started = now()
    time.sleep(IDLE_S)
    idle_s = now() - started
    before = {name: read() for name, read in joules.items()}
    n_runs, started = 0, now()
    while n_runs == 0 or now() - started < LEAST_WINDOW_S:
        run()
        n_runs += 1
    window_s = now() - started
    gross = {name: read() - before[name] for name, read in joules.items()}
    watts = {name: (before[name] - idle_before[name]) / idle_s for name in joules}
    return Energy(
        joules={name: (gross[name] - watts[name] * window_s) / n_runs for name in joules},
        gross_joules={name: gross[name] / n_runs for name in joules},
        idle_watts=watts,
        n_runs=n_runs,
        window_s=window_s,
    )


def rapl(root: Path = RAPL_ROOT) -> Joules:
    """All processor packages together, from the kernel's powercap files.

    Raises:
        OSError: there are none, or they may not be read.
    """
    packages = sorted(path for path in root.glob("intel-rapl:*") if path.name.count(":") == 1)
    if not packages:
        raise OSError(f"no RAPL counter in {root}")
    counters = [_rapl_package(package) for package in packages]
    return lambda: sum(read() for read in counters)


def _rapl_package(folder: Path) -> Joules:
    """One package's counter, which begins anew at its end some times an hour."""
    wraps_at = int((folder / "max_energy_range_uj").read_text())
    last, total = int((folder / "energy_uj").read_text()), 0

    def read() -> float:
        nonlocal last, total
        value = int((folder / "energy_uj").read_text())
        total += (value - last) % wraps_at
        last = value
        return total / 1e6

    return read


def nvml(device: str) -> Joules:
    """The GPU's own total, which it keeps since its driver was loaded (Volta and later).

    Raises:
        OSError: the library is not there, or it does not tell.
    """
    import torch

    library = ctypes.CDLL(_NVML_LIBRARY)
    _nvml_call(library, "nvmlInit_v2")
    handle = ctypes.c_void_p()
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
    _nvml_call(library, "nvmlDeviceGetHandleByUUID", uuid, ctypes.byref(handle))

    def read() -> float:
        millijoules = ctypes.c_ulonglong()
        _nvml_call(library, "nvmlDeviceGetTotalEnergyConsumption", handle, ctypes.byref(millijoules))
        return millijoules.value / 1e3

    return read


def _nvml_call(library: ctypes.CDLL, name: str, *arguments: object) -> None:
    code = getattr(library, name)(*arguments)
    if code != 0:
        raise OSError(f"{name} of NVML gives error {code}")
