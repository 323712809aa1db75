"""Files that weights come from: what a header tells, and hashes. Standard library only; no tensor is read."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.hashing import file_sha256

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
TOKENIZER_FILE = WEIGHTS_FOLDER / "tokenizer.json"
# A header names tensors and their places; a longer one than this is no header.
HEADER_LIMIT_BYTES = 100 * 2**20


@dataclass(frozen=True)
class WeightsFile:
    """A safetensors file and what its header tells without reading a tensor.

    `names` are the tensors it holds.
    """

    path: Path
    sha256: str
    parameters: Mapping[str, int]
    trained_on: str
    names: frozenset[str]


def read_weights_header(path: Path, model: str, tokenizer_sha256: str) -> WeightsFile:
    """Hash the file and read its metadata.

    Args:
        path: a safetensors file that `LalmAdapter.save` wrote.
        model: whose weights it must hold, such as "ssalm:tiny".
        tokenizer_sha256: of the tokenizer that the model uses.

    Raises:
        UsageError: no such file, not safetensors, or weights of another model.
    """
    try:
        header = json.loads(_header_of(path))
        metadata = header.get("__metadata__", {})
        made_for = f"{metadata['model']}:{metadata['variant']}"
        parameters = {str(part): int(count) for part, count in json.loads(metadata["parameters"]).items()}
        trained_with = str(metadata["tokenizer_sha256"])
        digest = file_sha256(path)
    except OSError as error:
        raise UsageError(f"The weights {path} cannot be read: {error.strerror}.") from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not a safetensors file of this harness: {_reason(error)}.") from error
    if made_for != model:
        raise UsageError(f"{path} holds weights of {made_for}, not of {model}.")
    if trained_with != tokenizer_sha256:
        raise UsageError(f"{path} was trained with another tokenizer than {model} has here.")
    names = frozenset(header) - {"__metadata__"}
    return WeightsFile(path, digest, parameters, str(metadata.get("trained_on", "")), names)


def _header_of(path: Path) -> bytes:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > HEADER_LIMIT_BYTES:
            raise ValueError(f"it would be {length} bytes long")
        return file.read(length)


def _reason(error: Exception) -> str:
    return f"its header has no {error}" if isinstance(error, KeyError) else f"its header cannot be read ({error})"


def tokenizer_hash() -> str:
    """SHA-256 of the shipped tokenizer's file."""
    return file_sha256(TOKENIZER_FILE)


def folder_sha256(folder: Path, pattern: str = "*") -> str:
    """SHA-256 over names and contents of the files in a folder, without those in folders below it.

    Raises:
        OSError: one cannot be read.
    """
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    return combined_sha256({path.name: file_sha256(path) for path in files})


def combined_sha256(named: Mapping[str, str]) -> str:
    """One SHA-256 for several named texts."""
    return hashlib.sha256(json.dumps(dict(named), sort_keys=True).encode()).hexdigest()
