"""Blocks that give up what they computed and compute it again for the backward pass (arXiv 1604.06174).

Memory for the inputs of blocks instead of for everything inside them, for about a third more time. Gradients are the
same: random numbers are drawn again as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from models.nn.ast_encoder import AstBlock
from models.nn.dass_encoder import DassBlock
from models.nn.lalm import AudioLanguageModel
from models.nn.llama_lm import LlamaLM
from models.nn.recurrent_lm import MambaBlock


def recompute_blocks(network: AudioLanguageModel) -> int:
    """From now on every block of the encoder and of the language model recomputes in training; returns how many."""
    blocks = [module for module in network.modules() if isinstance(module, AstBlock | DassBlock)]
    # A Mamba block is called part by part; its mixer is nearly all of it.
    blocks += [module.mixer for module in network.modules() if isinstance(module, MambaBlock)]
    for block in blocks:
        block.__dict__["forward"] = _recomputed(block, block.forward)
    # Transformers' layers do it themselves: they must leave their cache alone the second time.
    theirs: list[Any] = [network.lm.network] if isinstance(network.lm, LlamaLM) else []
    theirs += [network.hear.encoder] if hasattr(network.hear.encoder, "gradient_checkpointing_enable") else []
    for model in theirs:
        # The name that transformers gives it since 5.5, and the one before.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    layers = [layer for model in theirs for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    return len(blocks) + len(layers)


def _recomputed(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return forward(*args)
        return checkpoint(forward, *args, use_reentrant=False)

    return run
