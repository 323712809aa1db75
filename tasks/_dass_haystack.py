"""DASS's needle in a haystack (arXiv 2407.04082; repository Saurabhbhati/DASS, src/run_NIAH.py, dataloader_niah.py).

As published: the needle is a clip's normalised fbank of 1024 frames; the haystack, L - 1024 frames, is cut at frame
int(L * t) and the needle put between, in the feature domain. The haystack is 0 (the normalised mean), white noise or
babble at a ratio to the clip's level, 10 dB by default.

What audio can do of this, and does here: the same geometry (L frames of 10 ms in all, a needle of 1024 of them, at the
same frame), no background under the needle, haystack noise without a mean at the ratio to the clip's level, the clip at
its own level and padded or cut to 1024 frames.

What it cannot do: features at the cut are computed over both sides here (2 frames each), and never were there; no sound
has features that are 0 in every frame: `silence` and `mean_level` are the two that stand in for it. The score is
another too: labels of this task, not AudioSet's 527.

Put right: near the end, where int(L * t) + 1024 > L, the published code takes L - t for the place, a fraction by which
slicing fails. Here it is L - 1024, the last place there is.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.clips import clip_of
from harness.contracts import AudioClip
from tasks._clips import Clip, Samples, power
from tasks._long_audio import PEAK_LIMIT, Part, check_layout, identity_of, mixed_blocks, resampled
from tasks._long_task import RATE_HZ

if TYPE_CHECKING:
    from harness.contracts import AudioFacts
    from tasks._backgrounds import Background

NEEDLE_FRAMES = 1024
FRAME = RATE_HZ // 100
NEEDLE_SAMPLES = NEEDLE_FRAMES * FRAME


def needle_frame(n_frames: int, depth: float) -> int:
    """The frame at which the needle begins.

    Args:
        n_frames: of the whole item, at least 1024.
        depth: from 0, the start, to 1, the end.
    """
    return min(int(n_frames * depth), n_frames - NEEDLE_FRAMES)


@dataclass(frozen=True)
class HaystackSource:
    """A clip of 1024 frames put between two parts of a haystack, `n_frames` of 10 ms long.

    `snr_db` is the clip's power over the haystack's; None for a haystack that is silent or has a level of its own.
    """

    n_frames: int
    depth: float
    clip: Clip
    background: Background
    snr_db: float | None

    def load(self, sample_rate_hz: int) -> AudioClip:
        """All blocks together."""
        return clip_of(self, sample_rate_hz, "the generated item")

    def blocks(self, sample_rate_hz: int) -> Generator[Samples, None, AudioFacts | None]:
        """Blocks of 10 s.

        Raises:
            AudioError: a recording cannot be decoded, or the item is shorter than the needle.
        """
        gain, part = self.parts()
        check_layout([part], self.n_frames * FRAME)
        made = mixed_blocks(self.n_frames * FRAME, self.background, gain, [part])
        yield from made if sample_rate_hz == RATE_HZ else resampled(made, sample_rate_hz)
        return None

    def identity(self) -> str:
        """SHA-256 of all parameters and of the files that the audio is made of."""
        return identity_of(
            "haystack", self.n_frames, self.depth, self.clip.identity(), self.background.identity(), self.snr_db
        )

    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_frames * FRAME / RATE_HZ

    def parts(self) -> tuple[float, Part]:
        """The haystack's gain, and the needle in its place."""
        start = needle_frame(self.n_frames, self.depth) * FRAME
        sound = self.clip.samples()[:NEEDLE_SAMPLES]
        needle = np.zeros(NEEDLE_SAMPLES, dtype=np.float32)
        needle[: len(sound)] = sound
        if self.snr_db is None:
            return 1.0, Part(start, needle, replaces=True)
        gain = math.sqrt(power(sound)) * 10.0 ** (-self.snr_db / 20.0)
        # Turned down together where noise would pass full scale, as it does at low ratios only.
        scale = min(1.0, PEAK_LIMIT / max(gain * self.background.peak(), 1e-9)) if gain else 1.0
        return gain * scale, Part(start, needle * np.float32(scale), replaces=True)
