"""Mamba language model (arXiv 2312.00752), with the parameter names of transformers' `MambaForCausalLM`.

Equals transformers' model on the same weights (tests/test_nn_mamba_lm.py), with two differences of form: tensors stay
time-major (B, L, D) from end to end, so that no layer copies its activations into another layout for the scan; and
every projection is called as a module, so that a LoRA on any of them takes part on every backend.

Letters
    B   batch, L positions, V vocabulary
    E   model width
    D   inner width (expand * E), N state size, R rank of the step size, W convolution width
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.nn.selective_scan import selective_scan, selective_step


@dataclass(frozen=True)
class MambaConfig:
    """Sizes of a Mamba language model; `dt_rank` None means ceil(width / 16)."""

    vocab_size: int
    width: int
    n_layers: int
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_rank: int | None = None
    norm_eps: float = 1e-5

    @property
    def inner(self) -> int:
        """Inner width D."""
        return self.expand * self.width

    @property
    def rank(self) -> int:
        """Rank R of the step size's projection."""
        return self.dt_rank or math.ceil(self.width / 16)


@dataclass
class MambaCache:
    """What a Mamba remembers: constant in the number of tokens heard.

    For each layer `conv` holds the last W - 1 inputs of the convolution, shape (B, W - 1, D), and `state` the
    recurrent state, shape (B, D, N), float32.
    """

    conv: list[Tensor]
    state: list[Tensor]

    def repeat(self, n: int) -> MambaCache:
        """Each sequence `n` times in a row: (B, ...) to (B * n, ...)."""
        return MambaCache(
            [x.repeat_interleave(n, dim=0) for x in self.conv], [x.repeat_interleave(n, dim=0) for x in self.state]
        )

    def n_bytes(self) -> int:
        """Bytes held."""
        return sum(x.numel() * x.element_size() for x in (*self.conv, *self.state))


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32 as transformers does."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        x32 = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * x32.to(x.dtype)


