"""What `frontier --streaming` writes: a line of `points.jsonl` for each minute heard, and `record.json` beside it.

Both have JSON schemas in `harness/schema/`; write those anew with `python -m harness.streaming_rows`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from harness.environment import Environment
from harness.fresh_process import OutcomeKind
from harness.record_files import Row, read_record, read_rows
from harness.records import RECORD_FILE, ModelRow
from harness.schema_files import texts_of, write_texts

SCHEMA_VERSION: Final = 1
POINTS_FILE = "points.jsonl"


class MinuteRow(Row):
    """One further minute: a line of `points.jsonl`.

    `wall_s` and `cpu_s` (all threads) are of this minute alone, the rest is how things stood at its end: the process's
    resident set, what torch's CUDA allocator held, and what the language model keeps by its own formula.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model: str
    minute: int
    wall_s: float
    cpu_s: float
    resident_bytes: int | None
    device_allocated_bytes: int | None
    state_growing_bytes: int | None
    state_constant_bytes: int | None


class StreamingRow(Row):
    """One model's answer. `listening_s` is the time until the sound ended, `after_s` from there to the answer.

    `kind` is "ok" where it answered; `n_minutes` were heard.
    """

    model: ModelRow
    kind: OutcomeKind
    message: str
    n_minutes: int
    listening_s: float | None
    after_s: float | None


class StreamingRecord(Row):
    """One `frontier --streaming` command; fields as in `FrontierRecord`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    command: tuple[str, ...]
    config: dict[str, Any]
    memory_cap: str
    prompt: str
    environment: Environment
    started_utc: str
    ended_utc: str | None
    rows: tuple[StreamingRow, ...]


def load_minutes(folder: Path) -> list[MinuteRow]:
    """The minutes of a folder in the order of writing; a torn last line is left out.

    Raises:
        RecordError: a line is damaged, or of an unknown version.
    """
    return read_rows(folder / POINTS_FILE, MinuteRow)


def load_streaming(folder: Path) -> StreamingRecord:
    """Read `record.json` of a folder.

    Raises:
        RecordError: it is not there, is damaged, or of an unknown version.
    """
    return read_record(folder / RECORD_FILE, StreamingRecord)


def schema_texts() -> dict[str, str]:
    """File name to content of the schemas of both."""
    return texts_of({"streaming_minute": MinuteRow, "streaming_record": StreamingRecord}, SCHEMA_VERSION)


if __name__ == "__main__":
    write_texts(schema_texts())
