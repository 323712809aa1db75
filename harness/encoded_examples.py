"""Training examples that an encoder has heard once, kept in files, for many lessons of what comes after it.

Batches of examples come in; those whose maps have one shape lie on one shelf, `encoded-<n>.f16`, the bare
numbers one map after the other, which are read from disk as they are needed. `encoded.json` holds the maps' shapes, the
question of each, the shelf of each batch and what the encoder was, and is written last: with it, the rest is whole.

A lesson is one shelf's, as examples of unlike length cannot lie in one batch. Which shelf's, the batches decide: the
shelves come in the order, and as often, as when they were filled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import Question, TrainingExample
from harness.record_files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

INDEX = "encoded.json"
Encoded = tuple["npt.NDArray[np.float16]", Sequence[TrainingExample]]


@dataclass(frozen=True, eq=False)
class Shelf:
    """Examples of one shape: what an encoder made of them, and what is asked about each."""

    encoded: npt.NDArray[np.float16]
    questions: Sequence[Question]


@dataclass(frozen=True, eq=False)
class EncodedExamples:
    """What an encoder made of examples. `order` tells for each batch that came in on which shelf it lies."""

    shelves: Sequence[Shelf]
    order: Sequence[int]

    @classmethod
    def make_or_open(cls, folder: Path, made_by: str, batches: Iterator[Encoded]) -> EncodedExamples:
        """Those of a folder; where they are not whole, or another encoder made them, they are made first.

        Args:
            made_by: tells one encoder from another.
            batches: what the encoder made of examples, and the examples, each batch of one shape and all of as many
                examples; drawn from only if they are needed.
        """
        index = _whole_index(folder, made_by)
        if index is None:
            _make(folder, made_by, batches)
            index = _whole_index(folder, made_by)
            assert index is not None, "just made"
        return _open(folder, index)

    def draw(self, step: int, seed: int) -> tuple[npt.NDArray[np.float16], Sequence[Question]]:
        """The batch of a step: every example once, in an order drawn anew, before any comes again."""
        import numpy as np

        turn, place = divmod(step, len(self.order))
        number = self.order[place]
        shelf, n_batches = self.shelves[number], self.order.count(number)
        batch_size = len(shelf.questions) // n_batches
        begin = self._rank_on_shelf[place] * batch_size
        order = np.random.default_rng((seed, turn, number)).permutation(len(shelf.questions))
        chosen = [int(index) for index in order[begin : begin + batch_size]]
        return np.asarray(shelf.encoded[chosen]), [shelf.questions[index] for index in chosen]

    @cached_property
    def _rank_on_shelf(self) -> list[int]:
        """How many batches of the same shelf came before each batch."""
        return [self.order[:place].count(number) for place, number in enumerate(self.order)]

    @staticmethod
    def delete(folder: Path) -> None:
        """Give the room back."""
        for path in (folder / INDEX, *_shelf_files(folder)):
            path.unlink(missing_ok=True)


def _shelf_file(folder: Path, number: int) -> Path:
    return folder / f"encoded-{number}.f16"


def _shelf_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("encoded-*.f16"))


def _whole_index(folder: Path, made_by: str) -> dict[str, Any] | None:
    """The index, where all is there, of this encoder, and of the sizes that it tells of."""
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index["made_by"] != made_by:
            return None
        sizes = [2 * len(shelf["questions"]) * math.prod(shelf["shape"]) for shelf in index["shelves"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # none, torn, or of another layout
        return None
    files = [_shelf_file(folder, number) for number in range(len(sizes))]
    whole = all(file.exists() and file.stat().st_size == size for file, size in zip(files, sizes, strict=True))
    return index if whole else None


def _make(folder: Path, made_by: str, batches: Iterator[Encoded]) -> None:
    """Fill the shelves batch by batch, so that no more than one batch is in memory."""
    import numpy as np

    (folder / INDEX).unlink(missing_ok=True)
    for left_over in _shelf_files(folder):
        left_over.unlink()
    shapes: list[tuple[int, ...]] = []
    questions: list[list[Question]] = []
    order: list[int] = []
    for encoded, examples in batches:
        shape = encoded.shape[1:]
        if shape not in shapes:
            shapes.append(shape)
            questions.append([])
        number = shapes.index(shape)
        with _shelf_file(folder, number).open("ab") as file:
            file.write(np.ascontiguousarray(encoded, dtype=np.float16).tobytes())
        questions[number] += [Question(example.prompt, example.answers) for example in examples]
        order.append(number)
    shelves = [
        {"shape": shape, "questions": [asdict(question) for question in asked]}
        for shape, asked in zip(shapes, questions, strict=True)
    ]
    write_atomically(folder / INDEX, json.dumps({"made_by": made_by, "order": order, "shelves": shelves}))


def _open(folder: Path, index: Mapping[str, Any]) -> EncodedExamples:
    import numpy as np

    shelves = []
    for number, shelf in enumerate(index["shelves"]):
        asked = [Question(row["prompt"], tuple((text, w) for text, w in row["answers"])) for row in shelf["questions"]]
        shape = (len(asked), *shelf["shape"])
        shelves.append(Shelf(np.memmap(_shelf_file(folder, number), np.float16, "r", shape=shape), asked))
    return EncodedExamples(shelves, index["order"])
