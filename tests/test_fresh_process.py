"""Fresh processes: what comes back, each way to fail by its name, caps, limits and threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.fresh_process import Outcome, run_fresh

WORK = '''
"""Work that ends in every way."""
import os, signal, subprocess, sys, time
from pathlib import Path
from harness.errors import ModelLimitError
from harness.fresh_process import WrongNumbers, time_limit


def add(a, b):
    print("noise on standard output")
    return {"sum": a + b, "pid": os.getpid()}


def threads():
    import torch
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return [torch.get_num_threads(), *(int(os.environ[name]) for name in names)]


def fill(n_bytes):
    return len(bytearray(n_bytes))


def fill_torch(n_bytes):
    import torch
    return len(torch.ones(n_bytes, dtype=torch.uint8))


def sleep(marker):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(marker).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(60)


def loop_in_time(n_s, limit_s):
    with time_limit(limit_s):
        until = time.monotonic() + n_s
        while time.monotonic() < until:
            pass
    time.sleep(0.3)
    return "done"


def refuse():
    raise ModelLimitError("at most 3 s")


def miscount():
    raise WrongNumbers("the logits are not finite")


def die(number):
    os.kill(os.getpid(), number)


def abort_for_memory():
    print("terminate called after throwing an instance of 'std::bad_alloc'", file=sys.stderr, flush=True)
    os.abort()


def abort_with_stacks():
    import faulthandler
    faulthandler.enable()
    os.abort()


def leave():
    print("last words", file=sys.stderr, flush=True)
    os._exit(7)


def break_down():
    raise ValueError("\\nfirst line\\nsecond line")


def nan():
    return float("nan")
'''


@pytest.fixture(autouse=True)
def _work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work_for_tests.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def _run(function: str, memory_bytes: int | None = None, time_limit_s: float = 60.0, **arguments: Any) -> Outcome:
    return run_fresh(
        f"work_for_tests:{function}", arguments, threads=1, memory_bytes=memory_bytes, time_limit_s=time_limit_s
    )


def test_what_the_work_returns_comes_back_whatever_it_prints() -> None:
    outcome = _run("add", a=2, b=3)
    assert (outcome.kind, outcome.value["sum"], outcome.message, outcome.exit_code) == ("ok", 5, "", 0)


def test_the_work_is_done_in_another_process() -> None:
    assert _run("add", a=0, b=0).value["pid"] != os.getpid()


def test_the_wall_time_holds_the_interpreters_start() -> None:
    assert _run("add", a=0, b=0).wall_s > 0.005


def test_threads_are_pinned_in_every_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert run_fresh("work_for_tests:threads", {}, threads=1).value == [1] * 5


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("refuse", "position_limit", "ModelLimitError: at most 3 s"),
        ("miscount", "wrong_numbers", "WrongNumbers: the logits are not finite"),
        ("break_down", "error", "ValueError: first line"),
        ("leave", "error", "exit code 7: last words"),
        ("nan", "error", "ValueError: Out of range float values are not JSON compliant"),
        ("abort_for_memory", "out_of_memory", "terminate called after throwing an instance of 'std::bad_alloc'"),
        ("abort_with_stacks", "killed", "by signal SIGABRT: Fatal Python error: Aborted"),
        ("no_such_work", "error", "AttributeError: module 'work_for_tests' has no attribute 'no_such_work'"),
    ],
)
def test_every_way_to_fail_has_its_kind_and_one_line(function: str, kind: str, message: str) -> None:
    outcome = _run(function)
    assert (outcome.kind, outcome.message[: len(message)], outcome.value) == (kind, message, None)


def test_a_signal_from_outside_is_told_by_name() -> None:
    outcome = _run("die", number=9)
    assert (outcome.kind, outcome.message, outcome.exit_code) == ("killed", "by signal SIGKILL: it said nothing", -9)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a memory cap needs Linux")
@pytest.mark.parametrize(
    ("function", "n_bytes", "kind"),
    [
        ("fill", 100_000_000, "ok"),
        ("fill", 700_000_000, "out_of_memory"),
        ("fill_torch", 700_000_000, "out_of_memory"),
    ],
)
def test_memory_beyond_the_cap_is_refused_and_memory_below_it_is_not(function: str, n_bytes: int, kind: str) -> None:
    assert _run(function, memory_bytes=700_000_000, n_bytes=n_bytes).kind == kind


def test_without_a_cap_there_is_none() -> None:
    assert _run("fill", n_bytes=800_000_000).kind == "ok"


def test_where_no_cap_is_kept_asking_for_one_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UsageError, match="needs Linux"):
        _run("add", memory_bytes=10**9, a=1, b=1)


def test_the_time_limit_ends_the_process_and_what_it_started(tmp_path: Path) -> None:
    marker = tmp_path / "pids"
    outcome = _run("sleep", time_limit_s=3.0, marker=str(marker))
    assert (outcome.kind, outcome.message, outcome.exit_code) == ("time_limit", "not done after 3 s", None)
    assert [pid for pid in marker.read_text().split() if _is_running(int(pid))] == []


@pytest.mark.parametrize(("n_s", "limit_s", "kind"), [(60.0, 0.2, "time_limit"), (0.0, 0.2, "ok"), (0.1, None, "ok")])
def test_a_part_of_the_work_has_a_time_limit_of_its_own(n_s: float, limit_s: float | None, kind: str) -> None:
    outcome = _run("loop_in_time", n_s=n_s, limit_s=limit_s)
    assert (outcome.kind, outcome.message) == (kind, "not done in its time" if kind == "time_limit" else "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends a process with its parent")
def test_the_work_ends_with_the_process_that_asked_for_it(tmp_path: Path) -> None:
    marker = tmp_path / "pids"
    call = f"run_fresh('work_for_tests:sleep', {{'marker': {str(marker)!r}}}, threads=1)"
    asking = subprocess.Popen([sys.executable, "-c", f"from harness.fresh_process import run_fresh; {call}"])
    while not marker.exists() or not marker.read_text():
        assert asking.poll() is None
        time.sleep(0.05)
    asking.kill()
    asking.wait()
    worker, started_by_it = map(int, marker.read_text().split())
    os.kill(started_by_it, signal.SIGKILL)
    assert not _is_running(worker)


def _is_running(pid: int) -> bool:
    """Not gone, and no zombie whose parent has yet to look; the system needs a moment to end a process."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        if state == "Z":
            return False
        time.sleep(0.1)
    return True
