"""Floating-point operations of hearing: front end, encoder and connector, for any length and length policy.

From sizes alone: nothing is run. The pieces in which long audio goes through are worked out as `hearing.py` and
`streaming.py` cut them, because windows that overlap are computed twice.

Letters
    B   batch
    H   rows (mel bins) and W columns (frames) of a map, L = H W positions; C channels
    K   scan directions, R rank of the step size
    F   rows and T columns of the map that the connector gets
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from models.nn.ast_encoder import PATCH, AstEncoder
from models.nn.ast_stock import N_FREQ, N_SPECIAL, STRIDE, WINDOW_HOP, HearStockAst
from models.nn.connector import ConcatConnector, Connector, ConvConnector, PoolConnector
from models.nn.dass_encoder import N_DIRECTIONS, ConvLast, DassBlock, DassEncoder
from models.nn.features import BLOCK_FRAMES, FRAME_LENGTH, N_FFT, N_MELS, n_frames
from models.nn.hearing import DASS_STRIDE, LTU_FRAMES, WINDOW_FRAMES, HearAst, HearDass, Hearing
from models.nn.scan_flops import scan_flops
from models.nn.work import (
    GELU,
    LAYER_NORM,
    SILU,
    SOFTPLUS,
    Operations,
    attention,
    convolution,
    elementwise,
    linear,
    mlp,
    products,
    strided,
    total,
)

# A transform of n real values: half of the 5 n log2 n of Cooley and Tukey's complex one.
FOURIER = int(2.5 * N_FFT * math.log2(N_FFT))
# For each sample of a frame: its mean and their difference, pre-emphasis, window. For each bin of the spectrum: its
# absolute value, and the square of that. For each mel bin: floor, logarithm, normalisation.
PER_SAMPLE, PER_BIN, PER_MEL = 5, 5, 4


@dataclass(frozen=True)
class HearingWork:
    """Of one clip: operations of the parts that hear, and audio tokens in the chunks in which they come."""

    front_end: Operations
    encoder: Operations
    connector: Operations
    chunks: tuple[int, ...]


@dataclass(frozen=True)
class Span:
    """A window of features of which `n_kept` frames from `n_skipped` on count."""

    n_frames: int
    n_skipped: int
    n_kept: int


def hearing_work(hear: Hearing, n_samples: int, least_frames: int, streams: bool) -> HearingWork:
    """Work of hearing one clip at 16 kHz.

    Args:
        least_frames: a shorter clip is padded to it.
        streams: whether the audio goes through in blocks, and the connector gets the map piece by piece.
    """
    n_heard = max(1, n_frames(n_samples))
    padded = hear.padded_frames(max(n_heard, least_frames))
    is_cut = hear.policy == "first_10_24s"
    # Reading stops with the block that holds the last frame to be heard.
    n_computed = min(n_heard, BLOCK_FRAMES) if is_cut and streams else n_heard
    encoder, columns = _encoder(hear, LTU_FRAMES if is_cut else padded)
    n_rows = hear.map_size(LTU_FRAMES)[0]
    pieces = columns if streams else [sum(columns)]
    connector, chunks = _connected(hear.connector, n_rows, pieces)
    return HearingWork(front_end_work(n_computed), encoder, connector, tuple(chunks))


def front_end_work(n: int) -> Operations:
    """Log-mel energies of `n` frames."""
    n_bins = N_FFT // 2 + 1
    fourier = Operations(parts={"fourier": n * FOURIER})
    each = PER_SAMPLE * FRAME_LENGTH + PER_BIN * n_bins + PER_MEL * N_MELS
    return fourier + products("linear", n * n_bins * N_MELS) + elementwise(n * each)


def spans(n_frames: int, window_frames: int, overlap_frames: int) -> list[Span]:
    """The windows that `streaming.windows` makes of so many frames."""
    found, pending, n_skipped = [], n_frames, 0
    while pending > window_frames:
        found.append(Span(window_frames, n_skipped, window_frames - overlap_frames - n_skipped))
        pending, n_skipped = pending - (window_frames - 2 * overlap_frames), overlap_frames
    return [*found, Span(pending, n_skipped, pending - n_skipped)]


def _encoder(hear: Hearing, padded: int) -> tuple[Operations, list[int]]:
    """Work on `padded` frames, and the columns of each piece of the map."""
    if isinstance(hear, HearDass):
        return _dass_pieces(hear, padded)
    if isinstance(hear, HearAst):
        return _ast_pieces(hear, padded)
    if isinstance(hear, HearStockAst):
        return _stock_pieces(hear, padded)
    raise TypeError(f"No formula for the hearing {type(hear).__name__}")


# --- DASS ------------------------------------------------------------------------------------------------------------


def _dass_pieces(hear: HearDass, padded: int) -> tuple[Operations, list[int]]:
    if hear.policy != "window":
        return dass_work(hear.encoder, N_MELS, padded), [hear.map_size(padded)[1]]
    found = spans(padded, hear.window_frames, hear.overlap_frames)
    columns = [math.ceil((s.n_skipped + s.n_kept) / DASS_STRIDE) - s.n_skipped // DASS_STRIDE for s in found]
    # Windows of one length cost alike, and hours hold hundreds of them.
    whole, last = dass_work(hear.encoder, N_MELS, found[0].n_frames), found[-1].n_frames
    return whole.times(len(found) - 1) + dass_work(hear.encoder, N_MELS, last), columns


def dass_work(encoder: DassEncoder, height: int, width: int) -> Operations:
    """One pass over a map of `height` mel bins and `width` frames, up to the final norm."""
    first: Any = encoder.patch_embed.get_submodule("0")
    second: Any = encoder.patch_embed.get_submodule("5")
    work, height, width = _strided_convolution(first, height, width)
    work = work + elementwise(GELU * height * width * first.out_channels)
    after, height, width = _strided_convolution(second, height, width)
    work = work + after
    for stage in encoder.layers:
        modules: Any = stage
        work = work + total(_dass_block(block, height * width) for block in modules.blocks)
        if len(modules.downsample):
            after, height, width = _strided_convolution(modules.downsample.get_submodule("1"), height, width)
            work = work + after
    return work + elementwise(LAYER_NORM * height * width * encoder.config.widths[-1])


def _strided_convolution(layer: ConvLast, height: int, width: int) -> tuple[Operations, int, int]:
    """A convolution and the norm that follows it; the new height and width."""
    height, width = strided(height, layer, 0), strided(width, layer, 1)
    norm = elementwise(LAYER_NORM * height * width * layer.out_channels)
    return convolution(layer, height * width) + norm, height, width


def _dass_block(block: DassBlock, n_positions: int) -> Operations:
    op = block.op
    width, n_states = op.in_proj.out_features, op.A_logs.shape[-1]
    rank = op.dt_projs_weight.shape[-1]
    steps = n_positions * N_DIRECTIONS * width
    scan = scan_flops(1, n_positions, width, n_states, N_DIRECTIONS)
    return total(
        [
            linear(op.in_proj, n_positions),
            convolution(op.conv2d, n_positions),
            products("linear", n_positions * width * N_DIRECTIONS * (rank + 2 * n_states)),
            products("linear", n_positions * N_DIRECTIONS * rank * width),
            Operations(parts={"scan": scan}, macs=2 * steps * n_states, other=(SOFTPLUS + 1) * steps),
            linear(op.out_proj, n_positions),
            mlp(block.mlp.fc1, block.mlp.fc2, n_positions),
            # Two norms before, one after the scan, SiLU, two residual sums; the sum over directions.
            elementwise(n_positions * width * (3 * LAYER_NORM + SILU + 2) + steps),
        ]
    )


# --- AST -------------------------------------------------------------------------------------------------------------


def _ast_pieces(hear: HearAst, padded: int) -> tuple[Operations, list[int]]:
    encoder, one_pass = hear.encoder, hear.encoder.config.max_frames
    if hear.policy == "interpolate":
        return ast_work(encoder, padded), [padded // PATCH]
    n_whole, rest = divmod(padded, one_pass)
    work = ast_work(encoder, one_pass).times(n_whole) + (ast_work(encoder, rest) if rest else Operations())
    group = max(1, WINDOW_FRAMES // one_pass) * one_pass
    return work, [span.n_frames // PATCH for span in spans(padded, group, 0)]


def ast_work(encoder: AstEncoder, n: int) -> Operations:
    """One pass of LTU's encoder over `n` frames."""
    config = encoder.config
    n_patches = config.n_freq * (n // PATCH)
    blocks: Any = [*encoder.blocks_a, *encoder.blocks_u]
    # Position and modality are added to each patch; a norm stands at the end.
    work = convolution(encoder.patch_embed_a.proj, n_patches) + elementwise((2 + LAYER_NORM) * n_patches * config.width)
    for block in blocks:
        linears = linear(block.attn.qkv, n_patches) + linear(block.attn.proj, n_patches)
        mixed = attention(n_patches**2, config.n_heads, config.width // config.n_heads)
        work = work + linears + mixed + mlp(block.mlp.fc1, block.mlp.fc2, n_patches) + _around(n_patches, config.width)
    return work


def _around(n_positions: int, width: int) -> Operations:
    """Two norms and two residual sums."""
    return elementwise(n_positions * width * (2 * LAYER_NORM + 2))


def _stock_pieces(hear: HearStockAst, padded: int) -> tuple[Operations, list[int]]:
    if hear.policy == "interpolate":
        return stock_work(hear.encoder, padded), [hear.map_size(padded)[1]]
    work, columns = Operations(), []
    for span in spans(padded, LTU_FRAMES + WINDOW_HOP, (LTU_FRAMES - WINDOW_HOP) // 2):
        starts = range(0, span.n_frames - PATCH + 1, WINDOW_HOP)
        lengths = [min(LTU_FRAMES, span.n_frames - start) for start in starts]
        work = work + total(stock_work(hear.encoder, length) for length in lengths)
        if lengths:
            columns.append(sum(hear.map_size(length)[1] for length in lengths))
    return work, columns


def stock_work(encoder: Any, n: int) -> Operations:
    """One pass of transformers' AST over `n` frames."""
    config = encoder.config
    width, heads = config.hidden_size, config.num_attention_heads
    n_patches = N_FREQ * ((n - PATCH) // STRIDE + 1)
    n_positions = n_patches + N_SPECIAL
    hidden = n_positions * config.intermediate_size
    block = (
        products("linear", n_positions * width * 4 * width)
        + products("linear", 2 * hidden * width)
        + attention(n_positions**2, heads, width // heads)
        + _around(n_positions, width)
        # Biases of six layers, GELU.
        + elementwise((4 + 1) * n_positions * width + (GELU + 1) * hidden)
    )
    embedded = products("convolution", n_patches * width * PATCH * PATCH)
    ends = elementwise((1 + LAYER_NORM) * n_positions * width + n_patches * width)
    return embedded + ends + block.times(config.num_hidden_layers)


# --- connectors ------------------------------------------------------------------------------------------------------


def _connected(connector: Connector, n_rows: int, pieces: list[int]) -> tuple[Operations, list[int]]:
    """Work on a map in pieces, some of whose columns are heard again with the next, and the tokens of each piece."""
    work, chunks, n_before = Operations(), [], 0
    for columns in pieces:
        work = work + connector_work(connector, n_rows, n_before + columns)
        again = connector.n_tokens(n_rows, n_before) if n_before else 0
        chunks.append(connector.n_tokens(n_rows, n_before + columns) - again)
        n_before = min(connector.n_before, columns)
    return work, chunks


def connector_work(connector: Connector, n_rows: int, n_columns: int) -> Operations:
    """One pass over a map of F rows and T columns."""
    n_tokens = connector.n_tokens(n_rows, n_columns)
    if isinstance(connector, ConvConnector):
        return convolution(connector.conv, n_tokens) + linear(connector.linear, n_tokens)
    if isinstance(connector, PoolConnector):
        projection: Any = connector.audio_proj[1]
        width = projection.in_features
        pooled = elementwise(n_rows * n_columns * width + n_tokens * width * (2 + LAYER_NORM))
        return linear(projection, n_tokens) + pooled
    if isinstance(connector, ConcatConnector):
        return mlp(connector.fc1, connector.fc2, n_tokens)
    raise TypeError(f"No formula for the connector {type(connector).__name__}")
