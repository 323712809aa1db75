"""FSD50K: sounds of Freesound, 200 classes, several at once. Fonseca et al. 2022. CC BY 4.0, each clip its own.

Official layout: `FSD50K.ground_truth/{dev,eval}.csv` beside `FSD50K.{dev,eval}_audio/`. Labels are separated by commas,
so a comma inside a name is written "_and_" ("Accelerating_and_revving_and_vroom"); the development list has the split
as a fourth column:

    fname,labels,mids
    37199,"Electric_guitar,Guitar,Plucked_string_instrument,Musical_instrument,Music","/m/02sgy,/m/0342h,..."

Labels are complete in the evaluation set and propagated up the ontology. Clips last 0.3 to 30 s: a model that cuts at
10.24 s misses a part of them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from harness.contracts import AudioItem, ItemSet, RemoteFile, Task
from tasks._audio_files import AudioFolder, find_root, has_one_of
from tasks._items import check_option, file_item, items_of, official_set
from tasks._labels import shipped_labels
from tasks._prompts import LTU_CLASSIFICATION
from tasks._tables import Row, read_table

Split = Literal["eval", "train", "val"]

N_CLIPS = {"eval": 10_231, "train": 36_796, "val": 4170}
N_EVAL_POSITIVES = 38_596
N_CLASSES = 200
COLUMNS = ("fname", "labels", "mids")
USUAL_FOLDERS = ("FSD50K", "fsd50k")
PROMPTS = {"classify": "Which sound events are in the audio clip?", "ltu": LTU_CLASSIFICATION}
SAMPLE_ROWS = (
    "fname,labels,mids",
    '37199,"Electric_guitar,Guitar,Plucked_string_instrument,Musical_instrument,Music",'
    '"/m/02sgy,/m/0342h,/m/0fx80y,/m/04szw,/m/04rlf"',
)
_ZENODO = "https://zenodo.org/records/4060432/files/FSD50K"
# As Zenodo publishes them.
_MD5 = {
    "ground_truth.zip": "ca27382c195e37d2269c4c866dd73485",
    "eval_audio.z01": "3090670eaeecc013ca1ff84fe4442aeb",
    "eval_audio.zip": "6fa47636c3a3ad5c7dfeba99f2637982",
    "dev_audio.z01": "faa7cf4cc076fc34a44a479a5ed862a3",
    "dev_audio.z02": "8f9b66153e68571164fb1315d00bc7bc",
    "dev_audio.z03": "1196ef47d267a993d30fa98af54b7159",
    "dev_audio.z04": "d088ac4e11ba53daf9f7574c11cccac9",
    "dev_audio.z05": "81356521aa159accd3c35de22da28c7f",
    "dev_audio.zip": "c480d119b8f7a7e32fdb58f3ea4d6c5a",
}


def fsd50k(split: Split = "eval") -> Task:
    """Name all sounds of a Freesound clip, 200 classes.

    Args:
        split: published scores are those of "eval"; "train" and "val" are the parts of the development set.

    Raises:
        OptionError: there is no such split.
    """
    check_option("fsd50k", "split", split, N_CLIPS)
    return Task(
        name="fsd50k",
        version=1,
        kind="classification",
        summary="Name all sounds of a Freesound clip of up to 30 s, 200 classes.",
        labels=shipped_labels("fsd50k"),
        prompts=PROMPTS,
        metrics=("mean_ap",),
        citation="E. Fonseca, X. Favory, J. Pons, F. Font, X. Serra. FSD50K: An Open Dataset of Human-Labeled Sound "
        "Events. IEEE/ACM TASLP 30, 2022.",
        licence="CC BY 4.0; each clip CC0, CC BY, CC BY-NC or CC Sampling+ (FSD50K.metadata)",
        homepage="https://zenodo.org/records/4060432",
        download="https://zenodo.org/records/4060432: FSD50K.ground_truth.zip, and FSD50K.eval_audio.z01 and .zip, "
        "which are one archive in two parts (join them with `zip -s 0 FSD50K.eval_audio.zip --out joined.zip`); "
        "unpack both in a folder FSD50K of the data root",
        sample_rows=SAMPLE_ROWS,
        find=partial(
            find_root,
            task="fsd50k",
            usual_names=USUAL_FOLDERS,
            is_root=partial(has_one_of, markers=(_table(split),)),
        ),
        read_items=partial(_read, split=split),
        remote_files=_remote_files(split),
        published_counts={"clips": N_CLIPS[split], "labels": N_CLASSES, "sample_rate_hz": 44_100, "channels": 1}
        | ({"rows": N_EVAL_POSITIVES} if split == "eval" else {}),
    )


def _part(split: str) -> str:
    return "eval" if split == "eval" else "dev"


def _table(split: str) -> str:
    return f"FSD50K.ground_truth/{_part(split)}.csv"


def _remote_files(split: str) -> tuple[RemoteFile, ...]:
    """The list and the parts of the audio's archive, which is one ZIP file in several: none unpacks alone."""
    n_parts = {"eval": 1, "dev": 5}[_part(split)]
    names = [f"{_part(split)}_audio.z{number:02d}" for number in range(1, n_parts + 1)] + [f"{_part(split)}_audio.zip"]
    ground_truth = RemoteFile(f"{_ZENODO}.ground_truth.zip", ".", unpack=True, md5=_MD5["ground_truth.zip"])
    return (ground_truth, *(RemoteFile(f"{_ZENODO}.{name}", ".", md5=_MD5[name]) for name in names))


def _read(root: Path, split: str) -> ItemSet:
    """Items of a split, in the order of its list.

    Raises:
        UsageError: a line is wrong.
        MissingDataError: the list is not there, or is empty.
    """
    table = root / _table(split)
    columns = COLUMNS if split == "eval" else (*COLUMNS, "split")
    known = {label.name for label in shipped_labels("fsd50k")}
    item_of = partial(_item, audio=AudioFolder(root / f"FSD50K.{_part(split)}_audio"), known=known)
    wanted = (row for row in read_table(table, columns) if _is_of(row, split))
    return official_set(items_of(wanted, item_of), N_CLIPS[split], root, table)


def _is_of(row: Row, split: str) -> bool:
    return split == "eval" or row.choice("split", ("train", "val")) == split


def _item(row: Row, audio: AudioFolder, known: set[str]) -> AudioItem:
    name = row["fname"]
    if not name.isdecimal():
        raise row.error(f"fname is '{name}', expected the number of a Freesound clip.")
    labels = row["labels"].split(",")
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise row.error(f"labels has '{unknown[0]}', expected one of {len(known)} names such as Chicken_and_rooster.")
    if len(set(labels)) < len(labels):
        raise row.error(f"labels has a name twice: '{row['labels']}'.")
    return file_item(name, audio.path_of(f"{name}.wav"), labels, name, {"n_labels": len(labels)})
