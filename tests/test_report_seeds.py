"""Several seeds of one recipe in the report: never merged, never two under one name, and summed up over seeds."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from harness.report.loading import load_all
from harness.report.main_tables import main_tables
from harness.report.over_seeds import over_seeds, seed_tables
from harness.report.rendering import ReportTable, to_csv
from harness.report.run_plots import run_figures
from harness.report.training_tables import training_tables
from harness.report.writing import make_report
from tests.report_results import (
    LABELS,
    N,
    answers,
    point,
    weights_of,
    write_run,
    write_scaling,
    write_seed,
    write_training,
)

MODEL = "ssalm:tiny"
RIGHT_BY_SEED = {0: 12, 1: 9, 2: 6}


@pytest.fixture
def seeded(tmp_path: Path) -> Path:
    """Three seeds of one model, the first of which is shipped, and a floor."""
    for seed, n_right in RIGHT_BY_SEED.items():
        write_seed(tmp_path, MODEL, seed, n_right, is_shipped=seed == 0)
        write_training(tmp_path, MODEL, seed, weights_of(MODEL, seed))
    write_run(tmp_path, "chance", answers(2), n_parameters=0)
    return tmp_path


def _only(tables: list[ReportTable], name: str) -> ReportTable:
    (table,) = [table for table in tables if table.name == name]
    return table


def _by_column(table: ReportTable, row: int = 0) -> dict[str, str]:
    return dict(zip(table.header, table.rows[row], strict=True))


def test_the_mean_over_seeds_stands_beside_each_seed(seeded: Path) -> None:
    table = _only(seed_tables(load_all(seeded)), "seeds-starter-exact")
    row = _by_column(table)
    assert (row["model"], row["recipe"], row["seeds"]) == (MODEL, "tiny 3", "3")
    assert [row[f"seed {seed}"] for seed in range(3)] == ["100.0", "75.0", "50.0"]
    assert row["mean [95 %]"].startswith("75.0 [")


def test_a_model_of_one_set_of_weights_is_in_no_table_of_seeds(seeded: Path) -> None:
    table = _only(seed_tables(load_all(seeded)), "seeds-starter-exact")
    assert [row[0] for row in table.rows] == [MODEL]


def test_the_interval_is_wider_than_that_of_recordings_alone(seeded: Path) -> None:
    table = _only(seed_tables(load_all(seeded)), "seeds-starter-exact")
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    widths = {row["seed"]: float(row["high"]) - float(row["low"]) for row in rows}
    assert widths["mean"] > widths["0"]
    assert all(LABELS and row["n_items"] == str(N) for row in rows)


def test_seeds_that_are_alike_and_recordings_that_differ_give_the_interval_of_recordings() -> None:
    right = np.array([1.0] * 6 + [0.0] * 6)
    clusters = [f"recording{n}" for n in range(N)]

    def accuracy(counts: np.ndarray) -> np.ndarray:
        return (right @ counts) / counts.sum(axis=0)

    one, three = over_seeds([accuracy], clusters), over_seeds([accuracy] * 3, clusters)
    assert (one.low, one.high) == pytest.approx((three.low, three.high))


def test_recordings_that_are_alike_and_seeds_that_differ_give_the_interval_of_seeds() -> None:
    """Of two seeds at 0 and 1, a quarter of all draws are 0 and a quarter 1."""
    constant = [lambda counts, value=value: np.full(counts.shape[1], value) for value in (0.0, 1.0)]
    interval = over_seeds(constant, ["a", "b"])
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_rows_of_several_weights_are_told_apart_by_their_seed(seeded: Path) -> None:
    table = _only(list(make_report(load_all(seeded)).tables), "accuracy-starter-exact")
    assert [row[0] for row in table.rows] == [*(f"{MODEL} [seed {seed}]" for seed in range(3)), "chance"]


def test_weights_of_no_known_training_are_told_by_their_hash_and_are_no_seed(seeded: Path) -> None:
    folder = write_seed(seeded, MODEL, 7, 3)
    read = load_all(seeded)
    table = _only(list(make_report(read).tables), "accuracy-starter-exact")
    assert f"{MODEL} [weights {weights_of(MODEL, 7)[:8]}]" in [row[0] for row in table.rows]
    seeds = _only(seed_tables(read), "seeds-starter-exact")
    assert _by_column(seeds)["seeds"] == "3"
    assert any(folder.name in note for note in seeds.notes)


def test_two_recipes_are_never_seeds_of_one_another(seeded: Path) -> None:
    for seed in (3, 4):
        write_seed(seeded, MODEL, seed, 3)
        learned = {"recipe": "tiny", "recipe_version": 4, "hold_out_fold": None, "n_clips": 381}
        write_training(seeded, MODEL, seed, weights_of(MODEL, seed), learned_from=learned)
    table = _only(seed_tables(load_all(seeded)), "seeds-starter-exact")
    assert [(row[1], row[3]) for row in table.rows] == [("tiny 3", "3"), ("tiny 4", "2")]


def test_a_seed_that_was_trained_twice_counts_once_and_is_told(seeded: Path) -> None:
    again = write_seed(seeded, MODEL, 5, 1)
    write_training(seeded, MODEL, 2, weights_of(MODEL, 5))
    table = _only(seed_tables(load_all(seeded)), "seeds-starter-exact")
    assert _by_column(table)["seeds"] == "3" and _by_column(table)["seed 2"] != "50.0"
    assert any("newer run of the same seed" in note for note in table.notes)
    assert again.is_dir()


def test_figures_show_the_weights_that_come_with_the_model(seeded: Path) -> None:
    (figure,) = [spec for spec in run_figures(load_all(seeded)) if spec.name == "accuracy-starter-exact"]
    assert figure.data["models"] == [MODEL, "chance"]
    assert figure.data["panels"][0]["values"][MODEL][0] == 100.0


def test_trainings_of_one_recipe_are_one_row_with_the_held_out_score_of_each_seed(tmp_path: Path) -> None:
    for seed, value in ((0, 0.25), (1, 0.35)):
        interval = {"low": value - 0.1, "high": value + 0.1}
        held_out = [{"scorer": "exact", "value": value, "n_items": 40, "interval": interval}]
        write_training(tmp_path, MODEL, seed, weights_of(MODEL, seed), held_out=held_out)
    row = _by_column(_only(training_tables(load_all(tmp_path)), "training-seeds"))
    assert (row["seeds"], row["held-out accuracy %"]) == ("2 (0, 1)", "exact 30.0 (25.0, 35.0), n 40")
    assert (row["steps x clips"], row["hours"]) == ("50 x 8 + 50 x 16", "1.00")


def test_a_training_on_fewer_clips_is_a_row_of_its_own(tmp_path: Path) -> None:
    write_training(tmp_path, MODEL, 0, weights_of(MODEL, 0))
    learned = {"recipe": "tiny", "recipe_version": 3, "hold_out_fold": 4, "n_clips": 300}
    write_training(tmp_path, MODEL, 1, weights_of(MODEL, 1), learned_from=learned)
    table = _only(training_tables(load_all(tmp_path)), "training-seeds")
    assert [row[3] for row in table.rows] == ["-", "fold 4"]


@pytest.mark.parametrize(
    "changes",
    [
        {"held_out": [{"scorer": "exact", "value": float("nan"), "n_items": 1, "interval": {"low": 0, "high": 1}}]},
        {"learned_from": "everything"},
        {"trained_s": "long"},
    ],
)
def test_a_broken_training_record_is_one_line_and_in_no_table(tmp_path: Path, changes: dict[str, object]) -> None:
    folder = write_training(tmp_path, MODEL, 0, weights_of(MODEL, 0))
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | changes))
    read = load_all(tmp_path)
    assert len(read.problems) == 1 and str(folder) in read.problems[0] and "\n" not in read.problems[0]
    assert training_tables(read) == []


# --- the main table --------------------------------------------------------------------------------------------------


def test_the_main_table_sets_the_score_beside_the_cost_of_a_minute(tmp_path: Path) -> None:
    write_run(tmp_path, MODEL, answers(9))
    write_run(tmp_path, "chance", answers(2), n_parameters=0)
    write_scaling(tmp_path, more=[point("ssalm", 60.0, 0.5, 3 * 10**9)])
    (table,) = main_tables(load_all(tmp_path))
    row = _by_column(table)
    assert (table.name, row["esc50 acc. (n 12)"].split()[0]) == ("main-starter", "75.0")
    assert (row["GFLOPs, 60 s"], row["time, 60 s"], row["peak MB, 60 s"]) == ("3", "500 ms", "0.5")
    assert _by_column(table, 1)["GFLOPs, 60 s"] == "-"


def test_without_a_minute_measured_there_is_no_main_table(tmp_path: Path) -> None:
    write_run(tmp_path, MODEL, answers(9))
    write_scaling(tmp_path)
    assert main_tables(load_all(tmp_path)) == []
