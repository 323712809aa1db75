"""A named protocol fixes what was published, refuses what contradicts it, and is part of the result's identity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.config import RunConfig
from harness.contracts import Decision, Scored
from harness.errors import OptionError, UnknownNameError, UsageError
from harness.measuring import BoundMetric
from harness.plan import make_plan
from harness.protocols import LTU, follow
from harness.records import load_record
from harness.registry import add_plugin_file, create
from harness.runner import RunOutcome, run
from harness.scores import make_scorer, n_trials, score_run
from harness.tables import closing_lines, score_table, task_text
from tasks.clotho import COLUMNS, clotho

PLUGINS = Path(__file__).parent / "plugins"

# Hears the first `heard` of 300 frames of clips that last 3 s, and says what is right.
CUTTER = '''"""Hears the beginning of each clip."""
from __future__ import annotations
from harness.contracts import Answer, ModelAdapter, ModelDescription

class Fake:
    def __init__(self, **options):
        self.options = options
    def load(self, device, dtype): pass
    def close(self): pass
    def describe(self):
        policy, text = self.options["length_policy"], str(self.options)
        return ModelDescription("cutter", "", "a fake", {}, 16_000, None, policy, None, {}, {}, text)
    def answer(self, queries):
        names = ("low beep", "middle beep", "high beep")
        heard = self.options["heard"]
        return [Answer(names[int(q.item_id[-2:]) % 3], frames_total=300, frames_heard=heard) for q in queries]

def cutter(decoding: str = "greedy", length_policy: str = "full", heard: int = 102) -> ModelAdapter:
    return Fake(decoding=decoding, length_policy=length_policy, heard=heard)
'''


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunOutcome]:
    """Runs a model that cuts on beeps of 3 s, which stand for a task of the protocol."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    beeps = (PLUGINS / "beeps.py").read_text()
    (tmp_path / "long_beeps.py").write_text(
        beeps.replace("beeps(", "long_beeps(")
        .replace('"beeps"', '"long_beeps"')
        .replace('"short"', '"ltu"')
        .replace("np.arange(800)", "np.arange(48_000)")
    )
    (tmp_path / "cutter.py").write_text(CUTTER)
    for name in ("long_beeps.py", "cutter.py"):
        add_plugin_file(tmp_path / name)
    monkeypatch.setitem(LTU.scorers, "long_beeps", "exact")  # type: ignore[arg-type]

    def make(**values: Any) -> RunOutcome:
        config = RunConfig("cutter", "long_beeps", device="cpu", **values)
        return run(config, say=lambda line: None)

    return make


# --- what it fixes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", sorted(LTU.scorers))
def test_every_task_of_the_protocol_has_its_question_and_takes_its_options(task: str) -> None:
    config = follow(RunConfig("ltu", task, protocol="ltu"))
    made = create("tasks", task, config.task_options).value
    assert config.prompt in made.prompts and "Close-ended question" in made.prompts[config.prompt or ""]
    assert [make_scorer(name).name for name in config.scorers] == ([LTU.scorers[task]] if made.labels else [])


def test_the_models_of_the_protocol_take_its_options() -> None:
    config = follow(RunConfig("ltu", "esc50", protocol="ltu"))
    model = create("models", "ltu", config.all_model_options()).value.describe()
    assert model.length_policy.startswith("first_10_24s")
    sampling = {name: model.generation[name] for name in ("temperature", "top_p", "top_k", "repetition_penalty")}
    assert sampling == {"temperature": 0.1, "top_p": 0.95, "top_k": 500, "repetition_penalty": 1.1}
    assert model.generation["max_new_tokens"] == 400


def test_dcase_is_asked_by_lines_and_captions_five_times() -> None:
    options = [dict(follow(RunConfig("ltu", task, protocol="ltu")).task_options) for task in ("dcase2017", "clotho")]
    assert options == [{"convention": "row"}, {"captions": 5}]


def test_another_scorer_may_be_asked_for() -> None:
    assert follow(RunConfig("ltu", "esc50", protocol="ltu", scorers=("embed",))).scorers == ("embed",)


def test_a_command_without_a_protocol_stays_as_it_is() -> None:
    config = RunConfig("ltu", "esc50")
    assert follow(config) is config


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "classify"}, "asks the question 'ltu', not 'classify'"),
        ({"model_options": {"decoding": "greedy"}}, "sets -m decoding=ltu, not greedy"),
        ({"task": "dcase2017", "task_options": {"convention": "clip"}}, "sets -t convention=row, not clip"),
        ({"task": "speech_commands"}, "'speech_commands' is none of them"),
    ],
)
def test_what_contradicts_the_protocol_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        follow(RunConfig(**{"model": "ltu", "task": "esc50", "protocol": "ltu", **values}))


def test_an_unknown_protocol_is_refused_with_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean ltu"):
        follow(RunConfig("ltu", "esc50", protocol="ltuu"))


def test_a_model_that_cannot_follow_is_refused() -> None:
    with pytest.raises(OptionError, match="no option 'decoding'.*protocol 'ltu'"):
        make_plan(RunConfig("chance", "esc50", protocol="ltu", device="cpu"), say=lambda line: None)


# --- what is recorded -------------------------------------------------------------------------------------------------


