"""Items that could not be learned from: each is noted once, whoever meets it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.contracts import Question
from harness.curriculum import Lesson
from harness.lesson_batches import BadItems
from harness.processes import Processes


def _lesson(number: int) -> Lesson:
    return Lesson(f"toy.json:{number}", Path(f"{number}.wav"), Question("", ()))


@dataclass(frozen=True)
class _Two(Processes):
    """This process with another, which found `others`."""

    count: int = 2
    others: Sequence[dict[str, str]] = ()
    told: list[Any] = field(default_factory=list)

    def sums(self, numbers: Sequence[float]) -> list[float]:
        return [numbers[0] + len(self.others)]

    def gather(self, thing: Any) -> list[Any]:
        self.told.extend(thing)
        return [thing, self.others]


class _Slow(dict[str, str]):
    """Another thread has its turn between a look and what follows from it."""

    def __contains__(self, key: object) -> bool:
        is_there = super().__contains__(key)
        time.sleep(0.005)
        return is_there


def test_an_item_that_is_met_while_the_others_hand_it_over_is_noted_once(tmp_path: Path) -> None:
    bad = BadItems(tmp_path / "bad.jsonl")
    bad.reasons = _Slow()
    entries = [{"item": f"toy.json:{number}", "audio": f"{number}.wav", "reason": "silent"} for number in range(5)]
    with ThreadPoolExecutor() as ahead:
        added = [ahead.submit(bad.add, _lesson(number), "silent") for number in range(5)]
        bad.hand_over(_Two(others=entries))
    assert all(one.exception() is None for one in added)
    items = [json.loads(line)["item"] for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert sorted(items) == [f"toy.json:{number}" for number in range(5)]


def test_what_a_helper_found_is_handed_over_once(tmp_path: Path) -> None:
    bad, two = BadItems(tmp_path / "bad.jsonl", is_writer=False), _Two(rank=1)
    for number in (1, 2, 1):
        bad.add(_lesson(number), "silent")
    bad.hand_over(two)
    bad.hand_over(two)
    assert [entry["item"] for entry in two.told] == ["toy.json:1", "toy.json:2"]
    assert not (tmp_path / "bad.jsonl").exists()
