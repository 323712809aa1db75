"""Each error that a harness has been found to hide is injected here, and must be seen in record, table or exit code.

The list is that of a survey of 21 harnesses for language models that hear. Errors that others of our tests inject are
not repeated: a kill in the middle of a run (test_resume), files that cannot be heard (test_bad_audio), runs that do not
pair (test_compare), an answer that does not depend on the audio (test_controls), a caption tool that is missing or
fails (test_scoring_texts, test_captioning_*), a part of a set that passes for the whole (test_tables), data that is
not what was published (test_official_layouts, test_verify), one instance a caption (test_tasks_audiocaps), a
registered name that leads nowhere (test_plugins), weights that fit in part (test_nn_checkpoint). Every clip here is
shorter than 0.1 s, which one harness skips.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from harness import checks
from harness.cli import main
from harness.config import RunConfig
from harness.contracts import Label, ScorableAnswer, Task
from harness.errors import PluginError, RecordError
from harness.records import load_predictions
from harness.registry import add_plugin_file, create, names
from harness.runner import RunOutcome, run
from harness.scorers.exact import exact
from harness.scores import score_run
from harness.tables import closing_lines, score_table

PLUGINS = Path(__file__).parent / "plugins"
Go = Callable[..., RunOutcome]

# A model whose every answer holds the right words, and that spoils them in one of the ways that were found.
SPOILER = '''"""Knows every beep, and spoils its answers."""
from __future__ import annotations
import math
from pathlib import Path
from harness.contracts import Answer, ModelAdapter, ModelDescription

NAMES = ["low beep", "middle beep", "high beep"]

class Spoiler:
    def __init__(self, way, weights): self.way, self.weights = way, weights
    def load(self, device, dtype): pass
    def close(self): pass
    def describe(self):
        print_ = f"{self.way} {self.weights}"
        return ModelDescription("spoiler", "", "a fake", {}, 16_000, None, "full", None, {}, {}, print_, True)
    def answer(self, queries):
        with Path("asked").open("a") as file:
            file.writelines(f"{query.item_id}\\n" for query in queries)
        return [self.one(query, len(queries)) for query in queries]
    def one(self, query, n):
        name = NAMES[int(query.item_id[-2:]) % 3]
        scores = None if query.labels is None else tuple(-0.1 if label == name else -3.0 for label in query.labels)
        if self.way == "raises":
            raise RuntimeError(f"cannot: {name}")
        if self.way == "error text":
            return Answer(name, error=f"RuntimeError: while saying {name}")
        if self.way == "nan":
            return Answer("", label_scores=None if scores is None else (math.nan,) * len(scores))
        if self.way == "cut":
            return Answer(name, label_scores=scores, frames_total=3000, frames_heard=1000)
        if self.way == "is cut short":
            return Answer(name, label_scores=scores, stopped="length")
        if self.way == "echoes":
            return Answer(query.prompt, label_scores=scores)
        if self.way == "mumbles":
            return Answer("something", label_scores=scores)
        if self.way == "by batch":
            return Answer(name if n == 1 else "low beep", label_scores=scores)
        return Answer(name, label_scores=scores)

def spoiler(way: str = "none", weights: str = "a") -> ModelAdapter:
    return Spoiler(way, weights)
'''


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Runs the spoiler on twelve beeps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    (tmp_path / "spoiler.py").write_text(SPOILER)
    for file in (PLUGINS / "beeps.py", tmp_path / "spoiler.py"):
        add_plugin_file(file)

    def make(way: str = "none", task: dict[str, Any] | None = None, **values: Any) -> RunOutcome:
        options = {"way": way, "weights": values.pop("weights", "a")}
        config = RunConfig("spoiler", "beeps", model_options=options, task_options=task or {}, device="cpu", **values)
        return run(config, say=lambda line: None)

    return make


def asked() -> list[str]:
    """Items that the model was asked about so far."""
    return Path("asked").read_text().split() if Path("asked").exists() else []


# --- what becomes of an item that fails ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["raises", "error text", "nan"])
def test_a_failing_model_scores_nothing_and_is_seen_to_fail(go: Go, way: str) -> None:
    outcome = go(way)
    assert (outcome.exit_code, outcome.record.counts.n_failed) == (1, 12)
    assert [(row.value, row.n_items, row.n_failed, row.answered_only) for row in outcome.scores] == [
        (0.0, 12, 12, None)
    ] * 2


@pytest.mark.parametrize(
    ("way", "kind"), [("raises", "RuntimeError"), ("error text", "RuntimeError"), ("nan", "NonFiniteScores")]
)
def test_the_kind_of_failure_stands_below_the_table(go: Go, way: str, kind: str) -> None:
    outcome = go(way)
    assert any(f"12 x {kind}" in line for line in closing_lines(outcome.record, outcome.folder, outcome.scores))


def test_the_text_of_an_error_is_never_read_as_an_answer(go: Go) -> None:
    # The error names the right label, and so does the text beside it.
    outcome = go("error text")
    assert {row.text for row in load_predictions(outcome.folder)} == {""}


def test_an_exception_is_no_empty_answer(go: Go) -> None:
    outcome = go("raises")
    assert {(row.status, row.error_type) for row in load_predictions(outcome.folder)} == {("failed", "RuntimeError")}


def test_failed_items_stay_in_the_denominator_of_every_scorer(go: Go) -> None:
    outcome = go(task={"broken": "beep-00+beep-01+beep-02"})
    assert [(row.n_items, row.value, row.answered_only) for row in outcome.scores] == [(12, 0.75, 1.0)] * 2


def test_the_command_line_ends_with_code_1_when_items_failed(go: Go, capsys: pytest.CaptureFixture[str]) -> None:
    words = "run --model spoiler --task beeps -m way=raises --plugin spoiler.py --device cpu".split()
    assert main([*words, "--plugin", str(PLUGINS / "beeps.py")]) == 1
    assert "12 of 12 items failed" in capsys.readouterr().err


def test_a_missing_clip_is_no_question_without_audio(go: Go, tmp_path: Path) -> None:
    go(task={"broken": "beep-04"})
    assert "beep-04" not in asked() and len(asked()) == 11


def test_a_missing_file_fails_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    soundfile.write(tmp_path / "clips" / "there.wav", np.full(800, 0.1), 8_000)
    for name in ("any_folder.py", "listener.py"):
        add_plugin_file(PLUGINS / name)
    config = RunConfig("listener", "any_folder", task_options={"folder": str(tmp_path / "clips")}, device="cpu")
    outcome = run(config, say=lambda line: None)
    (missing,) = [row for row in load_predictions(outcome.folder) if row.item_id == "missing.wav"]
    assert missing.status == "failed" and "no such file" in (missing.error or "")
    assert outcome.scores[0].n_items == 2


# --- answers that name no label --------------------------------------------------------------------------------------


def test_an_answer_that_names_no_label_is_no_guess(go: Go) -> None:
    row = next(row for row in go("mumbles").scores if row.scorer == "exact")
    assert (row.value, row.n_unparsed, row.n_failed) == (0.0, 12, 0)


def test_what_scorers_could_not_read_has_a_column(go: Go) -> None:
    outcome = go("mumbles")
    table = score_table(outcome.record, outcome.scores)
    assert [row[table.header.index("unparsed")] for row in table.rows] == ["12", "0"]


def test_a_question_that_comes_back_names_nothing(go: Go) -> None:
    # So do models to which no audio gets; the question itself is "Which beep is it: low beep, middle beep or ...".
    row = next(row for row in go("echoes", prompt="list").scores if row.scorer == "exact")
    assert (row.value, row.n_unparsed) == (0.0, 12)


@pytest.mark.parametrize(
    "task", [name for name in names("tasks") if name not in ("audiocaps", "clotho", "librispeech")]
)
def test_no_tasks_question_names_the_answer(task: str) -> None:
    made: Task = create("tasks", task).value
    questions = [ScorableAnswer(prompt, None) for prompt in made.prompts.values()]
    assert {decision.label for decision in exact().decide(questions, made.labels)} == {None}


def test_a_denied_class_is_not_taken_for_being_named_first() -> None:
    labels = tuple(Label(name, name) for name in ("laughter", "sneeze"))
    decide = exact().decide
    assert decide([ScorableAnswer("not laughter but a sneeze", None)], labels)[0].label == "sneeze"
    assert decide([ScorableAnswer("laughter or a sneeze", None)], labels)[0].label is None


# --- audio that was heard in part ------------------------------------------------------------------------------------


def test_audio_that_was_cut_is_counted_and_wrong(go: Go) -> None:
    outcome = go("cut")
    assert (outcome.record.counts.n_truncated, outcome.scores[0].value) == (12, 0.0)
    assert any("heard only a part of 12 clips" in line for line in closing_lines(outcome.record, outcome.folder))


def test_audio_over_a_limit_is_not_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("beeps.py", "moody.py"):
        add_plugin_file(PLUGINS / name)
    config = RunConfig("moody", "beeps", model_options={"max_audio_s": 0.01}, device="cpu", scorers=("exact",))
    outcome = run(config, say=lambda line: None)
    assert outcome.record.counts.failures == {"ModelLimitError": 12}
    assert (outcome.scores[0].n_items, outcome.scores[0].value, outcome.exit_code) == (12, 0.0, 1)


def test_answers_that_reached_the_limit_of_tokens_are_counted(go: Go) -> None:
    outcome = go("is cut short")
    assert outcome.record.counts.n_answers_cut == 12
    assert any("12 answers reached the model's limit" in line for line in closing_lines(outcome.record, outcome.folder))


def test_answers_that_ended_by_themselves_need_no_such_line(go: Go) -> None:
    outcome = go()
    assert not any("limit of tokens" in line for line in closing_lines(outcome.record, outcome.folder))


# --- answers of another run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [{"weights": "b"}, {"prompt": "short"}, {"limit": 6}, {"task": {"n": 9}}, {"way": "cut"}]
)
def test_answers_of_other_weights_prompts_or_subsets_are_not_reused(go: Go, change: dict[str, Any]) -> None:
    first, n_before = go(), len(asked())
    second = go(**change)
    assert (second.was_complete, len(asked()) > n_before, second.folder == first.folder) == (False, True, False)


def test_a_score_of_other_predictions_is_refused(go: Go) -> None:
    outcome = go()
    score_run(outcome.folder, ["exact"])
    path = outcome.folder / "scores-exact.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"predictions_sha256": "0" * 64}))
    with pytest.raises(RecordError, match="other predictions"):
        go()


def test_lines_that_are_missing_are_not_scored_around(go: Go) -> None:
    outcome = go()
    path = outcome.folder / "predictions.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(RecordError, match="changed after the run"):
        score_run(outcome.folder, ["exact"])


def test_a_result_that_cannot_be_written_is_a_failed_run(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, record: object) -> None:
        raise RecordError("record.json cannot be written: No space left on device.")

    monkeypatch.setattr("harness.run_record.write_record", full)
    with pytest.raises(RecordError, match="No space left"):
        go()


# --- judges that are broken ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("raises", r"failed: RuntimeError: no verdict \(broken_judges.py, line \d+\)"),
        ("none", "gave something else than a sequence of decisions"),
        ("words", "gave something else than a sequence of decisions"),
    ],
)
def test_a_broken_scorer_is_named_in_one_line_and_costs_no_answer(go: Go, how: str, problem: str) -> None:
    add_plugin_file(PLUGINS / "broken_judges.py")
    with pytest.raises(PluginError, match=f"The scorer 'broken_judges' {problem}"):
        go(scorers=(f"broken_judges[how={how}]",))
    n_asked = len(asked())
    assert go(scorers=("exact",)).scores[0].value == 1.0
    assert (n_asked, len(asked())) == (12, 12)


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ("{}['x']", r"The metric 'judged' failed: KeyError: 'x' \(judged.py, line \d+\)"),
        ("'good'", "The metric 'judged' gave 'good' where a number belongs"),
        ("None", "The metric 'judged' gave None where a number belongs"),
        ("float('nan')", "cannot be recorded: value: Input should be a finite number"),
    ],
)
def test_what_is_no_number_is_never_a_score(go: Go, tmp_path: Path, result: str, problem: str) -> None:
    head = '"""Judges."""\nfrom collections.abc import Sequence\nfrom harness.contracts import Scored\n'
    body = f"def judged(scored: Sequence[Scored]) -> float:\n    return {result}\n"
    (tmp_path / "judged.py").write_text(head + body)
    add_plugin_file(tmp_path / "judged.py")
    folder = go().folder
    with pytest.raises(PluginError, match=problem):
        score_run(folder, ["exact"], ["judged"])


# --- drift -----------------------------------------------------------------------------------------------------------


def test_answers_that_depend_on_the_batch_are_found_by_check(go: Go, tmp_path: Path) -> None:
    text = SPOILER.replace("int(query.item_id[-2:])", "int(query.item_id[-1])")
    (tmp_path / "batchy.py").write_text(text.replace("spoiler", "batchy").replace('= "none"', '= "by batch"'))
    add_plugin_file(tmp_path / "batchy.py")
    failed = [result.claim for result in checks.check_model("batchy") if result.outcome == "failed"]
    assert "answers alone as in a batch of mixed lengths" in failed


def test_how_many_answers_flip_between_batch_sizes_is_seen_by_compare(go: Go) -> None:
    from harness.compare import compare

    one, eight = go("by batch", batch_size=1), go("by batch", batch_size=8)
    row = next(
        row for row in compare(str(one.folder), str(eight.folder), Path("results")).comparisons if row.scorer == "exact"
    )
    # A third of the answers are right in any batch; the others flip.
    assert (row.first, row.second, row.n_flipped, row.n_first_only) == (1.0, 1 / 3, 8, 8)


def test_the_same_run_twice_says_the_same(go: Go) -> None:
    first, second = go(), go(fresh=True)
    texts = [
        [(row.item_id, row.text, row.label_scores) for row in load_predictions(each.folder)] for each in (first, second)
    ]
    assert texts[0] == texts[1] and first.scores == second.scores


# --- numbers that mean less than they seem ---------------------------------------------------------------------------


def test_a_metric_that_needs_scores_is_not_made_of_words(go: Go) -> None:
    outcome = go()
    (row,) = score_run(outcome.folder, ["exact"], ["mean_ap"])[1]
    assert row.value is None and "loglik" in (row.unavailable or "")


def test_classes_without_positives_are_not_counted_as_zero_in_silence(go: Go) -> None:
    outcome = go(task={"n": 2})
    (row,) = score_run(outcome.folder, ["loglik"], ["mean_ap"])[1]
    assert (row.value, row.notes) == (1.0, ("1 of 3 classes have no positive item and are left out",))
    assert any("1 of 3 classes" in line for line in closing_lines(outcome.record, outcome.folder, [row]))


def test_a_run_that_fails_everywhere_has_a_mean_average_precision_of_zero(go: Go) -> None:
    outcome = go("nan")
    (row,) = score_run(outcome.folder, ["loglik"], ["mean_ap"])[1]
    assert row.value == 0.0
