"""Mamba language model (arXiv 2312.00752) and its variant Falcon-Mamba (arXiv 2410.05355).

Parameters have the names of transformers' `MambaForCausalLM` and `FalconMambaForCausalLM`, and the model equals theirs
on the same weights (tests/test_nn_mamba_lm.py), with three differences of form. Tensors stay time-major (B, L, D) from
end to end, so that no layer copies its activations into another layout. Every projection is called as a module, so
that a LoRA on any of them takes part on every backend. In half precision the norm reads the residual, which is kept in
float32, without rounding it first.

Letters
    B   batch, L positions, V vocabulary
    E   model width
    D   inner width (expand * E), N state size, R rank of the step size, W convolution width
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.nn.causal_conv import causal_conv_silu, causal_conv_silu_step, inputs_to_keep, runs_compiled
from models.nn.recurrent_lm import MambaBlock, MambaCache, RecurrentLM, RMSNorm, first_step_sizes, masked, rms_normed
from models.nn.scan_flops import tell_mamba_step
from models.nn.selective_scan import scan_backend, selective_scan, selective_step
from models.nn.silu_gate import silu_gate


@dataclass(frozen=True)
class MambaConfig:
    """Sizes of a Mamba language model.

    `dt_rank` None means ceil(width / 16). `mixer_norm_eps` not None is Falcon-Mamba: step size, B and C pass a
    root-mean-square norm without weights before they are used.
    """

    vocab_size: int
    width: int
    n_layers: int
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_rank: int | None = None
    norm_eps: float = 1e-5
    mixer_norm_eps: float | None = None
    tied_head: bool = True
    residual_in_float32: bool = True
    conv_bias: bool = True
    proj_bias: bool = False

    @property
    def inner(self) -> int:
        """Inner width D."""
        return self.expand * self.width

    @property
    def rank(self) -> int:
        """Rank R of the step size's projection."""
        return self.dt_rank or math.ceil(self.width / 16)


class ReadyForSteps(NamedTuple):
    """A layer's weights as the compiled decoding step reads them: float32, rows of all channels."""

    A_ND: Tensor
    D_D: Tensor
    taps_WD: Tensor
    bias_D: Tensor


