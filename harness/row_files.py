"""Files of rows, one JSON object a line: measurements add to them as they go, and continue from them when killed."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from harness.errors import RecordError


class Row(BaseModel):
    """Base of rows: no field but those that are declared, no change, no number that JSON does not have."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def append_row(path: Path, row: BaseModel) -> None:
    """Add one line; when this returns, it is on disk.

    Raises:
        RecordError: it cannot be written.
    """
    line = json.dumps(row.model_dump(mode="json"), ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line)
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