class MambaMixer(nn.Module):
    """Project, convolve over time, scan selectively, gate, project."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.inner
        self.in_proj = nn.Linear(config.width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, config.d_conv, groups=inner)
        self.x_proj = nn.Linear(inner, config.rank + 2 * config.d_state, bias=False)
        self.dt_proj = nn.Linear(config.rank, inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, config.d_state + 1).float()).repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, config.width, bias=False)
        self._reset()

    def _reset(self) -> None:
        """Step sizes start log-uniform in [0.001, 0.1] (section 3.6); the residual branch is scaled by depth."""
        nn.init.uniform_(self.dt_proj.weight, -(self.config.rank**-0.5), self.config.rank**-0.5)
        dt = torch.exp(torch.empty(self.config.inner).uniform_(math.log(1e-3), math.log(1e-1))).clamp(min=1e-4)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # inverse of softplus
            self.out_proj.weight /= math.sqrt(self.config.n_layers)

    def _convolve(self, u_BLD: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Causal depthwise convolution and SiLU; `before` holds the W - 1 inputs that precede, shape (B, W - 1, D)."""
        padded = torch.cat([before, u_BLD], dim=1)
        out = functional.silu(self.conv1d(padded.transpose(1, 2)).transpose(1, 2))
        return out, padded[:, padded.shape[1] - before.shape[1] :]

    def _step_parameters(self, u_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = self.config.d_state
        dt_low, b_BLN, c_BLN = self.x_proj(u_BLD).split([self.config.rank, n, n], dim=-1)
        # As a module call, so that a LoRA on dt_proj counts; it adds its bias, so the scan is given none.
        return self.dt_proj(dt_low), b_BLN, c_BLN

    def forward(
        self, x_BLE: Tensor, conv: Tensor, state: Tensor, mask_BL: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One pass over L positions that continue from (conv, state).

        `mask_BL` is 0 at padding, which must come before any real position: its input is zeroed on both sides of the
        convolution, so the state stays as it was.
        """
        u_BLD, gate_BLD = self.in_proj(x_BLE).chunk(2, dim=-1)
        if mask_BL is not None:
            u_BLD = u_BLD * mask_BL[..., None]
        u_BLD, conv = self._convolve(u_BLD, conv)
        if mask_BL is not None:
            u_BLD = u_BLD * mask_BL[..., None]
        delta_BLD, b_BLN, c_BLN = self._step_parameters(u_BLD)
        y_BLD, state_BKDN = selective_scan(
            u_BLD.contiguous(),
            delta_BLD.unsqueeze(2).contiguous(),
            -torch.exp(self.A_log.float()).unsqueeze(0),
            b_BLN.unsqueeze(2).contiguous(),
            c_BLN.unsqueeze(2).contiguous(),
            self.D.float().unsqueeze(0),
            torch.zeros_like(self.D, dtype=torch.float32).unsqueeze(0),
            initial_state_BKDN=state.unsqueeze(1),
        )
        out: Tensor = self.out_proj(y_BLD.to(x_BLE.dtype) * functional.silu(gate_BLD))
        return out, conv, state_BKDN.squeeze(1)

    def step(self, x_BE: Tensor, conv: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One position, by the recurrence."""
        u_BD, gate_BD = self.in_proj(x_BE).chunk(2, dim=-1)
        window = torch.cat([conv, u_BD.unsqueeze(1)], dim=1)
        taps_WD, bias_D = self.conv1d.weight.squeeze(1).t(), self.conv1d.bias
        assert bias_D is not None
        u_BD = functional.silu((window * taps_WD).sum(dim=1) + bias_D)
        delta_BD, b_BN, c_BN = self._step_parameters(u_BD)
        no_bias = torch.zeros_like(self.D, dtype=torch.float32)
        y_BD, state = selective_step(
            u_BD, delta_BD, -torch.exp(self.A_log.float()), b_BN, c_BN, self.D.float(), no_bias, state
        )
        out: Tensor = self.out_proj(y_BD.to(x_BE.dtype) * functional.silu(gate_BD))
        return out, window[:, 1:], state


class MambaBlock(nn.Module):
    """x + mixer(norm(x)); there is no MLP."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.mixer = MambaMixer(config)


class MambaBackbone(nn.Module):
    """Embedding, blocks, final norm."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embeddings.weight, std=0.02)
        self.layers = nn.ModuleList(MambaBlock(config) for _ in range(config.n_layers))
        self.norm_f = RMSNorm(config.width, config.norm_eps)


class MambaLM(nn.Module):
    """A language model that continues a sequence of embeddings; the head shares the embedding's weight."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = MambaBackbone(config)

    def embed(self, ids_BL: Tensor) -> Tensor:
        """Token ids to vectors, (B, L) to (B, L, E)."""
        out: Tensor = self.backbone.embeddings(ids_BL)
        return out

    def head(self, hidden: Tensor) -> Tensor:
        """Normed hidden states to logits over the vocabulary, (..., E) to (..., V)."""
        return functional.linear(hidden, self.backbone.embeddings.weight)

    def empty_cache(self, batch: int) -> MambaCache:
        """The state before anything was heard: zeros."""
        config, weight = self.config, self.backbone.embeddings.weight
        conv = weight.new_zeros(batch, config.d_conv - 1, config.inner)
        state = torch.zeros(batch, config.inner, config.d_state, device=weight.device)
        return MambaCache([conv] * config.n_layers, [state] * config.n_layers)

    def forward(
        self, embeddings_BLE: Tensor, mask_BL: Tensor | None = None, cache: MambaCache | None = None
    ) -> tuple[Tensor, MambaCache]:
        """Hidden states after the final norm, and what to continue from.

        Args:
            embeddings_BLE: audio or text vectors.
            mask_BL: 1 at real positions, 0 at padding on the left; only without a cache.
            cache: what an earlier call returned; it is not changed.

        Returns:
            hidden states, shape (B, L, E), and the new cache.
        """
        cache = cache or self.empty_cache(embeddings_BLE.shape[0])
        x_BLE, convs, states = embeddings_BLE, [], []
        for layer, conv, state in zip(self.backbone.layers, cache.conv, cache.state, strict=True):
            assert isinstance(layer, MambaBlock)
            mixed, conv, state = layer.mixer(layer.norm(x_BLE), conv, state, mask_BL)
            x_BLE = x_BLE + mixed
            convs.append(conv)
            states.append(state)
        return self.backbone.norm_f(x_BLE), MambaCache(convs, states)

    def step(self, embeddings_BE: Tensor, cache: MambaCache) -> tuple[Tensor, MambaCache]:
        """One more position by the recurrence: (B, E) to hidden states (B, E); equal to `forward` with L = 1."""
        x_BE, convs, states = embeddings_BE, [], []
        for layer, conv, state in zip(self.backbone.layers, cache.conv, cache.state, strict=True):
            assert isinstance(layer, MambaBlock)
            mixed, conv, state = layer.mixer.step(layer.norm(x_BE), conv, state)
            x_BE = x_BE + mixed
            convs.append(conv)
            states.append(state)
        return self.backbone.norm_f(x_BE), MambaCache(convs, states)
