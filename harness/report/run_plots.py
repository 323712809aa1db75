"""Figures of runs: scores with their intervals, scores against cost, and which class was taken for which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.report.accuracy import run_source
from harness.report.columns import METRIC_NAMES, Column, Entry, Grid, grids
from harness.report.costs import SHORT_S, machine_text, seconds_a_clip
from harness.report.loading import Results
from harness.report.rendering import file_name
from harness.report.style import COLUMN, PAGE, FigureSpec, drawable, label_edges, log_scale, looks, panel_grid, wrapped
from harness.report.weights import one_set_of_weights, trained_weights
from harness.scoring import is_better_low
from harness.tables import model_text

# Of which scorer a confusion is drawn where a task was scored by several.
_SCORERS = ("exact", "loglik", "embed")
_MOST_NAMED_CLASSES = 20
_CONFUSION = "Greys"
_NO_LABEL = "no label"
_ROW_HEIGHT = 1.9
_BETTER = "Up and left is better. Line: the best score at each cost."


def run_figures(results: Results) -> list[FigureSpec]:
    """The figures of every accuracy table but those of prompts that are not the first, with one seed of each model."""
    trained = trained_weights(results.training)
    shown = grids(one_set_of_weights(results.runs, trained), trained)
    drawn = [grid for grid in shown if not grid.setting.asked.startswith("prompt")]
    specs = []
    for grid in drawn:
        specs.append(accuracy_figure(grid))
        specs += pareto_figures(grid, results)
    return specs + confusion_figures(drawn)


def _name(start: str, grid: Grid, *ends: str) -> str:
    return file_name(start, grid.setting.origin, grid.setting.asked, grid.scorer, *ends)


def _sources(entries: Sequence[Entry]) -> tuple[Any, ...]:
    return tuple(run_source(run) for run in {entry.run.place: entry.run for entry in entries}.values())


# --- scores ----------------------------------------------------------------------------------------------------------


def accuracy_figure(grid: Grid) -> FigureSpec:
    """One panel a column: each model's score with its interval."""
    panels = []
    for column, title in zip(grid.columns, grid.titles, strict=True):
        entries = {name: grid.cells[name, column].score for name in grid.rows if (name, column) in grid.cells}
        values = {
            name: [100 * s.value, 100 * s.interval.low, 100 * s.interval.high]
            for name, s in entries.items()
            if s.value is not None and s.interval is not None
        }
        panels.append({"title": title, "metric": column.metric, "values": values})
    n_rows, n_columns = panel_grid(len(panels))
    return FigureSpec(
        name=_name("accuracy", grid),
        title=f"Scores with 95 % intervals, {grid.setting}, labels by {grid.scorer}",
        width=COLUMN if n_columns == 1 else PAGE,
        height=n_rows * (0.6 + 0.17 * len(grid.rows)),
        data={"models": list(grid.rows), "scorer": grid.scorer, "panels": panels},
        sources=_sources(list(grid.cells.values())),
        draw=_draw_accuracy,
        notes=(f"{grid.setting}; labels by {grid.scorer}; 95 % bootstrap intervals over recordings.",),
    )


def _draw_accuracy(figure: Any, data: Mapping[str, Any]) -> None:
    panels, models = data["panels"], data["models"]
    n_rows, n_columns = panel_grid(len(panels))
    all_axes = list(figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).flat)
    look = looks(models)
    for axes, panel in zip(all_axes, panels, strict=False):
        for name, (value, low, high) in panel["values"].items():
            y = -models.index(name)
            axes.plot([low, high], [y, y], color=look[name].colour, linewidth=1.4, solid_capstyle="butt")
            axes.plot([value], [y], color=look[name].colour, marker=look[name].marker, clip_on=False)
        axes.set_yticks([-place for place in range(len(models))], [drawable(name) for name in models])
        axes.set_ylim(-len(models) + 0.4, 0.6)
        axes.set_xlim(left=min([0.0, *(low for _, low, _ in panel["values"].values())]))
        axes.set_title(wrapped(panel["title"], 0.75 * figure.get_size_inches()[0] / n_columns))
        axes.set_xlabel(f"{METRIC_NAMES.get(panel['metric'], panel['metric'])} (%)")
        axes.grid(True, axis="x", linewidth=0.4, color="0.85")
    for axes in all_axes[len(panels) :]:
        axes.set_visible(False)


# --- scores against cost ---------------------------------------------------------------------------------------------

