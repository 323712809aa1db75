"""The parts of README.md that hold numbers, made from `results/reference`. `python -m harness.readme` writes them anew.

A part stands between the lines `<!-- generated: NAME -->` and `<!-- end generated: NAME -->`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import RecordError
from harness.frontier_rows import load_frontier, load_probes
from harness.frontier_table import closing_lines, frontier_table, length_text
from harness.records import RunRecord, ScoreRow, load_record
from harness.scaling_rows import load_points, newest_points
from harness.scaling_tables import NOTES, crossover_table
from harness.scores import load_finished, stored_scores
from harness.tables import Table, markdown_text, model_text, score_table

REFERENCE = Path("results") / "reference"
# Of what `scaling` compares; the rest stands in results/tables.
README_QUANTITIES = ("Total time", "Peak allocated", "Operations")
_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end generated: \2 -->)", re.DOTALL)


def filled_in(readme: str, reference: Path) -> str:
    """README's text with every generated part made anew.

    Raises:
        RecordError: a part has no maker, or a record cannot be read.
    """
    makers = {
        "runs": runs_part,
        "training": training_part,
        "needle": needle_part,
        "scaling": scaling_part,
        "frontier": frontier_part,
    }

    def fill(match: re.Match[str]) -> str:
        maker = makers.get(match[2])
        if maker is None:
            raise RecordError(f"README has a generated part '{match[2]}', which nothing makes")
        return f"{match[1]}{maker(reference)}{match[3]}"

    return _PART.sub(fill, readme)


def runs_part(reference: Path) -> str:
    """One table over the reference runs of esc50, and the machine that made them."""
    found = (run for run in _runs(reference) if run[0].task.name == "esc50")
    runs = sorted(found, key=lambda run: (_order(run[0]), run[0].prompt.name))
    if not runs:
        raise RecordError(f"there is no run below {reference / 'runs'}")
    tables = [score_table(record, scores) for record, scores in runs]
    header = tables[0].header
    rows = [row for table in tables for row in table.rows]
    return f"{markdown_text(Table(header, tuple(rows)))}\n{_origin_text([record for record, _ in runs])}\n\n"


def training_part(reference: Path) -> str:
    """One row a training run: what was learned from, how long it took, and the held-out score where one was kept.

    A first round that was taken over lies in a folder of its own, with its curve and the hash of what it left.
    """
    found = sorted((reference / "training").glob("*/*/record.json"))
    records = [(path.parent, json.loads(path.read_text(encoding="utf-8"))) for path in found]
    header = (
        "model",
        "recordings",
        "held out",
        "steps x clips",
        "hours (1st + 2nd round)",
        "threads",
        "held-out accuracy % [95 %]",
    )
    return markdown_text(Table(header, tuple(_training_cells(folder, record) for folder, record in records))) + "\n"


def needle_part(reference: Path) -> str:
    """Accuracy by length of the reference runs of needle, from the tables that `score --by length_s` left."""
    folders = sorted((reference / "runs").glob("*/needle/*"))
    records = sorted(((load_finished(folder), folder) for folder in folders), key=lambda found: _order(found[0]))
    rows: list[tuple[str, ...]] = []
    lengths: list[str] = []
    for record, folder in records:
        for scorer in ("exact", "loglik"):
            with (folder / f"strata-{scorer}-accuracy-by-length_s.csv").open(newline="") as file:
                strata = list(csv.DictReader(file))
            lengths = [length_text(float(row["length_s"])) for row in strata]
            cells = (_interval_text(*(float(row[end]) for end in ("value", "low", "high"))) for row in strata)
            rows.append((model_text(record), scorer, strata[0]["n_items"], *cells))
    table = markdown_text(Table(("model", "scorer", "n a length", *lengths), tuple(rows)))
    return f"{table}\nAccuracy % [95 %]. {_origin_text([record for record, _ in records])}\n\n"


def scaling_part(reference: Path) -> str:
    """Where the state-space model becomes cheaper, over the points of the reference folder."""
    folder = _only_folder(reference / "scaling")
    table = crossover_table(newest_points(load_points(folder)))
    if not table.rows:
        raise RecordError(f"the points in {folder} have no pair to compare")
    conditions = table.header.index("conditions")
    quantity = table.header.index("quantity")
    rows = [row for row in table.rows if row[quantity] in README_QUANTITIES]
    kept = [(*row[:conditions], *row[conditions + 1 :]) for row in rows]
    header = (*table.header[:conditions], *table.header[conditions + 1 :])
    told = f"{table.rows[0][conditions]}. {NOTES['crossovers']} Points: `{REFERENCE / 'scaling' / folder.name}`."
    return f"{markdown_text(Table(header, tuple(kept)))}\n{told}\n\n"


def frontier_part(reference: Path) -> str:
    """The reference searches for the longest audio."""
    folder = _only_folder(reference / "frontier")
    record = load_frontier(folder)
    lines = " ".join(f"{line[0].upper()}{line[1:]}." for line in closing_lines(record))
    told = f"{lines} Record: `{REFERENCE / 'frontier' / folder.name}`."
    return f"{markdown_text(frontier_table(record, load_probes(folder)))}\n{told}\n\n"


def _only_folder(parent: Path) -> Path:
    folders = sorted(path for path in parent.glob("*") if path.is_dir())
    if len(folders) != 1:
        raise RecordError(f"README shows one measurement, and {parent} holds {len(folders)}")
    return folders[0]


def _interval_text(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _runs(reference: Path) -> Iterator[tuple[RunRecord, list[ScoreRow]]]:
    for path in sorted((reference / "runs").glob("*/*/*/record.json")):
        record = load_record(path.parent)
        if record is None or not record.is_complete:
            raise RecordError(f"{path} is not the record of a complete run")
        yield record, list(stored_scores(path.parent, record).values())


def _order(record: RunRecord) -> int:
    """Our own models first, then the point of reference, then the floors."""
    known = ("ssalm", "hybrid", "ast_mamba", "ltu", "yamnet", "majority", "chance")
    return known.index(record.model.name) if record.model.name in known else len(known)


def _origin_text(records: list[RunRecord]) -> str:
    commits = sorted({(record.environment.git_commit or "unknown")[:10] for record in records})
    machines = sorted(
        {f"{record.environment.cpu}, {record.threads} thread{'s' * (record.threads != 1)}" for record in records}
    )
    return (
        f"Made by `python -m harness run --model MODEL --task {records[0].task.name}"
        f"{''.join(f' -t {key}={value}' for key, value in sorted(records[0].task.options_changed.items()))}`, "
        f"with the scorers and prompts of the table, at commit {', '.join(commits)} "
        f"on {'; '.join(machines)}. Records: `{REFERENCE}/runs`."
    )


def _training_cells(folder: Path, record: Mapping[str, Any]) -> tuple[str, ...]:
    config, learned = record["config"], record["learned_from"]
    held_out = learned["hold_out_fold"]
    scores = "; ".join(_score_text(report) for report in record["held_out"]) or "-"
    return (
        folder.parent.name.replace("-", ":", 1),
        str(learned["n_clips"]),
        f"fold {held_out}" if held_out else "-",
        _rounds_text(config),
        _hours_text(folder, record),
        str(config["threads"]),
        scores,
    )


def _rounds_text(config: Mapping[str, Any]) -> str:
    second = round(config["steps"] * config["second_share"])
    rounds = [(config["steps"] - second, config["batch_size"]), (second, config["second_batch_size"])]
    return " + ".join(f"{steps} x {batch_size}" for steps, batch_size in rounds if steps)


def _hours_text(folder: Path, record: Mapping[str, Any]) -> str:
    hours, taken_over = record["trained_s"] / 3600, record["learned_from"].get("hearing_from_sha256")
    if taken_over is None:
        return f"{hours:.2f} both"
    for path in folder.parents[1].glob("*/first-round-*/first_round.sha256"):
        if path.read_text(encoding="utf-8").strip() == taken_over:
            return f"{_curve_hours(path.parent):.2f} + {hours:.2f}"
    raise RecordError(f"{folder} took over a first round whose record is not beside it ({taken_over})")


def _curve_hours(folder: Path) -> float:
    """Time of all steps of a curve: each line tells its last step, and the speed since the line before."""
    batch_size = json.loads((folder / "config.json").read_text(encoding="utf-8"))["batch_size"]
    seconds, before = 0.0, 0
    for text in (folder / "curve.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        seconds += (line["step"] - before) * batch_size / line["clips_per_s"]
        before = line["step"]
    return seconds / 3600


def _score_text(report: Mapping[str, Any]) -> str:
    value, low, high = (100 * x for x in (report["value"], report["interval"]["low"], report["interval"]["high"]))
    return f"{report['scorer']} {value:.1f} [{low:.1f}, {high:.1f}], n {report['n_items']}"


if __name__ == "__main__":
    path = Path("README.md")
    path.write_text(filled_in(path.read_text(encoding="utf-8"), REFERENCE), encoding="utf-8")
