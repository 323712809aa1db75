"""Tables of a scaling record, from its rows alone: points, components, exponents and crossovers, in three formats.

Markdown and LaTeX for reading; CSV with every number in plain units for whoever computes further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.fits import Crossover, Growth
from harness.latex import tabular
from harness.record_files import write_atomically
from harness.scaling_curves import BY_NAME, CROSSED, QUANTITIES, Line, growth_of, lines_of, median_of, pairs_of
from harness.scaling_rows import Measured, PointRow, SpreadRow
from harness.tables import Table, csv_rows, csv_text, markdown_text

NOISY = "~"
DASH = "-"
POINTS_NOTE = (
    "Medians with 95 % intervals over the iterations of one process: another process may differ by more. "
    "~ marks medians whose interval is wider than asked or that have too few samples. "
    "One multiplication or one addition is one FLOP; of answers by formula, of training steps as counted. "
    "MB are 10^6 bytes. "
    "State: what the language model keeps for one clip, by formula; B/token: its measured growth for the batch's "
    "clip with each answer token. J: of one run, the idle machine's power subtracted."
)
NOTES = {
    "points": POINTS_NOTE,
    "components": (
        "Medians with 95 % intervals over the iterations of one process. Reserved is what was held while a component "
        "ran, what earlier ones left with the allocator included. MB are 10^6 bytes."
    ),
    "exponents": (
        "Least-squares slope of log cost over log length, at the long end (from, to). Intervals: 95 % of a bootstrap "
        "over lengths and samples; with few lengths they show how far the curve is from a power law, no more."
    ),
    "crossovers": (
        "In each pair the first has the state-space form of the part that they differ in. "
        "Intervals are of the measuring noise alone: between two lengths that were measured both curves are taken as "
        "straight, so that all that is certain is the pair of lengths (crosses between). Exact quantities have that "
        "pair as their interval. Nothing is said of lengths beyond those measured."
    ),
}


def points_table(points: Iterable[PointRow]) -> Table:
    """One row a point: what a reader compares first."""
    times = ("total", "TTFT", "TPOT", "prefill", "first call", "RTF", "FLOPs", "FLOP/s")
    sizes = ("model MB", "allocated MB", "reserved MB", "process MB", "device MB", "state B", "B/token", "J", "outcome")
    rows = [
        (line.label, str(line.conditions), f"{point.key.seconds:g} s", *_point_cells(point))
        for line in lines_of(points)
        for point in line.points
    ]
    return Table(("model", "conditions", "audio", *times, *sizes), tuple(rows))


def components_table(points: Iterable[PointRow]) -> Table:
    """One row a component of a point."""
    what = ("model", "conditions", "audio", "component")
    header = (*what, "time", "share", "FLOPs", "FLOP/s", "allocated MB", "reserved MB")
    rows = []
    for line in lines_of(points):
        for point in line.points:
            if point.measured is not None:
                start = (line.label, str(line.conditions), f"{point.key.seconds:g} s")
                rows += [(*start, *cells) for cells in _component_cells(point.measured)]
    return Table(header, tuple(rows))


def growth_table(points: Iterable[PointRow]) -> Table:
    """One row a line and quantity: the exponent of its long end."""
    header = ("model", "conditions", "quantity", "exponent", "from", "to", "lengths", "between the longest two")
    rows = []
    for line in lines_of(points):
        for quantity in QUANTITIES:
            growth = growth_of(line, quantity)
            if growth is not None:
                rows.append((line.label, str(line.conditions), quantity.title, *_growth_cells(growth)))
    return Table(header, tuple(rows))


def crossover_table(points: Iterable[PointRow]) -> Table:
    """One row a pair and quantity: from which length on the first is cheaper."""
    header = (
        "first",
        "second",
        "differ in",
        "conditions",
        "quantity",
        "first is cheaper from",
        "crosses between",
        "measured",
    )
    rows = []
    for pair in pairs_of(lines_of(points)):
        for name in CROSSED:
            found = pair.crossover(BY_NAME[name])
            if found is not None:
                start = (pair.first.label, pair.second.label, pair.differs, str(pair.first.conditions))
                measured = f"{found.from_s:g} to {found.to_s:g} s"
                between = DASH if found.after_s is None else f"{found.after_s:g} and {found.before_s:g} s"
                rows.append((*start, BY_NAME[name].title, crossover_text(found), between, measured))
    return Table(header, tuple(rows))


def crossover_text(found: Crossover) -> str:
    """Such as "42 s [30, 60]", or that there is none."""
    if found.kind == "never":
        text = "none within the range"
    elif found.kind == "always":
        text = "every length measured"
    elif found.low is None or found.high is None:
        text = f"{_digits(found.at_s or 0.0)} s"
    else:
        text = f"{_digits(found.at_s or 0.0)} s [{_digits(found.low)}, {_digits(found.high)}]"
    return text if found.share > 0.975 else f"{text} ({100 * found.share:.0f} % of resamples)"


def write_tables(points: Sequence[PointRow], folder: Path) -> list[Path]:
    """Write every table as .md, .csv and .tex into the folder; returns the paths."""
    tables = {
        "points": points_table(points),
        "components": components_table(points),
        "exponents": growth_table(points),
        "crossovers": crossover_table(points),
    }
    written = []
    for name, table in tables.items():
        texts = {"md": markdown_text(table), "tex": to_latex(table), "csv": csv_text(table)}
        texts["md"] += f"\n{NOTES[name]}\n"
        if name == "points":
            texts["csv"] = points_csv(points)
        for suffix, text in texts.items():
            path = folder / f"{name}.{suffix}"
            write_atomically(path, text)
            written.append(path)
    return written


# --- formats ---------------------------------------------------------------------------------------------------------


def to_latex(table: Table) -> str:
    """A tabular with booktabs' rules."""
    return "\n".join(tabular(table.header, table.rows, "l" * len(table.header))) + "\n"


