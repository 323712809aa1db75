"""A model for tests: keeps what it hears, by item, in `HEARD`."""

from __future__ import annotations

from collections.abc import Sequence

from harness.contracts import Answer, AudioClip, ModelAdapter, ModelDescription, Query

HEARD: dict[str, AudioClip] = {}


def listener(rate_hz: int = 16_000, max_audio_s: float | None = None) -> ModelAdapter:
    """Hears clips at `rate_hz`, of at most `max_audio_s`."""
    return Listener(rate_hz, max_audio_s)


class Listener:
    def __init__(self, rate_hz: int, max_audio_s: float | None) -> None:
        self.rate_hz = rate_hz
        self.max_audio_s = max_audio_s

    def load(self, device: str, dtype: str) -> None:
        HEARD.clear()

    def answer(self, queries: Sequence[Query]) -> Sequence[Answer]:
        HEARD.update({query.item_id: query.clip for query in queries})
        return [Answer("a sound") for _ in queries]

    def describe(self) -> ModelDescription:
        return ModelDescription(
            name="listener",
            variant="",
            summary="Listens",
            parameters={},
            sample_rate_hz=self.rate_hz,
            audio_tokens_per_s=None,
            length_policy="full",
            weights_sha256=None,
            generation={},
            kernels={},
            fingerprint=f"listener at {self.rate_hz}",
            max_audio_s=self.max_audio_s,
        )

    def close(self) -> None:
        pass
