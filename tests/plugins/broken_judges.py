"""Scorers for tests that break their contract in one way each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.contracts import Decision, Label, ScorableAnswer, Scorer


def broken_judges(how: str = "not at all") -> Scorer:
    """Names no label; `how` says what it does instead."""
    return BrokenJudge(how)


class BrokenJudge:
    name = "broken_judges"
    version = 1
    needs_label_scores = False
    gives_scores = False

    def __init__(self, how: str) -> None:
        self.how = how

    def decide(self, answers: Sequence[ScorableAnswer], labels: Sequence[Label]) -> Sequence[Decision]:
        wrong: dict[str, Any] = {"none": None, "words": [answer.text for answer in answers]}
        if self.how == "raises":
            raise RuntimeError("no verdict")
        made: Sequence[Decision] = wrong.get(self.how, [Decision(None) for _ in answers])
        return made
