"""The parts of README.md that hold numbers, made from `results/reference`. `python -m harness.readme` writes them anew.

A part stands between the lines `<!-- generated: NAME -->` and `<!-- end generated: NAME -->`. Each is a table of the
report, or one that a command prints, with fewer columns or rows where README would be too long; figures are those of
`results/figures`. Architectures, controls, paired tests and streaming make nothing where the folder holds none; any
other part that lacks its records is an error.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from harness.errors import RecordError
from harness.frontier_table import closing_lines, frontier_table, length_text
from harness.records import RunRecord, ScoreRow
from harness.report.architecture_plots import architecture_figures
from harness.report.architecture_tables import architecture_tables, two_by_twos_of
from harness.report.kept_tables import audio_gains, comparisons
from harness.report.loading import Results, load_all
from harness.report.main_tables import SCORER, main_tables
from harness.report.over_seeds import LIGHT_SCORERS
from harness.report.rendering import ReportTable
from harness.report.training_tables import training_tables
from harness.report.weights import one_set_of_weights, trained_weights
from harness.results_frame import KeptRun
from harness.scaling_tables import NOTES, crossover_table
from harness.scores import compute_scores, run_facts
from harness.scoring import VERBATIM
from harness.strata import grouped
from harness.tables import Table, markdown_text, model_text, score_table, score_text

README = Path("README.md")
REFERENCE = Path("results") / "reference"
FIGURES = Path("results") / "figures"
TABLES = Path("results") / "tables"
# Of what `scaling` compares; the rest stands in results/tables.
README_QUANTITIES = ("Total time", "Peak allocated", "Operations")
# The two published models, of all pairs that were compared.
PAIR = ("ssalm:tiny", "ltu:tiny")
KeptT = TypeVar("KeptT")
_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end generated: \2 -->)", re.DOTALL)


def filled_in(readme: str, reference: Path) -> str:
    """README's text with every generated part made anew.

    Raises:
        RecordError: a part has no maker, or a record cannot be read.
    """
    results = load_all(reference)
    if results.problems:
        raise RecordError(f"README shows whole results alone. {results.problems[0]}")

    def fill(match: re.Match[str]) -> str:
        maker = PARTS.get(match[2])
        if maker is None:
            raise RecordError(f"README has a generated part '{match[2]}', which nothing makes")
        return f"{match[1]}{maker(results)}{match[3]}"

    return _PART.sub(fill, readme)


# --- scores ----------------------------------------------------------------------------------------------------------


def main_part(results: Results) -> str:
    """What each model scores and costs, and the two figures that show it."""
    table = next((table for table in main_tables(results) if table.name == "main-starter"), None)
    if table is None:
        raise RecordError(f"{results.folder} has no run on a starter set by '{SCORER}' with a measured cost")
    scores = {title: f"{title}, % [95 %] by {SCORER}" for title in table.header if "(n " in title}
    header = tuple(scores.get(title, title) for title in table.header)
    notes = " ".join(note for note in table.all_notes() if not note.startswith("Labels by"))
    pictures = [
        ("scaling-short", "Time, peak memory and operations of the four tiny models over the length of audio"),
        (f"accuracy-starter-{SCORER}", "Accuracy of each model on the starter set, with 95 % intervals"),
    ]
    shown = "".join(f"![{told}]({(FIGURES / name).as_posix()}.svg)\n" for name, told in pictures)
    return f"{shown}\n{markdown_text(Table(header, table.rows))}\n{notes}\n\n"


def runs_part(results: Results) -> str:
    """What `run` prints for the model and task of `make run`, with every scorer that the reference run has."""
    runs = [run for run in _runs(results, "esc50") if model_text(run.record) == "ssalm:tiny"]
    first = [run for run in runs if run.record.prompt.is_default]
    if len(first) != 1:
        raise RecordError(f"{results.folder} holds {len(first)} runs of ssalm:tiny on esc50, and README shows one")
    return f"{markdown_text(score_table(first[0].record, first[0].scores))}\n{_origin_text(first)}\n\n"


def needle_part(results: Results) -> str:
    """Accuracy by length of the reference runs of needle, by the scorers that need no model."""
    runs = _runs(results, "needle")
    if not runs:
        raise RecordError(f"{results.folder} holds no run of needle")
    asked = [(run, scorer) for run in runs for scorer in LIGHT_SCORERS if any(s.scorer == scorer for s in run.scores)]
    rows = [(model_text(run.record), scorer, _by_length(run, scorer)) for run, scorer in asked]
    if len({run.record.task.item_set_sha256 for run in runs}) > 1:
        raise RecordError(f"the runs of needle in {results.folder} were asked about different items")
    lengths = {tuple(scores) for _, _, scores in rows}
    header = ("model", "scorer", "n a length", *map(length_text, lengths.pop()))
    cells = (
        (
            model,
            scorer,
            "/".join(sorted({str(row.n_items) for row in scores.values()})),
            *map(score_text, scores.values()),
        )
        for model, scorer, scores in rows
    )
    return f"{markdown_text(Table(header, tuple(cells)))}\nAccuracy % [95 %]. {_origin_text(runs)}\n\n"


def _by_length(run: KeptRun, scorer: str) -> dict[float, ScoreRow]:
    """The run's accuracy at each length in seconds, computed from its answers."""
    labels, facts = run.record.task.labels, run_facts(run.record)
    groups = grouped(run.predictions, ["length_s"])
    return {
        float(length or 0): compute_scores(items, labels, scorer, ["accuracy"], facts)[0]
        for (length,), items in groups.items()
    }


