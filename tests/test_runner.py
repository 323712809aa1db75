"""Every item has an outcome, whatever its audio or its model does, and a run is never computed twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config import FailureLimit, RunConfig
from harness.errors import PluginError, RecordError, UnknownNameError, UsageError
from harness.plan import make_plan
from harness.records import Prediction, load_predictions
from harness.registry import add_plugin_file
from harness.run_folder import locked
from harness.runner import RunOutcome, run
from harness.schema_files import SCHEMA_FOLDER
from harness.scores import score_run

PLUGINS = Path(__file__).parent / "plugins"
Run = Callable[..., RunOutcome]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """Makes the config of a run of the two fakes that writes below the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    for name in ("beeps.py", "moody.py"):
        add_plugin_file(PLUGINS / name)

    def make(model: dict[str, Any] | None = None, task: dict[str, Any] | None = None, **values: Any) -> RunConfig:
        fixed: dict[str, Any] = {"results": tmp_path / "results", "batch_size": 4, "device": "cpu", "threads": 1}
        return RunConfig("moody", "beeps", model_options=model or {}, task_options=task or {}, **(fixed | values))

    return make


@pytest.fixture
def go(config: Callable[..., RunConfig]) -> Run:
    """Makes a config and runs it quietly."""
    return lambda *args, **values: run(config(*args, **values), say=lambda line: None)


def _row(outcome: RunOutcome, item_id: str) -> Prediction:
    return next(row for row in load_predictions(outcome.folder) if row.item_id == item_id)


# --- outcomes of items -----------------------------------------------------------------------------------------------


def test_every_item_has_one_line_in_the_order_of_the_data(go: Run) -> None:
    rows = load_predictions(go().folder)
    assert [row.item_id for row in rows] == [f"beep-{n:02d}" for n in range(12)]


@pytest.mark.parametrize(
    ("mood", "error_type"),
    [
        ("raises", "ValueError"),
        ("refuses", "ModelLimitError"),
        ("out of memory", "MemoryError"),
        ("says error", "ModelLimitError"),
        ("nan scores", "NonFiniteScores"),
        ("two scores", "WrongScoreCount"),
    ],
)
def test_an_item_that_its_model_cannot_answer_fails_alone(go: Run, mood: str, error_type: str) -> None:
    outcome = go({"mood": mood, "on": "beep-05"})
    failed = [row for row in load_predictions(outcome.folder) if row.status == "failed"]
    assert [(row.item_id, row.error_type) for row in failed] == [("beep-05", error_type)]


def test_a_clip_that_cannot_be_decoded_fails_alone(go: Run) -> None:
    outcome = go(task={"broken": "beep-01+beep-02"})
    assert outcome.record.counts.failures == {"AudioError": 2}


def test_a_batch_without_one_readable_clip_is_no_trouble(go: Run) -> None:
    outcome = go(task={"broken": "beep-00+beep-01+beep-02+beep-03"})
    assert (outcome.record.counts.n_ok, outcome.record.counts.n_failed) == (8, 4)


def test_the_reason_of_a_failure_is_recorded(go: Run) -> None:
    assert _row(go(task={"broken": "beep-01"}), "beep-01").error == "this beep is broken"


def test_the_reason_that_a_model_gives_is_recorded(go: Run) -> None:
    assert _row(go({"mood": "says error", "on": "beep-05"}), "beep-05").error == "it is too loud: really"


def test_a_batch_that_raises_is_asked_again_item_by_item(go: Run) -> None:
    assert go({"mood": "raises in company", "on": "beep-05"}).record.counts.n_ok == 12


def test_a_clip_that_was_heard_in_part_is_truncated(go: Run) -> None:
    assert _row(go({"mood": "truncates", "on": "beep-05"}), "beep-05").status == "truncated"


def test_a_truncated_item_counts_as_wrong(go: Run) -> None:
    score = go({"mood": "truncates", "on": "beep-05"}).scores[0]
    assert (score.n_items, score.n_answered) == (12, 11)


def test_text_that_no_file_can_hold_is_mended(go: Run) -> None:
    assert _row(go({"mood": "broken text", "on": "beep-05"}), "beep-05").text == "? low beep"


