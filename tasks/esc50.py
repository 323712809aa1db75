"""ESC-50: 2000 clips of 5 s, 50 everyday sounds, five folds. Piczak 2015. Licence CC BY-NC 3.0.

Official layout: `meta/esc50.csv` beside `audio/`. One line a clip; clips of one `src_file` are cut from one recording:

    filename,fold,target,category,esc10,src_file,take
    1-100032-A-0.wav,1,0,dog,True,100032,A

All 2000 clips are asked, as LTU does with a model that never heard the set; `fold` asks one fold.

Without the official set the starter set is read: free recordings labelled with ESC-50's class names, but no clip of
ESC-50 (see starter/esc50/README.md). It has a split into test and train instead of folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from harness.contracts import AudioItem, ItemSet, RemoteFile, Task
from harness.errors import MissingDataError, OptionError, UsageError
from tasks._audio_files import AudioFolder, find_root, has_one_of
from tasks._items import items_of
from tasks._labels import labels_from_names
from tasks._tables import Row, plain_file_name, read_table

# In the order of the official `target` column.
CATEGORIES = (
    "dog rooster pig cow frog cat hen insects sheep crow "
    "rain sea_waves crackling_fire crickets chirping_birds water_drops wind pouring_water toilet_flush thunderstorm "
    "crying_baby sneezing clapping breathing coughing footsteps laughing brushing_teeth snoring drinking_sipping "
    "door_wood_knock mouse_click keyboard_typing door_wood_creaks can_opening washing_machine vacuum_cleaner "
    "clock_alarm clock_tick glass_breaking "
    "helicopter chainsaw siren car_horn engine train church_bells airplane fireworks hand_saw"
).split()
FOLDS = ("1", "2", "3", "4", "5")
SPLITS = ("test", "train")
COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
STARTER_COLUMNS = (
    "file,label,split,source_id,duration_s,sample_rate_hz,package,version,path_in_package,licence_spdx,credit,"
    "yamnet_top3,start_s,licence_scope,yamnet_matched"
).split(",")
N_CLIPS = 2000
N_CLIPS_OF_FOLD = 400
N_CLIPS_OF_CLASS = 40
N_STARTER_CLIPS = {"test": 193, "train": 69}
METADATA = "meta/esc50.csv"
USUAL_FOLDERS = ("ESC-50-master", "ESC-50", "esc50", "esc-50")
PROMPTS = {
    "classify": "Classify the sound event in the audio clip.",
    # LTU, src/ltu/inference_batch.py: one prompt for all of its classification sets.
    "ltu": "Close-ended question: Write an audio caption describing the sound.",
}
SAMPLE_ROWS = (
    "filename,fold,target,category,esc10,src_file,take",
    "1-100032-A-0.wav,1,0,dog,True,100032,A",
    "1-100038-A-14.wav,1,14,chirping_birds,False,100038,A",
    "1-100210-A-36.wav,1,36,vacuum_cleaner,False,100210,A",
)


def esc50(fold: int | None = None, split: Literal["test", "train"] = "test") -> Task:
    """Name the sound of a 5 s clip among 50 classes.

    Args:
        fold: 1 to 5 for one official fold; None for all 2000 clips.
        split: of the starter set, which has no folds.

    Raises:
        OptionError: there is no such fold or split.
    """
    if fold is not None and str(fold) not in FOLDS:
        raise OptionError(f"esc50 has the folds 1 to 5, not {fold}.")
    if split not in SPLITS:
        raise OptionError(f"esc50's starter set has the splits test and train, not '{split}'.")
    return Task(
        name="esc50",
        version=1,
        kind="classification",
        summary="Name the sound of a 5 s clip among 50 classes.",
        labels=labels_from_names(CATEGORIES),
        prompts=PROMPTS,
        metrics=("accuracy",),
        citation="K. J. Piczak. ESC: Dataset for Environmental Sound Classification. ACM Multimedia, 2015.",
        licence="CC BY-NC 3.0 (the ESC-10 subset: CC BY)",
        homepage="https://github.com/karolpiczak/ESC-50",
        download="https://github.com/karolpiczak/ESC-50/archive/master.zip (about 600 MB); unpack it in the data root, "
        "so that ESC-50-master/meta/esc50.csv and ESC-50-master/audio/ lie there",
        sample_rows=SAMPLE_ROWS,
        find=partial(
            find_root, task="esc50", usual_names=USUAL_FOLDERS, is_root=lambda root: has_one_of(root, [METADATA])
        ),
        read_items=partial(_read_official, fold=fold, split=split),
        starter_root=Path(__file__).parent / "starter" / "esc50",
        read_starter=partial(_read_starter, fold=fold, split=split),
        remote_files=(RemoteFile("https://github.com/karolpiczak/ESC-50/archive/master.zip", unpack=True),),
        published_counts=_published_counts(fold),
    )


def _published_counts(fold: int | None) -> dict[str, int]:
    """ESC-50's README: every class has 40 clips, 8 in each fold; 44.1 kHz, mono."""
    n_of_class = N_CLIPS_OF_CLASS if fold is None else N_CLIPS_OF_CLASS // len(FOLDS)
    return {
        "clips": n_of_class * len(CATEGORIES),
        "labels": len(CATEGORIES),
        **dict.fromkeys(CATEGORIES, n_of_class),
        "sample_rate_hz": 44_100,
        "channels": 1,
    }


