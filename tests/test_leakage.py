"""What a model says it learned from is understood, and clips of the same recordings are flagged and left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.config import RunConfig
from harness.contracts import AudioItem
from harness.leakage import Part, find_leakage, read_claim
from harness.records import load_record
from harness.registry import add_plugin_file, create
from harness.runner import RunOutcome, run
from harness.tables import closing_lines, score_table
from tasks.clotho import COLUMNS as CLOTHO_COLUMNS
from tasks.clotho import METADATA_COLUMNS, clotho
from tasks.esc50 import COLUMNS as ESC50_COLUMNS
from tasks.esc50 import esc50
from tasks.fsd50k import COLUMNS as FSD50K_COLUMNS
from tasks.fsd50k import fsd50k

PLUGINS = Path(__file__).parent / "plugins"
TINY = "ESC-10 of esc50's folds 1, 2, 3, 4; the starter set's training split"

# Answers right, and says that it learned from a split of the beeps.
LEARNER = '''"""Knows some beeps."""
from __future__ import annotations
from harness.contracts import Answer, ModelAdapter, ModelDescription

class Fake:
    def __init__(self, trained_on):
        self.trained_on = trained_on
    def load(self, device, dtype): pass
    def close(self): pass
    def describe(self):
        text = self.trained_on
        return ModelDescription("learner", "", "a fake", {}, 16_000, None, "full", None, {}, {}, "x", trained_on=text)
    def answer(self, queries):
        names = ("low beep", "middle beep", "high beep")
        return [Answer(names[int(q.item_id[-2:]) % 3] if q.item_id < "beep-06" else "?") for q in queries]

def learner(trained_on: str = "beeps: fold 1") -> ModelAdapter:
    return Fake(trained_on)
'''


# --- understanding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("esc50: folds 1-4", [Part("esc50", "official", "fold", ("1", "2", "3", "4"))]),
        (
            TINY,
            [
                Part("esc50", "official", "fold", ("1", "2", "3", "4"), "esc10"),
                Part("esc50", "starter", "split", ("train",)),
            ],
        ),
        ("fsd50k: split train, val", [Part("fsd50k", "official", "split", ("train", "val"))]),
        ("clotho", [Part("clotho", "official")]),
        ("all of clotho; esc50: fold 2", [Part("clotho", "official"), Part("esc50", "official", "fold", ("2",))]),
        ("FSD-50K: split train and val", [Part("fsd50k", "official", "split", ("train", "val"))]),
        ("esc50: folds 1 to 3 and 5", [Part("esc50", "official", "fold", ("1", "2", "3", "5"))]),
        ("dcase2017: split training", [Part("dcase2017", "official", "split", ("training",))]),
        ("fsd50k: validation split", [Part("fsd50k", "official", "split", ("val",))]),
        ("", []),
        ("nothing: random weights (seed 0)", []),
        ("label counts of the task's own items: dog 3 times", []),
    ],
)
def test_a_claim_is_understood(text: str, parts: list[Part]) -> None:
    assert (list(read_claim(text).parts), read_claim(text).unread) == (parts, ())


@pytest.mark.parametrize(
    "text",
    [
        "noise",
        "esc50: the first six",
        "secret sounds; more of them",
        "audioset and vggsound: split train",
        "clotho: all but the evaluation split",
        "nothing but noise",
    ],
)
def test_what_is_not_understood_is_no_part_and_is_named(text: str) -> None:
    learned = read_claim(text)
    assert learned.parts == () and "; ".join(learned.unread) == text


def test_what_a_clause_says_beyond_its_part_is_named() -> None:
    learned = read_claim("fsd50k: split train plus a half of val")
    assert (list(map(str, learned.parts)), len(learned.unread)) == (["fsd50k split train"], 1)


def test_another_set_in_capitals_is_not_taken_for_the_task_before() -> None:
    assert [part.task for part in read_claim("esc50: fold 1; Clotho split development").parts] == ["esc50", "clotho"]


def test_openaqa_stands_for_the_sets_that_it_was_made_of() -> None:
    tasks = {part.task for part in read_claim("OpenAQA").parts}
    assert tasks == {"audioset", "fsd50k", "vggsound", "audiocaps", "clotho"}


# --- flags ------------------------------------------------------------------------------------------------------------


def write(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lists of three sets; Freesound's clip 100 is in ESC-50, in FSD50K and in Clotho, 7 in ESC-50 alone."""
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    root = tmp_path / "data"
    write(
        root / "esc50/meta/esc50.csv",
        ",".join(ESC50_COLUMNS),
        "1-100-A-0.wav,1,0,dog,True,100,A",
        "5-7-A-49.wav,5,49,hand_saw,False,7,A",
        "5-8-A-0.wav,5,0,dog,True,8,A",
    )
    write(root / "FSD50K/FSD50K.ground_truth/dev.csv", ",".join((*FSD50K_COLUMNS, "split")), "100,Dog,/m/0bt9lr,train")
    write(root / "clotho/clotho_captions_evaluation.csv", ",".join(CLOTHO_COLUMNS), "a.wav,a b,a b,a b,a b,a b")
    write(root / "clotho/clotho_metadata_evaluation.csv", ",".join(METADATA_COLUMNS), "a.wav,dog,100,x,[0 1],m,cc")
    (root / "esc50/audio").mkdir()
    (root / "FSD50K/FSD50K.dev_audio").mkdir()
    return root


