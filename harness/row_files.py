"""Files of rows, one JSON object a line: measurements add to them as they go, and continue from them when killed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import RecordError

RowT = TypeVar("RowT", bound=BaseModel)


class Row(BaseModel):
    """Base of rows: no field but those that are declared, no change, no number that JSON does not have."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def to_line(row: BaseModel) -> str:
    """A row as its line."""
    return json.dumps(row.model_dump(mode="json"), ensure_ascii=False, allow_nan=False) + "\n"


def append_row(path: Path, row: BaseModel) -> None:
    """Add one line; when this returns, it is on disk.

    Raises:
        RecordError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(to_line(row))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise RecordError(f"{path} cannot be written: {error.strerror or error}.") from error


def cut_torn_line(path: Path) -> None:
    """Drop what a killed process left of a line, so that the next one begins a line of its own."""
    if path.exists():
        content = path.read_bytes()
        with path.open("r+b") as stream:
            stream.truncate(content.rfind(b"\n") + 1)


def load_rows(path: Path, kind: type[RowT]) -> list[RowT]:
    """The rows of a file in the order of writing; a torn last line is left out. No rows where there is no file.

    Raises:
        RecordError: the file cannot be read, or a line is damaged or of an unknown version.
    """
    rows = []
    for number, line in enumerate(_content(path).split(b"\n")[:-1], start=1):
        try:
            rows.append(kind.model_validate_json(line))
        except ValidationError as error:
            raise RecordError(f"{path} line {number} is no row of this version: {_first(error)}.") from error
    return rows


def load_record(path: Path, kind: type[RowT]) -> RowT:
    """The one object that a file holds.

    Raises:
        RecordError: the file is not there or cannot be read, is damaged, or of an unknown version.
    """
    if not path.exists():
        raise RecordError(f"{path} is not there.")
    try:
        return kind.model_validate_json(_content(path))
    except ValidationError as error:
        raise RecordError(f"{path} is no record of this version: {_first(error)}.") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}.") from error


def _first(error: ValidationError) -> str:
    told = error.errors()[0]
    return f"{'.'.join(map(str, told['loc']))}: {told['msg']}"
