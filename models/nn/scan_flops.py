"""Floating-point operations of the scan and of single steps of it, told to torch's FLOP counter.

The convention of Mamba's authors and of VMamba: 9 operations per step, channel and state (discretisation, input times
B, an associative scan, the product with C), and one per step and channel for the skip (state-spaces/mamba#110;
VMamba's `flops_selective_scan_fn`). It says what the scan is, not what a backend does, so counts do not depend on the
backend. One multiply-add is two operations, as in `torch.utils.flop_counter`.

A decoding step is many small operations, or one compiled loop that torch never sees. So `tell_mamba_step` and
`tell_mamba2_step` announce what it does by operators that carry a number and do nothing; while nobody counts, they
cost one look at a flag.

Letters: B batch, L steps, K directions, D channels, N states, X channels of the convolution, W its taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

OPERATIONS_PER_STATE = 9
OPERATIONS_PER_CHANNEL = 1  # D * u
# Of Mamba-2's recurrence: decay, input times B, their sum; and the product with C.
UPDATE_PER_STATE = 3
READ_PER_STATE = 2
# Names of the operators that only carry a number.
STEP_OPERATORS = ("scan_step", "causal_conv_step", "gate_step")


def scan_flops(n_batch: int, n_steps: int, n_channels: int, n_states: int, n_directions: int = 1) -> int:
    """9 B L K D N + B L K D: operations of one forward pass."""
    per_channel = OPERATIONS_PER_STATE * n_states + OPERATIONS_PER_CHANNEL
    return n_batch * n_steps * n_directions * n_channels * per_channel


def scan_backward_flops(n_batch: int, n_steps: int, n_channels: int, n_states: int, n_directions: int = 1) -> int:
    """Twice the forward pass, as the counter has it for matrix products; recomputing states is not counted."""
    return 2 * scan_flops(n_batch, n_steps, n_channels, n_states, n_directions)


def recurrence_flops(n_batch: int, n_steps: int, n_channels: int, n_states: int) -> int:
    """5 B L D N: Mamba-2's recurrence step by step, the plain form of its scan in chunks."""
    return (UPDATE_PER_STATE + READ_PER_STATE) * n_batch * n_steps * n_channels * n_states


def tell_mamba_step(n_batch: int, n_channels: int, n_states: int, n_taps: int) -> None:
    """Announces a decoding step of one Mamba layer: its scan, its convolution and its gate."""
    if not is_in_torch_dispatch_mode():
        return
    torch.ops.lalm.scan_step(scan_flops(n_batch, 1, n_channels, n_states))
    torch.ops.lalm.causal_conv_step(2 * n_batch * n_channels * n_taps)
    torch.ops.lalm.gate_step(n_batch * n_channels)


def tell_mamba2_step(n_batch: int, n_channels: int, n_states: int, n_conv_channels: int, n_taps: int) -> None:
    """Announces a decoding step of one Mamba-2 layer, but for the product with C, which torch sees."""
    if not is_in_torch_dispatch_mode():
        return
    torch.ops.lalm.scan_step(UPDATE_PER_STATE * n_batch * n_channels * n_states)
    torch.ops.lalm.causal_conv_step(2 * n_batch * n_conv_channels * n_taps)


def register_scan_flops() -> None:
    """Makes `FlopCounterMode` count `lalm::selective_scan` and its backward pass. May be called again.

    `models.nn.selective_scan` calls this where it defines the operators.
    """
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    for operator, formula in (
        (torch.ops.lalm.selective_scan, _forward_formula),
        (torch.ops.lalm.selective_scan_backward, _backward_formula),
    ):
        if operator not in flop_registry:
            register_flop_formula([operator])(formula)


def _sizes(u_shape: Sequence[int], a_shape: Sequence[int]) -> tuple[int, int, int, int, int]:
    n_batch, n_steps, n_channels = u_shape
    n_directions, _, n_states = a_shape
    return n_batch, n_steps, n_channels, n_states, n_directions


def _forward_formula(
    u_shape: Sequence[int], delta_shape: Sequence[int], a_shape: Sequence[int], *args: Any, **kwargs: Any
) -> int:
    return scan_flops(*_sizes(u_shape, a_shape))


def _backward_formula(
    u_shape: Sequence[int], delta_shape: Sequence[int], a_shape: Sequence[int], *args: Any, **kwargs: Any
) -> int:
    return scan_backward_flops(*_sizes(u_shape, a_shape))


def _nothing(flops: int) -> None:
    """What the announcing operators compute."""


def _as_told(flops: int, *args: Any, **kwargs: Any) -> int:
    return flops


def _define_step_operators() -> torch.library.Library:
    from torch.utils.flop_counter import register_flop_formula

    library = torch.library.Library("lalm", "FRAGMENT")
    for name in STEP_OPERATORS:
        library.define(f"{name}(int flops) -> ()")
        library.impl(name, _nothing, "CompositeExplicitAutograd")
        register_flop_formula([getattr(torch.ops.lalm, name)])(_as_told)
    return library


# Kept: the operators live as long as this does.
_LIBRARY = _define_step_operators()
