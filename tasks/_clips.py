"""Recordings that long audio is made of: from the starter sets, or from a user's folder with one folder a label.

Of the starter set only the test split is used: the tiny models learned from the other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.audio import FileSource
from harness.errors import AudioError, MissingDataError
from tasks._audio_files import audio_files_in
from tasks._long_task import RATE_HZ
from tasks.esc50 import esc50
from tasks.speech_commands import speech_commands

Samples = npt.NDArray[np.float32]

_FADE_S = 0.02
_SQUARED_AT_ONCE = 1 << 20  # samples in 64 bits: 8 MB


@dataclass(frozen=True)
class Clip:
    """One recording: its label, its file, and what recordings of one session share."""

    label: str
    path: Path
    recording: str

    def identity(self) -> str:
        """SHA-256 of the file's bytes, or that it cannot be read."""
        return FileSource(self.path).identity()

    def samples(self, longest_s: float | None = None) -> Samples:
        """Mono at RATE_HZ, shape (n,), at its own level; the first `longest_s` seconds, faded out over 20 ms.

        Raises:
            AudioError: the file cannot be decoded, or what is left of it is silent.
        """
        whole = _decoded(self.path, self.identity())
        samples = whole if longest_s is None else _first(whole, round(longest_s * RATE_HZ))
        if not samples.any():
            raise AudioError(f"{self.path} is silent, and so no sound to find")
        return samples


@functools.lru_cache(maxsize=512)
def _decoded(path: Path, identity: str) -> Samples:
    """The whole file; `identity` makes a changed file another one."""
    samples = FileSource(path).load(RATE_HZ).samples
    samples.setflags(write=False)
    return samples


def _first(samples: Samples, n_samples: int) -> Samples:
    if len(samples) <= n_samples:
        return samples
    cut = samples[:n_samples].copy()
    n_fade = min(round(_FADE_S * RATE_HZ), n_samples)
    cut[-n_fade:] *= np.linspace(1.0, 0.0, n_fade, dtype=np.float32)
    return cut


def power(samples: Samples) -> float:
    """Mean square, without loss over long spans; 0 of no samples."""
    if len(samples) <= _SQUARED_AT_ONCE:
        return float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    starts = range(0, len(samples), _SQUARED_AT_ONCE)
    parts = (np.square(samples[start : start + _SQUARED_AT_ONCE], dtype=np.float64) for start in starts)
    return math.fsum(float(part.sum()) for part in parts) / len(samples)


@functools.cache
def starter_sounds(labels: tuple[str, ...], shortest_s: float = 0.0) -> tuple[Clip, ...]:
    """Clips of the starter's test split with one of these labels, in the order of its manifest.

    Args:
        labels: names of ESC-50's classes.
        shortest_s: shorter clips are left out.
    """
    return tuple(clip for clip in _test_split() if clip.label in labels and _seconds(clip) >= shortest_s)


@functools.cache
def starter_labels() -> tuple[str, ...]:
    """The classes of which the starter's test split has clips, sorted."""
    return tuple(sorted({clip.label for clip in _test_split()}))


def _test_split() -> Iterable[Clip]:
    task = esc50(split="test")
    assert task.read_starter is not None and task.starter_root is not None
    for item in task.read_starter(task.starter_root).items:
        assert isinstance(item.source, FileSource)
        yield Clip(item.references[0], item.source.path, item.cluster)


def _seconds(clip: Clip) -> float:
    return FileSource(clip.path).duration_s() or 0.0


@functools.cache
def starter_words() -> tuple[Clip, ...]:
    """The generated words of speech_commands' starter set; `recording` is the voice."""
    task = speech_commands()
    assert task.read_starter is not None and task.starter_root is not None
    clips = []
    for item in task.read_starter(task.starter_root).items:
        assert isinstance(item.source, FileSource)
        clips.append(Clip(item.references[0], item.source.path, item.cluster))
    return tuple(clips)


def folder_labels(folder: Path) -> tuple[str, ...]:
    """Names of the folders in a user's folder that hold audio files, sorted.

    Raises:
        MissingDataError: there is no such folder, or it has fewer than two of them.
    """
    if not folder.is_dir():
        raise MissingDataError(f"events={folder}: there is no such folder.")
    labels = tuple(sorted(path.name for path in folder.iterdir() if next(audio_files_in(path), None)))
    if len(labels) < 2:
        raise MissingDataError(f"events={folder}: expected one folder a label with audio files in it, two at least.")
    return labels


def folder_sounds(folder: Path, labels: Sequence[str]) -> tuple[Clip, ...]:
    """The audio files of a user's folder; each is a recording of its own."""
    return tuple(
        Clip(label, path, f"{label}/{path.name}") for label in labels for path in audio_files_in(folder / label)
    )
