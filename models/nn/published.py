"""The audio language models at their published sizes: put together from parts, random or from released files.

Trained are the encoder, the connector and low-rank adapters inside the language model, whose own weights stay frozen
(arXiv 2305.10790, 2411.15685). Parameter counts: LTU 93 065 216 trainable of 6 831 480 832 (YuanGongND/ltu README).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from models.nn.ast_encoder import LTU_AST, AstEncoder, load_ltu_encoder
from models.nn.ast_stock import N_FREQ as STOCK_N_FREQ
from models.nn.ast_stock import HearStockAst, build_stock_ast, load_stock_ast
from models.nn.checkpoint import read_state_dict
from models.nn.connector import ConcatConnector, Connector, ConvConnector, PoolConnector
from models.nn.dass_encoder import DASS_SIZES, DassEncoder, load_dass
from models.nn.hearing import HearAst, HearDass, Hearing
from models.nn.lalm import AudioLanguageModel
from models.nn.lm_folder import load_lm
from models.nn.lm_sizes import build_lm
from models.nn.lora import add_lora

DASS_N_FREQ = 4  # rows of DASS's map of 128 mel bins
LORA_RANK = 8
LORA_ALPHA = 16


@dataclass(frozen=True)
class Published:
    """What to put together. `lm` names a size of `lm_sizes`; `lm_folder` takes its place where it is given."""

    encoder: Literal["dass-small", "dass-medium", "ltu", "ast"]
    connector: Literal["conv", "pool", "concat"]
    lm: str
    length_policy: str
    has_lora: bool
    encoder_file: Path | None = None
    lm_folder: Path | None = None


def build_published(parts: Published, device: str, dtype: torch.dtype) -> AudioLanguageModel:
    """The whole model on a device of torch, in evaluation mode; on `meta` no file of weights is read.

    `dtype` is the language model's; encoder and connector are in float32.

    Raises:
        ValueError: a file does not hold what it should.
    """
    if parts.lm_folder is not None:
        lm = load_lm(parts.lm_folder, device, dtype)
    else:
        with torch.device(device), _default_dtype(dtype):
            lm = build_lm(parts.lm)
    lm.requires_grad_(False)
    if parts.has_lora:
        add_lora(lm, LORA_RANK, LORA_ALPHA)
    # Encoders are small, and their loaders work on the CPU.
    with torch.device("meta" if device == "meta" else "cpu"):
        hearing = _hearing(parts, lm.width)
    # They stay in float32: a training goes on from them, and whoever wants another type casts the whole network.
    return AudioLanguageModel(hearing.to(device), lm).eval()


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """So that 7 billion random weights are never held in float32 first."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _hearing(parts: Published, lm_width: int) -> Hearing:
    """Encoder and connector, float32; the encoder from its file where there is one and weights are wanted."""
    is_outline = torch.get_default_device().type == "meta"
    file = None if is_outline else parts.encoder_file
    if parts.encoder == "ltu":
        return _hear_ltu(parts, file, lm_width)
    if parts.encoder == "ast":
        stock = build_stock_ast() if file is None else load_stock_ast(file if file.is_dir() else read_state_dict(file))
        connector = _connector(parts.connector, stock.config.hidden_size, STOCK_N_FREQ, lm_width)
        return HearStockAst(stock, connector, parts.length_policy)
    size: Any = parts.encoder.removeprefix("dass-")
    dass = DassEncoder(DASS_SIZES[size], with_head=False) if file is None else load_dass(read_state_dict(file), size)
    if "head" in dass.classifier:
        del dass.classifier["head"]  # AudioSet's 527 classes: nothing here asks for them
    connector = _connector(parts.connector, dass.config.widths[-1], DASS_N_FREQ, lm_width)
    return HearDass(dass, connector, parts.length_policy)


def _hear_ltu(parts: Published, file: Path | None, lm_width: int) -> HearAst:
    """LTU's encoder; its released projection too, where that fits the connector and the language model's width."""
    released = None if file is None else load_ltu_encoder(read_state_dict(file))
    encoder = AstEncoder(LTU_AST) if released is None else released.encoder
    connector = _connector(parts.connector, encoder.config.width, encoder.config.n_freq, lm_width)
    if released is not None and _shapes(released.connector) == _shapes(connector):
        connector = released.connector
    return HearAst(encoder, connector, parts.length_policy)


def _shapes(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def _connector(name: str, width: int, n_freq: int, lm_width: int) -> Connector:
    if name == "conv":
        return ConvConnector(width, lm_width)
    return PoolConnector(width, lm_width) if name == "pool" else ConcatConnector(width, n_freq, lm_width)
