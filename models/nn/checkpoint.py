"""Reading published weights: nothing in a file is executed, and nothing is loaded in part."""

from __future__ import annotations

import pickletools
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# Where trainers put the weights beside an optimiser's state and the like.
WRAPPERS = ("state_dict", "model")
NAMES_SHOWN = 5
ZIP_MAGIC = b"PK\x03\x04"  # torch files since 1.6
PICKLE_MAGIC = b"\x80"  # torch files before that


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a safetensors or a torch file by name, on the CPU, as stored.

    The kind of file is told from its first bytes, not from its name. A torch file is read by torch's restricted
    unpickler, which builds tensors and plain containers and calls nothing else. {"state_dict": ...} and {"model": ...}
    around the weights are unwrapped.

    Raises:
        ValueError: no such file; truncated or damaged; a pickle that holds more than tensors and plain containers; no
            state dict in it.
    """
    path = Path(path)
    start = _first_bytes(path)
    if start[8:9] == b"{" or (path.suffix == ".safetensors" and not start.startswith((ZIP_MAGIC, PICKLE_MAGIC))):
        return _read_safetensors(path)
    if start.startswith((ZIP_MAGIC, PICKLE_MAGIC)):
        return _state_dict_in(_read_torch(path), path)
    raise ValueError(f"{path} is neither a safetensors nor a torch file")


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if not start:
        raise ValueError(f"{path} is empty")
    return start


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is truncated or damaged, or no safetensors file: {_first_line(error)}") from error
    if not tensors:
        raise ValueError(f"{path} holds no tensors")
    return tensors


def _read_torch(path: Path) -> Any:
    try:
        # An open file, because torch goes by the name of a path.
        with path.open("rb") as file, warnings.catch_warnings():
            # About TorchScript archives, which end in an error below anyway.
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the unpickler raise nearly anything
        called = re.search(r"GLOBAL (\S+)", str(error))
        name = called[1] if called else _called_by_pickle(path)
        if name:
            raise ValueError(
                f"{path} is a pickle with code in it ({name}), which no weights need; nothing was executed"
            ) from error
        # Not torch's own words: they advise to load the file unrestricted.
        raise ValueError(
            f"{path} is truncated or damaged, or holds something else than weights; nothing in it was executed"
        ) from error


def _called_by_pickle(path: Path) -> str | None:
    """The first function that a bare pickle names, read from its opcodes without running them.

    Torch's unpickler stops at protocol 4 before it meets the name.
    """
    strings: list[str] = []
    try:
        with path.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    return str(argument).replace(" ", ".")
                if opcode.name == "STACK_GLOBAL":
                    return ".".join(strings[-2:])
                if isinstance(argument, str):
                    strings.append(argument)
    except (ValueError, OSError):
        return None
    return None


def _state_dict_in(loaded: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(loaded, Mapping):
        inner = [name for name in WRAPPERS if isinstance(loaded.get(name), Mapping)]
        if len(inner) > 1:
            raise ValueError(f"{path} holds two state dicts, under {' and '.join(map(repr, inner))}")
        if not inner:
            break
        loaded = loaded[inner[0]]
    if not isinstance(loaded, Mapping) or not loaded:
        raise ValueError(f"{path} holds no state dict, but {_described(loaded)}")
    strangers = [name for name, value in loaded.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strangers:
        name = strangers[0]
        raise ValueError(f"{path} holds no state dict: {name!r} is {_described(loaded[name])}, not a tensor")
    return dict(loaded)


def _described(value: Any) -> str:
    if isinstance(value, Mapping) and not value:
        return "an empty dict"
    return f"a value of type {type(value).__name__}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def load_strictly(
    module: nn.Module, state_dict: Mapping[str, Tensor], what: str, names: Mapping[str, str] | None = None
) -> None:
    """Copy weights into a module if every one of them fits; otherwise the module is left as it was.

    Args:
        state_dict: weights by the names of the file they come from.
        what: subject of the error message, such as "DASS small".
        names: the file's name of each parameter of `module` that has another one there.

    Raises:
        ValueError: missing or unexpected names, shapes that differ, or values that are no floating-point tensors where
            the module has such; all of them in one message, long lists cut.
    """
    own = module.state_dict()
    stored = {name: (names or {}).get(name, name) for name in own}
    faults = [
        *_listed("missing", "key", stored.values() - state_dict.keys()),
        *_listed("unexpected", "key", state_dict.keys() - set(stored.values())),
        *_listed("wrong", "tensor", _misfits(own, stored, state_dict), "; "),
    ]
    if faults:
        raise ValueError(f"The weights do not fit {what}: {'. '.join(faults)}")
    module.load_state_dict({name: state_dict[stored[name]] for name in own})


def _misfits(own: Mapping[str, Tensor], stored: Mapping[str, str], state_dict: Mapping[str, object]) -> list[str]:
    misfits = []
    for name, expected in own.items():
        found = state_dict.get(stored[name])
        if found is None:
            continue
        if not isinstance(found, Tensor):
            misfits.append(f"{stored[name]} is {_described(found)}")
        elif found.shape != expected.shape:
            misfits.append(f"{stored[name]} has shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
        elif found.is_floating_point() != expected.is_floating_point():
            misfits.append(f"{stored[name]} holds {found.dtype}, expected {expected.dtype}")
    return misfits


def _listed(kind: str, noun: str, entries: Collection[str], separator: str = ", ") -> list[str]:
    if not entries:
        return []
    shown = sorted(entries)[:NAMES_SHOWN]
    rest = f" and {len(entries) - len(shown)} more" if len(entries) > len(shown) else ""
    return [f"{len(entries)} {kind} {noun}{'s' if len(entries) > 1 else ''}: {separator.join(shown)}{rest}"]
