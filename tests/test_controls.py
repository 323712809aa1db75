"""Clips taken away or spoilt: what the model hears in each condition, and what is made of its answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.audio import ArraySource
from harness.cli import main
from harness.config import RunConfig
from harness.contracts import AudioItem
from harness.control_sources import CONDITIONS, ChangedSource, SilentSource, control_items, other_clips
from harness.controls import ControlsOutcome, controls_lines, controls_table, run_controls, sensitivity
from harness.errors import RecordError, UsageError
from harness.records import ControlsRecord, Prediction, load_controls, load_predictions
from harness.registry import add_plugin_file
from harness.schema_files import SCHEMA_FOLDER

PLUGINS = Path(__file__).parent / "plugins"
RATE_HZ = 100
WAVE = np.sin(np.arange(250) / 3).astype(np.float32)

# Knows the beeps of tests/plugins/beeps.py by how they begin; whatever else it hears is low.
EARS = '''"""Knows thirty beeps."""
from __future__ import annotations
import numpy as np
from harness.contracts import Answer, ModelAdapter, ModelDescription

NAMES = ["low beep", "middle beep", "high beep"]
KNOWN = {k: np.sin(np.arange(5) * (1 + k % 3) / 10 + k) for k in range(30)}

class Ears:
    def __init__(self, deaf, min_samples): self.deaf, self.min_samples = deaf, min_samples
    def load(self, device, dtype): pass
    def close(self): pass
    def describe(self):
        options = f"{self.deaf} {self.min_samples}"
        return ModelDescription("ears", "", "a fake", {}, 16_000, None, "full", None, {}, {}, options)
    def answer(self, queries): return [self.one(query.clip.samples) for query in queries]
    def one(self, samples):
        if len(samples) < self.min_samples:
            return Answer("", error="ModelLimitError: too short")
        known = [k for k, start in KNOWN.items() if len(samples) > 4 and np.allclose(samples[:5], start, atol=1e-4)]
        return Answer(NAMES[known[0] % 3] if known and not self.deaf else "low beep")

def ears(deaf: bool = False, min_samples: int = 1) -> ModelAdapter:
    return Ears(deaf, min_samples)
'''


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ControlsOutcome]:
    """Runs the controls of a model that tells beeps apart."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    (tmp_path / "ears.py").write_text(EARS)
    for file in (PLUGINS / "beeps.py", tmp_path / "ears.py"):
        add_plugin_file(file)

    def make(n: int = 30, values: dict[str, Any] | None = None, **options: Any) -> ControlsOutcome:
        config = RunConfig(
            "ears",
            "beeps",
            model_options=options,
            task_options={"n": n},
            device="cpu",
            scorers=("exact",),
            **(values or {}),
        )
        return run_controls(config, say=lambda line: None)

    return make


# --- what is heard ---------------------------------------------------------------------------------------------------


def heard(change: Any, wave: np.ndarray = WAVE, seed: str = "0") -> np.ndarray:
    return ChangedSource(ArraySource(wave, RATE_HZ), change, seed).load(RATE_HZ).samples


def test_silence_is_as_long_as_the_clip() -> None:
    assert np.array_equal(heard("silence"), np.zeros(250, dtype=np.float32))


def test_reversed_audio_is_the_clip_backwards() -> None:
    assert np.array_equal(heard("reversed"), WAVE[::-1])


def test_reversed_audio_comes_in_blocks_of_a_few_megabytes() -> None:
    long = np.arange(600_000, dtype=np.float32) / 600_000
    blocks = list(ChangedSource(ArraySource(long, RATE_HZ), "reversed", "0").blocks(RATE_HZ))
    assert max(map(len, blocks)) < 300_000 and np.array_equal(np.concatenate(blocks), long[::-1])


def test_noise_is_as_long_and_as_loud_as_the_clip() -> None:
    long = np.tile(WAVE, 100)
    noise = heard("noise", long)
    assert len(noise) == len(long) and np.sqrt(np.mean(noise**2)) == pytest.approx(np.sqrt(np.mean(long**2)), rel=0.02)


def test_noise_for_a_silent_clip_can_be_heard() -> None:
    assert np.abs(heard("noise", np.zeros(50, dtype=np.float32))).max() > 1e-3


def test_noise_follows_from_its_seed() -> None:
    assert np.array_equal(heard("noise"), heard("noise")) and not np.array_equal(
        heard("noise"), heard("noise", seed="1")
    )


def test_only_the_last_second_is_silenced() -> None:
    assert np.array_equal(heard("last_second_silenced"), np.concatenate([WAVE[:150], np.zeros(100, dtype=np.float32)]))


def test_a_clip_shorter_than_a_second_is_silenced_whole() -> None:
    assert not heard("last_second_silenced", WAVE[:60]).any()


def test_the_clip_itself_is_left_as_it_was() -> None:
    source = ArraySource(WAVE.copy(), RATE_HZ)
    ChangedSource(source, "last_second_silenced", "0").load(RATE_HZ)
    assert np.array_equal(source.samples, WAVE)


