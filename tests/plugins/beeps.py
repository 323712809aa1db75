"""A task for tests: beeps that are generated in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from harness.audio import ArraySource
from harness.contracts import AudioClip, AudioItem, AudioSource, ItemSet, Label, Task
from harness.errors import AudioError

LABELS = (Label("low", "low beep"), Label("middle", "middle beep"), Label("high", "high beep"))
RATE_HZ = 16_000


@dataclass(frozen=True)
class BrokenSource:
    """Audio that cannot be decoded."""

    def load(self, sample_rate_hz: int) -> AudioClip:
        raise AudioError("this beep is broken")

    def identity(self) -> str:
        return "broken"

    def duration_s(self) -> float | None:
        return None


def beeps(n: int = 12, broken: str = "") -> Task:
    """`n` beeps in three classes; `broken` names items, separated by "+", that cannot be decoded."""
    read = partial(_read, n=n, broken=frozenset(broken.split("+")))
    return Task(
        name="beeps",
        version=1,
        kind="classification",
        summary="Beeps for tests",
        labels=LABELS,
        prompts={
            "classify": "Which beep is it?",
            "short": "Which?",
            "list": "Which beep is it: low beep, middle beep or high beep?",
        },
        metrics=("accuracy",),
        citation="none",
        licence="none needed",
        homepage="https://example.org",
        download="they are generated.",
        sample_rows=("beep-00",),
        find=lambda folder: folder if (folder / "beeps.txt").exists() else None,
        read_items=partial(read, origin="official"),
        starter_root=Path("beeps"),
        read_starter=partial(read, origin="starter"),
    )


def _read(root: Path, n: int, broken: frozenset[str], origin: str) -> ItemSet:
    items = tuple(_item(index, broken) for index in range(n))
    return ItemSet(items, "official" if origin == "official" else "starter", n_declared=100, root=root)


def _item(index: int, broken: frozenset[str]) -> AudioItem:
    item_id = f"beep-{index:02d}"
    wave = np.sin(np.arange(800) * (1 + index % 3) / 10 + index).astype(np.float32)
    source: AudioSource = BrokenSource() if item_id in broken else ArraySource(wave, RATE_HZ)
    return AudioItem(item_id, source, (LABELS[index % 3].name,), cluster=f"cluster-{index // 2}")
