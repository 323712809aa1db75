"""`echo`, `chance` and `majority`: floors that hear nothing."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from harness.config import RunConfig
from harness.contracts import AudioClip, ModelAdapter, Query
from harness.plan import CountsLabels
from harness.records import load_predictions
from harness.registry import add_plugin_file
from harness.runner import run
from harness.tables import closing_lines
from models.chance import chance
from models.echo import echo
from models.majority import majority

PLUGINS = Path(__file__).parent / "plugins"
LABELS = ("dog", "cat", "rain", "chirping birds")
COUNTS = {"dog": 2, "cat": 5, "rain": 5, "chirping birds": 1}
FLOORS = [echo(), echo(scores=True), chance(), majority(), majority("rain")]


def query(item_id: str = "a", labels: tuple[str, ...] | None = LABELS) -> Query:
    clip = AudioClip(np.zeros(1600, dtype=np.float32), 16_000, 16_000, 1, 1600)
    return Query(item_id, clip, "What is this?", labels)


def test_echo_says_the_prompt() -> None:
    assert echo().answer([query()])[0].text == "What is this?"


def test_echo_says_the_text_that_it_was_given() -> None:
    assert echo(text="dog").answer([query()])[0].text == "dog"


def test_echo_says_nothing_when_told_so() -> None:
    assert echo(text="").answer([query()])[0].text == ""


def test_echo_scores_labels_only_when_asked_to() -> None:
    assert echo().answer([query()])[0].label_scores is None
    assert len(echo(scores=True).answer([query()])[0].label_scores or ()) == 4


def test_chance_says_the_label_that_it_scores_highest() -> None:
    answer = chance().answer([query()])[0]
    assert answer.label_scores is not None
    assert LABELS[int(np.argmax(answer.label_scores))] == answer.text


def test_chance_picks_each_label_about_equally_often() -> None:
    picks = Counter(answer.text for answer in chance().answer([query(str(n)) for n in range(4000)]))
    assert all(abs(picks[label] - 1000) < 120 for label in LABELS)


def test_chance_does_not_depend_on_the_order_of_the_labels() -> None:
    assert chance().answer([query()])[0].text == chance().answer([query(labels=LABELS[::-1])])[0].text


def test_another_seed_is_another_pick() -> None:
    queries = [query(str(n)) for n in range(50)]
    picks = [[answer.text for answer in chance(seed=seed).answer(queries)] for seed in (0, 1)]
    assert picks[0] != picks[1]


def test_scores_of_chance_are_nearly_uniform() -> None:
    scores = chance().answer([query()])[0].label_scores or ()
    assert all(abs(score - math.log(1 / 4)) <= 1e-3 for score in scores)


def test_chance_without_labels_fails_the_item_and_says_why() -> None:
    error = chance().answer([query(labels=None)])[0].error
    assert error is not None and error.startswith("ModelLimitError: ")


def told(label: str | None = None) -> ModelAdapter:
    """`majority` that was told the counts."""
    model = majority(label)
    assert isinstance(model, CountsLabels)
    model.count_labels(COUNTS)
    return model


def test_majority_always_says_the_most_frequent_label_and_the_first_of_equals() -> None:
    assert {answer.text for answer in told().answer([query("a"), query("b")])} == {"cat"}


def test_majority_says_that_it_looked_at_the_counts() -> None:
    described = told().describe()
    assert described.trained_on == "label counts of the task's own items: cat 5 times"
    assert described.generation == {"label": "cat", "label_counts": True}


def test_a_label_that_was_asked_for_stands_whatever_the_counts() -> None:
    assert told("dog").answer([query()])[0].text == "dog" and told("dog").describe().trained_on == ""


def test_other_counts_are_another_fingerprint() -> None:
    other = majority()
    assert isinstance(other, CountsLabels)
    other.count_labels({"dog": 9, "cat": 1})
    prints = {told().describe().fingerprint, other.describe().fingerprint, told("cat").describe().fingerprint}
    assert len(prints) == 3


def test_majority_that_was_told_nothing_says_the_first_label_and_without_labels_nothing() -> None:
    assert majority().answer([query()])[0].text == "dog"
    assert (majority().answer([query(labels=None)])[0].error or "").startswith("ModelLimitError: ")


@pytest.mark.parametrize("limit", [None, 3])
def test_a_run_of_majority_looks_at_the_counts_of_the_whole_set(
    limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    beeps = (PLUGINS / "beeps.py").read_text().replace("LABELS[index % 3].name", "LABELS[min(2, index % 4)].name")
    (tmp_path / "beeps.py").write_text(beeps)
    add_plugin_file(tmp_path / "beeps.py")
    outcome = run(RunConfig("majority", "beeps", limit=limit, device="cpu"), say=lambda line: None)
    assert {row.text for row in load_predictions(outcome.folder)} == {"high beep"}
    lines = closing_lines(outcome.record, outcome.folder)
    assert "The model learned from: label counts of the task's own items: high beep 6 times." in lines
    assert limit is not None or outcome.scores[0].value == 0.5


def test_majority_scores_its_label_highest_and_as_probabilities() -> None:
    scores = majority("rain").answer([query()])[0].label_scores or ()
    assert int(np.argmax(scores)) == 2
    assert sum(map(math.exp, scores)) == pytest.approx(1.0)


def test_majority_prefers_no_label_when_its_own_is_not_there() -> None:
    assert len(set(majority("snore").answer([query()])[0].label_scores or ())) == 1


def test_majority_answers_without_labels() -> None:
    assert majority("rain").answer([query(labels=None)])[0].text == "rain"


@pytest.mark.parametrize("model", FLOORS)
def test_answers_do_not_depend_on_their_neighbours(model: ModelAdapter) -> None:
    queries = [query("a"), query("b"), query("c")]
    assert list(model.answer(queries)) == [model.answer([each])[0] for each in queries]


@pytest.mark.parametrize("model", FLOORS)
def test_scores_come_exactly_when_the_description_says_so(model: ModelAdapter) -> None:
    assert (model.answer([query()])[0].label_scores is not None) == model.describe().can_score_labels


def test_every_option_changes_the_fingerprint() -> None:
    models = [echo(), echo(text="x"), echo(scores=True), chance(), chance(seed=1), majority(), majority("rain")]
    assert len({model.describe().fingerprint for model in models}) == len(models)


def test_the_fingerprint_is_the_same_every_time() -> None:
    assert chance().describe() == chance().describe()
