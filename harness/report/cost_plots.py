"""Figures of cost: scaling curves with their fits and crossovers, and the longest audio under the caps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.frontier_table import length_text, model_name
from harness.report.costs import named_scaling, scaling_source
from harness.report.kept_tables import frontier_source, record_name
from harness.report.loading import KeptFrontier, KeptScaling, Results
from harness.report.style import COLUMN, PAGE, FigureSpec, drawable, log_scale, looks, panel_grid
from harness.scaling_curves import BY_NAME, Conditions, Line, Quantity, growth_of, lines_of, pairs_of
from harness.scaling_tables import crossover_text
from harness.timing import Spread

# Of the short figure, which fits above a column of text.
SHORT = ("total", "allocated", "flops")
DRAWN = ("total", "first_token", "prefill", "per_token", "allocated", "beyond_model", "process", "flops")
_FEW = 2


def cost_figures(results: Results) -> list[FigureSpec]:
    """One figure each scaling record and set of conditions, and one each frontier."""
    specs = []
    for kept, name in named_scaling(results, "scaling"):
        lines = lines_of(kept.points)
        conditions = list(dict.fromkeys(line.conditions for line in lines))
        for shared in conditions:
            of_these = [line for line in lines if line.conditions == shared]
            full_name = name if len(conditions) == 1 else f"{name}-{_slug(shared)}"
            specs += scaling_figure(kept, full_name, shared, of_these, DRAWN)
            specs += scaling_figure(kept, f"{full_name}-short", shared, of_these, SHORT)
    specs += [frontier_figure(kept, len(results.frontiers)) for kept in results.frontiers]
    return specs


def _slug(conditions: Conditions) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", str(conditions).lower()).strip("-")


# --- scaling ---------------------------------------------------------------------------------------------------------


def scaling_figure(
    kept: KeptScaling, name: str, conditions: Conditions, lines: Sequence[Line], quantities: Sequence[str]
) -> list[FigureSpec]:
    """A panel each of these quantities that was measured at two lengths or more; none where nothing was."""
    panels = [_panel(BY_NAME[quantity], lines) for quantity in quantities]
    panels = [panel for panel in panels if any(len(line["points"]) >= _FEW for line in panel["lines"].values())]
    if not panels:
        return []
    n_rows, n_columns = panel_grid(len(panels), most=3)
    return [
        FigureSpec(
            name=name,
            title=f"Cost over the length of audio, {conditions}",
            width=PAGE if n_columns > 1 else COLUMN,
            height=2.1 * n_rows + 0.3,
            data={"models": [line.label for line in lines], "panels": panels},
            sources=(scaling_source(kept),),
            draw=_draw_scaling,
            notes=(
                f"{conditions}; {kept.record.environment.cpu}. Bands: 95 % intervals of medians. Thin lines: power "
                "laws fitted to the long end, with their exponents above the panel in the order of the legend. "
                "Vertical lines: where one model becomes cheaper than another, as told above the panel. Crosses: "
                "lengths that failed.",
            ),
        )
    ]


def _panel(quantity: Quantity, lines: Sequence[Line]) -> dict[str, Any]:
    drawn = {}
    for line in lines:
        spreads = {seconds: Spread.of(samples) for seconds, samples in line.curve(quantity).items()}
        growth = growth_of(line, quantity) if len(spreads) >= _FEW else None
        drawn[line.label] = {
            "points": [[s, v.median, v.low, v.high] for s, v in spreads.items() if v.median > 0],
            "fit": None if growth is None else [growth.from_s, growth.to_s, growth.exponent],
            "failed": [point.key.seconds for point in line.points if point.outcome != "ok"],
        }
    crossings = []
    for pair in pairs_of(lines):
        found = pair.crossover(quantity)
        if found is not None and found.at_s is not None:
            crossings.append([pair.first.label, pair.second.label, found.at_s, crossover_text(found)])
    return {"title": quantity.title, "unit": quantity.unit, "lines": drawn, "crossings": crossings}


def _draw_scaling(figure: Any, data: Mapping[str, Any]) -> None:
    panels = data["panels"]
    n_rows, n_columns = panel_grid(len(panels), most=3)
    all_axes = figure.subplots(n_rows, n_columns, squeeze=False)
    look = looks(data["models"])
    handles: dict[str, Any] = {}
    names = [name for name in data["models"] if any(panel["lines"][name]["points"] for panel in panels)]
    for axes, panel in zip(all_axes.flat, panels, strict=False):
        for name, line in panel["lines"].items():
            if line["points"]:
                handles[name] = _draw_line(axes, line, look[name])
        for _, _, at_s, _ in panel["crossings"]:
            axes.axvline(at_s, color="0.4", linewidth=0.6, linestyle=(0, (1, 2)))
        log_scale(axes, x=True, y=True)
        axes.set_xlabel("audio (s)")
        axes.set_title(f"{panel['title']} ({panel['unit']})", pad=3 + 6 * len(_told(panel, names)))
        axes.text(0, 1.02, "\n".join(_told(panel, names)), fontsize=5, color="0.25", transform=axes.transAxes)
        axes.grid(True, linewidth=0.4, color="0.85")
    for axes in list(all_axes.flat)[len(panels) :]:
        axes.set_visible(False)
    figure.legend([handles[name] for name in names], list(map(drawable, names)), loc="outside upper center", ncols=4)


def _told(panel: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The small lines above a panel: exponents, and from which length on a model is cheaper than another."""
    fits = [panel["lines"][name]["fit"] for name in names]
    exponents = ", ".join("-" if fit is None else f"{fit[2]:.2f}" for fit in fits)
    crossings = [
        f"{drawable(first)} below {drawable(second)} from {at_s:.3g} s on"
        for first, second, at_s, _ in panel["crossings"]
    ]
    return [f"exponents {exponents}", *crossings]


