"""Both encoders against stage outputs of the published definitions at small width."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from models.nn.ast_encoder import AstConfig, AstEncoder, pool_tokens
from models.nn.dass_encoder import DassConfig, DassEncoder, scan_orders

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"


def _fixture(name: str) -> Mapping[str, Tensor]:
    path = REFERENCE / name
    if not path.exists():
        pytest.skip(f"the reference fixture {name} is not beside the repository")
    return load_file(path)


def _relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def dass() -> tuple[DassEncoder, Mapping[str, Tensor]]:
    fixture = _fixture("dass_narrow.safetensors")
    encoder = DassEncoder(DassConfig(depths=(1, 1, 2, 1), widths=(16, 32, 64, 128), n_classes=7)).eval()
    encoder.load_state_dict(_below(fixture, "weights."))
    return encoder, fixture


def test_every_stage_of_dass_equals_the_published_definition(dass: tuple[DassEncoder, Mapping[str, Tensor]]) -> None:
    encoder, fixture = dass
    names = ["patch_embed", "stage0", "stage1", "stage2", "stage3"]
    with torch.no_grad():
        for name, found in zip(names, encoder.stages(fixture["input"]), strict=True):
            assert _relative_error(found.permute(0, 3, 1, 2), fixture[f"output.{name}"]) < 1e-4, name


def test_the_logits_of_dass_equal_the_published_definition(dass: tuple[DassEncoder, Mapping[str, Tensor]]) -> None:
    encoder, fixture = dass
    with torch.no_grad():
        assert _relative_error(encoder.logits(fixture["input"]), fixture["output.logits"]) < 1e-4


@pytest.mark.parametrize(("frames", "width"), [(32, 1), (33, 2), (320, 10), (1001, 32)])
def test_dass_takes_any_length(frames: int, width: int) -> None:
    encoder = DassEncoder(DassConfig(depths=(1, 1, 1, 1), widths=(8, 16, 32, 64)), with_head=False).eval()
    with torch.no_grad():
        assert encoder(torch.randn(1, frames, 128)).shape == (1, 64, 4, width)


def test_the_four_scan_orders_are_rows_columns_and_their_reverses() -> None:
    assert scan_orders(2, 3).tolist() == [
        [0, 1, 2, 3, 4, 5],
        [0, 3, 1, 4, 2, 5],
        [5, 4, 3, 2, 1, 0],
        [5, 2, 4, 1, 3, 0],
    ]


def test_every_patch_and_token_of_ltus_encoder_equals_the_published_definition() -> None:
    fixture = _fixture("ltu_encoder_narrow.safetensors")
    encoder = AstEncoder(AstConfig(width=32, depth=12, n_heads=2, n_time=64, spare_norms=True)).eval()
    encoder.load_state_dict(_below(fixture, "weights.model.audio_encoder."))
    projection = _below(fixture, "weights.model.audio_proj.1.")
    with torch.no_grad():
        patches = encoder(fixture["input"])
        normed = functional.layer_norm(pool_tokens(patches), (32,))
        tokens = functional.linear(normed, projection["weight"], projection["bias"])
    assert _relative_error(patches, fixture["output.encoder"]) < 1e-4
    assert _relative_error(tokens, fixture["output.tokens"]) < 1e-4


def test_the_patch_encoder_refuses_what_its_positions_do_not_cover() -> None:
    encoder = AstEncoder(AstConfig(width=16, depth=1, n_heads=2, n_time=4))
    with pytest.raises(ValueError, match="80 frames of 128 bins"):
        encoder(torch.zeros(1, 80, 128))
