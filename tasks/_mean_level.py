"""Noise at the mean that DASS subtracts: the nearest that sound comes to a haystack of normalised zeros.

The mean and the front end are DASS's (arXiv 2407.04082; repository Saurabhbhati/DASS, src/dataloader.py).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from tasks._backgrounds import NOISE_LIMIT, WhiteNoise
from tasks._clips import Samples
from tasks._long_task import RATE_HZ

# Kaldi's front end as DASS uses it: 25 ms Hann windows padded to 512, pre-emphasis 0.97, 128 mel bins from 20 Hz.
_N_FFT = 512
_WINDOW = 400
_PREEMPHASIS = 0.97
_N_MELS = 128
_LOW_HZ = 20.0
_MEAN_LOG_ENERGY = -4.2677393  # DASS: src/dataloader.py


@dataclass(frozen=True)
class MeanLevelNoise:
    """Gaussian noise whose expected energy in every Kaldi mel bin is exp(-4.2677393), an absolute level.

    The published haystack is 0 after normalisation in every frame and bin, which no sound is: a sound's energies
    fluctuate, and the narrow lowest bins share frequencies, so that they cannot all have the same. Measured over 60 s
    of it, a normalised bin has a mean of -0.07 to 0.01 and a standard deviation of about 0.1 between frames; but 9 of
    the lowest 20 bins lie at -0.07 to -0.37, and number 3, into which no frequency falls, at -1.28.
    """

    seed: int

    def section(self, start: int, stop: int) -> Samples:
        """White noise through a filter of linear phase."""
        taps = _mean_level_taps()
        white = WhiteNoise(self.seed).section(start, stop + len(taps) - 1)
        return _convolved(white, taps)

    def peak(self) -> float:
        """As if every sample under the filter were at its limit."""
        return NOISE_LIMIT * float(np.abs(_mean_level_taps()).sum())

    def identity(self) -> str:
        """Name and seed."""
        return f"mean-level noise {self.seed}"


@functools.cache
def _mean_level_taps() -> Samples:
    """A filter that gives white noise of variance 1 the same expected energy in every mel bin.

    A mel bin adds up the power of its frequencies, so each frequency's is the wanted energy over the width of the bins
    there, over what pre-emphasis and window do to it.
    """
    frequency = np.fft.rfftfreq(_N_FFT, 1 / RATE_HZ)
    window = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(_WINDOW) / (_WINDOW - 1))
    low, high = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (_LOW_HZ, RATE_HZ / 2))
    mel_width = (high - low) / (_N_MELS + 1)
    # A triangle's area is its half width: in mel, then in Hz, then in bins of the transform.
    bins_of_mel = mel_width * (700.0 + frequency) / 1127.0 / (RATE_HZ / _N_FFT)
    emphasis = np.abs(1.0 - _PREEMPHASIS * np.exp(-2j * math.pi * frequency / RATE_HZ)) ** 2
    gain = np.sqrt(math.exp(_MEAN_LOG_ENERGY) / (bins_of_mel * emphasis * np.square(window).sum()))
    gain[frequency < _LOW_HZ] = 0.0
    taps = np.roll(np.fft.irfft(gain), _N_FFT // 2) * np.hanning(_N_FFT + 1)[:_N_FFT]
    return taps.astype(np.float32)


def _convolved(samples: Samples, taps: Samples) -> Samples:
    """The part of a convolution in which the filter lies wholly within the samples; block by block through FFTs."""
    n_valid = len(samples) - len(taps) + 1
    size = 1 << 14
    spectrum = np.fft.rfft(taps, size)
    step = size - len(taps) + 1
    result = np.empty(n_valid, dtype=np.float32)
    for start in range(0, n_valid, step):
        piece = np.fft.irfft(np.fft.rfft(samples[start : start + size], size) * spectrum, size)
        end = min(start + step, n_valid)
        result[start:end] = piece[len(taps) - 1 : len(taps) - 1 + end - start]
    return result
