"""The folder of a run: its name, finding the one that a command continues, and the lock that keeps others off."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import UsageError

ID_LENGTH = 8


def task_folder(results: Path, model: str, variant: str, task: str) -> Path:
    """Where all runs of a model on a task lie: `<results>/runs/<model>[-<variant>]/<task>`."""
    label = f"{model}-{variant}" if variant else model
    return results / "runs" / re.sub(r"[^\w.-]", "_", label) / task


def newest_run(folder: Path, run_id: str) -> Path | None:
    """The newest folder of a run id; names begin with the time, so the last one in order is the newest."""
    found = sorted(path for path in folder.glob(f"*-{run_id}") if path.is_dir())
    return found[-1] if found else None


def create_run(folder: Path, run_id: str) -> Path:
    """Make a new folder for a run, named by the time to the second and the id.

    Raises:
        UsageError: it cannot be made.
    """
    while True:
        path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{run_id}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            time.sleep(0.1)
        except OSError as error:
            raise UsageError(f"--results: {path} cannot be made: {error.strerror}.") from error
        else:
            return path


@contextmanager
def locked(folder: Path, run_id: str) -> Iterator[None]:
    """Hold a run id for this process. The system lets go of it when the process ends, however it ends.

    Raises:
        UsageError: another process holds it, or the folder cannot be written.
    """
    path = folder / f".{run_id}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open_locked(path)
    except OSError as error:
        raise UsageError(f"--results: {folder} cannot be written: {error.strerror}.") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def utc_now() -> str:
    """The time now, to the second, such as "2026-01-31T12:00:00Z"."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _open_locked(path: Path) -> int:
    import fcntl

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode(errors="replace") or "unknown"
            os.close(descriptor)
            raise UsageError(f"Another process (pid {owner}) is working on this run: {path.parent}.") from None
        if _is_at(path, descriptor):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            return descriptor
        # The last owner removed the file between our opening and our locking it.
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