def _draw_line(axes: Any, line: Mapping[str, Any], look: Any) -> Any:
    """The medians with their band, the fit through the last of them, and what failed; returns the line."""
    points = line["points"]
    (handle,) = axes.plot([p[0] for p in points], [p[1] for p in points], **look.line)
    bounded = [p for p in points if p[2] is not None and p[3] is not None]
    if bounded:
        seconds, _, lows, highs = zip(*bounded, strict=True)
        axes.fill_between(seconds, lows, highs, color=look.colour, alpha=0.25, linewidth=0)
    if line["fit"] is not None:
        from_s, to_s, exponent = line["fit"]
        last_s, last = points[-1][:2]
        ends = [last * (s / last_s) ** exponent for s in (from_s, to_s)]
        axes.plot([from_s, to_s], ends, color="0.6", linewidth=0.6, zorder=1)
    if line["failed"]:
        top = axes.get_xaxis_transform()
        axes.plot(line["failed"], [0.97] * len(line["failed"]), "x", color=look.colour, transform=top, clip_on=False)
    return handle


# --- frontier --------------------------------------------------------------------------------------------------------


def frontier_figure(kept: KeptFrontier, n_records: int) -> FigureSpec:
    """A bar a model: the longest audio that passed, and what broke above it."""
    bars = [
        {
            "model": model_name(row),
            "edge_s": row.edge_s,
            "told": _broken_text(row.breaks_at_s, row.breaks_by),
        }
        for row in kept.record.rows
    ]
    config = kept.record.config
    cap, limit = config.get("memory_bytes"), config.get("time_limit_s")
    memory = "none" if cap is None else f"{cap / 2**30:g} GiB"
    caps = f"memory cap {memory}, time limit {'none' if limit is None else f'{limit:g} s'}"
    return FigureSpec(
        name=record_name("frontier", kept.place, n_records),
        title="Longest audio under the caps",
        width=COLUMN,
        height=0.7 + 0.32 * len(bars),
        data={"bars": bars},
        sources=(frontier_source(kept),),
        draw=_draw_frontier,
        notes=(
            f"Longest audio that passed all its probes; {caps}, {config.get('device')}, {config.get('threads')} "
            "threads. ≥: the search's longest passed.",
        ),
    )


def _broken_text(at_s: float | None, by: str | None) -> str:
    if at_s is None or by is None:
        return ""
    return f"{by.replace('_', ' ')} at {length_text(at_s)}"


def _draw_frontier(figure: Any, data: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    bars = data["bars"]
    look = looks(bar["model"] for bar in bars)
    longest = max((bar["edge_s"] or 0.0 for bar in bars), default=0.0) or 1.0
    for place, bar in enumerate(bars):
        edge_s = bar["edge_s"]
        style = look[bar["model"]]
        if edge_s is not None:
            axes.barh(-place, edge_s, 0.55, color=style.colour, hatch=style.hatch, edgecolor="white", linewidth=0)
        told = length_text(edge_s) if edge_s is not None else "not even the shortest"
        told = told if bar["told"] else f"≥ {told}"
        axes.text((edge_s or 1.0) * 1.08, -place, f"{told}\n{bar['told']}".strip(), va="center", fontsize=5)
    axes.set_yticks([-place for place in range(len(bars))], [drawable(bar["model"]) for bar in bars])
    # Room for the words behind the longest bar.
    axes.set_xlim(min(1.0, longest / 10), longest * 60)
    log_scale(axes, x=True)
    axes.set_xlabel("audio (s)")
