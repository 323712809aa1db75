"""What measurements of cost ask: one question about bursts of noise, of any length, never in memory as a whole."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.clips import LONG_S, UnreadClip, clip_of
from harness.contracts import AudioClip

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Samples = npt.NDArray[np.float32]

PROMPT = "What do you hear in this audio clip?"
QUIET, LOUD = 0.003, 0.2
BURST_S = 0.25
# Seconds that are drawn; longer sound is made of them in a drawn order, which costs next to nothing.
_BANK_S = 16


@dataclass(frozen=True)
class NoiseBursts:
    """A `BlockSource`: white noise that is loud for a quarter of each second.

    Two sources that differ in `ending` alone give the same samples but for the last second (all, where there is less).
    """

    length_s: float
    seed: int = 0
    ending: int = 0

    def blocks(self, sample_rate_hz: int) -> Generator[Samples, None, None]:
        """One second at a time, and at the end whatever is missing to the length."""
        import numpy as np

        n_samples = max(1, round(self.length_s * sample_rate_hz))
        n_last = min(sample_rate_hz, n_samples)
        bank = _seconds_of_noise(_BANK_S, sample_rate_hz, (self.seed, 0))
        order = np.random.default_rng((self.seed, 1))
        missing = n_samples - n_last
        while missing:
            block = bank[order.integers(_BANK_S)][:missing]
            missing -= len(block)
            yield block.copy()
        yield _seconds_of_noise(1, sample_rate_hz, (self.seed, 2, self.ending))[0, :n_last]

    def load(self, sample_rate_hz: int) -> AudioClip:
        """All of it in memory."""
        return clip_of(self, sample_rate_hz, "generated noise")

    def heard_as(self, sample_rate_hz: int) -> AudioClip:
        """As items of a task reach a model: long sound unread."""
        return UnreadClip(self, sample_rate_hz) if self.length_s > LONG_S else self.load(sample_rate_hz)

    def identity(self) -> str:
        """What the samples follow from."""
        return f"noise bursts {self.length_s:g} s, seed {self.seed}, ending {self.ending}"

    def duration_s(self) -> float:
        """Length in seconds."""
        return self.length_s


def _seconds_of_noise(n: int, sample_rate_hz: int, seed: tuple[int, ...]) -> Samples:
    """Shape (n, sample_rate_hz), full scale at 1.0."""
    import numpy as np

    noise = np.random.default_rng(seed).standard_normal((n, sample_rate_hz), dtype=np.float32)
    noise[:, : round(BURST_S * sample_rate_hz)] *= LOUD
    noise[:, round(BURST_S * sample_rate_hz) :] *= QUIET
    return np.clip(noise, -1.0, 1.0, out=noise)
