"""A large audio language model: encoder, connector, language model. Audio tokens come first, then the text.

Letters
    B   batch, T frames, M mel bins
    A   audio tokens, P prompt tokens, E width of the language model, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.nn.features import Normalisation, normalised_stream
from models.nn.hearing import FRAMES_PER_STEP, HearAst, HearDass, Hearing
from models.nn.streaming import regroup

__all__ = ["FRAMES_PER_STEP", "AudioLanguageModel", "HearAst", "HearDass", "Hearing", "StreamRead"]

# Audio tokens that go through the language model together when they come in chunks: enough for its matrix products,
# few enough that what it holds for a chunk stays small.
TOKENS_AT_ONCE = 512


class StreamRead(NamedTuple):
    """What `AudioLanguageModel.read_stream` gives: the prompt's last hidden state, where to continue, what it heard."""

    last_BE: Tensor
    cache: Any
    n_audio_tokens: int


class AudioLanguageModel(nn.Module):
    """`hear` turns features into audio tokens; `lm` continues them with text."""

    def __init__(self, hear: Hearing, lm: Any) -> None:
        super().__init__()
        self.hear = hear
        self.lm = lm

    def parameter_counts(self) -> dict[str, int]:
        """Parameters of each part; a tensor that two modules share counts once."""
        parts = {"encoder": self.hear.encoder, "connector": self.hear.connector, "language_model": self.lm}
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}

    def audio_tokens(self, fbank_BTM: Tensor) -> Tensor:
        """Normalised features to vectors for the language model, (B, T, M) to (B, A, E)."""
        return self.hear.connect(self.hear.encode(fbank_BTM))

    def read(self, audio: Sequence[Tensor], prompt_ids: Sequence[Sequence[int]]) -> tuple[Tensor, Any]:
        """Audio, then prompt, through the language model, clips of unlike length padded on the left under a mask.

        Args:
            audio: one tensor of shape (A_i, E) an item.
            prompt_ids: as many lists of token ids.

        Returns:
            the last hidden state of each item, shape (B, E), and the cache to continue from.
        """
        device = audio[0].device
        rows = [
            torch.cat([tokens, self.lm.embed(torch.tensor([ids], device=device))[0].to(tokens.dtype)])
            for tokens, ids in zip(audio, prompt_ids, strict=True)
        ]
        longest = max(len(row) for row in rows)
        embeddings = torch.stack([functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = (torch.arange(longest, device=device) >= (longest - lengths)[:, None]).to(embeddings.dtype)
        hidden, cache = self.lm(embeddings, mask_BL=None if bool(mask.all()) else mask)
        return hidden[:, -1], cache

    def hear_stream(
        self, log_mel_blocks: Iterable[Tensor], normalisation: Normalisation, least_frames: int = 0
    ) -> Iterator[Tensor]:
        """Audio tokens of one clip of any length, in chunks (A_i, E); memory does not grow with the length.

        That holds for the policies `window` and `first_10_24s`; `full` and `interpolate` are one pass, so they hear
        everything before the first token.

        Args:
            log_mel_blocks: as `features.fbank_stream` gives them: shape (t, M) each, not normalised.
            least_frames: a shorter clip is padded to it.
        """
        like = next(self.hear.parameters())
        least = max(least_frames, self.hear.padded_frames(1))
        features = normalised_stream(log_mel_blocks, normalisation, least, FRAMES_PER_STEP)
        for tokens_1AE in self.hear.stream(block.to(like).unsqueeze(0) for block in features):
            yield tokens_1AE[0]

    def read_stream(self, audio_chunks: Iterable[Tensor], prompt_ids: Sequence[int]) -> StreamRead:
        """`read` of one item whose audio tokens come in chunks: the cache is carried from one to the next.

        Mamba's cache stays as large as after the first token; LLaMA's grows with every one.

        Args:
            audio_chunks: shape (A_i, E) each, as `hear_stream` gives them.
        """
        cache, n_audio_tokens = None, 0
        for chunk_AE in regroup(audio_chunks, TOKENS_AT_ONCE):
            _, cache = self.lm(chunk_AE.unsqueeze(0), cache=cache)
            n_audio_tokens += len(chunk_AE)
        device = next(self.lm.parameters()).device
        hidden, cache = self.lm(self.lm.embed(torch.tensor([prompt_ids], device=device)), cache=cache)
        return StreamRead(hidden[:, -1], cache, n_audio_tokens)

    def generate(
        self, last_BE: Tensor, cache: Any, end_id: int, max_new_tokens: int, choose: Callable[[Tensor], Tensor]
    ) -> list[list[int]]:
        """Continue until each item has said `end_id`, or `max_new_tokens`.

        Args:
            last_BE: hidden state after the prompt.
            choose: logits (B, V) to token ids (B,).

        Returns:
            the new ids of each item, the end token included where it came.
        """
        said: list[list[int]] = [[] for _ in range(last_BE.shape[0])]
        for position in range(max_new_tokens):
            ids_B = choose(self.lm.head(last_BE))
            open_items = 0
            for ids, new in zip(said, ids_B.tolist(), strict=True):
                if not ids or ids[-1] != end_id:
                    ids.append(new)
                    open_items += new != end_id
            if not open_items or position == max_new_tokens - 1:
                break
            last_BE, cache = self.lm.step(self.lm.embed(ids_B[:, None])[:, 0], cache)
        return said

    def answer_log_likelihoods(self, last_BE: Tensor, cache: Any, answers: Sequence[Sequence[int]]) -> Tensor:
        """Mean log-probability per token, in nats, of each answer after each item's prompt.

        Args:
            last_BE: hidden state after the prompt.
            cache: of the same B items; it is not changed.
            answers: token ids of K candidate answers, each with its end token.

        Returns:
            shape (B, K), float32.
        """
        longest = max(len(answer) for answer in answers)
        ids_KL = torch.tensor([[*answer, *[0] * (longest - len(answer))] for answer in answers], device=last_BE.device)
        real_KL = torch.tensor([[i < len(answer) for i in range(longest)] for answer in answers], device=ids_KL.device)
        n_items, n_answers = last_BE.shape[0], len(answers)
        ids_NL = ids_KL.repeat(n_items, 1)
        hidden, _ = self.lm(self.lm.embed(ids_NL[:, :-1]).to(last_BE.dtype), cache=cache.repeat(n_answers))
        hidden = torch.cat([last_BE.repeat_interleave(n_answers, dim=0)[:, None], hidden], dim=1)
        log_p = torch.log_softmax(self.lm.head(hidden).float(), dim=-1).gather(-1, ids_NL[..., None])[..., 0]
        real_NL = real_KL.repeat(n_items, 1)
        means: Tensor = (log_p * real_NL).sum(1) / real_NL.sum(1)
        return means.view(n_items, n_answers)

    def answer_losses(
        self, audio_BAE: Tensor, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
    ) -> Tensor:
        """Cross-entropy of each answer given audio and prompt, mean over its tokens, for training.

        Sequences are padded on the right, where nothing that counts comes after.

        Returns:
            shape (B,), nats per token.
        """
        texts = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        longest = max(len(text) for text in texts)
        device = audio_BAE.device
        ids_BL = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts], device=device)
        starts = torch.tensor([len(prompt) for prompt in prompts], device=device)[:, None]
        ends = torch.tensor([len(text) for text in texts], device=device)[:, None]
        positions = torch.arange(longest, device=device)
        counts_BL = (positions >= starts) & (positions < ends)
        embeddings = torch.cat([audio_BAE, self.lm.embed(ids_BL).to(audio_BAE.dtype)], dim=1)
        hidden, _ = self.lm(embeddings[:, :-1])
        # Logits of what counts alone: those of audio and prompt would be most of the language model's work.
        asked_NE = hidden[:, audio_BAE.shape[1] - 1 :][counts_BL]
        losses_N = functional.cross_entropy(self.lm.head(asked_NE).float(), ids_BL[counts_BL], reduction="none")
        sums_B = torch.zeros(len(texts), device=device).index_add(0, counts_BL.nonzero()[:, 0], losses_N)
        return sums_B / counts_BL.sum(1)
