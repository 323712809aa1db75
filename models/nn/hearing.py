"""Hearing: an encoder and a connector under a length policy, from features to vectors for the language model.

The policies, and who has them:

    full          all: (DASS) any length in one pass
    window        windows of one length; AST's lie end to end and know nothing of each other, DASS's overlap
    interpolate   (AST) any length in one pass, the position embedding spread over it
    first_10_24s  LTU's published protocol: 1024 frames, the rest is not heard

Letters
    B   batch, T frames (of features) or columns (of a map), M mel bins
    F   rows along frequency, C channels of the encoder, A audio tokens, E width of the language model
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from models.nn.ast_encoder import PATCH, AstEncoder
from models.nn.connector import Connector
from models.nn.dass_encoder import DassEncoder
from models.nn.features import N_MELS, round_up
from models.nn.streaming import connect_pieces, first_frames, windows

# DASS's map and the connector's stride give two tokens for every 64 frames, and so do two pairs of AST's patches: 3.125
# a second on both sides. Features are padded to whole steps of that length before they are normalised.
FRAMES_PER_STEP = 64
LTU_FRAMES = 1024  # 10.24 s: YuanGongND/ltu src/ltu/inference_batch.py pads or cuts to it
DASS_STRIDE = 32  # frames, and mel bins, of one position of DASS's map
# DASS's windows: 81.92 s, of which 10.24 s at either end are heard twice, for a third more time. `overlap_error` of
# windows of 8192 frames, five minutes of recordings end to end:
#     overlap (frames)    0      128     512     1024    2048    3072
#     trained tiny DASS   0.143  0.142   0.134   0.119   0.121   0.103
#     untrained           0.061  0.0002  0.0002  0.0001  0.0001  0.0001
# Step sizes that training made small remember the whole clip, and a scan along rows goes from the end of one row on to
# the start of the next, so for trained weights no overlap comes near one pass. Shorter windows: 0.157 for 4096 frames
# with an overlap of 1024, 0.216 for 2048 with 512.
WINDOW_FRAMES = 8192
OVERLAP_FRAMES = 1024


class Hearing(nn.Module, ABC):
    """What every hearing offers, whichever encoder it has."""

    policies: tuple[str, ...] = ()

    def __init__(self, encoder: nn.Module, connector: Connector, policy: str) -> None:
        super().__init__()
        if policy not in self.policies:
            raise ValueError(f"No length policy {policy!r} here; there are {', '.join(self.policies)}")
        self.encoder = encoder
        self.connector = connector
        self.policy = policy

    @property
    @abstractmethod
    def width(self) -> int:
        """Channels C of the encoder's output."""

    @abstractmethod
    def map_size(self, n_frames: int) -> tuple[int, int]:
        """Rows F and columns T of the map of so many frames of features."""

    @abstractmethod
    def _all_pieces(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """The map of everything that `blocks` hold, in pieces along time."""

    def encode_stream(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """The map of a long input in pieces (B, F, t, C), t even in all but the last.

        Args:
            blocks: normalised features in order, shape (B, t, M) each, of any lengths.
        """
        if self.policy == "first_10_24s":
            blocks = first_frames(blocks, LTU_FRAMES)
        return self._all_pieces(blocks)

    def encode(self, fbank_BTM: Tensor) -> Tensor:
        """The whole map, shape (B, F, T, C).

        Args:
            fbank_BTM: normalised, shape (B, frames, mel), as many frames as `padded_frames` says.
        """
        pieces = list(self.encode_stream([fbank_BTM]))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)

    def connect(self, map_BFTC: Tensor) -> Tensor:
        """Map to audio tokens, shape (B, A, E)."""
        tokens: Tensor = self.connector(map_BFTC)
        return tokens

    def stream(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Audio tokens of a long input in chunks (B, A_i, E): together `connect(encode(...))` of the whole."""
        return connect_pieces(self.connector, self.encode_stream(blocks))

    def timeline(self, map_BFTC: Tensor) -> Tensor:
        """One vector for every column of the map, shape (B, T, C)."""
        return map_BFTC.mean(dim=1)

    def padded_frames(self, n_frames: int) -> int:
        """Frames that a clip of `n_frames` is padded to before they are normalised (`features.pad_frames`)."""
        whole_steps = round_up(max(n_frames, 1), FRAMES_PER_STEP)
        return max(whole_steps, LTU_FRAMES) if self.policy == "first_10_24s" else whole_steps

    def frames_heard(self, n_frames: int) -> int:
        """How many of a clip's `n_frames` reach the encoder."""
        return min(n_frames, LTU_FRAMES) if self.policy == "first_10_24s" else n_frames

    def n_tokens(self, n_frames: int) -> int:
        """Audio tokens A of a clip of `n_frames`, its padding included."""
        padded = self.padded_frames(n_frames)
        return self.connector.n_tokens(*self.map_size(self.frames_heard(padded)))


class HearDass(Hearing):
    """DASS. Its four scans read the whole map, backwards too, so it is not causal: what a window makes of its edges
    differs from what one pass makes of them (`overlap_error`), and overlaps keep the edges out."""

    policies = ("full", "window", "first_10_24s")
    encoder: DassEncoder

    def __init__(
        self,
        encoder: DassEncoder,
        connector: Connector,
        policy: str = "full",
        window_frames: int = WINDOW_FRAMES,
        overlap_frames: int = OVERLAP_FRAMES,
    ) -> None:
        super().__init__(encoder, connector, policy)
        # Only so do a window's positions, and the connector's tokens, fall where those of one pass do.
        if window_frames % FRAMES_PER_STEP or overlap_frames % FRAMES_PER_STEP:
            raise ValueError(
                f"A window of {window_frames} frames and an overlap of {overlap_frames}: both must be multiples of "
                f"{FRAMES_PER_STEP}"
            )
        self.window_frames = window_frames
        self.overlap_frames = overlap_frames

    @property
    def width(self) -> int:
        """Channels C of the encoder's output."""
        return self.encoder.config.widths[-1]

    def map_size(self, n_frames: int) -> tuple[int, int]:
        """Rows F and columns T of the map of so many frames of features."""
        return math.ceil(N_MELS / DASS_STRIDE), math.ceil(n_frames / DASS_STRIDE)

    def _all_pieces(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        if self.policy != "window":
            yield self.encoder.normed_map(torch.cat(list(blocks), dim=1))
            return
        for window in windows(blocks, self.window_frames, self.overlap_frames):
            start, stop = window.n_skipped, window.n_skipped + window.n_kept
            map_BFTC = self.encoder.normed_map(window.features_BTM)
            yield map_BFTC[:, :, start // DASS_STRIDE : math.ceil(stop / DASS_STRIDE)]


class HearAst(Hearing):
    """LTU's AST."""

    policies = ("window", "interpolate", "first_10_24s")
    encoder: AstEncoder

    def __init__(self, encoder: AstEncoder, connector: Connector, policy: str = "window") -> None:
        super().__init__(encoder, connector, policy)

    @property
    def width(self) -> int:
        """Channels C of the encoder's output."""
        return self.encoder.config.width

    def map_size(self, n_frames: int) -> tuple[int, int]:
        """Rows F and columns T of the map of so many frames of features."""
        return self.encoder.config.n_freq, n_frames // PATCH

    def _all_pieces(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Several windows go through the encoder together, but never all of a long clip's."""
        if self.policy == "interpolate":
            yield self._pass(torch.cat(list(blocks), dim=1))
            return
        one_pass = self.encoder.config.max_frames
        for group in windows(blocks, max(1, WINDOW_FRAMES // one_pass) * one_pass, overlap_frames=0):
            yield self._windows(group.features_BTM)

    def _windows(self, fbank_BTM: Tensor) -> Tensor:
        """Windows of one pass each, the last one shorter where it must be, side by side in order of time."""
        one_pass = self.encoder.config.max_frames
        n_whole = fbank_BTM.shape[1] // one_pass
        maps = []
        if n_whole:
            folded = fbank_BTM[:, : n_whole * one_pass].unflatten(1, (n_whole, one_pass)).flatten(0, 1)
            maps.append(self._pass(folded).unflatten(0, (-1, n_whole)).transpose(1, 2).flatten(2, 3))
        if fbank_BTM.shape[1] % one_pass:
            maps.append(self._pass(fbank_BTM[:, n_whole * one_pass :]))
        return maps[0] if len(maps) == 1 else torch.cat(maps, dim=2)

    def _pass(self, fbank_BTM: Tensor) -> Tensor:
        patches_BLC = self.encoder(fbank_BTM, stretch=self.policy == "interpolate")
        map_BFTC: Tensor = patches_BLC.unflatten(1, (self.encoder.config.n_freq, -1))
        return map_BFTC


def overlap_error(hear: HearDass, fbank_BTM: Tensor, window_frames: int, overlap_frames: int) -> float:
    """How far audio tokens of overlapping windows are from those of one pass over the whole.

    Args:
        fbank_BTM: normalised, shape (B, frames, mel), frames a multiple of FRAMES_PER_STEP.

    Returns:
        root mean square of the difference over that of the tokens' own variation about their mean: 0 for equal
        tokens, about 1.4 for unrelated ones.
    """
    windowed = HearDass(hear.encoder, hear.connector, "window", window_frames, overlap_frames)
    whole = HearDass(hear.encoder, hear.connector, "full")
    expected = whole.connect(whole.encode(fbank_BTM))
    found = torch.cat(list(windowed.stream([fbank_BTM])), dim=1)
    variation = expected - expected.mean(dim=(0, 1))
    return float((found - expected).norm() / variation.norm())
