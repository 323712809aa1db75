"""JSON schemas of the rows and records that lie in files: one file a kind and version, in `harness/schema/`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

SCHEMA_FOLDER = Path(__file__).parent / "schema"


def texts_of(kinds: Mapping[str, type[BaseModel]], version: int) -> dict[str, str]:
    """File name to content.

    Args:
        kinds: the file's name, without version and ending, to what it describes.
        version: of all of them.
    """
    return {
        f"{name}.v{version}.json": json.dumps(kind.model_json_schema(mode="serialization"), indent=1) + "\n"
        for name, kind in kinds.items()
    }


def write_texts(texts: Mapping[str, str]) -> None:
    """Write schema files anew."""
    for name, text in texts.items():
        (SCHEMA_FOLDER / name).write_text(text, encoding="utf-8")
