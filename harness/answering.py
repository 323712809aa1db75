"""One batch: clips are heard, a model is asked, and every item comes out as a `Prediction`, whatever happened to it.

A batch depends on nothing that came before it: the random generators are seeded anew for each, so that a run that was
interrupted and continued says the same as one that was not.

A long clip reaches the model unread (`harness.hearing`): what is wrong with it, and what is to be noted of it, is asked
after the model's answer.
"""

from __future__ import annotations

import hashlib
import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from harness.clips import UnreadClip
from harness.contracts import Answer, AudioClip, ModelAdapter, Query
from harness.errors import HarnessError, ItemError, PluginError
from harness.hearing import Failure, HeardItem, clean, failure_of, named_failure
from harness.promises import answer_problem, checked_answers
from harness.records import Prediction


@dataclass(frozen=True)
class Question:
    """What every item of a run is asked. `labels` are candidate answers to be scored, None when no scorer needs it."""

    prompt: str
    labels: tuple[str, ...] | None

    @property
    def prompt_sha256(self) -> str:
        """SHA-256 of the prompt's text."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()


def answer_batch(
    model: ModelAdapter, batch: Sequence[HeardItem], question: Question, batch_index: int, seed: int
) -> list[Prediction]:
    """Ask a model about one batch. Same order and length as `batch`.

    Raises:
        PluginError: the model broke its contract, such as by a wrong number of answers.
    """
    clips = [(heard.item.item_id, heard.heard) for heard in batch if isinstance(heard.heard, AudioClip)]
    queries = [Query(item_id, clip, question.prompt, question.labels) for item_id, clip in clips]
    started, read_before_s = time.perf_counter(), _read_s(queries)
    outcomes = iter(_ask(model, queries, f"{seed}/{batch_index}"))
    elapsed_s = time.perf_counter() - started - (_read_s(queries) - read_before_s)
    answer_s = elapsed_s / max(1, len(queries))
    return [
        _failed(heard, heard.heard, question, batch_index)
        if isinstance(heard.heard, Failure)
        else _predicted(heard, heard.heard, next(outcomes), question, batch_index, answer_s)
        for heard in batch
    ]


def seed_generators(text: str) -> None:
    """Seed the generators of Python, and of numpy and torch where they are loaded, from any text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


# --- asking ----------------------------------------------------------------------------------------------------------


def _ask(model: ModelAdapter, queries: Sequence[Query], seed_text: str) -> list[Answer | Failure]:
    """Ask about all queries at once; when that raises, about each alone, so that one fails none of its neighbours."""
    if not queries:
        return []
    seed_generators(seed_text)
    try:
        return list(checked_answers(model.answer(queries), len(queries)))
    except Exception as error:
        # A source fails in its own ways, be it within the model: its item failed and the run goes on.
        if not any(_has_trouble(query.clip) for query in queries):
            _raise_what_stops(error)
        if len(queries) == 1:
            return [failure_of(error)]
    # Outside of the handler: the exception and the tensors that its frames hold are gone by now.
    _free_device_memory()
    return [
        outcome for position, query in enumerate(queries) for outcome in _ask(model, [query], f"{seed_text}/{position}")
    ]


def _raise_what_stops(error: Exception) -> None:
    """A broken contract, a missing package or a bad option would meet every item alike: these stop the run."""
    if isinstance(error, HarnessError) and not isinstance(error, ItemError):
        raise error


def _read_s(queries: Sequence[Query]) -> float:
    """Seconds that reading unread clips took so far."""
    return sum(query.clip.read_s for query in queries if isinstance(query.clip, UnreadClip))


def _has_trouble(clip: AudioClip) -> bool:
    return isinstance(clip, UnreadClip) and clip.trouble is not None


def _trouble_of(clip: AudioClip) -> Failure | None:
    """What kept a clip from being heard to its end; where the model left it before its end, the rest is read now."""
    if not isinstance(clip, UnreadClip):
        return None
    try:
        if clip.trouble is None:
            clip.read_to_end()
    except Exception as error:
        return failure_of(error)
    return None if clip.trouble is None else named_failure(*clip.trouble)


