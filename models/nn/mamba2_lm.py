"""Mamba-2 language model (arXiv 2405.21060), with the parameter names of transformers' `Mamba2ForCausalLM`.

The recurrence is computed in chunks by matrix products (section 6 of the paper, "SSD"): within a chunk as masked
attention, between chunks through the state. Only a few chunks are held at a time, so memory beyond the activations
does not grow with L, and nothing of size L x D x N is made. Equals transformers' model on the same weights
(tests/test_nn_mamba2_lm.py).

Letters
    B   batch, L positions, E model width
    D   inner width = H heads of P channels, N state size, G groups of heads that share B and C, W convolution width
    C   chunks handled at once, Q positions in a chunk (q reads, s is read)
    X   channels of the convolution, D + 2 G N
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.nn.causal_conv import causal_conv_silu, causal_conv_silu_step, inputs_to_keep
from models.nn.recurrent_lm import MambaBlock, MambaCache, RecurrentLM, RMSNorm, first_step_sizes, masked, rms_normed
from models.nn.scan_flops import tell_mamba2_step

CHUNK = 64  # positions: on CPUs 64 to 128 are fastest, 256 is three times slower
CHUNKS_AT_ONCE = 16


@dataclass(frozen=True)
class Mamba2Config:
    """Sizes of a Mamba-2 language model; `step_limits` are bounds on the step size after softplus."""

    vocab_size: int
    width: int
    n_layers: int
    d_state: int = 128
    head_width: int = 64
    n_groups: int = 1
    d_conv: int = 4
    expand: int = 2
    norm_eps: float = 1e-5
    tied_head: bool = True
    residual_in_float32: bool = True
    conv_bias: bool = True
    proj_bias: bool = False
    step_limits: tuple[float, float] = (0.0, math.inf)

    def __post_init__(self) -> None:
        if self.inner % self.head_width:
            raise ValueError(f"{self.inner} channels cannot be split into heads of {self.head_width}.")
        if self.n_heads % self.n_groups:
            raise ValueError(f"{self.n_heads} heads cannot be split into {self.n_groups} groups.")

    @property
    def inner(self) -> int:
        """Inner width D."""
        return self.expand * self.width

    @property
    def n_heads(self) -> int:
        """Heads H."""
        return self.inner // self.head_width

    @property
    def conv_width(self) -> int:
        """Channels X that pass the convolution: input, B and C."""
        return self.inner + 2 * self.n_groups * self.d_state


def ssd_scan(
    x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, state_BHPN: Tensor
) -> tuple[Tensor, Tensor]:
    """The recurrence h = exp(dt A) h + dt x B', y = h C, in chunks.

    Args:
        dt_BLH: step sizes, after softplus.
        A_H: negative.
        state_BHPN: before the first position.

    Returns:
        y, shape (B, L, H, P), and the state after the last position.
    """
    n_steps, outputs = x_BLHP.shape[1], []
    for start in range(0, n_steps, CHUNK * CHUNKS_AT_ONCE):
        here = slice(start, start + CHUNK * CHUNKS_AT_ONCE)
        n_here = min(n_steps - start, CHUNK * CHUNKS_AT_ONCE)
        # Short input is one short chunk. Steps of size 0 fill the last chunk: they neither decay nor push.
        length = min(n_here, CHUNK)
        chunks = [_in_chunks(part[:, here], length) for part in (x_BLHP, dt_BLH, B_BLGN, C_BLGN)]
        y, state_BHPN = _scan_chunks(chunks[0], chunks[1], A_H, chunks[2], chunks[3], state_BHPN)
        outputs.append(y[:, :n_here])
    return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0], state_BHPN


def _in_chunks(part: Tensor, length: int) -> Tensor:
    """(B, L, ...) to (B, C, Q, ...), zeros at the end."""
    missing = -part.shape[1] % length
    if missing:
        part = torch.cat([part, part.new_zeros(part.shape[0], missing, *part.shape[2:])], dim=1)
    chunks: Tensor = part.unflatten(1, (-1, length))
    return chunks


def _scan_chunks(
    x_BCQHP: Tensor, dt_BCQH: Tensor, A_H: Tensor, B_BCQGN: Tensor, C_BCQGN: Tensor, state_BHPN: Tensor
) -> tuple[Tensor, Tensor]:
    n_per_group = x_BCQHP.shape[3] // B_BCQGN.shape[3]
    values_BCHQP = (x_BCQHP * dt_BCQH.unsqueeze(-1)).transpose(2, 3)
    reads_BCGQN, writes_BCGQN = C_BCQGN.transpose(2, 3), B_BCQGN.transpose(2, 3)
    since_BCHQ, within_BCHqs = _decays((dt_BCQH * A_H).transpose(2, 3))
    scores_BCGqs = reads_BCGQN @ writes_BCGQN.transpose(-1, -2)
    scores_BCHqs = _per_head(scores_BCGqs, n_per_group) * within_BCHqs
    y_BCHQP = scores_BCHqs @ values_BCHQP
    # What each chunk adds to the state: the last row of `within` is the decay from each position to the chunk's end.
    left_BCHQ = within_BCHqs[..., -1, :]
    pushed_BCHPN = (values_BCHQP * left_BCHQ.unsqueeze(-1)).transpose(-1, -2) @ _per_head(writes_BCGQN, n_per_group)
    states = []
    for chunk in range(x_BCQHP.shape[1]):
        states.append(state_BHPN)
        state_BHPN = state_BHPN * since_BCHQ[:, chunk, :, -1, None, None] + pushed_BCHPN[:, chunk]
    carried_BCHQP = _per_head(reads_BCGQN, n_per_group) @ torch.stack(states, dim=1).transpose(-1, -2)
    y_BCHQP = y_BCHQP + carried_BCHQP * since_BCHQ.unsqueeze(-1)
    return y_BCHQP.transpose(2, 3).flatten(1, 2), state_BHPN


def _decays(rates_BCHQ: Tensor) -> tuple[Tensor, Tensor]:
    """exp of the sum of rates from the chunk's start to each position, and from after s to q (0 where s > q).

    Sums are float64: differences of long float32 sums would lose what is left of a short span.
    """
    sums = rates_BCHQ.double().cumsum(-1)
    n = sums.shape[-1]
    future = torch.ones(n, n, dtype=torch.bool, device=sums.device).triu(1)
    spans = (sums.unsqueeze(-1) - sums.unsqueeze(-2)).to(rates_BCHQ.dtype)
    return torch.exp(sums.to(rates_BCHQ.dtype)), torch.exp(spans.masked_fill(future, -math.inf))


def _per_head(groups: Tensor, n_per_group: int) -> Tensor:
    """(B, C, G, ...) to (B, C, H, ...); a view where there is one group."""
    if groups.shape[2] == 1:
        size: list[int] = [*groups.shape[:2], n_per_group, *groups.shape[3:]]
        return groups.expand(size)
    return groups.repeat_interleave(n_per_group, dim=2)


class GatedRMSNorm(nn.Module):
    """y * silu(gate), then a root-mean-square norm over each group of channels."""

    def __init__(self, width: int, n_groups: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.n_groups = n_groups
        self.eps = eps

    def forward(self, y: Tensor, gate: Tensor) -> Tensor:
        y = y * functional.silu(gate.to(y.dtype))
        normed = rms_normed(y.unflatten(-1, (self.n_groups, -1)), self.eps).flatten(-2)
        return self.weight * normed.to(self.weight.dtype)


class Mamba2Mixer(nn.Module):
    """Project, convolve over time, scan in chunks, gate and norm, project."""

    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        self.config = config
        width = config.conv_width
        self.in_proj = nn.Linear(config.width, config.inner + width + config.n_heads, bias=config.proj_bias)
        self.conv1d = nn.Conv1d(width, width, config.d_conv, groups=width, bias=config.conv_bias)
        self.dt_bias = nn.Parameter(first_step_sizes(config.n_heads))
        self.A_log = nn.Parameter(torch.log(torch.empty(config.n_heads).uniform_(1, 16)))
        self.D = nn.Parameter(torch.ones(config.n_heads))
        self.norm = GatedRMSNorm(config.inner, config.n_groups, config.norm_eps)
        self.out_proj = nn.Linear(config.inner, config.width, bias=config.proj_bias)
        with torch.no_grad():
            self.out_proj.weight /= math.sqrt(config.n_layers)

    def forward(
        self, x_BLE: Tensor, conv: Tensor, state: Tensor, mask_BL: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One pass over L positions that continue from (conv, state); padding as in `MambaMixer`."""
        gate_BLD, xs_BLX, dt_BLH = self._split(self.in_proj(x_BLE))
        xs_BLX = masked(xs_BLX, mask_BL)
        u_BLX = masked(causal_conv_silu(xs_BLX, conv, self.conv1d.weight, self.conv1d.bias), mask_BL)
        u_BLHP, B_BLGN, C_BLGN = self._heads(u_BLX)
        y_BLHP, state = ssd_scan(u_BLHP, self._step_sizes(dt_BLH), self._rates(state), B_BLGN, C_BLGN, state)
        y_BLHP = y_BLHP + u_BLHP * self.D.to(state.dtype).unsqueeze(-1)
        out: Tensor = self.out_proj(self.norm(y_BLHP.flatten(2), gate_BLD))
        return out, inputs_to_keep(xs_BLX, conv), state

    def step(self, x_BE: Tensor, conv: Tensor, state: Tensor, ready: None) -> tuple[Tensor, Tensor, Tensor]:
        """One position, by the recurrence."""
        config = self.config
        tell_mamba2_step(len(x_BE), config.inner, config.d_state, config.conv_width, config.d_conv)
        gate_BD, xs_BX, dt_BH = self._split(self.in_proj(x_BE))
        u_BX = causal_conv_silu_step(xs_BX, conv, self.conv1d.weight, self.conv1d.bias).to(state.dtype)
        u_BHP, B_BGN, C_BGN = self._heads(u_BX)
        n_per_group = config.n_heads // config.n_groups
        B_BHN, C_BHN = (part.repeat_interleave(n_per_group, dim=1) for part in (B_BGN, C_BGN))
        dt_BH = self._step_sizes(dt_BH)
        pushed_BHP = dt_BH.unsqueeze(-1) * u_BHP
        state = state * torch.exp(dt_BH * self._rates(state))[..., None, None]
        state = state + pushed_BHP.unsqueeze(-1) * B_BHN.unsqueeze(-2)
        y_BHP = (state @ C_BHN.unsqueeze(-1)).squeeze(-1) + u_BHP * self.D.to(state.dtype).unsqueeze(-1)
        out: Tensor = self.out_proj(self.norm(y_BHP.flatten(1), gate_BD))
        return out, torch.cat([conv[:, 1:], xs_BX.unsqueeze(1)], dim=1), state

    def _split(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gate, input of the convolution, step size."""
        config = self.config
        gate, xs, dt = projected.split([config.inner, config.conv_width, config.n_heads], dim=-1)
        return gate, xs, dt

    def _heads(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Input (..., H, P), B and C (..., G, N)."""
        config = self.config
        n = config.n_groups * config.d_state
        u, b, c = u.split([config.inner, n, n], dim=-1)
        groups = (config.n_groups, config.d_state)
        return u.unflatten(-1, (config.n_heads, config.head_width)), b.unflatten(-1, groups), c.unflatten(-1, groups)

    def _step_sizes(self, dt: Tensor) -> Tensor:
        wide = torch.float64 if dt.dtype == torch.float64 else torch.float32
        low, high = self.config.step_limits
        return functional.softplus(dt.to(wide) + self.dt_bias.to(wide)).clamp(low, high)

    def _rates(self, state: Tensor) -> Tensor:
        """A of each head."""
        return -torch.exp(self.A_log.to(state.dtype))


class Mamba2LM(RecurrentLM):
    """Mamba-2; the head shares the embedding's weight unless the config says otherwise."""

    def __init__(self, config: Mamba2Config) -> None:
        def block() -> MambaBlock:
            return MambaBlock(RMSNorm(config.width, config.norm_eps), Mamba2Mixer(config))

        super().__init__(config, block)
        self.config: Mamba2Config = config

    def empty_cache(self, batch: int) -> MambaCache:
        config, weight = self.config, self.backbone.embeddings.weight
        conv = weight.new_zeros(batch, config.d_conv - 1, config.conv_width)
        state_type = weight.dtype if weight.dtype == torch.float64 else torch.float32
        shape = (batch, config.n_heads, config.head_width, config.d_state)
        state = torch.zeros(shape, dtype=state_type, device=weight.device)
        return MambaCache([conv] * config.n_layers, [state] * config.n_layers)