Cost = Callable[[Entry], float | None]


def pareto_figures(grid: Grid, results: Results) -> list[FigureSpec]:
    """Score against time, parameters, and operations where they are known: a row of panels a column of the table."""
    costs = _costs(grid, results)
    rows: list[dict[str, Any]] = [
        {"title": title, "metric": column.metric, "panels": [_panel(grid, column, c) for c in costs]}
        for column, title in zip(grid.columns, grid.titles, strict=True)
        if not is_better_low(column.metric)
    ]
    rows = [row for row in rows if any(panel["points"] for panel in row["panels"])]
    machines = sorted({machine_text(entry.run) for entry in grid.cells.values()})
    if not rows:
        return []
    told = f"Times of runs on: {_usual_machine(grid)}; those of {len(machines) - 1} other machines are not drawn."
    return [
        FigureSpec(
            name=_name("pareto", grid),
            title=f"Score against cost, {grid.setting}, labels by {grid.scorer}",
            width=PAGE if len(costs) > 1 else COLUMN,
            height=_ROW_HEIGHT * len(rows) + 0.3,
            data={"models": list(grid.rows), "costs": [name for name, _ in costs], "rows": rows},
            sources=_sources(list(grid.cells.values())),
            draw=_draw_pareto,
            notes=(
                f"{_BETTER} Dotted: models without parameters. {grid.setting}; labels by {grid.scorer}.",
                told if len(machines) > 1 else f"Times of runs on: {machines[0]}.",
            ),
        )
    ]


def _panel(grid: Grid, column: Column, cost: tuple[str, Cost]) -> dict[str, Any]:
    """Points by model, and the floors: what has no cost on a logarithmic axis."""
    points: dict[str, list[float]] = {}
    floors: dict[str, float] = {}
    for name in grid.rows:
        entry = grid.cells.get((name, column))
        if entry is None or entry.score.value is None:
            continue
        if not sum(entry.run.record.model.parameters.values()):
            floors[name] = 100 * entry.score.value
        elif (x := cost[1](entry)) is not None and x > 0:
            points[name] = [x, 100 * entry.score.value]
    return {"cost": cost[0], "points": points, "floors": floors}


def _costs(grid: Grid, results: Results) -> list[tuple[str, Cost]]:
    usual = _usual_machine(grid)
    flops = _operations(results)
    costs: list[tuple[str, Cost]] = [
        ("seconds a clip", lambda entry: seconds_a_clip(entry.run) if machine_text(entry.run) == usual else None),
        ("parameters", lambda entry: float(sum(entry.run.record.model.parameters.values()))),
    ]
    if any(model_text(entry.run.record) in flops for entry in grid.cells.values()):
        costs.append((f"FLOPs at {SHORT_S:g} s", lambda entry: flops.get(model_text(entry.run.record))))
    return costs


def _usual_machine(grid: Grid) -> str:
    """The machine of most runs: seconds of different machines have no common axis."""
    machines = [machine_text(entry.run) for entry in grid.cells.values()]
    return max(sorted(set(machines)), key=machines.count)


def _operations(results: Results) -> dict[str, float]:
    """FLOPs of one answer to a clip of 10 s by model; formulas give the same on every machine."""
    return {
        point.key.full_name: float(point.measured.flops)
        for kept in results.scaling
        for point in kept.points
        if point.measured is not None
        and point.measured.flops is not None
        and (point.key.seconds, point.key.batch_size, point.key.step) == (SHORT_S, 1, "infer")
    }


def _draw_pareto(figure: Any, data: Mapping[str, Any]) -> None:
    rows, costs = data["rows"], data["costs"]
    all_axes = figure.subplots(len(rows), len(costs), squeeze=False, sharey="row")
    look = looks(data["models"])
    handles: dict[str, Any] = {}
    for axes_row, row in zip(all_axes, rows, strict=True):
        for axes, panel in zip(axes_row, row["panels"], strict=True):
            for name, (x, y) in panel["points"].items():
                (handles[name],) = axes.plot([x], [y], linestyle="", **look[name].hollow)
            for value in panel["floors"].values():
                axes.axhline(value, color="0.5", linewidth=0.7, linestyle=":")
            if panel["points"]:
                front = pareto_front(list(panel["points"].values()))
                axes.step(*zip(*front, strict=True), where="post", color="0.3", linewidth=0.7, zorder=0)
            axes.margins(0.12)
            if panel["points"]:
                log_scale(axes, x=True)
            axes.set_xlabel(panel["cost"])
            axes.grid(True, linewidth=0.4, color="0.85")
        axes_row[0].set_ylabel(wrapped(f"{row['title']} (%)", _ROW_HEIGHT))
    names = [name for name in data["models"] if name in handles]
    figure.legend([handles[name] for name in names], list(map(drawable, names)), loc="outside upper center", ncols=4)


