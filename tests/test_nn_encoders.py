"""Both encoders against stage outputs of the published definitions at small width."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from models.nn.ast_encoder import LTU_AST, AstConfig, AstEncoder, LtuHearing, load_ltu_encoder
from models.nn.connector import ConvConnector, PoolConnector, pool_tokens
from models.nn.dass_encoder import (
    DASS_MEDIUM,
    DASS_SMALL,
    DassConfig,
    DassEncoder,
    load_dass,
    load_dass_config,
    scan_orders,
)

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


DASS_NARROW = DassConfig(depths=(1, 1, 2, 1), widths=(16, 32, 64, 128), n_classes=7)


@pytest.fixture(scope="module")
def dass() -> tuple[DassEncoder, Mapping[str, Tensor]]:
    fixture = _fixture("dass_narrow.safetensors")
    encoder = DassEncoder(DASS_NARROW).eval()
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


# --- loading DASS -----------------------------------------------------------------------------------------------------

Weights = dict[str, Tensor]


def _prefixed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def _hugging_face(weights: Weights) -> Weights:
    """Names and shapes as the author's conversion script leaves them."""
    renamed = {}
    for name, tensor in weights.items():
        name = f"dass.{name}".replace("dass.classifier.head", "head").replace("classifier.norm", "norm")
        for ours, theirs in (("0", "0"), ("2", "1"), ("5", "3"), ("7", "4")):
            name = re.sub(rf"patch_embed\.{ours}\.", f"patch_embeddings.projection.{theirs}.", name)
        name = name.replace("downsample.1.", "downsample.down.").replace("downsample.3.", "downsample.norm.")
        if name.endswith(("x_proj_weight", "dt_projs_weight")):
            name, tensor = name.replace("_weight", ".weight"), tensor.flatten(0, 1)
        renamed[name] = tensor
    return renamed


def _as_convolutions(weights: Weights) -> Weights:
    """Every projection with the two axes of a 1x1 kernel, the grouped ones flattened first."""
    stored = {}
    for name, tensor in weights.items():
        if name.endswith(("x_proj_weight", "dt_projs_weight")):
            tensor = tensor.flatten(0, 1)[..., None, None]
        elif name.endswith(("x_proj.weight", "dt_projs.weight", "in_proj.weight", "out_proj.weight")):
            tensor = tensor[..., None, None]
        elif re.search(r"fc[12]\.weight", name):
            tensor = tensor[..., None, None]
        stored[name] = tensor
    return stored


@pytest.fixture(scope="module")
def dass_weights(dass: tuple[DassEncoder, Mapping[str, Tensor]]) -> Weights:
    return _below(dass[1], "weights.")


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(_prefixed(""), id="bare"),
        pytest.param(_prefixed("v."), id="v"),
        pytest.param(_prefixed("module."), id="module"),
        pytest.param(_prefixed("module.v."), id="module.v"),
        pytest.param(lambda weights: _as_convolutions(_prefixed("module.v.")(weights)), id="module.v-1x1"),
        pytest.param(_hugging_face, id="hugging-face"),
        pytest.param(lambda weights: _as_convolutions(_hugging_face(weights)), id="hugging-face-1x1"),
    ],
)
def test_every_released_layout_gives_the_published_logits(
    dass: tuple[DassEncoder, Mapping[str, Tensor]], dass_weights: Weights, layout: Callable[[Weights], Weights]
) -> None:
    encoder = load_dass_config(layout(dass_weights), DASS_NARROW)
    with torch.no_grad():
        assert _relative_error(encoder.logits(dass[1]["input"]), dass[1]["output.logits"]) < 1e-4


@pytest.mark.parametrize("layout", [_prefixed("module.v."), _hugging_face])
def test_weights_without_a_head_give_the_map_and_no_logits(
    dass: tuple[DassEncoder, Mapping[str, Tensor]], dass_weights: Weights, layout: Callable[[Weights], Weights]
) -> None:
    headless = {name: tensor for name, tensor in dass_weights.items() if ".head." not in name}
    encoder = load_dass_config(layout(headless), DASS_NARROW)
    with torch.no_grad():
        assert _relative_error(encoder(dass[1]["input"]), dass[1]["output.stage3"]) < 1e-4
    with pytest.raises(ValueError, match="no head"):
        encoder.logits(dass[1]["input"])


