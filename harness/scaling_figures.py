"""Figures of a scaling record, from its rows alone: one a quantity and set of conditions, as svg and pdf.

Cost over length of audio on logarithmic axes, so that a power law is a straight line and its exponent the slope. Lines
differ in colour, marker and dash at once: colours of Okabe and Ito (Color Universal Design, 2008), legible in grey.
A point that failed is a cross at the top, over the length at which it failed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import MissingExtraError
from harness.scaling_curves import QUANTITIES, Conditions, Line, Quantity, lines_of
from harness.scaling_rows import PointRow
from harness.timing import Spread

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
FORMATS = ("svg", "pdf")
# Half a page of text, in inches.
SIZE = (5.0, 3.4)
# Letters stay letters, and nothing in a file tells when it was drawn: the same rows give the same file.
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lalm-harness",
    "pdf.fonttype": 42,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw_figures(points: Sequence[PointRow], folder: Path, quantities: Sequence[Quantity] = QUANTITIES) -> list[Path]:
    """Draw each quantity that was measured, for each set of conditions; returns the paths.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", "", "Drawing figures", "Install it: pip install matplotlib") from error
    lines = lines_of(points)
    conditions = list(dict.fromkeys(line.conditions for line in lines))
    written = []
    with matplotlib.rc_context(_STYLE):
        for number, shared in enumerate(conditions, start=1):
            members = [line for line in lines if line.conditions == shared]
            for quantity in quantities:
                if any(_spreads(line, quantity) for line in members):
                    name = quantity.name if len(conditions) == 1 else f"{quantity.name}-{number}-{_slug(shared)}"
                    written += _draw(members, quantity, shared, folder / name)
    return written


def _draw(lines: Sequence[Line], quantity: Quantity, conditions: Conditions, stem: Path) -> list[Path]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for number, line in enumerate(lines):
        _draw_line(axes, line, quantity, number)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("audio (s)")
    axes.set_ylabel(f"{quantity.title} ({quantity.unit})")
    axes.set_title(str(conditions), fontsize="small")
    axes.grid(True, which="major", linewidth=0.4, color="0.85")
    axes.legend(frameon=False, fontsize="small")
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in FORMATS]
    for path in paths:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {"CreationDate": None})
    return paths


def _draw_line(axes: Any, line: Line, quantity: Quantity, number: int) -> None:
    spreads = _spreads(line, quantity)
    colour = COLOURS[number % len(COLOURS)]
    style = {"color": colour, "linestyle": DASHES[number % len(DASHES)], "marker": MARKERS[number % len(MARKERS)]}
    axes.plot(
        list(spreads), [s.median for s in spreads.values()], label=line.label, markersize=4, linewidth=1.3, **style
    )
    bounded = {seconds: (s.low, s.high) for seconds, s in spreads.items() if s.low is not None and s.high is not None}
    if bounded:
        lows, highs = zip(*bounded.values(), strict=True)
        axes.fill_between(list(bounded), lows, highs, color=colour, alpha=0.2, linewidth=0)
    failed = [point.key.seconds for point in line.points if point.outcome != "ok"]
    if failed:
        top = axes.get_xaxis_transform()
        axes.plot(failed, [0.97] * len(failed), "x", color=colour, transform=top, clip_on=False)


def _spreads(line: Line, quantity: Quantity) -> dict[float, Spread]:
    """By length; what is not above zero has no place on these axes."""
    spreads = {seconds: Spread.of(samples) for seconds, samples in line.curve(quantity).items()}
    return {seconds: spread for seconds, spread in spreads.items() if spread.median > 0}


def _slug(conditions: Conditions) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", str(conditions).lower())
