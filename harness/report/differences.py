"""`report --diff A B`: two results folders, score by score: what changed, what is new, and what is gone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.results_frame import read_runs, score_facts
from harness.tables import NOT_AVAILABLE, Table

_KEY = ("model", "model_options", "asked", "scorer", "metric")
_Scores = Mapping[tuple[str, ...], Mapping[str, Any]]


def difference_table(first: Path, second: Path) -> tuple[Table, list[str]]:
    """One row a score of either folder, the newest of each, and what could not be read.

    `answers` tells whether the answers themselves are the same, "items" that other items were asked.

    Raises:
        UsageError: there is no such folder.
    """
    (ours, lines), (theirs, more) = _newest(first), _newest(second)
    header = ("model", "options", "task", "scorer", "metric", "A %", "B %", "B - A", "answers")
    keys = sorted(set(ours) | set(theirs))
    rows = tuple((*key, *_cells(ours.get(key), theirs.get(key))) for key in keys)
    same = sum(row[-1] == "same" for row in rows)
    counted = f"A: {first}, B: {second}. {len(rows)} scores: {same} of the same answers, {len(rows) - same} others."
    return Table(header, rows), [counted, *lines, *more]


def _newest(results: Path) -> tuple[_Scores, list[str]]:
    runs, problems = read_runs(results)
    facts = [row for run in sorted(runs, key=lambda run: (run.started_utc, run.place)) for row in score_facts(run)]
    return {tuple(str(row[name]) for name in _KEY): row for row in facts}, problems


def _cells(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> tuple[str, str, str, str]:
    if one is None or other is None:
        return _percent(one), _percent(other), "-", "only in B" if one is None else "only in A"
    if one["value"] is None or other["value"] is None:
        return _percent(one), _percent(other), "-", _answers(one, other)
    return _percent(one), _percent(other), f"{100 * (other['value'] - one['value']):+.1f}", _answers(one, other)


def _percent(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return NOT_AVAILABLE if row["value"] is None else f"{100 * row['value']:.1f}"


def _answers(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if one["item_set_sha256"] != other["item_set_sha256"]:
        return "other items"
    return "same" if one["predictions_sha256"] == other["predictions_sha256"] else "other"
