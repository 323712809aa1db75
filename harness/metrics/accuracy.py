"""Accuracy: the share of items whose label is right."""

from __future__ import annotations

from collections.abc import Sequence

from harness.contracts import Scored


def accuracy(scored: Sequence[Scored]) -> float:
    """Fraction in [0, 1] of items whose decided label is among the references; higher is better.

    Every item counts: one that failed, or whose answer names no label, is wrong.

    Raises:
        ValueError: there is nothing to score.
    """
    if not scored:
        raise ValueError("accuracy needs at least one item")
    return sum(item.answered and item.decision.label in item.references for item in scored) / len(scored)
