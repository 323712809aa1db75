"""The figures of the results as images inside the page, with the words that lie beside them in their sidecars."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import RecordError


@dataclass(frozen=True)
class Figure:
    """An SVG file as the address of an image: nothing in it can run, or load anything."""

    title: str
    notes: tuple[str, ...]
    address: str


def find_figures(results: Path) -> list[Figure]:
    """Every SVG file below a folder `figures`, by path.

    The title and the notes are those of `<name>.json` beside it; without one, the title is the file's path.

    Raises:
        RecordError: a figure cannot be read, or its sidecar is damaged.
    """
    return [_figure(path, results) for path in sorted(results.glob("**/figures/**/*.svg")) if path.is_file()]


def _figure(path: Path, results: Path) -> Figure:
    facts = _sidecar(path.with_suffix(".json"))
    title = facts.get("title") or path.relative_to(results).with_suffix("").as_posix()
    address = "data:image/svg+xml;base64," + base64.b64encode(_bytes(path)).decode()
    return Figure(str(title), tuple(map(str, facts.get("notes", ()))), address)


def _sidecar(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        facts = json.loads(_bytes(path))
    except ValueError as error:
        raise RecordError(f"{path} is not JSON: {error}. Remove it, and write the report again.") from error
    return facts if isinstance(facts, dict) else {}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}.") from error
