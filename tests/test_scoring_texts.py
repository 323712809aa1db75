"""Captions and transcripts: the text itself is judged, and a metric that is not available says so."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import registry
from harness.config import RunConfig
from harness.contracts import Scored
from harness.errors import MetricUnavailable, UsageError
from harness.measuring import BoundMetric
from harness.metrics.bleu_1 import bleu_1
from harness.metrics.rouge_l import rouge_l
from harness.records import load_record, write_record
from harness.registry import add_plugin_file
from harness.report.loading import load_all
from harness.report.rederiving import rederive
from harness.runner import RunOutcome, run
from harness.scores import make_scorer, score_run
from harness.scoring import ScoringInput, Verbatim, is_mean_of, score_items
from harness.tables import closing_lines, score_table

PLUGINS = Path(__file__).parent / "plugins"
Run = Callable[..., RunOutcome]


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a model on beeps that are to be described."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    for name in ("told.py", "beeps.py", "moody.py"):
        add_plugin_file(PLUGINS / name)

    def make(
        model: str = "echo", said: str = "a beep", task: dict[str, Any] | None = None, **values: Any
    ) -> RunOutcome:
        options: dict[str, Any] = {"text": said} if model == "echo" else {}
        config = RunConfig(model, "told", model_options=options, task_options=task or {}, device="cpu", **values)
        return run(config, say=lambda line: None)

    return make


def unavailable(scored: Sequence[Scored]) -> float:
    """Stands for a metric without its tool."""
    raise MetricUnavailable("no Java was found")


@pytest.fixture
def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """SPIDEr as it is on a machine without Java."""
    monkeypatch.setattr("harness.metrics.spider.spider", unavailable)


@pytest.mark.parametrize("kind", ["captioning", "transcription"])
def test_a_task_of_texts_is_scored_verbatim(go: Run, kind: str) -> None:
    (row,) = go(task={"kind": kind}).scores
    assert (row.scorer, row.metric, row.n_items, row.per_class, row.confusion) == ("verbatim", "wer", 6, (), {})


def test_what_was_said_reaches_the_metric(go: Run) -> None:
    # "a beep" lacks three words of "a beep of kind 3".
    assert go().scores[0].value == pytest.approx(3 / 5)


def test_an_answer_that_says_nothing_is_counted_as_unparsed(go: Run) -> None:
    row = go(said=" ").scores[0]
    assert (row.n_answered, row.n_unparsed) == (6, 6)


def test_a_scorer_of_labels_is_refused_for_a_task_without(go: Run) -> None:
    with pytest.raises(UsageError, match="its scorer is 'verbatim'"):
        go(scorers=("exact",))


def test_verbatim_is_refused_for_a_task_of_labels(go: Run) -> None:
    with pytest.raises(UsageError, match="makes no labels"):
        run(RunConfig("moody", "beeps", device="cpu", scorers=("verbatim",)), say=lambda line: None)


def test_a_model_that_chooses_among_labels_is_refused(go: Run) -> None:
    with pytest.raises(UsageError, match="chooses among labels"):
        go("chance")


def test_a_metric_that_is_the_mean_of_its_items_keeps_their_values(go: Run) -> None:
    row = next(row for row in go(task={"metrics": "cider_d+bleu_1"}).scores if row.metric == "cider_d")
    assert row.item_values is not None and len(row.item_values) == 6
    assert sum(row.item_values.values()) / 6 == pytest.approx(row.value)


def test_a_metric_of_the_whole_corpus_keeps_none() -> None:
    """BLEU's brevity penalty is one for all items: their values average to another number."""
    said = {"a": "a dog", "b": "rain falls on a tin roof"}
    items = [ScoringInput(name, ("a dog barks at the door",), name, True, text, None) for name, text in said.items()]
    assert score_items(items, [], Verbatim(), "bleu_1", bleu_1).item_values is None


def _refuses(scored: Sequence[Scored]) -> np.ndarray:
    raise MetricUnavailable("no Java was found")


@pytest.mark.parametrize("per_item", [_refuses, lambda scored: np.full(len(scored), np.nan), lambda scored: None])
def test_a_metric_that_cannot_tell_its_items_values_costs_no_score(
    go: Run, monkeypatch: pytest.MonkeyPatch, per_item: Callable[[Sequence[Scored]], Any]
) -> None:
    monkeypatch.setattr("harness.metrics.wer.per_item", per_item)
    (row,) = go().scores
    assert (row.value, row.item_values) == (pytest.approx(3 / 5), None)


def test_each_caption_of_a_clip_that_was_asked_often_has_its_value() -> None:
    items = [
        ScoringInput(f"a#{n}", ("a dog barks",), "a", True, text, None) for n, text in enumerate(("a dog", "rain"))
    ]
    row = score_items(items, [], Verbatim(), "rouge_l", rouge_l, n_trials=2)
    assert row.item_values is not None and [*row.item_values] == ["a#0", "a#1"]
    assert row.item_values["a#0"] > row.item_values["a#1"]


def test_a_clip_without_an_answer_has_a_value_too() -> None:
    items = [ScoringInput(name, ("a dog barks",), name, name == "a", "a dog", None) for name in "ab"]
    row = score_items(items, [], Verbatim(), "rouge_l", rouge_l)
    assert row.item_values is not None and row.item_values["b"] == 0.0


