"""A process among several: its share, and what is refused before any of them meet."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.errors import MissingExtraError, UsageError
from harness.processes import ALONE, Processes, ProcessesError, is_launched, joined

SETTINGS = Path(__file__).resolve().parents[1] / "harness" / "recipes" / "openaqa_fsdp.yaml"


def test_alone_everything_is_ones_own() -> None:
    assert (ALONE.sums([1.5]), ALONE.largest(2.0), ALONE.gather("a"), ALONE.share([1, 2])) == (
        [1.5],
        2.0,
        ["a"],
        [1, 2],
    )


def test_shares_are_disjoint_and_leave_nothing_over() -> None:
    shares = [Processes(rank, 3).share(range(8)) for rank in range(3)]
    assert sorted(number for share in shares for number in share) == list(range(8))


def _as_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)


def test_a_cluster_that_only_tells_its_size_has_launched_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert not is_launched()


def test_one_gpu_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _as_launched(monkeypatch)
    with pytest.raises(UsageError, match="--device cuda:1: each of several processes .* use --device cuda"):
        joined("cuda:1").__enter__()


def test_without_accelerate_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _as_launched(monkeypatch)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"'accelerate'.*\[devices\]"):
        joined("cpu").__enter__()


def test_processes_that_cannot_meet_are_not_said_to_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**settings: object) -> None:
        raise RuntimeError("Gloo connectFullMesh failed with [../gloo/transport/tcp/pair.cc:144] no error")

    _as_launched(monkeypatch)
    monkeypatch.setitem(sys.modules, "accelerate", SimpleNamespace(PartialState=fail))
    with pytest.raises(ProcessesError) as caught:
        joined("cpu").__enter__()
    assert str(caught.value) == (
        "the processes could not be brought together: Gloo connectFullMesh failed with no error"
    )


def test_a_lost_connection_is_told_without_places_in_gloos_source(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed

    def fail(*things: object) -> None:
        raise RuntimeError("[/a/pair.cc:534] Connection closed by peer [127.0.0.1]:47 ... GLHF! \U0001f3d6\ufe0f\nmore")

    monkeypatch.setattr(torch.distributed, "all_gather_object", fail)
    with pytest.raises(ProcessesError) as caught:
        Processes(0, 2).gather("a")
    assert str(caught.value) == (
        "another process of this command ended or does not answer: Connection closed by peer [127.0.0.1]:47"
    )


def test_the_shipped_settings_spread_the_blocks_that_the_language_models_have() -> None:
    """Read as `accelerate launch` reads them."""
    from accelerate.commands.config.config_args import load_config_from_file
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    from models.nn.mamba2_lm import Mamba2Mixer
    from models.nn.mamba_lm import MambaMixer

    settings = load_config_from_file(str(SETTINGS)).fsdp_config
    names = set(settings["fsdp_transformer_layer_cls_to_wrap"].split(","))
    assert names == {block.__name__ for block in (LlamaDecoderLayer, MambaMixer, Mamba2Mixer)}
    assert (settings["fsdp_version"], settings["fsdp_offload_params"]) == (2, False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"FSDP_VERSION": "1"}, "fsdp_version: 2"),
        ({"FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params is not supported"),
        ({"FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "NO_WRAP"}, "no block that the settings name"),
    ],
)
def test_settings_that_mean_something_else_are_refused(
    settings: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch import nn

    from harness.sharding import shard_frozen_blocks

    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        shard_frozen_blocks(nn.Linear(1, 1), Processes(0, 2))


def test_weights_are_shared_out_only_beside_a_language_model_in_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.staged_training import _is_sharded

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert not _is_sharded(ALONE, {})
    with pytest.raises(UsageError, match="-m lm=FOLDER"):
        _is_sharded(Processes(0, 2), {"lm": None})
