"""Training in stages for a `LalmAdapter`: released parts, frozen but for those that a stage names.

The parts are LTU's (YuanGongND/ltu src/ltu/finetune.py): "encoder", "connector" (its `audio_proj`) and "lora", low-rank
matrices inside a language model that stays as it is. What learns is kept in float32; the frozen language model is held
in the type that training computes in, where LTU's script kept it in float32 and cast it at every use.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contracts import Question
from harness.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import nn

    from models._lalm import LalmAdapter
    from models.nn.lalm import AudioLanguageModel
    from models.nn.token_losses import TokenLosses

PARTS = ("encoder", "connector", "lora")
LTU_RANK, LTU_ALPHA = 8, 16
BYTES_PER_WEIGHT = 4  # of what learns, of its gradient, and of each of AdamW's two moments


def start(
    adapter: LalmAdapter, lora_dropout: float, precision: str, is_recomputed: bool, device: str
) -> AudioLanguageModel:
    """The network with the weights that the adapter's options name, a LoRA on its language model, and nothing learning.

    Raises:
        UsageError: the weights that training begins from are not named, or cannot be read.
    """
    import torch

    from models.nn.lora import set_lora_dropout
    from models.nn.recompute import recompute_blocks

    _check_sources(adapter)
    adapter._weights, adapter._sources_sha256 = adapter._read_header(), None
    try:
        network = adapter._build(device, precision)
    except ValueError as error:
        raise UsageError(f"{adapter.spec.full_name} cannot be built: {error}") from error
    if adapter._weights is not None:
        adapter._fill(network, adapter._weights)
    _put_in_place(network, getattr(torch, precision))
    set_lora_dropout(network.lm, lora_dropout)
    if is_recomputed:
        recompute_blocks(network)
    adapter._read_text()
    adapter._network, adapter._device = network.to(device), device
    network.requires_grad_(False)
    return network


def _check_sources(adapter: LalmAdapter) -> None:
    """A published encoder that nobody trained would be trained on without a word."""
    sources = adapter.spec.sources
    is_published = adapter._shipped_path() is None
    if is_published and not sources.is_random and sources.weights is None and sources.encoder is None:
        raise UsageError(f"{adapter.spec.full_name} needs an encoder: -m encoder_weights=FILE, or -m weights=random")


def _put_in_place(network: AudioLanguageModel, dtype: torch.dtype) -> None:
    """The paper's LoRA where there is none; what learns in float32, the language model in `dtype`."""
    from models.nn.lora import add_lora, lora_parameters

    network.hear.float()
    if not lora_parameters(network.lm):
        add_lora(network.lm, LTU_RANK, LTU_ALPHA)
    network.lm.to(dtype)
    for parameter in lora_parameters(network.lm).values():
        parameter.data = parameter.data.float()


def parts_of(network: AudioLanguageModel) -> dict[str, list[nn.Parameter]]:
    """The parameters of each of PARTS."""
    from models.nn.lora import lora_parameters

    hear = network.hear
    lora = list(lora_parameters(network.lm).values())
    return {"encoder": list(hear.encoder.parameters()), "connector": list(hear.connector.parameters()), "lora": lora}


def train_parts(network: AudioLanguageModel, parts: Sequence[str]) -> dict[str, int]:
    """Let these parts learn and no other; returns how many parameters each has.

    A part that does not learn is heard as it will be used: without dropped branches. The language model drops nothing
    but inputs of the LoRA, and must be told of training to recompute.
    """
    network.requires_grad_(False)
    network.train()
    network.hear.encoder.train("encoder" in parts)
    found = {name: weights for name, weights in parts_of(network).items() if name in parts}
    for weights in found.values():
        for weight in weights:
            weight.requires_grad_(True)
    return {name: sum(weight.numel() for weight in weights) for name, weights in found.items()}


