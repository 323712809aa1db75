"""Features of training clips: computed from the audio, several clips at a time, and kept in one file where asked for.

The file is an array of float16 of shape (clips, frames, mel), filled as clips come: 256 KiB for 10.24 s, without a
pass over the data beforehand. A row that was not written holds frames of zeros, which no clip has after normalisation,
so the file needs no index of what it holds, and a row that a crash tore is computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.audio import FileSource
from harness.errors import AudioError, UsageError
from harness.record_files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FEATURES, CLIPS = "features.npy", "clips.json"


class FeatureReader:
    """Features by file, those of several files at once; a file that cannot be heard gives the reason instead."""

    def __init__(
        self,
        compute: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
        sample_rate_hz: int,
        n_threads: int,
        cache: FeatureCache | None = None,
    ) -> None:
        self._compute, self._rate, self._cache = compute, sample_rate_hz, cache
        self._pool = ThreadPoolExecutor(max_workers=n_threads)

    def read(self, files: Sequence[Path]) -> list[npt.NDArray[np.float32] | str]:
        """The features of each file, shape (frames, mel), or why there are none; in order."""
        return list(self._pool.map(self._one, files))

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown()

    def _one(self, file: Path) -> npt.NDArray[np.float32] | str:
        kept = self._cache.get(file) if self._cache else None
        if kept is not None:
            return kept
        try:
            features = self._compute(FileSource(file).load(self._rate).samples)
        except AudioError as error:
            return str(error)
        return features if self._cache is None else self._cache.put(file, features)


class FeatureCache:
    """The file of features, for a fixed list of clips of one model's front end."""

    def __init__(self, folder: Path, files: Iterable[str], like: npt.NDArray[np.float32]) -> None:
        """Open it, or make it.

        Args:
            files: every clip that may be asked for.
            like: features of some fixed sound, which tell one front end from another.

        Raises:
            UsageError: the folder holds features of other clips, or of another front end.
        """
        import numpy as np

        names = sorted(set(files))
        self._rows: Mapping[str, int] = {name: row for row, name in enumerate(names)}
        self.folder = folder
        about = {
            "shape": [len(names), *like.shape],
            "clips_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
            "front_end_sha256": hashlib.sha256(like.astype(np.float16).tobytes()).hexdigest(),
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._check(about)
        path = folder / FEATURES
        if not path.exists():
            partial = path.with_suffix(".part")
            np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=(len(names), *like.shape))
            partial.replace(path)
        self._array: npt.NDArray[np.float16] = np.load(path, mmap_mode="r+")

    def _check(self, about: Mapping[str, Any]) -> None:
        path = self.folder / CLIPS
        if not path.exists():
            write_atomically(path, json.dumps(about, indent=2) + "\n")
        elif json.loads(path.read_text(encoding="utf-8")) != about:
            raise UsageError(f"{self.folder} holds features of other clips or of another model. Name another folder.")

    def get(self, file: Path) -> npt.NDArray[np.float32] | None:
        """The features of a file, shape (frames, mel), in float32; None where they are not there whole."""
        import numpy as np

        row = self._array[self._rows[str(file)]]
        return np.asarray(row, dtype=np.float32) if bool(row.any(axis=1).all()) else None

    def put(self, file: Path, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Keep them, and give them back as they will be read: the first time must not differ from the others."""
        import numpy as np

        kept = features.astype(np.float16)
        self._array[self._rows[str(file)]] = kept
        return kept.astype(np.float32)
