"""Beijing Opera percussion: single strokes of four instruments. Tian et al. 2014 (CompMusic).

Official layout: one folder `beijing_opera_percussion_instrument_1.0` of WAV files and no list. The label is in the
file's name, after the last "__" and before the last "-"; soft hyphens inside it are taken out:

    <number>__<uploader>__bangu-3.wav

All 236 clips are asked, as LTU does. One of them is a copy of another: clips of the same bytes share a cluster. With
so few clips the standard error of an accuracy is about 3 points.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from harness.contracts import AudioItem, ItemSet, Label, RemoteFile, Task
from harness.errors import UsageError
from harness.hashing import file_sha256
from tasks._audio_files import audio_files_in, find_root
from tasks._items import file_item, official_set
from tasks._prompts import LTU_CLASSIFICATION

# In LTU's order: the name in the files, and LTU's English.
INSTRUMENTS = (
    Label("xiaoluo", "small gong"),
    Label("daluo", "large gong"),
    Label("bangu", "clapper-drum"),
    Label("naobo", "cymbals"),
)
N_CLIPS = 236
N_CLIPS_OF_INSTRUMENT = {"xiaoluo": 65, "daluo": 62, "bangu": 59, "naobo": 50}
FOLDER = "beijing_opera_percussion_instrument_1.0"
SOFT_HYPHEN = "\N{SOFT HYPHEN}"
PROMPTS = {"classify": "Which percussion instrument of Beijing Opera is in the audio clip?", "ltu": LTU_CLASSIFICATION}
# Made after the rule by which hearbenchmark/hear-preprocess reads the names; no real one was at hand.
SAMPLE_ROWS = ("1__uploader__bangu-3.wav", "2__uploader__xiaoluo-12.wav")


def beijing_opera() -> Task:
    """Name the percussion instrument of a single stroke among four."""
    return Task(
        name="beijing_opera",
        version=1,
        kind="classification",
        summary="Name the percussion instrument of a single stroke among four.",
        labels=INSTRUMENTS,
        prompts=PROMPTS,
        metrics=("accuracy",),
        citation="M. Tian, A. Srinivasamurthy, M. Sandler, X. Serra. A Study of Instrument-wise Onset Detection in "
        "Beijing Opera Percussion Ensembles. ICASSP, 2014.",
        licence="see https://zenodo.org/records/1285212 (CompMusic)",
        homepage="https://compmusic.upf.edu/bo-perc-dataset",
        download=f"https://zenodo.org/records/1285212/files/{FOLDER}.zip; unpack it in the data root",
        sample_rows=SAMPLE_ROWS,
        find=partial(find_root, task="beijing_opera", usual_names=(FOLDER,), is_root=_is_root),
        read_items=_read,
        remote_files=(
            RemoteFile(
                f"https://zenodo.org/records/1285212/files/{FOLDER}.zip",
                ".",
                unpack=True,
                md5="51dc70d02a06b9d96befadf320a6996f",
            ),
        ),
        published_counts={
            "clips": N_CLIPS,
            "labels": len(INSTRUMENTS),
            "sample_rate_hz": 44_100,
            **N_CLIPS_OF_INSTRUMENT,
        },
    )


def _is_root(folder: Path) -> bool:
    return any(_instrument(path) is not None for path in audio_files_in(folder))


def _instrument(path: Path) -> str | None:
    """The instrument that a file's name says; None when it says none."""
    parts = path.stem.replace(SOFT_HYPHEN, "").casefold().rpartition("__")[2].split("-")
    said = parts[-2] if len(parts) > 1 else ""
    return next((label.name for label in INSTRUMENTS if label.name == said), None)


def _read(root: Path) -> ItemSet:
    """Items of the folder, in the order of the files' names.

    Raises:
        UsageError: a file's name says no instrument.
        MissingDataError: there is no file.
    """
    paths = list(audio_files_in(root))
    unknown = [path.name for path in paths if _instrument(path) is None]
    if unknown:
        raise UsageError(f"{root}: '{unknown[0]}' names no instrument ({len(unknown)} such files).")
    clusters = _clusters(paths)
    return official_set([_item(path, clusters[path]) for path in paths], N_CLIPS, root, root)


def _item(path: Path, cluster: str) -> AudioItem:
    instrument = _instrument(path)
    assert instrument is not None
    return file_item(path.stem.replace(SOFT_HYPHEN, ""), path, (instrument,), cluster)


def _clusters(paths: Sequence[Path]) -> dict[Path, str]:
    """For each file the stem of the first with the same bytes. Only files of one size are read."""
    sizes = {path: path.stat().st_size for path in paths}
    n_of_size = Counter(sizes.values())
    first: dict[tuple[int, str], str] = {}
    clusters = {}
    for path, size in sizes.items():
        content = file_sha256(path) if n_of_size[size] > 1 else path.name
        clusters[path] = first.setdefault((size, content), path.stem.replace(SOFT_HYPHEN, ""))
    return clusters
