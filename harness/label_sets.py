"""Decisions of several labels: what a scorer makes of an answer that lists the sounds of a clip with several."""

from __future__ import annotations

from dataclasses import dataclass

from harness.contracts import Decision


@dataclass(frozen=True)
class SetDecision(Decision):
    """All labels that an answer names, sorted; `label` is the one where there is one, and else None."""

    labels: tuple[str, ...] = ()


def decided_labels(decision: Decision) -> tuple[str, ...]:
    """Every label that was decided, by a scorer of sets or of single labels."""
    if isinstance(decision, SetDecision):
        return decision.labels
    return () if decision.label is None else (decision.label,)
