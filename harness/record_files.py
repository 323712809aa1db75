"""Files of records as JSON: one object a file, replaced whole; or one a line, added to and continued after a kill.

Each object names the version of its schema. Whatever is damaged, or of another version, is one clear error.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import RecordError

RowT = TypeVar("RowT", bound=BaseModel)


class Row(BaseModel):
    """Base of rows and records. Frozen; unknown fields and NaN are refused, so that none says less than it seems to.

    What is read from a file as a whole, or as a line, has a field `schema_version`, whose default is the known one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- writing ---------------------------------------------------------------------------------------------------------


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that a reader, or a crash, finds the old content or the new one, never a part.

    Raises:
        RecordError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RecordError(f"{path} cannot be written: {error.strerror or error}.") from error


def to_json(row: BaseModel) -> str:
    """Indented JSON that ends with a newline; NaN is refused."""
    return json.dumps(row.model_dump(mode="json"), ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def to_line(row: BaseModel) -> str:
    """JSON on one line, newline included; NaN is refused."""
    return json.dumps(row.model_dump(mode="json"), ensure_ascii=False, allow_nan=False) + "\n"


def append_row(path: Path, row: BaseModel) -> None:
    """Add one line; when this returns, it is on disk.

    Raises:
        RecordError: it cannot be written.
    """
    is_new = not path.exists()
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(to_line(row))
            stream.flush()
            os.fsync(stream.fileno())
        if is_new:
            sync_folder(path.parent)
    except OSError as error:
        raise RecordError(f"{path} cannot be written: {error.strerror or error}.") from error


def cut_torn_line(path: Path) -> None:
    """Cut what a killed process left of a last line, so that the next one begins a line of its own.

    Raises:
        RecordError: the file cannot be read or written.
    """
    content = read_bytes(path) or b""
    whole = content.rfind(b"\n") + 1
    if whole == len(content):
        return
    try:
        with path.open("r+b") as stream:
            stream.truncate(whole)
            os.fsync(stream.fileno())
    except OSError as error:
        raise RecordError(f"{path} cannot be written: {error.strerror or error}.") from error


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- reading ---------------------------------------------------------------------------------------------------------


def read_rows(path: Path, kind: type[RowT]) -> list[RowT]:
    """The rows of a file in the order of writing; a torn last line is left out. No rows where there is no file.

    Raises:
        RecordError: the file cannot be read, or a line is damaged or of an unknown version.
    """
    lines = (read_bytes(path) or b"").split(b"\n")[:-1]
    return [_parsed(kind, line, f"{path} line {number}") for number, line in enumerate(lines, start=1)]


def find_record(path: Path, kind: type[RowT]) -> RowT | None:
    """The one object that a file holds; None where there is no file.

    Raises:
        RecordError: the file cannot be read, is damaged, or of an unknown version.
    """
    content = read_bytes(path)
    return None if content is None else _parsed(kind, content, str(path))


def read_record(path: Path, kind: type[RowT]) -> RowT:
    """As `find_record`, for a file that must be there.

    Raises:
        RecordError: as there, or there is no file.
    """
    found = find_record(path, kind)
    if found is None:
        raise RecordError(f"{path} is not there.")
    return found


def read_bytes(path: Path) -> bytes | None:
    """What a file holds; None where there is none.

    Raises:
        RecordError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}.") from error


def _parsed(kind: type[RowT], content: bytes, place: str) -> RowT:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{place} is not JSON: {error}.") from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    known = kind.model_fields["schema_version"].default
    if version != known:
        raise RecordError(f"{place} has schema version {version}; this program reads version {known}.")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise RecordError(f"{place} does not fit its schema: {where}: {first['msg']}.") from error
