"""From the encoder's output to vectors for the language model."""

from __future__ import annotations

from torch import Tensor, nn

from models.nn.dass_encoder import ConvLast

# LTU divides pooled tokens by this before its norm (modeling_llama.py); the norm's epsilon makes it matter little.
TOKEN_DIVISOR = 50.0


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


def pool_tokens(x_BLC: Tensor, n_freq: int = 8) -> Tensor:
    """LTU's pooling: mean over frequency, then over pairs of neighbours in time, then / 50.

    Args:
        x_BLC: frequency-major patches, shape (B, F * T, C); T even.

    Returns:
        shape (B, T / 2, C): 3.125 tokens a second.
    """
    x_BTC = x_BLC.unflatten(1, (n_freq, -1)).mean(dim=1)
    tokens: Tensor = x_BTC.unflatten(1, (-1, 2)).mean(dim=2) / TOKEN_DIVISOR
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
