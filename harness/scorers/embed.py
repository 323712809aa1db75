"""`embed`: the label whose sentence lies nearest to the answer's, by cosine of a local sentence embedder.

The steps are those of LTU's evaluation (Gong et al. 2023; repository YuanGongND/ltu, src/ltu/eval), with
all-MiniLM-L6-v2 in place of OpenAI's text-embedding-ada-002, so its numbers are not LTU's: the text after the last ":"
(the text before it when nothing follows), lower-cased, behind "sound of ", against "sound of " and the label's text.

Every answer with words in it gets a label, sense or nonsense: read this scorer beside `exact`. An empty answer is
unparsed, and so is an exact tie.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.contracts import Decision, Label, ScorableAnswer, Scorer
from harness.scorers._best import unique_best

LTU_PREFIX = "sound of "


def embed(prefix: str = LTU_PREFIX) -> Scorer:
    """The label whose sentence embedding is nearest to the answer's."""
    return _Embedding(prefix)


class _Embedding:
    version = 1
    needs_label_scores = False

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        # Another prefix gives other numbers, so it belongs to the name under which they are filed.
        self.name = "embed" if prefix == LTU_PREFIX else f"embed[prefix={prefix!r}]"

    def decide(self, answers: Sequence[ScorableAnswer], labels: Sequence[Label]) -> Sequence[Decision]:
        """Scores are the cosines, in [-1, 1], one a label."""
        said = [_said(answer.text) for answer in answers]
        if not any(said):
            return [Decision(None) for _ in said]
        from harness.scorers._sentence_embedder import embed_sentences

        label_vectors = embed_sentences([self.prefix + label.text.lower() for label in labels])
        answer_vectors = embed_sentences([self.prefix + text for text in said])
        cosines = (answer_vectors @ label_vectors.T).clip(-1.0, 1.0)
        return [
            _decide(row.tolist(), labels) if text else Decision(None) for text, row in zip(said, cosines, strict=True)
        ]


def _said(text: str) -> str:
    """What the answer says, lower-cased: the part after the last colon, or the whole when nothing follows it."""
    before, _, after = text.rpartition(":")
    said = (after.strip() or before.strip()).lower()
    return said if any(character.isalnum() for character in said) else ""


def _decide(cosines: Sequence[float], labels: Sequence[Label]) -> Decision:
    best = unique_best(cosines)
    return Decision(None if best is None else labels[best].name, tuple(cosines))
