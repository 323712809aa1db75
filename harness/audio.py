"""Sources of audio: something cheap to hold that becomes one mono clip at a model's sample rate when it is heard.

Files are read in blocks, mixed down (mean of the channels) and resampled as they come. `blocks` hands them on one by
one; `load` gathers them, so that only the result is ever whole in memory: three hours at 16 kHz are 0.7 GB, whatever
the file's own rate and channels.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from harness.clips import SILENCE_PEAK, clip_of
from harness.contracts import AudioClip, AudioFacts
from harness.errors import AudioError
from harness.hashing import file_sha256

Samples = npt.NDArray[np.float32]

_BLOCK_SAMPLES = 1 << 19  # over all channels: 2 MB
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")
# libsndfile shortens a cut WAV file to what is there, and says so only in its log. Programs that write to a pipe put
# a size near 2**32 there, which promises nothing.
_CUT_WAV = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_WAV_SIZE_UNKNOWN = 0xFFFF0000
# FLAC written to a pipe says 0 samples, which libsndfile reports as about 2**63 frames. No real file comes near.
_FRAMES_UNKNOWN = 1 << 62


@dataclass(frozen=True)
class FileSource:
    """An audio file, in any format that libsndfile reads.

    Notes of its clips: "silent"; "above full scale (peak ...)" for floating-point files that exceed 1.0, whose
    samples are left as they are; "ends early (...)" when the header promises more than the file holds. An OGG file that
    was cut has no such note: its length stands on its last page alone, so a shorter one looks whole.
    """

    path: Path

    def load(self, sample_rate_hz: int) -> AudioClip:
        """Decode the whole file.

        Raises:
            AudioError: the file is missing, empty, unreadable, without samples, not finite, or too long for memory.
        """
        return clip_of(self, sample_rate_hz, str(self.path))

    def blocks(self, sample_rate_hz: int) -> Generator[Samples, None, AudioFacts]:
        """The samples of `load`, a few megabytes at a time.

        Raises:
            AudioError: as `load` would, when the trouble is reached.
        """
        _require_bytes(self.path)
        with _open(self.path) as file:
            mixdown = _Mixdown(file.samplerate, sample_rate_hz, str(self.path))
            for block in _blocks(file, self.path):
                yield mixdown.add(block)
            yield mixdown.rest()
            return mixdown.facts(file.channels, _file_notes(file, mixdown))

    def identity(self) -> str:
        """SHA-256 of the file's bytes. Never fails: a file that cannot be read is identified by saying so."""
        try:
            status = self.path.stat()
            return _file_digest(self.path, status.st_size, status.st_mtime_ns)
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return f"unreadable: {error.strerror}"
        except ValueError as error:  # a name that no file can have
            return f"unreadable: {error}"

    def duration_s(self) -> float | None:
        """Length in seconds as the header has it; None when it cannot be read or does not tell."""
        try:
            _require_bytes(self.path)
            info = soundfile.info(str(self.path))
        except (AudioError, soundfile.SoundFileError, TypeError):
            return None
        frames = _known_frames(info.frames)
        return None if frames is None else float(frames / info.samplerate)


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Audio that is already in memory: generated, or of a test.

    `samples` has shape (n_samples,) or (n_samples, n_channels), full scale at 1.0.
    """

    samples: npt.NDArray[np.floating]
    rate_hz: int

    def load(self, sample_rate_hz: int) -> AudioClip:
        """Mix to mono and resample.

        Raises:
            AudioError: there are no samples, or they are not finite.
        """
        return clip_of(self, sample_rate_hz, "the array")

    def blocks(self, sample_rate_hz: int) -> Generator[Samples, None, AudioFacts]:
        """The samples of `load`, a few megabytes at a time.

        Raises:
            AudioError: as `load` would, when the trouble is reached.
        """
        samples = self._with_channels()
        mixdown = _Mixdown(self.rate_hz, sample_rate_hz, "the array")
        step = max(1, _BLOCK_SAMPLES // samples.shape[1])
        for start in range(0, len(samples), step):
            yield mixdown.add(samples[start : start + step])
        yield mixdown.rest()
        return mixdown.facts(samples.shape[1], [])

    def identity(self) -> str:
        """SHA-256 of rate, shape and samples."""
        samples = self._with_channels()
        digest = hashlib.sha256(f"{self.rate_hz} {samples.shape} ".encode())
        digest.update(np.ascontiguousarray(samples).tobytes())
        return digest.hexdigest()

    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate_hz

    def _with_channels(self) -> Samples:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused when it is heard
            samples = np.asarray(self.samples, dtype=np.float32)
        if samples.ndim not in (1, 2) or 0 in samples.shape[1:]:
            raise AudioError(f"the array's shape is {samples.shape} instead of samples, or samples by channels")
        return samples if samples.ndim == 2 else samples[:, np.newaxis]


class _Mixdown:
    """Blocks of shape (n, channels) go in one by one, blocks of mono samples at the wanted rate come out."""

    def __init__(self, source_rate_hz: int, rate_hz: int, name: str) -> None:
        self.frames = 0
        self.peak = 0.0  # over all channels
        self._mono_peak = 0.0
        self._n_given = 0
        self._rates = (source_rate_hz, rate_hz)
        self._name = name
        self._resampler = None if source_rate_hz == rate_hz else soxr.ResampleStream(source_rate_hz, rate_hz, 1)

    def add(self, block: Samples) -> Samples:
        """Take the next block, of at least one frame, and give what it makes ready: perhaps nothing.

        Raises:
            AudioError: it holds NaN or infinite samples, or samples so large that what is made of them does.
        """
        block_peak = _peak(block)
        if not np.isfinite(block_peak):
            self._refuse_not_finite(block)
        mono = _mean_of_channels(block)
        self.peak = max(self.peak, block_peak)
        self._mono_peak = max(self._mono_peak, _peak(mono))
        self.frames += len(block)
        return self._checked(self._resampler.resample_chunk(mono) if self._resampler else mono)

    def rest(self) -> Samples:
        """What is left after the last block.

        Raises:
            AudioError: nothing was heard, less than one sample of it is left, or what is left is not finite.
        """
        if self.frames == 0:
            raise AudioError(f"{self._name} holds no samples")
        nothing = np.empty(0, dtype=np.float32)
        rest = self._checked(self._resampler.resample_chunk(nothing, last=True) if self._resampler else nothing)
        if self._n_given == 0:
            raise AudioError(f"{self._name} is shorter than one sample at {self._rates[1]} Hz")
        return rest

    def facts(self, channels: int, notes: list[str]) -> AudioFacts:
        """What is known once all was heard."""
        silent = ["silent"] if self._mono_peak < SILENCE_PEAK else []
        return AudioFacts(self._rates[0], channels, self.frames, (*silent, *notes))

    def _checked(self, samples: Samples) -> Samples:
        if len(samples) and not np.isfinite(_peak(samples)):
            raise AudioError(f"{self._name} is too loud for 32-bit floats when it is mixed and resampled")
        self._n_given += len(samples)
        return samples

    def _refuse_not_finite(self, block: Samples) -> None:
        first = int(np.argmin(np.isfinite(block).all(axis=1)))
        second = (self.frames + first) / self._rates[0]
        raise AudioError(f"{self._name} holds NaN or infinite samples, the first at {second:.3f} s")


def _peak(samples: Samples) -> float:
    """Largest magnitude; NaN when there is one."""
    return float(max(samples.max(), -samples.min()))


def _mean_of_channels(block: Samples) -> Samples:
    # Channel by channel is several times faster than a mean over the short axis; dividing first keeps sums in range.
    n_channels = np.float32(block.shape[1])
    mono = block[:, 0] / n_channels
    with np.errstate(over="ignore"):  # rounding may still reach infinity, which is refused afterwards
        for channel in range(1, block.shape[1]):
            mono += block[:, channel] / n_channels
    return mono


def _require_bytes(path: Path) -> None:
    if not path.exists():
        raise AudioError(f"no such file: {path}")
    if not path.is_file():
        raise AudioError(f"{path} is not a file")
    if path.stat().st_size == 0:
        raise AudioError(f"{path} is empty (0 bytes)")


def _open(path: Path) -> soundfile.SoundFile:
    try:
        file = soundfile.SoundFile(str(path))
    # soundfile raises TypeError for headerless files, whose rate only the caller could know.
    except (soundfile.SoundFileError, TypeError) as error:
        raise AudioError(f"{path} cannot be decoded: {_reason(error)}") from error
    # soundfile would seek after each block, which fails at the end of a stream of unknown length.
    file.seekable = lambda: False
    return file


def _known_frames(frames: int) -> int | None:
    """The header's number of frames; None when it stands for "unknown"."""
    return frames if frames < _FRAMES_UNKNOWN else None


