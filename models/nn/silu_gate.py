"""The output gate of a Mamba mixer, y * silu(gate), as one operator.

Compiled rows (numba) on the CPU, torch elsewhere; the gate is read where it lies in its projection, and y, which comes
in float32 from the scan, is brought back to the gate's type on the way.

Letters: B batch, L positions, D channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

from models.nn.causal_conv import runs_compiled


def silu_gate(y_BLD: Tensor, gate_BLD: Tensor) -> Tensor:
    """y * silu(gate) in gate's type, shape (B, L, D); differentiable once."""
    out: Tensor = _gate(y_BLD, gate_BLD)
    return out


@torch.library.custom_op("lalm::silu_gate", mutates_args=())
def _gate(y_BLD: Tensor, gate_BLD: Tensor) -> Tensor:
    if y_BLD.dtype == torch.float32 and runs_compiled(gate_BLD):
        from models.nn import _mixer_numba  # imports numba, which takes most of a second

        return _mixer_numba.gate(y_BLD, gate_BLD)
    return (y_BLD * functional.silu(gate_BLD.to(y_BLD.dtype))).to(gate_BLD.dtype)


@_gate.register_fake
def _gate_fake(y_BLD: Tensor, gate_BLD: Tensor) -> Tensor:
    return torch.empty_like(gate_BLD, memory_format=torch.contiguous_format)


def _keep_for_backward(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad_BLD: Tensor) -> tuple[Tensor, Tensor]:
    y_BLD, gate_BLD = ctx.saved_tensors
    grad, gate = grad_BLD.to(y_BLD.dtype), gate_BLD.to(y_BLD.dtype)
    rise = torch.sigmoid(gate)
    grad_gate = grad * y_BLD * (rise * (1 + gate * (1 - rise)))
    return grad * gate * rise, grad_gate.to(gate_BLD.dtype)


_gate.register_autograd(_differentiate, setup_context=_keep_for_backward)


@register_flop_formula(torch.ops.lalm.silu_gate)
def _flops(y_shape: Any, gate_shape: Any, *args: Any, **kwargs: Any) -> int:
    """One for each value, as Mamba's authors count it (state-spaces/mamba#110); SiLU is no part of that."""
    n_batch, n_steps, n_channels = y_shape
    return int(n_batch * n_steps * n_channels)
