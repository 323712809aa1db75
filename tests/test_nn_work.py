"""Formulas against numbers worked out by hand, against a counter at published sizes, and in how they grow."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from transformers import ASTConfig, LlamaConfig

from harness.flop_counting import FlopCounter
from models import ltu, ssalm
from models.nn.ast_encoder import AstConfig, AstEncoder
from models.nn.ast_stock import build_stock_ast
from models.nn.connector import ConcatConnector, ConvConnector, PoolConnector
from models.nn.dass_encoder import DassConfig, DassEncoder
from models.nn.hearing import HearAst, HearDass
from models.nn.hearing_work import (
    ast_work,
    connector_work,
    dass_work,
    front_end_work,
    hearing_work,
    spans,
    stock_work,
)
from models.nn.lalm import AudioLanguageModel
from models.nn.llama_lm import LlamaLM
from models.nn.lm_work import RECURRENT_SCAN, kept_bytes, positions_work, reading_work, speaking_work
from models.nn.lora import add_lora
from models.nn.mamba2_lm import Mamba2Config, Mamba2LM
from models.nn.mamba_lm import MambaConfig, MambaLM
from models.nn.streaming import windows
from models.nn.work import Operations, linear, total

MAMBA = MambaConfig(vocab_size=10, width=8, n_layers=1, d_state=3, d_conv=4, dt_rank=2)
MAMBA2 = Mamba2Config(vocab_size=10, width=8, n_layers=1, d_state=3, head_width=4, n_groups=2)


def llama(n_layers: int = 1, n_kv_heads: int = 2) -> LlamaLM:
    return LlamaLM(
        LlamaConfig(
            vocab_size=10,
            hidden_size=8,
            intermediate_size=12,
            num_hidden_layers=n_layers,
            num_attention_heads=2,
            num_key_value_heads=n_kv_heads,
        )
    )


# --- one layer of each kind, by hand ---------------------------------------------------------------------------------


def test_a_linear_layer_by_hand() -> None:
    work = linear(nn.Linear(5, 3), 7)
    # 7 rows x 5 x 3 multiply-additions; 7 x 3 biases.
    assert work == Operations(parts={"linear": 210}, macs=105, other=21)


def test_a_frame_of_the_front_end_by_hand() -> None:
    # Transform 2.5 x 512 x 9 = 11 520; 257 bins x 128 filters x 2 = 65 792.
    assert front_end_work(2).parts == {"fourier": 2 * 11_520, "linear": 2 * 65_792}


def test_a_dass_block_by_hand() -> None:
    encoder = DassEncoder(DassConfig(depths=(1,), widths=(4,)), with_head=False)
    work = dass_work(encoder, 32, 8)
    # First convolution: 16 x 4 positions, 2 channels of 9 taps: 64 x 2 x 9 x 2 = 2304.
    # Second: 8 x 2 positions, 4 channels of 2 x 9 taps: 16 x 4 x 18 x 2 = 2304.
    # The block has 16 positions. Depthwise: 16 x 4 x 9 x 2 = 1152.
    assert work.parts["convolution"] == 2304 + 2304 + 1152
    # in_proj and out_proj: 2 x 16 x 4 x 4 x 2 = 1024. Rank 1: x_proj to 4 directions of 1 + 2: 16 x 4 x 12 x 2 = 1536;
    # dt_proj: 16 x 4 directions x 1 x 4 x 2 = 512. MLP: 2 layers x 16 x 4 x 16 x 2 = 4096.
    assert work.parts["linear"] == 1024 + 1536 + 512 + 4096
    # 16 positions x 4 directions x 4 channels x (9 x 1 state + 1).
    assert work.parts["scan"] == 2560
    assert set(work.parts) == {"convolution", "linear", "scan"}


def test_an_ast_block_by_hand() -> None:
    encoder = AstEncoder(AstConfig(width=4, depth=1, n_heads=2, n_time=2))
    # 2 x 8 patches of 256 values: 16 x 4 x 256 x 2. Attention: 16 x 16 pairs x 2 heads x 4 x 2 wide.
    # Layers: 16 x (4 x 12 + 4 x 4 + 2 x 4 x 16) x 2 = 16 x 192 x 2.
    assert ast_work(encoder, 32).parts == {"convolution": 32_768, "linear": 6144, "attention": 4096}


def test_a_layer_of_the_stock_ast_by_hand() -> None:
    config = ASTConfig(hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=6)
    # 36 frames: 12 x 3 patches every 10 bins and frames, and two tokens: 38 positions.
    # Patches: 36 x 4 x 256 x 2. Layers: 38 x (4 x 4 x 4 + 2 x 4 x 6) x 2. Attention: 38 x 38 x 2 heads x 4 x 2 wide.
    expected = {"convolution": 73_728, "linear": 8512, "attention": 23_104}
    assert stock_work(build_stock_ast(config), 36).parts == expected


def test_connectors_by_hand() -> None:
    # A map of 4 x 6: 2 x 3 tokens of a 3 x 3 convolution from 5 to 5 channels, then 5 to 7.
    conv = connector_work(ConvConnector(5, 7), 4, 6)
    assert conv.parts == {"convolution": 6 * 5 * 45 * 2, "linear": 6 * 35 * 2}
    # Pairs of columns: 3 tokens.
    assert connector_work(PoolConnector(5, 7), 4, 6).parts == {"linear": 3 * 35 * 2}
    # Four rows end to end: 6 tokens of 20 values, to 7 and to 7.
    assert connector_work(ConcatConnector(5, 4, 7), 4, 6).parts == {"linear": 6 * (140 + 49) * 2}


def test_a_mamba_layer_by_hand() -> None:
    # 5 positions, inner width 16. in_proj 8 x 32, x_proj 16 x (2 + 2 x 3), dt_proj 2 x 16, out_proj 16 x 8:
    # 5 x (256 + 128 + 32 + 128) x 2 = 5440. Convolution: 5 x 16 x 4 x 2. Scan: 5 x 16 x (9 x 3 + 1). Gate: 5 x 16.
    expected = {"linear": 5440, "convolution": 640, "scan": 2240, "gate": 80}
    assert positions_work(MambaLM(MAMBA), 5, 0).parts == expected


def test_a_step_of_mamba_is_a_position_of_its_scan() -> None:
    lm = MambaLM(MAMBA)
    assert positions_work(lm, 1, 9, is_step=True) == positions_work(lm, 1, 0)


def test_a_mamba2_layer_by_hand() -> None:
    work = positions_work(Mamba2LM(MAMBA2), 70, 0)
    # Inner 16, 4 heads of 4, 2 groups of 3 states, convolution over 16 + 2 x 6 = 28. 70 positions are two chunks of 64.
    # Products of a chunk: scores 2 x 64 x 64 x 3; values 64 x 64 x 16; pushed and carried 2 x 64 x 16 x 3.
    assert work.parts["scan"] == 2 * 2 * (24_576 + 65_536 + 6144)
    # in_proj 8 x (16 + 28 + 4), out_proj 16 x 8.
    assert work.parts["linear"] == 70 * (384 + 128) * 2
    assert work.parts["convolution"] == 70 * 28 * 4 * 2
    # As a recurrence: 70 x 16 x 3 x 5, beside the sum.
    assert work.equivalents == {RECURRENT_SCAN: 16_800}
    assert work.flops == sum(work.parts.values())


def test_a_step_of_mamba2_is_the_recurrence() -> None:
    step = positions_work(Mamba2LM(MAMBA2), 1, 9, is_step=True)
    assert step.parts["scan"] == step.equivalents[RECURRENT_SCAN] == 16 * 3 * 5


def test_a_llama_layer_by_hand() -> None:
    # 5 positions: q, k, v, o of 8 x 8, k and v of one head of 4 only; gate, up and down of 8 x 12.
    # 5 x (2 x 64 + 2 x 32 + 3 x 96) x 2 = 4800. Pairs seen: 15, each in 2 heads of 4: 15 x 2 x 4 x 4.
    assert positions_work(llama(n_kv_heads=1), 5, 0).parts == {"linear": 4800, "attention": 480}


def test_positions_after_others_see_those_too() -> None:
    # 3 queries after 4 positions: 5 + 6 + 7 keys.
    assert positions_work(llama(), 3, 4).parts["attention"] == 18 * 2 * 4 * 4


def test_a_lora_adds_its_two_small_products() -> None:
    lm = MambaLM(MAMBA)
    plain = positions_work(lm, 5, 0)
    add_lora(lm, rank=2)
    # On in_proj, 8 to 32: 5 x 2 x (8 + 32) x 2.
    assert positions_work(lm, 5, 0).parts == {**plain.parts, "lora": 800}


def test_logits_are_made_after_the_last_position_and_after_each_token() -> None:
    lm = MambaLM(MAMBA)
    one = 2 * 8 * 10
    assert reading_work(lm, [5]).flops - positions_work(lm, 5, 0).flops == one
    assert speaking_work(lm, 5, 3).flops - 3 * positions_work(lm, 1, 0).flops == 3 * one


# --- how it is put together ------------------------------------------------------------------------------------------


def test_reading_in_chunks_takes_the_attention_of_reading_at_once() -> None:
    lm = llama()
    assert reading_work(lm, [7, 2, 5]).parts["attention"] == reading_work(lm, [14]).parts["attention"]


@pytest.mark.parametrize("n", [1, 64, 127, 128, 129, 192, 224, 225, 1000])
@pytest.mark.parametrize(("window", "overlap"), [(128, 0), (128, 32), (100, 49)])
def test_spans_are_the_windows_that_features_are_cut_into(n: int, window: int, overlap: int) -> None:
    cut = windows([torch.zeros(1, part, 1) for part in (n // 2, n - n // 2) if part], window, overlap)
    expected = [(w.features_BTM.shape[1], w.n_skipped, w.n_kept) for w in cut]
    assert [(s.n_frames, s.n_skipped, s.n_kept) for s in spans(n, window, overlap)] == expected


def test_the_sum_of_pieces_keeps_every_part() -> None:
    one, two = Operations({"linear": 4, "scan": 1}, 2, 3), Operations({"scan": 5}, 0, 1, {"x": 2})
    assert total([one, two]) == Operations({"linear": 4, "scan": 6}, 2, 4, {"x": 2})
    assert (one + two).times(3) == total([one, two] * 3)


def small_hearing(policy: str, overlap: int = 64) -> HearDass:
    encoder = DassEncoder(DassConfig(depths=(1, 1, 1, 1), widths=(4, 8, 16, 16)), with_head=False)
    return HearDass(encoder, ConvConnector(16, 8), policy, window_frames=512, overlap_frames=overlap)


def counted_stream(hear: Any, n_frames: int) -> tuple[int, int, list[int]]:
    """Operations of encoder and connector of so many frames in blocks, and the tokens of each chunk."""
    from models.nn.streaming import connect_pieces

    with torch.inference_mode(), FlopCounter() as counter:
        counter.enter("encoder")
        pieces = list(hear.encode_stream([torch.zeros(1, 256, 128)] * (n_frames // 256)))
        counter.enter("connector")
        chunks = [tokens.shape[1] for tokens in connect_pieces(hear.connector, iter(pieces))]
    count = counter.count()
    return count.flops("encoder"), count.flops("connector"), chunks


@pytest.mark.parametrize("n_frames", [256, 512, 1280, 2048])
@pytest.mark.parametrize("policy", ["window", "full"])
def test_overlapping_windows_are_counted_as_often_as_they_are_heard(policy: str, n_frames: int) -> None:
    hear = small_hearing(policy)
    work = hearing_work(hear, 160 * (n_frames - 1) + 400, 64, streams=True)
    assert (work.encoder.flops, work.connector.flops, list(work.chunks)) == counted_stream(hear, n_frames)


@pytest.mark.parametrize("policy", ["window", "interpolate", "first_10_24s"])
def test_passes_of_ast_are_counted_under_every_policy(policy: str) -> None:
    encoder = AstEncoder(AstConfig(width=8, depth=1, n_heads=2, n_time=32 if policy == "window" else 64))
    hear = HearAst(encoder, PoolConnector(8, 8), policy)
    work = hearing_work(hear, 160 * 1279 + 400, 64, streams=True)
    assert (work.encoder.flops, work.connector.flops, list(work.chunks)) == counted_stream(hear, 1280)


def test_what_lies_behind_the_cut_costs_nothing() -> None:
    hear = small_hearing("first_10_24s")
    short, long = (hearing_work(hear, seconds * 16_000, 64, streams=True) for seconds in (60, 600))
    assert short == long


# --- published sizes -------------------------------------------------------------------------------------------------


def published(name: str) -> AudioLanguageModel:
    """An outline of a published model."""
    made: Any = {
        "mamba2": lambda: ssalm.ssalm(variant="mamba2-130m", weights="random", connector="concat"),
        "mamba": lambda: ssalm.ssalm(variant="130m", weights="random", encoder="medium"),
        "ltu": lambda: ltu.ltu(variant="7b", weights="random"),
        "stock": lambda: ltu.ltu(variant="7b", weights="random", encoder="ast", lora=False),
    }[name]()
    network: AudioLanguageModel = made._outline()
    return network


def read_and_step(lm: Any, audio_BAE: torch.Tensor, counter: FlopCounter) -> None:
    """Prefill and one step on outlines; LLaMA's mask cannot be looked at there, and is left out."""

    def forward(x_BLE: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        if not isinstance(lm, LlamaLM):
            hidden, after = lm(x_BLE) if cache is None else lm.step(x_BLE[:, 0], cache)
            return hidden if cache is None else hidden.unsqueeze(1), after
        out = lm.network.model(inputs_embeds=x_BLE, past_key_values=cache, use_cache=True)
        return out.last_hidden_state, out.past_key_values

    counter.enter("prefill")
    hidden, cache = forward(audio_BAE, None)
    lm.head(hidden[:, -1])
    counter.enter("decode")
    lm.head(forward(audio_BAE[:, :1], cache)[0])


@pytest.mark.parametrize("name", ["mamba", "mamba2", "ltu", "stock"])
def test_formulas_agree_with_the_counter_at_published_sizes(name: str) -> None:
    network = published(name)
    with torch.inference_mode(), FlopCounter() as counter:
        counter.enter("encoder")
        map_BFTC = network.hear.encode(torch.empty(1, 1024, 128, device="meta"))
        counter.enter("connector")
        audio_BAE = network.hear.connect(map_BFTC)
        read_and_step(network.lm, audio_BAE, counter)
    count = counter.count()
    count.require_coverage()
    heard = hearing_work(network.hear, 163_840, 1024, streams=False)
    n_tokens = audio_BAE.shape[1]
    found = [heard.encoder, heard.connector, reading_work(network.lm, [n_tokens])]
    found.append(speaking_work(network.lm, n_tokens, 1))
    expected = [count.flops(place) for place in ("encoder", "connector", "prefill", "decode")]
    assert [work.flops for work in found] == pytest.approx(expected, rel=1e-3)
    assert sum(heard.chunks) == n_tokens


def test_a_token_of_llama_7b_takes_two_operations_for_each_weight_of_its_layers() -> None:
    # 6 738 415 616 parameters, of which the embedding's 32 000 x 4096 and the norms' 65 x 4096 multiply nothing.
    network = published("stock")
    step = speaking_work(network.lm, 0, 1)
    assert step.parts["linear"] == 2 * (6_738_415_616 - 32_000 * 4096 - 65 * 4096)


# --- how it grows ----------------------------------------------------------------------------------------------------


def exponent(small: int, large: int, ratio: float) -> float:
    return math.log(large / small) / math.log(ratio)


@pytest.mark.parametrize(("lm", "part", "power"), [(llama(), "attention", 2), (MambaLM(MAMBA), "scan", 1)])
def test_attention_grows_with_the_square_and_the_scan_in_proportion(lm: Any, part: str, power: int) -> None:
    small, large = (reading_work(lm, [n]).parts[part] for n in (2_000, 20_000))
    assert exponent(small, large, 10) == pytest.approx(power, abs=1e-3)


@pytest.mark.parametrize(("lm", "part", "power"), [(llama(), "attention", 2), (MambaLM(MAMBA), "scan", 1)])
def test_what_is_counted_grows_so_too(lm: Any, part: str, power: int) -> None:
    counts = []
    for n in (256, 2048):
        with torch.inference_mode(), FlopCounter() as counter:
            lm(torch.zeros(1, n, 8))
        counts.append(counter.count().parts["outside"][part])
    assert exponent(counts[0], counts[1], 8) == pytest.approx(power, abs=0.01)


def test_one_pass_of_ast_grows_with_the_square_of_its_length_and_dass_in_proportion() -> None:
    ast = AstEncoder(AstConfig(width=8, depth=1, n_heads=2, n_time=64))
    dass = small_hearing("full").encoder
    lengths = (6_400, 64_000)
    attention = [ast_work(ast, n).parts["attention"] for n in lengths]
    scan = [dass_work(dass, 128, n).parts["scan"] for n in lengths]
    assert exponent(*attention, 10) == pytest.approx(2, abs=1e-3)
    assert exponent(*scan, 10) == pytest.approx(1, abs=1e-3)


# --- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [lambda: llama(2, 1), lambda: MambaLM(MAMBA), lambda: Mamba2LM(MAMBA2)])
def test_bytes_kept_are_those_of_the_cache(make: Any, dtype: torch.dtype) -> None:
    lm = make().to(dtype).eval()
    with torch.inference_mode():
        _, cache = lm(torch.zeros(1, 9, 8, dtype=dtype))
    assert sum(kept_bytes(lm, 9, dtype)) == cache.n_bytes()
