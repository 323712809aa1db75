"""The table says what was asked and how it went, in lines that are never cut."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config import RunConfig
from harness.progress import PlainLines, duration_text
from harness.registry import add_plugin_file
from harness.runner import RunOutcome, run
from harness.tables import closing_lines, plain_text, print_result, score_table, task_text

PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunOutcome]:
    """Runs the two fakes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    for name in ("beeps.py", "moody.py"):
        add_plugin_file(PLUGINS / name)

    def make(model: dict[str, Any] | None = None, task: dict[str, Any] | None = None, **values: Any) -> RunOutcome:
        config = RunConfig("moody", "beeps", model_options=model or {}, task_options=task or {}, device="cpu", **values)
        return run(config, say=lambda line: None)

    return make


def test_the_table_has_one_row_a_scorer(go: Callable[..., RunOutcome]) -> None:
    outcome = go()
    rows = score_table(outcome.record, outcome.scores).rows
    assert [row[:4] for row in rows] == [
        ("moody", "beeps (starter)", "12", "exact"),
        ("moody", "beeps (starter)", "12", "loglik"),
    ]


def test_failed_and_truncated_items_have_columns(go: Callable[..., RunOutcome]) -> None:
    outcome = go({"mood": "truncates", "on": "beep-05"}, {"broken": "beep-01"})
    table = score_table(outcome.record, outcome.scores)
    named = dict(zip(table.header, table.rows[0], strict=True))
    assert (named["answered"], named["failed"], named["trunc."]) == ("10", "1", "1")


def test_a_score_that_no_item_answered_has_no_answered_only_value(go: Callable[..., RunOutcome]) -> None:
    outcome = go(task={"n": 1, "broken": "beep-00"})
    assert score_table(outcome.record, outcome.scores).rows[0][5] == "-"


def test_part_of_the_official_set_never_passes_for_the_whole(go: Callable[..., RunOutcome]) -> None:
    Path("data").mkdir()
    Path("data/beeps.txt").touch()
    assert task_text(go().record) == "beeps (official, 12 of 100)"


@pytest.mark.parametrize(
    ("task", "values", "text"),
    [
        ({"n": 12}, {}, "beeps (starter)"),
        ({"n": 6}, {"prompt": "classify"}, "beeps (starter, n=6)"),
        ({}, {"prompt": "short"}, "beeps (starter, prompt=short)"),
        ({}, {"limit": 3}, "beeps (starter)"),
        ({}, {"limit": 3, "seed": 1}, "beeps (starter, seed=1)"),
        ({}, {"seed": 1}, "beeps (starter)"),
        ({}, {"items": Path("some.txt")}, "beeps (starter, items=some.txt)"),
    ],
)
def test_runs_over_other_clips_or_questions_have_other_rows(
    go: Callable[..., RunOutcome], task: dict[str, Any], values: dict[str, Any], text: str
) -> None:
    Path("some.txt").write_text("beep-01\n")
    assert task_text(go(task=task, **values).record) == text


def test_part_of_one_fold_names_both(go: Callable[..., RunOutcome]) -> None:
    Path("data").mkdir()
    Path("data/beeps.txt").touch()
    assert task_text(go(task={"n": 6}, limit=4).record) == "beeps (official, n=6, 4 of 100)"


def test_what_a_model_learned_from_is_said(go: Callable[..., RunOutcome]) -> None:
    outcome = go({"trained_on": "beeps: the first six"})
    assert "The model learned from: beeps: the first six." in closing_lines(outcome.record, outcome.folder)


def test_a_model_that_learned_nothing_has_no_such_line(go: Callable[..., RunOutcome]) -> None:
    outcome = go()
    assert not [line for line in closing_lines(outcome.record, outcome.folder) if "learned" in line]


def test_few_recordings_are_pointed_out(go: Callable[..., RunOutcome]) -> None:
    few, many = go(), go(task={"n": 20})
    assert any("only 6 recordings" in line for line in closing_lines(few.record, few.folder))
    assert not any("recordings" in line for line in closing_lines(many.record, many.folder))


def test_notes_on_clips_are_pointed_out(go: Callable[..., RunOutcome]) -> None:
    outcome = go()
    counts = outcome.record.counts.model_copy(update={"notes": {"silent": 2}})
    record = outcome.record.model_copy(update={"counts": counts})
    assert any(line.startswith("Notes on clips: 2 x silent.") for line in closing_lines(record, outcome.folder))


def test_a_starter_score_is_said_to_be_none_of_the_benchmark(go: Callable[..., RunOutcome]) -> None:
    outcome = go()
    assert "not beeps scores" in closing_lines(outcome.record, outcome.folder)[-1]


def test_the_lines_below_name_the_record_and_the_failures(go: Callable[..., RunOutcome]) -> None:
    outcome = go(task={"broken": "beep-01"})
    first, second, *_ = closing_lines(outcome.record, outcome.folder)
    assert str(outcome.folder) in first and "1 x AudioError" in second


def test_without_a_terminal_columns_are_aligned_and_lines_are_whole(go: Callable[..., RunOutcome]) -> None:
    outcome = go()
    stream = io.StringIO()
    print_result(outcome.record, outcome.scores, outcome.folder, stream)
    header, first, second = stream.getvalue().splitlines()[:3]
    assert len(header) == len(first) == len(second) <= 110


def test_plain_text_is_what_print_shows(go: Callable[..., RunOutcome]) -> None:
    outcome = go()
    stream = io.StringIO()
    print_result(outcome.record, outcome.scores, outcome.folder, stream)
    assert stream.getvalue().startswith(plain_text(score_table(outcome.record, outcome.scores)) + "\n")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_table_holds_the_same_cells(
    go: Callable[..., RunOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    outcome = go()
    stream = _Terminal()
    print_result(outcome.record, outcome.scores, outcome.folder, stream)
    assert all(cell in stream.getvalue() for cell in score_table(outcome.record, outcome.scores).rows[0])


def test_on_a_narrow_terminal_each_cell_has_a_line_of_its_own(
    go: Callable[..., RunOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    outcome = go()
    stream = _Terminal()
    print_result(outcome.record, outcome.scores, outcome.folder, stream)
    lines = stream.getvalue().splitlines()
    assert lines[0].split() == ["model", "moody"]
    assert all(len(line) <= 60 for line in lines[:11])


def test_plain_progress_prints_no_line_before_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("harness.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    lines = PlainLines("x", 100, 0, stream)
    now[0] = 9.0
    lines.advance(50)
    assert stream.getvalue() == ""


def test_plain_progress_estimates_the_rest_from_this_session(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("harness.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    lines = PlainLines("x", 100, 50, stream)
    now[0] = 10.0
    lines.advance(10)
    assert stream.getvalue() == "x: 60 of 100 items done, 40 s left\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_of_cut_answers_that_nobody_counted_nothing_is_said(go: Callable[..., RunOutcome]) -> None:
    outcome = go()
    counts = outcome.record.counts.model_copy(update={"n_answers_cut": None})
    record = outcome.record.model_copy(update={"counts": counts})
    assert not any("limit of tokens" in line for line in closing_lines(record, outcome.folder))
