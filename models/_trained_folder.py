"""A folder of trained weights: what training in stages leaves, and `-m weights=FOLDER` reads.

    weights.safetensors                          encoder and connector as trained, in float32; the frozen language model
                                                 too, where no folder gives it (`-m lm=`)
    adapter_config.json, adapter_model.safetensors   the LoRA of the language model, in peft's own format

Names in weights.safetensors are those of the network before a LoRA was put on it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.hashing import file_sha256
from models._weights_files import HEADER_LIMIT_BYTES, WeightsFile, combined_sha256, read_weights_header

if TYPE_CHECKING:
    from models.nn.lalm import AudioLanguageModel

WEIGHTS = "weights.safetensors"
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
LM_PREFIX = "lm."
# What peft puts into the names of the weights that it adapts, and into those of its own.
BASE_LAYER, LORA = ".base_layer", "lora_"


def save_folder(network: AudioLanguageModel, folder: Path, metadata: Mapping[str, str], lm_is_given: bool) -> None:
    """Write the folder's files; it is made."""
    from safetensors.torch import save_file

    from models.nn.lora import save_lora

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: group[0].detach().cpu().contiguous()
        for name, group in _own_tensors(network).items()
        if not (lm_is_given and name.startswith(LM_PREFIX))
    }
    save_file(tensors, folder / WEIGHTS, dict(metadata))
    save_lora(network.lm, folder)


def read_folder_header(folder: Path, model: str, tokenizer_sha256: str, lm_sha256: str | None) -> WeightsFile:
    """What the folder tells of itself, and one hash for all its files; no tensor is read.

    Args:
        model: whose weights it must hold, such as "ssalm:tiny".
        lm_sha256: of the language model's folder, where one was given.

    Raises:
        UsageError: it holds no such weights, or not for this language model.
    """
    trained_on_lm = _lm_sha256(folder / WEIGHTS)
    if trained_on_lm and lm_sha256 is None:
        raise UsageError(f"{folder} holds no language model: name the one that it was trained on with -m lm=FOLDER.")
    if trained_on_lm != lm_sha256:
        reason = "was trained on another language model than -m lm= names" if trained_on_lm else "holds one: no -m lm="
        raise UsageError(f"{folder} {reason}.")
    header = read_weights_header(folder / WEIGHTS, model, tokenizer_sha256)
    try:
        digests = {name: file_sha256(folder / name) for name in ADAPTER}
    except OSError as error:
        raise UsageError(f"{folder} is not whole: {Path(str(error.filename)).name}: {error.strerror}.") from error
    digest = combined_sha256({WEIGHTS: header.sha256, **digests})
    return WeightsFile(header.path, digest, header.parameters, header.trained_on, header.names)


def fill_from_folder(network: AudioLanguageModel, folder: Path, lm_is_given: bool) -> None:
    """Copy the folder's weights into the network and put its LoRA on; all that no other source gave must be there.

    Raises:
        UsageError: the files do not fit the network.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    from models.nn.lora import load_lora

    wanted = {
        name: group for name, group in _own_tensors(network).items() if not (lm_is_given and name.startswith(LM_PREFIX))
    }
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file, torch.no_grad():
            unlike = sorted(wanted.keys() ^ set(file.keys()))
            if unlike:
                raise UsageError(f"The weights in {folder} do not fit: missing or unexpected {', '.join(unlike[:5])}")
            for name, group in wanted.items():
                _copy(file.get_tensor(name), group[0], f"{folder / WEIGHTS}: {name}")
        load_lora(network.lm, folder)
    except (SafetensorError, ValueError, OSError) as error:
        raise UsageError(f"The weights in {folder} cannot be used: {error}") from error


def _copy(stored: Any, own: Any, what: str) -> None:
    if stored.shape != own.shape:
        raise UsageError(f"{what} has shape {tuple(stored.shape)}, expected {tuple(own.shape)}")
    own.copy_(stored)


def _own_tensors(network: AudioLanguageModel) -> dict[str, list[Any]]:
    """Every tensor but the LoRA's, by its first name without peft's additions; shared ones once."""
    by_address: dict[int, str] = {}
    tensors: dict[str, list[Any]] = {}
    for name, tensor in network.state_dict().items():
        if LORA in name:
            continue
        first = by_address.setdefault(tensor.data_ptr(), name.replace(BASE_LAYER, ""))
        tensors.setdefault(first, []).append(tensor)
    return tensors


def _lm_sha256(path: Path) -> str | None:
    """Of the language model that the weights were trained on; None where they hold it, or where that cannot be read."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            return json.loads(file.read(min(length, HEADER_LIMIT_BYTES)))["__metadata__"]["lm_sha256"] or None
    except (OSError, struct.error, ValueError, KeyError, TypeError):  # told by whoever reads the whole header
        return None
