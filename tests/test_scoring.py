"""From answers to a report: what counts, what is wrong, and what a broken scorer meets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from harness.contracts import Decision, Label, ScorableAnswer, Scored
from harness.errors import PluginError, UsageError
from harness.measuring import BoundMetric
from harness.metrics.accuracy import accuracy
from harness.metrics.cider_d import cider_d
from harness.metrics.mean_ap import mean_ap
from harness.metrics.micro_f1 import micro_f1
from harness.scorers.embed import embed
from harness.scorers.exact import exact
from harness.scorers.loglik import loglik
from harness.scores import make_scorer
from harness.scoring import ClassCount, ScoreReport, ScoringInput, Verbatim, decide_items, gives_scores, score_items

LABELS = (Label("dog", "dog"), Label("cat", "cat"), Label("sea_waves", "sea waves"))


def item(number: int, reference: str, text: str | None, *, cluster: str = "") -> ScoringInput:
    name = f"item{number}"
    return ScoringInput(name, (reference,), cluster or name, text is not None, text or "", None)


ITEMS = [
    item(0, "dog", "a dog"),
    item(1, "dog", "a cat"),
    item(2, "dog", None),
    item(3, "sea_waves", "sea waves"),
    item(4, "sea_waves", "a cat and a dog"),
]


class FixedScorer:
    """Makes the decisions it was given, and remembers what it saw."""

    name = "fixed"
    version = 3
    needs_label_scores = False

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.decisions = decisions
        self.seen: list[ScorableAnswer] = []

    def decide(self, answers: Sequence[ScorableAnswer], labels: Sequence[Label]) -> Sequence[Decision]:
        self.seen = list(answers)
        return self.decisions


@pytest.fixture
def report() -> ScoreReport:
    return score_items(ITEMS, LABELS, exact(), "accuracy", accuracy)


def test_every_item_is_in_the_denominator(report: ScoreReport) -> None:
    assert report.value == 2 / 5


def test_the_answered_only_score_leaves_out_failed_items(report: ScoreReport) -> None:
    assert report.answered_only == 2 / 4


def test_counts_add_up(report: ScoreReport) -> None:
    assert (report.n_items, report.n_answered, report.n_failed, report.n_unparsed) == (5, 4, 1, 1)


def test_classes_are_counted_in_the_tasks_order_empty_ones_too(report: ScoreReport) -> None:
    assert report.per_class == (ClassCount("dog", 3, 1), ClassCount("cat", 0, 0), ClassCount("sea_waves", 2, 1))


def test_confusion_has_columns_for_unparsed_and_failed(report: ScoreReport) -> None:
    assert report.confusion == {
        "dog": {"dog": 1, "cat": 1, "(failed)": 1},
        "sea_waves": {"sea_waves": 1, "(unparsed)": 1},
    }


def test_the_interval_holds_the_value(report: ScoreReport) -> None:
    assert report.interval.low <= report.value <= report.interval.high


def test_the_interval_draws_clusters() -> None:
    items = [item(number, "dog", "dog" if number < 10 else "cat", cluster=str(number % 2)) for number in range(20)]
    assert score_items(items, LABELS, exact(), "accuracy", accuracy).interval.n_clusters == 2


def test_a_metric_of_another_name_gets_the_same_interval_by_the_general_way(report: ScoreReport) -> None:
    general = score_items(ITEMS, LABELS, exact(), "share_right", accuracy).interval
    assert (general.low, general.high) == pytest.approx((report.interval.low, report.interval.high))


def test_a_metric_of_the_whole_set_is_not_taken_for_a_mean() -> None:
    def dogs_decided(scored: Sequence[Scored]) -> float:
        return float(any(each.decision.label == "dog" for each in scored))

    report = score_items(ITEMS, LABELS, exact(), "dogs_decided", dogs_decided)
    assert (report.value, report.interval.high) == (1.0, 1.0)


def test_the_scorer_sees_answered_items_only() -> None:
    scorer = FixedScorer([Decision(None)] * 4)
    score_items(ITEMS, LABELS, scorer, "accuracy", accuracy)
    assert [answer.text for answer in scorer.seen] == ["a dog", "a cat", "sea waves", "a cat and a dog"]


def test_decisions_reach_their_items_across_a_failed_one() -> None:
    scorer = FixedScorer([Decision("dog"), Decision("dog"), Decision("sea_waves"), Decision("sea_waves")])
    assert score_items(ITEMS, LABELS, scorer, "accuracy", accuracy).value == 4 / 5


def test_a_run_in_which_all_failed_has_no_answered_score() -> None:
    report = score_items([item(0, "dog", None)], LABELS, exact(), "accuracy", accuracy)
    assert (report.value, report.answered_only) == (0.0, None)


def test_the_report_names_scorer_and_version() -> None:
    report = score_items(ITEMS, LABELS, FixedScorer([Decision(None)] * 4), "accuracy", accuracy)
    assert (report.scorer, report.scorer_version, report.metric) == ("fixed", 3, "accuracy")


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ([Decision("dog")], "1 decisions for 4 answers"),
        ([Decision("sea waves")] * 4, "no label's name"),
        ([Decision("dog", (0.1,))] * 4, "1 scores for 3 labels"),
        ([Decision(None, labels=("dog", "sea waves"))] * 4, "no label's name"),
        ([Decision("sea waves", labels=("dog",))] * 4, "no label's name"),
        ([Decision(None, labels=("dog", "dog"))] * 4, "one label twice"),
    ],
)
def test_a_scorer_that_breaks_its_contract_is_named(decisions: list[Decision], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        score_items(ITEMS, LABELS, FixedScorer(decisions), "accuracy", accuracy)


def test_a_reference_that_is_no_label_breaks_the_contract() -> None:
    with pytest.raises(PluginError, match="'cow', which is no label"):
        score_items([item(0, "cow", "cow")], LABELS, exact(), "accuracy", accuracy)


def test_a_scorer_of_scores_refuses_answers_without_any() -> None:
    with pytest.raises(UsageError, match="needs a score for each label"):
        score_items(ITEMS, LABELS, loglik(), "accuracy", accuracy)


@pytest.mark.parametrize(
    ("name", "said"), [("exact", False), ("embed", True), ("clap", True), ("ltu[cut=colon]", True), ("loglik", True)]
)
def test_it_is_known_which_scorers_give_scores(name: str, said: bool) -> None:
    assert gives_scores(make_scorer(name)) is said


def test_a_scorer_that_does_not_say_is_not_known_to_give_scores() -> None:
    assert gives_scores(FixedScorer([])) is None


def test_a_model_that_says_nothing_has_a_mean_average_precision_of_zero() -> None:
    silent = [item(number, "dog", "") for number in range(3)]
    report = score_items(silent, LABELS, embed(), "mean_ap", mean_ap)
    assert (report.value, report.unavailable) == (0.0, None)


def test_no_items_are_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to score"):
        score_items([], LABELS, exact(), "accuracy", accuracy)


def test_a_list_of_labels_is_unparsed_for_accuracy_and_a_set_for_f1() -> None:
    items = [item(0, "dog", "a dog and a cat")]
    one = score_items(items, LABELS, exact(), "accuracy", accuracy)
    several = score_items(items, LABELS, exact(), "micro_f1", micro_f1)
    assert (one.value, one.n_unparsed, one.confusion) == (0.0, 1, {"dog": {"(unparsed)": 1}})
    assert (several.value, several.n_unparsed) == (pytest.approx(2 / 3), 0)
    assert several.confusion == {"dog": {"dog": 1}}


def test_items_that_were_learned_from_are_left_out_of_the_clean_value_alone() -> None:
    report = score_items(ITEMS, LABELS, exact(), "accuracy", accuracy, learned_from={ITEMS[0].item_id})
    plain = score_items(ITEMS, LABELS, exact(), "accuracy", accuracy)
    assert (report.value, report.n_clean) == (plain.value, len(ITEMS) - 1)
    rest = score_items(ITEMS[1:], LABELS, exact(), "accuracy", accuracy)
    assert report.clean == rest.value and plain.clean is None


def test_the_clean_value_weighs_words_as_the_whole_set_does() -> None:
    said = ["a dog barks", "rain falls on a roof", "a dog and rain", "bells ring in a town"]
    inputs = [
        ScoringInput(f"{n}", (text, "a " + text), f"{n}", True, said[-1 - n // 2], None) for n, text in enumerate(said)
    ]
    metric = partial(cider_d, tokenizer="none")
    report = score_items(inputs, [], Verbatim(), "cider_d", metric, learned_from={"0", "1"})
    each = BoundMetric("cider_d", (), metric).per_item(decide_items(inputs, [], Verbatim()))
    assert each is not None and report.clean == pytest.approx(each[2:].mean(), abs=1e-12)
    assert report.clean != pytest.approx(metric(decide_items(inputs[2:], [], Verbatim())), abs=1e-3)
