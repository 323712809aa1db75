"""Floating-point operations of a language model, reading and speaking apart, and the bytes that it keeps.

From sizes alone: nothing is run. Reading comes in chunks because long audio does, and because Mamba-2's chunked scan
pads each of them. Speaking is one position at a time.

Letters
    L   positions, E model width
    D   inner width, N states, R rank of the step size, W taps; H heads, P channels of a head, G groups (Mamba-2)
    Q   positions in a chunk of Mamba-2's scan
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from models.nn.llama_lm import LlamaLM
from models.nn.mamba2_lm import CHUNK, CHUNKS_AT_ONCE, Mamba2Config, Mamba2LM
from models.nn.mamba_lm import MambaConfig, MambaLM
from models.nn.recurrent_lm import RecurrentLM
from models.nn.scan_flops import recurrence_flops, scan_flops
from models.nn.work import (
    RMS_NORM,
    SILU,
    SOFTPLUS,
    Operations,
    attention,
    causal_pairs,
    convolution,
    elementwise,
    linear,
    products,
    total,
)

RECURRENT_SCAN = "scan as a recurrence"
"""Name of what Mamba-2's scan would take step by step."""


class Kept(NamedTuple):
    """Bytes that a language model keeps for one sequence: growing with each token, and constant."""

    growing: int
    constant: int


def reading_work(lm: Any, chunks: Sequence[int]) -> Operations:
    """One sequence read in chunks, and the logits after its last position."""
    work, n_before = Operations(), 0
    for n in chunks:
        work = work + positions_work(lm, n, n_before)
        n_before += n
    return work + head_work(lm, 1)


def speaking_work(lm: Any, n_heard: int, n_tokens: int) -> Operations:
    """`n_tokens` more steps after `n_heard` positions, with their logits."""
    steps = total(positions_work(lm, 1, n_heard + t, is_step=True) for t in range(n_tokens))
    return steps + head_work(lm, n_tokens)


def positions_work(lm: Any, n: int, n_before: int, is_step: bool = False) -> Operations:
    """`n` positions after `n_before` others, without logits.

    Args:
        is_step: by `LanguageModel.step`, which for Mamba-2 is the recurrence.
    """
    if isinstance(lm, LlamaLM):
        return _llama(lm, n, n_before)
    if isinstance(lm, MambaLM):
        layers = total(_mamba_layer(layer.mixer, lm.config, n) for layer in lm.blocks)
    elif isinstance(lm, Mamba2LM):
        layers = total(_mamba2_layer(layer.mixer, lm.config, n, is_step) for layer in lm.blocks)
    else:
        raise TypeError(f"No formula for the language model {type(lm).__name__}")
    # A norm and a residual sum in each layer, and the final norm.
    return layers + elementwise(n * lm.width * (lm.config.n_layers * (RMS_NORM + 1) + RMS_NORM))


def head_work(lm: Any, n: int) -> Operations:
    """Logits of `n` positions."""
    if isinstance(lm, LlamaLM):
        return linear(lm.network.lm_head, n)
    return products("linear", n * lm.width * lm.config.vocab_size)


# --- LLaMA -----------------------------------------------------------------------------------------------------------


