"""Which of the asked clips a model may have heard in training, by what it says of itself and by recording.

A model says in words what it learned from (`ModelDescription.trained_on`); a clause of them is understood where it
names a task and a part of it:

    esc50: folds 1-4
    ESC-10 of esc50's folds 1, 2, 3, 4; the starter set's training split
    fsd50k: split train, val
    clotho
    OpenAQA

Clauses are parted by semicolons; one that names no task goes on about the task before. A task alone, or "all of" it, is
the whole. OpenAQA stands for the sets that LTU's own training data was made of (YuanGongND/ltu, openaqa/utils).

An asked item is flagged when it is in such a part, or when another clip of its recording is: sets share recordings by
their ids on YouTube (AudioSet, AudioCaps, VGGSound, DCASE 2017) and on Freesound (FSD50K, Clotho, ESC-50). For that the
part's own lists must be on this machine; a part whose lists are not, and a clause that is not understood, is named as
unchecked, never taken for clean.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config import DATA_VARIABLE
from harness.contracts import AudioItem, DataOrigin, Task
from harness.errors import HarnessError
from harness.records import LeakageRow
from harness.registry import create, names

_YOUTUBE = frozenset({"audioset", "audiocaps", "vggsound", "dcase2017"})
_FREESOUND = frozenset({"fsd50k", "esc50"})
_FREESOUND_ID = "freesound_id"
_OPENAQA = (
    "audioset: split balanced_train; audioset: split unbalanced_train; fsd50k: split train, val; "
    "vggsound: split train; audiocaps: split train, val; clotho: split development, validation"
)
_FOLDS = re.compile(r"\bfolds?\b[\s=:]*([\d,\s\u2013-]+)")
_SPLITS = re.compile(r"\bsplits?\b[\s=:]+(\w+(?:\s*,\s*\w+)*)")
_SPLIT_BEFORE = re.compile(r"\b(\w+) split\b")
# A floor that looked at the answers, and at no clip.
LABEL_COUNTS = "label counts"
_SAID_OTHERWISE = {"training": "train", "testing": "test"}


@dataclass(frozen=True)
class Part:
    """A part of a task's data: the items whose metadata, or the split whose list, has one of `values` under `key`.

    `key` None stands for all of it; `subset` for a flag of the metadata that must be set, such as "esc10".
    """

    task: str
    origin: DataOrigin
    key: str | None = None
    values: tuple[str, ...] = ()
    subset: str | None = None

    def __str__(self) -> str:
        which = f" {self.key} {', '.join(self.values)}" if self.key else ""
        return f"{self.task}{' starter set' if self.origin == 'starter' else ''}{which}" + (
            f" ({self.subset})" if self.subset else ""
        )


@dataclass(frozen=True)
class Learned:
    """What a sentence says: the parts that are understood, and the clauses that are not."""

    parts: tuple[Part, ...]
    unread: tuple[str, ...]


def read_claim(trained_on: str) -> Learned:
    """Understand what a model says it learned from."""
    parts: list[Part] = []
    unread: list[str] = []
    known, task = names("tasks"), None
    is_random = trained_on.strip().startswith("nothing")
    for clause in filter(None, map(str.strip, re.sub(r"\bOpenAQA\b", _OPENAQA, trained_on).split(";"))):
        if (is_random and "as published" not in clause) or clause.startswith(LABEL_COUNTS):
            continue
        task = next((word for word in re.findall(r"\w+", clause) if word in known), task)
        part = _part(clause, task)
        if part is None:
            unread.append(clause)
        else:
            parts.append(part)
    return Learned(tuple(parts), tuple(unread))


def find_leakage(
    trained_on: str, task_name: str, origin: DataOrigin, items: Sequence[AudioItem], data_root: Path | None
) -> LeakageRow | None:
    """Flag the items that a model may have heard; None for a model that says nothing of what it learned from.

    Args:
        trained_on: what the model says.
        task_name, origin: of the items.
        items: those that are asked.
        data_root: where the command's data lies; None for the usual places.
    """
    learned = read_claim(trained_on)
    if not learned.parts and not learned.unread:
        return None
    flagged: dict[str, str] = {}
    unchecked = list(learned.unread)
    for part in learned.parts:
        try:
            heard = list(_items_of(part, data_root))
        except (HarnessError, OSError, ValueError):
            heard = [item for item in items if (part.task, part.origin) == (task_name, origin) and _is_in(item, part)]
            unchecked.append(f"{part}: its lists are not on this machine")
        keys = {_recording(part.task, part.origin, item) for item in heard}
        ids = {item.item_id for item in heard} if (part.task, part.origin) == (task_name, origin) else set()
        for item in items:
            if item.item_id in ids:
                flagged.setdefault(item.item_id, str(part))
            elif _recording(task_name, origin, item) in keys:
                flagged.setdefault(item.item_id, f"{part}: another clip of its recording")
    return LeakageRow(learned_from=tuple(map(str, learned.parts)), flagged=flagged, unchecked=tuple(unchecked))


# --- understanding ----------------------------------------------------------------------------------------------------


def _part(clause: str, task: str | None) -> Part | None:
    if task is None:
        return None
    origin: DataOrigin = "starter" if "starter" in clause else "official"
    subset = "esc10" if re.search(r"\bESC-?10\b", clause, re.IGNORECASE) else None
    folds, splits = _FOLDS.search(clause), _SPLITS.search(clause) or _SPLIT_BEFORE.search(clause)
    if folds and any(map(str.isdigit, folds[1])):
        return Part(task, origin, "fold", tuple(_numbers(folds[1])), subset)
    if splits:
        values = (value.strip() for value in splits[1].split(","))
        return Part(task, origin, "split", tuple(_SAID_OTHERWISE.get(value, value) for value in values), subset)
    is_whole = re.fullmatch(rf"(?:all of )?{task}(?:: all)?(?:'s starter set)?\.?", clause) is not None
    return Part(task, origin, subset=subset) if is_whole else None


def _numbers(text: str) -> Iterator[str]:
    """ "1-3, 5" as 1, 2, 3, 5."""
    for piece in re.findall(r"\d+(?:\s*[\u2013-]\s*\d+)?", text):
        first, last = (re.split(r"\s*[\u2013-]\s*", piece) * 2)[:2]
        yield from map(str, range(int(first), int(last) + 1))


# --- the parts on this machine ----------------------------------------------------------------------------------------


def _items_of(part: Part, data_root: Path | None) -> Iterator[AudioItem]:
    """Every item of a part.

    Raises:
        HarnessError: the task has no such part, or its lists are not there.
    """
    if part.key == "split":
        for value in part.values:
            yield from _read(create("tasks", part.task, {"split": value}).value, part.origin, data_root)
    else:
        whole = _read(create("tasks", part.task).value, part.origin, data_root)
        yield from (item for item in whole if _is_in(item, part))


def _read(task: Task, origin: DataOrigin, data_root: Path | None) -> Iterable[AudioItem]:
    if origin == "starter":
        if task.read_starter is None or task.starter_root is None:
            raise HarnessError(f"'{task.name}' has no starter set.")
        return task.read_starter(task.starter_root).items
    named = os.environ.get(DATA_VARIABLE)
    for folder in filter(None, (data_root, Path(named) if named else None, Path("data"))):
        found = task.find(folder) if folder.is_dir() else None
        if found is not None:
            return task.read_items(found).items
    raise HarnessError(f"The lists of '{task.name}' are not there.")


def _is_in(item: AudioItem, part: Part) -> bool:
    if part.subset is not None and not item.metadata.get(part.subset):
        return False
    return part.key is None or str(item.metadata.get(part.key)) in part.values


def _recording(task: str, origin: DataOrigin, item: AudioItem) -> str:
    """A name of the item's recording that other sets call it by, too, where they can."""
    freesound_id = item.metadata.get(_FREESOUND_ID)
    if origin == "official" and (freesound_id or task in _FREESOUND):
        return f"freesound {freesound_id or item.cluster}"
    if origin == "official" and task in _YOUTUBE:
        return f"youtube {item.cluster}"
    return f"{task} {origin} {item.cluster}"
