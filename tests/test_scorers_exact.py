"""`exact` against a table of tricky answers, and what must hold for any answer."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from harness import registry
from harness.contracts import Decision, Label, ScorableAnswer
from harness.scorers.exact import exact


def golden(name: str) -> tuple[list[str], list[dict[str, str]]]:
    """Label names, where the table has some, and rows of a table of tests/data."""
    lines = (Path(__file__).parent / "data" / name).read_text(encoding="utf-8").splitlines(keepends=True)
    heads = [line for line in lines if line.startswith("#")]
    labels = [line.removeprefix("# Labels:").split() for line in heads if line.startswith("# Labels:")]
    return labels[0] if labels else [], list(csv.DictReader(lines[len(heads) :]))


NAMES, TABLE = golden("exact_answers.csv")
LABELS = tuple(Label(name, name.replace("_", " ")) for name in NAMES)
ROWS = [(row["answer"], row["label"] or None, row["why"]) for row in TABLE]


def decide(answer: str, labels: tuple[Label, ...] = LABELS) -> Decision:
    return exact().decide([ScorableAnswer(answer, None)], labels)[0]


@pytest.mark.parametrize(("answer", "label", "why"), ROWS, ids=[f"{row[2]}: {row[0]!r}" for row in ROWS])
def test_a_tricky_answer_is_read_as_a_person_would(answer: str, label: str | None, why: str) -> None:
    assert decide(answer).label == label, why


def test_the_order_of_the_labels_does_not_matter() -> None:
    answers = [ScorableAnswer(answer, None) for answer, _, _ in ROWS]
    forwards = exact().decide(answers, LABELS)
    shuffled = list(LABELS)
    random.Random(1).shuffle(shuffled)
    assert exact().decide(answers, shuffled) == forwards


CLASSIFYING = [
    name for name in registry.names("tasks") if registry.create("tasks", name).value.kind == "classification"
]


@pytest.mark.parametrize("sentence", ["{}", "This is {}."])
@pytest.mark.parametrize("task", CLASSIFYING)
def test_every_label_of_every_task_is_found_when_it_is_the_answer(task: str, sentence: str) -> None:
    labels = registry.create("tasks", task).value.labels
    said = [ScorableAnswer(sentence.format(label.text), None) for label in labels]
    assert [decision.label for decision in exact().decide(said, labels)] == [label.name for label in labels]


def test_a_full_stop_parts_words_of_other_labels() -> None:
    labels = (Label("a", "bee, etc. buzzing"), Label("b", "etc buzzing"))
    assert decide("a bee, etc. buzzing", labels).label == "a"
    assert decide("etc. Buzzing", labels).label is None


def test_two_labels_with_the_same_words_are_never_told_apart() -> None:
    twins = (Label("a", "rain"), Label("b", "Rain"))
    assert decide("rain", twins).label is None


def test_a_label_is_known_by_its_name_too() -> None:
    labels = (Label("bangu", "clapper drum"), Label("naobo", "cymbals"))
    assert decide("It is a bangu", labels).label == "bangu"


def test_an_answer_of_many_words_is_read_in_full() -> None:
    assert decide("noise " * 5000 + "and a dog").label == "dog"


def test_no_scores_are_made_up() -> None:
    assert decide("dog").scores is None


# --- several labels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        ("a dog and rain", ("dog", "rain")),
        ("dog, rain, dog", ("dog", "rain")),
        ("no dog, only rain", ("rain",)),
        ("I hear rain. Label: dog; cat", ("cat", "dog")),
        ("I hear rain and a dog. Label: nothing of these", ("dog", "rain")),
        ("a dog", ("dog",)),
        ("music", ()),
    ],
)
def test_every_label_that_is_named_is_in_the_set(answer: str, labels: tuple[str, ...]) -> None:
    assert decide(answer).labels == labels


def test_a_decision_of_several_labels_is_none_where_one_is_wanted() -> None:
    assert decide("a dog and rain").label is None


def test_the_version_tells_decisions_of_sets_from_those_of_before() -> None:
    assert exact().version == 2