def _llama(lm: LlamaLM, n: int, n_before: int) -> Operations:
    config = lm.config
    head_width = _head_width(config)
    # Once for all layers: positions times rates, sines and cosines.
    angles = elementwise(n * (head_width // 2) + 2 * n * head_width)
    mixed = attention(causal_pairs(n, n_before), config.num_attention_heads, head_width)
    layers: Any = lm.network.model.layers
    norms = elementwise(n * config.hidden_size * RMS_NORM)
    return angles + norms + total(_llama_layer(layer, n) + mixed for layer in layers)


def _head_width(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _llama_layer(layer: Any, n: int) -> Operations:
    """One layer without the attention between positions."""
    own, mlp = layer.self_attn, layer.mlp
    linears = (own.q_proj, own.k_proj, own.v_proj, own.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    rotated = own.q_proj.out_features + own.k_proj.out_features
    width, hidden = own.q_proj.in_features, mlp.gate_proj.out_features
    # Rotary embedding, two norms and residual sums, gate.
    around = elementwise(n * (3 * rotated + width * (2 * RMS_NORM + 2) + hidden * (SILU + 1)))
    return total(linear(one, n) for one in linears) + around


# --- Mamba -----------------------------------------------------------------------------------------------------------


def _mamba_layer(mixer: Any, config: MambaConfig, n: int) -> Operations:
    inner, n_states = config.inner, config.d_state
    scan = Operations(parts={"scan": scan_flops(1, n, inner, n_states)}, macs=2 * n * inner * n_states)
    gate = Operations(parts={"gate": n * inner}, other=SILU * n * inner)
    norms = 0 if config.mixer_norm_eps is None else (RMS_NORM - 1) * n * (config.rank + 2 * n_states)
    linears = (mixer.in_proj, mixer.x_proj, mixer.dt_proj, mixer.out_proj)
    # SiLU after the convolution, softplus of the step size.
    around = elementwise((SILU + SOFTPLUS) * n * inner + norms)
    return total(linear(one, n) for one in linears) + convolution(mixer.conv1d, n) + scan + gate + around


# --- Mamba-2 ---------------------------------------------------------------------------------------------------------


def _mamba2_layer(mixer: Any, config: Mamba2Config, n: int, is_step: bool) -> Operations:
    inner = config.inner
    plain = recurrence_flops(1, n, inner, config.d_state)
    scan = _recurrence(config) if is_step else _chunked_scan(config, n)
    # SiLU after the convolution; step sizes; skip; gate and its norm.
    around = n * (SILU * config.conv_width + (SOFTPLUS + 3) * config.n_heads + inner * (2 + SILU + 1 + RMS_NORM))
    work = linear(mixer.in_proj, n) + convolution(mixer.conv1d, n) + linear(mixer.out_proj, n)
    return work + scan + Operations(other=around, equivalents={RECURRENT_SCAN: plain})


def _recurrence(config: Mamba2Config) -> Operations:
    """One position: decay plus input, and the product with C, are a multiply-addition of each state."""
    n_states = config.inner * config.d_state
    flops = recurrence_flops(1, 1, config.inner, config.d_state)
    return Operations(parts={"scan": flops}, macs=2 * n_states, other=config.inner + 2 * config.n_heads)


def _chunked_scan(config: Mamba2Config, n: int) -> Operations:
    """`ssd_scan` over `n` positions: the products of each chunk, as they are computed, the padding of the last too."""
    work, step = Operations(), CHUNK * CHUNKS_AT_ONCE
    for start in range(0, n, step):
        n_here = min(n - start, step)
        length = min(n_here, CHUNK)
        work = work + _one_chunk(config, length).times(math.ceil(n_here / length))
    return work


def _one_chunk(config: Mamba2Config, n: int) -> Operations:
    inner, n_states, heads, groups = config.inner, config.d_state, config.n_heads, config.n_groups
    scores = products("scan", groups * n * n * n_states)
    values = products("scan", n * n * inner)
    pushed_and_carried = products("scan", 2 * n * inner * n_states)
    # Decays between all pairs of positions and their product with the scores; between chunks the state decays and
    # takes what was pushed; inputs times step sizes, decays of what is pushed and of what was carried, and a sum.
    around = 3 * heads * n * n + 2 * inner * n_states + 4 * n * inner + 3 * n * heads
    return scores + values + pushed_and_carried + elementwise(around)


# --- what is kept ----------------------------------------------------------------------------------------------------


def kept_bytes(lm: Any, n_tokens: int, dtype: torch.dtype) -> Kept:
    """Bytes of the cache after `n_tokens` positions of one sequence, as `n_bytes` of the cache counts them.

    Args:
        dtype: of the weights; recurrent states are kept in float32 at least.
    """
    if isinstance(lm, LlamaLM):
        llama: Any = lm.config
        per_token = 2 * llama.num_hidden_layers * llama.num_key_value_heads * _head_width(llama)
        return Kept(n_tokens * per_token * dtype.itemsize, 0)
    if isinstance(lm, RecurrentLM):
        config: Any = lm.config
        width = config.conv_width if isinstance(config, Mamba2Config) else config.inner
        state = config.inner * config.d_state * max(dtype.itemsize, torch.float32.itemsize)
        return Kept(0, config.n_layers * (width * (config.d_conv - 1) * dtype.itemsize + state))
    raise TypeError(f"No formula for the language model {type(lm).__name__}")
