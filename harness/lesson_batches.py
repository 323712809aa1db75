"""From a stage's items to what the network takes: features and tokens, the next step's made ready in the meantime.

An item that cannot be learned from is noted, once and with its reason, and its step goes on without it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from harness.contracts import Question
from harness.curriculum import CurriculumConfig, CurriculumModel, Lesson, PreparedCurriculum, Stage
from harness.curve import append_line
from harness.feature_cache import FeatureCache, FeatureReader
from harness.processes import ALONE, Processes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Taught:
    """A lesson that is ready for the network: features (frames, mel), token ids, and the first that counts."""

    lesson: Lesson
    features: npt.NDArray[np.float32]
    tokens: Sequence[int]
    start: int

    @property
    def n_counted(self) -> int:
        """Tokens that the loss counts."""
        return len(self.tokens) - self.start


class LessonBatches:
    """A process's share of the batches of a training, with threads that read ahead.

    What a step gets does not depend on these threads.
    """

    def __init__(
        self,
        model: CurriculumModel,
        prepared: PreparedCurriculum,
        config: CurriculumConfig,
        bad_items: Path,
        processes: Processes = ALONE,
    ) -> None:
        """Nothing is read yet.

        Raises:
            UsageError: the folder of features holds those of other clips, or of another model.
        """
        self.bad = BadItems(bad_items, is_writer=processes.is_main)
        self._model, self._prepared, self._config, self._processes = model, prepared, config, processes
        with processes.main_first():
            cache = self._cache()
        self.reader = FeatureReader(model.features, model.sample_rate_hz, config.threads, cache)
        self._ahead = ThreadPoolExecutor(max_workers=1)
        self._next: tuple[tuple[str, int], Future[list[Taught]]] | None = None

    def _cache(self) -> FeatureCache | None:
        import numpy as np

        folder = self._prepared.features_folder
        if folder is None:
            return None
        files = {file for lessons in self._prepared.sources.values() for file in lessons.files()}
        files |= {str(lesson.audio) for lesson in self._prepared.held_out}
        click = np.zeros(self._model.sample_rate_hz, np.float32)
        click[len(click) // 2] = 1.0
        return FeatureCache(folder, files, self._model.features(click))

    def of_step(self, stage: Stage, step: int, n_steps: int) -> list[Taught]:
        """This process's items of a stage's step that can be learned from, shortest text first."""
        lessons, size = self._prepared.sources[stage.data], self._config.batch_size
        from_prompt, share = self._config.loss_on_prompt, self._processes.share
        if self._next is not None and self._next[0] == (stage.name, step):
            batch = self._next[1].result()
        else:
            batch = self.ready(share(lessons.batch(step, size)), from_prompt)
        self._next = None
        if step + 1 < n_steps:
            later = self._ahead.submit(self.ready, share(lessons.batch(step + 1, size)), from_prompt)
            self._next = ((stage.name, step + 1), later)
        return batch

    def ready(self, lessons: Sequence[Lesson], from_prompt: bool) -> list[Taught]:
        """Features and tokens, shortest text first, so that items side by side need little padding.

        Args:
            from_prompt: whether the question's tokens count too.
        """
        files = list(dict.fromkeys(lesson.audio for lesson in lessons))
        heard = dict(zip(files, self.reader.read(files), strict=True))
        batch = []
        for lesson in lessons:
            features = heard[lesson.audio]
            made = features if isinstance(features, str) else self._taught(lesson, features, from_prompt)
            if isinstance(made, str):
                self.bad.add(lesson, made)
            else:
                batch.append(made)
        return sorted(batch, key=lambda taught: len(taught.tokens))

    def filler(self) -> Taught:
        """A lesson of silence, in a place where every process must have one and this one has none left."""
        import numpy as np

        lesson = Lesson("filler", Path(), Question("", ()))
        features = self._model.features(np.zeros(self._model.sample_rate_hz, np.float32))
        return Taught(lesson, features, [0, 0], 1)

    def _taught(self, lesson: Lesson, features: npt.NDArray[np.float32], from_prompt: bool) -> Taught | str:
        """The lesson with its tokens, or why it is none."""
        limit = self._config.max_text_tokens
        try:
            tokens, answer_start = self._model.text_tokens(lesson.question, limit)
        except ValueError as error:
            return str(error)
        # The first token follows nothing but audio, and LTU's loss does not ask for it.
        start = 1 if from_prompt else answer_start
        if start >= len(tokens):
            return f"nothing of its answer lies within {limit} tokens"
        return Taught(lesson, features, tokens, start)

    def close(self) -> None:
        """Let the threads go."""
        self._ahead.shutdown()
        self.reader.close()


class BadItems:
    """Items that could not be learned from, in memory and in a file of JSON lines, each once.

    Of several processes one writes the file; what the others find waits until it is handed over. The thread that reads
    ahead adds items while the main one hands over.
    """

    def __init__(self, path: Path, is_writer: bool = True) -> None:
        self.path, self._is_writer = path, is_writer
        self.reasons: dict[str, str] = {}
        self._waiting: list[dict[str, str]] = []
        self._lock = Lock()
        for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                entry = json.loads(text)
            except ValueError:  # torn by a crash: the item will be met again
                continue
            self.reasons[entry["item"]] = entry["reason"]

    def add(self, lesson: Lesson, reason: str) -> None:
        """Note an item, unless it was noted before."""
        self._note({"item": lesson.item, "audio": str(lesson.audio), "reason": reason})

    def hand_over(self, processes: Processes) -> None:
        """Bring what the other processes found to the one that writes."""
        with self._lock:
            found, self._waiting = self._waiting, []
        if not processes.sums([len(found)])[0]:
            return
        for entry in [entry for entries in processes.gather(found) for entry in entries]:
            if self._is_writer:
                self._note(entry)

    def _note(self, entry: dict[str, str]) -> None:
        with self._lock:
            if entry["item"] in self.reasons:
                return
            self.reasons[entry["item"]] = entry["reason"]
            if self._is_writer:
                append_line(self.path, entry)
            else:
                self._waiting.append(entry)
