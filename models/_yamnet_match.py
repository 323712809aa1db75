"""Which AudioSet classes speak for a label of any task: by the words of their names, and by nothing else.

1. Where all labels are ESC-50's, each has the classes of the table (`_yamnet_labels.py`).
2. Else a label has the classes that have its own words, as "Car passing by" and "Accelerating_and_revving" do.
3. Else every class all of whose words are in the label, as "Dog" and "Bark" for "dog barking"; one whose words are all
   in another of these is left out, as "Train" is for "train horning". A name with a comma lists ways to say it, each of
   which will do ("Laughter" is no such name, "Vehicle horn, car horn, honking" is).

Words are compared in lower case, without brackets, "and", "of", "the" and "playing", and by their stems: without plural
"s", "-ing", final "e" and doubled last letter. Two labels that get the same classes tie,
as "small gong" and "large gong" do, and a label whose words AudioSet does not use has none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from models._yamnet_labels import AUDIOSET_CLASSES

_PASSED_OVER = frozenset("a an and at by in of on or other sound sounds the to with playing people".split())
# Classes that any clip has some of, whose word is part of other names.
_TOO_GENERAL = frozenset(
    {"Inside, small room", "Inside, large room or hall", "Inside, public space", "Music", "Sound effect"}
)


def classes_of(labels: Sequence[str], class_names: Sequence[str]) -> list[tuple[str, ...]]:
    """The classes of each label of a task; none where no rule finds one.

    Args:
        labels: all that are to be told apart, as they read in a sentence, or as the data set writes them.
        class_names: AudioSet's display names.
    """
    listed = [AUDIOSET_CLASSES.get(" ".join(label.lower().replace("_", " ").split())) for label in labels]
    known = [classes for classes in listed if classes is not None]
    if len(known) == len(labels):
        return known
    return [_matched(_stems(label), tuple(class_names)) for label in labels]


@cache
def _matched(wanted: frozenset[str], class_names: tuple[str, ...]) -> tuple[str, ...]:
    whole = tuple(name for name in class_names if wanted and _stems(name) == wanted)
    if whole:
        return whole
    ways = {
        name: [way for way in _ways(name) if way and way <= wanted] for name in class_names if name not in _TOO_GENERAL
    }
    best = {name: max(found, key=len) for name, found in ways.items() if found}
    return tuple(name for name, way in best.items() if not any(way < other for other in best.values()))


def _ways(name: str) -> list[frozenset[str]]:
    """A class's words, and those of each name that it lists."""
    return [_stems(name), *map(_stems, name.split(","))]


@cache
def _stems(text: str) -> frozenset[str]:
    words = re.findall(r"[a-z]+", text.lower().replace("'s", ""))
    return frozenset(_stem(word) for word in words if word not in _PASSED_OVER)


def _stem(word: str) -> str:
    for ending in ("ing", "s"):
        if len(word) > len(ending) + 2 and word.endswith(ending) and not word.endswith("ss"):
            word = word.removesuffix(ending)
    word = word.removesuffix("e") if len(word) > 3 else word
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word
