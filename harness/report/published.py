"""Published numbers of other systems: `harness/published.csv`, one line a number, each with its source.

Columns: system, task, metric; percent as printed; scorer ("ltu": nearest ada-002 embedding, "clap": nearest CLAP text
embedding, "class scores": a classifier's own, "verbatim": the text itself, "own", "unknown"); protocol ("ltu", "sam":
those papers' scripts; "own", "encoder"); mark; source; note. Marks: "verified" in a primary source, "secondary" in a
digest of it, "inferred" (the note says from what), "recalled" and unchecked.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from harness.errors import RecordError
from harness.report.rendering import INFERRED, RECALLED, SECONDARY

PUBLISHED_FILE = Path(__file__).parents[1] / "published.csv"
Mark = Literal["verified", "secondary", "inferred", "recalled"]
SIGNS: Mapping[Mark, str] = {"verified": "", "secondary": SECONDARY, "inferred": INFERRED, "recalled": RECALLED}
TASK_ORDER = (
    *("esc50", "dcase2017", "vocalsound", "tut2017", "beijing_opera", "vggsound", "fsd50k", "audioset"),
    *("audiocaps", "clotho", "speech_commands", "librispeech"),
)


@dataclass(frozen=True)
class PublishedNumber:
    """One number as printed, in percent."""

    system: str
    task: str
    metric: str
    percent: float
    scorer: str
    protocol: str
    mark: Mark
    source: str
    note: str


def published_numbers(path: Path = PUBLISHED_FILE) -> list[PublishedNumber]:
    """Every number of the file, in its order.

    Raises:
        RecordError: a line lacks something, its number is none, its mark is unknown, or it is there twice.
    """
    numbers: list[PublishedNumber] = []
    seen: set[tuple[str, str, str, str]] = set()
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            number = _number(row, f"{path.name}: {row.get('system')}, {row.get('task')}")
            key = (number.system, number.task, number.metric, number.scorer)
            if key in seen:
                raise RecordError(f"{path.name}: {number.system}, {number.task} is there twice.")
            seen.add(key)
            numbers.append(number)
    return numbers


def _number(row: dict[str, str], place: str) -> PublishedNumber:
    try:
        percent = float(row["percent"])
        named = {name: row[name] for name in ("system", "task", "metric", "scorer", "protocol", "source", "note")}
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{place} is not a line of published numbers.") from error
    if not 0 <= percent <= 100 or row.get("mark") not in SIGNS or not row["source"]:
        raise RecordError(f"{place} has a number outside 0 to 100, an unknown mark, or no source.")
    return PublishedNumber(**named, percent=percent, mark=cast(Mark, row["mark"]))


def percent_text(number: PublishedNumber) -> str:
    """The number with at least one digit behind the point, as tables print it."""
    return f"{number.percent:g}" if "." in f"{number.percent:g}" else f"{number.percent:.1f}"


def task_order(task: str) -> tuple[int, str]:
    """The order of the field's tables, then by name."""
    return (TASK_ORDER.index(task), "") if task in TASK_ORDER else (len(TASK_ORDER), task)
