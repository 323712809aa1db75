"""What a person sees while a run works: a bar with an ETA on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

_LINE_EVERY_S = 10.0
_LINE_EVERY_SHARE = 0.1
_LINE_AT_LEAST_EVERY_S = 60.0


class Advance(Protocol):
    """Says how many more items are done."""

    def __call__(self, n_items: int) -> None: ...


@contextmanager
def progress(label: str, total: int, done: int = 0, stream: TextIO | None = None) -> Iterator[Advance]:
    """Show progress from `done` to `total` items until the block ends.

    Args:
        label: what is being done, such as "ssalm:tiny on esc50".
        total: items at the end.
        done: items that an earlier session finished; the ETA does not count them as speed.
        stream: standard error when None.
    """
    stream = sys.stderr if stream is None else stream
    if stream.isatty():
        with _bar(label, total, done, stream) as advance:
            yield advance
        return
    lines = PlainLines(label, total, done, stream)
    lines.start()
    yield lines.advance
    lines.finish()


class PlainLines:
    """Progress for a log file: a line when 10 s have passed and either a tenth more is done or a minute has passed."""

    def __init__(self, label: str, total: int, done: int, stream: TextIO) -> None:
        self._label = label
        self._total = total
        self._first = done
        self._done = done
        self._stream = stream
        self._started = time.monotonic()
        self._last_time = self._started
        self._last_done = done

    def start(self) -> None:
        """Say what begins."""
        self._print(f"{self._done} of {self._total} items done")

    def advance(self, n_items: int) -> None:
        """Count, and print a line when it is time for one."""
        self._done += n_items
        now = time.monotonic()
        since_s = now - self._last_time
        has_moved = self._done - self._last_done >= _LINE_EVERY_SHARE * self._total
        if since_s >= _LINE_EVERY_S and (has_moved or since_s >= _LINE_AT_LEAST_EVERY_S):
            self._last_time, self._last_done = now, self._done
            self._print(f"{self._done} of {self._total} items done, {self._remaining_text(now)} left")

    def finish(self) -> None:
        """Say how long it took."""
        self._print(f"{self._done} of {self._total} items done in {time.monotonic() - self._started:.1f} s")

    def _remaining_text(self, now: float) -> str:
        speed = (self._done - self._first) / (now - self._started)
        return duration_text((self._total - self._done) / speed)

    def _print(self, text: str) -> None:
        print(f"{self._label}: {text}", file=self._stream, flush=True)


def say_on_stderr(line: str) -> None:
    """One line for the user."""
    print(line, file=sys.stderr, flush=True)


def duration_text(seconds: float) -> str:
    """Such as "2 h 05 min", "3 min 20 s" or "12 s"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


@contextmanager
def _bar(label: str, total: int, done: int, stream: TextIO) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream)) as bar:
        bar_id = bar.add_task(label, total=total, completed=done)
        yield lambda n_items: bar.advance(bar_id, n_items)
