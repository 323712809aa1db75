"""Controls, paired tests and the cost of listening on: what the report shows, and what `--verify` computes anew."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.compare import ComparisonReport
from harness.records import load_record, write_record
from harness.report import rederiving_pairs
from harness.report.comparison_plots import comparison_figures
from harness.report.differing import differing
from harness.report.loading import KeptComparison, load_all
from harness.report.rederiving import rederive
from harness.report.rendering import ReportTable
from harness.report.style import write_figure
from harness.report.writing import make_report
from tests.report_results import BASE, answers, write_compared, write_controls, write_run, write_streaming


def _tables(results: Path) -> dict[str, ReportTable]:
    return {table.name: table for table in make_report(load_all(results)).tables}


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Controls of a model, a paired test with another, and minutes of listening."""
    first = write_run(tmp_path, "ssalm:tiny", answers(12))
    second = write_run(tmp_path, "ltu:tiny", answers(3))
    write_controls(tmp_path, first)
    write_compared(tmp_path, first, second)
    write_streaming(tmp_path)
    return tmp_path


def test_what_was_kept_follows_from_its_answers(pairs: Path) -> None:
    found = rederive(load_all(pairs))
    assert (found.differences, found.not_rederived) == ((), ())


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("controls/*/*/*/controls.json", '"gain": 0.75', '"gain": 0.85', "gain in accuracy by exact, gain: 0.85"),
        ("controls/*/*/*/controls.json", '"low": 0.5', '"low": 0.6', "low: 0.6"),
        ("controls/*/*/*/controls.json", '"n_changed": 0', '"n_changed": 3', "sensitivity, n_changed: 3"),
        ("compare/*/record.json", '"difference": -0.75', '"difference": -0.5', "difference: -0.5"),
        ("compare/*/record.json", '"better": "ssalm:tiny"', '"better": "tied"', "better: tied"),
        ("compare/*/record.json", '"first": "ssalm:tiny"', '"first": "hybrid:tiny"', "first: hybrid:tiny stands there"),
        ("compare/*/record.json", '"task": "esc50 (', '"task": "esc51 (', "no pair of runs that it names"),
        (
            "compare/*/record.json",
            '"task": "esc50 (starter',
            '"task": "esc50 (official',
            "no pair of runs that it names",
        ),
        ("streaming/*/record.json", '"n_minutes": 6', '"n_minutes": 7', "said to have heard 7 minutes"),
        ("streaming/*/record.json", '"listening_s": 60.0', '"listening_s": 2.0', "took longer than the 2 s"),
    ],
)
def test_verify_finds_a_changed_value(pairs: Path, file: str, old: str, new: str, told: str) -> None:
    (path,) = pairs.glob(file)
    _replace(path, old, new)
    assert any(told in line for line in rederive(load_all(pairs)).differences)


def test_a_comparison_of_runs_that_are_gone_is_told_as_not_computed(pairs: Path) -> None:
    (record,) = pairs.glob("runs/ltu-tiny/esc50/*/record.json")
    record.unlink()
    assert any("not among these results" in line for line in rederive(load_all(pairs)).not_rederived)


def test_the_share_of_answers_that_hang_on_the_last_second_stands_beside_the_gain(pairs: Path) -> None:
    table = _tables(pairs)["audio-gain"]
    row = dict(zip(table.header, table.rows[0], strict=True))
    assert row["audio gain"].startswith("+75.0 [") and row["last second"].startswith("0.0 [")


def test_controls_of_other_weights_are_a_row_of_their_own(pairs: Path) -> None:
    folder = write_run(pairs, "ssalm:tiny", answers(10), started="2026-03-01T00:00:00Z")
    record = load_record(folder)
    assert record is not None
    write_record(
        folder, record.model_copy(update={"model": record.model.model_copy(update={"weights_sha256": "f" * 64})})
    )
    write_controls(pairs, folder)
    names = [row[0] for row in _tables(pairs)["audio-gain"].rows]
    assert len(set(names)) == 2 and "ssalm:tiny [weights ffffffff]" in names


def test_a_comparison_that_was_made_again_stands_there_once(pairs: Path) -> None:
    (folder,) = pairs.glob("compare/*")
    copy = folder.with_name("20270101T000000Z-c0ffee00")
    copy.mkdir()
    text = (folder / "record.json").read_text()
    (copy / "record.json").write_text(text)
    _replace(copy / "record.json", '"created_utc": "', '"created_utc": "9')
    table = _tables(pairs)["comparisons"]
    assert len(table.rows) == 1 and any("1 rows are left out" in note for note in table.notes)


def test_a_significant_difference_is_drawn_filled(pairs: Path) -> None:
    (figure,) = comparison_figures(load_all(pairs))
    (band,) = figure.data["bands"]
    ((value, _, _, is_tied),) = band["differences"][0]
    assert (band["pairs"], band["lines"]) == ([["ltu:tiny", "ssalm:tiny", 1]], ["esc50 (starter), exact"])
    assert (value, is_tied) == (-75.0, False)


