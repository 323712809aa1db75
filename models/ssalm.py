"""ssLALM: DASS audio encoder and Mamba language model (arXiv 2411.15685). No attention anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from harness.contracts import TrainableModel
from models._lalm import LalmAdapter, LalmSpec

if TYPE_CHECKING:
    import torch

    from models.nn.features import Normalisation
    from models.nn.lalm import AudioLanguageModel


def _build() -> AudioLanguageModel:
    from models.nn.tiny import ssalm_tiny

    return ssalm_tiny()


def _normalisation() -> Normalisation:
    from models.nn.features import DASS_NORMALISATION

    return DASS_NORMALISATION


def _kernels(device: str, dtype: torch.dtype) -> dict[str, str]:
    from models.nn.selective_scan import scan_backend

    return {"selective_scan": scan_backend(device, dtype)}


def ssalm(variant: Literal["tiny"] = "tiny", weights: str | None = None, max_new_tokens: int = 32) -> TrainableModel:
    """State-space encoder and language model.

    Args:
        variant: "tiny" has 1.7 M parameters and ships with trained weights.
        weights: a safetensors file to use instead of the shipped one.
        max_new_tokens: the longest answer.
    """
    spec = LalmSpec(
        name="ssalm",
        variant=variant,
        summary="DASS encoder, stride-2 convolution, Mamba language model",
        build=_build,
        normalisation=_normalisation,
        length_policy="full",
        max_audio_s=600.0,
        min_frames=512,
        kernels=_kernels,
    )
    return LalmAdapter(spec, weights, max_new_tokens)
