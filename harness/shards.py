"""What several processes answered of one run, before it is merged: `shards/<rank>/predictions.jsonl` in its folder.

Each process appends to a file of its own, which it holds locked. Rows go into the run's `predictions.jsonl` in the
order of its items, once nothing is missing before them; a row that waits for others stays in its shard. A crash at any
moment loses no row that was synced, and leaves at worst one that is in both places, of which the merged one counts. Of
an item that is in shards more than once, as when a process outlived a killed main one, the first row counts.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from harness.errors import RecordError
from harness.record_files import cut_torn_line
from harness.records import (
    PREDICTIONS_FILE,
    Prediction,
    PredictionWriter,
    load_predictions,
    load_rows,
)
from harness.run_folder import locked

SHARDS = "shards"


def shard_folder(folder: Path, rank: int) -> Path:
    """Where a process writes what it answers of the run in `folder`."""
    return folder / SHARDS / f"{rank:05d}"


@contextmanager
def shard_writer(folder: Path, rank: int) -> Iterator[PredictionWriter]:
    """Where a process appends what it answers of the run in `folder`; made and locked.

    Raises:
        UsageError: a process of an earlier command, which outlived its main one, still answers there.
    """
    place = shard_folder(folder, rank)
    with locked(place, "shard"), PredictionWriter(place) as writer:
        yield writer


def drop_torn_tails(folder: Path) -> None:
    """Cut what a killed process left half written, in the run's predictions and in every shard."""
    for place in (folder, *_shards(folder)):
        cut_torn_line(place / PREDICTIONS_FILE)


def collect(folder: Path, item_ids: Sequence[str]) -> dict[str, Prediction]:
    """Every row that there is of a run, merged or not, by item in the run's order.

    Args:
        item_ids: of the run's items, in order.

    Raises:
        RecordError: a file is damaged, `predictions.jsonl` does not begin with the run's items in order, or a shard
            tells of an item that is none of the run's.
    """
    merged = load_predictions(folder)
    if [row.item_id for row in merged] != list(item_ids[: len(merged)]):
        raise RecordError(f"{folder / PREDICTIONS_FILE} does not begin with this run's items in order. Use --fresh.")
    known = {row.item_id: row for row in merged}
    for place in _shards(folder):
        for row in load_rows(place):
            known.setdefault(row.item_id, row)
    strange = sorted(known.keys() - set(item_ids))
    if strange:
        raise RecordError(f"{folder / SHARDS} tells of '{strange[0]}', which is no item of this run. Use --fresh.")
    return {item_id: known[item_id] for item_id in item_ids if item_id in known}


def merge(folder: Path, item_ids: Sequence[str], known: Mapping[str, Prediction]) -> int:
    """Append to `predictions.jsonl` what it lacks, up to the first item that nobody answered; returns its lines."""
    n_merged = len(load_predictions(folder))
    ready = list(takewhile(known.__contains__, item_ids[n_merged:]))
    if ready:
        with PredictionWriter(folder) as writer:
            for item_id in ready:
                writer.append(known[item_id])
    return n_merged + len(ready)


def delete_shards(folder: Path) -> None:
    """Give the room back, once `predictions.jsonl` has every row."""
    shutil.rmtree(folder / SHARDS, ignore_errors=True)


def _shards(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / SHARDS).glob("*") if path.is_dir())