def points_csv(points: Iterable[PointRow]) -> str:
    """Every number of each point in seconds, bytes and FLOPs, one row a point and component; "whole" is the point."""
    rows = [fact for line in lines_of(points) for point in line.points for fact in _facts(line, point)]
    header = list(dict.fromkeys(name for row in rows for name in row))
    return csv_rows([header, *[[row.get(name) for name in header] for row in rows]])


# --- cells -----------------------------------------------------------------------------------------------------------


def _point_cells(point: PointRow) -> tuple[str, ...]:
    m = point.measured
    if m is None:
        return (*[DASH] * 16, f"{point.outcome.replace('_', ' ')}: {point.message}")
    peak, state = m.memory.peak, m.state
    held = None if state.growing is None or state.constant is None else state.growing + state.constant
    return (
        ("" if not m.noise else NOISY) + _spread(m.total, time_text),
        _spread(m.first_token, time_text),
        _spread(m.per_token, time_text),
        _spread(m.prefill, time_text),
        time_text(m.first_call_s),
        f"{m.real_time_factor:.3g}",
        _or_dash(m.flops, _count),
        _or_dash(m.flops_per_s, _count),
        *(_or_dash(n, _megabytes) for n in (m.memory.model, peak.allocated, peak.reserved, peak.process, peak.device)),
        _or_dash(held, _count),
        _or_dash(state.measured_growth_per_token, _count),
        DASH if m.energy is None else " + ".join(f"{name} {j:.3g}" for name, j in m.energy.joules.items()),
        "ok",
    )


def _component_cells(m: Measured) -> list[tuple[str, ...]]:
    whole = sum(c.seconds.median for c in m.components if c.seconds is not None)
    return [
        (
            c.component,
            _spread(c.seconds, time_text),
            DASH if c.seconds is None or not whole else f"{100 * c.seconds.median / whole:.0f} %",
            _or_dash(m.component_flops(c), _count),
            _or_dash(c.flops_per_s, _count),
            _or_dash(c.peak.allocated if c.peak else None, _megabytes),
            _or_dash(c.peak.reserved if c.peak else None, _megabytes),
        )
        for c in m.components
    ]