def test_a_score_of_before_the_items_values_is_no_other_score(go: Run) -> None:
    folder = go().folder
    score_run(folder, ["verbatim"], ["rouge_l"])
    (path,) = folder.glob("scores-*.json")
    older = json.loads(path.read_text())
    del older["scores"][0]["item_values"]
    path.write_text(json.dumps(older))
    score_run(folder, ["verbatim"], ["rouge_l"])
    assert json.loads(path.read_text())["scores"][0]["item_values"] is not None


def test_a_record_of_before_the_items_values_is_verified_as_it_is(go: Run) -> None:
    folder = go(task={"metrics": "cider_d+bleu_1"}).folder
    record = load_record(folder)
    assert record is not None
    older = tuple(row.model_copy(update={"item_values": None}) for row in record.scores)
    write_record(folder, record.model_copy(update={"scores": older}))
    found = rederive(load_all(folder.parents[3]))
    assert (found.differences, found.not_rederived, found.n_values) == ((), (), 2)
    assert found.results.runs[0].scores == older


def test_texts_can_be_scored_again(go: Run) -> None:
    outcome = go()
    assert tuple(score_run(outcome.folder, ["verbatim"])[1]) == outcome.scores


@pytest.mark.usefixtures("without_java")
def test_a_metric_that_is_not_available_is_recorded_with_its_reason(go: Run) -> None:
    (row,) = go(task={"metrics": "spider"}).scores
    assert (row.value, row.interval, row.unavailable) == (None, None, "no Java was found")


@pytest.mark.usefixtures("without_java")
def test_the_other_metrics_are_there_all_the_same(go: Run) -> None:
    rows = {row.metric: row for row in go(task={"metrics": "spider+wer"}).scores}
    assert rows["spider"].value is None and rows["wer"].value == pytest.approx(3 / 5)


def test_a_metric_that_refuses_the_items_is_recorded_with_its_reason(go: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(scored: Sequence[Scored]) -> float:
        raise ValueError("no reference has a word")

    monkeypatch.setattr("harness.metrics.spider.spider", refuses)
    rows = {row.metric: row for row in go(task={"metrics": "spider+wer"}).scores}
    assert rows["spider"].value is None and rows["wer"].value == pytest.approx(3 / 5)
    assert rows["spider"].unavailable == "the metric 'spider' refuses these items: no reference has a word"


@pytest.mark.usefixtures("without_java")
def test_the_table_says_not_available_and_never_a_number(go: Run) -> None:
    outcome = go(task={"metrics": "spider"})
    assert "not available" in " ".join(score_table(outcome.record, outcome.scores).rows[0])
    lines = closing_lines(outcome.record, outcome.folder, outcome.scores)
    assert "spider is not available: no Java was found" in lines


def test_a_metric_that_has_become_available_is_computed_by_the_same_command(
    go: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("harness.metrics.spider.spider", unavailable)
        go(task={"metrics": "spider"})
    monkeypatch.setattr("harness.metrics.spider.spider", lambda scored: 0.25)
    (row,) = go(task={"metrics": "spider"}).scores
    assert (row.value, row.unavailable) == (0.25, None)


def test_a_value_never_gives_way_to_not_available_unasked(go: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("harness.metrics.spider.spider", lambda scored: 0.25)
        outcome = go(task={"metrics": "spider"})
        score_run(outcome.folder, ["verbatim"])
    monkeypatch.setattr("harness.metrics.spider.spider", unavailable)
    with pytest.raises(UsageError, match="--overwrite"):
        score_run(outcome.folder, ["verbatim"])


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "mean_ap"])
def test_a_metric_of_labels_is_refused_for_texts(go: Run, metric: str) -> None:
    with pytest.raises(UsageError, match=f"'{metric}' is for classification tasks.*that fit: bleu_1, .*spider, wer"):
        score_run(go().folder, ["verbatim"], [metric])


@pytest.mark.parametrize("metric", ["wer", "bleu_4", "spider"])
def test_a_metric_of_texts_is_refused_for_labels(go: Run, metric: str) -> None:
    folder = run(RunConfig("moody", "beeps", device="cpu", scorers=("exact",)), say=lambda line: None).folder
    with pytest.raises(UsageError, match="this is a classification task. Metrics that fit: accuracy, .*micro_f1"):
        score_run(folder, ["exact"], [metric])


def test_every_metric_of_ours_says_which_tasks_it_is_for() -> None:
    bound = [BoundMetric(name, (), registry.load("metrics", name)) for name in registry.names("metrics")]
    assert [metric.name for metric in bound if not metric.kinds()] == []


@pytest.mark.parametrize("text", ["exact[", "exact[a]", "exact[a=1]"])
def test_a_scorer_that_is_typed_wrong_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        make_scorer(text)


def test_options_of_a_scorer_are_part_of_its_name() -> None:
    assert make_scorer("embed[prefix=this is ]").name == "embed[prefix='this is ']"


@pytest.mark.parametrize(
    ("values", "is_mean"),
    [
        ([0.25, 0.75], True),
        ([0.25, 0.75 + 1e-6], False),
        ([], False),
        ([0.5, math.nan], False),
        ([math.inf, -math.inf], False),
        ([1e308, 1e308], False),
    ],
)
def test_a_score_is_the_mean_of_values_that_are_finite_and_average_to_it(values: list[float], is_mean: bool) -> None:
    assert is_mean_of(0.5, values) == is_mean
