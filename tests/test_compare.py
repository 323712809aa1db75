"""Two runs are paired item by item, tested as scipy would, and refused where they were not asked alike."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli import main
from harness.compare import (
    TIED,
    Comparison,
    _can_be_remade,
    _compared,
    _finished,
    _judged,
    check_paired,
    compare,
    comparison_lines,
    comparison_table,
)
from harness.comparison_record import keep
from harness.config import RunConfig
from harness.errors import RecordError, UsageError
from harness.pair_remarks import pair_remarks
from harness.records import LeakageRow, load_comparison, load_record, write_record
from harness.registry import add_plugin_file
from harness.runner import run
from harness.tables import plain_text

PLUGINS = Path(__file__).parent / "plugins"
RIGHT = ["low beep", "middle beep", "high beep"]
Go = Callable[..., Path]

# A model that answers by a table of its own: {item id: text}.
TABLE_MODEL = '''"""Says what a file says for each item."""
from __future__ import annotations
import json
from pathlib import Path
from harness.contracts import Answer, ModelAdapter, ModelDescription

class Fake:
    def __init__(self, file, variant):
        self.file, self.variant = file, variant
    def load(self, device, dtype): pass
    def close(self): pass
    def describe(self):
        text = self.file.read_text()
        return ModelDescription("sayer", self.variant, "a fake", {}, 16_000, None, "full", None, {}, {}, text)
    def answer(self, queries):
        said = json.loads(self.file.read_text())
        return [Answer(said[query.item_id]) for query in queries]

def sayer(file: Path, variant: str = "") -> ModelAdapter:
    return Fake(file, variant)
'''


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Runs a model that says what is right for the items numbered, and else something wrong; gives the run's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    (tmp_path / "sayer.py").write_text(TABLE_MODEL)
    for file in (PLUGINS / "beeps.py", PLUGINS / "told.py", tmp_path / "sayer.py"):
        add_plugin_file(file)

    def make(
        variant: str, right: set[int], n: int = 40, task: str = "beeps", failing: int | None = None, **values: Any
    ) -> Path:
        said = {f"beep-{k:02d}": RIGHT[k % 3] if k in right else RIGHT[(k + 1) % 3] for k in range(n) if k != failing}
        if task == "told":
            said = {f"beep-{k}": f"beep number {k} is heard" if k in right else "noise" for k in range(n)}
        file = tmp_path / f"{variant}-{task}-{len(right)}-{n}-{failing}.json"
        file.write_text(json.dumps(said))
        config = RunConfig(
            "sayer",
            task,
            variant=variant,
            model_options={"file": str(file)},
            task_options={"n": n},
            results=tmp_path / "results",
            device="cpu",
            **{"scorers": () if task == "told" else ("exact",), **values},
        )
        return run(config, say=lambda line: None).folder

    return make


def only(first: Path | str, second: Path | str, **options: Any) -> Comparison:
    report = compare(str(first), str(second), Path("results"), **options)
    (row,) = report.comparisons
    return row


# --- known outcomes --------------------------------------------------------------------------------------------------


def test_accuracy_gets_the_p_value_of_scipys_binomial_test(go: Go) -> None:
    from scipy.stats import binomtest

    # 9 items that only the first has right, 2 that only the second has.
    row = only(go("a", set(range(20))), go("b", set(range(9, 22))))
    assert (row.first, row.second, row.test) == (20 / 40, 13 / 40, "exact McNemar")
    assert row.p_value == pytest.approx(binomtest(2, 11).pvalue)


def test_accuracy_gets_the_p_value_of_statsmodels_mcnemar(go: Go) -> None:
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    row = only(go("a", set(range(20))), go("b", set(range(9, 22))))
    assert row.p_value == pytest.approx(contingency.mcnemar([[11, 9], [2, 18]], exact=True).pvalue)


def slow_macro_f1(truth: np.ndarray, said: np.ndarray) -> float:
    """Mean over the three classes, by its definition."""
    pairs = [(truth == c, said == c) for c in range(3)]
    return float(np.mean([2 * (is_so & is_said).sum() / (is_so.sum() + is_said.sum()) for is_so, is_said in pairs]))


def test_f1_gets_the_p_value_of_an_independent_paired_bootstrap(go: Go) -> None:
    right = set(range(24)), set(range(6, 40))
    row = only(go("a", right[0]), go("b", right[1]), metrics=["macro_f1"], n_resamples=5000)
    truth = np.arange(40) % 3
    said = [np.array([k % 3 if k in each else (k + 1) % 3 for k in range(40)]) for each in right]
    rng = np.random.default_rng(5)
    differences = np.empty(5000)
    for number in range(5000):
        # Two beeps a cluster: whole clusters are drawn.
        drawn = (2 * rng.integers(0, 20, 20)[:, np.newaxis] + np.array([0, 1])).ravel()
        first, second = (slow_macro_f1(truth[drawn], each[drawn]) for each in said)
        differences[number] = second - first
    low, high = np.quantile(differences, [0.025, 0.975])
    assert row.interval is not None and row.p_value is not None
    assert (row.interval.low, row.interval.high) == pytest.approx((low, high), abs=0.04)
    assert row.p_value == pytest.approx(2 * (differences <= 0).mean(), abs=0.03)


def test_a_run_is_tied_with_its_equal(go: Go) -> None:
    row = only(go("a", {1, 2, 3}), go("b", {1, 2, 3}))
    assert (row.difference, row.p_value, row.better) == (0.0, 1.0, TIED)


def test_a_clearly_better_model_is_named(go: Go) -> None:
    assert only(go("a", {1, 2, 3}), go("b", set(range(35)))).better == "sayer:b"


def test_fewer_word_errors_are_better(go: Go) -> None:
    row = only(go("a", set(range(5)), task="told"), go("b", set(range(38)), task="told"))
    assert (row.metric, row.test, row.better) == ("wer", "paired bootstrap", "sayer:b")
    assert row.difference is not None and row.difference < 0


def test_p_values_are_adjusted_over_tasks() -> None:
    rows = [
        Comparison(f"task {n}", "exact", "accuracy", 10, 10, 0.1, 0.2, 0.1, p_value=p)
        for n, p in enumerate((0.01, 0.03, 0.04))
    ]
    judged = _judged(rows, "A", "B")
    assert [row.p_holm for row in judged] == pytest.approx([0.03, 0.06, 0.06])
    assert [row.better for row in judged] == ["B", TIED, TIED]


def test_another_scorer_is_a_family_of_its_own() -> None:
    rows = [
        Comparison("task", scorer, "accuracy", 10, 10, 0.1, 0.2, 0.1, p_value=0.03) for scorer in ("exact", "embed")
    ]
    assert [row.p_holm for row in _judged(rows, "A", "B")] == [0.03, 0.03]


# --- pairing ---------------------------------------------------------------------------------------------------------


def test_items_are_paired_by_id_and_not_by_place(go: Go) -> None:
    one, other = _finished(go("a", set(range(20)))), _finished(go("b", set(range(9, 22))))
    turned = replace(other, predictions=other.predictions[::-1])
    assert _compared(one, turned, "exact", "accuracy", 100, 0) == _compared(one, other, "exact", "accuracy", 100, 0)


@pytest.mark.parametrize(
    ("change", "differing"),
    [({"n": 38}, "item set"), ({"prompt": "short"}, "prompt"), ({"limit": 30}, "item set")],
)
def test_runs_that_were_asked_otherwise_are_refused(go: Go, change: dict[str, Any], differing: str) -> None:
    with pytest.raises(UsageError, match=f"cannot be paired: they differ in .*{differing}"):
        compare(str(go("a", {1})), str(go("b", {1}, **change)), Path("results"))


def test_runs_on_other_tasks_are_refused(go: Go) -> None:
    with pytest.raises(UsageError, match="no task in common"):
        compare(str(go("a", {1})), str(go("b", {1}, task="told")), Path("results"))


@pytest.mark.parametrize(
    ("name", "is_remade"),
    [("exact", True), ("ltu[cut=audio_caption]", True), ("ltu[endpoint=localhost:8000/v1]", False)],
)
def test_a_stored_name_that_shortens_an_option_is_not_remade(name: str, is_remade: bool) -> None:
    assert _can_be_remade(name) is is_remade


def test_a_metric_that_is_not_for_the_task_is_refused(go: Go) -> None:
    with pytest.raises(UsageError, match="'wer' is for transcription and captioning tasks"):
        compare(str(go("a", {1})), str(go("b", {2})), Path("results"), metrics=["wer"])


@pytest.mark.parametrize("field", ["audio_identity", "references", "prompt_sha256"])
def test_runs_whose_lines_differ_are_refused_although_their_records_agree(go: Go, field: str) -> None:
    one, other = _finished(go("a", {1})), _finished(go("b", {1}))
    changed = ("high",) if field == "references" else "other"
    lines = (other.predictions[0].model_copy(update={field: changed}), *other.predictions[1:])
    with pytest.raises(UsageError, match=f"differ in the {field} of 'beep-00'"):
        check_paired(one, replace(other, predictions=lines))


def test_runs_with_other_items_are_refused_although_their_records_agree(go: Go) -> None:
    one, other = _finished(go("a", {1})), _finished(go("b", {1}))
    with pytest.raises(UsageError, match="different items"):
        check_paired(one, replace(other, predictions=other.predictions[1:]))


def test_a_score_of_another_version_of_the_scorer_is_refused(go: Go) -> None:
    first, second = go("a", {1}), go("b", {1})
    record = json.loads((second / "record.json").read_text())
    for row in record["scores"]:
        row["scorer_version"] = 99
    (second / "record.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"version 2 of 'exact' .* version 99"):
        compare(str(first), str(second), Path("results"))


def test_a_scorer_that_changed_since_both_runs_is_refused(go: Go) -> None:
    folders = go("a", {1}), go("b", {1})
    for folder in folders:
        text = (folder / "record.json").read_text()
        (folder / "record.json").write_text(text.replace('"scorer_version": 2', '"scorer_version": 0'))
    with pytest.raises(RecordError, match="another version of 'exact'"):
        compare(str(folders[0]), str(folders[1]), Path("results"))


def test_predictions_that_were_changed_are_not_compared(go: Go) -> None:
    first, second = go("a", {1}), go("b", {1})
    path = second / "predictions.jsonl"
    path.write_text(path.read_text().replace("high", "low"))
    with pytest.raises(RecordError, match="changed after the run"):
        compare(str(first), str(second), Path("results"))


# --- models ----------------------------------------------------------------------------------------------------------


def test_models_are_compared_on_every_task_of_both(go: Go) -> None:
    for variant, right in (("a", {1}), ("b", set(range(30)))):
        go(variant, right)
        go(variant, right, task="told")
    report = compare("sayer:a", "sayer:b", Path("results"))
    assert {row.task for row in report.comparisons} == {"beeps (starter, n=40)", "told (starter, n=40)"}


def test_the_newest_run_of_a_model_counts(go: Go) -> None:
    go("a", {1, 2})
    newest = go("a", {1, 2}, fresh=True)
    go("b", {1})
    assert compare("sayer:a", "sayer:b", Path("results")).folders[0][0].name == newest.name


def test_a_name_that_stands_for_several_weights_is_refused_with_the_folders_to_give(go: Go) -> None:
    folders = [go("a", {1, 2}), go("a", {3})]
    go("b", {1})
    with pytest.raises(UsageError, match="several weights or options") as caught:
        compare("sayer:a", "sayer:b", Path("results"))
    assert all(folder.name in str(caught.value) for folder in folders)


def test_of_a_tasks_item_sets_the_largest_of_both_models_counts(go: Go) -> None:
    for variant in ("a", "b"):
        go(variant, {1, 2})
        go(variant, {1, 2}, limit=6)
    go("a", {1, 2}, limit=39)
    report = compare("sayer:a", "sayer:b", Path("results"))
    assert [row.n_items for row in report.comparisons] == [40]
    assert any("with 6 items is left out" in remark for remark in report.remarks)


def test_an_option_that_a_task_gained_since_makes_no_task_of_its_own(go: Go) -> None:
    for variant in ("a", "b"):
        folder = go(variant, {1, 2})
        record = load_record(folder)
        assert record is not None and record.task.options_resolved
        older = record.task.model_copy(update={"options_resolved": {}})
        write_record(folder, record.model_copy(update={"task": older}))
        go(variant, {1, 2}, limit=6)
    assert [row.n_items for row in compare("sayer:a", "sayer:b", Path("results")).comparisons] == [40]


def test_a_task_that_only_one_model_was_asked_is_named(go: Go) -> None:
    go("a", {1})
    go("a", {1}, task="told")
    go("b", {2})
    report = compare("sayer:a", "sayer:b", Path("results"))
    assert report.remarks == ("told is left out: there is no finished run of sayer:b on it.",)


def test_a_model_of_several_variants_must_be_named_in_full(go: Go) -> None:
    go("a", {1})
    go("b", {1})
    with pytest.raises(UsageError, match="several variants: a, b"):
        compare("sayer", "sayer:b", Path("results"))


def test_a_model_without_runs_is_an_error(go: Go) -> None:
    go("a", {1})
    with pytest.raises(UsageError, match="no finished run of 'other'"):
        compare("sayer:a", "other", Path("results"))


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table_shows_values_difference_and_verdict(go: Go) -> None:
    report = compare(str(go("a", set(range(10)))), str(go("b", set(range(10)))), Path("results"))
    text = plain_text(comparison_table(report))
    assert "25.0" in text and "+0.0 [+0.0, +0.0]" in text and "tied" in text


def test_the_lines_below_name_the_models_the_tests_and_the_runs(go: Go) -> None:
    first, second = go("a", {1}), go("b", {1})
    lines = "\n".join(comparison_lines(compare(str(first), str(second), Path("results"))))
    assert all(part in lines for part in ("First: sayer:a.", "exact McNemar", "Holm", str(first), str(second)))


def test_a_metric_that_is_not_available_is_no_number(go: Go) -> None:
    row = only(go("a", {1}), go("b", {1}), metrics=["mean_ap"])
    assert row.p_value is None and row.unavailable is not None and "loglik" in row.unavailable


def test_an_item_that_failed_is_compared_as_wrong(go: Go) -> None:
    row = only(go("a", set(range(40))), go("b", set(range(40)), failing=7))
    assert (row.first, row.second, row.n_items) == (1.0, 39 / 40, 40)
    assert (row.n_flipped, row.n_first_only, row.n_second_only) == (1, 1, 0)


def test_items_that_came_out_another_way_are_counted_though_both_are_wrong(go: Go) -> None:
    one, other = _finished(go("a", set(range(20)))), _finished(go("b", set(range(9, 22))))
    row = _compared(one, other, "exact", "accuracy", 100, 0)
    assert (row.n_flipped, row.n_first_only, row.n_second_only) == (11, 9, 2)
    wrong = other.predictions[39].model_copy(update={"text": "no beep at all"})
    changed = replace(other, predictions=(*other.predictions[:39], wrong))
    row = _compared(one, changed, "exact", "accuracy", 100, 0)
    assert (row.n_flipped, row.n_first_only, row.n_second_only) == (12, 9, 2)


def test_transcripts_flip_with_their_words(go: Go) -> None:
    row = only(go("a", set(range(5)), task="told"), go("b", set(range(38)), task="told"))
    assert (row.n_flipped, row.n_first_only) == (33, None)


def test_the_command_prints_the_table(go: Go, capsys: pytest.CaptureFixture[str]) -> None:
    go("a", {1})
    go("b", {1, 2})
    assert main(["compare", "sayer:a", "sayer:b"]) == 0
    assert "difference [95 %]" in capsys.readouterr().out


def test_a_refusal_is_code_2_and_one_line(go: Go, capsys: pytest.CaptureFixture[str]) -> None:
    folders = go("a", {1}), go("b", {1}, prompt="short")
    assert main(["compare", *map(str, folders)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


# --- the record ------------------------------------------------------------------------------------------------------


def test_the_command_writes_a_record_and_its_table(go: Go, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = go("a", {1}), go("b", {1, 2})
    main(["compare", "sayer:a", "sayer:b"])
    (folder,) = (path.parent for path in Path("results/compare").glob("*/record.json"))
    assert f"Record: {folder}" in capsys.readouterr().out
    record = load_comparison(folder)
    assert record is not None and (record.first, record.second) == ("sayer:a", "sayer:b")
    (runs,) = record.runs
    assert (Path(runs.first_folder).resolve(), Path(runs.second_folder).resolve()) == (first, second)
    (row,) = record.comparisons
    report = compare("sayer:a", "sayer:b", Path("results"))
    assert (row.difference, row.p_holm) == (report.comparisons[0].difference, report.comparisons[0].p_holm)


def test_the_tables_beside_the_record_hold_the_printed_cells(go: Go) -> None:
    go("a", {1})
    go("b", {1, 2})
    report = compare("sayer:a", "sayer:b", Path("results"))
    folder = keep(report, Path("results"), ["compare"], seed=0)
    rows = list(csv.reader((folder / "table.csv").read_text().splitlines()))
    table = comparison_table(report)
    assert rows == [list(table.header), *map(list, table.rows)]
    lines = (folder / "table.md").read_text().splitlines()
    assert len(lines) == 3 and lines[0].count("|") == lines[2].count("|") == len(table.header) + 1


def test_the_same_comparison_again_is_the_same_record(go: Go) -> None:
    go("a", {1})
    go("b", {1, 2})
    reports = [compare("sayer:a", "sayer:b", Path("results")) for _ in range(2)]
    folders = {keep(report, Path("results"), ["compare"], seed=0) for report in reports}
    assert len(folders) == 1


def test_a_protocol_that_one_run_alone_follows_is_said(go: Go) -> None:
    one, other = _finished(go("a", {1})).record, _finished(go("b", {1, 2})).record
    assert pair_remarks(one, other) == []
    said = pair_remarks(one.model_copy(update={"protocol": "ltu"}), other)
    assert said == ["beeps: the runs follow different protocols: sayer:a by protocol ltu, sayer:b by none."]


def test_what_differs_beside_the_models_is_said_with_both_values(go: Go) -> None:
    one, other = _finished(go("a", {1})).record, _finished(go("b", {1, 2}, batch_size=1)).record
    model = {"parameters": {"encoder": 106}, "audio_tokens_per_s": 6.25, "generation": {"temperature": 0.1}}
    alike = one.model.model_copy(update={"parameters": {"encoder": 100}})
    larger = other.model.model_copy(update=model)
    said = pair_remarks(one.model_copy(update={"model": alike}), other.model_copy(update={"model": larger}))
    assert said == [
        "beeps: the runs also differ in parameters (100 and 106), audio tokens a second (none and 6.25), "
        "batch_size (8 and 1), generation's temperature (none and 0.1)."
    ]


def test_parameters_within_five_percent_are_matched(go: Go) -> None:
    record = _finished(go("a", {1})).record
    one, other = (
        record.model_copy(update={"model": record.model.model_copy(update={"parameters": {"all": n}})})
        for n in (100, 105)
    )
    assert pair_remarks(one, other) == []


def test_clips_that_a_model_learned_from_are_said(go: Go) -> None:
    one, other = _finished(go("a", {1})).record, _finished(go("b", {1, 2})).record
    heard = LeakageRow(learned_from=("beeps",), flagged={"beep-01": "beeps", "beep-02": "beeps"}, unchecked=())
    (said,) = pair_remarks(one, other.model_copy(update={"leakage": heard}))
    assert said.startswith("beeps: 2 of 40 clips, or their recordings, are among what sayer:b learned from")


def test_another_seed_is_another_record(go: Go) -> None:
    go("a", {1})
    go("b", {1, 2})
    folders = {keep(compare("sayer:a", "sayer:b", Path("results"), seed=s), Path("results"), [], s) for s in (0, 1)}
    assert len(folders) == 2
