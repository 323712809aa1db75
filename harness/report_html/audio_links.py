"""Where the sound of each item lies, as a path from the page: linked, never copied into it.

A file is linked only where it is the very one that the model heard, by its SHA-256. Other people's recordings so stay
where their licence put them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from harness.audio import FileSource
from harness.contracts import AudioItem, Task
from harness.datasets import find_items
from harness.errors import HarnessError, MissingDataError
from harness.records import Prediction, RunRecord
from harness.registry import create


@dataclass(frozen=True)
class AudioLinks:
    """`urls` has an entry for each prediction, None without a file; `note` says why some have none."""

    urls: tuple[str | None, ...]
    note: str


def link_audio(record: RunRecord, predictions: Sequence[Prediction], page_folder: Path) -> AudioLinks:
    """Look for the data where `run` does, at the place that the run was given, and in the starter set.

    Args:
        record: of the run.
        predictions: of the run.
        page_folder: where the page will lie.
    """
    nothing = (None,) * len(predictions)
    if record.task.origin == "generated":
        return AudioLinks(nothing, "These clips are generated when they are heard: there are no files to play.")
    try:
        items = _items_of(record)
    except (HarnessError, OSError) as error:
        return AudioLinks(nothing, f"The audio is not here. {error}")
    by_id = {item.item_id: item for item in items}
    paths = [_file_of(by_id.get(prediction.item_id), prediction.audio_identity) for prediction in predictions]
    n_missing = sum(path is None for path in paths)
    note = f"{n_missing} of {len(paths)} clips are no file here, or another than the one that was heard."
    return AudioLinks(
        tuple(None if path is None else _url(path, page_folder) for path in paths), note if n_missing else ""
    )


def _items_of(record: RunRecord) -> Sequence[AudioItem]:
    task: Task = create("tasks", record.task.name, record.task.options_passed).value
    if record.task.origin == "starter":
        if task.read_starter is None or task.starter_root is None:
            raise MissingDataError(f"The task '{task.name}' has no starter set any more.")
        return task.read_starter(task.starter_root).items
    named = record.config_passed.get("data_root")
    root = Path(named) if named and Path(named).is_dir() else None
    found = find_items(task, root, say=lambda line: None)
    if found.origin != record.task.origin:
        raise MissingDataError(f"The run heard the {record.task.origin} data of '{task.name}', which was not found.")
    return found.items


def _file_of(item: AudioItem | None, identity: str) -> Path | None:
    """The item's file, if it is one and still the same."""
    if item is None or not isinstance(item.source, FileSource) or item.source.identity() != identity:
        return None
    return item.source.path


def _url(path: Path, page_folder: Path) -> str:
    return quote(os.path.relpath(path.resolve(), page_folder.resolve()).replace(os.sep, "/"))
