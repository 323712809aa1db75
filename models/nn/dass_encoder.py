"""DASS: Distilled Audio State-Space encoder (arXiv 2407.04082), a VMamba-style 2-D selective-scan network.

Follows Saurabhbhati/DASS src/models/{ast_models,vmamba}.py (BSD-3-Clause), forward type v05_noz: no gate branch,
d_state 1, ssm_ratio 1, depthwise 3x3 convolution without bias, no position embedding, so any length goes in.
Parameter names are those of the released .pth files without their `module.v.` prefix.

Letters
    B   batch
    H   mel bins of the map (frequency), W frames of the map (time); L = H * W, row-major
    C   channels of a stage; D the scan's inner channels (= C here)
    K   scan directions (4): rows, columns, and both backwards
    N   state size (1); R rank of the step size's projection, ceil(C / 16)

Deviation: tensors are channels-last (B, H, W, C) from end to end, where the source keeps (B, C, H, W); the scan reads
the four directions by index, where the source copies the map four times. Both change no value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.nn.selective_scan import selective_scan

N_DIRECTIONS = 4


@dataclass(frozen=True)
class DassConfig:
    """Sizes of a DASS encoder. `drop_path` is the last block's rate; it rises linearly from 0."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    n_classes: int = 527
    mlp_ratio: float = 4.0
    drop_path: float = 0.0


DASS_SMALL = DassConfig(depths=(2, 2, 8, 2), widths=(96, 192, 384, 768), drop_path=0.2)
DASS_MEDIUM = DassConfig(depths=(2, 2, 20, 2), widths=(96, 192, 384, 768), drop_path=0.3)