def esc50_items(data: Path) -> tuple[AudioItem, ...]:
    return esc50().read_items(data / "esc50").items


def test_clips_of_the_folds_that_were_learned_from_are_flagged(data: Path) -> None:
    found = find_leakage("esc50: folds 1-4", "esc50", "official", esc50_items(data), data)
    assert found is not None and found.flagged == {"1-100-A-0": "esc50 fold 1, 2, 3, 4"} and found.unchecked == ()


def test_a_subset_is_no_more_than_that(data: Path) -> None:
    found = find_leakage("ESC-10 of esc50's fold 5", "esc50", "official", esc50_items(data), data)
    assert found is not None and set(found.flagged) == {"5-8-A-0"}


def test_a_recording_is_known_again_in_another_set(data: Path) -> None:
    found = find_leakage("fsd50k: split train", "esc50", "official", esc50_items(data), data)
    assert found is not None
    assert found.flagged == {"1-100-A-0": "fsd50k split train: another clip of its recording"}


def test_clothos_clips_are_known_by_their_freesound_ids(data: Path) -> None:
    items = clotho().read_items(data / "clotho").items
    found = find_leakage("esc50", "clotho", "official", items, data)
    assert found is not None and list(found.flagged) == ["a"]


def test_the_whole_of_a_set_is_every_split_of_it(data: Path) -> None:
    write(data / "clotho/clotho_captions_development.csv", ",".join(CLOTHO_COLUMNS), "d.wav,a b,a b,a b,a b,a b")
    write(data / "clotho/clotho_metadata_development.csv", ",".join(METADATA_COLUMNS), "d.wav,dog,7,x,[0 1],m,cc")
    found = find_leakage("clotho", "esc50", "official", esc50_items(data), data)
    assert found is not None and set(found.flagged) == {"1-100-A-0", "5-7-A-49"}
    assert found.unchecked == ("clotho split validation: its lists are not on this machine",)


def test_a_split_without_a_list_hides_no_other(data: Path) -> None:
    found = find_leakage(
        "fsd50k: split train; clotho: split development, evaluation", "esc50", "official", esc50_items(data), data
    )
    assert found is not None and set(found.flagged) == {"1-100-A-0"}
    assert found.unchecked == ("clotho split development: its lists are not on this machine",)


def test_clips_without_a_freesound_id_are_not_taken_for_clean(data: Path) -> None:
    (data / "clotho/clotho_metadata_evaluation.csv").unlink()
    items = clotho().read_items(data / "clotho").items
    found = find_leakage("esc50", "clotho", "official", items, data)
    assert found is not None and found.flagged == {}
    assert found.unchecked == ("esc50: 1 of 1 clips of clotho have no Freesound id here",)


def test_the_whole_of_a_set_whose_training_list_is_unknown_is_not_taken_for_checked(data: Path) -> None:
    found = find_leakage("vggsound", "esc50", "official", esc50_items(data), data)
    assert found is not None and "vggsound: its training list is unknown to the harness" in found.unchecked


@pytest.mark.parametrize("name", ["needle", "sound_count", "sound_order", "soundscape"])
def test_generated_items_are_known_by_the_starter_clips_that_they_are_made_of(name: str) -> None:
    task = create("tasks", name, {"lengths": "10", "n": 3}).value
    items = task.read_starter(task.starter_root).items
    learned = find_leakage("esc50's starter set", name, "generated", items, None)
    clean = find_leakage("esc50: the starter set's training split", name, "generated", items, None)
    assert learned is not None and set(learned.flagged) == {item.item_id for item in items}
    assert clean is not None and (clean.flagged, clean.unchecked) == ({}, ())