def test_a_failed_item_stays_in_the_denominator(go: Run) -> None:
    assert {score.n_items for score in go(task={"broken": "beep-01"}).scores} == {12}


# --- broken contracts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mood", "part_of_message"),
    [
        ("too few answers", "3 answers to 4 queries"),
        ("negative count", "bad n_answer_tokens"),
        ("changes", "changed its fingerprint"),
        ("no answers", "None where a sequence of answers belongs"),
        ("no text", "'beep-05' has a bad text: it is None"),
        ("no count", "'beep-05' has a bad n_answer_tokens: it is None"),
        ("half a count", "'beep-05' has a bad n_audio_tokens: it is 2.5"),
        ("hears too much", "'beep-05' has a bad frames_heard: 12 of 10"),
        ("stops oddly", "'beep-05' has a bad stopped"),
        ("scores in words", "'beep-05' has a bad label_scores"),
        ("error without words", "'beep-05' has a bad error: it is 3"),
        ("nan in generation", r"generation\['temperature'\] is nan"),
        ("float in parameters", r"parameters\['encoder'\] is 1.5"),
        ("other name", "its name is 'cheerful', not 'moody'"),
        ("half a rate", "sample_rate_hz is 0.5"),
        ("no rate", "sample_rate_hz is 0 "),
        ("no fingerprint", "fingerprint is ''"),
        ("negative limit", "max_audio_s is -1.0"),
        ("no kernels", "kernels is None"),
        ("has no weights", r"'moody' cannot be loaded: FileNotFoundError: .*weights.bin' \(moody.py, line \d+\)"),
        ("cannot load", "'moody' cannot be loaded: RuntimeError: size mismatch: 2 and 3"),
        ("cannot describe", "'moody' cannot describe itself: KeyError"),
    ],
)
def test_a_model_that_breaks_its_contract_stops_the_run(go: Run, mood: str, part_of_message: str) -> None:
    with pytest.raises(PluginError, match=part_of_message):
        go({"mood": mood, "on": "beep-05"})


def test_a_scorer_that_the_model_cannot_serve_is_refused_before_any_work(go: Run, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(UsageError, match="loglik"):
        go({"can_score": False, "marker": str(marker)}, scorers=("loglik",))
    assert not marker.exists()


def test_an_unknown_prompt_is_refused_with_a_near_one(go: Run) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean classify"):
        go(prompt="clasify")


# --- scorers ---------------------------------------------------------------------------------------------------------


def test_a_model_that_scores_labels_gets_both_scorers(go: Run) -> None:
    assert [score.scorer for score in go().scores] == ["exact", "loglik"]


def test_a_model_that_scores_no_labels_gets_the_text_scorer(go: Run) -> None:
    assert [score.scorer for score in go({"can_score": False}).scores] == ["exact"]


def test_label_scores_are_asked_for_only_when_a_scorer_needs_them(go: Run) -> None:
    assert _row(go(scorers=("exact",)), "beep-00").label_scores is None


def test_every_score_is_in_the_record(go: Run) -> None:
    outcome = go()
    assert outcome.record.scores == outcome.scores


# --- complete runs ---------------------------------------------------------------------------------------------------


def test_a_complete_run_is_shown_without_loading_the_model(go: Run, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    first = go({"marker": str(marker)})
    second = go({"marker": str(marker)})
    assert (second.was_complete, second.scores, marker.read_text()) == (True, first.scores, "loaded\n")


def test_fresh_begins_a_new_folder(go: Run) -> None:
    assert go().folder != go(fresh=True).folder


def test_other_packages_name_another_run(go: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = go()
    monkeypatch.setattr("harness.plan.deciding_versions", lambda: {"python": "3.11", "torch": "0.1"})
    assert go().folder != first.folder


def test_a_damaged_record_says_how_to_begin_another_run(go: Run) -> None:
    (go().folder / "record.json").write_text("{")
    with pytest.raises(RecordError, match=r"is not JSON.* Use --fresh to leave it as it is\.$"):
        go()


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"batch_size": 3}, {"prompt": "short"}, {"limit": 6}, {"dtype": "float16"}, {"threads": 2}]
)
def test_whatever_decides_predictions_names_another_run(go: Run, change: dict[str, Any]) -> None:
    assert not ({go().folder} & {go(**change).folder})


