"""The table of what encoder and language model change, in scores, in long audio and in cost.

Rows are outcomes; columns the four models, what stands beside them, and the effects of encoder and language model:
differences in points of a percent for scores, ratios for costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from harness.report.accuracy import run_source
from harness.report.columns import METRIC_NAMES, grids
from harness.report.costs import scaling_source
from harness.report.costs_at import COST_NOTE, CostsAt, cost_cells, costs_at
from harness.report.loading import Results
from harness.report.rendering import DASH, ReportTable, Source, file_name
from harness.report.two_by_two import CELLS, EFFECTS, Effect, Estimate, Outcome, TwoByTwo, two_by_twos
from harness.report.weights import Trained, first_rounds_text, trained_weights
from harness.scaling_rows import Measured
from harness.scaling_tables import NOISY
from harness.scoring import is_better_low
from harness.tables import no_width_lines

COSTS_AT_S = (60.0, 600.0)
FLOORS = ("chance", "majority")
YARDSTICK = "yamnet:labels"


def two_by_twos_of(results: Results) -> list[TwoByTwo]:
    """All of a results folder."""
    trained = trained_weights(results.training)
    return two_by_twos(grids(results.runs, trained), trained)


def architecture_tables(every: Iterable[TwoByTwo], results: Results) -> list[ReportTable]:
    """One table a size of models, recipe and scorer."""
    trained = trained_weights(results.training)
    return [_table(found, results, trained) for found in every]


def _table(found: TwoByTwo, results: Results, trained: Mapping[str, Trained]) -> ReportTable:
    models = [f"{cell}:{found.size}" for cell in CELLS]
    costs = {seconds: costs_at(seconds, results.scaling, models) for seconds in COSTS_AT_S}
    measured = [
        _Measured(seconds, each, [each.by_model[model] for model in models])
        for seconds, each in costs.items()
        if each is not None and set(models) <= each.by_model.keys()
    ]
    return ReportTable(
        name=table_name(found),
        title=f"{table_title(found)}; labels by {found.scorer}",
        header=("outcome", "seeds", *CELLS, "floor", YARDSTICK, *(effect.name for effect in EFFECTS)),
        rows=(*map(_score_row, found.outcomes), *(row for each in measured for row in _cost_rows(each))),
        sources=table_sources(found, measured),
        rules=frozenset({len(found.outcomes)} if measured else ()),
        notes=(*_notes(found), *first_rounds_text(_weights(found), trained), *_cost_notes(measured)),
        data=tuple(_long_rows(found, measured)),
    )


def table_name(found: TwoByTwo) -> str:
    """What its files are called."""
    dtype = "" if found.dtype == "float32" else found.dtype
    return file_name("architecture", found.size, dtype, found.recipe, found.scorer)


def table_title(found: TwoByTwo) -> str:
    """What it shows of which models, without the scorer."""
    return f"What encoder and language model change: size {found.size}, {found.dtype}, trained by {found.recipe}"


def table_sources(found: TwoByTwo, measured: Sequence[_Measured] = ()) -> tuple[Source, ...]:
    """The runs of the four models and of those beside them, and the measurements of costs."""
    entries = [entry for o in found.outcomes for entry in (*o.entries, *(each.entry for each in o.beside.values()))]
    runs = {entry.run.place: entry.run for entry in entries}
    costs = {each.costs.kept.place: each.costs.kept for each in measured}
    return (*map(run_source, runs.values()), *map(scaling_source, costs.values()))


def _weights(found: TwoByTwo) -> dict[str, set[str]]:
    """The hashes of each model's seeds."""
    by_model: dict[str, set[str]] = {}
    for entry in (entry for outcome in found.outcomes for entry in outcome.entries):
        model = entry.run.record.model
        by_model.setdefault(f"{model.name}:{model.variant}", set()).add(model.weights_sha256 or "")
    return by_model


# --- notes -----------------------------------------------------------------------------------------------------------


def _notes(found: TwoByTwo) -> list[str]:
    metrics = sorted({outcome.part.column.metric for outcome in found.outcomes})
    lower = [METRIC_NAMES.get(metric, metric) for metric in metrics if is_better_low(metric)]
    reasons = {
        f"No interval of {outcome.part.title}: {outcome.no_interval.rstrip('.')}."
        for outcome in found.outcomes
        if outcome.no_interval
    }
    floors = [name for name in FLOORS if any(name in outcome.beside for outcome in found.outcomes)]
    return [
        "Scores: percent, mean over the seeds that all four models have [95 %]. Effects: points of a percent; of an "
        "encoder the mean over both language models, of a language model over both encoders; interaction: what Mamba "
        "changes with DASS less what it changes with AST.",
        _how_drawn(found),
        *([f"Lower is better: {', '.join(lower)}."] if lower else []),
        *([f"floor: {' or '.join(floors)}, whichever is better."] if floors else []),
        *sorted(reasons),
        *_no_width(found),
        *found.remarks,
    ]


def _how_drawn(found: TwoByTwo) -> str:
    drawn = (
        "Intervals: bootstrap that draws seeds, one fewer than there are and the same for all four models, and "
        "recordings. They are not adjusted for the number of rows."
    )
    if any(len(outcome.seeds) == 1 for outcome in found.outcomes):
        return f"{drawn} Where there is one seed, they say nothing of another training."
    return f"{drawn} Few seeds say little of how far others would lie."


