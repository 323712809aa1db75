"""`esc50`: the official layout, its strict table, and the options."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from harness.contracts import ItemSet
from harness.errors import AudioError, MissingDataError, OptionError, UsageError
from tasks.esc50 import CATEGORIES, COLUMNS, SAMPLE_ROWS, esc50

HEADER = ",".join(COLUMNS)
ROWS = ("1-100-A-0.wav,1,0,dog,True,100,A", "2-100-B-0.wav,2,0,dog,True,100,B", "5-7-A-49.wav,5,49,hand_saw,False,7,A")


def write_set(root: Path, *rows: str, header: str = HEADER) -> Path:
    """An official layout with that table and no audio."""
    (root / "meta").mkdir(parents=True)
    (root / "audio").mkdir()
    (root / "meta" / "esc50.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return root


def write_clip(path: Path) -> None:
    soundfile.write(path, np.full(800, 0.25, dtype=np.float32), 16_000)


def read(root: Path, fold: int | None = None) -> ItemSet:
    return esc50(fold=fold).read_items(root)


def test_the_labels_are_those_of_ltu_in_the_official_order(shared_data: Path) -> None:
    with (shared_data / "labels" / "ltu_esc_class_labels_indices.csv").open(newline="", encoding="utf-8") as lines:
        published = [row["display_name"] for row in csv.DictReader(lines)]
    assert [label.name for label in esc50().labels] == published


def test_there_are_fifty_different_labels() -> None:
    assert len(set(CATEGORIES)) == len(CATEGORIES) == 50


def test_a_label_reads_as_lower_case_words() -> None:
    assert esc50().labels[30].text == "door wood knock"


def test_the_real_part_of_esc50_is_read(shared_data: Path) -> None:
    task = esc50()
    root = task.find(shared_data / "esc50_folds1-4")
    assert root is not None
    found = task.read_items(root)
    assert (len(found.items), found.n_declared, found.origin) == (318, 2000, "official")
    assert len({item.references[0] for item in found.items}) == 10


def test_a_real_clip_is_heard(shared_data: Path) -> None:
    item = esc50().read_items(shared_data / "esc50_folds1-4").items[0]
    assert item.item_id == "1-100032-A-0"
    assert item.source.load(16_000).duration_s == pytest.approx(5.0, abs=0.01)


@pytest.mark.parametrize("name", ["", "ESC-50-master", "ESC-50", "esc50", "esc-50"])
def test_the_set_is_found_in_the_folder_or_below_it_by_its_usual_names(tmp_path: Path, name: str) -> None:
    root = write_set(tmp_path / name if name else tmp_path, *ROWS)
    assert esc50().find(tmp_path) == root


def test_nothing_is_found_in_an_empty_folder(tmp_path: Path) -> None:
    assert esc50().find(tmp_path) is None


def test_the_sample_rows_can_be_read(tmp_path: Path) -> None:
    found = read(write_set(tmp_path, *SAMPLE_ROWS[1:], header=SAMPLE_ROWS[0]))
    assert [item.references for item in found.items] == [("dog",), ("chirping_birds",), ("vacuum_cleaner",)]


def test_an_item_carries_what_its_line_says(tmp_path: Path) -> None:
    item = read(write_set(tmp_path, *ROWS)).items[1]
    assert (item.item_id, item.references, item.cluster) == ("2-100-B-0", ("dog",), "100")
    assert item.metadata == {"fold": 2, "esc10": True, "target": 0, "take": "B"}


def test_a_fold_is_one_fifth_of_the_set(tmp_path: Path) -> None:
    found = read(write_set(tmp_path, *ROWS), fold=5)
    assert ([item.item_id for item in found.items], found.n_declared) == (["5-7-A-49"], 400)


def test_a_fold_without_a_clip_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="esc50.csv has no clip of fold 4"):
        read(write_set(tmp_path, *ROWS), fold=4)


def test_a_table_of_a_header_alone_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="esc50.csv lists no clip"):
        read(write_set(tmp_path))


def test_a_clip_without_a_file_is_an_item_that_fails_when_heard(tmp_path: Path) -> None:
    items = read(write_set(tmp_path, *ROWS)).items
    assert len(items) == 3
    with pytest.raises(AudioError):
        items[0].source.load(16_000)


def test_a_recoded_clip_is_found_under_its_other_extension(tmp_path: Path) -> None:
    root = write_set(tmp_path, *ROWS)
    write_clip(root / "audio" / "1-100-A-0.flac")
    assert len(read(root).items[0].source.load(16_000).samples) == 800


def test_the_named_file_is_preferred_to_a_recoded_one(tmp_path: Path) -> None:
    root = write_set(tmp_path, *ROWS)
    write_clip(root / "audio" / "1-100-A-0.wav")
    (root / "audio" / "1-100-A-0.flac").write_bytes(b"not audio")
    assert len(read(root).items[0].source.load(16_000).samples) == 800


def test_two_recoded_clips_are_not_chosen_between(tmp_path: Path) -> None:
    root = write_set(tmp_path, *ROWS)
    write_clip(root / "audio" / "1-100-A-0.flac")
    write_clip(root / "audio" / "1-100-A-0.ogg")
    with pytest.raises(AudioError):
        read(root).items[0].source.load(16_000)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1-8-A-0.wav,1,1,dog,True,8,A", "line 3: target is '1', but 'dog' is class 0"),
        ("1-8-A-0.wav,1,0,dogs,True,8,A", "line 3: category is 'dogs'"),
        ("1-8-A-0.wav,6,0,dog,True,8,A", "line 3: fold is '6'"),
        ("1-8-A-0.wav,1,0,dog,yes,8,A", "line 3: esc10 is 'yes'"),
        ("1-8-A-0.wav,1,0,dog,True,,A", "line 3: the source recording is empty"),
        ("../1-8-A-0.wav,1,0,dog,True,8,A", "line 3: filename is"),
        (",1,0,dog,True,8,A", "line 3: filename is"),
        ("1-8-A-0.wav,1,0,dog,True,8", "line 3: 6 fields, expected 7"),
        ("1-100-A-0.wav,1,0,dog,True,100,A", "line 3: '1-100-A-0' is named a second time, first in line 2"),
        ("1-100-A-0.ogg,1,0,dog,True,100,A", "line 3: '1-100-A-0' is named a second time"),
        ('1-8-A-0.wav,1,0,"dog"x,True,8,A', "line 3"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(write_set(tmp_path, ROWS[0], row))


def test_a_wrong_line_of_another_fold_is_named_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 3"):
        read(write_set(tmp_path, ROWS[0], "2-8-A-0.wav,2,3,dog,True,8,A"), fold=1)


def test_another_header_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 1: the header is 'filename,category'"):
        read(write_set(tmp_path, "1-8-A-0.wav,dog", header="filename,category"))


def test_a_table_that_is_not_text_is_named(tmp_path: Path) -> None:
    root = write_set(tmp_path)
    (root / "meta" / "esc50.csv").write_bytes(b"\xff\xfe\x00f")
    with pytest.raises(UsageError, match="not UTF-8"):
        read(root)


def test_a_missing_table_is_missing_data(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="esc50.csv"):
        read(tmp_path)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    root = write_set(tmp_path)
    (root / "meta" / "esc50.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([HEADER, *ROWS, "", ""]).encode())
    assert len(read(root).items) == 3


@pytest.mark.parametrize("fold", [0, 6, -1])
def test_a_fold_that_does_not_exist_is_refused(fold: int) -> None:
    with pytest.raises(OptionError, match="folds 1 to 5"):
        esc50(fold=fold)


def test_a_split_that_does_not_exist_is_refused() -> None:
    with pytest.raises(OptionError, match="not 'val'"):
        esc50(split="val")  # type: ignore[arg-type]


def test_the_official_set_has_no_split(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folds, no split"):
        esc50(split="train").read_items(write_set(tmp_path, *ROWS))


def test_the_first_prompt_asks_for_a_class_and_the_other_is_ltus() -> None:
    assert list(esc50().prompts) == ["classify", "ltu"]
    assert esc50().prompts["ltu"] == "Close-ended question: Write an audio caption describing the sound."