def test_loaded_weights_are_ready_for_inference_and_for_training(dass_weights: Weights) -> None:
    encoder = load_dass_config({name: tensor.half() for name, tensor in dass_weights.items()}, DASS_NARROW)
    assert not encoder.training
    assert {(p.dtype, p.device.type, p.requires_grad) for p in encoder.parameters()} == {(torch.float32, "cpu", True)}


def test_loading_leaves_the_state_dict_as_it_was(dass_weights: Weights) -> None:
    stored = _as_convolutions(_hugging_face(dass_weights))
    before = {name: (tensor.shape, tensor.clone()) for name, tensor in stored.items()}
    with torch.no_grad():
        for parameter in load_dass_config(stored, DASS_NARROW).parameters():
            parameter.zero_()
    assert all(stored[name].shape == shape and torch.equal(stored[name], old) for name, (shape, old) in before.items())


@pytest.mark.parametrize(
    ("layout", "lost"),
    [
        (_prefixed("module.v."), "module.v.layers.2.blocks.1.op.x_proj_weight"),
        (_prefixed("module.v."), "module.v.classifier.head.bias"),
        (_hugging_face, "dass.layers.2.blocks.1.op.x_proj.weight"),
        (_hugging_face, "dass.patch_embeddings.projection.4.bias"),
        (_hugging_face, "dass.norm.weight"),
        (_hugging_face, "head.weight"),
    ],
)
def test_a_missing_key_is_named_as_in_its_layout(
    dass_weights: Weights, layout: Callable[[Weights], Weights], lost: str
) -> None:
    stored = layout(dass_weights)
    del stored[lost]
    with pytest.raises(ValueError, match=rf"1 missing key: {re.escape(lost)}$"):
        load_dass_config(stored, DASS_NARROW)


@pytest.mark.parametrize("stray", ["module.v.layers.0.blocks.0.op.gate.weight", "pos_embed", "module.teacher.weight"])
def test_an_unexpected_key_is_named(dass_weights: Weights, stray: str) -> None:
    stored = {stray: torch.ones(1), **_prefixed("module.v.")(dass_weights)}
    with pytest.raises(ValueError, match=rf"1 unexpected key: {re.escape(stray)}$"):
        load_dass_config(stored, DASS_NARROW)


def test_a_missing_prefix_on_one_key_is_an_error(dass_weights: Weights) -> None:
    stored = _prefixed("module.v.")(dass_weights)
    stored["patch_embed.0.bias"] = stored.pop("module.v.patch_embed.0.bias")
    with pytest.raises(ValueError, match="missing key: module.v.patch_embed.0.bias. 1 unexpected key: patch_embed.0"):
        load_dass_config(stored, DASS_NARROW)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(dass_weights: Weights) -> None:
    stored = {**dass_weights, "layers.0.blocks.0.op.in_proj.weight": torch.zeros(16, 8)}
    with pytest.raises(ValueError, match=r"in_proj\.weight has shape \(16, 8\), expected \(16, 16\)"):
        load_dass_config(stored, DASS_NARROW)


@pytest.mark.parametrize("part", ["patch_embed", "layers.0", "op.x_proj_weight", "downsample.1", "classifier.norm"])
def test_a_mixture_of_both_layouts_is_an_error(dass_weights: Weights, part: str) -> None:
    theirs = _hugging_face({name: tensor for name, tensor in dass_weights.items() if part in name})
    ours = _prefixed("module.v.")({name: tensor for name, tensor in dass_weights.items() if part not in name})
    with pytest.raises(ValueError, match="mix two layouts"):
        load_dass_config({**ours, **theirs}, DASS_NARROW)


