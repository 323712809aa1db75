"""A table as Markdown, LaTeX and CSV: what stands in a cell is text, whatever it looks like."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.errors import RecordError
from harness.latex import latex_escaped
from harness.report.loading import load_all
from harness.report.rendering import (
    ReportTable,
    Source,
    file_name,
    markdown_escaped,
    sources_note,
    to_csv,
    to_latex,
    to_markdown,
)
from harness.report.verifying import verify_report
from harness.report.writing import load_sidecar, make_report, stale_files, write_report
from harness.scaling_tables import to_latex as scaling_latex
from harness.tables import Table

REPOSITORY = Path(__file__).resolve().parents[1]
NASTY = 'a_b & 50 % #1 $x^2$ {~} \\input{x} <b>|</b> *c* `d` [e](http://f) "g" \u2028 \n ü ж'
TABLE = ReportTable(
    name="nasty",
    title=NASTY,
    header=("model", NASTY),
    rows=((NASTY, "1.5 [1.0, 2.0]"), ("[x]", "2.5≈* [2.0, 3.0]")),
    sources=(Source("runs/a", "12345678", {"git_commit": "abcdef0123456", "git_is_dirty": False}),),
    notes=(NASTY,),
    bold=frozenset({(1, 1)}),
)


def test_markdown_has_one_cell_where_one_was_meant() -> None:
    rows = [line for line in to_markdown(TABLE).splitlines() if line.startswith("|")]
    assert [line.replace(r"\|", "").count("|") for line in rows] == [3] * 4


def test_markdown_shows_html_and_links_as_text() -> None:
    text = markdown_escaped(NASTY)
    assert "<b>" not in text and "&lt;b&gt;" in text
    assert re.search(r"(?<!\\)\]\(", text) is None and r"\*c\*" in text and "\n" not in text


def test_an_interval_reads_as_it_is() -> None:
    assert "| **2.5≈\\* [2.0, 3.0]** |" in to_markdown(TABLE)


def test_latex_escapes_all_that_means_something_there() -> None:
    assert latex_escaped("a_b & 50 % #1 $ {~} ^") == (r"a\_b \& 50 \% \#1 \$ \{\textasciitilde{}\} \textasciicircum{}")
    assert latex_escaped(r"\input") == r"\textbackslash{}input"
    assert latex_escaped("ж") == r"\texttt{U+0436}"


def test_latex_rows_have_the_columns_that_were_declared() -> None:
    text = to_latex(TABLE)
    assert r"\begin{tabular}{lr}" in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 2
    assert [line.replace(r"\&", "").count("&") for line in body] == [1, 1]
    assert all(line.endswith(r"\\") for line in body)


def _compile(page: str, folder: Path) -> None:
    compiler = shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("there is no pdflatex on this machine")
    start = "\\documentclass{article}\\usepackage{booktabs}\\usepackage[T1]{fontenc}\\usepackage{textcomp}"
    (folder / "page.tex").write_text(f"{start}\\begin{{document}}\n{page}\n\\end{{document}}\n", encoding="utf-8")
    done = subprocess.run(
        [compiler, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "page.tex"],
        cwd=folder,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


def test_latex_compiles_whatever_stands_in_a_cell(tmp_path: Path) -> None:
    rows = Table((NASTY, "b"), ((NASTY, "2"), ("[x]", "3")))
    _compile(f"{to_latex(TABLE)}\\newpage\n{scaling_latex(rows)}", tmp_path)


def test_every_table_in_the_repository_compiles(tmp_path: Path) -> None:
    tables = sorted((REPOSITORY / "results").rglob("*.tex"))
    assert tables
    _compile("\\newpage\n".join(path.read_text(encoding="utf-8") for path in tables), tmp_path)


def test_csv_gives_back_what_was_put_in() -> None:
    assert [tuple(row) for row in csv.reader(io.StringIO(to_csv(TABLE)))] == [TABLE.header, *TABLE.rows]


def test_marks_are_explained_only_where_they_stand() -> None:
    notes = TABLE.all_notes()
    assert any(note.startswith("≈ ") for note in notes) and not any(note.startswith("§ ") for note in notes)


def test_the_footnote_names_the_runs_or_where_they_are_named() -> None:
    assert sources_note(TABLE.sources, "nasty") == "Made of: 12345678 (commit abcdef0123)."
    many = [Source(f"runs/{n}", f"id{n}") for n in range(20)]
    assert sources_note(many, "nasty") == "Made of: 20 runs, named in nasty.json."


def test_names_that_differ_give_files_that_differ() -> None:
    assert file_name("accuracy", "official", "", "exact") == "accuracy-official-exact"
    assert file_name("a", "ltu[cut=x]") != file_name("a", "ltu(cut=x)")
    assert "/" not in file_name("../a", "b/c")


# --- sidecars --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ['{"files": {', '{"made_by": "lalm-harness report"}', "[]", '{"files": ["a.csv"]}'])
def test_a_damaged_sidecar_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(RecordError, match=r"a\.json"):
        load_sidecar(tmp_path / "a.json")


def test_a_sidecar_without_a_list_of_files_is_named_before_anything_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"made_by": "lalm-harness report"}')
    with pytest.raises(RecordError, match=r"a\.json"):
        stale_files(tmp_path, set())


def test_a_sidecar_that_names_no_file_is_a_difference(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "results").mkdir()
    results = load_all(tmp_path / "results")
    write_report(make_report(results), tmp_path)
    (path, *_) = sorted(tmp_path.glob("tables/*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": {}}))
    assert f"{path}: names no file that it stands beside" in verify_report(results, tmp_path).differences