def _compared_with(kept: KeptComparison, second: str, *, predictions: str = "") -> KeptComparison:
    runs = [run.model_copy(update={"second_predictions_sha256": predictions}) for run in kept.record.runs]
    changed = {"second": second} | ({"runs": runs} if predictions else {})
    return replace(kept, place=f"{second}{predictions}", record=kept.record.model_copy(update=changed))


def test_pairs_stand_beside_each_other_and_a_line_is_empty_where_a_pair_was_not_tested(pairs: Path) -> None:
    results = load_all(pairs)
    (kept,) = results.comparisons
    other = _compared_with(kept, "hybrid:tiny")
    by_loglik = [row.model_copy(update={"scorer": "loglik"}) for row in other.record.comparisons]
    other = replace(other, record=other.record.model_copy(update={"comparisons": by_loglik}))
    (figure,) = comparison_figures(replace(results, comparisons=(kept, other)))
    (band,) = figure.data["bands"]
    assert band["lines"] == ["esc50 (starter), exact", "esc50 (starter), loglik"]
    assert [[entry is None for entry in drawn] for drawn in band["differences"]] == [[False, True], [True, False]]


def test_a_pair_tested_on_other_answers_has_a_column_of_its_own_over_all_metrics(pairs: Path) -> None:
    results = load_all(pairs)
    (kept,) = results.comparisons
    again = _compared_with(kept, "ltu:tiny", predictions="f" * 64)
    by_f1 = [row.model_copy(update={"metric": "micro_f1"}) for row in again.record.comparisons]
    both = again.record.model_copy(update={"comparisons": [*again.record.comparisons, *by_f1]})
    (figure,) = comparison_figures(replace(results, comparisons=(kept, replace(again, record=both))))
    pair = ["ltu:tiny", "ssalm:tiny"]
    assert [band["pairs"] for band in figure.data["bands"]] == [[[*pair, 1], [*pair, 2]], [[*pair, 2]]]
    assert "tested again, later, on other answers" in figure.notes[0]


def test_what_was_tested_of_a_pair_at_another_time_joins_its_column(pairs: Path) -> None:
    results = load_all(pairs)
    (kept,) = results.comparisons
    by_loglik = [row.model_copy(update={"scorer": "loglik"}) for row in kept.record.comparisons]
    other = replace(kept, place="later", record=kept.record.model_copy(update={"comparisons": by_loglik}))
    (figure,) = comparison_figures(replace(results, comparisons=(kept, other)))
    (band,) = figure.data["bands"]
    assert (len(band["pairs"]), len(band["lines"])) == (1, 2)


def test_more_pairs_than_a_page_holds_go_on_below(pairs: Path, tmp_path: Path) -> None:
    results = load_all(pairs)
    every = tuple(_compared_with(results.comparisons[0], f"model{n}") for n in range(7))
    (figure,) = comparison_figures(replace(results, comparisons=every))
    assert [len(band["pairs"]) for band in figure.data["bands"]] == [5, 2]
    drawn = write_figure(figure, tmp_path)[0].read_text()
    assert all(f"model{n}" in drawn for n in range(7))
    assert len({tuple(band["range"]) for band in figure.data["bands"]}) == 1


def test_long_names_of_models_are_broken_to_the_width_of_their_panel(pairs: Path, tmp_path: Path) -> None:
    results = load_all(pairs)
    named = [f"ssalm:tiny (20261122T00000{n}Z-ba5c8665)" for n in range(5)]
    every = [_compared_with(results.comparisons[0], name) for name in named]
    (figure,) = comparison_figures(
        replace(results, comparisons=tuple(replace(each, place=f"place{n}") for n, each in enumerate(every)))
    )
    drawn = re.findall(r">([^<]*)</text>", write_figure(figure, tmp_path)[0].read_text())
    titles = [line for line in drawn if any(line in name for name in named) and len(line) > 3]
    assert len(titles) == 3 * len(named) and max(map(len, titles)) <= 16


def test_minutes_of_listening_are_a_table_of_spans_and_curves(pairs: Path) -> None:
    report = make_report(load_all(pairs))
    (table,) = [table for table in report.tables if table.name == "streaming"]
    assert [row[:3] for row in table.rows][:1] == [("ssalm:tiny", "1-1", "1")]
    (figure,) = [spec for spec in report.figures if spec.name == "streaming"]
    curves = {panel["title"]: panel["lines"] for panel in figure.data["panels"]}
    assert curves["time a minute of audio (s)"]["ltu:tiny"] == [[1, 1.5], [2, 2.0], [3, 2.5], [4, 3.0]]
    assert not any(title.startswith("device") for title in curves)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("record.json", lambda text: text[: len(text) // 2]),
        ("record.json", lambda text: text.replace('"ended_utc": "2026', '"ended_utc": null, "x": "2026')),
        ("points.jsonl", lambda text: text.replace('"minute": 1', '"minute": "first"', 1)),
        ("points.jsonl", lambda text: text.replace('"wall_s": 1.0', '"wall_s": NaN', 1)),
    ],
)
def test_a_broken_record_of_listening_is_one_line(pairs: Path, file: str, change: object) -> None:
    (path,) = pairs.glob(f"streaming/*/{file}")
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    read = load_all(pairs)
    assert len(read.problems) == 1 and "streaming" in read.problems[0] and "\n" not in read.problems[0]
    assert read.streaming == ()