class ConvLast(nn.Conv2d):
    """A 2-D convolution of channels-last tensors, (B, H, W, C_in) to (B, H', W', C_out)."""

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return super().forward(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@lru_cache(maxsize=32)
def scan_orders(height: int, width: int) -> Tensor:
    """Positions in the order of each direction's visit, shape (K, H * W), int64.

    Rows, columns, then the reverse of each (VMamba's cross-scan, src/models/csms6s.py).
    """
    # The first call may come from inference, and a tensor made there could not take part in training later.
    with torch.inference_mode(False):
        rows = torch.arange(height * width).view(height, width)
        forward = torch.stack([rows.flatten(), rows.t().flatten()])
        return torch.cat([forward, forward.flip(-1)])


class SelectiveScan2d(nn.Module):
    """SS2D: project, convolve, scan in four directions, sum, normalise, project."""

    def __init__(self, width: int) -> None:
        super().__init__()
        rank = math.ceil(width / 16)
        self.in_proj = nn.Linear(width, width, bias=False)
        self.conv2d = ConvLast(width, width, 3, padding=1, groups=width, bias=False)
        self.x_proj_weight = nn.Parameter(torch.empty(N_DIRECTIONS, rank + 2, width))
        self.dt_projs_weight = nn.Parameter(torch.empty(N_DIRECTIONS, width, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(N_DIRECTIONS, width))
        self.A_logs = nn.Parameter(torch.zeros(N_DIRECTIONS * width, 1))
        self.Ds = nn.Parameter(torch.ones(N_DIRECTIONS * width))
        self.out_norm = nn.LayerNorm(width)
        self.out_proj = nn.Linear(width, width, bias=False)
        self._reset(rank)

    def _reset(self, rank: int) -> None:
        """Step sizes start log-uniform in [0.001, 0.1], as in Mamba (arXiv 2312.00752, section 3.6)."""
        nn.init.kaiming_uniform_(self.x_proj_weight, a=math.sqrt(5))
        nn.init.uniform_(self.dt_projs_weight, -(rank**-0.5), rank**-0.5)
        dt = torch.exp(torch.empty_like(self.dt_projs_bias).uniform_(math.log(1e-3), math.log(1e-1)))
        with torch.no_grad():
            self.dt_projs_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # inverse of softplus

    def _scan(self, u_BLD: Tensor, orders_KL: Tensor) -> Tensor:
        width = u_BLD.shape[-1]
        rank = self.dt_projs_weight.shape[-1]
        projected = functional.linear(u_BLD, self.x_proj_weight.flatten(0, 1)).unflatten(-1, (N_DIRECTIONS, -1))
        dt_low, b_BLKN, c_BLKN = projected.split([rank, 1, 1], dim=-1)
        # One product with a block-diagonal matrix gives every direction's step size in the scan's own layout.
        mixing = torch.block_diag(*self.dt_projs_weight)
        delta_BLKD = functional.linear(dt_low.flatten(-2), mixing).unflatten(-1, (N_DIRECTIONS, width))
        y_BLD, _ = selective_scan(
            u_BLD,
            delta_BLKD,
            -torch.exp(self.A_logs.float()).view(N_DIRECTIONS, width, 1),
            b_BLKN.contiguous(),
            c_BLKN.contiguous(),
            self.Ds.float().view(N_DIRECTIONS, width),
            self.dt_projs_bias.float(),
            orders_KL,
        )
        return y_BLD

    def forward(self, x_BHWC: Tensor) -> Tensor:
        height, width = x_BHWC.shape[1:3]
        u_BHWC = functional.silu(self.conv2d(self.in_proj(x_BHWC)))
        orders_KL = scan_orders(height, width).to(x_BHWC.device)
        y_BLD = self._scan(u_BHWC.flatten(1, 2).contiguous(), orders_KL)
        out: Tensor = self.out_proj(self.out_norm(y_BLD)).unflatten(1, (height, width))
        return out


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class DassBlock(nn.Module):
    """x + SS2D(norm(x)), then x + MLP(norm2(x)); each branch is dropped for whole clips at `drop_path` in training."""

    def __init__(self, width: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm = nn.LayerNorm(width)
        self.op = SelectiveScan2d(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = torch.rand(branch.shape[0], 1, 1, 1, device=branch.device) >= self.drop_path
        return branch * (keep / (1.0 - self.drop_path))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = x_BHWC + self._drop(self.op(self.norm(x_BHWC)))
        return x_BHWC + self._drop(self.mlp(self.norm2(x_BHWC)))


class DassStage(nn.Module):
    """Blocks of one width, then, but for the last stage, a convolution that halves the map and doubles the width."""

    def __init__(self, width: int, next_width: int | None, mlp_ratio: float, drop_paths: list[float]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(DassBlock(width, mlp_ratio, rate) for rate in drop_paths))
        # Numbered as in the released files: 1 is the convolution, 3 the norm; 0 and 2 only permute there.
        self.downsample = nn.Sequential()
        if next_width is not None:
            self.downsample.add_module("1", ConvLast(width, next_width, 3, stride=2, padding=1))
            self.downsample.add_module("3", nn.LayerNorm(next_width))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        out: Tensor = self.downsample(self.blocks(x_BHWC))
        return out


def _patch_embed(width: int) -> nn.Sequential:
    """Two stride-2 convolutions, each with a norm; numbered as in the released files (1, 3, 6 only permute there)."""
    layers = nn.Sequential()
    layers.add_module("0", ConvLast(1, width // 2, 3, stride=2, padding=1))
    layers.add_module("2", nn.LayerNorm(width // 2))
    layers.add_module("4", nn.GELU())
    layers.add_module("5", ConvLast(width // 2, width, 3, stride=2, padding=1))
    layers.add_module("7", nn.LayerNorm(width))
    return layers


class DassEncoder(nn.Module):
    """Spectrogram to a map at 1/32 of its resolution, and AudioSet logits where a head is kept."""

    def __init__(self, config: DassConfig, with_head: bool = True) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = _patch_embed(config.widths[0])
        n_blocks = sum(config.depths)
        rates = iter([config.drop_path * i / max(1, n_blocks - 1) for i in range(n_blocks)])
        nexts = [*config.widths[1:], None]
        self.layers = nn.ModuleList(
            DassStage(width, after, config.mlp_ratio, [next(rates) for _ in range(depth)])
            for width, after, depth in zip(config.widths, nexts, config.depths, strict=True)
        )
        self.classifier = nn.ModuleDict({"norm": nn.LayerNorm(config.widths[-1])})
        if with_head:
            self.classifier["head"] = nn.Linear(config.widths[-1], config.n_classes)

    def stages(self, fbank: Tensor) -> list[Tensor]:
        """The patch embedding and each stage's map, channels-last.

        Args:
            fbank: normalised, shape (B, frames, mel).

        Returns:
            tensors of shape (B, H, W, C): after the patch embedding, then after every stage.
        """
        maps = [self.patch_embed(fbank.transpose(1, 2).unsqueeze(-1))]
        for stage in self.layers:
            maps.append(stage(maps[-1]))
        return maps

    def forward(self, fbank: Tensor) -> Tensor:
        """The last stage's map, before the final norm.

        Args:
            fbank: normalised, shape (B, frames, mel).

        Returns:
            shape (B, C, mel / 32, frames / 32), sizes rounded up.
        """
        return self.stages(fbank)[-1].permute(0, 3, 1, 2)

    def normed_map(self, fbank: Tensor) -> Tensor:
        """The last stage's map after the final norm, channels-last: shape (B, mel / 32, frames / 32, C)."""
        normed: Tensor = self.classifier["norm"](self.stages(fbank)[-1])
        return normed

    def logits(self, fbank: Tensor) -> Tensor:
        """AudioSet logits, shape (B, n_classes): the normed map, averaged over both axes, through the head."""
        logits: Tensor = self.classifier["head"](self.normed_map(fbank).mean(dim=(1, 2)))
        return logits
