"""OpenAQA's files as published: a JSON list of objects with six keys (YuanGongND/ltu README).

    {"instruction": the question, "input": text beside it, mostly "", "audio_id": path of the clip,
     "dataset": "as_strong_train", "task": "open-ended question", "output": the answer}

The last two of `dataset` and `task` say where an item is from; nothing here depends on them. The published 5.7 million
items take some gigabytes of memory while they are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError

# Where LTU's template with an input has it (alpaca_short.json): after the question, before the response.
INPUT_HEADING = "\n\n### Input:\n"


@dataclass(frozen=True, slots=True)
class OpenAqaItem:
    """One question about one clip; `place` is its number in the file, from 0."""

    place: int
    prompt: str
    answer: str
    audio_id: str


def read_items(path: Path) -> tuple[list[OpenAqaItem], list[tuple[str, str]]]:
    """The items of a file in order, and what is none: where it stands, and why.

    Raises:
        UsageError: the file is no JSON list, or there is no item in it.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not isinstance(rows, list):
        raise UsageError(f"{path} is no JSON list of items, as OpenAQA is")
    items: list[OpenAqaItem] = []
    malformed: list[tuple[str, str]] = []
    for place, row in enumerate(rows):
        made = _item(place, row)
        if isinstance(made, str):
            malformed.append((f"{path.name}:{place}", made))
        else:
            items.append(made)
    if not items:
        reason = malformed[0][1] if malformed else "the list is empty"
        raise UsageError(f"{path} holds no item of OpenAQA: {reason}")
    return items, malformed


def _item(place: int, row: Any) -> OpenAqaItem | str:
    """The item, or why it is none."""
    if not isinstance(row, Mapping):
        return f"{type(row).__name__} instead of an object"
    for key in ("instruction", "audio_id", "output"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            return f"no text under '{key}'"
    given = row.get("input") or ""
    if not isinstance(given, str):
        return "no text under 'input'"
    prompt = row["instruction"] + (INPUT_HEADING + given if given else "")
    return OpenAqaItem(place, prompt, row["output"], row["audio_id"])


class AudioFolders:
    """Where the clips lie here: published paths are those of their authors' machine.

    A clip is looked for by the end of its path: of /data/sls/audioset/audio/x.flac the longest end whose folder exists
    below `root` counts, down to x.flac in `root` itself. A folder that is on this machine as it is written is taken
    where there is none below `root`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[str, Path] = {}

    def path_of(self, audio_id: str) -> Path:
        """Where the clip should be; it is not looked at."""
        folder, _, name = audio_id.replace("\\", "/").rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = self._find(folder)
        return self._folders[folder] / name

    def _find(self, folder: str) -> Path:
        # Up and away from `root` leads nowhere that a data set may name.
        parts: Sequence[str] = [part for part in folder.split("/") if part not in ("", ".", "..")]
        for start in range(len(parts)):
            found = self.root.joinpath(*parts[start:])
            if found.is_dir():
                return found
        written = Path(folder)
        return written if written.is_absolute() and written.is_dir() else self.root