def _blocks(file: soundfile.SoundFile, path: Path) -> Iterator[Samples]:
    """Blocks of shape (n, channels) until the decoder has no more."""
    step = max(1, _BLOCK_SAMPLES // file.channels)
    while True:
        try:
            block: Samples = file.read(step, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise AudioError(f"{path} cannot be decoded: {_reason(error)}") from error
        if not len(block):
            return
        yield block


def _reason(error: Exception) -> str:
    """libsndfile's own words, without the path that soundfile puts before them."""
    return getattr(error, "error_string", str(error)).strip().rstrip(".")


def _file_notes(file: soundfile.SoundFile, mixdown: _Mixdown) -> list[str]:
    notes = []
    if file.subtype in _FLOAT_SUBTYPES and mixdown.peak > 1.0:
        notes.append(f"above full scale (peak {mixdown.peak:.3g})")
    if mixdown.frames < (_known_frames(file.frames) or 0):
        notes.append(f"ends early ({mixdown.frames} of {file.frames} frames)")
    cut = _CUT_WAV.search(file.extra_info)
    if cut and int(cut[2]) < int(cut[1]) < _WAV_SIZE_UNKNOWN:
        notes.append(f"ends early ({cut[2]} of {cut[1]} bytes)")
    return notes


@functools.cache
def _file_digest(path: Path, size: int, mtime_ns: int) -> str:
    """SHA-256 of a file, read once per process as long as size and time of change stay the same."""
    return file_sha256(path)
