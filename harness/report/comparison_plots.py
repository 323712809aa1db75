"""The figure of paired tests: each difference with its interval, a panel a metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.compare import TIED
from harness.report.kept_tables import comparison_source, newest_comparisons
from harness.report.loading import Results
from harness.report.style import PAGE, FigureSpec, drawable

_LINE_HEIGHT = 0.17


def comparison_figures(results: Results) -> list[FigureSpec]:
    """One figure, where a pair has a difference."""
    panels: dict[str, list[list[Any]]] = {}
    sources = {}
    for kept, rows in newest_comparisons(results.comparisons):
        for row in rows:
            if row.difference is not None and row.interval is not None:
                named = f"{kept.record.second} less {kept.record.first}: {row.task}, {row.scorer}"
                values = [100 * x for x in (row.difference, row.interval.low, row.interval.high)]
                panels.setdefault(row.metric, []).append([named, *values, row.better == TIED])
                sources[kept.place] = comparison_source(kept)
    if not panels:
        return []
    n_lines = sum(map(len, panels.values()))
    return [
        FigureSpec(
            name="comparisons",
            title="Differences of paired tests, with 95 % intervals",
            width=PAGE,
            height=0.5 * len(panels) + _LINE_HEIGHT * n_lines,
            data={"panels": [{"metric": metric, "lines": lines} for metric, lines in panels.items()]},
            sources=tuple(sources.values()),
            draw=_draw,
            notes=(
                "Second model less first, item by item, with 95 % intervals by a paired bootstrap. Filled: significant "
                "after Holm's adjustment over tasks; hollow: tied.",
            ),
        )
    ]


def _draw(figure: Any, data: Mapping[str, Any]) -> None:
    panels = data["panels"]
    ratios = [len(panel["lines"]) + 2 for panel in panels]
    all_axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": ratios})
    for axes, panel in zip(all_axes.flat, panels, strict=True):
        lines = panel["lines"]
        for place, (_, value, low, high, is_tied) in enumerate(lines):
            axes.plot([low, high], [-place, -place], color="0.2", linewidth=1.0)
            axes.plot([value], [-place], "o", color="0.2", markerfacecolor="white" if is_tied else "0.2")
        axes.axvline(0, color="0.5", linewidth=0.7, linestyle=":")
        axes.set_yticks([-place for place in range(len(lines))], [drawable(line[0]) for line in lines])
        axes.set_ylim(-len(lines) + 0.4, 0.6)
        axes.set_xlabel(f"difference in {panel['metric']} (points of a percent)")
        axes.grid(True, axis="x", linewidth=0.4, color="0.85")
