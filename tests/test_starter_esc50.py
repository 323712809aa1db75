"""The starter set of esc50: complete, unchanged, licensed, and read as it is described."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest

from harness.contracts import ItemSet
from harness.errors import UsageError
from tasks.esc50 import esc50

STARTER = Path(__file__).resolve().parents[1] / "tasks" / "starter" / "esc50"


def read(split: str = "test") -> ItemSet:
    task = esc50(split=split)  # type: ignore[arg-type]
    assert task.read_starter is not None and task.starter_root is not None
    return task.read_starter(task.starter_root)


def manifest() -> list[dict[str, str]]:
    with (STARTER / "manifest.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_every_file_has_its_checksum() -> None:
    lines = (STARTER / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    expected = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    found = {
        path.relative_to(STARTER).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in STARTER.rglob("*")
        if path.is_file() and path.name != "SHA256SUMS"
    }
    assert found == expected


@pytest.mark.parametrize(("split", "n_clips"), [("test", 193), ("train", 69)])
def test_a_split_has_the_declared_number_of_clips(split: str, n_clips: int) -> None:
    found = read(split)
    assert (len(found.items), found.n_declared, found.origin) == (n_clips, n_clips, "starter")


def test_no_source_recording_is_in_both_splits() -> None:
    clusters = [{item.cluster for item in read(split).items} for split in ("test", "train")]
    assert clusters[0].isdisjoint(clusters[1])


def test_an_item_carries_what_its_line_says() -> None:
    item = read().items[0]
    assert item.item_id == "airplane__gigalomania-data__jetplane"
    assert (item.references, item.cluster) == (("airplane",), "gigalomania_jetplane")
    assert item.metadata["licence"] == "CC0-1.0"


def test_every_clip_is_heard_and_as_long_as_the_manifest_says() -> None:
    lengths = {Path(row["file"]).stem: float(row["duration_s"]) for row in manifest()}
    items = [item for split in ("test", "train") for item in read(split).items]
    wrong = [item.item_id for item in items if abs(item.source.load(16_000).duration_s - lengths[item.item_id]) > 1e-3]
    assert wrong == []


def test_every_package_and_licence_of_the_manifest_is_explained() -> None:
    explained = (STARTER / "LICENCES.md").read_text(encoding="utf-8")
    assert {row["package"] for row in manifest() if row["package"] not in explained} == set()


def test_the_starter_set_has_no_folds() -> None:
    task = esc50(fold=1)
    assert task.read_starter is not None
    with pytest.raises(UsageError, match="no folds"):
        task.read_starter(STARTER)
