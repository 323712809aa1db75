"""Results split by metadata: each stratum scored like a run of its own, from the predictions alone."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import pytest

from harness.cli import main
from harness.config import RunConfig
from harness.errors import UsageError
from harness.records import Prediction, load_predictions
from harness.runner import run
from harness.strata import grouped, strata_csv, strata_file, strata_lines, strata_of, strata_table
from harness.tables import no_width_lines

OPTIONS = {"lengths": "10,12", "depths": "0,1", "snrs": "0,20", "n": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `chance` on a small grid."""
    results = tmp_path_factory.mktemp("results")
    config = RunConfig(model="chance", task="needle", task_options=OPTIONS, results=results, threads=1, device="cpu")
    return run(config, say=lambda line: None).folder


def prediction(item_id: str, **metadata: str | float | bool | None) -> Prediction:
    return Prediction(
        item_id=item_id,
        cluster=item_id,
        references=("dog",),
        status="ok",
        audio_identity="x",
        prompt_sha256="y",
        batch_index=0,
        metadata=metadata,
    )


def test_a_prediction_carries_the_metadata_of_its_item(folder: Path) -> None:
    first = load_predictions(folder)[0]
    assert first.metadata["length_s"] == 10.0
    assert {"depth", "snr_db", "background", "event"} <= set(first.metadata)


def test_the_strata_are_all_combinations_in_order(folder: Path) -> None:
    _, reports = strata_of(folder, ["exact"], ["length_s", "snr_db"])
    assert [stratum.values for stratum in reports[0].strata] == [(10.0, 0.0), (10.0, 20.0), (12.0, 0.0), (12.0, 20.0)]


def test_a_stratum_scores_as_a_plain_mean_of_its_items_does(folder: Path) -> None:
    right: dict[float, list[bool]] = defaultdict(list)
    for line in (folder / "predictions.jsonl").read_text().splitlines():
        row = json.loads(line)
        right[row["metadata"]["depth"]].append(row["text"].replace(" ", "_") in row["references"])
    _, reports = strata_of(folder, ["exact"], ["depth"])
    found = {stratum.values[0]: (stratum.score.value, stratum.score.n_items) for stratum in reports[0].strata}
    assert found == {depth: (sum(rights) / len(rights), 16) for depth, rights in right.items()}


def test_each_stratum_has_an_interval_over_its_clusters(folder: Path) -> None:
    _, reports = strata_of(folder, ["exact"], ["length_s"])
    for stratum in reports[0].strata:
        interval = stratum.score.interval
        assert interval is not None and interval.n_clusters == 4


def test_the_table_is_written_beside_the_predictions(folder: Path) -> None:
    _, (report,) = strata_of(folder, ["exact"], ["length_s", "depth"])
    path = strata_file(folder, report)
    assert path.name == "strata-exact-accuracy-by-length_s-depth.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(row["length_s"], row["depth"], row["n_items"]) for row in rows] == [
        ("10.0", "0.0", "8"),
        ("10.0", "1.0", "8"),
        ("12.0", "0.0", "8"),
        ("12.0", "1.0", "8"),
    ]
    assert all(0.0 <= float(row["low"]) <= float(row["value"]) <= float(row["high"]) <= 1.0 for row in rows)


def test_the_command_prints_the_table_and_where_it_lies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(folder), "--scorer", "exact", "--by", "length_s,depth"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["length_s", "depth", "n"]
    assert len(lines) == 2 + 4 + 2  # the table, that four strata are small, and where it lies
    assert lines[-1].endswith("strata-exact-accuracy-by-length_s-depth.csv")


def test_few_recordings_and_intervals_without_width_are_pointed_out(folder: Path) -> None:
    _, (report,) = strata_of(folder, ["exact"], ["length_s"], ["micro_f1"])
    assert strata_lines(report)[0].startswith("2 of 2 intervals are of fewer than 10 recordings")
    interval = report.strata[0].score.interval
    assert interval is not None
    alike = interval.model_copy(update={"low": 0.0, "high": 0.0})
    assert no_width_lines([interval, alike]) == [
        "1 intervals have no width, as all resamples were alike: that is not certainty."
    ]


def test_values_are_ordered_as_numbers_then_texts_then_none() -> None:
    rows = [prediction(str(place), snr=value) for place, value in enumerate([None, "b", 10.0, "a", 9.0])]
    assert list(grouped(rows, ["snr"])) == [(9.0,), (10.0,), ("a",), ("b",), (None,)]


def test_no_item_is_lost_or_counted_twice() -> None:
    rows = [prediction(str(place), a=place % 3, b=place % 2) for place in range(20)]
    groups = grouped(rows, ["a", "b"])
    assert sorted(row.item_id for items in groups.values() for row in items) == sorted(row.item_id for row in rows)


def test_metadata_that_an_item_lacks_is_named_with_what_there_is() -> None:
    rows = [prediction("one", depth=0.5), prediction("two", depth=0.5, other=1.0)]
    with pytest.raises(UsageError, match="'one' has no such metadata. All items have: depth"):
        grouped(rows, ["other"])


def test_a_run_of_before_metadata_was_recorded_is_refused() -> None:
    with pytest.raises(UsageError, match="a run of before metadata was recorded has none"):
        grouped([prediction("one")], ["depth"])


def test_too_many_strata_are_refused() -> None:
    rows = [prediction(str(place), place=float(place)) for place in range(501)]
    with pytest.raises(UsageError, match="makes 501 strata; 500 are the most"):
        grouped(rows, ["place"])


@pytest.mark.parametrize("by", [[], ["depth", "depth"]])
def test_names_must_be_given_once(by: list[str]) -> None:
    with pytest.raises(UsageError, match="each once"):
        grouped([prediction("one", depth=1.0)], by)


def test_a_metric_that_is_not_available_leaves_its_cell_empty(folder: Path) -> None:
    _, (report,) = strata_of(folder, ["exact"], ["length_s"], ["mean_ap"])
    rows = list(csv.DictReader(strata_csv(report).splitlines()))
    assert [(row["value"], bool(row["unavailable"])) for row in rows] == [("", True)] * 2
    assert all("not available" in row for row in strata_table(report).rows)
