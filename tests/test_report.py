"""`report` on small results of every kind, written here: what stands in tables and figures, and what never does."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main
from harness.records import load_record, write_record
from harness.report.loading import load_all
from harness.report.run_plots import confusion_shares, pareto_front
from harness.report.style import looks, wrapped
from harness.report.writing import make_report
from harness.results_frame import load_results
from harness.scaling_curves import BY_NAME
from tests.report_results import (
    BASE,
    N,
    answers,
    needle_metadata,
    write_compared,
    write_comparison,
    write_controls,
    write_frontier,
    write_run,
    write_scaling,
    write_streaming,
)

SPITEFUL = "</script><script>alert(1)</script> \\input{secret} | `x` **dog**"


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of every kind."""
    results = tmp_path_factory.mktemp("results")
    best = write_run(results, "ssalm:tiny", answers(12), n_parameters=3000)
    second = write_run(results, "ltu:tiny", answers(11), n_parameters=2000)
    write_run(results, "chance", answers(2), n_parameters=0)
    write_run(results, "odd_one", [*answers(11)[:-1], SPITEFUL])
    write_run(results, "ssalm:tiny", answers(9), task="speech_commands")
    write_run(results, "ssalm:tiny", answers(9), origin="official")
    for model, n in (("ssalm:tiny", 12), ("ltu:tiny", 6)):
        write_run(results, model, answers(n), task="needle", origin="generated", metadata=needle_metadata())
    write_scaling(results)
    write_frontier(results)
    write_streaming(results)
    write_controls(results, best)
    write_compared(results, best, second)
    training = results / "training" / "ssalm-tiny" / "tiny-seed0"
    training.mkdir(parents=True)
    lines = [json.dumps({"step": 100 * n, "text_loss": 3 / n, "learning_rate": 1e-3}) for n in range(1, 20)]
    (training / "curve.jsonl").write_text("\n".join(lines) + "\n")
    return results


