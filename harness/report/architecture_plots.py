"""The figure of what encoder and language model change: a panel an effect, a line an outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.report.architecture_tables import table_name, table_sources, table_title
from harness.report.style import PAGE, FigureSpec
from harness.report.two_by_two import EFFECTS, Outcome, TwoByTwo


def architecture_figures(every: Iterable[TwoByTwo]) -> list[FigureSpec]:
    """One figure a table: a panel an effect, with a line an outcome that has intervals."""
    specs = []
    for found in every:
        drawn = [outcome for outcome in found.outcomes if not outcome.no_interval]
        if drawn:
            specs.append(_figure(found, drawn))
    return specs


def _figure(found: TwoByTwo, outcomes: Sequence[Outcome]) -> FigureSpec:
    seeds = sorted({len(outcome.seeds) for outcome in outcomes})
    return FigureSpec(
        name=table_name(found),
        title=table_title(found),
        width=PAGE,
        height=0.6 + 0.2 * len(outcomes),
        data={"lines": [_line(outcome) for outcome in outcomes]},
        sources=table_sources(replace(found, outcomes=tuple(outcomes))),
        draw=_draw,
        notes=(
            f"Labels by {found.scorer}. Black: mean over {' or '.join(map(str, seeds))} "
            f"{'seed' if seeds == [1] else 'seeds'} with a 95 % interval; grey: each seed. "
            "Interaction: what Mamba changes with DASS less what it changes with AST.",
        ),
    )


def _line(outcome: Outcome) -> dict[str, Any]:
    """What is drawn of an outcome, in points of a percent."""
    drawn: dict[str, dict[str, Any]] = {}
    for effect in outcome.effects:
        assert effect.interval is not None, "only outcomes with intervals are drawn"
        low, high = effect.interval.low, effect.interval.high
        seeds = [100 * value for value in effect.by_seed]
        drawn[effect.name] = {"mean": 100 * effect.value, "low": 100 * low, "high": 100 * high, "seeds": seeds}
    return {"title": outcome.part.title, "effects": drawn}


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
        axes.set_title(effect.name)
        axes.set_xlabel("points of a percent")
        axes.grid(True, axis="x", linewidth=0.4, color="0.85")
    all_axes[0].set_yticks([-place for place in range(len(lines))], [line["title"] for line in lines])
