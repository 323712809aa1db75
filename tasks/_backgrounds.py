"""What a sound is hidden in: silence, white noise, babble, ambience, a user's recording, or noise at the mean level.

A background has no end and can be made from any point on: `section` gives the same samples however it is asked. Its
root mean square is about 1; whoever mixes it sets its level.

    silence     zeros
    white       Gaussian noise, cut off at 5 standard deviations so that its peak is known
    babble      12 synthetic voices of speech_commands' starter set, each saying words at random one after another
    ambience    2 s pieces of one starter clip of rain, sea waves, wind, crickets or fire, in random order, cross-faded
    a file      the first 20 minutes of a recording, looped with a cross-fade
    mean_level  noise whose Kaldi mel energies lie at the mean that DASS subtracts (tasks/_mean_level.py)
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from harness.audio import FileSource
from harness.clips import gathered
from harness.errors import AudioError
from tasks._clips import Clip, Samples, power, starter_sounds, starter_words
from tasks._long_task import AMBIENCES, RATE_HZ, seed_of

FILE_SECONDS = 1200.0
"""Of a user's recording no more is kept in memory: 77 MB."""

_BLOCK = RATE_HZ
_FADE = RATE_HZ // 4
_PIECE = 2 * RATE_HZ
_AMBIENCE_SHORTEST_S = 3.5
_WORD_HOP = round(0.8 * RATE_HZ)
_DRAWS = 64
NOISE_LIMIT = 5.0


class Background(Protocol):
    """A sound without end."""

    def section(self, start: int, stop: int) -> Samples:
        """Samples `start` to `stop` (exclusive) at RATE_HZ, float32; the same whatever was asked before.

        Raises:
            AudioError: a recording that it is made of cannot be decoded.
        """

    def peak(self) -> float:
        """No sample is larger than this."""

    def identity(self) -> str:
        """A text that is the same whenever the samples are."""


def make_background(name: str, seed: int) -> Background:
    """The background of a name, or of a file's path.

    Args:
        name: one of BACKGROUNDS, or the path of an audio file.
        seed: decides the noise, the order of the pieces, and which recording an ambience is made of.
    """
    if name == "silence":
        return Silence()
    if name == "white":
        return WhiteNoise(seed)
    if name == "mean_level":
        from tasks._mean_level import MeanLevelNoise

        return MeanLevelNoise(seed)
    if name == "babble":
        return Babble(seed)
    if name == "ambience":
        clips = starter_sounds(AMBIENCES, _AMBIENCE_SHORTEST_S)
        return Ambience(clips[seed_of("ambience", seed) % len(clips)], seed)
    return Recording(Path(name), seed_of("recording", seed))


@dataclass(frozen=True)
class Silence:
    """Zeros."""

    def section(self, start: int, stop: int) -> Samples:
        """Zeros."""
        return np.zeros(stop - start, dtype=np.float32)

    def peak(self) -> float:
        """0."""
        return 0.0

    def identity(self) -> str:
        """Its name."""
        return "silence"


@dataclass(frozen=True)
class WhiteNoise:
    """Gaussian noise of variance 1, cut off at 5 standard deviations (0.6 of a million samples are)."""

    seed: int

    def section(self, start: int, stop: int) -> Samples:
        """Made in blocks of 1 s, each from its own number."""
        parts = [self._block(block)[low:high] for block, low, high in _cuts(start, stop, _BLOCK)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)

    def peak(self) -> float:
        """5."""
        return NOISE_LIMIT

    def identity(self) -> str:
        """Name and seed."""
        return f"white noise {self.seed}"

    def _block(self, block: int) -> Samples:
        noise = _random("white", self.seed, block).standard_normal(_BLOCK, dtype=np.float32)
        return np.clip(noise, -NOISE_LIMIT, NOISE_LIMIT, out=noise)


@dataclass(frozen=True)
class Babble:
    """All voices at once, each with its own phase; a word every 0.8 s, at equal power."""

    seed: int

    def section(self, start: int, stop: int) -> Samples:
        """The sum of the voices."""
        voices = _voices()
        total = np.zeros(stop - start, dtype=np.float32)
        for number, words in enumerate(voices):
            phase = seed_of("phase", self.seed, number) % _WORD_HOP
            _lay(total, start + phase, words, _WORD_HOP, ("babble", self.seed, number))
        return total / np.float32(math.sqrt(len(voices)) * _unit_of_babble())

    def peak(self) -> float:
        """As if every voice were loudest at once, two words each."""
        loudest = sum(2.0 * float(np.abs(words).max()) for words in _voices())
        return loudest / (math.sqrt(len(_voices())) * _unit_of_babble())

    def identity(self) -> str:
        """Name, seed and the words' files."""
        return f"babble {self.seed} {_together(clip.identity() for clip in starter_words())}"


@dataclass(frozen=True)
class Ambience:
    """Pieces of one clip, 2 s each at equal power, drawn at random and cross-faded over 0.25 s at equal power."""

    clip: Clip
    seed: int

    def section(self, start: int, stop: int) -> Samples:
        """The pieces that reach into the section."""
        total = np.zeros(stop - start, dtype=np.float32)
        # One hop on, so that a piece that began before the first sample fades out where the sound begins.
        _lay(total, start + _PIECE, self._pieces(), _PIECE - _FADE, ("ambience", self.seed))
        return total

    def peak(self) -> float:
        """Two pieces fading into one another: cos + sin is at most the square root of 2."""
        return math.sqrt(2.0) * float(np.abs(self._pieces()).max())

    def identity(self) -> str:
        """Name, seed and the clip's file."""
        return f"ambience {self.seed} {self.clip.identity()}"

    def _pieces(self) -> Samples:
        return _pieces_of(self.clip, self.clip.identity())


