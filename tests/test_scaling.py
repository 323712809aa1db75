"""From a command to points, tables and figures, with a model whose cost is known; processes are played by calls."""

from __future__ import annotations

import csv
import importlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import PluginError, UsageError
from harness.flop_counting import CoverageError
from harness.fresh_process import Outcome, kind_of, run_fresh
from harness.point_summary import noise_text
from harness.registry import add_plugin_file
from harness.scaling import ScalingConfig, ScalingOutcome, drawn_order, find_subject, scale
from harness.scaling_curves import BY_NAME, growth_of, lines_of, pairs_of
from harness.scaling_figures import draw_figures
from harness.scaling_rows import (
    CoverageRow,
    PointRow,
    append_point,
    load_points,
    load_scaling_record,
    newest_points,
    schema_texts,
)
from harness.scaling_tables import crossover_table, growth_table, points_csv, points_table, to_latex, write_tables
from harness.schema_files import SCHEMA_FOLDER

PLUGIN = Path(__file__).parent / "plugins" / "costed.py"
COVERED = {"formula_flops": {"encoder": 100}, "counted_flops": {"encoder": 100}, "uncovered": []}


def _config(results: Path, **changes: Any) -> ScalingConfig:
    config = ScalingConfig(
        models=("costed",),
        model_options={"first_s": 0.001},
        seconds=(0.5, 1.0, 2.0),
        n_tokens=3,
        device="cpu",
        half_width=10.0,
        least_s=0.0,
        most_s=0.5,
        plugins=(PLUGIN,),
        results=results,
    )
    return replace(config, **changes)


class InThisProcess:
    """Plays `run_fresh`, and remembers what it was asked."""

    def __init__(self, coverage: Mapping[str, Any] = COVERED) -> None:
        self.asked: list[dict[str, Any]] = []
        self._coverage = coverage

    def __call__(self, target: str, arguments: Mapping[str, Any], *, threads: int, time_limit_s: float) -> Outcome:
        if target.startswith("harness.flop_coverage"):
            return Outcome("ok", dict(self._coverage), "", 0.1, 0)
        self.asked.append({**arguments, "threads": threads})
        module, _, name = target.partition(":")
        try:
            value = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))
        except Exception as error:
            return Outcome(kind_of(error), None, f"{type(error).__name__}: {error}", 0.1, 0)
        return Outcome("ok", json.loads(json.dumps(value)), "", 0.1, 0)


@pytest.fixture(autouse=True)
def _costed_is_known() -> None:
    add_plugin_file(PLUGIN)


def _scale(config: ScalingConfig, fresh: InThisProcess | None = None) -> ScalingOutcome:
    return scale(config, ["scaling"], fresh or InThisProcess(), lambda line: None)


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> list[PointRow]:
    """Three lengths of the model of known cost."""
    add_plugin_file(PLUGIN)
    return list(_scale(_config(tmp_path_factory.mktemp("results"))).points)


def _like(point: PointRow, model: str, seconds: float, total_s: float, **key: Any) -> PointRow:
    """A point of another model and cost."""
    assert point.measured is not None
    samples = point.measured.samples.model_copy(update={"total_s": (total_s,)})
    measured = point.measured.model_copy(update={"samples": samples})
    named = point.key.model_copy(update={"model": model, "variant": "tiny", "seconds": seconds, "options": {}, **key})
    return point.model_copy(update={"key": named, "measured": measured})


def _two_by_two(point: PointRow) -> list[PointRow]:
    """A state-space model whose cost is 40 s, and a transformer whose cost is s^2."""
    lengths = (10.0, 20.0, 50.0, 100.0)
    return [_like(point, "ssalm", s, 40 * s) for s in lengths] + [_like(point, "ltu", s, s * s) for s in lengths]


# --- measuring -------------------------------------------------------------------------------------------------------


def test_every_length_is_a_point_with_all_its_samples(points: list[PointRow]) -> None:
    assert sorted(point.key.seconds for point in points) == [0.5, 1.0, 2.0]
    for point in points:
        assert point.measured is not None and point.outcome == "ok"
        samples = point.measured.samples
        assert len(samples.total_s) == point.measured.total.n_samples == len(samples.component_s["encoder"])
        assert len(samples.token_s) == 3


def test_operations_come_from_the_models_formulas(points: list[PointRow]) -> None:
    point = next(point for point in points if point.key.seconds == 2.0)
    assert point.measured is not None and point.measured.work is not None
    assert point.measured.work.flops == 32_000 + 100
    assert point.measured.flops_per_s == pytest.approx(32_100 / point.measured.total.median)