def test_the_protocol_is_part_of_the_identity_and_of_the_table(go: Callable[..., RunOutcome]) -> None:
    named, unnamed = go(protocol="ltu"), go(prompt="ltu", model_options=dict(LTU.model_options), scorers=("exact",))
    assert (named.record.identity["protocol"], "protocol" in unnamed.record.identity) == ("ltu", False)
    assert named.record.run_id != unnamed.record.run_id
    assert task_text(named.record) == "long_beeps (starter, protocol=ltu)"


def test_the_record_tells_what_was_typed_from_what_the_protocol_set(go: Callable[..., RunOutcome]) -> None:
    record = go(protocol="ltu").record
    assert (record.config_passed["model_options"], record.config_passed["prompt"]) == ({}, None)
    assert record.config_resolved["model_options"]["decoding"] == "ltu" and record.prompt.name == "ltu"


# --- the cut ----------------------------------------------------------------------------------------------------------


def test_a_cut_that_the_policy_names_is_answered_and_counted(go: Callable[..., RunOutcome]) -> None:
    outcome = go(model_options={"length_policy": "first_1_02s: the rest is not heard"}, scorers=("exact",))
    counts = outcome.record.counts
    assert (outcome.scores[0].value, counts.n_truncated, counts.n_cut) == (1.0, 0, 12)
    assert (counts.frames_heard, counts.frames_total) == (12 * 102, 12 * 300)


def test_the_cut_is_shown_with_how_much_was_heard(go: Callable[..., RunOutcome]) -> None:
    outcome = go(model_options={"length_policy": "first_1_02s: the rest is not heard"}, scorers=("exact",))
    table = score_table(outcome.record, outcome.scores)
    assert table.rows[0][table.header.index("trunc.")] == "0 + 12 cut"
    lines = closing_lines(outcome.record, outcome.folder)
    assert any("12 clips were cut as the policy first_1_02s says" in line and "(34.0 %)" in line for line in lines)


@pytest.mark.parametrize("policy", ["full", "window: all of it", "the first 1.02 s"])
def test_a_cut_that_no_policy_names_counts_as_wrong(go: Callable[..., RunOutcome], policy: str) -> None:
    outcome = go(model_options={"length_policy": policy}, scorers=("exact",))
    assert (outcome.scores[0].value, outcome.record.counts.n_truncated) == (0.0, 12)


def test_a_cut_deeper_than_the_policy_says_counts_as_wrong(go: Callable[..., RunOutcome]) -> None:
    outcome = go(model_options={"length_policy": "first_1_02s", "heard": 90}, scorers=("exact",))
    assert (outcome.scores[0].value, outcome.record.counts.n_truncated) == (0.0, 12)


def test_scoring_again_sees_the_same_cut(go: Callable[..., RunOutcome]) -> None:
    outcome = go(model_options={"length_policy": "first_1_02s"}, scorers=("exact",))
    assert score_run(outcome.folder, ["exact"])[1][0] == outcome.scores[0]
    assert load_record(outcome.folder) == outcome.record


# --- five captions ----------------------------------------------------------------------------------------------------


def captioned() -> tuple[list[list[Scored]], list[Scored]]:
    """Three clips with two captions each: by trials, and clip by clip as a run has them."""
    said = [["a dog barks", "rain falls on a roof", "a bird sings loudly"], ["a dog growls", "wind", "birds sing"]]
    right = [("a dog barks twice", "the dog barks"), ("rain falls", "rain on a roof"), ("a bird sings", "a song")]
    trials = [
        [Scored(f"{n}#{k}", right[n], str(n), True, Decision(None), text) for n, text in enumerate(texts)]
        for k, texts in enumerate(said, start=1)
    ]
    return trials, [item for clip in zip(*trials, strict=True) for item in clip]


@pytest.mark.parametrize("name", ["cider_d", "rouge_l", "bleu_4"])
def test_the_score_of_several_captions_a_clip_is_the_mean_of_the_scores_of_each(name: str) -> None:
    metric = create("metrics", name, {"tokenizer": "none"}).value
    trials, together = captioned()
    apart = [BoundMetric(name, (), metric).value(trial) for trial in trials]
    assert BoundMetric(name, (), metric, n_trials=2).value(together) == pytest.approx(sum(apart) / 2, abs=1e-12)


@pytest.mark.parametrize("name", ["cider_d", "bleu_4"])
def test_trials_are_resampled_together(name: str) -> None:
    metric = create("metrics", name, {"tokenizer": "none"}).value
    trials, together = captioned()
    counts = np.array([[2, 1], [0, 1], [1, 1]], dtype=np.int32)
    apart = [BoundMetric(name, (), metric).resampled(trial)(counts) for trial in trials]
    found = BoundMetric(name, (), metric, n_trials=2).resampled(together)(np.repeat(counts, 2, axis=0))
    assert found == pytest.approx((apart[0] + apart[1]) / 2, abs=1e-12)


def test_a_clip_of_which_five_captions_are_asked_has_five_items_of_one_recording(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    rows = [",".join(COLUMNS), "a.wav,a b,a b,a b,a b,a b"]
    (tmp_path / "clotho_captions_evaluation.csv").write_text("\n".join(rows) + "\n")
    found = clotho(captions=5).read_items(tmp_path)
    assert [item.item_id for item in found.items] == [f"a#{n}" for n in range(1, 6)]
    assert ({item.cluster for item in found.items}, found.n_declared) == ({"a"}, 5 * 1045)


def test_how_many_captions_were_asked_for_is_read_from_the_tasks_options() -> None:
    assert [n_trials("captioning", {"captions": 5}), n_trials("captioning", {}), n_trials("classification", {})] == [
        5,
        1,
        1,
    ]
