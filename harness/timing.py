"""Time by component: a clock that a model tells where it is, and a rule that says when enough was measured.

Definitions. Time to first token (TTFT) runs from audio in host memory to the first new token id on the host. Time per
output token (TPOT) is (last - first token) / (n - 1), n counted by token id. Reported is the median of the iterations,
with the distribution-free interval of a median from order statistics (David and Nagaraja, Order Statistics, section
7.1): nothing is assumed of noise that is never normal. Every sample is kept.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.contracts import Component

Now = Callable[[], float]
Wait = Callable[[], None]

CONFIDENCE = 0.95
# Fewer say nothing of spread. A point that reaches only these before its time is over is marked as noisy.
FEWEST_ITERATIONS = 3
# How much longer than others a slow point may take to come to its least iterations.
PATIENCE = 4


def wait_for_device(device: str) -> Wait:
    """What to call before reading a clock: it returns when the device has done all that it was given."""
    kind = device.partition(":")[0]
    if kind not in ("cuda", "mps"):
        return lambda: None
    import torch

    if kind == "mps":
        return torch.mps.synchronize
    return lambda: torch.cuda.synchronize(device)


class Stopwatch:
    """Seconds between two moments, with all work of the device done at both."""

    def __init__(self, now: Now = time.perf_counter, wait: Wait = lambda: None) -> None:
        self._now = now
        self._wait = wait
        self._started = 0.0

    def start(self) -> None:
        """Begin."""
        self._wait()
        self._started = self._now()

    def stop(self) -> float:
        """Seconds since `start`."""
        self._wait()
        return self._now() - self._started


@dataclass(frozen=True)
class Timeline:
    """One answer in time, in seconds since it began.

    `component_s` sums the turns of each component; what the model did before it named one belongs to none. `token_s`
    says when each answer token was known on the host. `cpu_s` is what this process used of all cores meanwhile, None
    where nobody asked.
    """

    total_s: float
    component_s: Mapping[Component, float]
    token_s: tuple[float, ...]
    cpu_s: float | None = None

    @property
    def first_token_s(self) -> float | None:
        """TTFT; None where no token was told."""
        return self.token_s[0] if self.token_s else None

    def per_token_s(self, n_steps: int) -> float | None:
        """TPOT over `n_steps` tokens a clip; None below two. A batch may tell one token a step, or one a clip."""
        if n_steps < 2 or len(self.token_s) < 2:
            return None
        return (self.token_s[-1] - self.token_s[0]) / (n_steps - 1)


class ComponentClock:
    """A `Meter` that reads a clock whenever the work goes over to another component, and at each token.

    On a device that works on its own, waiting for it at every change costs time that a user would not lose: such a
    clock tells the split between components, and one without `splits` tells the times that count. `token` never waits,
    since a token that is known on the host has been waited for.
    """

    def __init__(
        self,
        now: Now = time.perf_counter,
        wait: Wait = lambda: None,
        splits: bool = True,
        cpu: Now = time.process_time,
    ) -> None:
        self._now = now
        self._wait = wait
        self._splits = splits
        self._cpu = cpu
        self.start()

    def start(self) -> None:
        """Begin anew; forgets all that was told before."""
        self._current: Component | None = None
        self._component_s: dict[Component, float] = {}
        self._tokens: list[float] = []
        self._wait()
        self._cpu_started = self._cpu()
        self._started = self._since = self._now()

    def enter(self, component: Component) -> None:
        """Book the time so far on the component that ends here."""
        if self._splits:
            self._wait()
            self._book(self._now())
            self._current = component

    def token(self) -> None:
        """Note the time of one more token."""
        self._tokens.append(self._now() - self._started)

    def stop(self) -> Timeline:
        """The answer is done."""
        self._wait()
        ended = self._now()
        cpu_s = self._cpu() - self._cpu_started
        if self._splits:
            self._book(ended)
        return Timeline(ended - self._started, dict(self._component_s), tuple(self._tokens), cpu_s)

    def _book(self, at: float) -> None:
        if self._current is not None:
            self._component_s[self._current] = self._component_s.get(self._current, 0.0) + at - self._since
        self._since = at


@dataclass(frozen=True)
class Spread:
    """Median of some samples with its interval; `low` and `high` are None where there are too few for one."""

    median: float
    low: float | None
    high: float | None
    n_samples: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Summarise.

        Raises:
            ValueError: there are no samples.
        """
        if not samples:
            raise ValueError("no samples, no median")
        low, high = median_interval(samples) or (None, None)
        return cls(statistics.median(samples), low, high, len(samples))

    @property
    def relative_half_width(self) -> float:
        """Half the interval's width as a share of the median; infinite where there is no interval."""
        if self.low is None or self.high is None:
            return math.inf
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def median_interval(samples: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """The narrowest symmetric pair of order statistics that holds the median with at least that confidence.

    The number of samples below the median is Binomial(n, 1/2). None where even the extremes do not reach the
    confidence: below 6 samples for 95 %.
    """
    n, ordered = len(samples), sorted(samples)
    allowed = (1.0 - confidence) * 2**n / 2
    rank, tail = 0, 1
    while tail <= allowed and rank < n // 2:
        rank += 1
        tail += math.comb(n, rank)
    return None if rank == 0 else (ordered[rank - 1], ordered[n - rank])


@dataclass(frozen=True)
class StopRule:
    """When to stop: enough iterations, for long enough, with a narrow interval; or no time left.

    `half_width` is that of the median's interval as a share of the median. `most_s` and `most_iterations` end what
    never gets narrow; such a point is noisy. `most_s` may be passed `PATIENCE` times by what is so slow that it has not
    had its `least_iterations` yet.
    """

    half_width: float = 0.02
    least_iterations: int = 10
    least_s: float = 2.0
    most_s: float = 8.0
    most_iterations: int = 1000

    def complaint(self, samples: Sequence[float], elapsed_s: float) -> str:
        """What the samples lack; empty when nothing."""
        if len(samples) < self.least_iterations:
            return f"{len(samples)} iterations instead of {self.least_iterations}"
        if elapsed_s < self.least_s:
            return f"{elapsed_s:.1f} s instead of {self.least_s:g} s"
        width = Spread.of(samples).relative_half_width
        if width > self.half_width:
            return f"half-width {100 * width:.1f} % instead of {100 * self.half_width:g} %"
        return ""

    def is_over(self, samples: Sequence[float], elapsed_s: float) -> bool:
        """Whether there is no time for one more, whatever the samples lack."""
        if len(samples) >= self.most_iterations:
            return True
        if len(samples) < FEWEST_ITERATIONS:
            return False
        most_s = self.most_s if len(samples) >= self.least_iterations else PATIENCE * self.most_s
        return elapsed_s + statistics.median(samples) > most_s


@dataclass(frozen=True)
class Repeats:
    """What was measured again and again. `complaint` says what the samples lack by the rule; empty when nothing."""

    timelines: tuple[Timeline, ...]
    complaint: str


def repeat(run: Callable[[], Timeline], rule: StopRule, now: Now = time.perf_counter) -> Repeats:
    """Run until the rule is content with the total times, or has no time left."""
    timelines: list[Timeline] = []
    started = now()
    while True:
        timelines.append(run())
        totals = [timeline.total_s for timeline in timelines]
        elapsed_s = now() - started
        complaint = rule.complaint(totals, elapsed_s)
        if not complaint or rule.is_over(totals, elapsed_s):
            return Repeats(tuple(timelines), complaint)
