"""`report --verify`: do the files that lie there follow from the records, cell by cell?

Scores and paired tests are first computed anew from the answers. From these and from the records, every cell of every
table and every number of every figure is made again by the program that made them first, and set beside its file: that
finds what was changed, not a mistake of the program. Pictures are checked by the hash that their sidecar holds: how
they look depends on the version of matplotlib, the numbers that they draw do not.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.hashing import file_sha256
from harness.report.differing import differing
from harness.report.loading import Results
from harness.report.rederiving import rederive
from harness.report.rendering import ReportTable
from harness.report.writing import (
    FIGURES,
    TABLES,
    Report,
    figure_facts,
    load_sidecar,
    make_report,
    sidecars,
    stale_files,
    table_facts,
    table_texts,
)


@dataclass(frozen=True)
class Verification:
    """What was checked, every difference, and what could not be computed anew: one line each."""

    n_tables: int
    n_cells: int
    n_figures: int
    n_values: int
    differences: tuple[str, ...]
    not_rederived: tuple[str, ...]


def verify_report(results: Results, out: Path) -> Verification:
    """Set the tables and figures of a folder beside what follows from the records.

    Args:
        results: what was read.
        out: the folder that the report was written to.

    Raises:
        RecordError: a sidecar is damaged.
    """
    made_anew = rederive(results)
    report = make_report(made_anew.results)
    differences = [*made_anew.differences]
    n_cells = 0
    for table in report.tables:
        n_cells += sum(map(len, csv.reader(io.StringIO(table_texts(table)[f"{table.name}.csv"]))))
        differences += _table_differences(table, out / TABLES)
    for spec in report.figures:
        differences += _sidecar_differences(out / FIGURES / f"{spec.name}.json", figure_facts(spec))
    differences += [f"{path}: nothing in the records makes it" for path in _extra(report, out)]
    return Verification(
        len(report.tables),
        n_cells,
        len(report.figures),
        made_anew.n_values,
        tuple(differences),
        made_anew.not_rederived,
    )


def _table_differences(table: ReportTable, folder: Path) -> Iterator[str]:
    for name, text in table_texts(table).items():
        path = folder / name
        if not path.exists():
            yield f"{path}: missing"
        elif path.suffix == ".csv":
            yield from _cell_differences(path, text)
        elif (stands := path.read_text(encoding="utf-8")) != text:
            yield _line_difference(path, stands, text)
    yield from _sidecar_differences(folder / f"{table.name}.json", table_facts(table))


def _cell_differences(path: Path, text: str) -> Iterator[str]:
    """Cells of a CSV file that differ, numbers by more than one part in 10^9."""
    with path.open(encoding="utf-8", newline="") as stream:
        stands = list(csv.reader(stream))
    made = list(csv.reader(io.StringIO(text)))
    if len(stands) != len(made):
        yield f"{path}: {len(stands)} rows stand there, {len(made)} follow from the records"
        return
    header = made[0] if made else []
    for number, (one, other) in enumerate(zip(stands, made, strict=True), start=1):
        if len(one) != len(other):
            yield f"{path} row {number}: {len(one)} cells stand there, {len(other)} follow from the records"
            continue
        for column, (cell, expected) in zip(header, zip(one, other, strict=True), strict=False):
            for difference in differing(_value(cell), _value(expected), column):
                yield f"{path} row {number} ({other[0]}), {difference}"


def _value(cell: str) -> Any:
    try:
        return float(cell)
    except ValueError:
        return cell


def _line_difference(path: Path, stands: str, made: str) -> str:
    pairs = list(zip(stands.splitlines(), made.splitlines(), strict=False))
    number = next((n for n, (one, other) in enumerate(pairs, start=1) if one != other), len(pairs) + 1)
    return f"{path} line {number} is not what follows from the records"


def _sidecar_differences(path: Path, facts: dict[str, Any]) -> Iterator[str]:
    if not path.exists():
        yield f"{path}: missing"
        return
    stands = load_sidecar(path)
    hashes = stands.pop("files")
    if not hashes:
        yield f"{path}: names no file that it stands beside"
    yield from (f"{path}: {text}" for text in list(differing(stands, facts))[:3])
    for name, sha256 in hashes.items():
        file = path.parent / name
        if not file.exists():
            yield f"{file}: missing"
        elif file_sha256(file) != sha256:
            yield f"{file}: changed since it was written"


def _extra(report: Report, out: Path) -> list[Path]:
    """Files of an earlier report that this one would not write."""
    found = []
    for kind, names in ((TABLES, [t.name for t in report.tables]), (FIGURES, [f.name for f in report.figures])):
        known = {f"{name}.json" for name in names}
        current = {path.name for path, _ in sidecars(out / kind) if path.name in known}
        current |= {name for path, facts in sidecars(out / kind) if path.name in known for name in facts["files"]}
        found += stale_files(out / kind, current)
    return found
