"""The benchmark of the bootstrap measures every metric on sets that it makes from a seed."""

from __future__ import annotations

import pytest

from harness import bootstrap_times


def test_the_sets_are_the_same_for_the_same_seed() -> None:
    assert bootstrap_times.captioned_items(3) == bootstrap_times.captioned_items(3)
    assert bootstrap_times.labelled_items(2) == bootstrap_times.labelled_items(2)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "mean_ap", "wer", "bleu_4", "cider_d"])
def test_each_metric_has_a_row_of_seconds(metric: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap_times.main([metric, "--items", "20"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.startswith("metric") and row.split()[:2] == [metric, "20"]
    assert all(float(cell) >= 0 for cell in row.split()[2:])