def test_the_state_is_that_of_the_audio_at_the_models_rate(points: list[PointRow]) -> None:
    point = next(point for point in points if point.key.seconds == 2.0)
    assert point.measured is not None
    assert (point.measured.state.n_tokens, point.measured.state.growing, point.measured.state.constant) == (4, 0, 4000)


def test_the_state_after_a_named_cut_is_that_of_what_was_heard(tmp_path: Path) -> None:
    config = _config(tmp_path, seconds=(40.0,), model_options={"policy": "first_10_24s"})
    (point,) = _scale(config).points
    assert point.measured is not None and point.measured.state.n_tokens == 20  # two tokens a second


def test_energy_without_a_counter_is_none_with_a_reason_and_never_zero(points: list[PointRow]) -> None:
    measured = points[0].measured
    assert measured is not None
    assert (measured.energy is None) == bool(measured.energy_missing)


def test_the_first_call_said_what_the_timed_run_said(points: list[PointRow]) -> None:
    assert all(point.measured is not None and point.measured.tokens_alike for point in points)


def test_a_training_step_has_time_and_no_tokens(tmp_path: Path) -> None:
    (point, *_) = _scale(_config(tmp_path, step="train", seconds=(1.0,))).points
    measured = point.measured
    assert measured is not None and measured.total.median >= 0.001
    assert (measured.first_token, measured.per_token, measured.tokens_alike, measured.work) == (None, None, None, None)
    assert "training step" in measured.work_missing


def test_operations_of_a_training_step_are_counted_as_they_run(tmp_path: Path) -> None:
    outcome = _scale(_config(tmp_path, step="train", seconds=(1.0,), model_options={"torch_bytes": 4}))
    measured = outcome.points[0].measured
    assert measured is not None
    assert (measured.counted, measured.flops) == ({"encoder": 128}, 128)
    assert measured.flops_per_s == pytest.approx(128 / measured.total.median)
    rows = list(csv.DictReader(points_csv(outcome.points).splitlines()))
    assert [(row["component"], row["flops"]) for row in rows] == [("whole", "128"), ("encoder", "128")]


def test_a_batch_is_a_point_of_its_own(tmp_path: Path) -> None:
    outcome = _scale(_config(tmp_path, batch_sizes=(1, 4), seconds=(1.0,)))
    flops = {p.key.batch_size: p.measured.work.flops for p in outcome.points if p.measured and p.measured.work}
    assert flops == {1: 16_100, 4: 64_400}


@pytest.mark.parametrize(
    ("options", "outcome", "message"),
    [
        ({"breaks": "memory"}, "out_of_memory", "no room"),
        ({"breaks": "limit"}, "position_limit", "2 s is too long"),
        ({"tokens_short": 1}, "error", "instead of 3"),
    ],
)
def test_a_point_that_fails_is_a_row_with_its_outcome(
    tmp_path: Path, options: dict[str, Any], outcome: str, message: str
) -> None:
    found = _scale(_config(tmp_path, seconds=(2.0,), model_options={**options, "breaks_beyond_s": 1.0}))
    (point,) = found.points
    assert (point.outcome, point.measured, found.exit_code) == (outcome, None, 1)
    assert message in point.message
    assert load_points(found.folder) == [point]


def test_a_loss_that_is_no_number_is_a_wrong_number(tmp_path: Path) -> None:
    config = _config(tmp_path, seconds=(1.0,), step="train", model_options={"breaks": "loss"})
    assert [point.outcome for point in _scale(config).points] == ["wrong_numbers"]


# --- order and continuing --------------------------------------------------------------------------------------------


def test_models_take_turns_at_each_length_and_the_seed_decides_the_order() -> None:
    config = ScalingConfig(models=("a", "b", "c"), seconds=(1.0, 2.0, 3.0, 4.0))
    subjects = [replace(find_subject("costed", {}, print), name=name) for name in config.models]
    order = drawn_order(subjects, config)
    rounds = [order[i : i + 3] for i in range(0, 12, 3)]
    assert all({subject.name for subject, _, _ in one} == {"a", "b", "c"} for one in rounds)
    assert all(len({seconds for _, seconds, _ in one}) == 1 for one in rounds)
    assert drawn_order(subjects, config) == order != drawn_order(subjects, replace(config, seed=1))


