"""How a model that is being trained does on clips that were kept back."""

from __future__ import annotations

from collections.abc import Sequence

from harness import registry
from harness.contracts import AudioItem, Query, Task, TrainableModel
from harness.errors import PluginError
from harness.promises import checked_answers
from harness.scoring import ScoreReport, ScoringInput, asked_labels, score_items

BATCH = 16
SCORERS = ("exact", "loglik")


def score_held_out(model: TrainableModel, task: Task, items: Sequence[AudioItem]) -> list[ScoreReport]:
    """Ask the task's default question of each item and score the answers with each of SCORERS.

    Raises:
        AudioError: a clip cannot be read; a training run's own data must be whole.
        PluginError: the model failed on an item.
    """
    prompt = next(iter(task.prompts.values()))
    labels = asked_labels(task.labels)
    inputs: list[ScoringInput] = []
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        queries = [Query(i.item_id, i.source.load(model.sample_rate_hz), prompt, labels) for i in batch]
        for item, answer in zip(batch, checked_answers(model.answer(queries), len(queries)), strict=True):
            if answer.error is not None:
                raise PluginError(f"the model failed on '{item.item_id}': {answer.error}")
            inputs.append(
                ScoringInput(item.item_id, item.references, item.cluster, True, answer.text, answer.label_scores)
            )
    metric_name = task.metrics[0]
    metric = registry.create("metrics", metric_name).value
    return [
        score_items(inputs, task.labels, registry.create("scorers", name).value, metric_name, metric)
        for name in SCORERS
    ]
