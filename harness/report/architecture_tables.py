"""The table of what the architecture alone changes, in scores, in long audio and in cost, and its figure.

Rows are outcomes; columns the four models, what stands beside them, and the effects of encoder and language model:
differences in points of a percent for scores, ratios for costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

from harness.report.accuracy import run_source
from harness.report.columns import grids
from harness.report.costs import scaling_source
from harness.report.costs_at import CostsAt, cost_cells, costs_at
from harness.report.loading import Results
from harness.report.over_seeds import NO_WIDTH
from harness.report.rendering import DASH, ReportTable, Source, file_name
from harness.report.style import PAGE, FigureSpec
from harness.report.two_by_two import CELLS, EFFECTS, Effect, Estimate, Outcome, TwoByTwo, two_by_twos
from harness.report.weights import Trained, shared_first_rounds, trained_weights
from harness.scaling_rows import Measured
from harness.scaling_tables import NOISY

COSTS_AT_S = (60.0, 600.0)
FLOORS = ("chance", "majority")
YARDSTICK = "yamnet:labels"
_COSTS = ("GFLOPs", "time", "peak MB")


def two_by_twos_of(results: Results) -> list[TwoByTwo]:
    """All of a results folder."""
    trained = trained_weights(results.training)
    return two_by_twos(grids(results.runs, trained), trained)


def architecture_tables(every: Iterable[TwoByTwo], results: Results) -> list[ReportTable]:
    """One table a size of models, recipe and scorer."""
    trained = trained_weights(results.training)
    return [_table(found, results, trained) for found in every]


def _table(found: TwoByTwo, results: Results, trained: Mapping[str, Trained]) -> ReportTable:
    models = {f"{cell}:{found.size}" for cell in CELLS}
    costs = [(seconds, costs_at(seconds, results.scaling, models)) for seconds in COSTS_AT_S]
    whole = [(seconds, each) for seconds, each in costs if each is not None and models <= each.by_model.keys()]
    rows = [_score_row(outcome) for outcome in found.outcomes]
    n_scores = len(rows)
    for seconds, each in whole:
        rows += _cost_rows(seconds, each, found.size)
    runs = {entry.run.place: entry.run for outcome in found.outcomes for entry in outcome.entries}
    measured = {each.kept.place: scaling_source(each.kept) for _, each in whole}
    sources: Sequence[Source] = (*map(run_source, runs.values()), *measured.values())
    return ReportTable(
        name=file_name("architecture", found.size, found.recipe, found.scorer),
        title=f"What the architecture alone changes, models of the size {found.size} trained by {found.recipe}; "
        f"labels by {found.scorer}",
        header=("outcome", "seeds", *CELLS, "floor", YARDSTICK, *(effect.name for effect in EFFECTS)),
        rows=tuple(rows),
        sources=tuple(sources),
        rules=frozenset({n_scores} if whole else ()),
        notes=(*_notes(found), *shared_first_rounds(_weights(found), trained), *_cost_notes(whole)),
        data=tuple(_long_rows(found)),
    )


def _notes(found: TwoByTwo) -> list[str]:
    reasons = {
        f"No interval of {outcome.question.title}: {outcome.no_interval.rstrip('.')}."
        for outcome in found.outcomes
        if outcome.no_interval
    }
    return [
        "Scores: percent, mean over seeds [95 %]. Effects: points of a percent; of an encoder the mean over both "
        "language models, of a language model over both encoders; interaction: what Mamba changes with DASS less what "
        "it changes with AST. Intervals: bootstrap that draws seeds, the same for all four models, and recordings. "
        "With few seeds they are too short. They are not adjusted for the number of rows.",
        f"floor: the better of {' and '.join(FLOORS)}.",
        *sorted(reasons),
        *_no_width(found),
    ]


def _no_width(found: TwoByTwo) -> list[str]:
    """How many intervals are of no width: those of a model that is always wrong, mostly."""
    bounds = [each.interval for outcome in found.outcomes for each in (*outcome.cells, *outcome.effects)]
    n_without = sum(interval is not None and interval.low == interval.high for interval in bounds)
    return [NO_WIDTH.format(n_without)] if n_without else []


def _weights(found: TwoByTwo) -> dict[str, set[str]]:
    """The hashes of each model's seeds."""
    by_model: dict[str, set[str]] = {}
    for outcome in found.outcomes:
        for entry in outcome.entries:
            model = entry.run.record.model
            by_model.setdefault(f"{model.name}:{model.variant}", set()).add(model.weights_sha256 or "")
    return by_model


def _cost_notes(whole: Sequence[tuple[float, CostsAt]]) -> list[str]:
    if not whole:
        return []
    conditions = dict.fromkeys(f"{each.conditions}; {each.kept.record.environment.cpu}" for _, each in whole)
    return [
        f"Costs: {'; '.join(conditions)}; one measurement, whatever the seed. GFLOPs by formula. Peak: most that the "
        f"allocator held, weights included, in 10^6 bytes. {NOISY}: the interval of the time is wider than asked. "
        "Effects of costs: geometric means of ratios; under 1x: cheaper with DASS, with Mamba."
    ]


# --- rows ------------------------------------------------------------------------------------------------------------


def _score_row(outcome: Outcome) -> tuple[str, ...]:
    floors = [outcome.beside[name] for name in FLOORS if name in outcome.beside]
    return (
        outcome.question.title,
        str(len(outcome.seeds)),
        *(_estimate_text(cell, "") for cell in outcome.cells),
        _percent(max(floors)) if floors else DASH,
        _percent(outcome.beside[YARDSTICK]) if YARDSTICK in outcome.beside else DASH,
        *(_estimate_text(effect, "+") for effect in outcome.effects),
    )