def test_the_same_command_measures_nothing_again(tmp_path: Path) -> None:
    first, again = InThisProcess(), InThisProcess()
    before = _scale(_config(tmp_path), first)
    after = _scale(_config(tmp_path), again)
    assert (len(first.asked), again.asked) == (3, [])
    assert (after.folder, after.points) == (before.folder, before.points)


def test_a_command_with_one_more_length_adds_it_to_the_folder(tmp_path: Path) -> None:
    before = _scale(_config(tmp_path))
    fresh = InThisProcess()
    after = _scale(_config(tmp_path, seconds=(0.5, 1.0, 2.0, 4.0)), fresh)
    assert [plan["seconds"] for plan in fresh.asked] == [4.0]
    assert after.folder == before.folder and len(load_points(after.folder)) == 4


def test_fresh_measures_everything_in_a_folder_of_its_own(tmp_path: Path) -> None:
    before = _scale(_config(tmp_path))
    fresh = InThisProcess()
    after = _scale(_config(tmp_path, fresh=True), fresh)
    assert len(fresh.asked) == 3 and after.folder != before.folder


def test_other_conditions_make_another_folder(tmp_path: Path) -> None:
    assert _scale(_config(tmp_path)).folder != _scale(_config(tmp_path, n_tokens=4)).folder


def test_a_command_that_was_killed_in_the_middle_of_a_line_goes_on(tmp_path: Path) -> None:
    outcome = _scale(_config(tmp_path))
    path = outcome.folder / "points.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    fresh = InThisProcess()
    _scale(_config(tmp_path), fresh)
    assert len(fresh.asked) == 1 and len(load_points(outcome.folder)) == 3


WIDE = "half-width 9.0 % instead of 2 %"


@pytest.mark.parametrize(
    ("device", "complaint", "cpu_s", "noise"),
    [
        ("cpu", WIDE, (1.0,) * 10, f"{WIDE}; of processor time 0.0 %"),
        ("cpu", "3 iterations instead of 10", (1.0,) * 3, "3 iterations instead of 10"),
        ("cpu", "", (1.0, 2.0) * 5, ""),
        ("cuda", WIDE, (1.0,) * 10, WIDE),
    ],
    ids=["steady", "too few", "quiet", "another device"],
)
def test_a_noisy_point_says_how_steady_the_processor_time_was(
    device: str, complaint: str, cpu_s: tuple[float, ...], noise: str
) -> None:
    assert noise_text(device, complaint, cpu_s) == noise


def test_every_iteration_has_its_processor_time(points: list[PointRow]) -> None:
    for point in points:
        assert point.measured is not None
        assert len(point.measured.samples.cpu_s) == len(point.measured.samples.total_s)


# --- records ---------------------------------------------------------------------------------------------------------


def test_the_record_says_what_ran_and_each_session(tmp_path: Path) -> None:
    _scale(_config(tmp_path))
    folder = _scale(_config(tmp_path)).folder
    record = load_scaling_record(folder)
    assert record is not None
    assert [session.n_measured for session in record.sessions] == [3, 0]
    assert all(session.ended_utc is not None for session in record.sessions)
    assert record.conditions["device"] == "cpu" and record.prompt and record.environment.cpu


def test_the_schema_files_are_current() -> None:
    assert {name: (SCHEMA_FOLDER / name).read_text() for name in schema_texts()} == schema_texts()


def test_a_line_fits_its_schema(points: list[PointRow], tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    append_point(tmp_path, points[0])
    schema = json.loads(schema_texts()["scaling_point.v1.json"])
    jsonschema.validate(json.loads((tmp_path / "points.jsonl").read_text()), schema)
    assert load_points(tmp_path) == [points[0]]


def test_the_newest_point_of_a_key_stands_for_it(points: list[PointRow]) -> None:
    newer = points[0].model_copy(update={"started_utc": "later"})
    assert newest_points([*points, newer])[0].started_utc == "later"


def test_an_operator_without_a_formula_stops_the_command_and_is_named(tmp_path: Path) -> None:
    fresh = InThisProcess({**COVERED, "uncovered": ["mine.matmul"]})
    with pytest.raises(CoverageError, match=r"mine\.matmul"):
        _scale(_config(tmp_path), fresh)
    assert fresh.asked == []


def test_formulas_and_counter_that_differ_are_told(tmp_path: Path) -> None:
    lines: list[str] = []
    fresh = InThisProcess({"formula_flops": {"encoder": 100}, "counted_flops": {"encoder": 98}, "uncovered": []})
    scale(_config(tmp_path, seconds=(1.0,)), ["scaling"], fresh, lines.append)
    assert lines == ["costed: operations of encoder differ: 100 by formula, 98 counted (1 s of audio)"]


def test_figures_within_one_percent_agree() -> None:
    row = CoverageRow(
        model="m", seconds=1, formula_flops={"encoder": 1000}, counted_flops={"encoder": 991}, uncovered=()
    )
    assert row.disagreements() == []


def test_a_model_that_does_not_tell_its_cost_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="does not tell its cost"):
        _scale(_config(tmp_path, models=("echo",), model_options={}))


