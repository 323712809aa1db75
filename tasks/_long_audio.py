"""Sounds in a long background, made block by block when they are heard and never stored.

The signal-to-noise ratio of an event is defined over its own span: the power (mean square) of the event's samples over
that of the background's in the very same samples, full band at 16 kHz. So it is exact at each event, whatever the
background does elsewhere.

Levels: the events of an item have one power together of -26 dB of full scale, unless a sample could then pass 0.9; in
that case the whole item, background and events alike, is turned down by one factor. Nothing is normalised afterwards,
clipped or limited, so the ratio stays as asked.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import soxr

from harness.clips import clip_of
from harness.contracts import AudioClip
from harness.errors import AudioError
from tasks._clips import Clip, Samples, power
from tasks._long_task import RATE_HZ

if TYPE_CHECKING:
    from harness.contracts import AudioFacts
    from tasks._backgrounds import Background

VERSION = 1
"""Rises when the samples of the same parameters change."""

EVENT_RMS = 0.05
PEAK_LIMIT = 0.9

_BLOCK = 10 * RATE_HZ
_QUIETEST_POWER = (
    1e-10  # of a background of power 1: below that, no level of an event makes a ratio that means anything
)


@dataclass(frozen=True)
class Event:
    """A clip, cut to `longest_s` seconds where that is not None, that begins at sample `start` at 16 kHz."""

    clip: Clip
    start: int
    longest_s: float | None = None

    def samples(self) -> Samples:
        """At the clip's own level, shape (n,)."""
        return self.clip.samples(self.longest_s)

    def identity(self) -> list[object]:
        """Where it begins, how long it may be, and the clip's file."""
        return [self.start, self.longest_s, self.clip.identity()]


@dataclass(frozen=True)
class Part:
    """Samples to add from `start` on, ready in level; with `replaces`, the background is silent under them."""

    start: int
    samples: Samples
    replaces: bool = False

    @property
    def stop(self) -> int:
        """The first sample after it."""
        return self.start + len(self.samples)


@dataclass(frozen=True)
class LongSource:
    """Events mixed into a background, `n_samples` long at 16 kHz.

    `snr_db` is that of each event over its own span; None where the background is silent. Events do not overlap.
    """

    n_samples: int
    background: Background
    events: tuple[Event, ...]
    snr_db: float | None

    def load(self, sample_rate_hz: int) -> AudioClip:
        """All blocks together."""
        return clip_of(self, sample_rate_hz, "the generated item")

    def blocks(self, sample_rate_hz: int) -> Generator[Samples, None, AudioFacts | None]:
        """Blocks of 10 s.

        Raises:
            AudioError: a recording cannot be decoded, an event does not fit, or the background is silent under it.
        """
        gain, parts = self.parts()
        made = mixed_blocks(self.n_samples, self.background, gain, parts)
        yield from made if sample_rate_hz == RATE_HZ else resampled(made, sample_rate_hz)
        return None

    def identity(self) -> str:
        """SHA-256 of all parameters and of the files that the audio is made of."""
        events = [event.identity() for event in self.events]
        return identity_of("mixed", self.n_samples, self.background.identity(), events, self.snr_db)

    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / RATE_HZ

    def parts(self) -> tuple[float, tuple[Part, ...]]:
        """The background's gain, and the events in their final level.

        Raises:
            AudioError: as `blocks`.
        """
        levelled = [self._levelled(event) for event in self.events]
        check_layout([part for part, _ in levelled], self.n_samples)
        scale = _common_scale(levelled, self.background.peak())
        parts = tuple(Part(part.start, part.samples * np.float32(scale)) for part, _ in levelled)
        return (0.0 if self.snr_db is None else scale), parts

    def _levelled(self, event: Event) -> tuple[Part, float]:
        """The event at its level above a background of gain 1, and the largest sample of both together."""
        samples = event.samples()
        own = power(samples)
        if self.snr_db is None:
            part = Part(event.start, samples / np.float32(math.sqrt(own)))
            return part, float(np.abs(part.samples).max())
        under = self.background.section(event.start, event.start + len(samples))
        if power(under) < _QUIETEST_POWER:
            raise AudioError(f"the background is silent at {event.start / RATE_HZ:.3f} s, where a sound is hidden")
        part = Part(event.start, samples * np.float32(math.sqrt(power(under) / own) * 10.0 ** (self.snr_db / 20.0)))
        return part, float(np.abs(under + part.samples).max())


def _common_scale(levelled: Sequence[tuple[Part, float]], background_peak: float) -> float:
    """The one factor for background and events."""
    n_samples = sum(len(part.samples) for part, _ in levelled)
    energy = sum(power(part.samples) * len(part.samples) for part, _ in levelled)
    wanted = EVENT_RMS / math.sqrt(energy / n_samples) if n_samples else EVENT_RMS
    peak = max([background_peak, *(peak for _, peak in levelled)])
    return min(wanted, PEAK_LIMIT / peak) if peak > 0.0 else wanted


def check_layout(parts: Sequence[Part], n_samples: int) -> None:
    """Refuse parts that overlap or reach beyond the item.

    Raises:
        AudioError: they do.
    """
    ordered = sorted(parts, key=lambda part: part.start)
    for part, after in zip(ordered, [*(part.start for part in ordered[1:]), n_samples], strict=True):
        if part.start < 0 or part.stop > after:
            raise AudioError(
                f"a sound from {part.start / RATE_HZ:.3f} s to {part.stop / RATE_HZ:.3f} s has no room before "
                f"{after / RATE_HZ:.3f} s"
            )


def mixed_blocks(n_samples: int, background: Background, gain: float, parts: Sequence[Part]) -> Iterator[Samples]:
    """Background and parts at 16 kHz, in blocks of 10 s."""
    for start in range(0, n_samples, _BLOCK):
        stop = min(start + _BLOCK, n_samples)
        block = background.section(start, stop) * np.float32(gain)
        for part in parts:
            low, high = max(start, part.start), min(stop, part.stop)
            if low >= high:
                continue
            if part.replaces:
                block[low - start : high - start] = 0.0
            block[low - start : high - start] += part.samples[low - part.start : high - part.start]
        yield block


def resampled(blocks: Iterator[Samples], sample_rate_hz: int) -> Iterator[Samples]:
    """Blocks at 16 kHz at another rate; the resampler's state goes on from block to block."""
    resampler = soxr.ResampleStream(RATE_HZ, sample_rate_hz, 1)
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True)


def identity_of(*parts: object) -> str:
    """SHA-256 of plain data, this file's version included."""
    return hashlib.sha256(json.dumps(["long audio", VERSION, *parts]).encode()).hexdigest()
