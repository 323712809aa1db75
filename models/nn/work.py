"""Floating-point operations of layers, from shapes alone: what the formulas of a whole model are put together from.

One multiplication or one addition is one operation, so a multiply-add is two. `parts` hold what is commonly counted:
matrix products, convolutions, attention, scans. Attention is counted for the keys that a query may see, so causal
attention over L positions has L (L + 1) / 2 pairs. `other` holds norms, activations, softmax and additions, one
operation for each that a value takes part in; an exponential or a square root is one as well. Moving data is none.

Modules are only asked for their sizes, so a network on torch's meta device does as well as one with weights.

Letters
    B   batch, L positions, D channels, N states
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

# Operations for each value.
LAYER_NORM = 7  # mean, difference, square and its sum, scale, weight, bias
RMS_NORM = 4  # square and its sum, scale, weight
GELU = 5  # x / sqrt 2, erf, + 1, times x, times 1/2
SILU = 4  # negation, exp, + 1, quotient
SOFTPLUS = 3  # exp, + 1, log
SOFTMAX = 5  # maximum, difference, exp, sum, quotient


@dataclass(frozen=True)
class Operations:
    """Operations of a piece of work: `parts` by kind, `macs` the multiply-additions among them, and `other`.

    `equivalents` are no part of the sum: what a part would take if it were computed in its plain form.
    """

    parts: Mapping[str, int] = field(default_factory=dict)
    macs: int = 0
    other: int = 0
    equivalents: Mapping[str, int] = field(default_factory=dict)

    @property
    def flops(self) -> int:
        """The sum of all parts."""
        return sum(self.parts.values())

    def __add__(self, more: Operations) -> Operations:
        return Operations(
            parts=_summed(self.parts, more.parts),
            macs=self.macs + more.macs,
            other=self.other + more.other,
            equivalents=_summed(self.equivalents, more.equivalents),
        )

    def times(self, n: int) -> Operations:
        """The same work `n` times."""
        return Operations(
            parts={part: n * flops for part, flops in self.parts.items()},
            macs=n * self.macs,
            other=n * self.other,
            equivalents={part: n * flops for part, flops in self.equivalents.items()},
        )


def _summed(one: Mapping[str, int], two: Mapping[str, int]) -> dict[str, int]:
    return {part: one.get(part, 0) + two.get(part, 0) for part in (*one, *(part for part in two if part not in one))}


def total(pieces: Iterable[Operations]) -> Operations:
    """The sum of pieces of work."""
    whole = Operations()
    for piece in pieces:
        whole = whole + piece
    return whole


def products(part: str, macs: int) -> Operations:
    """So many multiply-additions."""
    return Operations(parts={part: 2 * macs}, macs=macs)


def elementwise(n: int) -> Operations:
    """So many operations outside all parts."""
    return Operations(other=n)


def linear(layer: Any, n_rows: int) -> Operations:
    """A linear layer on `n_rows` vectors, and the low-rank updates that peft put on it."""
    work = products("linear", n_rows * layer.in_features * layer.out_features)
    base = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
    if base.bias is not None:
        work = work + elementwise(n_rows * layer.out_features)
    for name in getattr(layer, "active_adapters", ()):
        if name in layer.lora_A:
            rank = layer.lora_A[name].out_features
            # Scaled, and added to what the frozen layer gave.
            low_rank = products("lora", n_rows * rank * (layer.in_features + layer.out_features))
            work = work + low_rank + elementwise(2 * n_rows * layer.out_features)
    return work


def convolution(layer: nn.Conv1d | nn.Conv2d, n_positions: int) -> Operations:
    """A convolution that gives `n_positions` vectors; taps that lie on padding count, as torch counts them."""
    per_value = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    work = products("convolution", n_positions * layer.out_channels * per_value)
    return work if layer.bias is None else work + elementwise(n_positions * layer.out_channels)


def strided(n: int, layer: nn.Conv2d, axis: int) -> int:
    """Positions along an axis of what a convolution makes of `n`."""
    padding = layer.padding[axis]
    if isinstance(padding, str):
        raise ValueError(f"A padding of {padding!r} is not a number")
    return (n + 2 * padding - layer.kernel_size[axis]) // layer.stride[axis] + 1


def attention(n_pairs: int, n_heads: int, head_width: int) -> Operations:
    """Scores and values of `n_pairs` pairs of a query and a key that it may see, in each head."""
    return products("attention", 2 * n_pairs * n_heads * head_width) + elementwise(SOFTMAX * n_pairs * n_heads)


def causal_pairs(n_queries: int, n_before: int = 0) -> int:
    """Pairs where each query sees itself, the queries before it, and `n_before` positions before all of them."""
    return n_queries * n_before + n_queries * (n_queries + 1) // 2


def mlp(fc1: Any, fc2: Any, n_rows: int) -> Operations:
    """Two linear layers with GELU between."""
    return linear(fc1, n_rows) + elementwise(GELU * n_rows * fc1.out_features) + linear(fc2, n_rows)
