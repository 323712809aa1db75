"""What the adapters without a language model share: nothing to load, and facts for the record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from harness.contracts import Answer, ModelDescription, OptionValue, Query

SAMPLE_RATE_HZ = 16_000


def fingerprint(name: str, options: Mapping[str, OptionValue], weights_sha256: str | None = None) -> str:
    """SHA-256 of everything that decides the answers."""
    text = json.dumps([name, dict(options), weights_sha256], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def unit_hash(*parts: object) -> float:
    """A number in [0, 1) that looks random and is the same for the same parts, on every machine."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class WeightlessModel:
    """A model that hears nothing: subclasses answer one query at a time, from the query's text."""

    def __init__(
        self,
        name: str,
        summary: str,
        options: Mapping[str, OptionValue],
        can_score_labels: bool,
        needs_labels: bool = False,
    ) -> None:
        self._name = name
        self._summary = summary
        self._options = dict(options)
        self._can_score_labels = can_score_labels
        self._needs_labels = needs_labels

    def load(self, device: str, dtype: str) -> None:
        """Nothing to read; any device and dtype will do."""

    def answer(self, queries: Sequence[Query]) -> Sequence[Answer]:
        """Answer each query by itself."""
        return [self.answer_one(query) for query in queries]

    def answer_one(self, query: Query) -> Answer:
        """The answer to one query."""
        raise TypeError(f"{type(self).__name__} does not say what it answers")

    def describe(self) -> ModelDescription:
        """Facts for the record."""
        return ModelDescription(
            name=self._name,
            variant="",
            summary=self._summary,
            parameters={},
            sample_rate_hz=SAMPLE_RATE_HZ,
            audio_tokens_per_s=None,
            length_policy="hears nothing",
            weights_sha256=None,
            generation=self._options,
            kernels={},
            fingerprint=fingerprint(self._name, self._options),
            can_score_labels=self._can_score_labels,
            needs_labels=self._needs_labels,
        )

    def close(self) -> None:
        """Nothing to give back."""
