"""Heat maps of long audio: the share of right answers over length and place, split by signal-to-noise ratio.

A run has one when its items carry `length_s` and `depth` (0 at the start of the clip, 1 at its end), as those of the
task `needle` do. Computed from the answers alone, by a scorer that needs no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.report.accuracy import run_source
from harness.report.loading import Results
from harness.report.over_seeds import LIGHT_SCORERS
from harness.report.rendering import file_name
from harness.report.style import PAGE, SURFACE, FigureSpec, drawable, label_edges
from harness.report.weights import one_set_of_weights, row_names, trained_weights
from harness.results_frame import KeptRun
from harness.scores import decided_items, run_facts
from harness.tables import task_text

_MOST_COLUMNS = 4
_READABLE_CELLS = 9


def needle_figures(results: Results) -> tuple[list[FigureSpec], list[str]]:
    """One figure a question and scorer, with a panel a model and ratio; and why some runs have none."""
    trained = trained_weights(results.training)
    shown = one_set_of_weights(results.runs, trained)
    names = row_names(shown, trained)
    questions: dict[tuple[str, str], dict[str, KeptRun]] = {}
    remarks = []
    for run in shown:
        if not _has_places(run):
            continue
        scorers = [name for name in LIGHT_SCORERS if any(row.scorer == name for row in run.scores)]
        if not scorers:
            remarks.append(f"{run.place}: no heat map, as it was scored by neither of {', '.join(LIGHT_SCORERS)}.")
            continue
        question = f"{task_text(run.record)} {run.record.task.item_set_sha256[:8]}"
        for scorer in scorers:
            # Runs come oldest first within a model: the newest of a name stays.
            questions.setdefault((question, scorer), {})[names[run.place]] = run
    return [_figure(task, scorer, runs) for (task, scorer), runs in sorted(questions.items())], remarks


def _has_places(run: KeptRun) -> bool:
    named = all({"length_s", "depth"} <= set(p.metadata) for p in run.predictions)
    return bool(run.predictions) and named and run.record.task.kind == "classification"


def _figure(task: str, scorer: str, runs: Mapping[str, KeptRun]) -> FigureSpec:
    panels = [panel for name, run in runs.items() for panel in _panels(name, run, scorer)]
    lengths, depths = (sorted({cell[n] for panel in panels for cell in panel["cells"]}) for n in (0, 1))
    n_columns = min(_MOST_COLUMNS, len(panels))
    return FigureSpec(
        name=file_name("needle", task, scorer),
        title=f"Right answers over length and place, {task}, labels by {scorer}",
        width=PAGE,
        height=(0.9 + 0.18 * len(depths)) * -(-len(panels) // n_columns) + 0.3,
        data={"lengths_s": lengths, "depths": depths, "panels": panels},
        sources=tuple(map(run_source, runs.values())),
        draw=_draw,
        notes=(
            f"{task}; labels by {scorer}. Numbers: percent right; failed items count as wrong. Depth 0: the start.",
        ),
    )


def _panels(name: str, run: KeptRun, scorer: str) -> list[dict[str, Any]]:
    """One panel a signal-to-noise ratio; a cell is (length_s, depth, share, n)."""
    _, scored = decided_items(run.predictions, run.record.task.labels, scorer, run_facts(run.record))
    right = {item.item_id: item.decision.label in item.references for item in scored}
    groups: dict[Any, dict[tuple[float, float], list[bool]]] = {}
    for p in run.predictions:
        place = (float(p.metadata["length_s"] or 0), float(p.metadata["depth"] or 0))
        groups.setdefault(p.metadata.get("snr_db"), {}).setdefault(place, []).append(right[p.item_id])
    ratios = sorted(groups, key=lambda ratio: (ratio is None, ratio if isinstance(ratio, (int, float)) else 0))
    return [
        {
            "title": name
            if ratio is None
            else f"{name}, {ratio:g} dB"
            if isinstance(ratio, float)
            else f"{name}, {ratio}",
            "cells": [
                [*place, sum(rights) / len(rights), len(rights)] for place, rights in sorted(groups[ratio].items())
            ],
        }
        for ratio in ratios
    ]


def surface(cells: Sequence[Sequence[float]], lengths: Sequence[float], depths: Sequence[float]) -> list[list[float]]:
    """Shares as rows of depth and columns of length, NaN where nothing was asked."""
    shares = {(cell[0], cell[1]): cell[2] for cell in cells}
    return [[shares.get((length, depth), float("nan")) for length in lengths] for depth in depths]


def _draw(figure: Any, data: Mapping[str, Any]) -> None:
    panels, lengths, depths = data["panels"], data["lengths_s"], data["depths"]
    n_columns = min(_MOST_COLUMNS, len(panels))
    all_axes = figure.subplots(-(-len(panels) // n_columns), n_columns, squeeze=False, sharex=True, sharey=True)
    image = None
    for axes, panel in zip(all_axes.flat, panels, strict=False):
        shares = surface(panel["cells"], lengths, depths)
        image = axes.imshow(shares, cmap=SURFACE, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_title(drawable(panel["title"]))
        axes.set_xticks(range(len(lengths)), [f"{length:g}" for length in lengths], rotation=60)
        axes.set_yticks(range(len(depths)), [f"{depth:g}" for depth in depths])
        if len(lengths) <= _READABLE_CELLS:
            _write_shares(axes, shares)
    label_edges(all_axes, len(panels), "audio (s)", "depth")
    if image is not None:
        figure.colorbar(image, ax=all_axes, label="share right", shrink=0.8)


def _write_shares(axes: Any, shares: Sequence[Sequence[float]]) -> None:
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            if share == share:
                colour = "black" if share > 0.5 else "white"
                axes.text(x, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=5, color=colour)
