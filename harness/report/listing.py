"""`list results`: one line for everything that a results folder holds."""

from __future__ import annotations

from pathlib import Path

from harness.frontier_table import model_name
from harness.report.loading import load_all
from harness.results_frame import KeptRun
from harness.tables import Table, model_text, score_text, task_text


def results_table(folder: Path) -> tuple[Table, list[str]]:
    """What was measured, of which models and where it lies; and what cannot be read, one line each.

    Raises:
        UsageError: there is no such folder.
    """
    kept = load_all(folder)
    rows = [("run", model_text(run.record), task_text(run.record), _scores(run), run.place) for run in kept.runs]
    for controls in kept.controls:
        task = controls.record.task
        rows.append(("controls", controls.record.model.name, f"{task.name} ({task.origin})", "", controls.place))
    rows += [("compare", f"{c.record.first}, {c.record.second}", "", "", c.place) for c in kept.comparisons]
    for scaling in kept.scaling:
        names = dict.fromkeys(point.key.full_name for point in scaling.points)
        rows.append(("scaling", ", ".join(names), "", f"{len(scaling.points)} points", scaling.place))
    for frontier in kept.frontiers:
        rows.append(("frontier", ", ".join(map(model_name, frontier.record.rows)), "", "", frontier.place))
    rows += [
        ("training", training.name, "", f"{len(training.curve)} lines", training.place) for training in kept.training
    ]
    return Table(("kind", "model", "task", "folder", "found"), tuple((*row[:3], row[4], row[3]) for row in rows)), list(
        kept.problems
    )


def _scores(run: KeptRun) -> str:
    return "; ".join(f"{row.metric} {score_text(row)} by {row.scorer}" for row in run.scores)