def _growth_cells(growth: Growth) -> tuple[str, ...]:
    bounds = "" if growth.low is None or growth.high is None else f" [{growth.low:.2f}, {growth.high:.2f}]"
    spans = (f"{growth.from_s:g} s", f"{growth.to_s:g} s", str(growth.n_lengths))
    return (f"{growth.exponent:.2f}{bounds}", *spans, f"{growth.local[-1].exponent:.2f}")


def _facts(line: Line, point: PointRow) -> list[dict[str, Any]]:
    """The point as a whole, then each component."""
    start = {**point.key.model_dump(exclude={"options"}), "label": line.label, "outcome": point.outcome}
    m = point.measured
    if m is None:
        return [{**start, "component": "whole", "message": point.message}]
    whole = {
        "component": "whole",
        **_numbers("s", m.total),
        "flops": m.flops,
        "macs": m.work.macs if m.work else None,
        "other_flops": m.work.other if m.work else None,
        "flops_per_s": m.flops_per_s,
        "model_bytes": m.memory.model,
        **{f"{name}_bytes": value for name, value in m.memory.peak.model_dump().items()},
        **_numbers("first_token_s", m.first_token),
        **_numbers("per_token_s", m.per_token),
        "prefill_s": median_of(m.prefill),
        "device_s": median_of(m.device_time),
        "first_call_s": m.first_call_s,
        "real_time_factor": m.real_time_factor,
        "clips_per_s": m.clips_per_s,
        "audio_tokens_per_s": m.description.audio_tokens_per_s,
        **{f"state_{name}": value for name, value in m.state.model_dump().items()},
        **({f"{name}_joules": j for name, j in m.energy.joules.items()} if m.energy else {}),
        "noise": m.noise,
    }
    parts = [
        {
            "component": c.component,
            **_numbers("s", c.seconds),
            **({"flops": m.component_flops(c)} if c.work is None else {}),
            **({"flops": c.work.flops, "macs": c.work.macs, "other_flops": c.work.other} if c.work else {}),
            "flops_per_s": c.flops_per_s,
            **({f"{name}_bytes": value for name, value in c.peak.model_dump().items()} if c.peak else {}),
        }
        for c in m.components
    ]
    return [{**start, **row} for row in (whole, *parts)]


def _numbers(name: str, spread: SpreadRow | None) -> dict[str, Any]:
    if spread is None:
        return {}
    return {name: spread.median, f"{name}_low": spread.low, f"{name}_high": spread.high, f"{name}_n": spread.n_samples}


def _spread(spread: SpreadRow | None, text: Callable[[float], str]) -> str:
    if spread is None:
        return DASH
    if spread.low is None or spread.high is None:
        return text(spread.median)
    return f"{text(spread.median)} [{text(spread.low)}, {text(spread.high)}]"


def _or_dash(value: float | None, text: Callable[[float], str]) -> str:
    return DASH if value is None else text(value)


def time_text(seconds: float) -> str:
    """In seconds from one second on, else in milliseconds; three digits that count."""
    return f"{_digits(seconds)} s" if seconds >= 1 else f"{_digits(1e3 * seconds)} ms"


def _megabytes(n_bytes: float) -> str:
    return _digits(n_bytes / 1e6, 4)


def _digits(value: float, n: int = 3) -> str:
    """So many digits that count, but large numbers in full: 81559, not 8.156e+04."""
    return f"{value:.0f}" if abs(value) >= 10 ** (n - 1) else f"{value:.{n}g}"


def _count(value: float) -> str:
    """With a letter for thousands, millions, ...: 1.25 G."""
    for letter, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{_digits(value / size)} {letter}"
    return f"{value:.3g}"
