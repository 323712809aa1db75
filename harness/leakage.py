"""Which of the asked clips a model may have heard in training, by what it says of itself and by recording.

A model says in words what it learned from (`ModelDescription.trained_on`); a clause of them is understood where it
names a task and a part of it:

    esc50: folds 1-4
    ESC-10 of esc50's folds 1, 2, 3, 4; the starter set's training split
    fsd50k: split train, val
    clotho
    OpenAQA

Clauses are parted by semicolons; one that names no task goes on about the task before. A task alone, or "all of" it, is
the whole: every split. A clause that names two tasks, or says more of folds or splits than is understood, is not
understood at all. OpenAQA stands for the sets that LTU's own training data was made of (YuanGongND/ltu, openaqa/utils).

An asked item is flagged when it is in such a part, or when another clip of its recording is: sets share recordings by
their ids on YouTube (AudioSet, AudioCaps, VGGSound, DCASE 2017) and on Freesound (FSD50K, Clotho, ESC-50), and
generated items are made of the starter set's. For that the part's own lists must be on this machine; a part whose lists
are not, recordings whose ids are not known, and a clause that is not understood, are named as unchecked, never taken
for clean.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args, get_type_hints

from harness.config import DATA_VARIABLE
from harness.contracts import AudioItem, DataOrigin, Task
from harness.errors import HarnessError
from harness.records import LeakageRow
from harness.registry import create, load, names

_YOUTUBE = frozenset({"audioset", "audiocaps", "vggsound", "dcase2017"})
_FREESOUND = frozenset({"fsd50k", "esc50"})
_ON_FREESOUND = _FREESOUND | {"clotho"}
_FREESOUND_ID = "freesound_id"
_OPENAQA = (
    "audioset: split balanced_train; audioset: split unbalanced_train; fsd50k: split train, val; "
    "vggsound: split train; audiocaps: split train, val; clotho: split development, validation"
)
_FOLDS = re.compile(r"\bfolds?\b[\s=:]*(\d+(?:[,\s\u2013-]+\d+)*)")
_SPLITS = re.compile(r"\bsplits?\b[\s=:]+([\w-]+(?:\s*,\s*[\w-]+)*)")
_SPLIT_BEFORE = re.compile(r"\b(\w+) split\b")
# A floor that looked at the answers, and at no clip.
LABEL_COUNTS = "label counts"
NOT_SAID = "it does not say what that was"
_ALIKE = (("train", "training"), ("val", "validation"), ("test", "testing", "eval", "evaluation"))
_EXCEPTION = re.compile(r"\b(?:not|but|except|excluding|without|minus)\b")
# Of these only lists for testing, or a part of the training list, can be asked.
_WITHOUT_TRAINING_LIST = frozenset({"audioset", "vggsound", "speech_commands", "librispeech"})


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
    task: str | None = None
    is_random = re.match(r"\s*nothing\b(?! (?:but|except|other))", trained_on) is not None
    for clause in filter(None, map(str.strip, re.sub(r"\bOpenAQA\b", _OPENAQA, trained_on).split(";"))):
        if (is_random and "as published" not in clause) or clause.startswith(LABEL_COUNTS):
            continue
        named = _tasks_in(clause)
        task = named[0] if named else task
        part, is_all = _part(clause.lower(), task) if len(named) < 2 else (None, False)
        if part is not None:
            parts.append(part)
        if not is_all:
            unread.append(clause)
    return Learned(tuple(parts), tuple(unread))


def find_leakage(
    trained_on: str,
    task_name: str,
    origin: DataOrigin,
    items: Sequence[AudioItem],
    data_root: Path | None,
    has_weights: bool = False,
) -> LeakageRow | None:
    """Flag the items that a model may have heard; None for a model that learned from nothing.

    Args:
        trained_on: what the model says.
        task_name, origin: of the items.
        items: those that are asked.
        data_root: where the command's data lies; None for the usual places.
        has_weights: of the model: then it learned from something, also where it does not say from what.
    """
    if has_weights and not trained_on.strip():
        return LeakageRow(learned_from=(), flagged={}, unchecked=(NOT_SAID,))
    learned = read_claim(trained_on)
    if not learned.parts and not learned.unread:
        return None
    flagged: dict[str, str] = {}
    unchecked = list(learned.unread)
    for part in (single for claimed in learned.parts for single in _singly(claimed)):
        is_asked = (part.task, part.origin) == (task_name, origin)
        heard = [item for item in items if is_asked and _is_in(item, part)]
        try:
            heard += _items_of(part, data_root)
        except (HarnessError, OSError, ValueError):
            unchecked.append(f"{part}: its lists are not on this machine")
        unchecked += _nameless(part, heard, task_name, origin, items)
        keys = {name for item in heard for name in _recordings(part.task, part.origin, item)}
        ids = {item.item_id for item in heard} if is_asked else set()
        for item in items:
            if item.item_id in ids:
                flagged.setdefault(item.item_id, str(part))
            elif keys & _recordings(task_name, origin, item):
                flagged.setdefault(item.item_id, f"{part}: another clip of its recording")
    unchecked += [f"{part}: its training list is unknown to the harness" for part in learned.parts if _is_beyond(part)]
    return LeakageRow(learned_from=tuple(map(str, learned.parts)), flagged=flagged, unchecked=tuple(unchecked))


# --- understanding ----------------------------------------------------------------------------------------------------


def _tasks_in(clause: str) -> list[str]:
    """Names of the tasks that a clause speaks of, also where they are written "FSD-50K" or "Speech Commands"."""
    squeezed = re.sub(r"[^a-z0-9]", "", clause.lower())
    return [name for name in names("tasks") if name.replace("_", "") in squeezed]


def _part(clause: str, task: str | None) -> tuple[Part | None, bool]:
    """The part that a clause in lower case speaks of, and whether that is all that it says."""
    if task is None or _EXCEPTION.search(clause):
        return None, False
    clause = re.sub(r"\s*(?:,|\band\b|&)+\s*", ", ", re.sub(r"(?<=\d)\s+to\s+(?=\d)", "-", clause))
    origin: DataOrigin = "starter" if "starter" in clause else "official"
    subset = "esc10" if re.search(r"\besc-?10\b", clause) else None
    if found := _FOLDS.search(clause):
        return Part(task, origin, "fold", tuple(_numbers(found[1])), subset), not clause[found.end() :].strip(" .")
    if found := _SPLITS.search(clause) or _SPLIT_BEFORE.search(clause):
        values = tuple(_own_name(task, value.strip()) for value in found[1].split(","))
        return Part(task, origin, "split", values, subset), not clause[found.end() :].strip(" .")
    is_whole = re.fullmatch(rf"(?:all of )?{task}(?:: all)?(?:'s starter set)?\.?", clause) is not None
    return (Part(task, origin, subset=subset), True) if is_whole else (None, False)


def _own_name(task: str, split: str) -> str:
    """What the task itself calls a split; the word as it is where it has none that means the same."""
    own = _splits(task)
    alike = next((words for words in _ALIKE if split in words), ())
    return split if split in own else next((word for word in alike if word in own), split)


def _splits(task: str) -> tuple[str, ...]:
    """The splits that a task can be asked for, the default first; none where it has no such option."""
    try:
        return tuple(map(str, get_args(get_type_hints(load("tasks", task)).get("split"))))
    except NameError:  # a plugin whose annotations name what it does not import
        return ()


def _numbers(text: str) -> Iterator[str]:
    """ "1-3, 5" as 1, 2, 3, 5."""
    for piece in re.findall(r"\d+(?:\s*[\u2013-]\s*\d+)?", text):
        first, last = (re.split(r"\s*[\u2013-]\s*", piece) * 2)[:2]
        yield from map(str, range(int(first), int(last) + 1))


# --- the parts on this machine ----------------------------------------------------------------------------------------


def _singly(part: Part) -> Iterator[Part]:
    """The part split by split, so that one whose list is missing hides no other; all splits where it is the whole."""
    values = _splits(part.task) if part.key is None else part.values if part.key == "split" else ()
    if len(values) < 2 or (part.task, part.origin) == ("esc50", "official"):  # folds, and all of them in one table
        yield part
    else:
        yield from (replace(part, key="split", values=(value,)) for value in values)


def _is_beyond(part: Part) -> bool:
    """Whether the whole of a set was learned from, and the harness knows no list of all of it."""
    return part.key is None and part.origin == "official" and part.task in _WITHOUT_TRAINING_LIST


def _nameless(
    part: Part, heard: Sequence[AudioItem], task: str, origin: DataOrigin, items: Sequence[AudioItem]
) -> Iterator[str]:
    """Which clips of two sets cannot be known by their recordings, where the sets may share some."""
    if origin == "generated" and any("/" in name for item in items for name in _own_recordings(item)):
        yield f"{part}: clips of your own are known by their files' names alone"
    both = ((part.task, part.origin, heard), (task, origin, items))
    if part.task != task and all(name in _ON_FREESOUND and place == "official" for name, place, _ in both):
        for name, _, clips in both:
            unknown = sum(name == "clotho" and not item.metadata.get(_FREESOUND_ID) for item in clips)
            if unknown:
                yield f"{part}: {unknown} of {len(clips)} clips of {name} have no Freesound id here"


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


def _recordings(task: str, origin: DataOrigin, item: AudioItem) -> frozenset[str]:
    """Names of the item's recordings that other sets call them by, too, where they can."""
    if origin == "generated":
        return frozenset(f"esc50 starter {name}" for name in _own_recordings(item))
    freesound_id = item.metadata.get(_FREESOUND_ID)
    if origin == "official" and (freesound_id or task in _FREESOUND):
        return frozenset({f"freesound {freesound_id or item.cluster}"})
    if origin == "official" and task in _YOUTUBE:
        return frozenset({f"youtube {item.cluster}"})
    return frozenset({f"{task} {origin} {item.cluster}"})


def _own_recordings(item: AudioItem) -> list[str]:
    """What a generated item is made of, as its metadata tells."""
    said = item.metadata.get("recordings", item.metadata.get("recording"))
    return str(said).split() if said else [item.cluster]
