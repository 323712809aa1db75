"""One style for every figure: widths of a two-column paper, vector text, and looks that differ in more than colour.

Colours are those of Okabe and Ito (Color Universal Design, 2008); lines differ in marker and dash too, bars in
hatching, and surfaces in lightness, so that each is legible in grey. Nothing in a file tells when it was drawn.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import MissingExtraError
from harness.report.rendering import Source, sources_note
from harness.results_frame import MODEL_ORDER
from harness.scaling_figures import COLOURS, DASHES, MARKERS

# Inches.
COLUMN = 3.33
PAGE = 7.0
FORMATS = ("svg", "pdf", "png")
HATCHES = ("", "///", "\\\\\\", "...", "xxx", "---", "+++")
SURFACE = "cividis"
_FOOTNOTE_SIZE = 5.0
_LETTERS_AN_INCH = 25
_LINE_HEIGHT = 0.085
_TITLE_LETTERS_AN_INCH = 17
# How many times as long as its line a word may be before it is broken.
_SPARE = 1.3
_TICK_DIGITS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0))
_FEWEST_TICKS, _MOST_TICKS = 3, 6
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lalm-harness",
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "axes.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 200,
}
_METADATA: Mapping[str, Mapping[str, None]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}


@dataclass(frozen=True)
class FigureSpec:
    """A figure: `draw` gets an empty matplotlib figure and `data`, all that it draws and what the sidecar holds.

    `width` and `height` in inches; the footnote's lines are added below.
    """

    name: str
    title: str
    width: float
    height: float
    data: Mapping[str, Any]
    sources: tuple[Source, ...]
    draw: Callable[[Any, Mapping[str, Any]], None]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """How one model looks in every figure of a kind."""

    colour: str
    marker: str
    dash: Any
    hatch: str

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of matplotlib's `plot`."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dash}

    @property
    def hollow(self) -> dict[str, Any]:
        """Arguments of matplotlib's `plot` for markers that do not hide one another."""
        return {"color": self.colour, "marker": self.marker, "markerfacecolor": "none", "markeredgewidth": 1.1}


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name. A model that the harness comes with has the same one wherever it is drawn alone."""
    every = list(dict.fromkeys(names))
    places: dict[str, int] = {}
    for name in every:
        model = name.partition(":")[0].partition(" ")[0]
        if model in MODEL_ORDER and MODEL_ORDER.index(model) not in places.values():
            places[name] = MODEL_ORDER.index(model)
    free = (n for n in itertools.count() if n not in places.values())
    for name in every:
        if name not in places:
            places[name] = next(free)
    return {name: _look(places[name]) for name in every}


def _look(place: int) -> Look:
    # Beyond as many as there are colours, a colour comes again with another marker and dash.
    turn, n = divmod(place, len(COLOURS))
    other = (n + turn) % len(MARKERS)
    return Look(COLOURS[n], MARKERS[other], DASHES[other], HATCHES[other])


def write_figure(spec: FigureSpec, folder: Path) -> list[Path]:
    """Draw a figure as svg, pdf and png; returns the paths.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingExtraError("matplotlib", "", "Drawing figures", "Install it: pip install matplotlib") from error
    footnote = _footnote(spec)
    below = _LINE_HEIGHT * (footnote.count("\n") + 1) + 0.04
    height = spec.height + below
    # The figure is saved under the style too: some of it, such as hatching, is looked up only then.
    with matplotlib.rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(rect=(0, below / height, 1, 1 - below / height))
        figure = Figure(figsize=(spec.width, height), layout=layout)
        spec.draw(figure, spec.data)
        figure.text(0.01, 0.02 / height, footnote, fontsize=_FOOTNOTE_SIZE, color="0.25", va="bottom", ha="left")
        paths = [folder / f"{spec.name}.{suffix}" for suffix in FORMATS]
        for path in paths:
            figure.savefig(path, metadata=dict(_METADATA[path.suffix[1:]]))
    return paths


def _footnote(spec: FigureSpec) -> str:
    lines = [*spec.notes, sources_note(spec.sources, spec.name)]
    width = round(spec.width * _LETTERS_AN_INCH)
    return "\n".join(part for line in lines for part in textwrap.wrap(drawable(line), width))


def drawable(text: str) -> str:
    """Text in letters that the font has; others become their code point."""
    return "".join(
        letter if letter.isprintable() and ord(letter) < 0x2600 else f"U+{ord(letter):04X}" for letter in text
    )


def log_scale(axes: Any, *, x: bool = False, y: bool = False) -> None:
    """Make axes logarithmic, with a few plain numbers on them; limits are those of what was drawn before the call."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    for wanted, axis, scale, limits in (
        (x, axes.xaxis, axes.set_xscale, axes.get_xlim),
        (y, axes.yaxis, axes.set_yscale, axes.get_ylim),
    ):
        if wanted:
            scale("log")
            axis.set_major_locator(FixedLocator(log_ticks(*limits())))
            axis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
            axis.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between two that are above zero; evenly spaced ones where the two are close.

    Args:
        low, high: ends of the axis.
    """
    from matplotlib.ticker import MaxNLocator

    decades = [10.0**n for n in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    for digits in _TICK_DIGITS:
        ticks = [digit * decade for decade in decades for digit in digits if low <= digit * decade <= high]
        if _FEWEST_TICKS <= len(ticks):
            return ticks[:: -(-len(ticks) // _MOST_TICKS)]
    return [float(tick) for tick in MaxNLocator(_MOST_TICKS - 1).tick_values(low, high) if low <= tick <= high]


def tick_text(value: float) -> str:
    """Such as "0.05", "20", "5k", "2G"."""
    for letter, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def wrapped(text: str, inches: float) -> str:
    """A panel's title or label in lines that fit such a width, in letters that the font has.

    One word that is a little longer than a line makes all lines as long as it is.
    """
    kept_together = drawable(text).replace("(n ", "(n\N{NO-BREAK SPACE}")
    fitting = max(8, round(inches * _TITLE_LETTERS_AN_INCH))
    longest_word = max(map(len, kept_together.split(" ")))
    width = longest_word if fitting < longest_word <= _SPARE * fitting else fitting
    return "\n".join(textwrap.wrap(kept_together, width, break_on_hyphens=False))


def label_edges(all_axes: Any, n: int, x_label: str, y_label: str) -> None:
    """Label the axes at the left and, of each column of n panels, at the bottom; hide places without a panel."""
    n_columns = all_axes.shape[1]
    for place, axes in enumerate(all_axes.flat):
        if place >= n:
            axes.set_visible(False)
            continue
        if place % n_columns == 0:
            axes.set_ylabel(y_label)
        if place + n_columns >= n:
            axes.set_xlabel(x_label)
            axes.xaxis.set_tick_params(labelbottom=True)


def panel_grid(n: int, most: int = 4) -> tuple[int, int]:
    """Rows and columns for n panels."""
    n_columns = min(n, most)
    return -(-n // n_columns), n_columns
