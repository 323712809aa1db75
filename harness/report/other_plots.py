"""Figures of training, loss over steps, and of controls, scores with the audio taken away or spoilt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.report.kept_tables import controls_source, training_source
from harness.report.loading import KeptControls, Results
from harness.report.rendering import file_name
from harness.report.style import COLUMN, PAGE, FigureSpec, drawable, log_scale, looks, panel_grid


def other_figures(results: Results) -> list[FigureSpec]:
    """The figure of all training curves, and one of controls a task and scorer."""
    return [*training_figure(results), *control_figures(results)]


# --- training --------------------------------------------------------------------------------------------------------


def training_figure(results: Results) -> list[FigureSpec]:
    """A panel a loss: each training run's curve. None where there are no curves."""
    losses = sorted({key for kept in results.training for line in kept.curve for key in line if key.endswith("loss")})
    panels = []
    for loss in losses:
        curves = {
            kept.name: [[line["step"], line[loss]] for line in kept.curve if loss in line] for kept in results.training
        }
        panels.append({"loss": loss, "curves": {name: points for name, points in curves.items() if points}})
    if not panels:
        return []
    _, n_columns = panel_grid(len(panels), most=3)
    return [
        FigureSpec(
            name="training",
            title="Training curves",
            width=PAGE if n_columns > 1 else COLUMN,
            height=2.4 * -(-len(panels) // n_columns) + 0.3,
            data={"runs": [kept.name for kept in results.training], "panels": panels},
            sources=tuple(training_source(kept) for kept in results.training),
            draw=_draw_training,
            notes=("Each loss as it was logged: a mean over the steps since the line before.",),
        )
    ]


def _draw_training(figure: Any, data: Mapping[str, Any]) -> None:
    panels = data["panels"]
    n_rows, n_columns = panel_grid(len(panels), most=3)
    all_axes = figure.subplots(n_rows, n_columns, squeeze=False)
    look = looks(data["runs"])
    handles: dict[str, Any] = {}
    for axes, panel in zip(all_axes.flat, panels, strict=False):
        for name, points in panel["curves"].items():
            steps, values = zip(*points, strict=True)
            every = max(1, len(steps) // 8)
            (handles[name],) = axes.plot(steps, values, **look[name].line, markevery=every)
        if all(value > 0 for points in panel["curves"].values() for _, value in points):
            log_scale(axes, y=True)
        axes.set_xlabel("step")
        axes.set_ylabel(panel["loss"].replace("_", " "))
        axes.grid(True, linewidth=0.4, color="0.85")
    for axes in list(all_axes.flat)[len(panels) :]:
        axes.set_visible(False)
    names = [name for name in data["runs"] if name in handles]
    figure.legend([handles[name] for name in names], list(map(drawable, names)), loc="outside upper center", ncols=3)


# --- controls --------------------------------------------------------------------------------------------------------


def control_figures(results: Results) -> list[FigureSpec]:
    """One figure a task, its origin, scorer and metric; the newest controls of a model count."""
    groups: dict[tuple[str, str, str, str], dict[str, KeptControls]] = {}
    for kept in sorted(results.controls, key=lambda kept: kept.record.started_utc):
        model, task = kept.record.model, kept.record.task
        name = f"{model.name}:{model.variant}" if model.variant else model.name
        for gain in kept.record.gains:
            groups.setdefault((task.name, task.origin, gain.scorer, gain.metric), {})[name] = kept
    return [_controls_figure(*group, models) for group, models in sorted(groups.items())]


def _controls_figure(
    task: str, origin: str, scorer: str, metric: str, models: Mapping[str, KeptControls]
) -> FigureSpec:
    values = {name: _condition_values(kept, scorer, metric) for name, kept in models.items()}
    conditions = list(dict.fromkeys(condition for found in values.values() for condition in found))
    return FigureSpec(
        name=file_name("controls", origin, task, scorer, metric),
        title=f"{task} ({origin}) with the audio taken away or spoilt, {metric} by {scorer}",
        width=COLUMN,
        height=0.8 + 0.28 * len(conditions) + 0.1 * len(models),
        data={"metric": metric, "conditions": conditions, "models": values},
        sources=tuple(map(controls_source, models.values())),
        draw=_draw_controls,
        notes=(f"{task} ({origin}); labels by {scorer}; 95 % intervals.",),
    )


def _condition_values(kept: KeptControls, scorer: str, metric: str) -> dict[str, list[float]]:
    """Value, low and high in percent by condition."""
    return {
        row.name: [100 * score.value, 100 * score.interval.low, 100 * score.interval.high]
        for row in kept.record.conditions
        for score in row.scores
        if (score.scorer, score.metric) == (scorer, metric) and score.value is not None and score.interval is not None
    }


def _draw_controls(figure: Any, data: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    conditions, models = data["conditions"], data["models"]
    look = looks(models)
    step = 0.7 / max(1, len(models))
    for number, (name, values) in enumerate(models.items()):
        for condition, (value, low, high) in values.items():
            y = -conditions.index(condition) - step * (number - (len(models) - 1) / 2)
            axes.plot([low, high], [y, y], color=look[name].colour, linewidth=1.0)
            label = drawable(name) if condition == next(iter(values)) else None
            axes.plot([value], [y], color=look[name].colour, marker=look[name].marker, linestyle="", label=label)
    axes.set_yticks([-place for place in range(len(conditions))], [name.replace("_", " ") for name in conditions])
    axes.set_xlabel(f"{data['metric']} (%)")
    axes.set_xlim(left=min([0.0, *(low for found in models.values() for _, low, _ in found.values())]))
    axes.grid(True, axis="x", linewidth=0.4, color="0.85")
    figure.legend(loc="outside upper center", ncols=2)
