"""What both encoders are made of besides their own way of mixing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


def drop_path(branch: Tensor, rate: float, is_training: bool) -> Tensor:
    """Leave a residual branch out for whole clips at `rate`, in training, and scale what stays to make up for it.

    Args:
        branch: shape (B, ...).
    """
    if not is_training or rate == 0.0:
        return branch
    keep = torch.rand(branch.shape[0], *[1] * (branch.dim() - 1), device=branch.device) >= rate
    return branch * (keep / (1.0 - rate))
