"""Reading published weights: safely, whole, and with one clear error for each thing that can be wrong."""

from __future__ import annotations

import builtins
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.nn.checkpoint import load_strictly, read_state_dict


def _weights() -> dict[str, Tensor]:
    return {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}


def _same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


class Trap:
    """Unpickling this creates a file, unless the unpickler refuses."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return builtins.open, (str(self.target), "w")


class ShellTrap(Trap):
    """The same through the shell."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.target}'",)


def test_a_safetensors_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    save_file(_weights(), tmp_path / "weights.bin")
    assert _same(read_state_dict(tmp_path / "weights.bin"), _weights())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_of_either_format_is_read(tmp_path: Path, zipped: bool) -> None:
    torch.save(_weights(), tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    assert _same(read_state_dict(str(tmp_path / "weights.pth")), _weights())


@pytest.mark.parametrize(
    "wrapped",
    [
        {"state_dict": _weights(), "epoch": 3},
        {"model": _weights(), "optimizer": {"lr": 0.1}},
        {"model": {"state_dict": OrderedDict(_weights())}},
    ],
)
def test_weights_beside_a_trainers_state_are_unwrapped(tmp_path: Path, wrapped: dict[str, Any]) -> None:
    torch.save(wrapped, tmp_path / "weights.pth")
    assert _same(read_state_dict(tmp_path / "weights.pth"), _weights())


def test_a_missing_file_is_one_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.pth cannot be read: No such file"):
        read_state_dict(tmp_path / "absent.pth")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        read_state_dict(tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").touch()
    with pytest.raises(ValueError, match="is empty"):
        read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize("form", ["safetensors", "zip", "pickle"])
@pytest.mark.parametrize("kept", [0.001, 0.05, 0.3, 0.6, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, form: str, kept: float) -> None:
    weights = {name: torch.zeros(64, 64) for name in "abcd"}
    path = tmp_path / f"weights.{'safetensors' if form == 'safetensors' else 'pth'}"
    if form == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=form == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_state_dict(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_with_code_is_refused_and_the_code_not_run(tmp_path: Path, zipped: bool) -> None:
    target, path = tmp_path / "created", tmp_path / "weights.pth"
    torch.save({**_weights(), "trap": Trap(target)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="code in it .*open.*nothing was executed"):
        read_state_dict(path)
    assert not target.exists()


@pytest.mark.parametrize("protocol", [0, 1])
def test_a_pickle_older_than_torchs_is_refused_unread(tmp_path: Path, protocol: int) -> None:
    target, path = tmp_path / "created", tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"weight": Trap(target)}, protocol=protocol))
    with pytest.raises(ValueError, match="neither a safetensors nor a torch file"):
        read_state_dict(path)
    assert not target.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_plain_pickle_with_code_is_refused_and_the_code_not_run(tmp_path: Path, protocol: int) -> None:
    target, path = tmp_path / "created", tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"weight": Trap(target)}, protocol=protocol))
    with pytest.raises(ValueError, match=r"code in it \(io\.open\).*nothing was executed"):
        read_state_dict(path)
    assert not target.exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_calls_the_shell_is_refused_and_the_shell_not_called(tmp_path: Path, protocol: int) -> None:
    target, path = tmp_path / "created", tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"weight": ShellTrap(target)}, protocol=protocol))
    with pytest.raises(ValueError, match=r"code in it \(\w+\.system\)"):
        read_state_dict(path)
    assert not target.exists()


def test_no_error_advises_to_read_a_file_unrestricted(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="code in it") as caught:
        read_state_dict(tmp_path / "weights.pth")
    assert "weights_only" not in str(caught.value)


def test_a_pickle_named_safetensors_is_not_run_either(tmp_path: Path) -> None:
    target, path = tmp_path / "created", tmp_path / "weights.safetensors"
    torch.save({"trap": Trap(target)}, path)
    with pytest.raises(ValueError, match="nothing was executed"):
        read_state_dict(path)
    assert not target.exists()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_text("<!DOCTYPE html><title>404</title>")
    with pytest.raises(ValueError, match="neither a safetensors nor a torch file"):
        read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("saved", "reason"),
    [
        ([1, 2], "holds no state dict, but a value of type list"),
        ({}, "holds no state dict, but an empty dict"),
        (torch.ones(2), "holds no state dict, but a value of type Tensor"),
        ({"weight": torch.ones(2), "epoch": 3}, "'epoch' is a value of type int, not a tensor"),
        ({"model": _weights(), "state_dict": _weights()}, "two state dicts, under 'state_dict' and 'model'"),
    ],
)
def test_a_torch_file_without_one_state_dict_is_refused(tmp_path: Path, saved: Any, reason: str) -> None:
    torch.save(saved, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=reason):
        read_state_dict(tmp_path / "weights.pth")


def test_fitting_weights_are_copied_not_shared() -> None:
    module, weights = nn.Linear(3, 2), _weights()
    load_strictly(module, weights, "the layer")
    weights["bias"].zero_()
    assert module.bias.tolist() == [1.0, 1.0]


def test_weights_are_found_under_the_files_names() -> None:
    module, weights = nn.Linear(3, 2), _weights()
    load_strictly(module, {"w": weights["weight"], "bias": weights["bias"]}, "the layer", {"weight": "w"})
    assert torch.equal(module.weight, weights["weight"])


def test_one_error_names_missing_and_unexpected_keys_and_both_shapes() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    weights = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(2), "1.bias": torch.ones(2), "stray": torch.ones(1)}
    with pytest.raises(ValueError) as caught:
        load_strictly(module, weights, "the layers")
    assert str(caught.value) == (
        "The weights do not fit the layers: 1 missing key: 1.weight. 1 unexpected key: stray. "
        "1 wrong tensor: 0.weight has shape (3, 2), expected (2, 3)"
    )


def test_of_many_unexpected_keys_the_first_few_are_named_and_all_counted() -> None:
    weights = {**_weights(), **{f"stray{i}": torch.ones(1) for i in range(9)}}
    with pytest.raises(ValueError, match="9 unexpected keys: stray0, stray1, stray2, stray3, stray4 and 4 more"):
        load_strictly(nn.Linear(3, 2), weights, "the layer")


def test_quantised_weights_are_not_taken_for_floating_ones() -> None:
    weights = {**_weights(), "weight": torch.ones(2, 3, dtype=torch.int8)}
    with pytest.raises(ValueError, match=r"weight holds torch\.int8, expected torch\.float32"):
        load_strictly(nn.Linear(3, 2), weights, "the layer")


def test_a_refused_state_dict_leaves_the_module_as_it_was() -> None:
    module = nn.Linear(3, 2)
    before = module.bias.detach().clone()
    with pytest.raises(ValueError, match="1 missing key: weight"):
        load_strictly(module, {"bias": torch.full((2,), 9.0)}, "the layer")
    assert torch.equal(module.bias, before)
