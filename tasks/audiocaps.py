"""AudioCaps 1.0: 10 s of AudioSet with captions, five each in the test split. Kim et al. 2019. For academic use.

Official layout: `dataset/{test,val,train}.csv`, one line a caption:

    audiocap_id,youtube_id,start_time,caption
    103549,7fmOlUlwoNg,20,Constant rattling noise and sharp vibrations

The audio is fetched from YouTube by whoever uses the set; recent copies have fewer than 900 of the 975 test clips.
What is missing is still asked, and counts as failed. It is looked for in `audio/` under id and start, or the id alone.

Release 2.0 of 2025 has the same ids and other captions, so that scores on it are other scores. Its files are refused:
they are told by captions that begin in lower case (nearly all there, none in the test and validation lists of 1.0).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from harness.contracts import AudioItem, ItemSet, RemoteFile, Task
from harness.errors import UsageError
from tasks._audio_files import AudioLibrary, find_root, first_file, first_line
from tasks._captions import DIRECT_PROMPT, METRICS, asked_often, check_captions
from tasks._items import check_option, file_item, official_set
from tasks._prompts import LTU_AUDIOCAPS
from tasks._tables import Row, read_table

Split = Literal["test", "val", "train"]

N_CLIPS = {"test": 975, "val": 495, "train": 49_838}
N_CAPTIONS_OF_CLIP = {"test": 5, "val": 5, "train": 1}
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
USUAL_FOLDERS = ("AudioCaps", "audiocaps", "audiocaps-master")
PROMPTS = {"describe": DIRECT_PROMPT, "ltu": LTU_AUDIOCAPS}
SAMPLE_ROWS = (
    "audiocap_id,youtube_id,start_time,caption",
    "103549,7fmOlUlwoNg,20,Constant rattling noise and sharp vibrations",
    "103548,6BJ455B1aAs,0,"
    "A rocket flies by followed by a loud explosion and fire crackling as a truck engine runs idle",
)
_GITHUB = "https://raw.githubusercontent.com/cdjkim/audiocaps/master/dataset"
_REMOTE_LISTS = {
    "test": ("b91c4b7ded2f4f6e7db5b9c4983dc1e1dca3d556f505b61e3fd65cac7e1c638a", 402_246),
    "val": ("dab1c96641d5f3053ddb99dca3949450da9a75737bda53e11cc0aa8b102be0c3", 171_918),
    "train": (None, None),
}
_VIDEO = re.compile(r"[\w-]{11}")
_CLIP_S = 10


def audiocaps(split: Split = "test", captions: int = 1) -> Task:
    """Describe a 10 s YouTube clip in a sentence.

    Args:
        split: published scores are those of "test".
        captions: how many are asked for of each clip. LTU samples five and takes the mean of their scores.

    Raises:
        OptionError: there is no such split, or no caption is asked for.
    """
    check_option("audiocaps", "split", split, N_CLIPS)
    check_captions("audiocaps", captions)
    sha256, n_bytes = _REMOTE_LISTS[split]
    return Task(
        name="audiocaps",
        version=1,
        kind="captioning",
        summary="Describe a 10 s YouTube clip in a sentence.",
        labels=(),
        prompts=PROMPTS,
        metrics=METRICS,
        citation="C. D. Kim, B. Kim, H. Lee, G. Kim. AudioCaps: Generating Captions for Audios in The Wild. "
        "NAACL-HLT, 2019.",
        licence="academic use only (captions); audio: YouTube's, from AudioSet",
        homepage="https://github.com/cdjkim/audiocaps",
        download=f"dataset/{split}.csv (not dataset2.0) from https://github.com/cdjkim/audiocaps; audio from YouTube, "
        "10 s from start_time, beside dataset/ as audio/<youtube_id>_<start_time>.wav, in a folder audiocaps of the "
        "data root",
        sample_rows=SAMPLE_ROWS,
        find=partial(
            find_root,
            task="audiocaps",
            usual_names=USUAL_FOLDERS,
            is_root=partial(_is_root, split=split),
        ),
        read_items=partial(_read, split=split, captions=captions),
        remote_files=(RemoteFile(f"{_GITHUB}/{split}.csv", "dataset", sha256, n_bytes),),
        published_counts={"clips": N_CLIPS[split], "captions": N_CLIPS[split] * N_CAPTIONS_OF_CLIP[split]},
    )


def _tables(split: str) -> tuple[str, ...]:
    return f"dataset/{split}.csv", f"{split}.csv"


def _is_root(folder: Path, split: str) -> bool:
    """A list on its own is known by its header, because other sets have a file of that name too."""
    official, bare = (folder / table for table in _tables(split))
    return official.is_file() or first_line(bare) == ",".join(COLUMNS)


def _read(root: Path, split: str, captions: int) -> ItemSet:
    """Items of a split, in the order of each clip's first caption.

    Raises:
        UsageError: a line is wrong, or the list is one of AudioCaps 2.0.
        MissingDataError: the list is not there, or is empty.
    """
    table = first_file(root, _tables(split)) or root / _tables(split)[0]
    clips: dict[tuple[str, str], list[Row]] = {}
    for row in read_table(table, COLUMNS):
        clips.setdefault((row["youtube_id"], row["start_time"]), []).append(_checked(row))
    _refuse_version_2(table, clips.values(), split)
    audio = AudioLibrary(root, ("audio", f"audio/{split}", split))
    items = asked_often((_item(rows, audio) for rows in clips.values()), captions)
    return official_set(items, N_CLIPS[split] * captions, root, table)


def _checked(row: Row) -> Row:
    if not _VIDEO.fullmatch(row["youtube_id"]):
        raise row.error(f"youtube_id is '{row['youtube_id']}', expected the eleven letters of a YouTube id.")
    if not row["start_time"].isdecimal():
        raise row.error(f"start_time is '{row['start_time']}', expected whole seconds.")
    if not any(map(str.isalnum, row["caption"])):
        raise row.error("the caption is empty, or has no word.")
    return row


def _refuse_version_2(table: Path, clips: Collection[Sequence[Row]], split: str) -> None:
    """Raise when the list is one of release 2.0, or no list of release 1.0."""
    captions = [row["caption"].lstrip() for rows in clips for row in rows]
    n_lower = sum(caption[0].islower() for caption in captions)
    advice = f"Use dataset/{split}.csv of https://github.com/cdjkim/audiocaps, not dataset2.0."
    if 2 * n_lower > len(captions):
        raise UsageError(
            f"{table} is a list of AudioCaps 2.0: its captions begin in lower case. Scores on it are not those of "
            f"AudioCaps 1.0, which papers report. {advice}"
        )
    wanted = N_CAPTIONS_OF_CLIP[split]
    odd = next((rows for rows in clips if len(rows) != wanted), None)
    if odd is not None:
        problem = f"the clip '{odd[0]['youtube_id']}' has {len(odd)} captions, in AudioCaps 1.0 {wanted}."
        raise odd[0].error(f"{problem} {advice}")


def _item(rows: Sequence[Row], audio: AudioLibrary) -> AudioItem:
    video, start = rows[0]["youtube_id"], rows[0]["start_time"]
    end = int(start) + _CLIP_S
    endings = (f"_{start}", f"_{start}_{end}", f"_{start}.000_{end}.000", "")
    path = audio.path_of([f"{letter}{video}{ending}" for ending in endings for letter in ("", "Y")])
    captions = [row["caption"] for row in rows]
    return file_item(f"{video}_{start}", path, captions, video, {"start_s": int(start)})
