"""What one probe of `frontier` does in its fresh process: answer once, or prove that the numbers mean something.

The answer is what is measured: `ModelAdapter.answer`, one clip, no labels, under the search's caps. The proof follows
in a process of its own, because it needs more than an answer does: the log-likelihoods of two labels after audio and
prompt, of two clips that differ in their last second. They are the model's logits, read through its contract.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.contracts import Answer, InspectableModel, ModelAdapter, ModelDescription, OptionValue, Query
from harness.environment import peak_rss_bytes
from harness.errors import ModelLimitError, OptionError
from harness.fresh_process import WrongNumbers, time_limit
from harness.noise_bursts import PROMPT, NoiseBursts
from harness.promises import answer_problem, checked_answers, described, load_model
from harness.registry import Created, add_plugin_file, create

LABELS = ("a dog barks", "rain")
# Less than this share of a score is what rounding alone can do to float32.
DEAF_BELOW = 1e-6
RANDOM_WEIGHTS = {"weights": "random"}


@dataclass(frozen=True)
class Subject:
    """Which model is probed, and on what; plain data. `plugins` are files that hold models."""

    model: str
    options: Mapping[str, OptionValue]
    plugins: tuple[str, ...]
    device: str
    dtype: str
    seed: int

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Subject:
        """From what another process wrote as JSON."""
        return cls(**{**told, "plugins": tuple(told["plugins"])})

    def with_options(self, more: Mapping[str, OptionValue]) -> Subject:
        """The same with other options."""
        return replace(self, options={**self.options, **more})

    def create(self) -> Created:
        """The model's object; nothing is loaded yet."""
        for file in self.plugins:
            add_plugin_file(Path(file))
        return create("models", self.model, self.options)


# --- targets of run_fresh --------------------------------------------------------------------------------------------


def look(subject: Mapping[str, Any]) -> dict[str, Any]:
    """The model's options and description before it is loaded.

    A model that says that its weights are missing gets random ones, where it knows the option: cost is the same.

    Returns:
        `options` to probe it with, "options_passed", "options_resolved", "plugin" and "description", as plain data.

    Raises:
        UsageError: the model's options are wrong.
    """
    chosen = Subject.of(subject)
    created = chosen.create()
    if isinstance(created.value, InspectableModel) and created.value.missing() and "weights" not in chosen.options:
        try:
            created = chosen.with_options(RANDOM_WEIGHTS).create()
        except OptionError:
            pass  # the first probe then says what is missing
    return {
        "options": {**chosen.options, **created.options_passed},
        "options_passed": dict(created.options_passed),
        "options_resolved": dict(created.options_resolved),
        "plugin": None if created.source is None else created.source.name,
        "description": asdict(described(created.value, chosen.model)),
    }


def answer(
    subject: Mapping[str, Any], length_s: float, device_memory_bytes: int | None, time_limit_s: float | None
) -> dict[str, Any]:
    """Answer one question about one clip, as a task's runner asks it.

    Args:
        subject: the fields of `Subject`.
        length_s: seconds of noise.
        device_memory_bytes: cap on torch's CUDA allocator; None for none.
        time_limit_s: for the answer, once the model is loaded; None for none.

    Returns:
        seconds, peaks in bytes, counts and kernels: the fields of `frontier_rows.AnswerRow`.

    Raises:
        ModelLimitError: the model does not take so long a clip.
        WrongNumbers: a part of the clip did not reach the encoder.
    """
    chosen = Subject.of(subject)
    if device_memory_bytes is not None:
        _cap_device(chosen.device, device_memory_bytes)
    started = time.perf_counter()
    model, description = loaded(chosen, length_s)
    load_s = time.perf_counter() - started
    labels = LABELS if description.needs_labels else None
    started = time.perf_counter()
    with time_limit(time_limit_s):
        said = asked(model, _query(NoiseBursts(length_s, chosen.seed), description.sample_rate_hz, labels))
    answer_s = time.perf_counter() - started
    if said.frames_heard < said.frames_total:
        raise WrongNumbers(f"only {said.frames_heard} of {said.frames_total} frames reached the encoder")
    allocated, reserved = _device_peaks(chosen.device)
    return {
        "load_s": load_s,
        "answer_s": answer_s,
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_device_allocated_bytes": allocated,
        "peak_device_reserved_bytes": reserved,
        "n_audio_tokens": said.n_audio_tokens,
        "n_answer_tokens": said.n_answer_tokens,
        "kernels": dict(described(model, chosen.model).kernels),
    }


