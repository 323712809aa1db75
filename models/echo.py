"""`echo`: says a fixed text, or the prompt. A fake for tests, and a measure of the harness's own cost."""

from __future__ import annotations

from harness.contracts import Answer, ModelAdapter, Query
from models._weightless import WeightlessModel, unit_hash


def echo(text: str | None = None, scores: bool = False) -> ModelAdapter:
    """Says a fixed text, or the prompt; hears nothing.

    Args:
        text: what to say; the prompt when left out.
        scores: also give each label a score, that looks random and follows from item and label alone.
    """
    return _Echo(text, scores)


class _Echo(WeightlessModel):
    def __init__(self, text: str | None, scores: bool) -> None:
        summary = "Says the prompt, or a fixed text; hears nothing"
        super().__init__("echo", summary, {"text": text, "scores": scores}, can_score_labels=scores)
        self._text = text
        self._scores = scores

    def answer_one(self, query: Query) -> Answer:
        text = query.prompt if self._text is None else self._text
        if not self._scores or query.labels is None:
            return Answer(text=text)
        return Answer(text=text, label_scores=tuple(-unit_hash(query.item_id, label) for label in query.labels))