def test_conditions_have_identities_of_their_own() -> None:
    kinds: list[Any] = ["silence", "noise", "reversed", "last_second_silenced"]
    source = ArraySource(WAVE, RATE_HZ)
    assert len({source.identity(), *(ChangedSource(source, kind, "0").identity() for kind in kinds)}) == 5


# --- other clips -----------------------------------------------------------------------------------------------------


def items_of(references: list[tuple[str, ...]], clusters: list[str] | None = None) -> list[AudioItem]:
    return [
        AudioItem(f"i{n}", ArraySource(WAVE[: n + 1], RATE_HZ), labels, clusters[n] if clusters else f"c{n}")
        for n, labels in enumerate(references)
    ]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "references",
    [
        [("a",), ("b",), ("c",)] * 7,
        [("a",)] * 10 + [("b",)] * 10,
        [("a", "b"), ("c",), ("b", "c"), ("d",), ("a",), ("e", "f")] * 3,
        [("a",), ("b",)],
    ],
)
def test_every_item_gets_a_clip_of_other_labels_and_every_clip_is_used_once(
    references: list[tuple[str, ...]], seed: int
) -> None:
    others, n_repeated = other_clips(items_of(references), seed)
    assert not [n for n, other in enumerate(others) if set(references[n]) & set(references[other])]
    assert (sorted(others), n_repeated) == (list(range(len(references))), 0)


def test_clips_of_one_recording_do_not_stand_in_for_each_other() -> None:
    items = items_of([("a",), ("b",), ("c",), ("d",)], ["x", "x", "y", "y"])
    others, _ = other_clips(items, 0)
    assert all(items[n].cluster != items[other].cluster for n, other in enumerate(others))


def test_where_one_label_has_most_of_the_clips_some_are_used_twice_and_counted() -> None:
    items = items_of([("a",)] * 6 + [("b",)] * 2)
    others, n_repeated = other_clips(items, 0)
    assert all(items[n].references != items[other].references for n, other in enumerate(others))
    assert n_repeated == len(others) - len(set(others)) > 0


def test_the_seed_decides_which_clips_are_swapped() -> None:
    items = items_of([("a",), ("b",), ("c",)] * 7)
    assert other_clips(items, 1) == other_clips(items, 1) != other_clips(items, 2)


def test_without_any_other_label_there_is_no_control() -> None:
    with pytest.raises(UsageError, match="no clip has other labels"):
        other_clips(items_of([("a",), ("a",)]), 0)


def test_an_item_keeps_its_references_in_every_condition() -> None:
    items = items_of([("a",), ("b",), ("c",)])
    conditions, _ = control_items(items, 0, 0.01)
    assert list(conditions) == list(CONDITIONS)
    assert all([i.references for i in changed] == [i.references for i in items] for changed in conditions.values())


def test_no_audio_is_one_sample_at_least() -> None:
    assert len(SilentSource(1e-9).load(RATE_HZ).samples) == 1


# --- a run of controls -----------------------------------------------------------------------------------------------


def scores(record: ControlsRecord) -> dict[str, float | None]:
    return {condition.name: condition.scores[0].value for condition in record.conditions}


def test_a_model_that_hears_gains_by_the_audio(go: Callable[..., ControlsOutcome]) -> None:
    record = go().record
    (gain,) = record.gains
    assert (gain.real, gain.control, gain.gain) == pytest.approx((1.0, 1 / 3, 2 / 3))
    assert gain.interval is not None and 0.0 < gain.interval.low <= 2 / 3 <= gain.interval.high


def test_a_deaf_model_gains_nothing(go: Callable[..., ControlsOutcome]) -> None:
    outcome = go(deaf=True)
    assert list(scores(outcome.record).values()) == pytest.approx([1 / 3] * 7)
    assert outcome.record.gains[0].gain == 0.0
    assert outcome.record.sensitivity is not None and outcome.record.sensitivity.n_changed == 0


def test_the_gain_is_against_the_best_control(go: Callable[..., ControlsOutcome]) -> None:
    record = go().record
    values = scores(record)
    (gain,) = record.gains
    controls = {name: values[name] for name in ("silence", "noise", "other_clip", "reversed", "no_audio")}
    assert gain.control == max(value for value in controls.values() if value is not None)
    assert gain.gain == pytest.approx((values["real"] or 0.0) - (gain.control or 0.0))


def test_audio_of_other_labels_is_always_wrong_for_a_model_that_hears(go: Callable[..., ControlsOutcome]) -> None:
    assert scores(go().record)["other_clip"] == 0.0


def test_answers_that_change_with_the_last_second_are_counted(go: Callable[..., ControlsOutcome]) -> None:
    found = go().record.sensitivity
    # The beeps last a twentieth of a second: silencing the last second leaves nothing, which sounds low.
    assert found is not None and (found.n_items, found.n_changed, found.n_shorter_than_a_second) == (30, 20, 30)
    assert found.share == pytest.approx(2 / 3) and found.interval is not None


