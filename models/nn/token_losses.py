"""The loss of each token of a text that follows audio: what training in stages adds up, and how much of it is right.

Letters
    B   batch, A audio tokens, E width of the language model
    L   positions of the longest text, N tokens that count, V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from models.nn.lalm import AudioLanguageModel


class TokenLosses(NamedTuple):
    """One entry a token that counts, row by row: cross-entropy in nats, whether it was the likeliest, and its row."""

    losses_N: Tensor
    is_likeliest_N: Tensor
    rows_N: Tensor


def token_losses(
    network: AudioLanguageModel, audio_BAE: Tensor, texts: Sequence[Sequence[int]], starts: Sequence[int]
) -> TokenLosses:
    """Losses of `texts` from position `starts` on, given the audio and every token before.

    Texts are padded on the right, where nothing that counts comes after. A row with a start beyond its text has no
    token that counts.

    Args:
        audio_BAE: audio tokens of each row.
        texts: token ids, prompt and answer in one.
        starts: the first position that counts, for each row; 0 is what the audio alone foretells.
    """
    longest = max(len(text) for text in texts)
    device = audio_BAE.device
    ids_BL = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts], device=device)
    ends = torch.tensor([len(text) for text in texts], device=device)[:, None]
    positions = torch.arange(longest, device=device)
    counts_BL = (positions >= torch.tensor(starts, device=device)[:, None]) & (positions < ends)
    embeddings = torch.cat([audio_BAE, network.lm.embed(ids_BL).to(audio_BAE.dtype)], dim=1)
    hidden, _ = network.lm(embeddings[:, :-1])
    # The head sees what counts alone: logits of audio and padding would be much of its work.
    counted_NE = hidden[:, audio_BAE.shape[1] - 1 :][counts_BL]
    wanted_N = ids_BL[counts_BL]
    logits_NV = network.lm.head(counted_NE).float()
    losses_N = functional.cross_entropy(logits_NV, wanted_N, reduction="none")
    return TokenLosses(losses_N, logits_NV.detach().argmax(-1) == wanted_N, counts_BL.nonzero()[:, 0])