def prove(subject: Mapping[str, Any], length_s: float) -> dict[str, Any]:
    """Show that logits are finite and that the last second matters.

    Returns:
        "scores" of the labels after the clip, "sensitivity": how far they move with the last second (largest
        difference, in nats per token), and "kernels".

    Raises:
        WrongNumbers: they are not finite, or do not move.
        ModelLimitError: the model does not take so long a clip.
    """
    chosen = Subject.of(subject)
    model, description = loaded(chosen, length_s)
    first, other = (
        _label_scores(model, NoiseBursts(length_s, chosen.seed, ending), description.sample_rate_hz)
        for ending in (0, 1)
    )
    moved = max_difference(first, other)
    if moved <= DEAF_BELOW * max(1.0, *map(abs, first)):
        raise WrongNumbers(f"the last second changes nothing: label scores differ by {moved:.1e}")
    return {"scores": first, "sensitivity": moved, "kernels": dict(described(model, chosen.model).kernels)}


def scores(subject: Mapping[str, Any], length_s: float) -> dict[str, Any]:
    """The "scores" and "kernels" of `prove`, of another way to compute the same; errors as there."""
    chosen = Subject.of(subject)
    model, description = loaded(chosen, length_s)
    found = _label_scores(model, NoiseBursts(length_s, chosen.seed), description.sample_rate_hz)
    return {"scores": found, "kernels": dict(described(model, chosen.model).kernels)}


def max_difference(first: Sequence[float], second: Sequence[float]) -> float:
    """Largest absolute difference, place by place."""
    return max(abs(a - b) for a, b in zip(first, second, strict=True))


# --- steps -----------------------------------------------------------------------------------------------------------


def loaded(subject: Subject, length_s: float) -> tuple[ModelAdapter, ModelDescription]:
    """The model, ready to hear so much audio, and its description.

    Raises:
        ModelLimitError: it says that it does not take so long a clip.
    """
    model: ModelAdapter = subject.create().value
    limit_s = described(model, subject.model).max_audio_s
    if limit_s is not None and length_s > limit_s:
        raise ModelLimitError(f"the model takes at most {limit_s:g} s of audio")
    load_model(model, subject.model, subject.device, subject.dtype)
    return model, described(model, subject.model)


def asked(model: ModelAdapter, query: Query) -> Answer:
    """The answer to one query.

    Raises:
        ModelLimitError: the model does not take this clip.
        WrongNumbers: the answer breaks its contract.
    """
    said = checked_answers(model.answer([query]), 1)[0]
    problem = answer_problem(said)
    if problem is not None:
        raise WrongNumbers(f"the answer breaks its contract: {problem}")
    if said.error is not None:
        kind, _, message = said.error.partition(": ")
        raise _error_of(kind, message or said.error)
    return said


def _query(sound: NoiseBursts, sample_rate_hz: int, labels: tuple[str, ...] | None) -> Query:
    return Query(sound.identity(), sound.heard_as(sample_rate_hz), PROMPT, labels)


def _error_of(kind: str, message: str) -> Exception:
    """What an item's "ErrorType: message" was before a model put it into words."""
    if kind == ModelLimitError.__name__:
        return ModelLimitError(message)
    if kind in (MemoryError.__name__, "OutOfMemoryError"):
        return MemoryError(message)
    return RuntimeError(f"{kind}: {message}")


def _label_scores(model: ModelAdapter, sound: NoiseBursts, sample_rate_hz: int) -> list[float]:
    said = asked(model, _query(sound, sample_rate_hz, LABELS))
    if said.label_scores is None:
        raise WrongNumbers("the model gives no label scores, so nothing shows what it computed")
    found = [float(score) for score in said.label_scores]
    if not all(map(math.isfinite, found)):
        raise WrongNumbers(f"the logits are not finite: label scores {found}")
    return found


def _cap_device(device: str, n_bytes: int) -> None:
    """Torch's allocator then refuses as a smaller card would; the context and other libraries' memory do not count."""
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, n_bytes / total), torch.device(device))


def _device_peaks(device: str) -> tuple[int | None, int | None]:
    """Allocated and reserved bytes of torch's CUDA allocator at their highest; None elsewhere."""
    if not device.startswith("cuda"):
        return None, None
    import torch

    return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