def architecture_part(results: Results) -> str:
    """What encoder and language model change, over seeds of training, by the scorer that the other parts show."""
    found = [each for each in two_by_twos_of(results) if each.scorer == SCORER]
    figures = {spec.name for spec in architecture_figures(found)}
    parts = []
    for table in architecture_tables(found, results):
        picture = f"![{table.title}]({(FIGURES / table.name).as_posix()}.svg)\n\n" if table.name in figures else ""
        parts.append(picture + _with_notes(table))
    return "".join(parts)


def training_part(results: Results) -> str:
    """What the models learned from, over seeds."""
    tables = [table for table in training_tables(results) if table.name == "training-seeds"]
    if not tables:
        raise RecordError(f"{results.folder} holds no training record")
    return _with_notes(tables[0])


def controls_part(results: Results) -> str:
    """What hearing the audio is worth."""
    return _with_notes(audio_gains(results)) if results.controls else ""


def comparisons_part(results: Results) -> str:
    """Paired tests of the two published models, by the scorer that the other parts show; the table has all."""
    if not results.comparisons:
        return ""
    table = comparisons(results.comparisons)
    pair, scorer = table.header.index("first"), table.header.index("scorer")
    rows = [row for row in table.rows if row[pair : pair + 2] == PAIR and row[scorer] in (SCORER, VERBATIM)]
    if not rows:
        raise RecordError(f"{results.folder} holds no comparison of {' and '.join(PAIR)}")
    return _with_notes(replace(table, rows=tuple(rows)))


# --- cost ------------------------------------------------------------------------------------------------------------


def scaling_part(results: Results) -> str:
    """Where the state-space model becomes cheaper, over the points of the reference folder."""
    kept = _only(results.scaling, "scaling")
    table = crossover_table(kept.points)
    if not table.rows:
        raise RecordError(f"the points in {kept.place} have no pair to compare")
    conditions, quantity = table.header.index("conditions"), table.header.index("quantity")
    shared = {row[conditions] for row in table.rows}
    if len(shared) > 1:
        raise RecordError(f"README tells one set of conditions, and {kept.place} holds {len(shared)}")
    rows = [row for row in table.rows if row[quantity] in README_QUANTITIES]
    fewer = [(*row[:conditions], *row[conditions + 1 :]) for row in (table.header, *rows)]
    told = f"{shared.pop()}. {NOTES['crossovers']} Points: `{(REFERENCE / kept.place).as_posix()}`."
    return f"{markdown_text(Table(fewer[0], tuple(fewer[1:])))}\n{told}\n\n"


def frontier_part(results: Results) -> str:
    """The reference searches for the longest audio."""
    kept = _only(results.frontiers, "frontier")
    lines = " ".join(f"{line[0].upper()}{line[1:]}." for line in closing_lines(kept.record))
    command = shlex.join(kept.record.command[1:])
    told = f"{lines} Made by `python -m harness {command}`. Record: `{(REFERENCE / kept.place).as_posix()}`."
    return f"{markdown_text(frontier_table(kept.record, kept.probes))}\n{told}\n\n"


def streaming_part(results: Results) -> str:
    """What each further minute costs, as a picture; the table has the numbers."""
    if not results.streaming:
        return ""
    picture = (FIGURES / "streaming.svg").as_posix()
    return f"![Time, resident memory and state of each further minute]({picture})\n\n"


PARTS: Mapping[str, Callable[[Results], str]] = {
    "main": main_part,
    "runs": runs_part,
    "needle": needle_part,
    "architecture": architecture_part,
    "training": training_part,
    "controls": controls_part,
    "comparisons": comparisons_part,
    "scaling": scaling_part,
    "frontier": frontier_part,
    "streaming": streaming_part,
}


# --- shared ----------------------------------------------------------------------------------------------------------


def _only(kept: Sequence[KeptT], kind: str) -> KeptT:
    if len(kept) != 1:
        raise RecordError(f"README shows one measurement of {kind}, and the reference results hold {len(kept)}")
    return kept[0]


def _runs(results: Results, task: str) -> list[KeptRun]:
    """The reference runs of a task, of one seed a model, in the order of tables."""
    shown = one_set_of_weights(results.runs, trained_weights(results.training))
    return [run for run in shown if run.record.task.name == task]


def _markdown(table: ReportTable) -> str:
    return markdown_text(Table(table.header, table.rows))


def _with_notes(table: ReportTable) -> str:
    return f"{_markdown(table)}\n{' '.join(table.all_notes())} Table: `{(TABLES / table.name).as_posix()}.md`.\n\n"


def _origin_text(runs: Sequence[KeptRun]) -> str:
    records: list[RunRecord] = [run.record for run in runs]
    commits = sorted({(record.environment.git_commit or "unknown")[:10] for record in records})
    machines = sorted(
        {f"{record.environment.cpu}, {record.threads} thread{'s' * (record.threads != 1)}" for record in records}
    )
    models = {model_text(record) for record in records}
    options = "".join(f" -t {key}={value}" for key, value in sorted(records[0].task.options_changed.items()))
    scorers = ",".join(dict.fromkeys(row.scorer for record in records for row in record.scores))
    return (
        f"Made by `python -m harness run --model {models.pop() if len(models) == 1 else 'MODEL'} "
        f"--task {records[0].task.name}{options} --scorer {scorers}`, at commit {', '.join(commits)} "
        f"on {'; '.join(machines)}. Records: `{REFERENCE.as_posix()}/runs`."
    )


if __name__ == "__main__":
    README.write_text(filled_in(README.read_text(encoding="utf-8"), REFERENCE), encoding="utf-8")