@pytest.mark.parametrize("stored", [{}, {"encoder.weight": torch.ones(1)}])
def test_weights_of_something_else_are_not_taken_for_dass(stored: Weights) -> None:
    with pytest.raises(ValueError, match="not weights of DASS"):
        load_dass(stored)


def _on_meta(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    with torch.device("meta"):
        return build()


@pytest.mark.parametrize(
    ("stored", "asked", "message"),
    [
        (DASS_MEDIUM, "small", r"\(2, 2, 20, 2\).*they are DASS medium, not DASS small"),
        (DASS_SMALL, "medium", r"\(2, 2, 8, 2\).*they are DASS small, not DASS medium"),
        (DASS_NARROW, "small", "do not fit DASS small: .* missing keys: .*expected"),
        (DASS_SMALL, "large", "No DASS of size 'large'; there are small and medium"),
    ],
)
def test_weights_of_another_size_are_an_error_that_says_so(stored: DassConfig, asked: str, message: str) -> None:
    weights = _prefixed("module.v.")(_on_meta(lambda: DassEncoder(stored)).state_dict())
    with pytest.raises(ValueError, match=message):
        load_dass(weights, asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "config"), [("small", DASS_SMALL), ("medium", DASS_MEDIUM)])
def test_both_published_sizes_load(size: str, config: DassConfig) -> None:
    # One zero behind every tensor: the published shapes without their memory.
    stored = {
        name: torch.zeros(()).expand(tensor.shape)
        for name, tensor in _hugging_face(_on_meta(lambda: DassEncoder(config)).state_dict()).items()
    }
    assert load_dass(stored, size).config == config  # type: ignore[arg-type]


# --- loading LTU's encoder --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ltu() -> tuple[Weights, Mapping[str, Tensor]]:
    fixture = _fixture("ltu_encoder_narrow.safetensors")
    return _below(fixture, "weights."), fixture


LANGUAGE_MODEL = (
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.q_proj.lora_A.weight",
    "model.layers.0.self_attn.rotary_emb.inv_freq",
    "model.embed_tokens.weight",
    "model.norm.weight",
    "lm_head.weight",
)


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
@pytest.mark.parametrize("beside", [(), LANGUAGE_MODEL])
def test_ltus_tokens_equal_the_published_definition(
    ltu: tuple[Weights, Mapping[str, Tensor]], prefix: str, beside: tuple[str, ...]
) -> None:
    weights, fixture = ltu
    stored = _prefixed(prefix)({**weights, **{name: torch.ones(1) for name in beside}})
    hearing = load_ltu_encoder(stored, n_heads=2)
    with torch.no_grad():
        tokens = hearing(fixture["input"])
    assert tokens.shape == (2, 32, 48)
    assert _relative_error(tokens, fixture["output.tokens"]) < 1e-4
    assert not hearing.training


@pytest.mark.parametrize(
    "stray",
    [
        "model.audio_encoder.blocks_a.0.attn.qkv.lora_A.weight",
        "model.audio_proj.0.weight",
        "model.vision.weight",
        "audio_encoder.modality_a",
    ],
)
def test_a_key_that_is_neither_ltus_hearing_nor_its_language_model_is_named(
    ltu: tuple[Weights, Mapping[str, Tensor]], stray: str
) -> None:
    with pytest.raises(ValueError, match=rf"1 unexpected key: {re.escape(stray)}$"):
        load_ltu_encoder({**ltu[0], stray: torch.ones(1)}, n_heads=2)


@pytest.mark.parametrize(
    "lost",
    [
        "model.audio_encoder.blocks_a.10.attn.qkv.bias",
        "model.audio_encoder.blocks_u.0.norm1_v.weight",
        "model.audio_encoder.pos_embed_a",
        "model.audio_proj.1.weight",
    ],
)
def test_a_missing_key_of_ltus_hearing_is_named(ltu: tuple[Weights, Mapping[str, Tensor]], lost: str) -> None:
    stored = _prefixed("base_model.model.")({name: tensor for name, tensor in ltu[0].items() if name != lost})
    with pytest.raises(ValueError, match=rf"missing.* base_model\.model\.{re.escape(lost)}$"):
        load_ltu_encoder(stored, n_heads=2)


