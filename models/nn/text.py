"""The tiny models' tokenizer and the prompt template.

The tokenizer is a byte-level BPE of 1 024 tokens that we train with the `tokenizers` library on text of our own
(`models/weights/tokenizer_corpus.txt`): any UTF-8 text goes in and comes out unchanged, but for the end-of-text token's
own spelling, which is read as that token.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"
VOCAB_SIZE = 1024
# `alpaca_short` without an input: YuanGongND/ltu src/ltu/templates/alpaca_short.json.
TEMPLATE = "### Instruction:\n{question}\n\n### Response:\n"


def train_tokenizer(lines: Sequence[str]) -> Tokenizer:
    """A byte-level BPE of VOCAB_SIZE tokens; the same lines give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


class Text:
    """Text to token ids and back, with an end-of-text token that also serves as padding."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        end = tokenizer.token_to_id(END_OF_TEXT)
        if end is None:
            raise ValueError(f"this tokenizer has no {END_OF_TEXT} token")
        self.end_id: int = end

    @classmethod
    def from_file(cls, path: Path) -> Text:
        """Read a tokenizer's JSON file."""
        return cls(Tokenizer.from_file(str(path)))

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return int(self.tokenizer.get_vocab_size())

    def prompt_ids(self, question: str) -> list[int]:
        """The question inside the template, up to where the answer begins."""
        return list(self.tokenizer.encode(TEMPLATE.format(question=question)).ids)

    def answer_ids(self, answer: str) -> list[int]:
        """An answer with its end-of-text token."""
        return [*self.tokenizer.encode(answer).ids, self.end_id]

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text, special tokens left out, outer white space stripped."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