def features(adapter: LalmAdapter, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What the encoder is given of a clip, shape (T, M): the first T frames, or padded to them, normalised."""
    from harness.contracts import TrainingExample

    heard: npt.NDArray[np.float32] = adapter._training_features(TrainingExample(samples, "", ())).cpu().numpy()
    return heard[: adapter.spec.min_frames]


def text_tokens(adapter: LalmAdapter, question: Question, limit: int) -> tuple[list[int], int]:
    """Prompt and answer as at most `limit` token ids, and where the answer begins.

    A text that is cut loses its end-of-text token with the rest, as in LTU's finetune.py.

    Raises:
        ValueError: the tokenizer joins prompt and answer into one token.
    """
    prompt = adapter._text.prompt_ids(question.prompt)
    return [*prompt, *adapter._text.answer_ids(question.answers[0][0])][:limit], len(prompt)


def text_losses(
    adapter: LalmAdapter, heard: npt.NDArray[np.float32], texts: Sequence[Sequence[int]], starts: Sequence[int]
) -> TokenLosses:
    """Losses of the tokens that count (`token_losses`), given features of shape (B, T, M)."""
    import torch

    from models.nn.token_losses import token_losses

    network = adapter._require_network()
    with adapter._scanning():
        audio = network.audio_tokens(torch.from_numpy(heard).to(adapter._device))
        return token_losses(network, audio, texts, starts)


def n_audio_tokens(adapter: LalmAdapter) -> int:
    """Audio tokens of one clip in training."""
    network = adapter._network or adapter._outline()
    return network.hear.n_tokens(adapter.spec.min_frames)


def save(adapter: LalmAdapter, folder: Path, trained_on: str) -> None:
    """Write a folder that `-m weights=FOLDER` reads."""
    import json

    from models._trained_folder import save_folder
    from models._weights_files import folder_sha256
    from models.nn.parts import part_counts

    network, lm = adapter._require_network(), adapter.spec.sources.lm
    metadata = {
        "model": adapter.spec.name,
        "variant": adapter.spec.variant,
        "parameters": json.dumps(part_counts(network)),
        "tokenizer_sha256": adapter._tokenizer_sha256(),
        "trained_on": trained_on,
        "lm_sha256": folder_sha256(lm) if lm else "",
    }
    save_folder(network, folder, metadata, lm_is_given=lm is not None)


# --- what it will need ------------------------------------------------------------------------------------------------


def needs(
    adapter: LalmAdapter, parts: Sequence[str], n_clips: int, n_text_tokens: int, precision: str, is_recomputed: bool
) -> dict[str, dict[str, int]]:
    """Counts and bytes of a training step, from shapes alone.

    "parameters" and "trainable" count weights by part; "bytes" has "parameters" as they are held, "gradients" and
    "optimiser" (two moments) of what learns in float32, "activations": what autograd keeps of `n_clips` clips with
    texts of that length.
    """
    from models.nn.features import N_MELS
    from models.nn.parts import part_counts
    from models.nn.recompute import recompute_blocks
    from models.nn.saved_bytes import saved_bytes, step_on_zeros

    network = _sketch(adapter, precision)
    trainable = train_parts(network, parts)
    n_trainable = sum(trainable.values())
    counts, held = part_counts(network), sum(p.numel() * p.element_size() for p in network.parameters())
    step = step_on_zeros(n_clips, adapter.spec.min_frames, N_MELS, n_text_tokens)
    with adapter._scanning():
        activations = saved_bytes(network, step, precision == "bfloat16")
        if is_recomputed:
            # Inputs of blocks, and everything inside the one block that is being computed again: a mean one.
            mean_block = activations // recompute_blocks(network)
            activations = saved_bytes(network, step, precision == "bfloat16") + mean_block
    return {
        "parameters": counts,
        "trainable": trainable,
        "bytes": {
            "parameters": held,
            "gradients": BYTES_PER_WEIGHT * n_trainable,
            "optimiser": 2 * BYTES_PER_WEIGHT * n_trainable,
            "activations": activations,
        },
    }


def _sketch(adapter: LalmAdapter, precision: str) -> AudioLanguageModel:
    """The network that `start` would make, on torch's meta device."""
    import torch

    network = adapter._build("meta")
    with torch.device("meta"):
        _put_in_place(network, getattr(torch, precision))
    return network
