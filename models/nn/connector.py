"""From the encoder's output to vectors for the language model."""

from __future__ import annotations

from torch import Tensor, nn

from models.nn.ast_encoder import pool_tokens
from models.nn.dass_encoder import ConvLast


class ConvConnector(nn.Module):
    """ssLALM's: one 3x3 convolution of stride 2, then one linear layer (arXiv 2411.15685).

    Padding 1 (32 tokens for 10.24 s, LTU's count) and time-major token order are our choice: the paper states neither.
    """

    def __init__(self, width: int, lm_width: int) -> None:
        super().__init__()
        self.conv = ConvLast(width, width, 3, stride=2, padding=1)
        self.linear = nn.Linear(width, lm_width)

    def forward(self, map_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to tokens (B, ceil(W / 2) * ceil(H / 2), E); low frequencies first within a time step."""
        reduced_BHWC = self.conv(map_BHWC)
        tokens: Tensor = self.linear(reduced_BHWC.transpose(1, 2).flatten(1, 2))
        return tokens


class PoolConnector(nn.Module):
    """LTU's: mean over frequency, pairs in time, affine-free norm, one linear layer (modeling_llama.py)."""

    def __init__(self, width: int, lm_width: int) -> None:
        super().__init__()
        # Numbered as in the released checkpoints (`audio_proj.1`): 0 is the norm, which has no parameters.
        self.audio_proj = nn.Sequential(nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, lm_width))

    def forward(self, patches_BLC: Tensor) -> Tensor:
        """Patches (B, F * T, C) to tokens (B, T / 2, E)."""
        tokens: Tensor = self.audio_proj(pool_tokens(patches_BLC))
        return tokens
