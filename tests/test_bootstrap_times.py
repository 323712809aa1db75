"""Every metric is resampled fast, from per-item numbers alone; the benchmark of it measures sets made from a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness import bootstrap_times
from harness.captioning import meteor
from harness.contracts import Scored
from harness.metrics import spice
from harness.registry import names

LIMIT_S = 10.0
# What METEOR's jar might count of an item: four lengths, matches by stage, chunks, matched words.
COUNTED = (9.0, 8.0, 2.0, 2.0, 3.0, 3.0, 1.0, 1.0, *(0.0,) * 12, 2.0, 4.0, 4.0)


class ClosableItems(Sequence[Scored]):
    """Items that cannot be looked at any more once they are closed."""

    def __init__(self, items: Sequence[Scored]) -> None:
        self.items = items
        self.is_closed = False

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: Any) -> Any:
        assert not self.is_closed, "an item was looked at again"
        return self.items[place]

    def __iter__(self) -> Iterator[Scored]:
        assert not self.is_closed, "the items were gone through again"
        return iter(self.items)


@pytest.fixture
def _no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """SPICE has a column of its own, and METEOR's jar counts the same in every item."""

    def column(captions: Any, corenlp: str = "") -> npt.NDArray[np.float64]:
        return np.random.default_rng(0).random(len(captions))

    monkeypatch.setattr(spice, "spice_items", column)
    monkeypatch.setattr(meteor, "_numbers", {})
    monkeypatch.setattr(meteor, "_align", lambda items: [COUNTED] * len(items))


def test_the_sets_are_the_same_for_the_same_seed() -> None:
    assert bootstrap_times.captioned_items(3) == bootstrap_times.captioned_items(3)
    assert bootstrap_times.labelled_items(2) == bootstrap_times.labelled_items(2)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "mean_ap", "wer", "bleu_4", "cider_d"])
def test_each_metric_has_a_row_of_seconds(metric: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap_times.main([metric, "--items", "20"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.startswith("metric") and row.split()[:2] == [metric, "20"]
    assert all(float(cell) >= 0 for cell in row.split()[2:])


@pytest.mark.usefixtures("_no_java")
@pytest.mark.parametrize("metric", names("metrics"))
def test_no_item_is_looked_at_again_for_a_resample(metric: str) -> None:
    made, labels = bootstrap_times.items_for(metric, 12)
    items = ClosableItems(made)
    resampled = bootstrap_times.bound_metric(metric, labels).resampled(items)
    items.is_closed = True
    counts = np.random.default_rng(1).integers(1, 3, (12, 5)).astype(np.int32)
    assert resampled(counts).shape == (5,) and np.isfinite(resampled(counts)).all()


@pytest.mark.slow
@pytest.mark.usefixtures("_no_java")
@pytest.mark.parametrize("metric", names("metrics"))
def test_a_thousand_resamples_of_20_000_items_take_less_than_ten_seconds(metric: str) -> None:
    items, labels = bootstrap_times.items_for(metric, bootstrap_times.N_ITEMS)
    _, preparing_s, resamples_s = bootstrap_times.measure(metric, items, labels)
    assert preparing_s + resamples_s < LIMIT_S
