"""Files of records: what comes back, what a killed writer leaves, and damage as one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from harness.errors import RecordError
from harness.record_files import Row, append_row, cut_torn_line, find_record, read_record, read_rows, write_atomically


class Sample(Row):
    """A row."""

    schema_version: Literal[1] = 1
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
    assert read_rows(path, Sample) == ROWS


def test_a_file_that_is_not_there_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "rows.jsonl", Sample) == []


def test_a_torn_last_line_is_left_out(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])
    assert read_rows(path, Sample) == ROWS[:1]


@pytest.mark.parametrize(("left", "whole"), [(b"", b""), (b'{"na', b""), (b"{}\n", b"{}\n"), (b"{}\n{", b"{}\n")])
def test_only_what_follows_the_last_whole_line_is_cut(tmp_path: Path, left: bytes, whole: bytes) -> None:
    (tmp_path / "rows.jsonl").write_bytes(left)
    cut_torn_line(tmp_path / "rows.jsonl")
    assert (tmp_path / "rows.jsonl").read_bytes() == whole


def test_where_there_is_no_file_nothing_is_cut_or_made(tmp_path: Path) -> None:
    cut_torn_line(tmp_path / "rows.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_torn_line_that_cannot_be_cut_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read: Is a directory"):
        cut_torn_line(tmp_path)


def test_after_a_torn_line_was_cut_the_next_row_is_whole(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])
    cut_torn_line(path)
    append_row(path, ROWS[1])
    assert read_rows(path, Sample) == ROWS


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "is not JSON"),
        ("\udcff", "is not JSON"),
        ("[" * 200_000, "is not JSON"),
        ("[1]", "has schema version None; this program reads version 1"),
        ('{"name": "x", "seconds": 1}', "has schema version None; this program reads version 1"),
        ('{"schema_version": 2, "name": "x", "seconds": 1}', "has schema version 2; this program reads version 1"),
        ('{"schema_version": 1, "name": "x"}', "does not fit its schema: seconds"),
        ('{"schema_version": 1, "name": "x", "seconds": 1, "more": 1}', "does not fit its schema: more"),
        ('{"schema_version": 1, "name": "x", "seconds": NaN}', "does not fit its schema: seconds"),
    ],
)
def test_a_damaged_line_is_named_by_its_number(path: Path, line: str, told: str) -> None:
    path.write_bytes(path.read_bytes() + line.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(RecordError, match=rf"rows.jsonl line 3 {told}") as caught:
        read_rows(path, Sample)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_rows, read_record, find_record])
def test_what_cannot_be_read_is_one_clear_error(tmp_path: Path, read: object) -> None:
    with pytest.raises(RecordError, match="cannot be read: Is a directory"):
        read(tmp_path, Sample)  # type: ignore[operator]


def test_a_record_comes_back(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(ROWS[0].model_dump_json())
    assert read_record(tmp_path / "record.json", Sample) == ROWS[0]


def test_a_record_that_may_be_missing_is_none(tmp_path: Path) -> None:
    assert find_record(tmp_path / "record.json", Sample) is None


def test_a_record_of_another_version_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"schema_version": 2, "name": "x", "seconds": 1}')
    with pytest.raises(RecordError, match="record.json has schema version 2; this program reads version 1"):
        find_record(tmp_path / "record.json", Sample)


def test_a_record_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="record.json is not there"):
        read_record(tmp_path / "record.json", Sample)


def test_an_atomic_write_leaves_only_the_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file.json", "old")
    write_atomically(tmp_path / "file.json", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file.json": "new"}


def test_a_write_that_fails_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be written"):
        write_atomically(tmp_path / "missing" / "file.json", "text")
