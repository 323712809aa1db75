"""What a reader must know of two runs that were asked the same, before their difference is put down to the models.

A difference of two models is one of architecture only where nothing else differs: each setting that does is named, with
both values. Parameters count as equal within 5 %.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.records import RunRecord
from harness.tables import model_text

_EQUAL_WITHIN = 0.05
# Settings of a run that may change what the same weights say.
_SETTINGS = ("device", "dtype", "batch_size", "seed")


def pair_remarks(one: RunRecord, other: RunRecord) -> list[str]:
    """One sentence each; none where the runs differ in their models' names and weights alone."""
    task = one.task.name
    found = []
    if one.protocol != other.protocol:
        found.append(f"{task}: the runs follow different protocols: {_protocols(one, other)}.")
    unlike = [f"{what} ({first} and {second})" for what, first, second in _unlike(one, other)]
    if unlike:
        found.append(f"{task}: the runs also differ in {', '.join(unlike)}.")
    return found + [text for run in (one, other) for text in _learned(run)]


def _protocols(*runs: RunRecord) -> str:
    return ", ".join(f"{model_text(run)} by {f'protocol {run.protocol}' if run.protocol else 'none'}" for run in runs)


def _learned(run: RunRecord) -> Iterator[str]:
    if run.leakage is not None and run.leakage.flagged:
        yield (
            f"{run.task.name}: {len(run.leakage.flagged)} of {run.counts.n_items} clips, or their recordings, are "
            f"among what {model_text(run)} learned from; they are compared like the others."
        )


def _unlike(one: RunRecord, other: RunRecord) -> Iterator[tuple[str, str, str]]:
    """Each thing that differs, and how it is in both runs."""
    sizes = [sum(run.model.parameters.values()) for run in (one, other)]
    if max(sizes) > (1 + _EQUAL_WITHIN) * min(sizes):
        yield "parameters", f"{sizes[0]:,}", f"{sizes[1]:,}"
    pairs: dict[str, tuple[object, ...]] = {
        "audio tokens a second": (one.model.audio_tokens_per_s, other.model.audio_tokens_per_s),
        "clips heard in part": tuple(run.counts.n_truncated + run.counts.n_cut for run in (one, other)),
        "what the models learned from": (one.model.trained_on, other.model.trained_on),
    }
    pairs |= {key: (one.config_resolved.get(key), other.config_resolved.get(key)) for key in _SETTINGS}
    for key in sorted({*one.model.generation, *other.model.generation}):
        pairs[f"generation's {key}"] = (one.model.generation.get(key), other.model.generation.get(key))
    for what, (first, second) in pairs.items():
        if first != second:
            yield what, _said(first), _said(second)


def _said(value: object) -> str:
    return "none" if value in (None, "") else str(value)