def test_lists_that_are_not_there_are_named_and_clips_are_not_taken_for_clean(data: Path) -> None:
    items = fsd50k("train").read_items(data / "FSD50K").items
    found = find_leakage("audioset: split balanced_train; some noise", "fsd50k", "official", items, data)
    assert found is not None and found.flagged == {}
    assert found.unchecked == (
        "some noise",
        "audioset split balanced_train: its lists are not on this machine",
    ) or found.unchecked == ("audioset split balanced_train: its lists are not on this machine", "some noise")


def test_a_model_that_says_nothing_has_no_flags(data: Path) -> None:
    assert find_leakage("", "esc50", "official", esc50_items(data), data) is None


def test_weights_that_do_not_say_what_they_learned_from_are_not_taken_for_clean(data: Path) -> None:
    found = find_leakage("", "esc50", "official", esc50_items(data), data, has_weights=True)
    assert found is not None and (found.flagged, found.unchecked) == ({}, ("it does not say what that was",))


def test_the_starter_sets_test_clips_are_not_those_of_its_training_split(data: Path) -> None:
    task = esc50()
    assert task.read_starter is not None and task.starter_root is not None
    items = task.read_starter(task.starter_root).items
    found = find_leakage("esc50: the starter set's training split", "esc50", "starter", items, None)
    assert found is not None and (found.flagged, found.unchecked) == ({}, ())


def test_the_tiny_models_folds_are_flagged_on_the_real_clips(shared_data: Path) -> None:
    root = shared_data / "esc50_folds1-4"
    items = esc50().read_items(root).items
    found = find_leakage(TINY, "esc50", "official", items, root)
    assert found is not None and (len(found.flagged), found.unchecked) == (318, ())


# --- what becomes of them ---------------------------------------------------------------------------------------------


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunOutcome]:
    """Runs the model on beeps of which the first six are fold 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    beeps = (PLUGINS / "beeps.py").read_text()
    metadata = 'cluster=f"cluster-{index // 2}", metadata={"fold": 1 + index // 6})'
    (tmp_path / "beeps.py").write_text(beeps.replace('cluster=f"cluster-{index // 2}")', metadata))
    (tmp_path / "learner.py").write_text(LEARNER)
    for name in ("beeps.py", "learner.py"):
        add_plugin_file(tmp_path / name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/beeps.txt").touch()

    def make(trained_on: str) -> RunOutcome:
        config = RunConfig("learner", "beeps", model_options={"trained_on": trained_on}, device="cpu")
        return run(config, say=lambda line: None)

    return make


def test_flags_are_recorded_and_the_clean_score_leaves_them_out(go: Callable[..., RunOutcome]) -> None:
    outcome = go("beeps: fold 1")
    score, leakage = outcome.scores[0], outcome.record.leakage
    assert (score.value, score.clean, score.n_clean) == (0.5, 0.0, 6)
    assert leakage is not None and sorted(leakage.flagged) == [f"beep-0{n}" for n in range(6)]
    assert load_record(outcome.folder) == outcome.record


def test_the_table_has_a_column_for_clean_clips_and_a_line_below(go: Callable[..., RunOutcome]) -> None:
    outcome = go("beeps: fold 1")
    table = score_table(outcome.record, outcome.scores)
    assert table.rows[0][table.header.index("clean")] == "0.0 (n 6)"
    lines = closing_lines(outcome.record, outcome.folder)
    assert any(line.startswith("6 of 12 clips, or their recordings, are among what") for line in lines)


def test_what_could_not_be_compared_is_said(go: Callable[..., RunOutcome]) -> None:
    outcome = go("beeps: the first six")
    assert "clean" not in score_table(outcome.record, outcome.scores).header
    lines = closing_lines(outcome.record, outcome.folder)
    assert any("with all that the model learned from: beeps: the first six." in line for line in lines)


def test_a_model_that_learned_from_all_clips_has_no_clean_score(go: Callable[..., RunOutcome]) -> None:
    outcome = go("beeps")
    assert (outcome.scores[0].clean, outcome.scores[0].n_clean) == (None, 0)