@pytest.fixture(scope="module")
def written(everything: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of all that."""
    out = tmp_path_factory.mktemp("report")
    assert main(["report", "--results", str(everything), "--out", str(out)]) == 0
    return out


def _cells(path: Path) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]


def _row(path: Path, name: str) -> dict[str, str]:
    header, _, *rows = _cells(path)
    return next(dict(zip(header, row, strict=True)) for row in rows if row[0] == name)


# --- what stands in tables -------------------------------------------------------------------------------------------


def test_a_cell_is_the_score_of_the_record(everything: Path, written: Path) -> None:
    with (written / "tables" / "accuracy-starter-exact.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    frame = load_results(everything)
    stored = frame[(frame.model == "ltu:tiny") & (frame.origin == "starter")].iloc[0]
    (found,) = [row for row in rows if row["model"] == "ltu:tiny"]
    assert [float(found[name]) for name in ("value", "low", "high")] == [stored.value, stored.low, stored.high]


def test_the_best_is_bold_and_an_overlapping_interval_is_a_tie(written: Path) -> None:
    table = written / "tables" / "accuracy-starter-exact.md"
    column = "esc50 acc. (n 12)"
    assert _row(table, "ssalm:tiny")[column].startswith("**100.0 [")
    assert _row(table, "ltu:tiny")[column].startswith("91.7≈")
    assert "≈" not in _row(table, "chance")[column]
    assert "overlapping intervals" in table.read_text()


def test_a_paired_test_of_the_same_answers_decides_a_tie(tmp_path: Path) -> None:
    first, second = write_run(tmp_path, "ssalm:tiny", answers(12)), write_run(tmp_path, "ltu:tiny", answers(11))
    write_comparison(tmp_path, first, second, better="A")
    (table,) = [t for t in make_report(load_all(tmp_path)).tables if t.name == "accuracy-starter-exact"]
    assert table.rows[1][1].startswith("91.7 [")
    assert any("1 by paired test" in note for note in table.notes)


def test_starter_and_official_never_share_a_table(written: Path) -> None:
    starter, official = (written / "tables" / f"accuracy-{name}-exact.md" for name in ("starter", "official"))
    assert len(_cells(starter)) == 2 + 4
    assert [row[0] for row in _cells(official)[2:]][0] == "ssalm:tiny"


def test_scorers_never_share_a_column(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "ssalm:tiny", answers(12))
    record = load_record(folder)
    assert record is not None
    nearest = record.scores[0].model_copy(update={"scorer": "embed", "value": 0.25})
    write_record(folder, record.model_copy(update={"scores": (*record.scores, nearest)}))
    tables = {t.name: t for t in make_report(load_all(tmp_path)).tables}
    found = {name: tables[f"accuracy-starter-{name}"].rows[0][1].split()[0] for name in ("exact", "embed")}
    assert found == {"exact": "100.0", "embed": "25.0"}


def test_published_rows_stand_only_where_the_scorer_is_theirs(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "ssalm:tiny", answers(9), origin="official")
    record = load_record(folder)
    assert record is not None
    by_ltu = record.scores[0].model_copy(update={"scorer": "ltu"})
    write_record(folder, record.model_copy(update={"scores": (*record.scores, by_ltu)}))
    tables = {t.name: t for t in make_report(load_all(tmp_path)).tables}
    systems = {name: [row[0] for row in tables[f"accuracy-official-{name}"].rows] for name in ("exact", "ltu")}
    assert systems["exact"] == ["ssalm:tiny"]
    assert "LTU-7B" in systems["ltu"] and "SAM-2.7B r256" not in systems["ltu"]
    assert ("LTU-7B", "83.1§") in tables["accuracy-official-ltu"].rows


def test_a_protocol_is_one_table_whatever_options_its_scorer_takes(tmp_path: Path) -> None:
    for task, scorer in (("esc50", "ltu"), ("vggsound", "ltu[cut=audio_caption]")):
        folder = write_run(tmp_path, "ltu:tiny", answers(9), task=task, origin="official", protocol="ltu")
        record = load_record(folder)
        assert record is not None
        write_record(
            folder, record.model_copy(update={"scores": (record.scores[0].model_copy(update={"scorer": scorer}),)})
        )
    tables = {t.name: t for t in make_report(load_all(tmp_path)).tables}
    table = tables["accuracy-official-protocol_ltu-ltu"]
    assert table.header[1:] == (
        "esc50 acc. (n 12)",
        "vggsound [cut=audio_caption] acc. (n 12)",
        "classification average",
    )
    assert ("LTU-7B", "83.1", "50.3", "-") in table.rows


def test_averages_need_every_task_of_the_kind(tmp_path: Path) -> None:
    for task in ("esc50", "vocalsound"):
        write_run(tmp_path, "ssalm:tiny", answers(12 if task == "esc50" else 6), task=task)
    write_run(tmp_path, "ltu:tiny", answers(6))
    (table,) = [t for t in make_report(load_all(tmp_path)).tables if t.name == "accuracy-starter-exact"]
    assert table.header[-1] == "classification average"
    assert [row[-1] for row in table.rows] == ["75.0", "-"]


def test_runs_on_other_items_do_not_share_a_column(tmp_path: Path) -> None:
    write_run(tmp_path, "ssalm:tiny", answers(12))
    write_run(tmp_path, "ltu:tiny", answers(11), task="esc50")
    other = BASE.task.model_copy(
        update={"item_set_sha256": "f" * 64, "n_found": N, "n_declared": N, "metrics": ("accuracy",)}
    )
    folder = write_run(tmp_path, "hybrid:tiny", answers(3))
    record = load_record(folder)
    assert record is not None
    write_record(folder, record.model_copy(update={"task": other.model_copy(update={"labels": record.task.labels})}))
    (table,) = [t for t in make_report(load_all(tmp_path)).tables if t.name == "accuracy-starter-exact"]
    by_name = {row[0]: row[1:] for row in table.rows}
    assert [cell == "-" for cell in by_name["hybrid:tiny"]] != [cell == "-" for cell in by_name["ltu:tiny"]]


def test_what_a_model_wrote_is_text_in_every_output(everything: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    spiteful = r"x_<script>&{\input}$^|"
    write_run(results, "ssalm:tiny", answers(12))
    folder = write_run(results, "odd_one", answers(6))
    record = load_record(folder)
    assert record is not None
    write_record(folder, record.model_copy(update={"model": record.model.model_copy(update={"variant": spiteful})}))
    assert main(["report", "--results", str(results), "--out", str(tmp_path)]) == 0
    table = tmp_path / "tables" / "accuracy-starter-exact"
    assert "<script>" not in table.with_suffix(".md").read_text()
    latex = table.with_suffix(".tex").read_text()
    assert r"\input}" not in latex and r"x\_\textless{}script\textgreater{}\&\{\textbackslash{}input\}" in latex
    assert spiteful in table.with_suffix(".csv").read_text()
    assert "<script>" not in (tmp_path / "figures" / "accuracy-starter-exact.svg").read_text()


def test_every_table_and_figure_names_the_runs_that_made_it(everything: Path, written: Path) -> None:
    for path in [*written.glob("tables/*.json"), *written.glob("figures/*.json")]:
        facts = json.loads(path.read_text())
        assert facts["sources"] or facts["name"].startswith("published")
        assert all((everything / source["place"]).is_dir() for source in facts["sources"])
        assert set(facts["files"]) == {p.name for p in path.parent.glob(f"{path.stem}.*")} - {path.name}


def test_costs_are_those_of_the_answers(written: Path) -> None:
    row = _row(written / "tables" / "run-costs.md", "odd_one")
    assert (row["parameters"], row["s a clip"], row["RTF"], row["tokens/s"]) == ("1 k", "0.5", "0.1", "4")


def test_the_tables_of_costs_hold_what_was_measured(written: Path) -> None:
    tables = written / "tables"
    efficiency = _cells(tables / "efficiency.md")
    assert {row[2] for row in efficiency[2:]} == {"10 s", "100 s"}
    crossing = (tables / "scaling-crossovers.csv").read_text()
    assert re.search(rf"ssalm:tiny,ltu:tiny,whole model,.*{BY_NAME['total'].title},\"?40 s", crossing)
    assert _row(tables / "frontier.md", "ltu:tiny")["breaks at"] == "5 min 20 s"
    assert _row(tables / "audio-gain.md", "ssalm:tiny")["audio gain"].startswith("+75.0 [")


# --- figures ---------------------------------------------------------------------------------------------------------


def test_every_kind_of_result_has_its_figure(written: Path) -> None:
    names = {path.stem for path in written.glob("figures/*.svg")}
    kinds = ("accuracy-", "pareto-", "confusion-", "needle-", "scaling", "frontier", "streaming")
    kinds += ("training", "controls-", "comparisons")
    assert [kind for kind in kinds if not any(name.startswith(kind) for name in names)] == []
    for suffix in ("pdf", "png", "json"):
        assert {path.stem for path in written.glob(f"figures/*.{suffix}")} == names


def test_text_in_a_figure_stays_text(written: Path) -> None:
    assert "ssalm:tiny" in (written / "figures" / "accuracy-starter-exact.svg").read_text()
    assert b"/Type3" not in (written / "figures" / "accuracy-starter-exact.pdf").read_bytes()


def test_the_heat_map_is_a_plain_mean_of_the_answers(written: Path) -> None:
    (path,) = written.glob("figures/needle-*.json")
    panels = json.loads(path.read_text())["data"]["panels"]
    of_ltu = next(panel["cells"] for panel in panels if panel["title"].startswith("ltu"))
    assert of_ltu[:4] == [[10.0, 0.0, 1.0, 2], [10.0, 0.5, 1.0, 2], [10.0, 1.0, 1.0, 2], [20.0, 0.0, 0.0, 2]]


def test_no_point_of_the_front_is_beaten() -> None:
    points = [(1.0, 10.0), (2.0, 5.0), (2.0, 30.0), (4.0, 30.0), (3.0, 40.0)]
    assert pareto_front(points) == [(1.0, 10.0), (2.0, 30.0), (3.0, 40.0)]


def test_a_row_of_confusions_adds_up_to_one() -> None:
    shares = confusion_shares({"dog": {"dog": 1, "rain": 2, "(unparsed)": 1}}, ["dog", "rain"])
    assert shares == [[0.25, 0.5, 0.25], [0.0, 0.0, 0.0]]


def test_models_differ_in_marker_where_colours_come_again() -> None:
    found = looks([f"model{number}" for number in range(20)])
    assert len({(look.colour, look.marker) for look in found.values()}) == 20
    assert looks(["yamnet:a", "yamnet:b", "chance"])["chance"] == looks(["chance"])["chance"]


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_same_results_give_the_same_bytes(everything: Path, written: Path, tmp_path: Path) -> None:
    assert main(["report", "--results", str(everything), "--out", str(tmp_path)]) == 0
    both = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")} for folder in (written, tmp_path)
    ]
    assert [str(path) for path in both[0] if both[0][path] != both[1].get(path)] == []


def test_a_table_that_nothing_makes_any_more_is_removed(everything: Path, tmp_path: Path) -> None:
    results, out = tmp_path / "results", tmp_path / "out"
    write_run(results, "ssalm:tiny", answers(12))
    write_run(results, "ssalm:tiny", answers(12), origin="official")
    main(["report", "--results", str(results), "--out", str(out)])
    (out / "tables" / "mine.md").write_text("mine")
    (record,) = [p for p in results.glob("runs/*/*/*/record.json") if '"origin": "official"' in p.read_text()]
    shutil.rmtree(record.parent)
    main(["report", "--results", str(results), "--out", str(out)])
    assert not list(out.rglob("accuracy-official*"))
    assert (out / "tables" / "mine.md").exists() and list(out.rglob("accuracy-starter*"))


def test_results_of_nothing_give_plain_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results").mkdir()
    assert main(["report", "--results", str(tmp_path / "results"), "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "There is no finished run: `run --model MODEL --task TASK` makes one."
    assert any(line.startswith("There is no scaling record") for line in lines)


def test_neither_a_model_nor_torch_is_loaded(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_run(results, "ssalm:tiny", answers(12))
    code = (
        "import sys; from harness.cli import main; "
        f"main(['report', '--results', {str(results)!r}, '--out', {str(tmp_path)!r}]); "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300, check=False).returncode == 0


def test_verify_finds_nothing_in_what_was_just_written(
    everything: Path, written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--verify", "--results", str(everything), "--out", str(written)]) == 0
    assert "no difference" in capsys.readouterr().out


@pytest.fixture
def spoilt(everything: Path, written: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of the results and of their report, to be changed."""
    results, out = tmp_path / "results", tmp_path / "out"
    shutil.copytree(everything, results)
    shutil.copytree(written, out)
    return results, out


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        (
            "tables/accuracy-starter-exact.csv",
            "0.9166666666666666",
            "0.9266666666666666",
            "accuracy-starter-exact.csv row",
        ),
        ("tables/accuracy-starter-exact.md", "91.7", "92.7", "accuracy-starter-exact.md line"),
        ("tables/frontier.tex", "5 min", "6 min", "frontier.tex line"),
        ("figures/frontier.json", "160.0", "170.0", "data.bars.0.edge_s"),
        ("figures/training.svg", "text loss", "test loss", "training.svg: changed"),
    ],
)
def test_verify_finds_what_was_changed_by_hand(
    spoilt: tuple[Path, Path], file: str, old: str, new: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results, out = spoilt
    text = (out / file).read_text()
    assert old in text
    (out / file).write_text(text.replace(old, new, 1))
    assert main(["report", "--verify", "--results", str(results), "--out", str(out)]) == 1
    assert told in capsys.readouterr().out


def test_verify_finds_a_score_that_the_answers_do_not_give(
    spoilt: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    results, out = spoilt
    (path,) = results.glob("runs/ltu-tiny/esc50/*/record.json")
    path.write_text(path.read_text().replace('"value": 0.9166666666666666', '"value": 0.95', 1))
    assert main(["report", "--verify", "--results", str(results), "--out", str(out)]) == 1
    assert "accuracy by exact, value: 0.95 stands there, 0.9166666666666666 follows" in capsys.readouterr().out


def test_two_folders_are_compared_score_by_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = tmp_path / "A", tmp_path / "B"
    write_run(one, "ssalm:tiny", answers(6))
    write_run(other, "ssalm:tiny", answers(9), started="2026-02-01T00:00:00Z")
    write_run(other, "ltu:tiny", answers(9))
    assert main(["report", "--diff", str(one), str(other)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-5:] == ["-", "75.0", "-", "only", "in", "B"][-5:]
    assert lines[2].split()[-4:] == ["50.0", "75.0", "+25.0", "other"]


def test_the_page_is_written_beside_tables_and_figures(tmp_path: Path) -> None:
    write_run(tmp_path / "results", "ssalm:tiny", answers(12))
    assert main(["report", "--html", "--results", str(tmp_path / "results"), "--out", str(tmp_path)]) == 0
    assert "ssalm:tiny" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_options_that_do_not_go_together_are_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--verify", "--html"]) == 2
    assert capsys.readouterr().err.startswith("error: --verify writes nothing")


# --- broken records --------------------------------------------------------------------------------------------------


def _break(folder: Path, how: str) -> None:
    record = folder / "record.json"
    text = record.read_text()
    if how == "truncated":
        record.write_text(text[: len(text) // 2])
    elif how == "unknown version":
        record.write_text(text.replace('"schema_version": 1', '"schema_version": 99', 1))
    elif how == "not a number":
        record.write_text(re.sub(r'"value": [\d.]+', '"value": NaN', text, count=1))
    elif how == "no predictions":
        (folder / "predictions.jsonl").unlink()
    elif how == "changed predictions":
        (folder / "predictions.jsonl").write_text("")
    elif how == "unfinished":
        record.write_text(text.replace('"is_complete": true', '"is_complete": false', 1))


@pytest.mark.parametrize(
    "how", ["truncated", "unknown version", "not a number", "no predictions", "changed predictions", "unfinished"]
)
def test_a_broken_run_is_one_line_and_in_no_table(how: str, tmp_path: Path) -> None:
    write_run(tmp_path, "ssalm:tiny", answers(12))
    _break(write_run(tmp_path, "ltu:tiny", answers(11)), how)
    read = load_all(tmp_path)
    assert len(read.problems) == 1 and "ltu-tiny" in read.problems[0] and "\n" not in read.problems[0]
    assert not any("ltu:tiny" in row for table in make_report(read).tables for row in table.rows)


def test_a_broken_run_is_told_by_the_exit_code_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    _break(write_run(results, "ltu:tiny", answers(11)), "truncated")
    assert main(["report", "--results", str(results), "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith("Left out: ")


def test_a_run_that_was_made_twice_is_shown_once_and_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "ssalm:tiny", answers(12))
    shutil.copytree(folder, folder.with_name(f"20260102T000000Z-{folder.name.rsplit('-', 1)[1]}"))
    read = load_all(tmp_path)
    assert ["was made 2 times" in line for line in read.problems] == [True]
    (table,) = [t for t in make_report(read).tables if t.name == "accuracy-starter-exact"]
    assert len(table.rows) == 1


def test_versions_of_a_scorer_never_share_a_column(tmp_path: Path) -> None:
    write_run(tmp_path, "ssalm:tiny", answers(12))
    folder = write_run(tmp_path, "ltu:tiny", answers(11))
    record = load_record(folder)
    assert record is not None
    old = record.scores[0].model_copy(update={"scorer_version": 0})
    write_record(folder, record.model_copy(update={"scores": (old,)}))
    (table,) = [t for t in make_report(load_all(tmp_path)).tables if t.name == "accuracy-starter-exact"]
    assert sorted(row.count("-") for row in table.rows) == [1, 1]


def test_broken_measurements_are_one_line_each(everything: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(everything, results)
    (points,) = results.glob("scaling/*/points.jsonl")
    points.write_text(points.read_text().replace('"flops": ', '"flops": "many", "x": ', 1))
    (frontier,) = results.glob("frontier/*/record.json")
    frontier.write_text(frontier.read_text()[:-20])
    (curve,) = results.glob("training/*/*/curve.jsonl")
    curve.write_text('{"step": 1, "text_loss": NaN}\n')
    read = load_all(results)
    assert len(read.problems) == 3 and all("\n" not in line for line in read.problems)
    assert (read.scaling, read.frontiers, read.training) == ((), (), ())


# --- results as data -------------------------------------------------------------------------------------------------


def test_results_are_a_frame_in_one_line(everything: Path) -> None:
    frame = load_results(everything)
    assert len(frame) == 8 and frame.attrs["problems"] == []
    by_model = frame[frame.task == "needle"].set_index("model").value
    assert by_model["ssalm:tiny"] == 1.0 and by_model["ltu:tiny"] == 0.5


def test_list_results_names_every_run(everything: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "results", "--results", str(everything)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.split()[0] == "run"]) == 8
    assert {"controls", "scaling", "frontier", "training"} <= {line.split()[0] for line in lines}


def test_a_word_a_little_longer_than_its_line_is_not_broken() -> None:
    lines = wrapped("needle lengths=10,30,60,300,600, acc.", 22 / 17).split("\n")
    assert lines == ["needle", "lengths=10,30,60,300,600,", "acc."]


def test_a_word_much_longer_than_its_line_is_broken() -> None:
    lines = wrapped("x" * 100, 22 / 17).split("\n")
    assert "".join(lines) == "x" * 100 and max(map(len, lines)) == 22
