"""Work in a fresh interpreter with pinned threads, under a memory cap and a time limit, and how it ended as a word.

What one measurement leaves behind (pages that malloc keeps, caches, a broken CUDA context) never reaches the next one,
and one that dies takes nobody with it. Both halves are here: `run_fresh` for the process that asks, and what
`python -m harness.fresh_process` does in the one that works.

The memory cap is `RLIMIT_DATA`: the kernel refuses private writable memory beyond it, that is what malloc, torch and
numba ask for, thread stacks and writable copies of files too. Read-only pages of files (code of libraries) and shared
memory do not count. An address-space limit would count the gigabytes that CUDA and large libraries map and never touch;
a process that watches the resident set would miss peaks, and end the work by a kill at a moment that differs from one
time to the next. A refused allocation happens at the same place every time, and says so.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.config import limit_loaded_pools, pin_threads
from harness.errors import ModelLimitError, UsageError

OutcomeKind = Literal["ok", "out_of_memory", "time_limit", "position_limit", "wrong_numbers", "killed", "error"]

MEMORY_CAP = "RLIMIT_DATA"
# How torch, CUDA, cuBLAS, the C++ library and OpenMP say that memory ran out: words of RuntimeErrors, or of the last
# lines of a process that was ended by its own libraries.
_MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "allocation failed",
    "bad_alloc",
    "cublas_status_alloc_failed",
    "memoryerror",
    "thread creation failed",
    "can't start new thread",
)
# From linux/prctl.h.
_PR_SET_PDEATHSIG = 1
_RESULT_FILE = "outcome.json"
# A process that dies in C code may end in the stacks of all its threads and a long list of modules.
_STDERR_TAIL_BYTES = 1 << 16
_FATAL = "Fatal Python error"
# More than the cap in one piece must be refused; where it is not, the system does not keep such limits.
_CAP_TEST_EXTRA_BYTES = 1 << 20


class WrongNumbers(Exception):
    """Raised by work whose results cannot be right: not finite, deaf to its input, or not what a second way gives."""


@dataclass(frozen=True)
class Outcome:
    """How work in a fresh process ended.

    `value` is what it returned, None unless `kind` is "ok"; `message` is empty then, and else one line. `wall_s` is the
    whole life of the process, its start and its imports too. `exit_code` is the process's own, minus the signal's
    number where one ended it, and None where it was stopped for the time of the whole process.

    Kinds: "out_of_memory" by any allocator, the host's or the device's; "position_limit", the model refuses the input
    (`ModelLimitError`); "wrong_numbers" (`WrongNumbers`); "killed" by a signal that nobody here sent, such as the
    system's own when the machine runs out of memory; "error", anything else.
    """

    kind: OutcomeKind
    value: Any
    message: str
    wall_s: float
    exit_code: int | None


def run_fresh(
    target: str,
    arguments: Mapping[str, Any],
    *,
    threads: int,
    memory_bytes: int | None = None,
    time_limit_s: float | None = None,
) -> Outcome:
    """Call a function in a fresh interpreter.

    The process ends with this call, however the call ends.

    Args:
        target: "module:function", importable where this process is.
        arguments: plain data, as JSON has it; so is what the function returns.
        threads: size of the thread pools of numerical libraries.
        memory_bytes: cap on the process's memory; see above what counts.
        time_limit_s: for the whole life of the process.

    Raises:
        UsageError: this system keeps no memory cap.
    """
    if memory_bytes is not None and not sys.platform.startswith("linux"):
        raise UsageError("A memory cap needs Linux; elsewhere there is no limit that counts what libraries allocate.")
    order = {
        "target": target,
        "arguments": dict(arguments),
        "threads": threads,
        "memory_bytes": memory_bytes,
    }
    with tempfile.TemporaryDirectory(prefix="lalm-harness-") as name:
        folder = Path(name)
        started = time.perf_counter()
        exit_code = _work_in_child(folder, json.dumps(order, allow_nan=False), time_limit_s)
        wall_s = time.perf_counter() - started
        kind, value, message = _read_outcome(folder, exit_code, time_limit_s)
    if kind == "no_cap":
        raise UsageError(message)
    return Outcome(kind, value, message, wall_s, exit_code)


def _work_in_child(folder: Path, order: str, time_limit_s: float | None) -> int | None:
    """Start the interpreter, hand it the order and wait; the exit code, or None where the time was over."""
    command = [sys.executable, "-m", "harness.fresh_process", str(folder)]
    with (folder / "stderr").open("wb") as stderr:
        # A session of its own: one signal then ends it with whatever it started.
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=stderr, stderr=stderr, text=True, start_new_session=True
        )
        try:
            child.communicate(order, timeout=time_limit_s)
            return child.returncode
        except subprocess.TimeoutExpired:
            return None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _read_outcome(folder: Path, exit_code: int | None, time_limit_s: float | None) -> tuple[Any, Any, str]:
    """Kind, value and message, from what the child wrote or from how it died."""
    if exit_code is None:
        return "time_limit", None, f"not done after {time_limit_s:g} s"
    if exit_code == -signal.SIGALRM:
        return "time_limit", None, "not done in its time"
    written = folder / _RESULT_FILE
    if written.is_file():
        told = json.loads(written.read_text(encoding="utf-8"))
        return told["kind"], told["value"], told["message"]
    last_words = (folder / "stderr").read_bytes()[-_STDERR_TAIL_BYTES:].decode(errors="replace")
    last_line = _telling_line(last_words)
    if _tells_of_memory(last_words):
        return "out_of_memory", None, last_line
    if exit_code < 0:
        return "killed", None, f"by signal {_signal_name(-exit_code)}: {last_line}"
    return "error", None, f"exit code {exit_code}: {last_line}"


def _telling_line(text: str) -> str:
    """The last line, or the one above the stacks that Python prints when it dies."""
    lines = text.strip().splitlines() or ["it said nothing"]
    return next((line for line in lines if line.startswith(_FATAL)), lines[-1])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _tells_of_memory(text: str) -> bool:
    lowered = text.lower()
    return any(words in lowered for words in _MEMORY_WORDS)


# --- in the fresh process --------------------------------------------------------------------------------------------


def work(folder: Path, order: Mapping[str, Any]) -> None:
    """Carry out an order of `run_fresh` and write how it ended into its folder."""
    _end_with_parent()
    pin_threads(order["threads"])
    cap = order["memory_bytes"]
    if cap is not None and not set_memory_cap(cap):
        _write(folder, "no_cap", None, f"This system does not keep {MEMORY_CAP}: a memory cap would mean nothing here.")
        return
    try:
        module_name, _, function_name = order["target"].partition(":")
        function = getattr(importlib.import_module(module_name), function_name)
        limit_loaded_pools(order["threads"])
        value = function(**order["arguments"])
        told: tuple[str, Any, str] = ("ok", value, "")
        json.dumps(value, allow_nan=False)
    except Exception as error:  # whatever the work can raise is an outcome; interrupts are not
        error.__traceback__ = None  # it holds the work's memory, and the next lines need some
        told = (kind_of(error), None, _one_line(error))
    if cap is not None:
        _lift_memory_cap()
    _write(folder, *told)


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """For a part of the work, such as what comes after loading: the process ends at once when the time is over.

    The kernel ends it, in the middle of a library's loop too; its outcome then is "time_limit".
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds or 0.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def kind_of(error: BaseException) -> OutcomeKind:
    """The outcome that an exception means; one that was raised from another means what that one did."""
    if isinstance(error, WrongNumbers):
        return "wrong_numbers"
    if isinstance(error, ModelLimitError):
        return "position_limit"
    is_of_memory = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    if is_of_memory or (isinstance(error, RuntimeError) and _tells_of_memory(str(error))):
        return "out_of_memory"
    return "error" if error.__cause__ is None else kind_of(error.__cause__)


def set_memory_cap(n_bytes: int) -> bool:
    """Cap this process's memory; whether the system keeps to it, tried with a mapping above the cap."""
    import mmap
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    within = n_bytes if hard == resource.RLIM_INFINITY else min(n_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (within, hard))
    try:
        mmap.mmap(-1, n_bytes + _CAP_TEST_EXTRA_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return True
    return False


def _end_with_parent() -> None:
    """Have the kernel end this process when the one that asks is killed: nobody would keep its time limit then."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _lift_memory_cap() -> None:
    """Only what is written at the end: a process that has just run out could not even say so."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _one_line(error: BaseException) -> str:
    # C++ errors end in a line of noise and may begin with an empty one.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _write(folder: Path, kind: str, value: Any, message: str) -> None:
    """In one step: a process that is ended in the middle has written nothing."""
    temporary = folder / f"{_RESULT_FILE}.tmp"
    temporary.write_text(json.dumps({"kind": kind, "value": value, "message": message}), encoding="utf-8")
    temporary.replace(folder / _RESULT_FILE)


if __name__ == "__main__":
    # Under its own name: the classes of `__main__` are not those that the work knows.
    from harness import fresh_process

    fresh_process.work(Path(sys.argv[1]), json.loads(sys.stdin.read()))
