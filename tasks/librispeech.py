"""LibriSpeech: sentences read from audiobooks, to be written down. Panayotov et al. 2015. CC BY 4.0.

Official layout: `LibriSpeech/<split>/<speaker>/<chapter>/`, FLAC files beside one transcript a chapter:

    1089-134686-0000 HE HOPED THERE WOULD BE STEW FOR DINNER TURNIPS AND CARROTS AND ...

Transcripts are capitals without punctuation; how answers are normalised before they are compared, the metric says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from harness.contracts import AudioItem, ItemSet, RemoteFile, Task
from harness.errors import UsageError
from tasks._audio_files import AudioFolder, find_root
from tasks._items import check_option, file_item, items_of, official_set
from tasks._prompts import LTU_AS_SPEECH
from tasks._tables import Row

Split = Literal["test-clean", "test-other", "dev-clean", "dev-other"]

N_UTTERANCES = {"test-clean": 2620, "test-other": 2939, "dev-clean": 2703, "dev-other": 2864}
N_SPEAKERS = {"test-clean": 40, "test-other": 33, "dev-clean": 40, "dev-other": 33}
USUAL_FOLDERS = ("LibriSpeech", "librispeech")
PROMPTS = {"transcribe": "Write down what is said in the audio clip.", "ltu_as": LTU_AS_SPEECH}
SAMPLE_ROWS = (
    "1089-134686-0000 HE HOPED THERE WOULD BE STEW FOR DINNER TURNIPS AND CARROTS AND BRUISED POTATOES AND FAT MUTTON "
    "PIECES TO BE LADLED OUT IN THICK PEPPERED FLOUR FATTENED SAUCE",
    "1089-134686-0001 STUFF IT INTO YOU HIS BELLY COUNSELLED HIM",
)
_OPENSLR = "https://www.openslr.org/resources/12"
# SHA-256 and size, as torchaudio and TensorFlow Datasets check them.
_ARCHIVES: dict[str, tuple[str | None, int | None]] = {
    "test-clean": ("39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23", 346_663_984),
    "test-other": ("d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29", 328_757_843),
    "dev-clean": ("76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3", None),
    "dev-other": ("12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365", None),
}
_UTTERANCE = re.compile(r"(?P<speaker>\d+)-(?P<chapter>\d+)-\d{4}")


def librispeech(split: Split = "test-clean") -> Task:
    """Write down a sentence that is read aloud.

    Args:
        split: published scores are those of "test-clean" and "test-other".

    Raises:
        OptionError: there is no such split.
    """
    check_option("librispeech", "split", split, N_UTTERANCES)
    return Task(
        name="librispeech",
        version=1,
        kind="transcription",
        summary="Write down a sentence that is read aloud.",
        labels=(),
        prompts=PROMPTS,
        metrics=("wer",),
        citation="V. Panayotov, G. Chen, D. Povey, S. Khudanpur. Librispeech: An ASR Corpus Based on Public Domain "
        "Audio Books. ICASSP, 2015.",
        licence="CC BY 4.0",
        homepage="https://www.openslr.org/12",
        download=f"{_OPENSLR}/{split}.tar.gz (about 350 MB); unpack it in the data root, so that LibriSpeech/{split}/ "
        "lies there",
        sample_rows=SAMPLE_ROWS,
        find=partial(
            find_root, task="librispeech", usual_names=USUAL_FOLDERS, is_root=partial(_has_split, split=split)
        ),
        read_items=partial(_read, split=split),
        remote_files=(RemoteFile(f"{_OPENSLR}/{split}.tar.gz", ".", *_ARCHIVES[split], True),),
        published_counts={"clips": N_UTTERANCES[split], "speakers": N_SPEAKERS[split], "sample_rate_hz": 16_000},
    )


def _has_split(root: Path, split: str) -> bool:
    return next(_transcripts(root / split), None) is not None


def _transcripts(folder: Path) -> Iterator[Path]:
    """Transcript files of a split, one a chapter."""
    return folder.glob("*/*/*.trans.txt")


def _read(root: Path, split: str) -> ItemSet:
    """Items of a split, by speaker, chapter and number.

    Raises:
        UsageError: a line of a transcript is wrong.
        MissingDataError: there is no transcript.
    """
    folder = root / split
    rows = (row for path in sorted(_transcripts(folder)) for row in _rows(path))
    folders: dict[Path, AudioFolder] = {}
    items = items_of(rows, partial(_item, folders=folders))
    return official_set(items, N_UTTERANCES[split], root, folder)


def _rows(path: Path) -> Iterator[Row]:
    """Lines of one transcript.

    Raises:
        UsageError: it is no UTF-8 text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            utterance, _, text = line.strip().partition(" ")
            yield Row(path, number, {"utterance": utterance, "text": text.strip()})


def _item(row: Row, folders: dict[Path, AudioFolder]) -> AudioItem:
    match = _UTTERANCE.fullmatch(row["utterance"])
    folder = row.path.parent
    if match is None or (match["speaker"], match["chapter"]) != (folder.parent.name, folder.name):
        raise row.error(f"'{row['utterance']}' is no utterance of {folder.parent.name}/{folder.name}.")
    if not row["text"]:
        raise row.error(f"'{row['utterance']}' has no text.")
    audio = folders.setdefault(folder, AudioFolder(folder))
    path = audio.path_of(f"{row['utterance']}.flac")
    return file_item(row["utterance"], path, (row["text"],), match["speaker"], {"chapter": match["chapter"]})
