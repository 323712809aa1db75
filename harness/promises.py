"""What a model hands over, held against its contract: its description and its answers, before anything relies on them.

A broken promise of the model's code would meet every item alike, so it stops a run with one line; `check` lists them.
"""

from __future__ import annotations

import math
import operator
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness.contracts import Answer, ModelAdapter, ModelDescription
from harness.errors import HarnessError, PluginError

_COUNTS = ("n_audio_tokens", "n_prompt_tokens", "n_answer_tokens", "frames_total", "frames_heard")
_TEXTS = ("variant", "summary", "length_policy", "trained_on")
_PLAIN = (str, int, float, bool, type(None))
T = TypeVar("T")


def load_model(model: ModelAdapter, name: str, device: str, dtype: str) -> None:
    """Let a model read its weights.

    Raises:
        PluginError: it raised something that is none of our errors.
    """
    called_plugin(lambda: model.load(device, dtype), f"The model '{name}' cannot be loaded")


def described(model: ModelAdapter, name: str) -> ModelDescription:
    """A model's description.

    Raises:
        PluginError: it has none, or one that a record cannot hold.
    """
    description = called_plugin(model.describe, f"The model '{name}' cannot describe itself")
    problems = description_problems(description, name)
    if problems:
        raise PluginError(f"The model '{name}' describes itself wrongly: {'; '.join(problems)}.")
    return description


def checked_answers(answers: Sequence[Answer], n_expected: int) -> list[Answer]:
    """As many answers as there were queries.

    Raises:
        PluginError: there are more or fewer, or one is no `Answer`.
    """
    if not isinstance(answers, Iterable):
        raise PluginError(f"The model gave {_shown(answers)} where a sequence of answers belongs.")
    found = list(answers)
    if len(found) != n_expected:
        raise PluginError(f"The model gave {len(found)} answers to {n_expected} queries.")
    strangers = [type(answer).__name__ for answer in found if not isinstance(answer, Answer)]
    if strangers:
        raise PluginError(f"The model gave a {strangers[0]} where an Answer belongs.")
    return found


def description_problems(description: object, name: str) -> list[str]:
    """What in a description breaks the contract."""
    if not isinstance(description, ModelDescription):
        return [f"it is a {type(description).__name__} instead of a ModelDescription"]
    fields = vars(description)
    problems = [f"{text} is {_shown(fields[text])} instead of a text" for text in _TEXTS if not _is(fields[text], str)]
    if description.name != name:
        problems.append(f"its name is {_shown(description.name)}, not '{name}'")
    if not _is(description.sample_rate_hz, int) or description.sample_rate_hz <= 0:
        problems.append(f"sample_rate_hz is {_shown(description.sample_rate_hz)} instead of a positive int")
    if not _is(description.fingerprint, str) or not description.fingerprint:
        problems.append(f"fingerprint is {_shown(description.fingerprint)} instead of a text that tells runs apart")
    if description.weights_sha256 is not None and not _is(description.weights_sha256, str):
        problems.append(f"weights_sha256 is {_shown(description.weights_sha256)} instead of a text or None")
    for field in ("audio_tokens_per_s", "max_audio_s"):
        if fields[field] is not None and not _is_positive(fields[field], zero_too=field == "audio_tokens_per_s"):
            problems.append(f"{field} is {_shown(fields[field])} instead of a positive number or None")
    for field in ("can_score_labels", "needs_labels"):
        if not isinstance(fields[field], bool):
            problems.append(f"{field} is {_shown(fields[field])} instead of True or False")
    return [*problems, *_mapping_problems(description)]


def answer_problem(answer: Answer) -> str | None:
    """The first thing in an answer that breaks the contract; an answer with `error` needs nothing else."""
    said = vars(answer)
    if said["error"] is not None:
        return None if isinstance(said["error"], str) else f"error: it is {_shown(said['error'])}, not a text"
    if not isinstance(said["text"], str):
        return f"text: it is {_shown(said['text'])}, not a text"
    for field in _COUNTS:
        if not _is_count(said[field]):
            return f"{field}: it is {_shown(said[field])}, not a count"
    if answer.frames_heard > answer.frames_total:
        return f"frames_heard: {answer.frames_heard} of {answer.frames_total} frames"
    if said["stopped"] not in ("end", "length"):
        return f"stopped: it is {_shown(said['stopped'])}, not 'end' or 'length'"
    if said["label_scores"] is not None and not _are_numbers(said["label_scores"]):
        return f"label_scores: they are {_shown(said['label_scores'])}, not numbers"
    return None


def called_plugin(call: Callable[[], T], problem: str) -> T:
    """The call's result; whatever a plugin's own code raises becomes one line with the place it came from.

    Raises:
        PluginError: it raised something that is none of our errors.
    """
    try:
        return call()
    except HarnessError:
        raise
    except Exception as error:
        raise broken_plugin(error, problem) from error


def broken_plugin(error: Exception, problem: str) -> PluginError:
    """The error to raise where a plugin's own code raised something that is none of ours."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}, line {frame.lineno}"
    reason = " ".join(str(error).split())
    return PluginError(f"{problem}: {type(error).__name__}: {reason} ({where}).")


def _mapping_problems(description: ModelDescription) -> list[str]:
    wanted: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
        ("parameters", "a count", lambda value: _is(value, int) and value >= 0),
        ("trainable_parameters", "a count", lambda value: _is(value, int) and value >= 0),
        ("generation", "a text, a finite number, a bool or None", _is_plain),
        ("kernels", "a text", lambda value: _is(value, str)),
    )
    problems = []
    for field, what, fits in wanted:
        values = getattr(description, field)
        if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
            problems.append(f"{field} is {_shown(values)} instead of a mapping from texts")
            continue
        problems += [
            f"{field}['{key}'] is {_shown(value)} instead of {what}" for key, value in values.items() if not fits(value)
        ]
    return problems


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN) and (not isinstance(value, float) or math.isfinite(value))


def _is_positive(value: object, zero_too: bool) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return False
    return value > 0 or (zero_too and value == 0)


def _is_count(value: Any) -> bool:
    try:
        return operator.index(value) >= 0
    except TypeError:
        return False


def _are_numbers(values: Any) -> bool:
    try:
        return all(not isinstance(value, str) and isinstance(float(value), float) for value in values)
    except (TypeError, ValueError):
        return False


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."
