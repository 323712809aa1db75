"""Figures of training, loss over steps, and of controls, scores with the audio taken away or spoilt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.report.kept_tables import controls_source, newest_controls
from harness.report.loading import KeptControls, Results
from harness.report.rendering import file_name
from harness.report.style import COLUMN, PAGE, FigureSpec, drawable, log_scale, looks, panel_grid
from harness.report.training_tables import training_source


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
            data={"models": {kept.name: kept.model for kept in results.training}, "panels": panels},
            sources=tuple(training_source(kept) for kept in results.training),
            draw=_draw_training,
            notes=(
                "Each loss as it was logged: a mean over the steps since the line before. One line a training run: "
                "those of one model are its seeds and rounds.",
            ),
        )
    ]


def _draw_training(figure: Any, data: Mapping[str, Any]) -> None:
    panels = data["panels"]
    n_rows, n_columns = panel_grid(len(panels), most=3)
    all_axes = figure.subplots(n_rows, n_columns, squeeze=False)
    models = data["models"]
    look = looks(models.values())
    handles: dict[str, Any] = {}
    for axes, panel in zip(all_axes.flat, panels, strict=False):
        for name, points in panel["curves"].items():
            steps, values = zip(*points, strict=True)
            every = max(1, len(steps) // 8)
            model = models[name]
            (handles[model],) = axes.plot(steps, values, **look[model].line, markevery=every)
        if all(value > 0 for points in panel["curves"].values() for _, value in points):
            log_scale(axes, y=True)
        axes.set_xlabel("step")
        axes.set_ylabel(panel["loss"].replace("_", " "))
        axes.grid(True, linewidth=0.4, color="0.85")
    for axes in list(all_axes.flat)[len(panels) :]:
        axes.set_visible(False)
    figure.legend(list(handles.values()), list(map(drawable, handles)), loc="outside upper center", ncols=4)


# --- controls --------------------------------------------------------------------------------------------------------


def control_figures(results: Results) -> list[FigureSpec]:
    """One figure a question, scorer and metric; the newest controls of a model count."""
    groups: dict[tuple[str, str, str], dict[str, KeptControls]] = {}
    for (name, asked), kept in newest_controls(results).items():
        for gain in kept.record.gains:
            groups.setdefault((asked, gain.scorer, gain.metric), {})[name] = kept
    return [_controls_figure(*group, models) for group, models in sorted(groups.items())]


def _controls_figure(asked: str, scorer: str, metric: str, models: Mapping[str, KeptControls]) -> FigureSpec:
    values = {name: _condition_values(kept, scorer, metric) for name, kept in models.items()}
    conditions = list(dict.fromkeys(condition for found in values.values() for condition in found))
    return FigureSpec(
        name=file_name("controls", asked, scorer, metric),
        title=f"{asked} with the audio taken away or spoilt, {metric} by {scorer}",
        width=COLUMN,
        height=0.8 + len(conditions) * (0.12 + 0.09 * len(models)),
        data={"metric": metric, "conditions": conditions, "models": values},
        sources=tuple(map(controls_source, models.values())),
        draw=_draw_controls,
        notes=(f"{asked}; labels by {scorer}; 95 % intervals.",),
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
    step = 0.8 / max(1, len(models))
    for number, (name, values) in enumerate(models.items()):
        for condition, (value, low, high) in values.items():
            y = -conditions.index(condition) - step * (number - (len(models) - 1) / 2)
            axes.plot([low, high], [y, y], color=look[name].colour, linewidth=1.0)
            label = drawable(name) if condition == next(iter(values)) else None
            axes.plot([value], [y], linestyle="", label=label, clip_on=False, **look[name].hollow)
    axes.set_yticks([-place for place in range(len(conditions))], [name.replace("_", " ") for name in conditions])
    axes.set_xlabel(f"{data['metric']} (%)")
    axes.set_xlim(left=min([0.0, *(low for found in models.values() for _, low, _ in found.values())]))
    axes.grid(True, axis="x", linewidth=0.4, color="0.85")
    figure.legend(loc="outside upper center", ncols=2)