def test_a_run_with_label_scores_serves_a_scorer_that_needs_none(go: Run) -> None:
    first = go()
    second = go(scorers=("exact",))
    assert (second.folder, [score.scorer for score in second.scores]) == (first.folder, ["exact"])


def test_another_scorer_is_added_without_loading_the_model(go: Run, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    first = go({"marker": str(marker)}, scorers=("loglik",))
    second = go({"marker": str(marker)}, scorers=("exact", "loglik"))
    assert (marker.read_text(), (first.folder / "scores-exact.json").exists()) == ("loaded\n", True)
    assert [score.scorer for score in second.scores] == ["exact", "loglik"]


def test_a_second_process_on_the_same_run_is_refused(config: Callable[..., RunConfig]) -> None:
    plan = make_plan(config())
    with locked(plan.folder, plan.run_id()), pytest.raises(UsageError, match="Another process"):
        run(config(), say=lambda line: None)


def test_predictions_that_were_changed_afterwards_are_not_trusted(go: Run) -> None:
    path = go().folder / "predictions.jsonl"
    path.write_text(path.read_text().replace("high beep", "low beep"))
    with pytest.raises(RecordError, match="changed after the run"):
        go()


# --- scoring again ---------------------------------------------------------------------------------------------------


def test_scoring_again_gives_what_the_run_gave(go: Run) -> None:
    outcome = go()
    assert tuple(score_run(outcome.folder, ["exact", "loglik"])[1]) == outcome.scores


def test_a_different_score_is_not_overwritten(go: Run) -> None:
    outcome = go()
    score_run(outcome.folder, ["exact"])
    path = outcome.folder / "scores-exact.json"
    content = json.loads(path.read_text())
    content["scores"][0]["value"] = 0.99
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="--overwrite"):
        score_run(outcome.folder, ["exact"])


def test_a_different_score_is_replaced_when_told_to(go: Run) -> None:
    outcome = go()
    score_run(outcome.folder, ["exact"])
    path = outcome.folder / "scores-exact.json"
    original = path.read_text()
    path.write_text(original.replace('"scorer_version": 1', '"scorer_version": 0'))
    score_run(outcome.folder, ["exact"], overwrite=True)
    assert path.read_text() == original


def test_a_scorer_that_needs_what_was_not_recorded_is_refused(go: Run) -> None:
    with pytest.raises(UsageError, match="did not record"):
        score_run(go(scorers=("exact",)).folder, ["loglik"])


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="not a run's folder"):
        score_run(tmp_path, ["exact"])


# --- records ---------------------------------------------------------------------------------------------------------


def test_a_record_fits_its_schema(go: Run) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((SCHEMA_FOLDER / "run_record.v1.json").read_text())
    jsonschema.validate(json.loads((go().folder / "record.json").read_text()), schema)


def test_a_record_tells_what_was_given_from_what_was_used(go: Run) -> None:
    record = go(task={"n": 6}).record
    assert (record.config_passed["prompt"], record.config_resolved["prompt"]) == (None, "classify")
    assert (record.task.options_passed, record.task.options_resolved) == ({"n": 6}, {"n": 6, "broken": ""})


def test_the_identity_in_a_record_names_its_folder(go: Run) -> None:
    outcome = go()
    assert outcome.folder.name.endswith(outcome.record.identity_sha256[:8])


def test_more_failures_than_allowed_set_the_exit_code_of_a_complete_run(go: Run) -> None:
    outcome = go(task={"broken": "beep-01"})
    assert (outcome.exit_code, outcome.record.is_complete) == (1, True)


def test_as_many_failures_as_allowed_do_not(go: Run) -> None:
    assert go(task={"broken": "beep-01"}, max_failures=FailureLimit.parse("1")).exit_code == 0


def test_the_next_run_of_a_failed_one_has_its_exit_code(go: Run) -> None:
    go(task={"broken": "beep-01"})
    assert go(task={"broken": "beep-01"}).exit_code == 1
