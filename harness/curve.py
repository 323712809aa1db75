"""The curve of a training: JSON lines, each of numbers that are means over the steps since the line before.

A curve survives an interruption: the sums of the line that is being gathered are part of a checkpoint, and lines that
came after the checkpoint are cut away when a training goes on from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.record_files import write_atomically

CURVE = "curve.jsonl"


class StepSums:
    """The numbers of the steps since the last line, summed by name."""

    def __init__(self) -> None:
        self.n_steps = 0
        self._sums: dict[str, float] = {}

    def add(self, numbers: Mapping[str, float]) -> None:
        """Count a step in."""
        for name, value in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self.n_steps += 1

    def take(self) -> dict[str, float]:
        """The mean of each number, and begin anew."""
        means = {name: value / self.n_steps for name, value in self._sums.items()}
        self._sums, self.n_steps = {}, 0
        return means

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"sums": dict(self._sums), "n_summed": self.n_steps}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept; other entries of `state` are left alone."""
        self._sums, self.n_steps = dict(state["sums"]), state["n_summed"]


class Stopwatch:
    """Seconds of steps: those since the last line, and those of all sessions."""

    def __init__(self) -> None:
        self.trained_s = 0.0
        self._line_s = 0.0

    def add(self, step_s: float) -> None:
        """Count a step in."""
        self._line_s += step_s
        self.trained_s += step_s

    def take(self) -> float:
        """Seconds of this session's steps since the last line, and begin anew."""
        line_s, self._line_s = self._line_s, 0.0
        return line_s


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's generators anew: what a step draws does not depend on whether the training was interrupted.

    Args:
        rank: of this process among several, each of which drops branches and inputs of its own.
    """
    import torch

    torch.manual_seed(seed * 1_000_003 + step + rank * 2**40)


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line to a file of JSON lines, and see it on the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def cut_curve(path: Path, step: int) -> None:
    """Keep a curve's lines up to `step`; a torn last line goes too."""
    if not path.exists():
        return
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(text)["step"] <= step:
                kept.append(text)
        except ValueError:
            break
    write_atomically(path, "".join(f"{text}\n" for text in kept))
