"""Published numbers: each has a source and a mark, and the tables print both."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import RecordError
from harness.registry import names
from harness.report.published import PUBLISHED_FILE, SIGNS, PublishedNumber, published_numbers
from harness.report.published_tables import published_tables
from harness.report.rendering import MARKS, to_markdown

NUMBERS = published_numbers()
HEADER = "system,task,metric,percent,scorer,protocol,mark,source,note\n"
LINE = "A,esc50,accuracy,50,ltu,ltu,verified,here,\n"


def _of(system: str, task: str) -> PublishedNumber:
    return next(number for number in NUMBERS if (number.system, number.task) == (system, task))


def test_every_number_has_a_source_and_is_of_a_task_and_metric_that_exist() -> None:
    assert [number for number in NUMBERS if not number.source] == []
    assert {number.task for number in NUMBERS} <= set(names("tasks"))
    assert {number.metric for number in NUMBERS} <= set(names("metrics"))


def test_what_was_inferred_says_from_what() -> None:
    assert {number.system for number in NUMBERS if number.mark == "inferred" and not number.note} == set()


@pytest.mark.parametrize(
    ("system", "average", "tasks"),
    [
        # Printed in the LTU authors' response: 50.3 over eight classification tasks, 14.5 over two of captions.
        ("LTU-7B", 50.3, "esc50 dcase2017 vocalsound tut2017 beijing_opera vggsound fsd50k audioset"),
        ("LTU-7B", 14.5, "audiocaps clotho"),
    ],
)
def test_the_averages_that_were_printed_follow_from_the_cells(system: str, average: float, tasks: str) -> None:
    cells = [_of(system, task).percent for task in tasks.split()]
    assert sum(cells) / len(cells) == pytest.approx(average, abs=0.06)


def test_numbers_of_different_scorers_are_in_different_tables() -> None:
    tables = {table.name: {row[0] for row in table.rows} for table in published_tables(NUMBERS)}
    assert "LTU-7B" in tables["published-ltu"] and "SAM-2.7B r256" in tables["published-clap"]
    assert not tables["published-ltu"] & tables["published-clap"]


def test_a_recalled_number_carries_its_mark_and_the_mark_is_explained() -> None:
    (table,) = [table for table in published_tables(NUMBERS) if table.name == "published-ltu"]
    text = to_markdown(table)
    assert "| 16.4‡ |" in text and f"- ‡ {MARKS['‡']}." in text
    assert {SIGNS[number.mark] for number in NUMBERS} == {"", "†", "¶", "‡"}


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (LINE + LINE, "twice"),
        (LINE.replace("50,ltu", "x,ltu"), "not a line"),
        (LINE.replace("50,ltu", "150,ltu"), "outside 0 to 100"),
        (LINE.replace("verified", "believed"), "unknown mark"),
        (LINE.replace("here", ""), "no source"),
    ],
)
def test_a_line_that_is_wrong_is_refused(lines: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "published.csv"
    file.write_text(HEADER + lines)
    with pytest.raises(RecordError, match=told):
        published_numbers(file)


def test_the_file_ends_its_lines_as_the_repository_does() -> None:
    assert b"\r" not in PUBLISHED_FILE.read_bytes()