def _estimate_text(estimate: Estimate, sign: str) -> str:
    bounds = estimate.interval
    shown = "" if bounds is None else f" [{_percent(bounds.low, sign)}, {_percent(bounds.high, sign)}]"
    return _percent(estimate.value, sign) + shown


def _percent(value: float, sign: str = "") -> str:
    """Without a minus before what rounds to 0."""
    return f"{round(100 * value, 1) + 0.0:{sign}.1f}"


def _cost_rows(seconds: float, costs: CostsAt, size: str) -> list[tuple[str, ...]]:
    measured = [costs.by_model[f"{cell}:{size}"] for cell in CELLS]
    shown = zip(*map(cost_cells, measured), strict=True)
    values = zip(*map(_cost_values, measured), strict=True)
    return [
        (f"{name}, {seconds:g} s", DASH, *cells, DASH, DASH, *(_ratio(effect, numbers) for effect in EFFECTS))
        for name, cells, numbers in zip(_COSTS, shown, values, strict=True)
    ]


def _cost_values(measured: Measured) -> tuple[float | None, ...]:
    return measured.flops, measured.total.median, measured.memory.peak.allocated


def _ratio(effect: Effect, values: Sequence[float | None]) -> str:
    known = [value for value in values if value]
    if len(known) < len(values):
        return DASH
    return f"{prod(value**weight for value, weight in zip(known, effect.weights, strict=True)):.2f}x"


# --- data ------------------------------------------------------------------------------------------------------------

_LONG_HEADER = ("outcome", "task", "options", "metric", "scorer", "length_s", "n_items", "what", "seed", "value", "low")


def _long_rows(found: TwoByTwo) -> Iterable[tuple[Any, ...]]:
    """One line a seed and estimate, and one for the mean with its interval; shares in [0, 1] unrounded."""
    yield (*_LONG_HEADER, "high")
    for outcome in found.outcomes:
        question, column = outcome.question, outcome.question.column
        length = "" if question.length_s is None else question.length_s
        start = (question.title, column.task, column.options, column.metric, column.scorer, length, outcome.n_items)
        for estimate in (*outcome.cells, *outcome.effects):
            for seed, value in zip(outcome.seeds, estimate.by_seed, strict=True):
                yield (*start, estimate.name, seed, value, "", "")
            bounds = ("", "") if estimate.interval is None else (estimate.interval.low, estimate.interval.high)
            yield (*start, estimate.name, "mean", estimate.value, *bounds)
        for name, value in outcome.beside.items():
            yield (*start, name, "", value, "", "")


# --- figure ----------------------------------------------------------------------------------------------------------


def architecture_figures(every: Iterable[TwoByTwo]) -> list[FigureSpec]:
    """One figure a table: a panel an effect, with a line an outcome that has intervals."""
    specs = []
    for found in every:
        drawn = [outcome for outcome in found.outcomes if not outcome.no_interval]
        if drawn:
            specs.append(_figure(found, drawn))
    return specs


def _figure(found: TwoByTwo, outcomes: Sequence[Outcome]) -> FigureSpec:
    runs = {entry.run.place: entry.run for outcome in outcomes for entry in outcome.entries}
    lines = [
        {
            "title": outcome.question.title,
            "effects": {
                effect.name: {
                    "mean": 100 * effect.value,
                    "low": 100 * effect.interval.low,
                    "high": 100 * effect.interval.high,
                    "seeds": [100 * value for value in effect.by_seed],
                }
                for effect in outcome.effects
                if effect.interval is not None
            },
        }
        for outcome in outcomes
    ]
    seeds = sorted({len(outcome.seeds) for outcome in outcomes})
    return FigureSpec(
        name=file_name("architecture", found.size, found.recipe, found.scorer),
        title=f"What the architecture alone changes, models of the size {found.size} trained by {found.recipe}",
        width=PAGE,
        height=0.6 + 0.2 * len(lines),
        data={"lines": lines},
        sources=tuple(map(run_source, runs.values())),
        draw=_draw,
        notes=(
            f"Labels by {found.scorer}. Black: mean over {', '.join(map(str, seeds))} seeds with a 95 % interval over "
            "seeds and recordings; grey: each seed. Interaction: what Mamba changes with DASS less what it changes "
            "with AST.",
        ),
    )


def _draw(figure: Any, data: Mapping[str, Any]) -> None:
    lines = data["lines"]
    all_axes = figure.subplots(1, len(EFFECTS), squeeze=False, sharey=True)[0]
    for axes, effect in zip(all_axes, EFFECTS, strict=True):
        for place, line in enumerate(lines):
            told = line["effects"][effect.name]
            axes.plot(told["seeds"], [-place] * len(told["seeds"]), "|", color="0.6", markersize=6)
            axes.plot([told["low"], told["high"]], [-place, -place], color="0.1", linewidth=1.0)
            axes.plot([told["mean"]], [-place], "o", color="0.1")
        axes.axvline(0, color="0.5", linewidth=0.7, linestyle=":")
        axes.set_xlabel(f"{effect.name} (points)")
        axes.grid(True, axis="x", linewidth=0.4, color="0.85")
    all_axes[0].set_yticks([-place for place in range(len(lines))], [line["title"] for line in lines])