def test_what_was_counted_outside_every_component_is_a_disagreement() -> None:
    flops = {"encoder": 100, "outside": 0}, {"encoder": 100, "outside": 7}
    row = CoverageRow.model_validate(
        {"model": "m", "seconds": 1, "formula_flops": flops[0], "counted_flops": flops[1], "uncovered": ()}
    )
    assert row.disagreements() == ["outside"]


def test_another_way_to_make_a_model_is_counted_for_itself(tmp_path: Path) -> None:
    options: list[dict[str, Any]] = [{"first_s": 0.001}, {"first_s": 0.002}]
    for one in options:
        folder = _scale(_config(tmp_path, seconds=(1.0,), model_options=one)).folder
    record = load_scaling_record(folder)
    assert record is not None
    assert len({row.fingerprint for row in record.coverage}) == 2


class NoRoomToCount(InThisProcess):
    """Counting runs out of memory; points do not."""

    def __call__(self, target: str, arguments: Mapping[str, Any], *, threads: int, time_limit_s: float) -> Outcome:
        if target.startswith("harness.flop_coverage"):
            return Outcome("out_of_memory", None, "no room", 0.1, 0)
        return super().__call__(target, arguments, threads=threads, time_limit_s=time_limit_s)


def test_a_count_that_meets_a_limit_of_the_machine_is_told_and_does_not_stop_the_points(tmp_path: Path) -> None:
    lines: list[str] = []
    outcome = scale(_config(tmp_path, seconds=(1.0,)), ["scaling"], NoRoomToCount(), lines.append)
    assert [point.outcome for point in outcome.points] == ["ok"]
    assert "costed: operations were not counted" in lines[0] and "out of memory: no room" in lines[0]
    assert outcome.record.coverage == ()


@pytest.mark.parametrize(("breaks", "n_asked"), [("memory", 0), ("limit", 0)])
def test_a_limit_is_not_met_again(tmp_path: Path, breaks: str, n_asked: int) -> None:
    config, again = _config(tmp_path, seconds=(1.0,), model_options={"breaks": breaks}), InThisProcess()
    _scale(config)
    _scale(config, again)
    assert len(again.asked) == n_asked


def test_a_point_that_ended_by_an_error_is_measured_again(tmp_path: Path) -> None:
    config, again = _config(tmp_path, seconds=(1.0,), model_options={"tokens_short": 1}), InThisProcess()
    _scale(config)
    assert [point.outcome for point in _scale(config, again).points] == ["error"]
    assert len(again.asked) == 1


def test_one_model_named_twice_is_refused_though_one_name_lacks_its_variant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="more than once"):
        _scale(_config(tmp_path, models=("ltu", "ltu:tiny"), model_options={}, plugins=()))


@pytest.mark.parametrize(
    "wrong",
    [{"seconds": (math.nan,)}, {"seconds": (math.inf,)}, {"half_width": math.nan}, {"time_limit_s": math.inf}],
)
def test_what_is_no_number_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        _config(tmp_path, **wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"seconds": (0.0,)}, {"batch_sizes": (0,)}, {"n_tokens": 1}, {"half_width": 0.0}, {"seconds": (1.0, 1.0)}],
)
def test_a_value_out_of_range_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        _config(tmp_path, **wrong)


def test_a_model_without_weights_is_measured_with_random_ones() -> None:
    lines: list[str] = []
    subject = find_subject("costed", {"needs_weights": "true"}, lines.append)
    assert subject.options == {"needs_weights": True, "weights": "random"}
    assert "no weights here" in lines[0]


# --- curves, tables, figures -----------------------------------------------------------------------------------------


def test_points_that_differ_in_kernels_are_never_one_line(points: list[PointRow]) -> None:
    assert points[0].measured is not None
    other = points[0].measured.model_copy(update={"kernels": {"wait": "sleep"}})
    lines = lines_of([points[0].model_copy(update={"measured": other}), *points[1:]])
    assert [line.label for line in lines] == [
        "costed (first_s=0.001, wait=busy)",
        "costed (first_s=0.001, wait=sleep)",
    ]


