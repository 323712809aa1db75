"""Where memory peaks are read, on the CPU and on CUDA. What the numbers mean: `harness.memory`.

CUDA: allocated and reserved are the caching allocator's own peaks; the process's memory is the driver's figure; the
device's is its total less what is free.

CPU, on Linux: the process's is the kernel's high-water mark of the resident set (`VmHWM`), which writing 5 to
`/proc/self/clear_refs` resets; reserved is that mark, less the resident set before the work, plus the model; the
device's is the highest of looks at `/proc/meminfo`, 100 times a second.

MPS: the process's and the device's as on the CPU, whose memory a Mac's GPU shares; torch itself keeps no peaks there.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from harness.memory import Peaks, Probe

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_MEMINFO = Path("/proc/meminfo")
_RESET_PEAK = "5"
_POLL_EVERY_S = 0.01
_SMI_TIMEOUT_S = 20


def probe_for(device: str, n_model_bytes: int | None) -> Probe:
    """What reads the memory of this device."""
    if device.startswith("cuda"):
        return CudaProbe(device)
    if device.startswith("mps"):
        return MpsProbe()
    return CpuProbe(n_model_bytes or 0)


class CpuProbe:
    """Resident set of this process and memory in use of this machine; needs Linux."""

    def __init__(self, n_model_bytes: int) -> None:
        self._n_model_bytes = n_model_bytes
        self._base = 0
        self._in_use = _InUse()
        self.reasons: dict[str, str] = {}

    def settle(self) -> int | None:
        """Collect garbage, let malloc give free pages back, and take the resident set as the base."""
        gc.collect()
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        self.reset()
        self._base = _status_bytes("VmRSS") or 0
        return self._base or None

    def reset(self) -> None:
        """The kernel's mark falls to what is resident now."""
        self._in_use.restart()
        try:
            _CLEAR_REFS.write_text(_RESET_PEAK)
        except OSError as error:
            why = f"the peak of the resident set cannot be reset: {error.strerror}"
            self.reasons |= {"reserved": why, "process": why}

    def peaks(self) -> Peaks:
        """The mark, and the mark less the base."""
        in_use = self._in_use.highest()
        if in_use is None:
            self.reasons["device"] = f"{_MEMINFO} does not tell what is in use"
        mark = _status_bytes("VmHWM")
        if mark is None and "process" not in self.reasons:
            self.reasons |= dict.fromkeys(("reserved", "process"), f"{_STATUS} does not tell VmHWM")
        if mark is None or "process" in self.reasons:
            return Peaks(device=in_use)
        return Peaks(reserved=mark - self._base + self._n_model_bytes, process=mark, device=in_use)

    def outside(self) -> Peaks:
        """Nothing that `peaks` lacks."""
        self._in_use.stop()
        return Peaks()

    def allocated_now(self) -> None:
        """Malloc does not tell; `AllocationMeter` does."""


class MpsProbe(CpuProbe):
    """What the process and the machine hold; numbers 2 and 3 would need peaks that torch does not keep."""

    def __init__(self) -> None:
        super().__init__(0)
        why = "torch keeps no peaks on MPS"
        self.reasons = {"allocated": why, "reserved": why}

    def peaks(self) -> Peaks:
        """Without what would be the CPU's."""
        return replace(super().peaks(), reserved=None)


class CudaProbe:
    """The caching allocator's peaks, and what driver and device say."""

    def __init__(self, device: str) -> None:
        import torch

        self._cuda = torch.cuda
        self._device = device
        self.reasons: dict[str, str] = {}

    def settle(self) -> int:
        """Without empty_cache the reserved peak would begin at what an earlier, larger piece of work left behind."""
        gc.collect()
        self._cuda.synchronize(self._device)
        self._cuda.empty_cache()
        self.reset()
        return int(self._cuda.memory_allocated(self._device))

    def reset(self) -> None:
        """Begin anew, once the work so far is done."""
        self._cuda.synchronize(self._device)
        self._cuda.reset_peak_memory_stats(self._device)

    def peaks(self) -> Peaks:
        """The allocator's two."""
        self._cuda.synchronize(self._device)
        return Peaks(
            allocated=int(self._cuda.max_memory_allocated(self._device)),
            reserved=int(self._cuda.max_memory_reserved(self._device)),
        )

    def outside(self) -> Peaks:
        """The allocator keeps what it reserved, so that the end shows the peak."""
        free, total = self._cuda.mem_get_info(self._device)
        process = _smi_process_bytes(os.getpid())
        if process is None:
            self.reasons["process"] = "nvidia-smi does not tell this process's memory (such as from a container)"
        return Peaks(process=process, device=total - free)

    def allocated_now(self) -> int:
        """Live tensors."""
        return int(self._cuda.memory_allocated(self._device))


class _InUse:
    """Looks at the machine's memory in use now and then, in a thread of its own, and remembers the highest."""

    def __init__(self) -> None:
        self._highest: int | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def restart(self) -> None:
        self._highest = None
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def highest(self) -> int | None:
        self._look()
        return self._highest

    def stop(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_POLL_EVERY_S):
            self._look()

    def _look(self) -> None:
        now = _machine_bytes_in_use()
        if now is not None:
            self._highest = max(now, self._highest or 0)


def _machine_bytes_in_use() -> int | None:
    total, available = _kib_of(_MEMINFO, "MemTotal"), _kib_of(_MEMINFO, "MemAvailable")
    return None if total is None or available is None else (total - available) * 1024


def _status_bytes(name: str) -> int | None:
    kib = _kib_of(_STATUS, name)
    return None if kib is None else kib * 1024


def _kib_of(file: Path, name: str) -> int | None:
    """The number after "name:" in a file of /proc, in KiB."""
    try:
        lines = file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def _smi_process_bytes(pid: int) -> int | None:
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    rows = (line.split(",") for line in done.stdout.splitlines())
    mib = [int(row[1]) for row in rows if len(row) == 2 and row[0].strip() == str(pid) and row[1].strip().isdigit()]
    return sum(mib) * 2**20 if mib else None
