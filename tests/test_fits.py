"""Exponents and crossovers of curves that are known."""

from __future__ import annotations

import random

import pytest

from harness.fits import find_crossover, fit_growth

LENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


def _power(factor: float, exponent: float, constant: float = 0.0) -> dict[float, list[float]]:
    return {s: [factor * s**exponent + constant] for s in LENGTHS}


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_a_power_law_has_its_exponent_everywhere(exponent: float) -> None:
    growth = fit_growth(_power(0.1, exponent))
    assert growth is not None
    assert growth.exponent == pytest.approx(exponent, abs=1e-9)
    assert [one.exponent for one in growth.local] == pytest.approx([exponent] * 5, abs=1e-9)
    assert (growth.low, growth.high) == (pytest.approx(exponent, abs=1e-9), pytest.approx(exponent, abs=1e-9))


def test_the_exponent_is_that_of_the_long_end() -> None:
    growth = fit_growth(_power(1e-4, 2.0, constant=0.01))
    assert growth is not None
    assert (growth.from_s, growth.to_s, growth.n_lengths) == (30.0, 300.0, 3)
    assert growth.exponent == pytest.approx(2.0, abs=0.1)
    assert growth.local[0].exponent < 0.2


def test_a_curve_that_bends_has_an_interval_as_wide_as_its_bend() -> None:
    growth = fit_growth(_power(1.0, 1.0, constant=100.0))
    assert growth is not None and growth.low is not None and growth.high is not None
    assert growth.low == pytest.approx(growth.local[-2].exponent) and growth.high == pytest.approx(
        growth.local[-1].exponent
    )


def test_the_interval_of_noisy_samples_holds_the_exponent() -> None:
    draw = random.Random(1)
    curve = {s: [s**1.5 * draw.lognormvariate(0, 0.1) for _ in range(15)] for s in LENGTHS}
    growth = fit_growth(curve)
    assert growth is not None and growth.low is not None and growth.high is not None
    assert growth.low < 1.5 < growth.high < growth.low + 0.3


def test_two_lengths_have_an_exponent_and_no_interval() -> None:
    growth = fit_growth({1.0: [1.0], 10.0: [10.0]})
    assert growth is not None
    assert (growth.exponent, growth.low, growth.high) == (pytest.approx(1.0), None, None)


def test_one_length_has_no_exponent() -> None:
    assert fit_growth({1.0: [1.0]}) is None


def test_the_crossover_of_a_line_and_a_parabola_is_where_they_meet() -> None:
    found = find_crossover(_power(40.0, 1.0), _power(1.0, 2.0))
    assert found is not None
    assert (found.kind, found.after_s, found.before_s) == ("at", 30.0, 100.0)
    assert found.at_s == pytest.approx(40.0)


def test_without_noise_the_interval_is_between_the_lengths_around_it() -> None:
    found = find_crossover(_power(40.0, 1.0), _power(1.0, 2.0))
    assert found is not None
    assert (found.low, found.high, found.share) == (30.0, 100.0, 1.0)


def test_with_noise_the_interval_is_that_of_the_samples() -> None:
    draw = random.Random(2)
    noisy = [
        {s: [value * draw.lognormvariate(0, 0.05) for _ in range(15)] for s, (value,) in curve.items()}
        for curve in (_power(40.0, 1.0), _power(1.0, 2.0))
    ]
    found = find_crossover(*noisy)
    assert found is not None and found.low is not None and found.high is not None
    assert 35 < found.low < 40 < found.high < 46


def test_cheaper_at_every_length_is_always_and_dearer_at_the_longest_is_never() -> None:
    cheap, dear = _power(1.0, 1.0), _power(2.0, 1.0)
    always, never = find_crossover(cheap, dear), find_crossover(dear, cheap)
    assert always is not None and never is not None
    assert (always.kind, always.at_s, never.kind, never.at_s) == ("always", None, "never", None)


def test_equal_costs_are_no_advantage() -> None:
    found = find_crossover(_power(1.0, 1.0), _power(1.0, 1.0))
    assert found is not None and found.kind == "never"


def test_of_several_crossings_the_last_counts() -> None:
    first = {1.0: [1.0], 10.0: [20.0], 100.0: [50.0]}
    second = {1.0: [2.0], 10.0: [10.0], 100.0: [100.0]}
    found = find_crossover(first, second)
    assert found is not None and (found.after_s, found.before_s) == (10.0, 100.0)


def test_only_lengths_that_both_have_are_compared() -> None:
    assert find_crossover({1.0: [1.0], 10.0: [2.0]}, {10.0: [3.0], 100.0: [4.0]}) is None
