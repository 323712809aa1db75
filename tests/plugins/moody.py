"""A model for tests: guesses at random, at any speed, and misbehaves when told to."""

from __future__ import annotations

import hashlib
import math
import os
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.contracts import Answer, ModelAdapter, ModelDescription, Query
from harness.errors import ModelLimitError

WORDS = ("low beep", "middle beep", "high beep")
WRONG_ANSWERS: dict[str, dict[str, Any]] = {
    "no text": {"text": None},
    "no count": {"n_answer_tokens": None},
    "half a count": {"n_audio_tokens": 2.5},
    "hears too much": {"frames_heard": 12},
    "stops oddly": {"stopped": "tired"},
    "scores in words": {"label_scores": ("high", "low", "low")},
    "error without words": {"error": 3},
}
WRONG_FACTS: dict[str, dict[str, Any]] = {
    "nan in generation": {"generation": {"temperature": math.nan}},
    "float in parameters": {"parameters": {"encoder": 1.5}},
    "other name": {"name": "cheerful"},
    "half a rate": {"sample_rate_hz": 0.5},
    "no rate": {"sample_rate_hz": 0},
    "no fingerprint": {"fingerprint": ""},
    "negative limit": {"max_audio_s": -1.0},
    "no kernels": {"kernels": None},
}


def moody(
    mood: str = "fine",
    on: str = "",
    delay_s: float = 0.0,
    marker: str = "",
    can_score: bool = True,
    trained_on: str = "",
    max_audio_s: float | None = None,
) -> ModelAdapter:
    """Guesses; `mood` says how it fails at the item `on`; `marker` names a file that gets a line at each load."""
    return Moody(mood, on, delay_s, marker, can_score, trained_on, max_audio_s)


class Moody:
    def __init__(
        self,
        mood: str,
        on: str,
        delay_s: float,
        marker: str,
        can_score: bool,
        trained_on: str,
        max_audio_s: float | None,
    ) -> None:
        self.trained_on = trained_on
        self.max_audio_s = max_audio_s
        self.mood = mood
        self.on = on
        self.delay_s = delay_s
        self.marker = marker
        self.can_score = can_score
        self.is_loaded = False

    def load(self, device: str, dtype: str) -> None:
        self.is_loaded = True
        if self.mood == "has no weights":
            raise FileNotFoundError(2, "No such file", "weights.bin")
        if self.mood == "cannot load":
            raise RuntimeError("size mismatch:\n  2 and 3")
        if self.marker:
            with Path(self.marker).open("a") as stream:
                stream.write("loaded\n")

    def answer(self, queries: Sequence[Query]) -> Sequence[Answer]:
        names = [query.item_id for query in queries]
        if self.on in names:
            self._fail_as_a_whole(len(queries))
        answers = [self._answer_one(query) for query in queries]
        if self.mood == "no answers":
            return None  # type: ignore[return-value]
        return answers[1:] if self.mood == "too few answers" else answers

    def describe(self) -> ModelDescription:
        facts = f"{self.mood}/{self.on}"
        if self.mood == "changes" and self.is_loaded:
            facts += "/loaded"
        if self.mood == "cannot describe":
            raise KeyError("facts")
        described = ModelDescription(
            name="moody",
            variant="",
            summary="Guesses",
            parameters={"mood": 1},
            sample_rate_hz=16_000,
            audio_tokens_per_s=None,
            length_policy="full",
            weights_sha256=None,
            generation={},
            kernels={},
            fingerprint=hashlib.sha256(facts.encode()).hexdigest(),
            can_score_labels=self.can_score,
            trained_on=self.trained_on,
            max_audio_s=self.max_audio_s,
        )
        return replace(described, **WRONG_FACTS.get(self.mood, {}))

    def close(self) -> None:
        self.is_loaded = False

    def _fail_as_a_whole(self, n_queries: int) -> None:
        if self.mood == "raises":
            raise ValueError("no beep for me")
        if self.mood == "refuses":
            raise ModelLimitError("too long for me")
        if self.mood == "out of memory":
            raise MemoryError("1 TiB would be needed")
        if self.mood == "raises in company" and n_queries > 1:
            raise RuntimeError("only one at a time")
        if self.mood == "interrupted once" and not os.path.exists(self.marker + ".interrupted"):
            Path(self.marker + ".interrupted").touch()
            raise KeyboardInterrupt

    def _answer_one(self, query: Query) -> Answer:
        time.sleep(self.delay_s)
        is_it = query.item_id == self.on
        scores = tuple(-random.random() for _ in query.labels or ())
        if is_it and self.mood == "nan scores":
            scores = (math.nan, *scores[1:])
        if is_it and self.mood == "two scores":
            scores = scores[:2]
        answer = Answer(
            text="\ud800 low beep" if is_it and self.mood == "broken text" else random.choice(WORDS),
            n_answer_tokens=-1 if is_it and self.mood == "negative count" else 2,
            frames_total=10,
            frames_heard=4 if is_it and self.mood == "truncates" else 10,
            label_scores=scores if query.labels is not None else None,
            error="ModelLimitError: it is too loud: really" if is_it and self.mood == "says error" else None,
        )
        return replace(answer, **WRONG_ANSWERS.get(self.mood, {})) if is_it else answer
