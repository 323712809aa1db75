"""What the architecture alone changes: contrasts of four models over shared seeds, and what stands beside them."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.records import load_record, write_record
from harness.report.architecture_plots import architecture_figures
from harness.report.architecture_tables import architecture_tables, two_by_twos_of
from harness.report.loading import load_all
from harness.report.over_seeds import means_of_drawn_seeds, seed_tables
from harness.report.rendering import ReportTable, to_csv
from harness.report.style import write_figure
from harness.report.two_by_two import CELLS, EFFECTS
from harness.report.weights import first_rounds_text, trained_weights
from harness.statistics import resampled_values
from tests.report_results import (
    BASE,
    N,
    answers,
    needle_metadata,
    point,
    weights_of,
    write_run,
    write_scaling,
    write_seed,
    write_training,
)

# How many of 12 each seed gets right.
N_RIGHT = {"ltu": (6, 5, 4), "ast_mamba": (8, 7, 6), "hybrid": (7, 6, 5), "ssalm": (12, 11, 10)}


def _write(results: Path, cells: dict[str, tuple[int, ...]], trained: dict[str, Any], **asked: Any) -> None:
    for cell, of_seeds in cells.items():
        for seed, n_right in enumerate(of_seeds):
            write_seed(results, f"{cell}:tiny", seed, n_right, **asked)
            write_training(results, f"{cell}:tiny", seed, weights_of(f"{cell}:tiny", seed), **trained)


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """Three seeds of each of the four models."""
    _write(tmp_path, N_RIGHT, {})
    return tmp_path


def _table(results: Path) -> ReportTable:
    read = load_all(results)
    (table,) = architecture_tables(two_by_twos_of(read), read)
    return table


def _row(table: ReportTable, start: str) -> dict[str, str]:
    (row,) = [row for row in table.rows if row[0].startswith(start)]
    return dict(zip(table.header, row, strict=True))


def test_an_effect_is_what_one_part_changes_in_the_mean_over_the_other(four: Path) -> None:
    """Over seeds ltu has 5, ast_mamba 7, hybrid 6 and ssalm 11 of 12."""
    row = _row(_table(four), "esc50")
    assert row["DASS less AST"].startswith("+20.8 [")  # (6 + 11 - 5 - 7) / 2
    assert row["Mamba less LLaMA"].startswith("+29.2 [")  # (7 + 11 - 5 - 6) / 2
    assert row["interaction"].startswith("+25.0 [")  # (11 - 6) - (7 - 5)


def test_each_model_has_its_mean_over_seeds_as_in_the_table_of_seeds(four: Path) -> None:
    row = _row(_table(four), "esc50")
    (seeds,) = [table for table in seed_tables(load_all(four)) if table.name == "seeds-starter-exact"]
    means = {of_model[0]: of_model[seeds.header.index("mean [95 %]")] for of_model in seeds.rows}
    assert {f"{cell}:tiny": row[cell] for cell in CELLS} == means
    assert row["seeds"] == "3"


def test_what_a_seed_changes_in_all_models_alike_does_not_widen_an_effect() -> None:
    def constant(value: float) -> Any:
        return lambda counts: np.full(counts.shape[1], value)

    first, second = means_of_drawn_seeds([[constant(v) for v in row] for row in ((0.1, 0.5), (0.2, 0.6))], ["a", "b"])
    assert second - first == pytest.approx(0.1)
    assert set(np.round(first, 6)) == {0.1, 0.5}


def test_every_model_and_seed_is_computed_of_the_same_resamples() -> None:
    right = np.array([1.0, 0.0, 1.0, 1.0])
    clusters = ["a", "a", "b", "c"]

    def accuracy(counts: np.ndarray) -> np.ndarray:
        return (right @ counts) / counts.sum(axis=0)

    expected = resampled_values(accuracy, clusters, 200, 0)
    for means in means_of_drawn_seeds([[accuracy] * 3, [accuracy] * 3], clusters, 200):
        assert means == pytest.approx(expected)


def test_three_models_are_no_two_by_two(tmp_path: Path) -> None:
    _write(tmp_path, {cell: n for cell, n in N_RIGHT.items() if cell != "ssalm"}, {})
    assert two_by_twos_of(load_all(tmp_path)) == []


def test_models_of_another_recipe_are_not_compared(tmp_path: Path) -> None:
    learned = {"recipe": "tiny", "recipe_version": 4, "hold_out_fold": None, "n_clips": 381}
    _write(tmp_path, {cell: n for cell, n in N_RIGHT.items() if cell != "ssalm"}, {})
    _write(tmp_path, {"ssalm": (12, 11)}, {"learned_from": learned})
    assert two_by_twos_of(load_all(tmp_path)) == []


def test_models_that_took_more_steps_are_not_compared(tmp_path: Path) -> None:
    _write(tmp_path, {cell: n for cell, n in N_RIGHT.items() if cell != "ssalm"}, {})
    for seed, n_right in enumerate(N_RIGHT["ssalm"]):
        write_seed(tmp_path, "ssalm:tiny", seed, n_right)
        longer = {"config": {"seed": seed, "steps": 200}}
        write_training(tmp_path, "ssalm:tiny", seed, weights_of("ssalm:tiny", seed), **longer)
    assert two_by_twos_of(load_all(tmp_path)) == []


@pytest.mark.parametrize(
    "other",
    [
        {"model_options": {"variant": "tiny", "weights": None, "lora": "r=8"}},
        {"learned_from": {"recipe": "tiny", "recipe_version": 3, "hold_out_fold": None, "n_clips": 380}},
    ],
    ids=["lora", "fewer clips"],
)
def test_models_that_learned_otherwise_are_not_compared(tmp_path: Path, other: dict[str, Any]) -> None:
    _write(tmp_path, {cell: n for cell, n in N_RIGHT.items() if cell != "ltu"}, {})
    _write(tmp_path, {"ltu": N_RIGHT["ltu"]}, other)
    assert two_by_twos_of(load_all(tmp_path)) == []


def test_what_makes_the_model_may_differ(tmp_path: Path) -> None:
    _write(tmp_path, {cell: n for cell, n in N_RIGHT.items() if cell != "ssalm"}, {})
    _write(tmp_path, {"ssalm": N_RIGHT["ssalm"]}, {"model_options": {"variant": "tiny", "scan": "auto"}})
    assert len(two_by_twos_of(load_all(tmp_path))) == 1


def test_a_start_that_was_trained_otherwise_is_another_training(tmp_path: Path) -> None:
    for weights, steps in (("few", 10), ("many", 1000)):
        write_training(tmp_path, "ssalm:tiny", 0, weights, config={"seed": 0, "steps": steps})
        go_on = _learned(start_weights_sha256=weights)
        write_training(tmp_path, "ssalm:tiny", 0, f"{steps} and scenes", **go_on)
    trained = trained_weights(load_all(tmp_path).training)
    assert trained["10 and scenes"].lessons != trained["1000 and scenes"].lessons


def test_a_run_in_another_number_type_neither_joins_the_others_nor_hides_them(four: Path) -> None:
    write_seed(four, "ltu:tiny", 0, 12, dtype="bfloat16")
    table = _table(four)
    assert _row(table, "esc50")["ltu"].startswith("41.7 [")  # 5 of 12 in float32


def test_one_seed_says_nothing_of_another_training(tmp_path: Path) -> None:
    _write(tmp_path, {cell: n[:1] for cell, n in N_RIGHT.items()}, {})
    assert any("one seed, they say nothing of another training" in note for note in _table(tmp_path).notes)


def test_a_seed_that_was_asked_twice_is_told(four: Path) -> None:
    write_seed(four, "ltu:tiny", 8, 1)
    write_training(four, "ltu:tiny", 2, weights_of("ltu:tiny", 8))
    assert any("newer run of the same seed" in note for note in _table(four).notes)


def test_two_trainings_of_one_recipe_have_tables_of_their_own(four: Path) -> None:
    learned = {"recipe": "tiny", "recipe_version": 3, "hold_out_fold": 4, "n_clips": 300}
    for cell in CELLS:
        write_seed(four, f"{cell}:tiny", 7, 6)
        write_training(four, f"{cell}:tiny", 7, weights_of(f"{cell}:tiny", 7), learned_from=learned)
    read = load_all(four)
    tables = architecture_tables(two_by_twos_of(read), read)
    assert sorted(row[1] for table in tables for row in table.rows) == ["1", "3"]
    assert len({table.name for table in tables}) == 2


def test_only_the_seeds_that_all_four_have_count(tmp_path: Path) -> None:
    _write(tmp_path, {**N_RIGHT, "ltu": (6, 5)}, {})
    row = _row(_table(tmp_path), "esc50")
    assert row["seeds"] == "2" and row["ssalm"].startswith("95.8 [")


def test_a_search_in_long_audio_has_a_row_a_length(tmp_path: Path) -> None:
    """The first six items are 10 s long, the others 20 s."""
    asked = {"task": "needle", "origin": "generated", "metadata": needle_metadata()}
    _write(tmp_path, {cell: n[:1] for cell, n in N_RIGHT.items()}, {}, **asked)
    table = _table(tmp_path)
    assert [row[0] for row in table.rows[1:]] == ["needle at 10 s, generated", "needle at 20 s, generated"]
    assert _row(table, "needle at 20 s")["ast_mamba"].startswith("33.3 [")  # 2 of 6
    assert _row(table, "needle at 20 s")["DASS less AST"].startswith("+41.7 [")  # (1 + 6 - 0 - 2) / 2 of 6


def test_lengths_of_two_searches_are_told_apart(tmp_path: Path) -> None:
    asked = {"task": "needle", "origin": "generated", "metadata": needle_metadata()}
    _write(tmp_path, {cell: n[:1] for cell, n in N_RIGHT.items()}, {}, **asked)
    other = BASE.task.model_copy(update={"item_set_sha256": "f" * 64})
    for cell in CELLS:
        folder = write_seed(tmp_path, f"{cell}:tiny", 0, 6, **{**asked, "task": "needle"})
        record = load_record(folder)
        assert record is not None
        task = record.task.model_copy(update={"item_set_sha256": other.item_set_sha256})
        again = folder.with_name(f"20260301T000000Z-{record.run_id}")
        shutil.copytree(folder, again)
        write_record(again, record.model_copy(update={"task": task}))
    titles = [row[0] for row in _table(tmp_path).rows]
    assert len(titles) == 6 == len(set(titles))


def test_recordings_come_before_what_is_generated(tmp_path: Path) -> None:
    _write(tmp_path, N_RIGHT, {})
    for cell in CELLS:
        write_seed(tmp_path, f"{cell}:tiny", 0, 3, task="sound_count", origin="generated")
    assert [row[0].rpartition(", ")[2] for row in _table(tmp_path).rows] == ["starter", "generated"]


def test_the_better_floor_and_the_tagger_stand_beside(four: Path) -> None:
    write_run(four, "chance", answers(4), n_parameters=0)
    write_run(four, "majority", answers(3), n_parameters=0)
    write_run(four, "yamnet:labels", answers(9))
    table = _table(four)
    row = _row(table, "esc50")
    assert (row["floor"], row["yamnet:labels"]) == ("33.3", "75.0")
    assert {source.place.split("/")[1] for source in table.sources} >= {"chance", "majority", "yamnet-labels"}


def test_of_errors_the_better_floor_is_the_lower(four: Path) -> None:
    write_run(four, "chance", answers(4), n_parameters=0)
    write_run(four, "majority", answers(3), n_parameters=0)
    read = load_all(four)
    (found,) = two_by_twos_of(read)
    (outcome,) = found.outcomes
    column = replace(outcome.part.column, metric="wer")
    of_errors = replace(outcome, part=replace(outcome.part, column=column))
    (table,) = architecture_tables([replace(found, outcomes=(of_errors,))], read)
    assert _row(table, "esc50")["floor"] == "25.0"
    assert "Lower is better: WER." in table.notes


def test_a_floor_that_was_not_asked_is_not_named(four: Path) -> None:
    write_run(four, "chance", answers(4), n_parameters=0)
    assert "floor: chance, whichever is better." in _table(four).notes


def test_costs_are_compared_as_ratios(four: Path) -> None:
    """DASS has half and a quarter of AST's operations, Mamba all and half of LLaMA's."""
    flops = {"ltu": 8e9, "ast_mamba": 8e9, "hybrid": 4e9, "ssalm": 2e9}
    write_scaling(four, more=[point(cell, 60.0, 1.0, int(n)) for cell, n in flops.items()])
    table = _table(four)
    row = _row(table, "GFLOPs, 60 s")
    assert [row[cell] for cell in CELLS] == ["8", "8", "4", "2"]
    assert [row[name] for name in ("DASS less AST", "Mamba less LLaMA", "interaction")] == ["0.35x", "0.71x", "0.50x"]
    assert table.rules == {1}
    data = {row["what"]: row for row in csv.DictReader(io.StringIO(to_csv(table))) if row["metric"] == "GFLOPs"}
    assert float(data["ssalm"]["value"]) == 2.0 and float(data["interaction"]["value"]) == pytest.approx(0.5)


def test_the_ratio_of_a_time_of_wide_interval_is_marked(four: Path) -> None:
    points = [point(cell, 60.0, 1.0, 10**9) for cell in CELLS]
    assert points[0].measured is not None
    noisy = points[0].measured.model_copy(update={"noise": "wider than asked"})
    write_scaling(four, more=[points[0].model_copy(update={"measured": noisy}), *points[1:]])
    row = _row(_table(four), "time, 60 s")
    assert row["DASS less AST"].startswith("~1.00x") and _row(_table(four), "GFLOPs")["DASS less AST"] == "1.00x"


def test_conditions_under_which_others_were_measured_do_not_hide_the_four(four: Path) -> None:
    points = [point(cell, 60.0, 1.0, 10**9) for cell in CELLS]
    others = [
        each.model_copy(update={"key": each.key.model_copy(update={"model": f"other{number}", "threads": 8})})
        for number, each in enumerate([*points, points[0]])
    ]
    write_scaling(four, more=[*points, *others])
    assert _row(_table(four), "GFLOPs, 60 s")["ssalm"] == "1"


def test_costs_of_fewer_than_four_models_are_not_shown(four: Path) -> None:
    write_scaling(four, more=[point(cell, 60.0, 1.0, 10**9) for cell in ("ltu", "ssalm")])
    assert [row[0] for row in _table(four).rows] == ["esc50 acc. (n 12), starter"]


def test_the_data_have_every_seed_and_the_unrounded_interval(four: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(_table(four)))))
    effect = {row["seed"]: row for row in rows if row["what"] == "DASS less AST"}
    assert [float(effect[seed]["value"]) for seed in ("0", "1", "2")] == pytest.approx([2.5 / N] * 3)
    assert float(effect["mean"]["low"]) < 2.5 / N < float(effect["mean"]["high"])


def test_the_figure_draws_each_effect_of_each_outcome(four: Path) -> None:
    (figure,) = architecture_figures(two_by_twos_of(load_all(four)))
    (line,) = figure.data["lines"]
    assert line["effects"]["interaction"]["mean"] == pytest.approx(25.0)
    assert len(line["effects"]["interaction"]["seeds"]) == 3
    assert "mean over 3 seeds with" in figure.notes[0]


def test_the_figure_can_be_drawn(four: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (figure,) = architecture_figures(two_by_twos_of(load_all(four)))
    drawn = write_figure(figure, tmp_path_factory.mktemp("drawn"))
    (text,) = [path.read_text() for path in drawn if path.suffix == ".svg"]
    assert all(effect.name in text for effect in EFFECTS)
    assert "esc50 acc. (n 12), starter" in text


# --- what seeds share ------------------------------------------------------------------------------------------------


def _learned(**more: str) -> dict[str, Any]:
    return {"learned_from": {"recipe": "tiny", "recipe_version": 3, "hold_out_fold": None, "n_clips": 381, **more}}


def test_seeds_that_took_over_one_first_round_are_told(tmp_path: Path) -> None:
    _write(tmp_path, N_RIGHT, _learned(hearing_from_sha256="c0ffee"))
    table = _table(tmp_path)
    named = ", ".join(sorted(f"{cell}:tiny" for cell in CELLS))
    assert f"Of each of {named}, seeds 0, 1, 2 share one first round, in which the encoder learned." in table.notes
    seeds = next(table for table in seed_tables(load_all(tmp_path)) if table.name == "seeds-starter-exact")
    assert set(seeds.notes) >= {note for note in table.notes if "first round" in note or "later rounds" in note}


def test_seeds_with_first_rounds_of_their_own_are_not(four: Path) -> None:
    assert not any("first round" in note for note in _table(four).notes)


def test_a_first_round_is_found_through_the_training_that_was_gone_on_from(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_training(tmp_path, "ssalm:tiny", seed, f"named{seed}", **_learned(hearing_from_sha256="c0ffee"))
        write_training(tmp_path, "ssalm:tiny", seed, f"scenes{seed}", **_learned(start_weights_sha256=f"named{seed}"))
    trained = trained_weights(load_all(tmp_path).training)
    assert trained["scenes1"].first_round_sha256 == "c0ffee"
    assert first_rounds_text({"ssalm:tiny": ["scenes0"]}, trained) == []
    assert first_rounds_text({"ssalm:tiny": ["scenes0", "scenes1"]}, trained)[0].startswith(
        "Of each of ssalm:tiny, seeds 0, 1 "
    )
