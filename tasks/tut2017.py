"""TUT Acoustic Scenes 2017: 10 s of 15 places, binaural. Mesaros, Heittola, Virtanen. Non-commercial use only.

Official layout: a folder for each of the two sets, `TUT-acoustic-scenes-2017-evaluation` and `-development`, with
`meta.txt` (or `evaluation_setup/evaluate.txt`) beside `audio/`. Tab-separated, no header; the development list has the
place of recording as a third field, for the evaluation list `evaluation_setup/map.txt` tells it:

    audio/b020_90_100.wav	beach	b020

Clips are 44.1 kHz, 24 bit, two ears: the harness hears their mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from harness.contracts import AudioItem, ItemSet, RemoteFile, Task
from tasks._audio_files import AudioFolder, find_root, first_file, first_line
from tasks._items import check_option, file_item, items_of, official_set
from tasks._labels import labels_from_names
from tasks._prompts import LTU_CLASSIFICATION
from tasks._tables import TABS, Row, plain_file_name, read_table

Split = Literal["evaluation", "development"]

# In LTU's order. The lists write underscores; older ones say "lakeside beach" and "urban park".
SCENES = (
    "bus cafe/restaurant car city_center forest_path grocery_store home beach library metro_station office "
    "residential_area train tram park"
).split()
OTHER_SPELLINGS = {"lakeside_beach": "beach", "urban_park": "park"}
N_CLIPS = {"evaluation": 1620, "development": 4680}
LISTS = ("meta.txt", "evaluation_setup/evaluate.txt")
PROMPTS = {"classify": "In which place was the audio clip recorded?", "ltu": LTU_CLASSIFICATION}
SAMPLE_ROWS = ("audio/b020_90_100.wav\tbeach\tb020", "audio/a001_0_10.wav\tcafe/restaurant\ta001")
_ZENODO = "https://zenodo.org/records/1040168/files/TUT-acoustic-scenes-2017-evaluation"
_PART_BYTES = {
    "meta": 4473,
    "audio.1": 1_071_856_687,
    "audio.2": 1_073_362_972,
    "audio.3": 1_071_521_152,
    "audio.4": 382_756_463,
}
# As Zenodo publishes them.
_PART_MD5 = {
    "meta": "e006cfec14a49dd79a6ab8f8d5b1c5e6",
    "audio.1": "5d97dea8461baec8027ae4a0c2b18d4b",
    "audio.2": "4085ef5fa286f2169074993a4e405953",
    "audio.3": "cac432579e7cf2dff0aec7aaed248956",
    "audio.4": "664bf09c3d24bd26c6b587f1d709de36",
}
# Only the development set has folds, so these files tell the two apart.
_FOLD_LISTS = ("evaluation_setup/fold1_train.txt", "evaluation_setup/fold1_evaluate.txt")


def tut2017(split: Split = "evaluation") -> Task:
    """Name the place where a 10 s clip was recorded, among 15.

    Args:
        split: published scores are those of the evaluation set.

    Raises:
        OptionError: there is no such split.
    """
    check_option("tut2017", "split", split, N_CLIPS)
    return Task(
        name="tut2017",
        version=1,
        kind="classification",
        summary="Name the place where a 10 s clip was recorded, among 15.",
        labels=labels_from_names(SCENES),
        prompts=PROMPTS,
        metrics=("accuracy",),
        citation="A. Mesaros, T. Heittola, T. Virtanen. TUT Database for Acoustic Scene Classification and Sound Event "
        "Detection. EUSIPCO, 2016; DCASE 2017 task 1.",
        licence="free for non-commercial use (Tampere University)",
        homepage="https://zenodo.org/records/1040168",
        download="https://zenodo.org/records/1040168 (evaluation, meta and four audio archives, 3.6 GB) or "
        "https://zenodo.org/records/400515 (development); unpack all archives of a set in the data root",
        sample_rows=SAMPLE_ROWS,
        find=partial(
            find_root,
            task="tut2017",
            usual_names=(f"TUT-acoustic-scenes-2017-{split}",),
            is_root=partial(_is_root, split=split),
        ),
        read_items=partial(_read, split=split),
        remote_files=_remote_files(split),
        published_counts={"clips": N_CLIPS[split], "labels": len(SCENES), "sample_rate_hz": 44_100, "channels": 2}
        | dict.fromkeys(SCENES, N_CLIPS[split] // len(SCENES)),
    )


def _is_root(folder: Path, split: str) -> bool:
    has_folds = first_file(folder, _FOLD_LISTS) is not None
    return first_file(folder, LISTS) is not None and has_folds == (split == "development")


def _remote_files(split: str) -> tuple[RemoteFile, ...]:
    if split != "evaluation":
        return ()
    # Each archive has the set's folder inside.
    return tuple(
        RemoteFile(f"{_ZENODO}.{part}.zip", ".", None, size, True, _PART_MD5[part])
        for part, size in _PART_BYTES.items()
    )


def _read(root: Path, split: str) -> ItemSet:
    """Items of a set, in the order of its list.

    Raises:
        UsageError: a line is wrong.
        MissingDataError: the list is not there, or is empty.
    """
    table = first_file(root, LISTS) or root / LISTS[0]
    places = _places(root / "evaluation_setup" / "map.txt")
    item_of = partial(_item, audio=AudioFolder(root / "audio"), places=places)
    return official_set(items_of(read_table(table, _columns(table), TABS), item_of), N_CLIPS[split], root, table)


def _columns(table: Path) -> tuple[str, ...]:
    """The list's columns; whether it has the third shows in its first line."""
    return ("file", "scene", "place") if first_line(table).count("\t") == 2 else ("file", "scene")


def _places(path: Path) -> dict[str, str]:
    """Place of recording by file, from the names that the evaluation clips had before they were numbered.

    "audio/1.wav" was "b020_90_100.wav", of place b020. Empty where the file is not there.
    """
    if not path.is_file():
        return {}
    rows = read_table(path, ("file", "original"), TABS)
    return {row["file"]: PurePosixPath(row["original"]).name.split("_")[0] for row in rows}


def _item(row: Row, audio: AudioFolder, places: Mapping[str, str]) -> AudioItem:
    name = plain_file_name(row, "file", parent="audio")
    scene = row["scene"].replace(" ", "_")
    scene = OTHER_SPELLINGS.get(scene, scene)
    if scene not in SCENES:
        raise row.error(f"scene is '{row['scene']}', expected one of {len(SCENES)} names.")
    stem = Path(name).stem
    place = row.values.get("place") or places.get(row["file"]) or stem
    return file_item(stem, audio.path_of(name), (scene,), place)