def pareto_front(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Points that no other is both cheaper and better than, by rising cost.

    Args:
        points: pairs of cost and score.
    """
    front: list[tuple[float, float]] = []
    for cost, score in sorted((p[0], -p[1]) for p in points):
        if not front or -score > front[-1][1]:
            front.append((cost, -score))
    return front


# --- confusions ------------------------------------------------------------------------------------------------------


def confusion_figures(all_grids: Sequence[Grid]) -> list[FigureSpec]:
    """One figure a task and setting: of the scorer that the most models were scored by."""
    by_question: dict[tuple[str, ...], list[tuple[Grid, Column]]] = {}
    for grid in all_grids:
        for column in grid.columns:
            question = (str(grid.setting), column.task, column.options, column.item_set_sha256, column.prompt_sha256)
            if any(grid.cells[place].score.confusion for place in grid.cells if place[1] == column):
                by_question.setdefault(question, []).append((grid, column))
    return [_confusion(*max(found, key=_preference)) for found in by_question.values()]


def _preference(found: tuple[Grid, Column]) -> tuple[int, int, str]:
    grid, column = found
    n_models = sum(place[1] == column for place in grid.cells)
    known = _SCORERS.index(grid.scorer) if grid.scorer in _SCORERS else len(_SCORERS)
    return n_models, -known, grid.scorer


def _confusion(grid: Grid, column: Column) -> FigureSpec:
    entries = {name: grid.cells[name, column] for name in grid.rows if (name, column) in grid.cells}
    labels = [row.name for row in next(iter(entries.values())).run.record.task.labels]
    n_rows, n_columns = panel_grid(len(entries))
    part = f"n{column.n_items}" if column.n_items != column.n_declared else ""
    title = grid.titles[grid.columns.index(column)]
    unique = column.distinction if title != str(column) else ""
    return FigureSpec(
        name=_name("confusion", grid, column.task, column.options, part, unique),
        title=f"Which class was taken for which: {title}, {grid.setting}, labels by {grid.scorer}",
        width=PAGE,
        height=(1.8 if len(labels) > _MOST_NAMED_CLASSES else 2.5) * n_rows + 0.3,
        data={
            "task": title,
            "labels": labels,
            "models": {name: entry.score.confusion for name, entry in entries.items()},
        },
        sources=_sources(list(entries.values())),
        draw=_draw_confusion,
        notes=(
            f"{title}; {grid.setting}; labels by {grid.scorer}. Each row is a class, in the order of the task; "
            f"darkness: share of its clips. Last column: {_NO_LABEL} or failed.",
        ),
    )


def confusion_shares(confusion: Mapping[str, Mapping[str, int]], labels: Sequence[str]) -> list[list[float]]:
    """One row a class that is a reference: the share of its clips taken for each class, and for none at the end."""
    shares = []
    for reference in labels:
        counts = confusion.get(reference, {})
        total = sum(counts.values())
        known = [counts.get(label, 0) for label in labels]
        row = [*known, total - sum(known)]
        shares.append([n / total if total else 0.0 for n in row])
    return shares


def _draw_confusion(figure: Any, data: Mapping[str, Any]) -> None:
    models, labels = data["models"], data["labels"]
    n_rows, n_columns = panel_grid(len(models))
    all_axes = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True, sharex=True)
    image = None
    for axes, (name, confusion) in zip(all_axes.flat, models.items(), strict=False):
        shares = confusion_shares(confusion, labels)
        image = axes.imshow(shares, cmap=_CONFUSION, vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(drawable(name))
        if len(labels) <= _MOST_NAMED_CLASSES:
            axes.set_xticks(range(len(labels) + 1), [*map(drawable, labels), _NO_LABEL], rotation=90)
            axes.set_yticks(range(len(labels)), list(map(drawable, labels)))
    label_edges(all_axes, len(models), "taken for", "class")
    if image is not None:
        figure.colorbar(image, ax=all_axes, label="share of the class", shrink=0.8)
