"""Log-mel filter banks as Kaldi computes them, in plain torch.

The front end of AST, LTU and DASS: `torchaudio.compliance.kaldi.fbank` with htk_compat, a Hanning window, 128 mel
bins, 10 ms shift, no dither and defaults elsewhere (25 ms frames, pre-emphasis 0.97, DC removed per frame, 20 Hz to
8 kHz, snip edges). Sources: YuanGongND/ltu src/ltu/inference_batch.py, Saurabhbhati/DASS src/dataloader.py.

With 128 bins at 16 kHz one mel filter (number 3) covers no FFT bin; Kaldi's own library refuses that, torchaudio
gives log(eps) there, and published checkpoints were trained with it. So it is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

SAMPLE_RATE_HZ = 16_000
FRAME_LENGTH = 400  # samples: 25 ms
FRAME_SHIFT = 160  # samples: 10 ms per frame
FRAMES_PER_S = SAMPLE_RATE_HZ / FRAME_SHIFT
N_FFT = 512  # the next power of two above FRAME_LENGTH
N_MELS = 128
PREEMPHASIS = 0.97
LOW_HZ = 20.0
HIGH_HZ = SAMPLE_RATE_HZ / 2
# Frames that are held at once: one hour of audio must not exist as overlapping frames.
BLOCK_FRAMES = 2048
# log(eps) of float32: what `fbank` makes of digital silence.
SILENCE_LEVEL = math.log(2**-23)
# What a clip of whole hops lacks at its end, where no whole window fits any more (snip edges).
EDGE_FRAMES = 2


@dataclass(frozen=True)
class Normalisation:
    """`(log_mel - mean) / scale`, and what follows a clip that is too short, as a checkpoint's authors trained it.

    With `pads_with_silence` a clip goes on in digital silence, as clips placed in silence did in training; else in
    frames of zeros, as the published loaders have it: a steady sound of medium level, which a model that never heard
    it takes for one.
    """

    mean: float
    scale: float
    pads_with_silence: bool = False


# YuanGongND/ltu src/ltu/inference_batch.py: (x + 5.081) / 4.4849.
LTU_NORMALISATION = Normalisation(mean=-5.081, scale=4.4849)
# Saurabhbhati/DASS src/dataloader.py: (x + 4.2677393) / (2 * 4.5689974).
DASS_NORMALISATION = Normalisation(mean=-4.2677393, scale=2 * 4.5689974)
# YuanGongND/ast egs/audioset, and transformers' ASTFeatureExtractor: the same, from the training set of both.
AST_NORMALISATION = DASS_NORMALISATION


def n_frames(n_samples: int) -> int:
    """Frames that fit whole into `n_samples` (snip edges)."""
    return max(0, 1 + (n_samples - FRAME_LENGTH) // FRAME_SHIFT)


def _mel(hz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hz / 700.0)


@lru_cache(maxsize=4)
def _mel_filters(n_mels: int) -> Tensor:
    """Triangles in the mel domain, shape (N_FFT // 2 + 1, n_mels); the Nyquist bin has no weight, as in Kaldi."""
    low, high = _mel(torch.tensor([LOW_HZ, HIGH_HZ], dtype=torch.float64))
    step = (high - low) / (n_mels + 1)
    left = low + step * torch.arange(n_mels, dtype=torch.float64)
    mel_of_bin = _mel(torch.arange(N_FFT // 2, dtype=torch.float64) * SAMPLE_RATE_HZ / N_FFT)[:, None]
    rising = (mel_of_bin - left) / step
    falling = (left + 2 * step - mel_of_bin) / step
    triangles = torch.clamp(torch.minimum(rising, falling), min=0.0)
    return torch.cat([triangles, torch.zeros(1, n_mels, dtype=torch.float64)]).float()


@lru_cache(maxsize=1)
def _window() -> Tensor:
    return torch.hann_window(FRAME_LENGTH, periodic=False)


def _log_mel_of_frames(frames: Tensor, n_mels: int) -> Tensor:
    """Frames of samples, shape (n, FRAME_LENGTH), to log-mel energies, shape (n, n_mels)."""
    frames = frames - frames.mean(dim=1, keepdim=True)
    previous = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    frames = (frames - PREEMPHASIS * previous) * _window()
    power = torch.fft.rfft(frames, n=N_FFT).abs().square()
    energy = power @ _mel_filters(n_mels)
    return torch.log(torch.clamp(energy, min=torch.finfo(torch.float32).eps))


def fbank(samples: Tensor, n_mels: int = N_MELS) -> Tensor:
    """Log-mel energies of one mono clip at 16 kHz.

    Args:
        samples: shape (n_samples,), float32, full scale at 1.0. The clip's mean is subtracted first, as LTU does.
            A clip under 25 ms is padded with zeros to one frame.

    Returns:
        shape (n_frames, n_mels), float32, natural logarithm, not normalised; floor log(eps) = -15.94.
    """
    return torch.cat(list(fbank_stream([samples], samples.mean(), n_mels)))


def fbank_stream(sample_blocks: Iterable[Tensor], mean: Tensor | float = 0.0, n_mels: int = N_MELS) -> Iterator[Tensor]:
    """`fbank` of a clip that comes in blocks and is never held whole; the blocks may be cut anywhere.

    Args:
        sample_blocks: shape (n,) each, float32, in order.
        mean: of the whole clip, to be subtracted as LTU does. Where it cannot be known beforehand, 0: every frame loses
            its own mean anyway, so only rounding differs.

    Yields:
        shape (at most BLOCK_FRAMES, n_mels); together exactly what `fbank` gives.
    """
    block_samples = (BLOCK_FRAMES - 1) * FRAME_SHIFT + FRAME_LENGTH
    rest, n_done = torch.zeros(0), 0
    for block in sample_blocks:
        rest = torch.cat([rest, block]) if len(rest) else block
        while len(rest) >= block_samples:
            yield _log_mel_of_samples(rest[:block_samples] - mean, n_mels)
            rest, n_done = rest[BLOCK_FRAMES * FRAME_SHIFT :], n_done + BLOCK_FRAMES
    if not n_done and len(rest) < FRAME_LENGTH:
        yield _log_mel_of_samples(functional.pad(rest - mean, (0, FRAME_LENGTH - len(rest))), n_mels)
    elif len(rest) >= FRAME_LENGTH:
        yield _log_mel_of_samples(rest - mean, n_mels)


def _log_mel_of_samples(samples: Tensor, n_mels: int) -> Tensor:
    return _log_mel_of_frames(samples.unfold(0, FRAME_LENGTH, FRAME_SHIFT), n_mels)


def pad_frames(features: Tensor, n: int, how: Normalisation | None = None) -> Tensor:
    """Append frames up to `n`, before normalisation: of zeros, as the published loaders do, or as `how` says.

    With silence, the last EDGE_FRAMES of the `n` still are zeros, which no sample reaches: what comes out is what
    `fbank` makes of a clip that goes on in silence for `n` hops, padded as published, but for the two or three frames
    whose window holds the clip's end and silence both: they are silence here.

    Args:
        features: shape (..., n_frames, n_mels).
    """
    if how is not None and how.pads_with_silence:
        silent = max(0, n - EDGE_FRAMES - features.shape[-2])
        features = functional.pad(features, (0, 0, 0, silent), value=SILENCE_LEVEL)
    missing = n - features.shape[-2]
    return functional.pad(features, (0, 0, 0, missing)) if missing > 0 else features


def normalise(features: Tensor, how: Normalisation) -> Tensor:
    """Shift and scale to what the checkpoint saw in training."""
    return (features - how.mean) / how.scale


def normalised_stream(
    log_mel_blocks: Iterable[Tensor], how: Normalisation, least_frames: int, multiple: int
) -> Iterator[Tensor]:
    """Features as an encoder wants them, block by block: padded at the end (`pad_frames`), then normalised.

    Args:
        log_mel_blocks: shape (n, n_mels) each, as `fbank_stream` gives them.
        least_frames: a shorter clip is padded to it; any clip is padded to a multiple of `multiple`.
    """
    heard, n_mels = 0, N_MELS
    for block in log_mel_blocks:
        heard, n_mels = heard + len(block), block.shape[-1]
        yield normalise(block, how)
    missing = round_up(max(heard, least_frames), multiple) - heard
    if missing:
        yield normalise(pad_frames(torch.zeros(0, n_mels), missing, how), how)


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `n`."""
    return math.ceil(n / multiple) * multiple
