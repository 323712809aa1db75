"""How a cost grows with length, and from which length on one model is cheaper than another; each with its interval.

The exponent is the slope of log cost over log length by least squares, over the long end of the curve: short audio
pays mostly what does not grow. Local exponents, between neighbouring lengths, show where a curve bends.

Intervals are 95 % percentile intervals of a bootstrap on two levels: the lengths of the fit, and the samples of each
length. The second is noise; the first shows how far the curve is from a power law at all. What has no samples
(operations, bytes) has no noise, and then a crossover is known to lie between two lengths that were measured.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

N_RESAMPLES = 1000
CONFIDENCE = 0.95
# The long end: lengths of at least this share of the longest, and no fewer lengths than that where there are as many.
LONG_END_SHARE = 0.1
FEWEST_LENGTHS = 3

Curve = Mapping[float, Sequence[float]]
"""From length (s) to the samples of a cost at that length: one where there is no noise. All positive."""


@dataclass(frozen=True)
class LocalExponent:
    """The exponent between two neighbouring lengths, in seconds."""

    from_s: float
    to_s: float
    exponent: float


@dataclass(frozen=True)
class Growth:
    """`exponent` of the long end, from `from_s` to `to_s`, with its interval; None where the lengths are too few."""

    exponent: float
    low: float | None
    high: float | None
    from_s: float
    to_s: float
    n_lengths: int
    local: tuple[LocalExponent, ...]


@dataclass(frozen=True)
class Crossover:
    """From which length on the first model is cheaper than the second, and stays so as far as was measured.

    `kind`: "at" that length, `at_s`; "always", at every length measured; "never", the second is at least as cheap at
    the longest. `after_s` and `before_s` are the lengths measured around it. `low` and `high` bound `at_s` over the
    resamples that cross at all; `share` of them agree with `kind`. Lengths in seconds, `from_s` to `to_s` in common.
    """

    kind: Literal["at", "always", "never"]
    at_s: float | None
    low: float | None
    high: float | None
    after_s: float | None
    before_s: float | None
    from_s: float
    to_s: float
    share: float


def fit_growth(curve: Curve, seed: int = 0, n_resamples: int = N_RESAMPLES) -> Growth | None:
    """Exponent of a curve; None where fewer than two lengths have a positive cost.

    Raises:
        ValueError: a length has no samples.
    """
    medians = {s: m for s, m in _medians(curve).items() if m > 0 and s > 0}
    lengths = sorted(medians)
    if len(lengths) < 2:
        return None
    local = tuple(
        LocalExponent(a, b, math.log(medians[b] / medians[a]) / math.log(b / a))
        for a, b in zip(lengths, lengths[1:], strict=False)
    )
    chosen = _long_end(lengths)
    slopes = _resampled_slopes(curve, chosen, seed, n_resamples) if len(chosen) >= FEWEST_LENGTHS else []
    low, high = _bounds(slopes)
    exponent = _slope([(s, medians[s]) for s in chosen])
    return Growth(exponent, low, high, chosen[0], chosen[-1], len(chosen), local)


def find_crossover(first: Curve, second: Curve, seed: int = 0, n_resamples: int = N_RESAMPLES) -> Crossover | None:
    """Where the first curve falls below the second for good; None where they share fewer than two lengths.

    Between lengths, both are taken as straight in log cost over log length.
    """
    lengths = sorted(s for s in first if s in second and s > 0)
    lengths = [s for s in lengths if statistics.median(first[s]) > 0 and statistics.median(second[s]) > 0]
    if len(lengths) < 2:
        return None
    gaps = [_gap(first[s], second[s]) for s in lengths]
    kind, at_s, index = _last_crossing(lengths, gaps)
    draw = random.Random(seed)
    has_noise = any(len(curve[s]) > 1 for curve in (first, second) for s in lengths)
    resamples = n_resamples if has_noise else 0
    found = [
        _last_crossing(lengths, [_gap(_redrawn(first[s], draw), _redrawn(second[s], draw)) for s in lengths])
        for _ in range(resamples)
    ]
    after, before = (None, None) if index is None else (lengths[index - 1], lengths[index])
    low, high = _bounds([at for _, at, _ in found if at is not None]) if kind == "at" else (None, None)
    if kind == "at" and not has_noise:
        low, high = after, before
    share = sum(k == kind for k, _, _ in found) / len(found) if found else 1.0
    return Crossover(kind, at_s, low, high, after, before, lengths[0], lengths[-1], share)


def _medians(curve: Curve) -> dict[float, float]:
    return {seconds: statistics.median(samples) for seconds, samples in curve.items()}


def _long_end(lengths: Sequence[float]) -> list[float]:
    long = [s for s in lengths if s >= LONG_END_SHARE * lengths[-1]]
    return list(lengths[-max(len(long), min(FEWEST_LENGTHS, len(lengths))) :])


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Least squares of log cost over log length."""
    logs = [(math.log(length), math.log(cost)) for length, cost in points]
    x_mean, y_mean = (statistics.fmean(values) for values in zip(*logs, strict=True))
    spread = sum((x - x_mean) ** 2 for x, _ in logs)
    return sum((x - x_mean) * (y - y_mean) for x, y in logs) / spread


def _resampled_slopes(curve: Curve, lengths: Sequence[float], seed: int, n_resamples: int) -> list[float]:
    draw = random.Random(seed)
    slopes: list[float] = []
    while len(slopes) < n_resamples:
        drawn = draw.choices(lengths, k=len(lengths))
        # A line needs two lengths; a draw of one alone says nothing.
        if len(set(drawn)) > 1:
            slopes.append(_slope([(s, statistics.median(_redrawn(curve[s], draw))) for s in drawn]))
    return slopes


def _redrawn(samples: Sequence[float], draw: random.Random) -> Sequence[float]:
    return samples if len(samples) == 1 else draw.choices(samples, k=len(samples))


def _gap(first: Sequence[float], second: Sequence[float]) -> float:
    """Log of how many times as dear the first is: below zero where it is cheaper."""
    return math.log(statistics.median(first) / statistics.median(second))


def _last_crossing(
    lengths: Sequence[float], gaps: Sequence[float]
) -> tuple[Literal["at", "always", "never"], float | None, int | None]:
    """How it ends, where it crosses last, and the index of the first length after that."""
    if gaps[-1] >= 0:
        return "never", None, None
    dear = [index for index, gap in enumerate(gaps) if gap >= 0]
    if not dear:
        return "always", None, None
    index = dear[-1] + 1
    share = gaps[index - 1] / (gaps[index - 1] - gaps[index])
    logs = math.log(lengths[index - 1]), math.log(lengths[index])
    return "at", math.exp(logs[0] + share * (logs[1] - logs[0])), index


def _bounds(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Percentiles; two None without values."""
    if not values:
        return None, None
    ordered, tail = sorted(values), (1 - CONFIDENCE) / 2
    last = len(ordered) - 1
    return ordered[round(tail * last)], ordered[round((1 - tail) * last)]
