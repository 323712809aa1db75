"""How many bytes a forward pass keeps for the backward pass, without memory for them and without computing them.

Torch's fake tensors have shapes and types alone; every tensor that autograd would keep passes by here. Weights are not
counted: they are there anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from models.nn.dass_encoder import scan_orders
from models.nn.lalm import AudioLanguageModel

Network = TypeVar("Network", bound=nn.Module)


def saved_bytes(network: Network, run: Callable[[Network], Tensor], is_autocast: bool) -> int:
    """Bytes that `run` keeps, each storage once, those of the network's own parameters and buffers left out.

    Args:
        network: one without memory, on torch's meta device. It is left with fake weights, good for another count.
        run: a forward pass on the CPU; returns the loss.
        is_autocast: whether it computes in bfloat16 where torch's autocast does.
    """
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # else an address could serve twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in owned:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    # Fake tensors must not stay behind where real ones are remembered.
    scan_orders.cache_clear()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            _give_fake_weights(network)
            owned = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
            with (
                torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
                torch.autocast("cpu", torch.bfloat16, enabled=is_autocast),
            ):
                run(network)
    finally:
        scan_orders.cache_clear()
    return sum(kept.values())


def step_on_zeros(n_clips: int, n_frames: int, n_mels: int, n_text: int) -> Callable[[AudioLanguageModel], Tensor]:
    """A forward pass to the loss of all tokens of a text but its first, on clips and texts of one length.

    The way of `token_losses`, but for its choice of positions, which needs to know them.
    """

    def run(network: AudioLanguageModel) -> Tensor:
        audio_BAE = network.audio_tokens(torch.zeros(n_clips, n_frames, n_mels))
        text_BLE = network.lm.embed(torch.zeros(n_clips, n_text, dtype=torch.long)).to(audio_BAE.dtype)
        hidden_BLE, _ = network.lm(torch.cat([audio_BAE, text_BLE], dim=1)[:, :-1])
        counted_NE = hidden_BLE[:, audio_BAE.shape[1] :].flatten(0, 1)
        logits_NV = network.lm.head(counted_NE).float()
        return functional.cross_entropy(logits_NV, torch.zeros(len(logits_NV), dtype=torch.long))

    return run


def _give_fake_weights(network: nn.Module) -> None:
    """In place of parameters and buffers without memory; what was shared stays shared."""
    made: dict[int, Tensor] = {}
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = made.setdefault(id(parameter), _fake(parameter))
                module._parameters[name] = fake  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")


def _fake(parameter: nn.Parameter) -> nn.Parameter:
    empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
    return nn.Parameter(empty, requires_grad=parameter.requires_grad)
