"""A task for tests: whatever files lie in a folder, all of one class."""

from __future__ import annotations

from pathlib import Path

from harness.audio import FileSource
from harness.contracts import AudioItem, ItemSet, Label, Task


def any_folder(folder: Path) -> Task:
    """Every name in `folder` is an item, and so is "missing.wav"."""
    return Task(
        name="any_folder",
        version=1,
        kind="classification",
        summary="Files for tests",
        labels=(Label("sound", "sound"), Label("noise", "noise")),
        prompts={"classify": "What is it?"},
        metrics=("accuracy",),
        citation="none",
        licence="none needed",
        homepage="https://example.org",
        download="it is made by the test.",
        sample_rows=("one.wav",),
        find=lambda root: None,
        read_items=_read,
        starter_root=folder,
        read_starter=_read,
    )


def _read(root: Path) -> ItemSet:
    names = sorted({path.name for path in root.iterdir()} | {"missing.wav"})
    items = tuple(AudioItem(name, FileSource(root / name), ("sound",), cluster=name) for name in names)
    return ItemSet(items, "starter", len(items), root)
