"""`loglik`: the label that the model itself finds most likely. No text is parsed.

The model scores every label (length-normalised log-likelihood, nats per token), and the highest wins. An exact tie
for the highest is unparsed, and so is an answer without scores or with a score that is not a number.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.contracts import Decision, Label, ScorableAnswer, Scorer
from harness.errors import PluginError
from harness.scorers._best import unique_best


def loglik() -> Scorer:
    """The label of the highest log-likelihood under the model."""
    return _LogLikelihood()


class _LogLikelihood:
    name = "loglik"
    version = 1
    needs_label_scores = True

    def decide(self, answers: Sequence[ScorableAnswer], labels: Sequence[Label]) -> Sequence[Decision]:
        return [_decide(answer, labels) for answer in answers]


def _decide(answer: ScorableAnswer, labels: Sequence[Label]) -> Decision:
    scores = answer.label_scores
    if scores is None:
        return Decision(None)
    if len(scores) != len(labels):
        raise PluginError(f"An answer has {len(scores)} label scores for {len(labels)} labels.")
    best = unique_best(scores)
    return Decision(None if best is None else labels[best].name, scores)
