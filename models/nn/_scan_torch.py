"""Selective scan in plain torch: any device, any floating type, forward and backward written out.

Works through the steps in chunks of CHUNK. Within a chunk everything but the recurrence is one tensor operation, and
the recurrence is one `addcmul` a step. The forward pass keeps the state at the start of every chunk; the backward pass
recomputes one chunk at a time, so nothing of size L x K x D x N is ever held. Autograd through the plain loop costs at
least quadratic time in L, which is why the backward pass is written out.

Letters as in `models.nn.selective_scan`; t is a step within the chunk. States are (B, K, N, D) here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 32  # steps between saved states


class _Chunk(NamedTuple):
    """What one chunk reads, gathered into scan order, and what the recurrence needs."""

    u_TBKD: Tensor
    raw_TBKD: Tensor  # delta + delta_bias
    dt_TBKD: Tensor
    B_TBKN: Tensor
    C_TBKN: Tensor
    decay_TBKND: Tensor
    states_TBKND: Tensor


def _gather(values: Tensor, positions_TK: Tensor) -> Tensor:
    """Picks (B, L, K, X) at one position per step and direction: (T, B, K, X)."""
    directions = torch.arange(positions_TK.shape[1], device=values.device)
    return values[:, positions_TK, directions].transpose(0, 1)


def _run_chunk(
    u: Tensor, delta: Tensor, a_KND: Tensor, b_in: Tensor, c_out: Tensor, bias: Tensor, positions_TK: Tensor,
    start_BKND: Tensor,
) -> _Chunk:  # fmt: skip
    u_TBKD = u[:, positions_TK].transpose(0, 1)
    raw = _gather(delta, positions_TK) + bias
    dt = F.softplus(raw)
    B_TBKN, C_TBKN = _gather(b_in, positions_TK), _gather(c_out, positions_TK)
    decay = torch.exp_(dt.unsqueeze(-2) * a_KND)
    states = B_TBKN.unsqueeze(-1) * (dt * u_TBKD).unsqueeze(-2)
    state = start_BKND
    for here, factor in zip(states.unbind(0), decay.unbind(0), strict=True):
        state = here.addcmul_(factor, state)
    return _Chunk(u_TBKD, raw, dt, B_TBKN, C_TBKN, decay, states)


def _weighted_sum(weights_TBKN: Tensor, values_TBKND: Tensor) -> Tensor:
    """Sum over n of weights * values: (T, B, K, D)."""
    if weights_TBKN.shape[-1] == 1:
        return (weights_TBKN.unsqueeze(-1) * values_TBKND).squeeze(-2)
    return torch.matmul(weights_TBKN.unsqueeze(-2), values_TBKND).squeeze(-2)


def _add_at(target_BLD: Tensor, positions_TK: Tensor, values_TBKD: Tensor) -> None:
    """Adds each direction's values at its positions, one direction at a time so that no position repeats."""
    for k in range(positions_TK.shape[1]):
        target_BLD.index_add_(1, positions_TK[:, k], values_TBKD[:, :, k].transpose(0, 1))


def _set_at(target_BLKX: Tensor, positions_TK: Tensor, values_TBKX: Tensor) -> None:
    directions = torch.arange(positions_TK.shape[1], device=target_BLKX.device)
    target_BLKX[:, positions_TK, directions] = values_TBKX.transpose(0, 1)


def forward(
    u: Tensor, delta: Tensor, a: Tensor, b_in: Tensor, c_out: Tensor, skip: Tensor, bias: Tensor, order: Tensor,
    start: Tensor, saved: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Runs the scan; `saved` (B, K, chunks, N, D) is filled when it has chunks."""
    y = torch.zeros_like(u, memory_format=torch.contiguous_format)
    a_KND = a.transpose(1, 2)
    state = start
    for index, positions_KT in enumerate(order.split(CHUNK, dim=1)):
        positions = positions_KT.t()
        if saved.shape[2]:
            saved[:, :, index] = state
        chunk = _run_chunk(u, delta, a_KND, b_in, c_out, bias, positions, state)
        _add_at(y, positions, _weighted_sum(chunk.C_TBKN, chunk.states_TBKND) + skip * chunk.u_TBKD)
        state = chunk.states_TBKND[-1]
    return y, state.clone(memory_format=torch.contiguous_format)


def _state_gradients(chunk: _Chunk, gy_TBKD: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of every state in the chunk (T, B, K, N, D), and of the state before it."""
    gradients = chunk.C_TBKN.unsqueeze(-1) * gy_TBKD.unsqueeze(-2)
    steps = zip(gradients.unbind(0), chunk.decay_TBKND.unbind(0), strict=True)
    for here, factor in reversed(list(steps)):
        here.add_(carried)
        carried = here * factor
    return gradients, carried


def backward(
    u: Tensor, delta: Tensor, a: Tensor, b_in: Tensor, c_out: Tensor, skip: Tensor, bias: Tensor, order: Tensor,
    saved: Tensor, gy: Tensor, gfinal: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of u, delta, A, B, C, D, delta_bias and the initial state (B, K, N, D), in that order."""
    a_KND = a.transpose(1, 2)
    gu = torch.zeros_like(u, memory_format=torch.contiguous_format)
    gdelta, gb, gc = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (delta, b_in, c_out))
    ga, gskip, gbias = torch.zeros_like(a_KND), torch.zeros_like(skip), torch.zeros_like(bias)
    carried = gfinal
    chunks = order.split(CHUNK, dim=1)
    for index in range(len(chunks) - 1, -1, -1):
        positions = chunks[index].t()
        start = saved[:, :, index]
        chunk = _run_chunk(u, delta, a_KND, b_in, c_out, bias, positions, start)
        gy_TBKD = gy[:, positions].transpose(0, 1)
        g, carried = _state_gradients(chunk, gy_TBKD, carried)
        through = g * chunk.decay_TBKND
        through[0] *= start
        through[1:] *= chunk.states_TBKND[:-1]
        g_in = _weighted_sum(chunk.B_TBKN, g)
        g_dt = (through * a_KND).sum(-2) + g_in * chunk.u_TBKD
        g_raw = torch.where(chunk.raw_TBKD > 20, g_dt, g_dt * torch.sigmoid(chunk.raw_TBKD))
        ga += torch.einsum("tbknd,tbkd->knd", through, chunk.dt_TBKD)
        gskip += (gy_TBKD * chunk.u_TBKD).sum((0, 1))
        gbias += g_raw.sum((0, 1))
        _add_at(gu, positions, g_in * chunk.dt_TBKD + skip * gy_TBKD)
        _set_at(gdelta, positions, g_raw)
        du = (chunk.dt_TBKD * chunk.u_TBKD).unsqueeze(-1)
        _set_at(gb, positions, torch.matmul(g, du).squeeze(-1))
        _set_at(gc, positions, torch.matmul(chunk.states_TBKND, gy_TBKD.unsqueeze(-1)).squeeze(-1))
    return gu, gdelta, ga.transpose(1, 2), gb, gc, gskip, gbias, carried
