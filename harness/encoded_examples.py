"""Training examples that an encoder has heard once, kept in a file, for many lessons of what comes after it.

`encoded.npy` has shape (n_examples, ...), float16, and is read from disk as it is needed; `encoded.json` holds the
question of each. The array gets its name last, so that a file of that name is whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import Question, TrainingExample

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ENCODED = "encoded.npy"
QUESTIONS = "encoded.json"
Encoded = tuple["npt.NDArray[np.float16]", Sequence[TrainingExample]]


@dataclass(frozen=True, eq=False)
class EncodedExamples:
    """What an encoder made of examples, and what is asked about each."""

    encoded: npt.NDArray[np.float16]
    questions: Sequence[Question]

    @classmethod
    def make_or_open(cls, folder: Path, n_examples: int, batches: Iterator[Encoded]) -> EncodedExamples:
        """Those of a folder; where they are not whole, they are made first.

        Args:
            n_examples: how many to keep.
            batches: at least so many, what the encoder made of them first; drawn from only if they are needed.
        """
        import numpy as np

        if not (folder / ENCODED).exists():
            _make(folder, n_examples, batches)
        rows = json.loads((folder / QUESTIONS).read_text(encoding="utf-8"))
        questions = [Question(row["prompt"], tuple((text, weight) for text, weight in row["answers"])) for row in rows]
        return cls(np.load(folder / ENCODED, mmap_mode="r"), questions)

    def draw(self, step: int, batch_size: int, seed: int) -> tuple[npt.NDArray[np.float16], Sequence[Question]]:
        """The batch of a step: every example once, in an order drawn anew, before any comes again."""
        import numpy as np

        places = range(step * batch_size, (step + 1) * batch_size)
        epochs = sorted({place // len(self.questions) for place in places})
        orders = {epoch: np.random.default_rng((seed, epoch)).permutation(len(self.questions)) for epoch in epochs}
        chosen = [int(orders[place // len(self.questions)][place % len(self.questions)]) for place in places]
        return np.asarray(self.encoded[chosen]), [self.questions[index] for index in chosen]

    @staticmethod
    def delete(folder: Path) -> None:
        """Give the room back."""
        for name in (ENCODED, QUESTIONS):
            (folder / name).unlink(missing_ok=True)


def _make(folder: Path, n_examples: int, batches: Iterator[Encoded]) -> None:
    import numpy as np

    partial = folder / f"{ENCODED}.part"
    array: np.memmap[Any, np.dtype[np.float16]] | None = None
    questions: list[Question] = []
    for encoded, examples in batches:
        if array is None:
            shape = (n_examples, *encoded.shape[1:])
            array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
        room = n_examples - len(questions)
        array[len(questions) : len(questions) + len(encoded)] = encoded[:room]
        questions += [Question(example.prompt, example.answers) for example in examples[:room]]
    assert array is not None and len(questions) == n_examples, "too few batches"
    array.flush()
    (folder / QUESTIONS).write_text(json.dumps([asdict(question) for question in questions]), encoding="utf-8")
    partial.replace(folder / ENCODED)
