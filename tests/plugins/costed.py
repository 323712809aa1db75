"""A model for tests that costs what its options say: seconds, bytes, operations; or breaks as they say."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from harness.contracts import (
    Answer,
    AudioClip,
    Component,
    Meter,
    ModelAdapter,
    ModelDescription,
    Query,
    StateBytes,
    Work,
)
from harness.errors import ModelLimitError

STATE_BYTES = 4000


def costed(
    first_s: float = 0.0,
    token_s: float = 0.0,
    torch_bytes: int = 0,
    array_bytes: int = 0,
    growth_bytes: int = 0,
    tokens_short: int = 0,
    breaks: Literal["no", "memory", "limit", "loss"] = "no",
    breaks_beyond_s: float = 0.0,
    needs_weights: bool = False,
    weights: str = "",
    policy: str = "full",
) -> ModelAdapter:
    """Takes `first_s` for its encoder and `token_s` for each further token; holds `torch_bytes` in a tensor and
    `array_bytes` in an array while it encodes; its state grows by `growth_bytes` a token."""
    return Costed(**locals())


class Costed:
    def __init__(self, **options: Any) -> None:
        self.options = options
        self.is_loaded = False

    def load(self, device: str, dtype: str) -> None:
        if self.options["torch_bytes"] or self.options["growth_bytes"]:
            import torch  # the pass of the profiler needs it loaded

            self.network = torch.nn.Linear(1000, 1000, bias=False)
        self.is_loaded = True

    def answer(self, queries: Sequence[Query]) -> Sequence[Answer]:
        return [Answer("a sound") for _ in queries]

    def describe(self) -> ModelDescription:
        return ModelDescription(
            name="costed",
            variant="",
            summary="Costs what its options say",
            parameters={"network": 1000},
            sample_rate_hz=16_000,
            audio_tokens_per_s=2.0,
            length_policy=self.options["policy"],
            weights_sha256=None,
            generation={},
            kernels={"wait": "busy"},
            fingerprint=str(sorted(self.options.items())),
        )

    def close(self) -> None:
        self.is_loaded = False

    def missing(self) -> str:
        return "no weights" if self.options["needs_weights"] and not self.options["weights"] else ""

    def kernels_on(self, device: str, dtype: str) -> Mapping[str, str]:
        return {"wait": "busy"}

    def answer_metered(
        self, clips: Sequence[AudioClip], prompt: str, n_answer_tokens: int, meter: Meter
    ) -> Sequence[Sequence[int]]:
        self._break_beyond(clips[0].duration_s)
        meter.enter("encoder")
        self._hold()
        _wait(self.options["first_s"])
        meter.enter("prefill")
        meter.token()
        meter.enter("decode")
        state = []
        for _ in range(n_answer_tokens - 1):
            _wait(self.options["token_s"])
            if self.options["growth_bytes"]:
                import torch

                state.append(torch.ones(self.options["growth_bytes"], dtype=torch.uint8))
            meter.token()
        return [[7] * (n_answer_tokens - self.options["tokens_short"]) for _ in clips]

    def train_step(self, clips: Sequence[AudioClip], prompt: str, answer: str, meter: Meter) -> float:
        meter.enter("encoder")
        _wait(self.options["first_s"])
        if self.options["torch_bytes"]:
            import torch

            _ = torch.ones(4, 4) @ torch.ones(4, 4)
        return float("nan") if self.options["breaks"] == "loss" else 1.0

    def work(self, n_samples: int, prompt: str, n_answer_tokens: int, n_clips: int = 1) -> Mapping[Component, Work]:
        return {
            "encoder": Work(n_samples * n_clips, 0, 1, {"linear": n_samples * n_clips}),
            "decode": Work(100 * n_clips, 50, 2, {"linear": 100 * n_clips}),
        }

    def state_bytes(self, n_tokens: int) -> StateBytes:
        return StateBytes(growing=self.options["growth_bytes"] * n_tokens, constant=STATE_BYTES)

    def _hold(self) -> None:
        if self.options["torch_bytes"]:
            import torch

            torch.ones(self.options["torch_bytes"], dtype=torch.uint8)
        if self.options["array_bytes"]:
            import numpy as np

            np.ones(self.options["array_bytes"], dtype=np.uint8)

    def _break_beyond(self, seconds: float) -> None:
        if self.options["breaks"] == "no" or seconds <= self.options["breaks_beyond_s"]:
            return
        if self.options["breaks"] == "memory":
            raise MemoryError("no room")
        raise ModelLimitError(f"{seconds:g} s is too long")


def _wait(seconds: float) -> None:
    """A sleep may take longer; a loop that looks at the clock does not."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
