"""The clips of a task taken away or spoilt, one way a condition: sources of audio around the clips' own sources.

They come in blocks, as long clips do. Only "reversed" holds the clip whole, because no file is read backwards.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from harness.clips import UnreadClip, clip_of
from harness.contracts import AudioClip, AudioFacts, AudioItem, AudioSource, BlockSource
from harness.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Samples = npt.NDArray[np.float32]

CONDITIONS: Mapping[str, str] = {
    "real": "each clip as it is",
    "silence": "silence as long as the clip",
    "noise": "white noise as long and as loud as the clip",
    "other_clip": "the audio of another clip with other labels",
    "reversed": "the clip backwards",
    "no_audio": "the shortest silence that the model takes",
    "last_second_silenced": "the clip with its last second silenced",
}
CONTROLS = ("silence", "noise", "other_clip", "reversed", "no_audio")
"""The conditions that the real clips are compared with."""

_TRIES = 200
_BLOCK_SAMPLES = 1 << 18
_QUIET_RMS = 0.01  # of noise that stands for a silent clip: -40 dB of full scale

Change = Literal["silence", "noise", "reversed", "last_second_silenced"]


@dataclass(frozen=True)
class ChangedSource:
    """A source whose clip is changed after it was heard. `seed` decides the noise."""

    inner: AudioSource
    change: Change
    seed: str

    def load(self, sample_rate_hz: int) -> AudioClip:
        """The changed clip.

        Raises:
            AudioError: the clip itself cannot be heard.
        """
        return clip_of(self, sample_rate_hz, f"the clip ({self.change})")

    def blocks(self, sample_rate_hz: int) -> Generator[Samples, None, AudioFacts]:
        """The changed clip, some of it at a time; its facts stay those of the clip itself.

        Raises:
            AudioError: the clip itself cannot be heard.
        """
        inner = self.inner
        clip = UnreadClip(inner, sample_rate_hz) if isinstance(inner, BlockSource) else inner.load(sample_rate_hz)
        yield from _CHANGES[self.change](clip, self.seed)
        return AudioFacts(clip.source_rate_hz, clip.source_channels, clip.source_frames, clip.notes)

    def identity(self) -> str:
        """Of the clip and of the change."""
        seed = f":{self.seed}" if self.change == "noise" else ""
        return f"{self.change}{seed}:{self.inner.identity()}"

    def duration_s(self) -> float | None:
        """As long as the clip."""
        return self.inner.duration_s()


@dataclass(frozen=True)
class SilentSource:
    """Silence of a fixed length, at any rate."""

    seconds: float

    def load(self, sample_rate_hz: int) -> AudioClip:
        """At least one sample."""
        return clip_of(self, sample_rate_hz, "silence")

    def blocks(self, sample_rate_hz: int) -> Generator[Samples, None, None]:
        """Zeros."""
        import numpy as np

        for n in _lengths(max(1, round(self.seconds * sample_rate_hz))):
            yield np.zeros(n, dtype=np.float32)

    def identity(self) -> str:
        """Its length."""
        return f"silence of {self.seconds!r} s"

    def duration_s(self) -> float:
        """Its length in seconds."""
        return self.seconds


def control_items(
    items: Sequence[AudioItem], seed: int, nothing_s: float
) -> tuple[dict[str, tuple[AudioItem, ...]], tuple[str, ...]]:
    """The items in every condition, and what a reader must know of them.

    Args:
        items: of the task, at least one.
        seed: decides the noise and which other clip an item gets.
        nothing_s: the shortest silence that the model answers.

    Raises:
        UsageError: all clips have the same labels, so that none is another.
    """
    others, n_repeated = other_clips(items, seed)
    changed: dict[str, tuple[AudioItem, ...]] = {"real": tuple(items)}
    kinds: tuple[Change, ...] = ("silence", "noise", "reversed", "last_second_silenced")
    for kind in kinds:
        changed[kind] = tuple(_changed_item(item, kind, seed) for item in items)
    changed["other_clip"] = tuple(
        replace(item, source=items[other].source) for item, other in zip(items, others, strict=True)
    )
    changed["no_audio"] = tuple(replace(item, source=SilentSource(nothing_s)) for item in items)
    notes = (f"other clip: {n_repeated} of {len(items)} clips stand in for more than one item",) if n_repeated else ()
    return {name: changed[name] for name in CONDITIONS}, notes


def nothing_heard(nothing_s: float) -> str:
    """What "no audio" was for this model."""
    return f"no audio: {nothing_s * 1000:.4g} ms of silence, the shortest that the model answers"


def other_clips(items: Sequence[AudioItem], seed: int) -> tuple[list[int], int]:
    """For each item the position of a clip that shares no label and no recording with it.

    A permutation where one is found, so that every clip is heard once: a random one, whose conflicts are swapped away.
    Items that are left over, as where one label has more than half of the clips, get a random clip that fits.

    Returns:
        The positions, and how many items had to be given a clip that another has.

    Raises:
        UsageError: some item has no clip that fits.
    """
    rng = random.Random(f"other clip {seed}")
    references = [frozenset(item.references) for item in items]
    order = list(range(len(items)))
    rng.shuffle(order)

    def fits(item: int, clip: int) -> bool:
        return items[item].cluster != items[clip].cluster and not references[item] & references[clip]

    left: list[int] = []
    for item in range(len(items)):
        if fits(item, order[item]):
            continue
        for _ in range(_TRIES):
            other = rng.randrange(len(items))
            if fits(item, order[other]) and fits(other, order[item]):
                order[item], order[other] = order[other], order[item]
                break
        else:
            left.append(item)
    for item in left:
        fitting = [clip for clip in range(len(items)) if fits(item, clip)]
        if not fitting:
            raise UsageError(f"controls: no clip has other labels than '{items[item].item_id}'. Ask more items.")
        order[item] = rng.choice(fitting)
    return order, len(order) - len(set(order))


def _changed_item(item: AudioItem, change: Change, seed: int) -> AudioItem:
    return replace(item, source=ChangedSource(item.source, change, f"{seed}/{item.item_id}"))


def _silence(clip: AudioClip, seed: str) -> Generator[Samples, None, None]:
    import numpy as np

    for block in clip.blocks():
        yield np.zeros_like(block)


def _reversed(clip: AudioClip, seed: str) -> Generator[Samples, None, None]:
    backwards = clip.samples[::-1]
    for start in range(0, len(backwards), _BLOCK_SAMPLES):
        yield backwards[start : start + _BLOCK_SAMPLES].copy()


def _last_second_silenced(clip: AudioClip, seed: str) -> Generator[Samples, None, None]:
    """What may still turn out to be the last second waits until more has come."""
    import numpy as np

    n_silenced = clip.sample_rate_hz
    held = np.empty(0, dtype=np.float32)
    for block in clip.blocks():
        held = np.concatenate([held, block])
        if len(held) > n_silenced:
            yield held[:-n_silenced]
            held = held[-n_silenced:]
    yield np.zeros_like(held)


def _noise(clip: AudioClip, seed: str) -> Generator[Samples, None, None]:
    """White noise with the clip's own root mean square, for which the clip is heard first."""
    import numpy as np

    energy = sum(float(np.sum(np.square(block, dtype=np.float64))) for block in clip.blocks())
    rms = math.sqrt(energy / clip.n_samples) or _QUIET_RMS
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    generator = np.random.default_rng(number)
    for n in _lengths(clip.n_samples):
        yield np.asarray(rms * generator.standard_normal(n), dtype=np.float32)


_CHANGES: Mapping[Change, Callable[[AudioClip, str], Generator[Samples, None, None]]] = {
    "silence": _silence,
    "noise": _noise,
    "reversed": _reversed,
    "last_second_silenced": _last_second_silenced,
}


def _lengths(n_samples: int) -> list[int]:
    """So many samples in blocks."""
    whole, rest = divmod(n_samples, _BLOCK_SAMPLES)
    return [_BLOCK_SAMPLES] * whole + [rest] * (rest > 0)
