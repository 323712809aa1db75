"""Operations of torch's own operators that torch's counter lacks, or counts otherwise than this project does.

torch counts no attention on the CPU and no Fourier transform anywhere, and causal attention as if every query saw
every key (torch 2.13, torch/utils/flop_counter.py). Here attention is 2 d operations for the score and 2 d for the
value of each pair of a query and a key that it may see; its backward pass has five such products for two. A transform
of n real values takes 2.5 n log2 n operations, of complex ones twice as many.

A formula takes the operator's arguments by name, and what it returned. Operators are named as torch prints them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Arguments = Mapping[str, Any]
Formula = Callable[[Arguments, Any], int]

# Of the scores, added to by a mask: what is below is not seen. Masks hold minus infinity or a type's least number.
UNSEEN = -1e4


def visible_pairs(arguments: Arguments) -> int:
    """Pairs of a query and a key that it may see, over the whole batch and all heads.

    A mask whose values cannot be read, because it is only an outline, hides nothing.
    """
    outer, n_queries, n_keys = arguments["query"].shape[:-2], arguments["query"].shape[-2], arguments["key"].shape[-2]
    n_maps = math.prod(outer)
    if arguments.get("is_causal"):
        return int(n_maps * sum(min(i + 1, n_keys) for i in range(n_queries)))
    mask = next((arguments[name] for name in ("attn_mask", "attn_bias") if arguments.get(name) is not None), None)
    if mask is None or not _is_readable(mask):
        return int(n_maps * n_queries * n_keys)
    seen = mask if str(mask.dtype) == "torch.bool" else mask > UNSEEN
    # One mask often serves many heads, and one row many queries.
    return int(seen.sum()) * int(n_maps * n_queries * n_keys // mask.numel())


def _is_readable(tensor: torch.Tensor) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor

    return not (tensor.is_meta or isinstance(tensor, FakeTensor))


def attention(arguments: Arguments, out: Any) -> int:
    """Scores and values."""
    return 2 * visible_pairs(arguments) * sum(_widths(arguments))


def attention_backward(arguments: Arguments, out: Any) -> int:
    """Scores again; gradients of scores, values, queries and keys."""
    width, value_width = _widths(arguments)
    return 2 * visible_pairs(arguments) * (3 * width + 2 * value_width)


def _widths(arguments: Arguments) -> tuple[int, int]:
    """Of queries and keys, and of values."""
    return int(arguments["query"].shape[-1]), int(arguments["value"].shape[-1])


def _fourier(per_point: float, shape: Any, axes: Any) -> int:
    n = math.prod(shape[axis] for axis in axes)
    return round(per_point * math.prod(shape) * math.log2(n)) if n > 1 else 0


def fourier_of_real(arguments: Arguments, out: Any) -> int:
    """Real to complex: by the shape of what goes in."""
    return _fourier(2.5, arguments["self"].shape, arguments["dim"])


def fourier_to_real(arguments: Arguments, out: Any) -> int:
    """Complex to real: by the shape of what comes out."""
    return _fourier(2.5, out.shape, arguments["dim"])


def fourier_of_complex(arguments: Arguments, out: Any) -> int:
    """Complex to complex."""
    return _fourier(5.0, arguments["self"].shape, arguments["dim"])


def dot(arguments: Arguments, out: Any) -> int:
    """Of two vectors."""
    return 2 * int(arguments["self"].numel())


def matrix_times_vector(arguments: Arguments, out: Any) -> int:
    """Of mv and addmv."""
    return 2 * int(arguments["mat" if "mat" in arguments else "self"].numel())


def summed_products(arguments: Arguments, out: Any) -> int:
    """Of addbmm: a batch of products, added up."""
    return 2 * int(arguments["batch1"].numel()) * int(arguments["batch2"].shape[-1])


_SDPA = "aten._scaled_dot_product"
_WITH_BACKWARD = (
    "flash_attention_for_cpu",
    "flash_attention",
    "efficient_attention",
    "cudnn_attention",
    "fused_attention_overrideable",
)
# torch has no backward operator of these.
_FORWARD_ALONE = ("attention_math", "attention_math_for_mps")
FORMULAS: Mapping[str, Formula] = {
    **{f"{_SDPA}_{backend}": attention for backend in (*_WITH_BACKWARD, *_FORWARD_ALONE)},
    **{f"{_SDPA}_{backend}_backward": attention_backward for backend in _WITH_BACKWARD},
    "aten._fft_r2c": fourier_of_real,
    "aten._fft_c2r": fourier_to_real,
    "aten._fft_c2c": fourier_of_complex,
    "aten.dot": dot,
    "aten.vdot": dot,
    "aten.mv": matrix_times_vector,
    "aten.addmv": matrix_times_vector,
    "aten.addbmm": summed_products,
}
