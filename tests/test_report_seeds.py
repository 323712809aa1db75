"""Several seeds of one recipe in the report: never merged, never two under one name, and summed up over seeds."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from harness.hashing import file_sha256
from harness.measuring import BoundMetric
from harness.records import load_predictions, load_record, write_record
from harness.report.loading import load_all
from harness.report.main_tables import main_tables
from harness.report.over_seeds import over_seeds, seed_tables
from harness.report.rendering import ReportTable, to_csv
from harness.report.run_plots import run_figures
from harness.report.training_tables import training_tables
from harness.report.weights import plain_name
from harness.report.writing import make_report
from harness.training import FIRST_ROUND
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
    assert (table.name, row["esc50 acc. (n 12), starter"].split()[0]) == ("main-starter", "75.0")
    assert (row["GFLOPs, 60 s"], row["time, 60 s"], row["peak MB, 60 s"]) == ("3", "500 ms", "0.5")
    assert _by_column(table, 1)["GFLOPs, 60 s"] == "-"


def test_without_a_minute_measured_there_is_no_main_table(tmp_path: Path) -> None:
    write_run(tmp_path, MODEL, answers(9))
    write_scaling(tmp_path)
    assert main_tables(load_all(tmp_path)) == []


# --- what must not be mixed up ---------------------------------------------------------------------------------------


def _with_scores(folder: Path, **changes: object) -> None:
    record = load_record(folder)
    assert record is not None
    scores = tuple(score.model_copy(update=changes) for score in record.scores)
    write_record(folder, record.model_copy(update={"scores": scores}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scorer_version": 0}, "No interval in accuracy by exact: scored by version 0"),
        ({"scorer": "verbatim"}, "No interval in accuracy by verbatim: `report` scores no captions"),
        ({"scorer": "embed"}, "No interval in accuracy by embed: scorers other than exact and loglik need a model"),
    ],
)
def test_a_mean_without_an_interval_tells_why(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    for seed in (0, 1):
        _with_scores(write_seed(tmp_path, MODEL, seed, 6 + seed), **changes)
        write_training(tmp_path, MODEL, seed, weights_of(MODEL, seed))
    (table,) = seed_tables(load_all(tmp_path))
    assert "[" not in _by_column(table)["mean [95 %]"]
    assert any(note.startswith(reason) for note in table.notes)


def test_a_score_of_texts_is_resampled_from_its_items_recorded_values(tmp_path: Path) -> None:
    """Items worth 1 or 0 have the interval of labels that are right or wrong."""
    means = []
    for name, is_of_texts in (("labels", False), ("texts", True)):
        for seed in (0, 1):
            folder = write_seed(tmp_path / name, MODEL, seed, 3 + 6 * seed)
            write_training(tmp_path / name, MODEL, seed, weights_of(MODEL, seed))
            if is_of_texts:
                # The first so many answers are the right ones.
                values = {p.item_id: float(n < 3 + 6 * seed) for n, p in enumerate(load_predictions(folder))}
                _with_scores(folder, scorer="verbatim", item_values=values)
        (table,) = seed_tables(load_all(tmp_path / name))
        means.append(_by_column(table)["mean [95 %]"])
    assert "[" in means[0] and means[0] == means[1]


@pytest.mark.parametrize(
    ("mark", "told"), [("#", "the recorded values are not those of its items"), ("", "do not average to it")]
)
def test_recorded_values_that_are_not_of_the_score_make_no_interval(tmp_path: Path, mark: str, told: str) -> None:
    for seed in (0, 1):
        folder = write_seed(tmp_path, MODEL, seed, 6)
        write_training(tmp_path, MODEL, seed, weights_of(MODEL, seed))
        values = {p.item_id + mark: 0.9 for p in load_predictions(folder)}
        _with_scores(folder, scorer="verbatim", item_values=values)
    (table,) = seed_tables(load_all(tmp_path))
    assert any(told in note for note in table.notes)


def test_a_metric_whose_resamples_are_biased_has_no_interval_and_tells_why(
    seeded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundMetric, "bootstrap_is_biased", True)
    table = _only(seed_tables(load_all(seeded)), "seeds-starter-exact")
    assert any("the mean of its resamples is another than its value" in note for note in table.notes)


def test_runs_of_another_number_type_are_a_row_of_their_own(seeded: Path) -> None:
    for seed in (0, 1):
        write_seed(seeded, MODEL, seed, 3, dtype="bfloat16")
    table = _only(seed_tables(load_all(seeded)), "seeds-starter-exact")
    assert [(row[0], row[3]) for row in table.rows] == [(f"{MODEL} [bfloat16]", "2"), (f"{MODEL} [float32]", "3")]


def test_under_a_protocol_its_own_options_are_not_named_and_others_are(tmp_path: Path) -> None:
    fixed = {"decoding": "ltu", "length_policy": "first_10_24s"}
    for n_right, passed in ((3, fixed), (4, {**fixed, "scan": "plain"})):
        folder = write_run(tmp_path, MODEL, answers(n_right), protocol="ltu")
        record = load_record(folder)
        assert record is not None
        model = record.model.model_copy(update={"options_passed": passed})
        write_record(folder, record.model_copy(update={"model": model}))
    assert {plain_name(run) for run in load_all(tmp_path).runs} == {MODEL, f"{MODEL} (scan=plain)"}


def test_weights_of_two_recipes_are_named_with_their_recipe(seeded: Path) -> None:
    write_seed(seeded, MODEL, 3, 3)
    learned = {"recipe": "scenes", "recipe_version": 1, "hold_out_fold": None, "n_clips": 381}
    config = {"seed": 0, "threads": 1}
    write_training(seeded, MODEL, 3, weights_of(MODEL, 3), learned_from=learned, config=config)
    table = _only(list(make_report(load_all(seeded)).tables), "accuracy-starter-exact")
    names = {row[0] for row in table.rows}
    assert {f"{MODEL} [scenes 1, seed 0]", f"{MODEL} [tiny 3, seed 0]"} <= names


def test_weights_of_two_kinds_of_one_recipe_are_named_with_their_hash(tmp_path: Path) -> None:
    for seed, n_clips in ((0, 381), (1, 300)):
        write_seed(tmp_path, MODEL, seed, 3 + seed)
        learned = {"recipe": "tiny", "recipe_version": 3, "hold_out_fold": None, "n_clips": n_clips}
        write_training(tmp_path, MODEL, seed, weights_of(MODEL, seed), learned_from=learned)
    table = _only(list(make_report(load_all(tmp_path)).tables), "accuracy-starter-exact")
    assert [row[0] for row in table.rows] == [
        f"{MODEL} [tiny 3, seed {seed}, weights {weights_of(MODEL, seed)[:8]}]" for seed in (0, 1)
    ]


def test_the_main_table_tells_which_of_several_seeds_it_shows(seeded: Path) -> None:
    write_scaling(seeded, more=[point("ssalm", 60.0, 0.5, 3 * 10**9)])
    (table,) = main_tables(load_all(seeded))
    assert f"{MODEL}: seed 0 of its training; seeds 1, 2 not shown here." in table.notes


def test_a_training_that_was_made_again_is_told_and_counts_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_training(tmp_path, MODEL, 0, weights_of(MODEL, 0)).rename(tmp_path / "training" / "ssalm-tiny" / name)
    table = _only(training_tables(load_all(tmp_path)), "training-seeds")
    assert _by_column(table)["seeds"] == "1 (0)"
    assert any(note.startswith("training/ssalm-tiny/a is left out for") for note in table.notes)


@pytest.fixture
def two_rounds(tmp_path: Path) -> Path:
    """A training that took over the first round of another, whose folder is given; that has 8 clips at 10 a second."""
    learned = {"recipe": "tiny", "recipe_version": 3, "hold_out_fold": None, "n_clips": 381}
    write_training(tmp_path, MODEL, 0, weights_of(MODEL, 0), learned_from={**learned, "hearing_from_sha256": "abc"})
    first = write_training(tmp_path, MODEL, 1, weights_of(MODEL, 1))
    (first / "first_round.sha256").write_text("abc\n")
    (first / "record.json").unlink()
    (first / "config.json").write_text(json.dumps({"batch_size": 8, "steps": 1900, "second_share": 900 / 1900}))
    return first


def test_the_hours_of_a_first_round_end_where_it_ends(two_rounds: Path) -> None:
    table = _only(training_tables(load_all(two_rounds.parents[2])), "training-seeds")
    assert _by_column(table)["hours"] == "0.22 + 1.00"  # 1000 steps of 8 clips at 10 a second: 800 s


@pytest.mark.parametrize("lacks", ["settings", "speed", "end"])
def test_a_first_round_that_is_not_whole_is_said_to_be_not_here(two_rounds: Path, lacks: str) -> None:
    curve = two_rounds / "curve.jsonl"
    if lacks == "settings":
        (two_rounds / "config.json").unlink()
    elif lacks == "speed":
        curve.write_text(curve.read_text().replace('"clips_per_s"', '"speed"'))
    else:
        curve.write_text("".join(curve.read_text().splitlines(keepends=True)[:5]))
    table = _only(training_tables(load_all(two_rounds.parents[2])), "training-seeds")
    assert _by_column(table)["hours"] == "1.00 and a first round whose record is not here as a whole"


def test_beside_one_that_took_over_a_first_round_the_time_of_ones_own_is_parted(two_rounds: Path) -> None:
    """The one that left the first round has a record too: 800 s of its hour went into that."""
    record = json.loads(next(two_rounds.parent.glob("tiny-seed0-*/record.json")).read_text())
    del record["learned_from"]["hearing_from_sha256"]
    record |= {"weights_sha256": "f" * 64, "config": {**record["config"], "seed": 1}}
    (two_rounds / "record.json").write_text(json.dumps(record))
    table = _only(training_tables(load_all(two_rounds.parents[2])), "training-seeds")
    assert _by_column(table)["seeds"] == "2 (0, 1)"
    assert _by_column(table)["hours"] == "0.22 + 0.89"  # the mean of 1 and 1 - 800 / 3600


def test_a_first_round_that_lies_there_is_known_by_its_contents(tmp_path: Path) -> None:
    folder = write_training(tmp_path, MODEL, 0, weights_of(MODEL, 0))
    (folder / FIRST_ROUND).write_bytes(b"a first round")
    (kept,) = load_all(tmp_path).training
    assert kept.first_round_sha256 == file_sha256(folder / FIRST_ROUND)
