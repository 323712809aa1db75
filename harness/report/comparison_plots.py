"""The figure of paired tests: a column a pair of models, a line a task and scorer, a band of panels a metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.compare import TIED
from harness.report.kept_tables import comparison_source, newest_comparisons
from harness.report.loading import Results
from harness.report.style import PAGE, FigureSpec, wrapped

_LINE_HEIGHT = 0.1
_BAND_HEIGHT = 0.6
_LABEL_WIDTH = 2.2
_MOST_PAIRS = 5

# By task with scorer: difference, the interval's ends, and whether the two are tied.
_Drawn = dict[str, list[Any]]


def comparison_figures(results: Results) -> list[FigureSpec]:
    """One figure, where a pair has a difference."""
    # By metric, pair of models, and task with scorer.
    found: dict[str, dict[str, _Drawn]] = {}
    sources = {}
    for kept, rows in newest_comparisons(results.comparisons):
        for row in rows:
            if row.difference is not None and row.interval is not None:
                pairs, line = found.setdefault(row.metric, {}), f"{row.task}, {row.scorer}"
                pair = _free(pairs, f"{kept.record.second} less {kept.record.first}", line)
                values = [100 * x for x in (row.difference, row.interval.low, row.interval.high)]
                pairs.setdefault(pair, {})[line] = [*values, row.better == TIED]
                sources[kept.place] = comparison_source(kept)
    if not found:
        return []
    bands = [_band(metric, part) for metric, pairs in found.items() for part in _parts(pairs)]
    return [
        FigureSpec(
            name="comparisons",
            title="Differences of paired tests, with 95 % intervals",
            width=PAGE,
            height=sum(_BAND_HEIGHT + _LINE_HEIGHT * sum(_heights(band)) for band in bands),
            data={"bands": bands},
            sources=tuple(sources.values()),
            draw=_draw,
            notes=(
                "Second model less first, item by item, with 95 % intervals by a paired bootstrap. Filled: significant "
                "after Holm's adjustment over tasks; hollow: tied.",
            ),
        )
    ]


def _free(pairs: Mapping[str, _Drawn], pair: str, line: str) -> str:
    """The pair's column, or a further one where this line of it is taken, as by runs of other weights."""
    name, turn = pair, 1
    while line in pairs.get(name, {}):
        turn += 1
        name = f"{pair} ({turn})"
    return name


def _parts(pairs: Mapping[str, _Drawn]) -> list[dict[str, _Drawn]]:
    """As many pairs at a time as stand beside each other on a page."""
    every = list(pairs.items())
    return [dict(every[start : start + _MOST_PAIRS]) for start in range(0, len(every), _MOST_PAIRS)]


def _band(metric: str, pairs: Mapping[str, _Drawn]) -> dict[str, Any]:
    """What is drawn of a metric: `differences` has a list a pair, each with an entry a line, None where not tested."""
    lines = list(dict.fromkeys(line for drawn in pairs.values() for line in drawn))
    return {
        "metric": metric,
        "pairs": list(pairs),
        "lines": [wrapped(line, _LABEL_WIDTH) for line in lines],
        "differences": [[drawn.get(line) for line in lines] for drawn in pairs.values()],
    }


def _heights(band: Mapping[str, Any]) -> list[int]:
    """Of each line, in lines of its label; one more keeps labels apart."""
    return [label.count("\n") + 2 for label in band["lines"]]


def _draw(figure: Any, data: Mapping[str, Any]) -> None:
    bands = data["bands"]
    n_columns = max(len(band["pairs"]) for band in bands)
    ratios = [sum(_heights(band)) + 2 for band in bands]
    all_axes = figure.subplots(
        len(bands), n_columns, squeeze=False, sharex="row", sharey="row", gridspec_kw={"height_ratios": ratios}
    )
    for n, (axes_row, band) in enumerate(zip(all_axes, bands, strict=True)):
        has_titles = n == 0 or bands[n - 1]["pairs"] != band["pairs"]
        _draw_band(axes_row, band, has_titles=has_titles)


def _draw_band(axes_row: Any, band: Mapping[str, Any], *, has_titles: bool) -> None:
    places, depth = [], 0.0
    for height in _heights(band):
        places.append(-depth - height / 2)
        depth += height
    for axes in axes_row[len(band["pairs"]) :]:
        axes.set_visible(False)
    for axes, pair, differences in zip(axes_row, band["pairs"], band["differences"], strict=False):
        for place, difference in zip(places, differences, strict=True):
            if difference is not None:
                value, low, high, is_tied = difference
                axes.plot([low, high], [place, place], color="0.2", linewidth=1.0)
                axes.plot([value], [place], "o", color="0.2", markerfacecolor="white" if is_tied else "0.2")
        axes.axvline(0, color="0.5", linewidth=0.7, linestyle=":")
        axes.set_xlabel(f"{band['metric']} (points)")
        axes.grid(True, axis="x", linewidth=0.4, color="0.85")
        if has_titles:
            axes.set_title(pair.replace(" less ", "\nless "))
    axes_row[0].set_yticks(places, band["lines"])
    axes_row[0].set_ylim(-depth, 0)