@dataclass(frozen=True)
class Recording:
    """A user's recording, looped with a cross-fade of 0.25 s; `offset` (any whole number) says where it begins."""

    path: Path
    offset: int

    def section(self, start: int, stop: int) -> Samples:
        """Round and round."""
        loop = _loop_of(self.path, FileSource(self.path).identity())
        return loop[(np.arange(start, stop) + self.offset % len(loop)) % len(loop)]

    def peak(self) -> float:
        """Of the loop."""
        loop = _loop_of(self.path, FileSource(self.path).identity())
        return float(max(loop.max(), -loop.min()))

    def identity(self) -> str:
        """The file's bytes and where it begins."""
        return f"recording {FileSource(self.path).identity()} from {self.offset}"


# --- random numbers that depend on their names alone -----------------------------------------------------------------


def _random(*names: object) -> np.random.Generator:
    return np.random.default_rng(seed_of(*names))


def _together(identities: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(identities).encode()).hexdigest()


# --- laying pieces ---------------------------------------------------------------------------------------------------


def _cuts(start: int, stop: int, size: int) -> Iterator[tuple[int, int, int]]:
    """The blocks of `size` that a section touches: number, and from where to where in the block."""
    for block in range(start // size, -(-stop // size)):
        yield block, max(start - block * size, 0), min(stop - block * size, size)


def _lay(total: Samples, start: int, pieces: Samples, hop: int, names: tuple[object, ...]) -> None:
    """Add the pieces that reach into a section, one every `hop` samples, each drawn by the number of its place.

    Args:
        total: the section, which is added to.
        start: where it begins, counted from the beginning of piece 0; at least 0.
        pieces: shape (n_pieces, n_samples).
        hop: samples from one piece's beginning to the next one's.
        names: decide the draws.
    """
    n_samples = pieces.shape[1]
    stop = start + len(total)
    for place in range(max(0, -(-(start - n_samples + 1) // hop)), -(-stop // hop)):
        piece = pieces[_drawn(names, place // _DRAWS, len(pieces))[place % _DRAWS]]
        begin = place * hop
        low, high = max(start, begin), min(stop, begin + n_samples)
        total[low - start : high - start] += piece[low - begin : high - begin]


@functools.lru_cache(maxsize=256)
def _drawn(names: tuple[object, ...], block: int, n_pieces: int) -> tuple[int, ...]:
    return tuple(int(number) for number in _random(*names, block).integers(0, n_pieces, size=_DRAWS))


@functools.cache
def _voices() -> tuple[Samples, ...]:
    """The words of each voice at power 1, shape (n_words, n_samples)."""
    by_voice: dict[str, list[Samples]] = {}
    for clip in starter_words():
        samples = clip.samples()
        by_voice.setdefault(clip.recording, []).append(samples / np.float32(math.sqrt(power(samples))))
    return tuple(np.stack(words) for _, words in sorted(by_voice.items()))


@functools.cache
def _unit_of_babble() -> float:
    """Root mean square of one voice: its words overlap by 0.2 s, and are silent for a part of that."""
    lasts = _voices()[0].shape[1] / _WORD_HOP
    return math.sqrt(lasts)


@functools.lru_cache(maxsize=8)
def _pieces_of(clip: Clip, identity: str) -> Samples:
    """Pieces at power 1 with their fades, one every 0.25 s of the clip."""
    samples = clip.samples()
    starts = range(0, len(samples) - _PIECE + 1, _FADE)
    pieces = np.stack([samples[start : start + _PIECE] for start in starts])
    pieces = pieces / np.sqrt(np.mean(np.square(pieces, dtype=np.float64), axis=1, keepdims=True))
    rise = np.sin((np.arange(_FADE) + 0.5) / _FADE * (math.pi / 2))
    pieces[:, :_FADE] *= rise
    pieces[:, -_FADE:] *= rise[::-1]
    return np.asarray(pieces, dtype=np.float32)


@functools.lru_cache(maxsize=1)
def _loop_of(path: Path, identity: str) -> Samples:
    """The recording at power 1, its end faded into its beginning.

    Raises:
        AudioError: it cannot be decoded, is silent, or is shorter than two fades.
    """
    samples = _first_of(FileSource(path), round(FILE_SECONDS * RATE_HZ))
    if len(samples) < 2 * _FADE or not samples.any():
        raise AudioError(f"{path} is silent or shorter than {2 * _FADE / RATE_HZ:g} s: it makes no background")
    # In place: the recording is large, and is in memory once.
    samples /= np.float32(math.sqrt(power(samples)))
    loop, tail = samples[:-_FADE], samples[-_FADE:]
    rise = np.sin((np.arange(_FADE) + 0.5) / _FADE * (math.pi / 2)).astype(np.float32)
    loop[:_FADE] = loop[:_FADE] * rise + tail * rise[::-1]
    loop.setflags(write=False)
    return loop


def _first_of(source: FileSource, n_samples: int) -> Samples:
    expected_s = min(source.duration_s() or 0.0, n_samples / RATE_HZ)
    return gathered(_cut_off(source.blocks(RATE_HZ), n_samples), RATE_HZ, expected_s, str(source.path))


def _cut_off(blocks: Iterator[Samples], n_samples: int) -> Iterator[Samples]:
    """The first samples of blocks, and none read beyond them."""
    for block in blocks:
        yield block[:n_samples]
        n_samples -= len(block)
        if n_samples <= 0:
            return
