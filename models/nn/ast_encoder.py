"""LTU's audio encoder: the audio branch of CAV-MAE, an Audio Spectrogram Transformer.

Follows YuanGongND/ltu src/ltu/hf-dev/.../llama/modeling_llama.py and YuanGongND/cav-mae: 16x16 patches without
overlap, learned position and modality embeddings, pre-norm blocks, the last of which is the block that CAV-MAE shares
between audio and video, used with its audio norms. Parameter names are those of the released checkpoints below
`model.audio_encoder.`.

Letters
    B   batch
    F   patches along frequency (8), T patches along time (64 for 10.24 s); tokens are ordered frequency-major
    C   width, E width of the language model
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCH = 16  # mel bins, and frames (160 ms)
# LTU divides pooled tokens by this before its norm (modeling_llama.py); the norm's epsilon makes it matter little.
TOKEN_DIVISOR = 50.0


@dataclass(frozen=True)
class AstConfig:
    """Sizes of the encoder.

    `drop_path` is the last block's rate of dropping a branch in training; it rises linearly from 0, as in DASS.
    `n_time` patches of position embedding bound what one pass can hear: 16 frames each. `spare_norms` keeps the
    video norms that the released checkpoints carry and the audio branch never uses.
    """

    width: int
    depth: int
    n_heads: int
    n_time: int
    n_freq: int = 8
    mlp_ratio: float = 4.0
    spare_norms: bool = False
    drop_path: float = 0.0

    @property
    def max_frames(self) -> int:
        """Frames of one pass."""
        return self.n_time * PATCH


LTU_AST = AstConfig(width=768, depth=12, n_heads=12, n_time=64, spare_norms=True)


class Attention(nn.Module):
    """Multi-head self-attention over all patches, through torch's fused kernel."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BLC: Tensor) -> Tensor:
        q, k, v = self.qkv(x_BLC).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(-2))
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


class AstBlock(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)). `norm_suffix` picks the pair of norms in use.

    In training each branch is dropped for whole clips at the rate `drop_path`.
    """

    def __init__(self, config: AstConfig, norm_suffix: str, drop_path: float) -> None:
        super().__init__()
        self.norm_suffix = norm_suffix
        self.drop_path = drop_path
        self.attn = Attention(config.width, config.n_heads)
        self.mlp = Mlp(config.width, int(config.width * config.mlp_ratio))
        for suffix in ("", "_a", "_v") if config.spare_norms else (norm_suffix,):
            self.add_module(f"norm1{suffix}", nn.LayerNorm(config.width))
            self.add_module(f"norm2{suffix}", nn.LayerNorm(config.width))

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = torch.rand(branch.shape[0], 1, 1, device=branch.device) >= self.drop_path
        return branch * (keep / (1.0 - self.drop_path))

    def forward(self, x_BLC: Tensor) -> Tensor:
        norm1, norm2 = self.get_submodule(f"norm1{self.norm_suffix}"), self.get_submodule(f"norm2{self.norm_suffix}")
        x_BLC = x_BLC + self._drop(self.attn(norm1(x_BLC)))
        out: Tensor = x_BLC + self._drop(self.mlp(norm2(x_BLC)))
        return out


class PatchEmbed(nn.Module):
    """One convolution whose kernel is the patch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, PATCH, stride=PATCH)

    def forward(self, spectrogram_B1HW: Tensor) -> Tensor:
        out: Tensor = self.proj(spectrogram_B1HW)
        return out


class AstEncoder(nn.Module):
    """Spectrogram to one vector a patch."""

    def __init__(self, config: AstConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed_a = PatchEmbed(config.width)
        self.modality_a = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed_a = nn.Parameter(torch.zeros(1, config.n_freq * config.n_time, config.width))
        nn.init.normal_(self.modality_a, std=0.02)
        nn.init.normal_(self.pos_embed_a, std=0.02)
        rates = [config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        self.blocks_a = nn.ModuleList(AstBlock(config, "", rate) for rate in rates[:-1])
        self.blocks_u = nn.ModuleList([AstBlock(config, "_a", rates[-1])])
        self.norm_a = nn.LayerNorm(config.width)

    def forward(self, fbank: Tensor) -> Tensor:
        """One pass over at most `config.max_frames` frames.

        Args:
            fbank: normalised, shape (B, frames, mel); frames a multiple of 16.

        Returns:
            shape (B, F * T, C), frequency-major.
        """
        frames, mels = fbank.shape[1:]
        n_time = frames // PATCH
        if frames % PATCH or n_time > self.config.n_time or mels != self.config.n_freq * PATCH:
            raise ValueError(
                f"{frames} frames of {mels} bins: this encoder takes multiples of {PATCH} frames up to "
                f"{self.config.max_frames}, of {self.config.n_freq * PATCH} bins"
            )
        x_BCFT = self.patch_embed_a(fbank.transpose(1, 2).unsqueeze(1))
        positions = self.pos_embed_a.unflatten(1, (self.config.n_freq, self.config.n_time))[:, :, :n_time].flatten(1, 2)
        x_BLC = x_BCFT.flatten(2).transpose(1, 2) + positions + self.modality_a
        for block in (*self.blocks_a, *self.blocks_u):
            x_BLC = block(x_BLC)
        out: Tensor = self.norm_a(x_BLC)
        return out


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