@pytest.mark.parametrize("field", ["p_value", "interval", "first"])
def test_verify_finds_a_number_of_a_paired_test_that_was_taken_out(pairs: Path, field: str) -> None:
    (path,) = pairs.glob("compare/*/record.json")
    record = json.loads(path.read_text())
    record["comparisons"][0][field] = None
    path.write_text(json.dumps(record))
    assert any(f", {field}" in line and "None stands there" in line for line in rederive(load_all(pairs)).differences)


def test_counts_that_an_older_comparison_does_not_have_are_no_difference(pairs: Path) -> None:
    (path,) = pairs.glob("compare/*/record.json")
    record = json.loads(path.read_text())
    for name in ("n_flipped", "n_first_only", "n_second_only"):
        del record["comparisons"][0][name]
    path.write_text(json.dumps(record))
    assert rederive(load_all(pairs)).differences == ()


def test_rows_whose_runs_are_gone_are_not_counted_as_computed(pairs: Path) -> None:
    whole = rederive(load_all(pairs))
    (path,) = pairs.glob("compare/*/record.json")
    record = json.loads(path.read_text())
    record["comparisons"].append(record["comparisons"][0] | {"scorer": "loglik"})
    record["runs"][0]["first_predictions_sha256"] = "0" * 64
    path.write_text(json.dumps(record))
    found = rederive(load_all(pairs))
    assert (found.n_values, len(found.not_rederived)) == (whole.n_values - 1, 2)


def test_of_one_task_asked_in_two_ways_each_is_tested_by_its_own_scorers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second way's row is by a scorer that the first way's answers do not serve."""
    again, asked = rederiving_pairs.compare, set()

    def noted(first: str, second: str, **more: Any) -> ComparisonReport:
        asked.add((first, *more["scorers"]))
        return again(first, second, **more)

    monkeypatch.setattr(rederiving_pairs, "compare", noted)
    folders = []
    for day, is_default in ((1, True), (2, False)):
        prompt = BASE.prompt.model_copy(update={"name": "classify" if is_default else "ltu", "is_default": is_default})
        started = f"2026-01-0{day}T00:00:00Z"
        for model, n_right in (("ssalm:tiny", 12), ("ltu:tiny", 3)):
            folders.append(write_run(tmp_path, model, answers(n_right), prompt=prompt, started=started))
    one, two = (write_compared(tmp_path, *folders[n : n + 2]) for n in (0, 2))
    first, second = (json.loads((folder / "record.json").read_text()) for folder in (one, two))
    first["runs"] += second["runs"]
    first["comparisons"] += [row | {"scorer": "loglik"} for row in second["comparisons"]]
    (one / "record.json").write_text(json.dumps(first))
    (two / "record.json").unlink()
    rederive(load_all(tmp_path))
    assert asked == {(str(folders[0]), "exact"), (str(folders[2]), "loglik")}


def test_a_paired_test_that_cannot_be_made_here_is_told_as_not_computed(
    pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of SPIDEr, on a machine without SPICE."""
    again = rederiving_pairs.compare

    def without(*words: Any, **more: Any) -> ComparisonReport:
        report = again(*words, **more)
        lacking = {"unavailable": "SPICE is not installed", "difference": None, "interval": None, "p_value": None}
        return replace(report, comparisons=tuple(replace(row, **lacking) for row in report.comparisons))

    monkeypatch.setattr(rederiving_pairs, "compare", without)
    found = rederive(load_all(pairs))
    assert found.differences == ()
    assert [line.rpartition(": ")[2] for line in found.not_rederived] == ["SPICE is not installed"]


def test_models_that_all_failed_in_their_first_minute_are_shown(pairs: Path) -> None:
    (folder,) = pairs.glob("streaming/*")
    record = json.loads((folder / "record.json").read_text())
    for row in record["rows"]:
        row |= {"kind": "out_of_memory", "n_minutes": 0, "listening_s": None, "after_s": None}
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "points.jsonl").unlink()
    assert load_all(pairs).problems == ()
    assert {row[1] for row in _tables(pairs)["streaming"].rows} == {"out of memory"}


def test_minutes_that_were_heard_and_are_gone_are_told(pairs: Path) -> None:
    (path,) = pairs.glob("streaming/*/points.jsonl")
    path.unlink()
    assert any("its minutes cannot be shown" in line for line in load_all(pairs).problems)


def test_a_failure_after_some_minutes_stands_behind_them(pairs: Path) -> None:
    last = {row[0]: row[-1] for row in _tables(pairs)["streaming"].rows}
    assert last == {"ssalm:tiny": "0.5", "ltu:tiny": "out of memory"}


def test_a_small_share_that_was_changed_is_a_difference() -> None:
    assert list(differing({"p_value": 1e-12}, {"p_value": 2e-12}))
    assert not list(differing({"p_value": 0.1}, {"p_value": 0.1 * (1 + 1e-10)}))