def test_a_failed_point_joins_the_line_of_its_model(points: list[PointRow]) -> None:
    failed = points[0].model_copy(update={"measured": None, "outcome": "out_of_memory", "message": "no room"})
    (line,) = lines_of([failed, *points[1:]])
    assert len(line.points) == 3 and len(line.curve(BY_NAME["total"])) == 2


def test_the_two_by_two_is_compared_part_by_part(points: list[PointRow]) -> None:
    names = ("ssalm", "hybrid", "ast_mamba", "ltu")
    lines = lines_of([_like(points[0], name, s, s) for name in names for s in (1.0, 2.0)])
    assert sorted((p.first.model, p.second.model, p.differs) for p in pairs_of(lines)) == [
        ("ast_mamba", "ltu", "language model"),
        ("hybrid", "ltu", "encoder"),
        ("ssalm", "ast_mamba", "encoder"),
        ("ssalm", "hybrid", "language model"),
        ("ssalm", "ltu", "whole model"),
    ]


def test_models_under_other_conditions_are_not_compared(points: list[PointRow]) -> None:
    lines = lines_of([_like(points[0], "ssalm", 1.0, 1.0), _like(points[0], "ltu", 1.0, 1.0, dtype="bfloat16")])
    assert pairs_of(lines) == []


def test_the_crossover_of_known_costs_is_in_the_table(points: list[PointRow]) -> None:
    rows = [row for row in crossover_table(_two_by_two(points[0])).rows if row[4] == "Total time"]
    assert [(row[0], row[1], *row[5:]) for row in rows] == [
        ("ssalm:tiny", "ltu:tiny", "40 s [20, 50]", "20 and 50 s", "10 to 100 s")
    ]


def test_the_lengths_around_a_crossover_are_told_beside_the_interval_of_its_noise(points: list[PointRow]) -> None:
    noisy = []
    for point in _two_by_two(points[0]):
        assert point.measured is not None
        (total,) = point.measured.samples.total_s
        samples = point.measured.samples.model_copy(update={"total_s": tuple(total * x for x in (0.99, 1.0, 1.01))})
        noisy.append(point.model_copy(update={"measured": point.measured.model_copy(update={"samples": samples})}))
    (row,) = (row for row in crossover_table(noisy).rows if row[4] == "Total time")
    low, high = map(float, row[5].partition("[")[2].rstrip("]").split(", "))
    assert (38 < low < 40 < high < 42, row[6]) == (True, "20 and 50 s")


def test_a_cut_of_the_audio_is_in_the_name_of_its_line(points: list[PointRow]) -> None:
    options = {"variant": "tiny", "length_policy": "first_10_24s", "weights": "random"}
    (line,) = lines_of([_like(points[0], "ltu", 10.0, 1.0, options=options)])
    assert line.label == "ltu:tiny (length_policy=first_10_24s)"


def test_the_memory_that_grows_is_fitted_without_the_model(points: list[PointRow]) -> None:
    rows = []
    for seconds in (10.0, 50.0, 100.0):
        point = _like(points[0], "ltu", seconds, 1.0)
        assert point.measured is not None
        peak = point.measured.memory.peak.model_copy(update={"allocated": 10**9 + int(1000 * seconds)})
        memory = point.measured.memory.model_copy(update={"model": 10**9, "peak": peak})
        rows.append(point.model_copy(update={"measured": point.measured.model_copy(update={"memory": memory})}))
    exponents = {row[2]: row[3].split()[0] for row in growth_table(rows).rows}
    assert (exponents["Peak allocated"], exponents["Peak allocated beyond the model"]) == ("0.00", "1.00")


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(81_559_000_000, "81559"), (12_345_600_000, "12346"), (4_000_000, "4"), (1_234_000, "1.234")]
)
def test_large_sizes_are_written_in_full(points: list[PointRow], n_bytes: int, text: str) -> None:
    assert points[0].measured is not None
    memory = points[0].measured.memory.model_copy(update={"model": n_bytes})
    measured = points[0].measured.model_copy(update={"memory": memory})
    table = points_table([points[0].model_copy(update={"measured": measured})])
    assert table.rows[0][table.header.index("model MB")] == text