def test_audio_keys_with_and_without_the_prefix_are_an_error(ltu: tuple[Weights, Mapping[str, Tensor]]) -> None:
    encoder = {name: tensor for name, tensor in ltu[0].items() if "audio_proj" not in name}
    with pytest.raises(ValueError, match="mix two layouts"):
        load_ltu_encoder({**ltu[0], **_prefixed("base_model.model.")(encoder)}, n_heads=2)


def test_a_checkpoint_of_the_language_model_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="No weights of LTU's encoder"):
        load_ltu_encoder({name: torch.ones(1) for name in LANGUAGE_MODEL})


def test_heads_that_no_tensor_tells_must_be_given(ltu: tuple[Weights, Mapping[str, Tensor]]) -> None:
    with pytest.raises(ValueError, match="width 32, not 768: n_heads must be given"):
        load_ltu_encoder(ltu[0])
    with pytest.raises(ValueError, match="5 heads do not divide width 32"):
        load_ltu_encoder(ltu[0], n_heads=5)


def test_the_published_size_of_ltus_hearing_loads_with_its_twelve_heads() -> None:
    module = _on_meta(lambda: LtuHearing(LTU_AST, 4096))
    stored = {
        "model." + name.replace("connector.", "").replace("encoder.", "audio_encoder."): torch.zeros(()).expand(t.shape)
        for name, t in module.state_dict().items()
    }
    assert load_ltu_encoder(stored).encoder.config == LTU_AST


def test_ltus_hearing_refuses_half_a_token() -> None:
    hearing = LtuHearing(AstConfig(width=16, depth=1, n_heads=2, n_time=4), lm_width=8)
    with pytest.raises(ValueError, match="48 frames"):
        hearing(torch.zeros(1, 48, 128))


# --- parameter counts -------------------------------------------------------------------------------------------------


def _count(build: Callable[[], torch.nn.Module]) -> int:
    return sum(p.numel() for p in _on_meta(build).parameters())


@pytest.mark.parametrize(
    ("config", "with_head", "published"),
    [
        (DASS_SMALL, True, 29_884_463),
        (DASS_MEDIUM, True, 48_648_239),
        (DASS_SMALL, False, 29_479_200),
        (DASS_MEDIUM, False, 48_242_976),
    ],
)
def test_dass_has_the_published_number_of_parameters(config: DassConfig, with_head: bool, published: int) -> None:
    assert _count(lambda: DassEncoder(config, with_head)) == published


@pytest.mark.parametrize(("lm_width", "linear"), [(4096, 3_149_824), (2560, 1_968_640)])
def test_the_papers_connector_has_the_published_number_of_parameters(lm_width: int, linear: int) -> None:
    connector = _on_meta(lambda: ConvConnector(768, lm_width))
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in connector.named_children()}
    assert counts == {"conv": 5_309_184, "linear": linear}


def test_ltus_encoder_has_the_published_number_of_parameters() -> None:
    # Patches, positions, one modality vector, 12 blocks each with three pairs of norms (one in use), the last norm.
    block = 4 * (768 * 768 + 768) + (768 * 3072 + 3072) + (3072 * 768 + 768) + 3 * 2 * 2 * 768
    assert (16 * 16 * 768 + 768) + 512 * 768 + 768 + 12 * block + 2 * 768 == 85_721_088
    assert _count(lambda: AstEncoder(LTU_AST)) == 85_721_088


def test_ltu_trains_the_published_number_of_parameters() -> None:
    # Rank 8 on the query and value projections of LLaMA-7B's 32 layers: each has one matrix in and one out.
    lora = 32 * 2 * 8 * (4096 + 4096)
    assert lora == 4_194_304
    assert _count(lambda: PoolConnector(768, 4096)) == 3_149_824
    assert _count(lambda: LtuHearing(LTU_AST, 4096)) + lora == 93_065_216
