"""Clips out of blocks of samples: gathered in memory, or left unread until a model hears them.

A long clip reaches a model unread. Whatever is wrong with it then shows only while the model listens, and what is to
be noted of it only at its end; `UnreadClip` keeps both for the one who asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from harness.contracts import AudioClip, AudioFacts, BlockSource
from harness.errors import AudioError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Samples = npt.NDArray[np.float32]

SILENCE_PEAK = 1e-7
"""A clip whose mono mix nowhere reaches this is silent: it is below one step of a 24-bit file (1.2e-7)."""

LONG_S = 120.0
"""Clips that last longer reach a model unread. Their samples would take 7.7 MB at 16 kHz."""


def clip_of(source: BlockSource, sample_rate_hz: int, name: str) -> AudioClip:
    """All samples of a source in memory: how a source that has blocks may define `load`.

    Args:
        source: what to hear.
        sample_rate_hz: the clip's rate.
        name: what an error calls the audio.

    Raises:
        AudioError: as `blocks`; or the audio is too long for memory.
    """
    clip = UnreadClip(source, sample_rate_hz)
    samples = gathered(clip.blocks(), sample_rate_hz, source.duration_s() or 0.0, name)
    return AudioClip(samples, sample_rate_hz, clip.source_rate_hz, clip.source_channels, clip.source_frames, clip.notes)


def gathered(blocks: Iterable[Samples], sample_rate_hz: int, expected_s: float, name: str) -> Samples:
    """Blocks end to end, in one array.

    Args:
        blocks: shape (n,) each.
        sample_rate_hz: their rate.
        expected_s: seconds that they are thought to last together; too few cost time and memory, nothing else.
        name: what an error calls the audio.

    Raises:
        AudioError: memory does not hold them.
    """
    import numpy as np

    try:
        # Memory that is never written is never taken, so a header that promises too much costs nothing here.
        samples = np.empty(math.ceil(expected_s * sample_rate_hz) + 2, dtype=np.float32)
    except (MemoryError, ValueError) as error:
        hours = expected_s / 3600
        raise AudioError(f"{name} is too long for memory: its header says {hours:.1f} hours") from error
    filled = 0
    for block in blocks:
        end = filled + len(block)
        if end > len(samples):  # the header promised too little, or nothing
            samples = _grown(samples[:filled], 2 * end, sample_rate_hz, name)
        samples[filled:end] = block
        filled = end
    return samples[:filled]


def _grown(samples: Samples, n_samples: int, sample_rate_hz: int, name: str) -> Samples:
    import numpy as np

    try:
        larger = np.empty(n_samples, dtype=np.float32)
    except MemoryError as error:
        hours = len(samples) / sample_rate_hz / 3600
        raise AudioError(f"{name} is too long for memory, which ended after {hours:.1f} hours") from error
    larger[: len(samples)] = samples
    return larger


class UnreadClip(AudioClip):
    """A clip that is read while it is heard, block by block, and as often as it is heard.

    All that an `AudioClip` tells is exact here too, but it costs reading: `samples` are gathered at first use and kept;
    of the rest, but for the sample rate, nothing is known before `blocks` came to an end once, so asking earlier reads
    the clip through and keeps no samples.

    `trouble` is the error, type and message, that ended the last reading; `read_s` the seconds that all readings took.
    """

    # The dataclass's fields are properties here, so its own __init__ has nothing to set.
    def __init__(self, source: BlockSource, sample_rate_hz: int) -> None:
        self.trouble: tuple[str, str] | None = None
        self.read_s = 0.0
        self._source = source
        self._sample_rate_hz = sample_rate_hz
        self._samples: Samples | None = None
        self._end: tuple[int, AudioFacts] | None = None

    def blocks(self) -> Iterator[Samples]:
        """The samples in order, from memory where they are there, else read anew.

        Raises:
            AudioError: the audio is found bad on the way.
        """
        if self._samples is not None:
            yield from super().blocks()
            return
        self.trouble = None
        blocks = self._source.blocks(self._sample_rate_hz)
        n_samples, peak = 0, 0.0
        while True:
            block, facts = self._next(blocks)
            if block is None:
                break
            n_samples += len(block)
            peak = max(peak, float(block.max()), -float(block.min()))
            yield block
        notes = ("silent",) if peak < SILENCE_PEAK else ()
        self._end = n_samples, facts or AudioFacts(self._sample_rate_hz, 1, n_samples, notes)

    def _next(self, blocks: Iterator[Samples]) -> tuple[Samples | None, AudioFacts | None]:
        """The next block that holds anything; after the last, None and what the source returned."""
        started = time.perf_counter()
        try:
            while not len(block := next(blocks)):
                pass
            return block, None
        except StopIteration as end:
            return None, end.value
        except Exception as error:
            self.trouble = type(error).__name__, str(error)
            raise
        finally:
            self.read_s += time.perf_counter() - started

    def read_to_end(self) -> None:
        """Make sure that all of it was heard at least once.

        Raises:
            AudioError: it cannot be.
        """
        self._heard()

    def _heard(self) -> tuple[int, AudioFacts]:
        """Number of samples, and facts."""
        if self._end is None:
            for _ in self.blocks():
                pass
        assert self._end is not None
        return self._end

    @property
    def is_unread(self) -> bool:
        """Whether no one has asked for `samples` yet."""
        return self._samples is None

    @property
    def samples(self) -> Samples:
        """All samples, gathered at first use."""
        if self._samples is None:
            expected_s = self._source.duration_s() or 0.0
            self._samples = gathered(self.blocks(), self._sample_rate_hz, expected_s, "the clip")
        return self._samples

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the samples."""
        return self._sample_rate_hz

    @property
    def n_samples(self) -> int:
        """Length of the clip in samples."""
        return self._heard()[0]

    @property
    def source_rate_hz(self) -> int:
        """Of the source."""
        return self._heard()[1].source_rate_hz

    @property
    def source_channels(self) -> int:
        """Of the source."""
        return self._heard()[1].source_channels

    @property
    def source_frames(self) -> int:
        """Of the source."""
        return self._heard()[1].source_frames

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of the clip."""
        return self._heard()[1].notes