def test_an_answer_changes_with_its_words_or_its_best_label_and_not_with_scores_alone() -> None:
    row = Prediction(
        item_id="a",
        cluster="a",
        references=("x",),
        status="ok",
        text="dog",
        label_scores=(-1.0, -2.0),
        audio_identity="",
        prompt_sha256="",
        batch_index=0,
    )
    others = ({"label_scores": (-1.1, -2.0)}, {"label_scores": (-3.0, -2.0)}, {"text": "cat"})
    silenced = [row.model_copy(update=change) for change in others]
    assert sensitivity([row] * 3, silenced).n_changed == 2


def test_no_audio_is_the_shortest_that_the_model_answers(go: Callable[..., ControlsOutcome]) -> None:
    record = go(min_samples=300).record
    assert record.notes[0] == "no audio: 25 ms of silence, the shortest that the model answers"
    assert {row.duration_s for row in load_predictions(_folder(record) / "no_audio")} == {0.025}


def _folder(record: ControlsRecord) -> Path:
    return next(Path("results/controls").glob(f"*/*/*-{record.run_id}"))


def test_a_model_that_answers_no_silence_has_no_controls(go: Callable[..., ControlsOutcome]) -> None:
    with pytest.raises(RecordError, match="answers no silence"):
        go(min_samples=10**9)


def test_failed_items_stay_in_every_denominator(go: Callable[..., ControlsOutcome]) -> None:
    record = go(min_samples=801).record  # every beep is shorter, "no audio" is not
    real = record.conditions[0]
    assert (real.counts.n_failed, real.scores[0].n_items, real.scores[0].value) == (30, 30, 0.0)
    assert record.sensitivity is not None and record.sensitivity.share is None


def test_the_record_fits_its_schema(go: Callable[..., ControlsOutcome]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((SCHEMA_FOLDER / "controls.v1.json").read_text())
    jsonschema.validate(json.loads((go().folder / "controls.json").read_text()), schema)


def test_the_record_reads_back(go: Callable[..., ControlsOutcome]) -> None:
    outcome = go()
    assert load_controls(outcome.folder) == outcome.record


def test_complete_controls_are_shown_and_not_computed(go: Callable[..., ControlsOutcome]) -> None:
    first, second = go(), go()
    assert (second.was_complete, second.folder, second.record) == (True, first.folder, first.record)


def test_complete_controls_get_a_scorer_that_they_lack_from_their_answers(
    go: Callable[..., ControlsOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.scorers import exact

    first = go()
    monkeypatch.setattr(exact._Exact, "name", "other")
    second = go()
    assert (second.was_complete, second.folder) == (True, first.folder)
    assert [row.scorer for row in second.record.gains] == ["exact", "other"]
    assert {tuple(row.scorer for row in each.scores) for each in second.record.conditions} == {("exact", "other")}
    assert load_controls(first.folder) == second.record == go().record


def test_interrupted_controls_continue_where_they_stopped(
    go: Callable[..., ControlsOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    import harness.controls as controls

    whole = go().record
    answered: Counter[str] = Counter()

    def stop_at_noise(plan: Any, folder: Path, n_done: int, condition: str) -> None:
        answered[condition] += 1
        if condition == "noise" and answered["noise"] == 1:
            raise KeyboardInterrupt
        original(plan, folder, n_done, condition)

    original = controls.answer_missing
    monkeypatch.setattr(controls, "answer_missing", stop_at_noise)
    with pytest.raises(KeyboardInterrupt):
        go(values={"seed": 5})
    record = go(values={"seed": 5}).record
    assert (answered["real"], answered["silence"], answered["noise"]) == (1, 1, 2)
    assert scores(record)["real"] == scores(whole)["real"]


def test_answers_that_were_changed_are_not_shown(go: Callable[..., ControlsOutcome]) -> None:
    path = go().folder / "noise" / "predictions.jsonl"
    path.write_text(path.read_text().replace("beep", "boop"))
    with pytest.raises(RecordError, match="changed since"):
        go()


def test_the_table_has_a_row_a_condition(go: Callable[..., ControlsOutcome]) -> None:
    assert [row[0] for row in controls_table(go().record).rows] == list(CONDITIONS)


def test_the_lines_tell_the_gain_and_the_sensitivity(go: Callable[..., ControlsOutcome]) -> None:
    outcome = go()
    text = "\n".join(controls_lines(outcome.record, outcome.folder))
    assert "Audio gain (accuracy, exact): +" in text and "66.7 % of 30 answers change" in text
    assert str(outcome.folder) in text


def test_failures_of_a_control_are_said_since_they_enlarge_the_gain(go: Callable[..., ControlsOutcome]) -> None:
    outcome = go(min_samples=801)
    lines = controls_lines(outcome.record, outcome.folder)
    assert "silence: 30 of 30 items failed and count as wrong (30 x ModelLimitError)." in lines


@pytest.mark.parametrize(("min_samples", "code"), [(1, 0), (801, 1)])
def test_the_command_prints_the_gain_and_tells_failures_by_its_exit_code(
    go: Callable[..., ControlsOutcome], capsys: pytest.CaptureFixture[str], min_samples: int, code: int
) -> None:
    words = f"controls --model ears -m min_samples={min_samples} --task beeps -t n=6 --scorer exact --device cpu"
    assert main(words.split()) == code
    assert "Audio gain (accuracy, exact)" in capsys.readouterr().out