class MambaMixer(nn.Module):
    """Project, convolve over time, scan selectively, gate, project."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.inner
        self.in_proj = nn.Linear(config.width, 2 * inner, bias=config.proj_bias)
        self.conv1d = nn.Conv1d(inner, inner, config.d_conv, groups=inner, bias=config.conv_bias)
        self.x_proj = nn.Linear(inner, config.rank + 2 * config.d_state, bias=False)
        self.dt_proj = nn.Linear(config.rank, inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, config.d_state + 1).float()).repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, config.width, bias=config.proj_bias)
        self._reset()

    def _reset(self) -> None:
        """Step sizes start log-uniform in [0.001, 0.1] (section 3.6); the residual branch is scaled by depth."""
        nn.init.uniform_(self.dt_proj.weight, -(self.config.rank**-0.5), self.config.rank**-0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(first_step_sizes(self.config.inner))
            self.out_proj.weight /= math.sqrt(self.config.n_layers)

    def _step_parameters(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step size, B and C of each position, from what came out of the convolution, in the weights' type."""
        n, eps = self.config.d_state, self.config.mixer_norm_eps
        parts: Sequence[Tensor] = self.x_proj(u).split([self.config.rank, n, n], dim=-1)
        if eps is not None:
            parts = [rms_normed(part, eps).to(part.dtype) for part in parts]
        dt_low, b, c = parts
        # As a module call, so that a LoRA on dt_proj counts; it adds its bias, so the scan is given none.
        return self.dt_proj(dt_low), b, c

    def forward(
        self, x_BLE: Tensor, conv: Tensor, state: Tensor | None, mask_BL: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One pass over L positions that continue from (conv, state); no state is one of zeros.

        `mask_BL` is 0 at padding, which must come before any real position: its input is zeroed on both sides of the
        convolution, so the state stays as it was.
        """
        xs_BLD, gate_BLD = self.in_proj(x_BLE).chunk(2, dim=-1)
        xs_BLD = masked(xs_BLD, mask_BL)
        u_BLD = causal_conv_silu(xs_BLD, conv, self.conv1d.weight, self.conv1d.bias)
        u_BLD = masked(u_BLD, mask_BL)
        delta_BLD, b_BLN, c_BLN = self._step_parameters(u_BLD.to(x_BLE.dtype))
        A_DN, D_D = self._dynamics()
        y_BLD, state_BKDN = selective_scan(
            u_BLD,
            delta_BLD.unsqueeze(2),
            A_DN.unsqueeze(0),
            b_BLN.unsqueeze(2).contiguous(),
            c_BLN.unsqueeze(2).contiguous(),
            D_D.unsqueeze(0),
            torch.zeros_like(D_D).unsqueeze(0),
            initial_state_BKDN=None if state is None else state.unsqueeze(1),
        )
        out: Tensor = self.out_proj(silu_gate(y_BLD, gate_BLD))
        return out, inputs_to_keep(xs_BLD, conv), state_BKDN.squeeze(1)

    def _dynamics(self) -> tuple[Tensor, Tensor]:
        """A and D, at least in float32."""
        a_log, d = (x if x.dtype == torch.float64 else x.float() for x in (self.A_log, self.D))
        return -torch.exp(a_log), d

    def step(
        self, x_BE: Tensor, conv: Tensor, state: Tensor, ready: ReadyForSteps | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One position, by the recurrence; compiled if `ready` is given."""
        x_BD, gate_BD = self.in_proj(x_BE).chunk(2, dim=-1)
        tell_mamba_step(len(x_BD), self.config.inner, self.config.d_state, self.config.d_conv)
        if ready is not None:
            gated, state = self._compiled_step(x_BD, gate_BD, conv, state, ready)
        else:
            u_BD = causal_conv_silu_step(x_BD, conv, self.conv1d.weight, self.conv1d.bias)
            delta_BD, b_BN, c_BN = self._step_parameters(u_BD)
            A_DN, D_D = self._dynamics()
            y_BD, state = selective_step(u_BD, delta_BD, A_DN, b_BN, c_BN, D_D, torch.zeros_like(D_D), state)
            gated = y_BD.to(x_BE.dtype) * functional.silu(gate_BD)
        out: Tensor = self.out_proj(gated)
        return out, torch.cat([conv[:, 1:], x_BD.unsqueeze(1)], dim=1), state

    def _compiled_step(
        self, x_BD: Tensor, gate_BD: Tensor, conv: Tensor, state_BDN: Tensor, ready: ReadyForSteps
    ) -> tuple[Tensor, Tensor]:
        """The part between the outer projections: gated output and next state."""
        from models.nn import _mixer_numba

        u_BD = _mixer_numba.convolve_step(x_BD, conv, ready.taps_WD, ready.bias_D).to(x_BD.dtype)
        delta_BD, b_BN, c_BN = self._step_parameters(u_BD)
        dt_BD = functional.softplus(delta_BD.float())
        gated, state_BND = _mixer_numba.step(
            u_BD, dt_BD, ready.A_ND, b_BN, c_BN, ready.D_D, gate_BD, state_BDN.transpose(1, 2)
        )
        return gated, state_BND.transpose(1, 2)

    def ready_for_steps(self) -> ReadyForSteps:
        """What compiled steps need of the weights."""
        A_DN, D_D = self._dynamics()
        bias_D = torch.zeros_like(D_D) if self.conv1d.bias is None else self.conv1d.bias.float()
        taps_WD = self.conv1d.weight.squeeze(1).t().float()
        return ReadyForSteps(A_DN.t().contiguous(), D_D, taps_WD.contiguous(), bias_D)


class MambaLM(RecurrentLM):
    """Mamba or Falcon-Mamba; the head shares the embedding's weight unless the config says otherwise."""

    def __init__(self, config: MambaConfig) -> None:
        def block() -> MambaBlock:
            return MambaBlock(RMSNorm(config.width, config.norm_eps), MambaMixer(config))

        super().__init__(config, block)
        self.config: MambaConfig = config

    def empty_cache(self, batch: int) -> MambaCache:
        """The state before anything was heard: zeros."""
        config, weight = self.config, self.backbone.embeddings.weight
        conv = weight.new_zeros(batch, config.d_conv - 1, config.inner)
        state_type = weight.dtype if weight.dtype == torch.float64 else torch.float32
        # Rows of channels in memory, as the kernels keep it.
        state = torch.zeros(batch, config.d_state, config.inner, dtype=state_type, device=weight.device).transpose(1, 2)
        return MambaCache([conv] * config.n_layers, [state] * config.n_layers)

    def state_before(self, state: Tensor, cache: MambaCache) -> Tensor | None:
        """None at the beginning: the scan of mamba_ssm, which takes no state, can then run."""
        return state if cache.n_heard else None

    def prepare_steps(self, embeddings_BE: Tensor, cache: MambaCache) -> Sequence[ReadyForSteps | None]:
        """Weights made ready once and kept with the cache: as long as it lives they must not change anyway."""
        weight = self.backbone.embeddings.weight
        is_plain = type(embeddings_BE) is Tensor and not torch.is_grad_enabled() and runs_compiled(weight)
        if not is_plain or scan_backend(weight.device, weight.dtype) != "numba":
            return super().prepare_steps(embeddings_BE, cache)
        if cache.prepared is not None and None not in cache.prepared:
            return cache.prepared
        return [block.mixer.ready_for_steps() for block in self.blocks]