def _read_official(root: Path, fold: int | None, split: str) -> ItemSet:
    """Items of the official set under `root`, in the order of its table.

    Raises:
        UsageError: a split was asked for, a line of the table is wrong, or it has no clip of the fold.
        MissingDataError: the table is not there, or lists no clip.
    """
    if split != "test":
        raise UsageError("The official ESC-50 has folds, no split: ask for one with fold=1 to fold=5.")
    audio = AudioFolder(root / "audio")
    items = _items(root / METADATA, COLUMNS, partial(_official_item, audio=audio))
    if fold is not None:
        items = [item for item in items if item.metadata["fold"] == fold]
        if not items:
            raise UsageError(f"{root / METADATA} has no clip of fold {fold}.")
    return ItemSet(tuple(items), "official", N_CLIPS if fold is None else N_CLIPS_OF_FOLD, root)


def _official_item(row: Row, audio: AudioFolder) -> AudioItem:
    from harness.audio import FileSource

    name = plain_file_name(row, "filename")
    category = row.choice("category", CATEGORIES)
    target = CATEGORIES.index(category)
    if row["target"] != str(target):
        raise row.error(f"target is '{row['target']}', but '{category}' is class {target}.")
    return AudioItem(
        item_id=Path(name).stem,
        source=FileSource(audio.path_of(name)),
        references=(category,),
        cluster=row["src_file"],
        metadata={
            "fold": int(row.choice("fold", FOLDS)),
            "esc10": row.choice("esc10", ("True", "False")) == "True",
            "target": target,
            "take": row["take"],
        },
    )


def _read_starter(root: Path, fold: int | None, split: str) -> ItemSet:
    """Items of one split of the starter set, in the order of its manifest.

    Raises:
        UsageError: a fold was asked for, or a line of the manifest is wrong.
        MissingDataError: the manifest is not there.
    """
    if fold is not None:
        raise UsageError(
            "The starter set of esc50 has no folds: leave out fold=, or put the official ESC-50 in place "
            "(see --data-root)."
        )
    audio = AudioFolder(root / "audio")
    items = _items(root / "manifest.csv", STARTER_COLUMNS, partial(_starter_item, audio=audio))
    chosen = tuple(item for item in items if item.metadata["split"] == split)
    return ItemSet(chosen, "starter", N_STARTER_CLIPS[split], root)


def _starter_item(row: Row, audio: AudioFolder) -> AudioItem:
    from harness.audio import FileSource

    name = plain_file_name(row, "file", parent="audio")
    label = row.choice("label", CATEGORIES)
    return AudioItem(
        item_id=Path(name).stem,
        source=FileSource(audio.path_of(name)),
        references=(label,),
        cluster=row["source_id"],
        metadata={
            "split": row.choice("split", SPLITS),
            "target": CATEGORIES.index(label),
            "package": row["package"],
            "licence": row["licence_spdx"],
        },
    )


def _items(table: Path, columns: Sequence[str], item_of: Callable[[Row], AudioItem]) -> list[AudioItem]:
    """One item a line.

    Raises:
        UsageError: a line is wrong, or names a clip for the second time.
        MissingDataError: there is no line.
    """
    items = items_of(read_table(table, columns), item_of)
    if not items:
        raise MissingDataError(f"{table} lists no clip.")
    return items
