"""What `scaling` asks of each model before it believes its formulas: formula beside counter, and what nobody counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.flop_coverage import cover

MODEL = '''
"""A model whose meter is told too late, and which adds and multiplies."""
import torch
from harness.contracts import ModelAdapter, ModelDescription, Work


def forgetful(tells_first: bool = False) -> ModelAdapter:
    return Forgetful(tells_first)


class Forgetful:
    def __init__(self, tells_first):
        self.tells_first = tells_first

    def load(self, device, dtype): pass
    def answer(self, queries): return []
    def close(self): pass
    def train_step(self, clips, prompt, answer, meter): return 0.0
    def state_bytes(self, n_tokens): raise NotImplementedError

    def describe(self):
        return ModelDescription("forgetful", "", "", {}, 16_000, None, "full", None, {}, {}, "f")

    def answer_metered(self, clips, prompt, n_answer_tokens, meter):
        x = torch.ones(4, 4)
        if self.tells_first:
            meter.enter("encoder")
        y = x @ x
        meter.enter("encoder")
        y @ x + x
        return [[1] * n_answer_tokens]

    def work(self, n_samples, prompt, n_answer_tokens, n_clips=1):
        return {"encoder": Work(256, 128, 16, {"linear": 256})}
'''


@pytest.fixture
def plan(tmp_path: Path) -> dict[str, Any]:
    """One second of a model that is not built in."""
    (tmp_path / "forgetful.py").write_text(MODEL)
    numbers = {"n_tokens": 2, "half_width": 1.0, "least_s": 0.0, "most_s": 1.0, "seed": 0, "batch_size": 1}
    place = {"model": "forgetful", "options": {}, "plugins": [str(tmp_path / "forgetful.py")], "device": "cpu"}
    return {**place, **numbers, "step": "infer", "seconds": 1.0, "dtype": "float32"}


def test_work_before_the_first_component_does_not_fall_under_the_table(plan: dict[str, Any]) -> None:
    told = cover(**plan)
    assert told["formula_flops"] == {"encoder": 256, "outside": 0}
    assert told["counted_flops"] == {"encoder": 128, "outside": 128}


def test_where_formula_and_counter_agree_nothing_else_is_listed(plan: dict[str, Any]) -> None:
    told = cover(**{**plan, "options": {"tells_first": True}})
    assert told["formula_flops"] == told["counted_flops"] == {"encoder": 256}


def test_operators_that_nobody_counts_are_named_with_what_they_returned(plan: dict[str, Any]) -> None:
    told = cover(**plan)
    assert (told["uncovered"], told["left_out"]["aten.add"]) == ([], 16)