def test_every_table_for_reading_says_what_its_numbers_are(points: list[PointRow], tmp_path: Path) -> None:
    write_tables(_two_by_two(points[0]), tmp_path)
    texts = {
        name: (tmp_path / f"{name}.md").read_text() for name in ("points", "components", "exponents", "crossovers")
    }
    assert all(text.splitlines()[-2] == "" and not text.splitlines()[-1].startswith("|") for text in texts.values())


def test_no_crossover_is_said_plainly(points: list[PointRow]) -> None:
    dear = [_like(points[0], name, s, s * cost) for s in (1.0, 2.0) for name, cost in (("ssalm", 2.0), ("ltu", 1.0))]
    rows = [row for row in crossover_table(dear).rows if row[4] == "Total time"]
    assert rows[0][5] == "none within the range"


def test_exponents_of_known_costs_are_in_the_table(points: list[PointRow]) -> None:
    rows = [row for row in growth_table(_two_by_two(points[0])).rows if row[2] == "Total time"]
    assert [(row[0], row[3]) for row in rows] == [
        ("ltu:tiny", "2.00 [2.00, 2.00]"),
        ("ssalm:tiny", "1.00 [1.00, 1.00]"),
    ]


def test_growth_needs_no_more_than_rows(points: list[PointRow]) -> None:
    (line,) = lines_of(points)
    growth = growth_of(line, BY_NAME["flops"])
    assert growth is not None and growth.exponent == pytest.approx(1.0, abs=0.01)


def test_a_failed_point_is_in_the_table_with_its_reason(points: list[PointRow]) -> None:
    failed = points[0].model_copy(update={"measured": None, "outcome": "out_of_memory", "message": "no room"})
    table = points_table([failed, *points[1:]])
    assert {len(row) for row in table.rows} == {len(table.header)}
    assert [row[-1] for row in table.rows].count("out of memory: no room") == 1


def test_the_csv_has_plain_numbers_of_the_whole_and_each_component(points: list[PointRow]) -> None:
    rows = list(csv.DictReader(points_csv(points).splitlines()))
    assert {row["component"] for row in rows} == {"whole", "encoder", "prefill", "decode"}
    whole = [row for row in rows if row["component"] == "whole"]
    assert [float(row["flops"]) for row in whole] == [8100, 16_100, 32_100]


def test_latex_escapes_what_means_something_there() -> None:
    from harness.tables import Table

    assert r"a\_b & 5 \% \\" in to_latex(Table(("a_b", "c"), (("a_b", "5 %"),)))
    escaped = r"\{x\}\textasciicircum{}2 \textbackslash{}n \textless{} 3"
    assert escaped in to_latex(Table(("what",), ((r"{x}^2 \n < 3",),)))


def test_every_table_is_written_in_three_formats(points: list[PointRow], tmp_path: Path) -> None:
    names = {path.name for path in write_tables(points, tmp_path)}
    tables = ("points", "components", "exponents", "crossovers")
    assert names == {f"{table}.{suffix}" for table in tables for suffix in ("md", "csv", "tex")}


def test_figures_are_vectors_and_the_same_rows_give_the_same_file(points: list[PointRow], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    rows = _two_by_two(points[0])
    failed = rows[0].model_copy(update={"measured": None, "outcome": "out_of_memory"})
    drawn = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        drawn.append(draw_figures([failed, *rows[1:]], tmp_path / name, [BY_NAME["total"]]))
    assert {path.suffix for path in drawn[0]} == {".svg", ".pdf"}
    assert [path.read_bytes() for path in drawn[0]] == [path.read_bytes() for path in drawn[1]]
    total = next(path for path in drawn[0] if path.name == "total.svg").read_text()
    assert "ssalm:tiny" in total and "ltu:tiny" in total


@pytest.mark.slow
def test_known_times_are_measured_right_within_two_percent_in_a_fresh_process(tmp_path: Path) -> None:
    costs = {"first_s": 0.25, "token_s": 0.02}
    config = _config(tmp_path, model_options=costs, seconds=(1.0,), n_tokens=11, most_s=20.0, least_s=2.0)
    real: Callable[..., Outcome] = run_fresh

    def fresh(target: str, *rest: Any, **named: Any) -> Outcome:
        return (InThisProcess() if "coverage" in target else real)(target, *rest, **named)

    (point,) = scale(config, ["scaling"], fresh, print).points
    measured = point.measured
    assert measured is not None and measured.first_token is not None and measured.per_token is not None
    assert measured.first_token.median == pytest.approx(0.25, rel=0.02)
    assert measured.per_token.median == pytest.approx(0.02, rel=0.02)
    assert measured.total.median == pytest.approx(0.45, rel=0.02)
