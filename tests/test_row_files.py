"""Files of rows: what comes back, what a killed writer leaves, and damage as one clear error."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import RecordError
from harness.row_files import Row, append_row, cut_torn_line, load_record, load_rows


class Sample(Row):
    """A row."""

    name: str
    seconds: float


ROWS = [Sample(name="first", seconds=0.1), Sample(name="zweite Zeile, für alle", seconds=2.0)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of two rows."""
    for row in ROWS:
        append_row(tmp_path / "rows.jsonl", row)
    return tmp_path / "rows.jsonl"


def test_rows_come_back_in_their_order(path: Path) -> None:
    assert load_rows(path, Sample) == ROWS


def test_a_file_that_is_not_there_has_no_rows(tmp_path: Path) -> None:
    assert load_rows(tmp_path / "rows.jsonl", Sample) == []


def test_a_torn_last_line_is_left_out(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])
    assert load_rows(path, Sample) == ROWS[:1]


def test_after_a_torn_line_was_cut_the_next_row_is_whole(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])
    cut_torn_line(path)
    append_row(path, ROWS[1])
    assert load_rows(path, Sample) == ROWS


@pytest.mark.parametrize("line", ["{", '{"name": "x"}', '{"name": "x", "seconds": 1, "more": 1}', "\udcff"])
def test_a_damaged_line_is_named_by_its_number(path: Path, line: str) -> None:
    path.write_bytes(path.read_bytes() + line.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(RecordError, match=r"rows.jsonl line 3 is no row of this version") as caught:
        load_rows(path, Sample)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [load_rows, load_record])
def test_what_cannot_be_read_is_one_clear_error(tmp_path: Path, read: object) -> None:
    with pytest.raises(RecordError, match="cannot be read: Is a directory"):
        read(tmp_path, Sample)  # type: ignore[operator]


def test_a_record_comes_back(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(ROWS[0].model_dump_json())
    assert load_record(tmp_path / "record.json", Sample) == ROWS[0]


def test_a_record_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="record.json is not there"):
        load_record(tmp_path / "record.json", Sample)
