"""A model for tests that breaks at a length of audio, in the way that it is told."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np

from harness.contracts import Answer, ModelAdapter, ModelDescription, Query
from harness.errors import ModelLimitError

RATE_HZ = 1000


def breaker(
    mood: str = "fine",
    at_s: float = 1e9,
    bytes_per_s: int = 0,
    sleep_per_s: float = 0.0,
    scan: Literal["fast", "torch"] = "fast",
    max_audio_s: float | None = None,
    can_score: bool = True,
    weights: str | None = None,
    variant: str = "",
) -> ModelAdapter:
    """Hears loudness; breaks as `mood` says once a clip is longer than `at_s`."""
    return Breaker(mood, at_s, bytes_per_s, sleep_per_s, scan, max_audio_s, can_score, weights, variant)


class Breaker:
    def __init__(
        self,
        mood: str,
        at_s: float,
        bytes_per_s: int,
        sleep_per_s: float,
        scan: str,
        max_audio_s: float | None,
        can_score: bool,
        weights: str | None,
        variant: str,
    ) -> None:
        self.mood, self.at_s = mood, at_s
        self.bytes_per_s, self.sleep_per_s = bytes_per_s, sleep_per_s
        self.variant = variant
        self.scan, self.max_audio_s, self.can_score, self.weights = scan, max_audio_s, can_score, weights

    def missing(self) -> str:
        return "breaker needs weights" if self.mood == "has no weights" and self.weights is None else ""

    def kernels_on(self, device: str, dtype: str) -> dict[str, str]:
        return {"scan": self.scan}

    def load(self, device: str, dtype: str) -> None:
        if self.missing():
            raise FileNotFoundError(2, "No such file", "weights.bin")

    def answer(self, queries: Sequence[Query]) -> Sequence[Answer]:
        return [self._answer_one(query) for query in queries]

    def _answer_one(self, query: Query) -> Answer:
        held, n_samples, heard = bytearray(), 0, 0.0
        for block in query.clip.blocks():
            held += b"\1" * (self.bytes_per_s * len(block) // RATE_HZ)
            time.sleep(self.sleep_per_s * len(block) / RATE_HZ)
            n_samples += len(block)
            if self.mood == "stops" and n_samples / RATE_HZ > self.at_s and query.item_id != "warm-up":
                raise ModelLimitError("it goes on too long")
            # Later samples count more, so that the end is heard in a long clip too.
            heard = 0.5 * heard + float(np.abs(block).sum())
        mood = self.mood if n_samples / RATE_HZ > self.at_s else "fine"
        return self._break(mood, n_samples, heard, query.labels)

    def _break(self, mood: str, n_samples: int, heard: float, labels: tuple[str, ...] | None) -> Answer:
        if mood == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if mood == "raises":
            raise ValueError("a shape does not fit")
        if mood == "refuses":
            return Answer(text="", error=f"{ModelLimitError.__name__}: too long for me")
        if mood == "deaf":
            heard = 1.0
        if mood == "disagrees" and self.scan == "torch":
            heard += 1.0
        scores = (-heard, math.nan if mood == "nan" else -2 * heard)
        return Answer(
            text="a sound",
            n_audio_tokens=n_samples // 100,
            n_answer_tokens=2,
            frames_total=n_samples,
            frames_heard=n_samples // 2 if mood == "truncates" else n_samples,
            label_scores=None if labels is None or not self.can_score else scores[: len(labels)],
        )

    def describe(self) -> ModelDescription:
        return ModelDescription(
            name="breaker",
            variant=self.variant,
            summary="Breaks",
            parameters={"mood": 1},
            sample_rate_hz=RATE_HZ,
            audio_tokens_per_s=10.0,
            length_policy="full",
            weights_sha256=None,
            generation={},
            kernels={"scan": self.scan},
            fingerprint=self.mood,
            can_score_labels=self.can_score,
            max_audio_s=self.max_audio_s,
        )

    def close(self) -> None:
        pass