def _free_device_memory() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


# --- predictions -----------------------------------------------------------------------------------------------------


def _predicted(
    heard: HeardItem, clip: AudioClip, outcome: Answer | Failure, question: Question, batch_index: int, answer_s: float
) -> Prediction:
    trouble = _trouble_of(clip)
    if trouble is not None:
        return _failed(heard, trouble, question, batch_index)
    problem = None if isinstance(outcome, Failure) else answer_problem(outcome)
    if problem is not None:
        raise PluginError(f"The model's answer to '{heard.item.item_id}' has a bad {problem}.")
    said = _failure_fields(outcome) if isinstance(outcome, Failure) else _fields_of(outcome, question.labels)
    facts = _facts(heard, question, batch_index) | {
        "duration_s": clip.duration_s,
        "source_rate_hz": clip.source_rate_hz,
        "source_channels": clip.source_channels,
        "notes": clip.notes,
        "answer_s": answer_s,
    }
    try:
        return Prediction.model_validate(facts | said)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PluginError(f"The model's answer to '{heard.item.item_id}' has a bad {where}: {first['msg']}.") from error


def _failed(heard: HeardItem, failure: Failure, question: Question, batch_index: int) -> Prediction:
    return Prediction.model_validate(_facts(heard, question, batch_index) | _failure_fields(failure))


def _facts(heard: HeardItem, question: Question, batch_index: int) -> dict[str, Any]:
    """What is known of an item without its clip."""
    return {
        "item_id": heard.item.item_id,
        "cluster": heard.item.cluster,
        "references": heard.item.references,
        "audio_identity": heard.identity,
        "prompt_sha256": question.prompt_sha256,
        "load_s": heard.heard.read_s if isinstance(heard.heard, UnreadClip) else heard.load_s,
        "batch_index": batch_index,
        "metadata": dict(heard.item.metadata),
    }


def _failure_fields(failure: Failure) -> dict[str, Any]:
    return {"status": "failed", "error_type": failure.error_type, "error": failure.message}


def _fields_of(answer: Answer, labels: tuple[str, ...] | None) -> dict[str, Any]:
    failure = _failure_in(answer, labels)
    if failure is not None:
        return _failure_fields(failure)
    scores = answer.label_scores
    return {
        "status": "truncated" if answer.frames_heard < answer.frames_total else "ok",
        "text": clean(answer.text),
        "label_scores": None if scores is None else tuple(float(score) for score in scores),
        "n_audio_tokens": int(answer.n_audio_tokens),
        "n_prompt_tokens": int(answer.n_prompt_tokens),
        "n_answer_tokens": int(answer.n_answer_tokens),
        "stopped": answer.stopped,
        "frames_total": int(answer.frames_total),
        "frames_heard": int(answer.frames_heard),
    }


def _failure_in(answer: Answer, labels: tuple[str, ...] | None) -> Failure | None:
    """What makes an answer unusable: its own error, or label scores that no scorer could take."""
    if answer.error is not None:
        kind, colon, message = answer.error.partition(": ")
        return Failure(kind, clean(message)) if colon else Failure("ModelError", clean(answer.error))
    n_scores = None if answer.label_scores is None else len(answer.label_scores)
    n_wanted = None if labels is None else len(labels)
    if n_scores != n_wanted:
        return Failure("WrongScoreCount", f"{_count_text(n_scores)} label scores for {_count_text(n_wanted)} labels")
    if answer.label_scores is not None and not all(math.isfinite(score) for score in answer.label_scores):
        bad = sum(not math.isfinite(score) for score in answer.label_scores)
        return Failure("NonFiniteScores", f"{bad} of {n_scores} label scores are NaN or infinite")
    return None


def _count_text(count: int | None) -> str:
    return "no" if count is None else str(count)
