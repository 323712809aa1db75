"""Speech Commands v0.02, 12-way: ten words, silence, and any other word. Warden 2018. CC BY 4.0.

Official layout of the test archive: a folder for each of the twelve classes:

    yes/0132a06d_nohash_1.wav   _silence_/...wav   _unknown_/...wav

That archive (4890 clips) is what published 12-way scores are of. The two lists of the main archive, `testing_list.txt`
and `validation_list.txt`, can be asked too: their words are mapped to the ten and `_unknown_`, and none is silence.

Without the official set the starter set is read: 240 generated words, no clip of Speech Commands and no silence among
them (see starter/speech_commands/README.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from harness.contracts import AudioItem, ItemSet, Label, RemoteFile, Task
from harness.errors import MissingDataError, UsageError
from tasks._audio_files import AudioFolder, audio_files_in, find_root
from tasks._items import check_option, file_item, items_of, official_set
from tasks._tables import Row, plain_file_name, read_table

Split = Literal["test", "testing_list", "validation_list"]

WORDS = "yes no up down left right on off stop go".split()
SILENCE = "_silence_"
UNKNOWN = "_unknown_"
CLASSES = (*WORDS, SILENCE, UNKNOWN)
LABELS = (*(Label(word, word) for word in WORDS), Label(SILENCE, "silence"), Label(UNKNOWN, "unknown"))
# Of v0.02; the lists of v0.01 have 6835 and 6798 lines, and are told by that.
N_CLIPS = {"test": 4890, "testing_list": 11_005, "validation_list": 9981}
N_CLIPS_V1 = {"testing_list": 6835, "validation_list": 6798}
N_STARTER_CLIPS = 240
STARTER_COLUMNS = ("file", "word", "label", "voice", "engine", "voice_name")
TEST_FOLDERS = ("speech_commands_test_set_v0.02", "speech_commands")
MAIN_FOLDERS = ("speech_commands_v0.02", "speech_commands_v0.01", "SpeechCommands/speech_commands_v0.02")
PROMPTS = {
    "classify": "Which word is said in the audio clip: yes, no, up, down, left, right, on, off, stop or go? "
    "Say unknown if it is another word, and silence if there is none.",
    "word": "Which word is said in the audio clip?",
}
# Of testing_list.txt.
SAMPLE_ROWS = ("right/a69b9b3e_nohash_0.wav", "cat/2aa787cf_nohash_0.wav")
_SPEAKER = re.compile(r"(?:^|_)(?P<speaker>[0-9a-f]{8})_nohash_\d+$")


def speech_commands(split: Split = "test") -> Task:
    """Name the word of a 1 s clip: one of ten, another, or none.

    Args:
        split: published scores are those of "test", the test archive; the others are lists of the main archive.

    Raises:
        OptionError: there is no such split.
    """
    check_option("speech_commands", "split", split, N_CLIPS)
    return Task(
        name="speech_commands",
        version=1,
        kind="classification",
        summary="Name the word of a 1 s clip: one of ten, another, or none.",
        labels=LABELS,
        prompts=PROMPTS,
        metrics=("accuracy",),
        citation="P. Warden. Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition. arXiv 1804.03209, "
        "2018.",
        licence="CC BY 4.0",
        homepage="https://arxiv.org/abs/1804.03209",
        download=f"{_archive(split)}; unpack it in a folder {_folders(split)[0]} of the data root",
        sample_rows=SAMPLE_ROWS,
        find=partial(
            find_root, task="speech_commands", usual_names=_folders(split), is_root=partial(_is_root, split=split)
        ),
        read_items=partial(_read_test if split == "test" else _read_list, split=split),
        starter_root=Path(__file__).parent / "starter" / "speech_commands",
        read_starter=partial(_read_starter, split=split),
        remote_files=(RemoteFile(_archive(split), _folders(split)[0], unpack=True),),
        published_counts={
            "clips": N_CLIPS[split],
            "labels": len(CLASSES) if split == "test" else len(CLASSES) - 1,
            "sample_rate_hz": 16_000,
        },
    )


def _archive(split: str) -> str:
    kind = "test_set_" if split == "test" else ""
    return f"https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_{kind}v0.02.tar.gz"


def _folders(split: str) -> tuple[str, ...]:
    return TEST_FOLDERS if split == "test" else MAIN_FOLDERS


def _is_root(folder: Path, split: str) -> bool:
    """The test archive has folders for its two special classes, the main archive has lists."""
    if split == "test":
        return all((folder / name).is_dir() for name in ("yes", UNKNOWN))
    return (folder / f"{split}.txt").is_file()


def _read_test(root: Path, split: str) -> ItemSet:
    """Items of the test archive, by class and file name.

    Raises:
        UsageError: a folder with audio is none of the twelve.
        MissingDataError: there is no clip.
    """
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if folder.name not in CLASSES and next(audio_files_in(folder), None) is not None:
            raise UsageError(f"{folder} is none of the twelve classes: this is not the test archive of v0.02.")
    items = [_clip(path, name) for name in CLASSES for path in audio_files_in(root / name)]
    return official_set(items, N_CLIPS[split], root, root)


def _clip(path: Path, label: str) -> AudioItem:
    """The item of a file; its folder is part of the id, because one file name is in several folders."""
    match = _SPEAKER.search(path.stem)
    item_id = f"{path.parent.name}/{path.stem}"
    return file_item(item_id, path, (label,), match["speaker"] if match else item_id, {"folder": path.parent.name})


def _read_list(root: Path, split: str) -> ItemSet:
    """Items of a list of the main archive, in its order; words other than the ten are `_unknown_`.

    Raises:
        UsageError: a line is wrong.
        MissingDataError: the list is not there, or is empty.
    """
    table = root / f"{split}.txt"
    folders: dict[str, AudioFolder] = {}
    items = items_of(_lines(table), partial(_listed_clip, root=root, folders=folders))
    is_v1 = len(items) == N_CLIPS_V1[split]
    return official_set(items, len(items) if is_v1 else N_CLIPS[split], root, table)


def _lines(table: Path) -> Iterator[Row]:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise MissingDataError(f"The list {table} is missing.") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            word, _, name = line.strip().partition("/")
            yield Row(table, number, {"word": word, "name": name})


def _listed_clip(row: Row, root: Path, folders: dict[str, AudioFolder]) -> AudioItem:
    word = plain_file_name(row, "word")
    if word.startswith("_"):
        raise row.error(f"'{word}' is no word.")
    folder = folders.setdefault(word, AudioFolder(root / word))
    return _clip(folder.path_of(plain_file_name(row, "name")), word if word in WORDS else UNKNOWN)


def _read_starter(root: Path, split: str) -> ItemSet:
    """Items of the starter set, in the order of its index.

    Raises:
        UsageError: a list of the main archive was asked for, or a line of the index is wrong.
        MissingDataError: the index is not there.
    """
    if split != "test":
        raise UsageError(
            f"The starter set of speech_commands has no {split}: leave out split=, or put the main archive of Speech "
            "Commands in place (see --data-root)."
        )
    items = items_of(read_table(root / "index.csv", STARTER_COLUMNS), partial(_starter_item, root=root))
    return ItemSet(tuple(items), "starter", N_STARTER_CLIPS, root)


def _starter_item(row: Row, root: Path) -> AudioItem:
    label = row.choice("label", CLASSES)
    word = row["word"]
    if label != (word if word in WORDS else UNKNOWN):
        raise row.error(f"label is '{label}', but the word is '{word}'.")
    path = root / word / plain_file_name(row, "file", parent=word)
    return file_item(f"{word}/{path.stem}", path, (label,), row["voice"], {"word": word, "engine": row["engine"]})
