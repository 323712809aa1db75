"""A command with every name resolved: what the model is asked, and what does not fit together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.config import RunConfig
from harness.contracts import Label
from harness.errors import UsageError
from harness.plan import Plan, _default_scorers, make_plan
from harness.registry import add_plugin_file
from harness.scoring import asked_labels

PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Of a model that chooses among labels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    add_plugin_file(PLUGINS / "beeps.py")
    return make_plan(RunConfig("chance", "beeps", device="cpu"), say=lambda line: None)


def test_a_model_scores_label_texts_without_the_double_spaces_that_a_scorer_wants(plan: Plan) -> None:
    benchmark = replace(plan.benchmark, labels=(Label("bee, wasp", "bee,  wasp "), Label("rain", "rain")))
    asked = replace(plan, task=replace(plan.task, value=benchmark)).question
    assert asked.labels == ("bee, wasp", "rain")


def test_a_task_that_names_a_metric_of_other_tasks_is_refused_before_the_model_is_asked(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.metrics.accuracy.KINDS", ("captioning",))
    with pytest.raises(UsageError, match="'accuracy' is for captioning tasks"):
        make_plan(plan.config, say=lambda line: None)


def test_models_are_asked_about_labels_without_double_spaces_wherever_they_are_asked() -> None:
    assert asked_labels((Label("bee, wasp", "bee,  wasp "), Label("rain", "rain"))) == ("bee, wasp", "rain")


@pytest.mark.parametrize(
    ("metrics", "scorers"),
    [
        (("accuracy",), ("exact", "loglik")),
        (("mean_ap",), ("embed", "loglik")),
        (("micro_f1", "mean_ap"), ("exact", "embed", "loglik")),
    ],
)
def test_decisions_are_counted_by_a_scorer_that_can_decide_for_several_labels(
    plan: Plan, metrics: tuple[str, ...], scorers: tuple[str, ...]
) -> None:
    assert _default_scorers(replace(plan.benchmark, metrics=metrics)) == scorers
