"""The figure of paired tests: a column a pair of models, a line a task and scorer, a band of panels a metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.compare import TIED
from harness.report.columns import METRIC_NAMES
from harness.report.kept_tables import comparison_source, newest_comparisons
from harness.report.loading import Results
from harness.report.style import PAGE, FigureSpec, wrapped
from harness.scoring import is_better_low

# Inches.
_LINE_HEIGHT = 0.1
_TITLE_HEIGHT = 0.12
_BELOW_BAND = 0.5
_LABEL_WIDTH = 2.2
_MOST_PAIRS = 5


@dataclass
class _Column:
    """One pair's differences by metric, then by task with scorer: value, the interval's ends, and whether it is a tie.

    `turn` counts the columns of the pair: what was tested anew on other answers has one of its own.
    """

    second: str
    first: str
    turn: int
    drawn: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    def is_free_for(self, more: Mapping[str, Mapping[str, object]]) -> bool:
        """Whether it has none of these lines."""
        return not any(self.drawn.get(metric, {}).keys() & lines.keys() for metric, lines in more.items())

    def take(self, more: Mapping[str, Mapping[str, list[Any]]]) -> None:
        """Add lines."""
        for metric, lines in more.items():
            self.drawn.setdefault(metric, {}).update(lines)


def comparison_figures(results: Results) -> list[FigureSpec]:
    """One figure, where a pair has a difference."""
    columns: list[_Column] = []
    sources = []
    for kept, rows in newest_comparisons(results.comparisons):
        more: dict[str, dict[str, list[Any]]] = {}
        for row in rows:
            if row.difference is not None and row.interval is not None:
                values = [100 * x for x in (row.difference, row.interval.low, row.interval.high)]
                more.setdefault(row.metric, {})[f"{row.task}, {row.scorer}"] = [*values, row.better == TIED]
        if more:
            _column_for(columns, kept.record.second, kept.record.first, more).take(more)
            sources.append(comparison_source(kept))
    if not columns:
        return []
    metrics = list(dict.fromkeys(metric for column in columns for metric in column.drawn))
    bands = [band for metric in metrics for band in _bands(metric, [each for each in columns if metric in each.drawn])]
    return [
        FigureSpec(
            name="comparisons",
            title="Differences of paired tests, with 95 % intervals",
            width=PAGE,
            height=sum(map(_height, bands)),
            data={"bands": bands},
            sources=tuple(sources),
            draw=_draw,
            notes=(_note(metrics, columns),),
        )
    ]


def _column_for(columns: list[_Column], second: str, first: str, more: Mapping[str, Mapping[str, object]]) -> _Column:
    """The pair's first column that has none of these lines; a new one at the end where there is none such."""
    of_pair = [column for column in columns if (column.second, column.first) == (second, first)]
    for column in of_pair:
        if column.is_free_for(more):
            return column
    columns.append(_Column(second, first, len(of_pair) + 1))
    return columns[-1]


def _note(metrics: Iterable[str], columns: Iterable[_Column]) -> str:
    told = (
        "Second model less first, item by item, in points of a percent, with 95 % intervals by a paired bootstrap. "
        "Filled: significant after Holm's adjustment over tasks; hollow: tied."
    )
    low = [METRIC_NAMES.get(metric, metric) for metric in metrics if is_better_low(metric)]
    if low:
        told += f" Lower is better: {', '.join(low)}."
    if any(column.turn > 1 for column in columns):
        told += " A number behind a pair: tested again, later, on other answers."
    return told


# --- bands -----------------------------------------------------------------------------------------------------------


def _bands(metric: str, columns: Sequence[_Column]) -> list[dict[str, Any]]:
    """What is drawn of a metric, as many pairs in a band as stand beside each other on a page.

    `pairs` are second, first and turn; `differences` has a list a pair, with an entry a line, None where not tested.
    All bands of a metric have one `range`.
    """
    parts = [columns[start : start + _MOST_PAIRS] for start in range(0, len(columns), _MOST_PAIRS)]
    ends = [x for column in columns for values in column.drawn[metric].values() for x in values[:3]]
    low, high = min(0.0, *ends), max(0.0, *ends)
    margin = 0.05 * (high - low) or 1.0
    bands = []
    for part in parts:
        lines = list(dict.fromkeys(line for column in part for line in column.drawn[metric]))
        bands.append(
            {
                "metric": metric,
                "range": [low - margin, high + margin],
                "pairs": [[column.second, column.first, column.turn] for column in part],
                "lines": lines,
                "differences": [[column.drawn[metric].get(line) for line in lines] for column in part],
            }
        )
    return bands


def _titles(band: Mapping[str, Any]) -> list[str]:
    """Of each panel, in lines that fit its width."""
    width = (PAGE - _LABEL_WIDTH) / max(2, len(band["pairs"]))
    titles = []
    for second, first, turn in band["pairs"]:
        again = f" ({turn})" if turn > 1 else ""
        titles.append(f"{wrapped(second, width)}\n{wrapped(f'less {first}{again}', width)}")
    return titles


def _line_heights(band: Mapping[str, Any]) -> list[int]:
    """Of each line, in lines of its label; one more keeps labels apart."""
    return [wrapped(line, _LABEL_WIDTH).count("\n") + 2 for line in band["lines"]]


def _height(band: Mapping[str, Any]) -> float:
    n_title_lines = 1 + max(title.count("\n") for title in _titles(band))
    return _BELOW_BAND + _TITLE_HEIGHT * n_title_lines + _LINE_HEIGHT * sum(_line_heights(band))


# --- drawing ---------------------------------------------------------------------------------------------------------


def _draw(figure: Any, data: Mapping[str, Any]) -> None:
    bands = data["bands"]
    n_columns = max(len(band["pairs"]) for band in bands)
    ratios = [sum(_line_heights(band)) for band in bands]
    all_axes = figure.subplots(
        len(bands), n_columns, squeeze=False, sharex="row", sharey="row", gridspec_kw={"height_ratios": ratios}
    )
    for axes_row, band in zip(all_axes, bands, strict=True):
        _draw_band(axes_row, band)


def _draw_band(axes_row: Any, band: Mapping[str, Any]) -> None:
    places, depth = [], 0.0
    for height in _line_heights(band):
        places.append(-depth - height / 2)
        depth += height
    for axes in axes_row[len(band["pairs"]) :]:
        axes.set_visible(False)
    for axes, title, differences in zip(axes_row, _titles(band), band["differences"], strict=False):
        for place, difference in zip(places, differences, strict=True):
            if difference is not None:
                value, low, high, is_tied = difference
                axes.plot([low, high], [place, place], color="0.2", linewidth=1.0)
                axes.plot([value], [place], "o", color="0.2", markerfacecolor="white" if is_tied else "0.2")
        axes.axvline(0, color="0.5", linewidth=0.7, linestyle=":")
        axes.set_title(title)
        axes.set_xlabel(f"difference in\n{METRIC_NAMES.get(band['metric'], band['metric'])} (points)")
        axes.grid(True, axis="x", linewidth=0.4, color="0.85")
    axes_row[0].set_xlim(*band["range"])
    axes_row[0].set_yticks(places, [wrapped(line, _LABEL_WIDTH) for line in band["lines"]])
    axes_row[0].set_ylim(-depth, 0)
