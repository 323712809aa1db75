"""Scenes to ask about: recordings one after the other in silence or noise, as the long-audio tasks compose theirs.

A scene's sounds are half a second apart at least and never overlap. They are one sound several times (to be counted),
or one to four different ones (to be named in order).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.recipes import _augment as augment

RATE_HZ = 16_000
GAP = RATE_HZ // 2
FADE = RATE_HZ // 50
MOST_REPEATS, MOST_DIFFERENT = 5, 4
# Longest span of each sound, in seconds, by how many there are; so many and their gaps fit into 10 s.
LONGEST_S = {1: 5.0, 2: 3.0, 3: 1.5, 4: 1.5}
LONGEST_REPEATED_S = 1.0
EVENT_RMS = 0.1


@dataclass(frozen=True, eq=False)
class Recording:
    """One training clip in memory, at 16 kHz; without a label it is for hearing alone."""

    label: str | None
    samples: augment.Samples


@dataclass(frozen=True, eq=False)
class Scene:
    """What is heard: `labels` in order of time, one for each occurrence; `behind` is None over silence."""

    samples: augment.Samples
    labels: tuple[str, ...]
    behind: str | None


class SceneMaker:
    """Draws scenes; everything random comes from the generator that a call is given."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._by_label: dict[str, list[Recording]] = {}
        for recording in recordings:
            if recording.label is not None:
                self._by_label.setdefault(recording.label, []).append(recording)
        self.labels = tuple(sorted(self._by_label))

    def draw(self, n_samples: int, random: augment.Generator) -> Scene:
        """One scene of `n_samples`, every label alike likely."""
        is_repeated = random.random() < 0.4
        if is_repeated:
            count = int(random.integers(1, MOST_REPEATS + 1))
            labels: tuple[str, ...] = (str(random.choice(self.labels)),) * count
            sounds = [self._sound(labels[0], LONGEST_REPEATED_S, random)] * count
        else:
            count = min(int(random.integers(1, MOST_DIFFERENT + 1)), len(self.labels))
            labels = tuple(str(label) for label in random.choice(self.labels, count, replace=False))
            sounds = [self._sound(label, LONGEST_S[count], random) for label in labels]
        samples = lay_out(sounds, n_samples, random)
        behind = None
        if random.random() < 0.7:
            exponent = float(random.uniform(0.0, 1.0))
            ratio = augment.decibel(-float(random.uniform(0.0, 30.0)))
            samples = samples + augment.coloured_noise(n_samples, exponent, random) * EVENT_RMS * ratio
            behind = "white noise" if exponent < 0.5 else "noise"
        samples = samples * augment.decibel(float(random.uniform(-12.0, 6.0)))
        return Scene(np.clip(samples, -1.0, 1.0).astype(np.float32), labels, behind)

    def _sound(self, label: str, longest_s: float, random: augment.Generator) -> augment.Samples:
        """The beginning of one of the label's recordings, a little faster or slower, at EVENT_RMS."""
        recordings = self._by_label[label]
        recording = recordings[int(random.integers(len(recordings)))]
        whole = without_lead(recording.samples)[: round(1.2 * longest_s * RATE_HZ)]
        changed = augment.change_speed(whole, float(np.exp(random.uniform(-0.1, 0.1))), RATE_HZ)
        cut = changed[: round(longest_s * RATE_HZ)].copy()
        n_fade = min(FADE, len(cut))
        cut[len(cut) - n_fade :] *= np.linspace(1.0, 0.0, n_fade, dtype=np.float32)
        return np.asarray(cut * (EVENT_RMS / augment.rms(cut)), dtype=np.float32)


def without_lead(samples: augment.Samples) -> augment.Samples:
    """From where the recording first comes within 30 dB of its loudest sample."""
    loud = np.abs(samples) > np.abs(samples).max() * augment.decibel(-30.0)
    return samples[int(loud.argmax()) :]


def lay_out(sounds: Sequence[augment.Samples], n_samples: int, random: augment.Generator) -> augment.Samples:
    """The sounds in order at random places, GAP samples apart at least, in silence."""
    free = n_samples - sum(len(sound) for sound in sounds) - GAP * (len(sounds) - 1)
    out = np.zeros(n_samples, dtype=np.float32)
    used = 0
    for place, sound in zip(np.sort(random.random(len(sounds))), sounds, strict=True):
        start = int(place * free) + used
        out[start : start + len(sound)] += sound
        used += len(sound) + GAP
    return out