def _no_width(found: TwoByTwo) -> list[str]:
    """How many intervals are of no width: those of a model that is always wrong, mostly."""
    bounds = [each.interval for outcome in found.outcomes for each in (*outcome.cells, *outcome.effects)]
    return [f"{line} They are not shown." for line in no_width_lines([each for each in bounds if each])]


def _cost_notes(measured: Sequence[_Measured]) -> list[str]:
    if not measured:
        return []
    told = [f"{each.costs.conditions}; {each.costs.kept.record.environment.cpu}" for each in measured]
    conditions = "; ".join(dict.fromkeys(told))
    return [
        f"Costs: {conditions}; one measurement, whatever the seed, without intervals. {COST_NOTE} "
        "Effects of costs are ratios: geometric means over the other part, and under 1x is cheaper with DASS, with "
        "Mamba; interaction: Mamba's ratio with DASS over its ratio with AST."
    ]


# --- rows ------------------------------------------------------------------------------------------------------------


def _score_row(outcome: Outcome) -> tuple[str, ...]:
    floors = [outcome.beside[name].value for name in FLOORS if name in outcome.beside]
    better = min if is_better_low(outcome.part.column.metric) else max
    yardstick = outcome.beside.get(YARDSTICK)
    return (
        outcome.part.title,
        str(len(outcome.seeds)),
        *(_estimate_text(cell, "") for cell in outcome.cells),
        _percent(better(floors)) if floors else DASH,
        _percent(yardstick.value) if yardstick is not None else DASH,
        *(_estimate_text(effect, "+") for effect in outcome.effects),
    )


def _estimate_text(estimate: Estimate, sign: str) -> str:
    bounds = estimate.interval
    if bounds is None or bounds.low == bounds.high:
        return _percent(estimate.value, sign)
    return f"{_percent(estimate.value, sign)} [{_percent(bounds.low, sign)}, {_percent(bounds.high, sign)}]"


def _percent(value: float, sign: str = "") -> str:
    """Without a minus before what rounds to 0."""
    return f"{round(100 * value, 1) + 0.0:{sign}.1f}"


@dataclass(frozen=True)
class _Measured:
    """What an answer to `seconds` of audio takes, of each of CELLS."""

    seconds: float
    costs: CostsAt
    of_cells: Sequence[Measured]

    def values(self) -> dict[str, list[float | None]]:
        """Each cost of each of CELLS: 10^9 operations, seconds, 10^6 bytes."""
        return {
            "GFLOPs": [None if m.flops is None else m.flops / 1e9 for m in self.of_cells],
            "time": [m.total.median for m in self.of_cells],
            "peak MB": [_in_millions(m.memory.peak.allocated) for m in self.of_cells],
        }


def _in_millions(n_bytes: int | None) -> float | None:
    return None if n_bytes is None else n_bytes / 1e6


def _cost_rows(measured: _Measured) -> list[tuple[str, ...]]:
    shown = zip(*map(cost_cells, measured.of_cells), strict=True)
    rows = []
    for (name, values), cells in zip(measured.values().items(), shown, strict=True):
        mark = NOISY if any(cell.startswith(NOISY) for cell in cells) else ""
        ratios = [_ratio(effect, values) for effect in EFFECTS]
        told = [DASH if ratio is None else f"{mark}{ratio:.2f}x" for ratio in ratios]
        rows.append((f"{name}, {measured.seconds:g} s", DASH, *cells, DASH, DASH, *told))
    return rows


def _ratio(effect: Effect, values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value]
    if len(known) < len(values):
        return None
    return prod(float(value**weight) for value, weight in zip(known, effect.weights, strict=True))


# --- data ------------------------------------------------------------------------------------------------------------

_LONG_HEADER = (
    *("outcome", "task", "options", "metric", "scorer", "length_s", "n_items", "what", "seed", "value", "low", "high"),
)


def _long_rows(found: TwoByTwo, measured: Iterable[_Measured]) -> Iterable[tuple[Any, ...]]:
    """One line a seed and estimate, one for the mean with its interval, and one a cost and ratio; all unrounded."""
    yield _LONG_HEADER
    for outcome in found.outcomes:
        part, column = outcome.part, outcome.part.column
        length = "" if part.length_s is None else part.length_s
        start = (part.title, column.task, column.options, column.metric, column.scorer, length, outcome.n_items)
        for estimate in (*outcome.cells, *outcome.effects):
            for seed, value in zip(outcome.seeds, estimate.by_seed, strict=True):
                yield (*start, estimate.name, seed, value, "", "")
            bounds = ("", "") if estimate.interval is None else (estimate.interval.low, estimate.interval.high)
            yield (*start, estimate.name, "mean", estimate.value, *bounds)
        for name, other in outcome.beside.items():
            yield (*start, name, "", other.value, "", "")
    for each in measured:
        for cost, values in each.values().items():
            of_cost = (f"{cost}, {each.seconds:g} s", "", "", cost, "", each.seconds, "")
            told = [*zip(CELLS, values, strict=True), *((effect.name, _ratio(effect, values)) for effect in EFFECTS)]
            for name, number in told:
                yield (*of_cost, name, "", "" if number is None else number, "", "")
