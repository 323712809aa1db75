"""The order in which a stage meets its items: epochs, each drawn anew, with texts of like length side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.contracts import Question
from harness.curriculum import Lesson
from harness.recipes._openaqa_items import AudioFolders, OpenAqaItem

# Transformers' LengthGroupedSampler, which LTU trained with: so many batches are drawn and sorted at once, fewer where
# the data would make less than four such groups.
BATCHES_SORTED = 50
LEAST_GROUPS = 4


class OrderedLessons:
    """The items of one file. Batches are a pure function of seed and step; lengths are counted in characters."""

    def __init__(
        self, file_name: str, items: Sequence[OpenAqaItem], folders: AudioFolders, seed: int, batch_size: int
    ) -> None:
        self._file, self._items, self._folders = file_name, items, folders
        self._seed = seed
        self._lengths = np.array([len(item.prompt) + len(item.answer) for item in items])
        self._group = batch_size * max(1, min(len(items) // (batch_size * LEAST_GROUPS), BATCHES_SORTED))
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return len(self._items)

    def batch(self, step: int, batch_size: int) -> list[Lesson]:
        """Every item once in an epoch, then the next epoch."""
        places = range(step * batch_size, (step + 1) * batch_size)
        n = len(self._items)
        return [self._lesson(self._items[self._epoch(place // n)[place % n]]) for place in places]

    def files(self) -> set[str]:
        """Paths of all clips, as `Lesson.audio` has them."""
        return {str(self._folders.path_of(item.audio_id)) for item in self._items}

    def _epoch(self, epoch: int) -> list[int]:
        if self._order[0] != epoch:
            drawn = np.random.default_rng((self._seed, epoch)).permutation(len(self._items))
            groups = [drawn[start : start + self._group] for start in range(0, len(drawn), self._group)]
            ordered = [group[np.argsort(-self._lengths[group], kind="stable")] for group in groups]
            self._order = (epoch, np.concatenate(ordered).tolist())
        return self._order[1]

    def _lesson(self, item: OpenAqaItem) -> Lesson:
        return lesson_of(self._file, item, self._folders)


def lesson_of(file_name: str, item: OpenAqaItem, folders: AudioFolders) -> Lesson:
    """An item of OpenAQA as the training loop takes it."""
    question = Question(item.prompt, ((item.answer, 1.0),))
    return Lesson(f"{file_name}:{item.place}", folders.path_of(item.audio_id), question)
