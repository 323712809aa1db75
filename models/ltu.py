"""LTU: patch transformer encoder with LTU's pooling, and LLaMA language model (arXiv 2305.10790)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from harness.contracts import TrainableModel
from models._lalm import LalmAdapter, LalmSpec

if TYPE_CHECKING:
    import torch

    from models.nn.features import Normalisation
    from models.nn.lalm import AudioLanguageModel


def _build() -> AudioLanguageModel:
    from models.nn.tiny import ltu_tiny

    return ltu_tiny()


def _normalisation() -> Normalisation:
    from models.nn.features import LTU_NORMALISATION

    return LTU_NORMALISATION


def _kernels(device: str, dtype: torch.dtype) -> dict[str, str]:
    return {"attention": "torch scaled_dot_product_attention"}


def ltu(variant: Literal["tiny"] = "tiny", weights: str | None = None, max_new_tokens: int = 32) -> TrainableModel:
    """Transformer encoder and language model.

    Args:
        variant: "tiny" has 1.7 M parameters and ships with trained weights.
        weights: a safetensors file to use instead of the shipped one.
        max_new_tokens: the longest answer.
    """
    spec = LalmSpec(
        name="ltu",
        variant=variant,
        summary="AST encoder, LTU pooling, LLaMA language model",
        build=_build,
        normalisation=_normalisation,
        length_policy="window",
        max_audio_s=600.0,
        min_frames=512,
        kernels=_kernels,
    )
    return LalmAdapter(spec, weights, max_new_tokens)
