"""Figures of listening on: what each minute took, and how memory grew, over the minutes of one long answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.frontier import full_name
from harness.report.kept_tables import conditions_text, record_name, streaming_source
from harness.report.loading import KeptStreaming, Results
from harness.report.style import PAGE, FigureSpec, drawable, looks
from harness.streaming_rows import MinuteRow

_MIB = 2**20
_PANELS = (
    ("time a minute of audio (s)", "wall_s", 1.0),
    ("resident memory (MiB)", "resident_bytes", _MIB),
    ("device memory (MiB)", "device_allocated_bytes", _MIB),
    ("state that grows, by formula (MiB)", "state_growing_bytes", _MIB),
)


def streaming_figures(results: Results) -> list[FigureSpec]:
    """One figure a record in which at least one model heard two minutes."""
    found = []
    for kept in results.streaming:
        names = [full_name(row.model) for row in kept.record.rows]
        panels = [_panel(kept, title, field, unit, names) for title, field, unit in _PANELS]
        panels = [panel for panel in panels if any(len(points) > 1 for points in panel["lines"].values())]
        if panels:
            found.append(_figure(kept, names, panels, len(results.streaming)))
    return found


def _panel(kept: KeptStreaming, title: str, field: str, unit: float, names: Sequence[str]) -> dict[str, Any]:
    return {"title": title, "lines": {name: _points(kept.minutes, name, field, unit) for name in names}}


def _points(minutes: Sequence[MinuteRow], name: str, field: str, unit: float) -> list[list[float]]:
    values = [(row.minute, getattr(row, field)) for row in minutes if row.model == name]
    return [[minute, value / unit] for minute, value in values if value is not None]


def _figure(kept: KeptStreaming, names: Sequence[str], panels: Sequence[dict[str, Any]], n_records: int) -> FigureSpec:
    return FigureSpec(
        name=record_name("streaming", kept.place, n_records),
        title="What each further minute of listening costs",
        width=PAGE,
        height=2.3,
        data={"models": list(names), "panels": list(panels)},
        sources=(streaming_source(kept),),
        draw=_draw,
        notes=(
            f"{conditions_text(kept)}. One pass, without intervals; models hear in pieces longer than a second, so "
            "single minutes are uneven.",
        ),
    )


def _draw(figure: Any, data: Mapping[str, Any]) -> None:
    look = looks(data["models"])
    handles: dict[str, Any] = {}
    for axes, panel in zip(figure.subplots(1, len(data["panels"]), squeeze=False).flat, data["panels"], strict=True):
        for name, points in panel["lines"].items():
            if points:
                minutes, values = zip(*points, strict=True)
                every = max(1, len(points) // 8)
                (handles[name],) = axes.plot(minutes, values, **look[name].line, markevery=every, clip_on=False)
        axes.set_ylim(0, 1.05 * axes.dataLim.y1 or 1.0)
        axes.set_title(panel["title"])
        axes.set_xlabel("minute of audio")
        axes.grid(True, linewidth=0.4, color="0.85")
    figure.legend(list(handles.values()), list(map(drawable, handles)), loc="outside upper center", ncols=4)
