"""The arithmetic of the clock and of the stop rule, on clocks that tests turn by hand."""

from __future__ import annotations

import itertools
import math

import pytest

from harness.timing import ComponentClock, Spread, StopRule, Stopwatch, Timeline, median_interval, repeat


class HandClock:
    """Shows what it was told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds


def _answer(clock: ComponentClock, hand: HandClock, first_s: float, token_s: float, n_tokens: int) -> Timeline:
    """An answer as a model tells of it: heard in two turns, then token by token."""
    clock.start()
    for _ in range(2):
        clock.enter("front_end")
        hand.pass_s(first_s / 8)
        clock.enter("encoder")
        hand.pass_s(first_s / 8)
    clock.enter("prefill")
    hand.pass_s(first_s / 2)
    clock.token()
    clock.enter("decode")
    for _ in range(n_tokens - 1):
        hand.pass_s(token_s)
        clock.token()
    return clock.stop()


def test_time_to_first_token_and_per_token_are_those_of_the_model() -> None:
    hand = HandClock()
    timeline = _answer(ComponentClock(hand), hand, first_s=0.8, token_s=0.05, n_tokens=16)
    assert timeline.first_token_s == pytest.approx(0.8)
    assert timeline.per_token_s(16) == pytest.approx(0.05)
    assert timeline.total_s == pytest.approx(0.8 + 15 * 0.05)


def test_turns_of_one_component_add_up() -> None:
    hand = HandClock()
    timeline = _answer(ComponentClock(hand), hand, first_s=0.8, token_s=0.05, n_tokens=3)
    assert timeline.component_s == pytest.approx({"front_end": 0.2, "encoder": 0.2, "prefill": 0.4, "decode": 0.1})


def test_a_batch_that_tells_of_each_clips_token_has_the_same_time_per_token() -> None:
    told = Timeline(1.0, {}, tuple(t for step in range(5) for t in [0.5 + 0.1 * step] * 4))
    assert told.per_token_s(5) == pytest.approx(0.1)


def test_one_token_has_no_time_per_token() -> None:
    assert Timeline(1.0, {}, (0.5,)).per_token_s(1) is None


def test_time_before_the_first_component_belongs_to_none() -> None:
    hand = HandClock()
    clock = ComponentClock(hand)
    hand.pass_s(1.0)
    clock.enter("encoder")
    hand.pass_s(0.5)
    assert clock.stop().component_s == {"encoder": 0.5}


def test_a_clock_that_splits_waits_for_the_device_at_every_change_and_one_that_does_not_only_at_the_ends() -> None:
    for splits, n_waits in ((True, 8), (False, 2)):
        waits: list[int] = []
        hand = HandClock()
        clock = ComponentClock(hand, lambda waits=waits: waits.append(1), splits)  # type: ignore[misc]
        waits.clear()
        _answer(clock, hand, 0.8, 0.05, 4)
        assert len(waits) == n_waits


def test_starting_anew_forgets_the_last_answer() -> None:
    hand = HandClock()
    clock = ComponentClock(hand)
    _answer(clock, hand, 0.8, 0.05, 4)
    assert _answer(clock, hand, 0.4, 0.05, 2).first_token_s == pytest.approx(0.4)


def test_a_stopwatch_waits_for_the_device_before_it_reads() -> None:
    hand = HandClock()
    watch = Stopwatch(hand, lambda: hand.pass_s(0.25))
    watch.start()
    hand.pass_s(1.0)
    assert watch.stop() == 1.25


@pytest.mark.parametrize(
    ("n", "ranks"),
    # Order statistics of the 95 % interval of a median: Hollander and Wolfe, Nonparametric Statistical Methods, A.2.
    [(5, None), (6, (1, 6)), (10, (2, 9)), (15, (4, 12)), (20, (6, 15)), (25, (8, 18))],
)
def test_the_interval_of_a_median_is_that_of_the_sign_test(n: int, ranks: tuple[int, int] | None) -> None:
    assert median_interval([float(i) for i in range(n, 0, -1)]) == ranks


def test_a_spread_of_too_few_samples_has_no_interval_and_is_never_narrow() -> None:
    spread = Spread.of([1.0, 1.0, 1.0])
    assert (spread.low, spread.high) == (None, None)
    assert spread.relative_half_width == math.inf


def test_no_samples_have_no_median() -> None:
    with pytest.raises(ValueError, match="no samples"):
        Spread.of([])


def _repeats(seconds: list[float], rule: StopRule) -> tuple[int, str]:
    hand = HandClock()
    each = itertools.cycle(seconds)

    def run() -> Timeline:
        took = next(each)
        hand.pass_s(took)
        return Timeline(took, {}, ())

    found = repeat(run, rule, hand)
    return len(found.timelines), found.complaint


def test_steady_work_stops_once_there_are_enough_iterations_and_seconds() -> None:
    assert _repeats([0.5], StopRule(least_iterations=10, least_s=2.0)) == (10, "")
    assert _repeats([0.125], StopRule(least_iterations=10, least_s=2.0)) == (16, "")


def test_unsteady_work_goes_on_until_its_time_is_over_and_is_noisy() -> None:
    n, complaint = _repeats([0.1, 0.2, 0.3], StopRule(most_s=8.0))
    assert n == pytest.approx(40, abs=3)
    assert complaint.startswith("half-width") and complaint.endswith("instead of 2 %")


def test_slow_work_has_three_iterations_and_says_so() -> None:
    assert _repeats([30.0], StopRule(most_s=8.0)) == (3, "3 iterations instead of 10")


def test_another_iteration_is_not_begun_where_it_would_not_end_in_time() -> None:
    assert _repeats([5.0], StopRule(most_s=8.0)) == (6, "6 iterations instead of 10")  # a seventh would end at 35 s


def test_slow_work_gets_its_least_iterations_where_four_times_its_time_is_enough() -> None:
    assert _repeats([1.5], StopRule(most_s=8.0)) == (10, "")


def test_enough_iterations_get_no_longer_than_their_time() -> None:
    n, complaint = _repeats([0.5, 1.0], StopRule(most_s=8.0))
    assert n == pytest.approx(10, abs=1)
    assert complaint.startswith("half-width")


def test_processor_time_is_told_beside_the_time_that_passed() -> None:
    hand, processor = HandClock(), HandClock()
    clock = ComponentClock(hand, cpu=processor)
    for clock_of, seconds in ((hand, 3.0), (processor, 1.0)):
        clock_of.pass_s(seconds)
    timeline = clock.stop()
    assert (timeline.total_s, timeline.cpu_s) == (3.0, 1.0)
