"""What `frontier --streaming` writes: a line of `points.jsonl` for each minute heard, and `record.json` beside it.

Both have JSON schemas in `harness/schema/`; write those anew with `python -m harness.streaming_rows`.
"""

from __future__ import annotations

import json
from typing import Any, Final, Literal

from pydantic import BaseModel

from harness.environment import Environment
from harness.fresh_process import OutcomeKind
from harness.records import SCHEMA_FOLDER, ModelRow
from harness.row_files import Row

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


def schema_texts() -> dict[str, str]:
    """File name to content of the schemas of both."""
    kinds: dict[str, type[BaseModel]] = {"streaming_minute": MinuteRow, "streaming_record": StreamingRecord}
    return {
        f"{name}.v{SCHEMA_VERSION}.json": json.dumps(kind.model_json_schema(mode="serialization"), indent=1) + "\n"
        for name, kind in kinds.items()
    }


if __name__ == "__main__":
    for _name, _text in schema_texts().items():
        (SCHEMA_FOLDER / _name).write_text(_text, encoding="utf-8")
