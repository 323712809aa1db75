"""Benches: the same work done in several ways, timed in turns in one process, as ratios.

The machine may be shared and noisy. So every round times each case once, in an order drawn anew; a ratio compares the
least times of all rounds, and its interval comes from the rounds themselves (each case beside the baseline of the same
round, bootstrap over rounds). The machine's own rates, for the floors, are measured before each bench; the best counts.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from harness.contracts import Bench, BenchCase
from harness.environment import Environment, describe_environment
from harness.hashing import canonical_sha256
from harness.record_files import Row, to_json, write_atomically

LEAST_ROUNDS = 3
N_RESAMPLES = 1000
# Of the machine's rates: numbers that stay in a core's cache, and bytes that do not.
CACHED_NUMBERS = 1 << 16
STREAMED_BYTES = 1 << 27


class CaseRow(Row):
    """One case of a bench.

    `seconds` are of each round. `ratio` is how many times as fast as the baseline it was, by the least times;
    `ratio_low` and `ratio_high` bound the median of the rounds' ratios with 95 % confidence. `floor_share` is the
    floor's time over the least time: 1 is as fast as the machine was at its best while the rates were measured.
    `failure` says why a case has no times.
    """

    bench: str
    case: str
    is_baseline: bool
    seconds: tuple[float, ...]
    least_s: float | None
    median_s: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    goal: float | None
    floor_share: float | None
    failure: str | None = None


class MachineRates(Row):
    """What one core does at best while the benches run: exponentials of float32 in cache, bytes copied in memory."""

    exponentials_per_s: float
    bytes_per_s: float

    def best_with(self, other: MachineRates) -> MachineRates:
        """The better of both, rate by rate."""
        return MachineRates(
            exponentials_per_s=max(self.exponentials_per_s, other.exponentials_per_s),
            bytes_per_s=max(self.bytes_per_s, other.bytes_per_s),
        )


class BenchRecord(Row):
    """One `bench` command."""

    schema_version: Literal[1] = 1
    command: tuple[str, ...]
    started_utc: str
    threads: int
    seed: int
    seconds_a_bench: float
    machine: MachineRates
    environment: Environment
    rows: tuple[CaseRow, ...]


@dataclass(frozen=True)
class BenchPlan:
    """How long to measure: rounds until `seconds` are over or there are `rounds`, but at least LEAST_ROUNDS."""

    seconds: float
    rounds: int
    seed: int


def run_benches(
    benches: Sequence[Bench], plan: BenchPlan, say: Callable[[Bench, Sequence[CaseRow]], None]
) -> tuple[MachineRates, list[CaseRow]]:
    """Measure all benches; `say` hears the rows of each when it is done.

    A case that cannot be prepared or fails is a row with its reason; a bench without its baseline has no ratios.
    """
    machine = measure_machine()
    rows: list[CaseRow] = []
    for bench in benches:
        machine = machine.best_with(measure_machine())
        found = run_bench(bench, plan, machine)
        rows += found
        say(bench, found)
    return machine, rows


def run_bench(bench: Bench, plan: BenchPlan, machine: MachineRates) -> list[CaseRow]:
    """Time the cases of one bench in turns.

    Raises:
        ValueError: the baseline, or a goal's case, is none of the cases.
    """
    names = [case.name for case in bench.cases]
    strangers = [name for name in (bench.baseline, *bench.goals) if name not in names]
    if strangers:
        raise ValueError(f"bench '{bench.name}' has no case '{strangers[0]}'")
    ready, failures = _prepare(bench.cases)
    times = _time_in_turns(ready, plan, failures)
    return [_row(bench, case, times, failures.get(case.name), machine) for case in bench.cases]


def _prepare(cases: Sequence[BenchCase]) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """Inputs made and every case run once, untimed: compilers, caches and allocators have had their turn."""
    ready: dict[str, Callable[[], object]] = {}
    failures: dict[str, str] = {}
    for case in cases:
        # A case may fail in any way its libraries know; the others are still worth their figures.
        try:
            work = case.make()
            work()
        except Exception as error:
            failures[case.name] = _reason(error)
        else:
            ready[case.name] = work
    return ready, failures


def _time_in_turns(
    ready: Mapping[str, Callable[[], object]], plan: BenchPlan, failures: dict[str, str]
) -> dict[str, list[float]]:
    draw = random.Random(plan.seed)
    times: dict[str, list[float]] = {name: [] for name in ready}
    for _ in _rounds(plan):
        order = [name for name in ready if name not in failures]
        draw.shuffle(order)
        for name in order:
            started = time.perf_counter()
            try:
                ready[name]()
            except Exception as error:
                failures[name] = _reason(error)
            else:
                times[name].append(time.perf_counter() - started)
    return times


def _rounds(plan: BenchPlan) -> Iterator[int]:
    started = time.perf_counter()
    for number in range(plan.rounds):
        if number >= LEAST_ROUNDS and time.perf_counter() - started > plan.seconds:
            return
        yield number


def _row(
    bench: Bench, case: BenchCase, times: Mapping[str, list[float]], failure: str | None, machine: MachineRates
) -> CaseRow:
    seconds = times.get(case.name, []) if failure is None else []
    base = times.get(bench.baseline, [])
    # A baseline that failed half-way has fewer rounds than the others, which then have nothing beside them.
    has_ratio = bool(seconds) and len(base) == len(seconds)
    low, high = _ratio_interval(base, seconds) if has_ratio else (None, None)
    floor_s = case.n_exponentials / machine.exponentials_per_s + case.n_bytes / machine.bytes_per_s
    return CaseRow(
        bench=bench.name,
        case=case.name,
        is_baseline=case.name == bench.baseline,
        seconds=tuple(seconds),
        least_s=min(seconds) if seconds else None,
        median_s=statistics.median(seconds) if seconds else None,
        ratio=min(base) / min(seconds) if has_ratio else None,
        ratio_low=low,
        ratio_high=high,
        goal=bench.goals.get(case.name),
        floor_share=floor_s / min(seconds) if seconds and floor_s else None,
        failure=failure,
    )


def _ratio_interval(base: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """95 % percentile interval of the median over rounds of baseline time over case time."""
    ratios = [b / s for b, s in zip(base, seconds, strict=True)]
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(N_RESAMPLES))
    return medians[round(0.025 * (N_RESAMPLES - 1))], medians[round(0.975 * (N_RESAMPLES - 1))]


def _reason(error: Exception) -> str:
    first_line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line}"


def measure_machine(repeats: int = 20) -> MachineRates:
    """The best of some repeats, on as many threads as torch now uses."""
    import torch

    numbers = torch.rand(CACHED_NUMBERS)
    out = torch.empty_like(numbers)
    source = torch.ones(STREAMED_BYTES // 8)
    target = torch.empty_like(source)
    # Which of the two is the faster differs from one processor to another, by a factor of three.
    exp_s = min(
        _least_seconds(lambda f=f: [f(numbers, out=out) for _ in range(16)], repeats)  # type: ignore[misc]
        for f in (torch.exp, torch.exp2)
    )
    copy_s = _least_seconds(lambda: target.copy_(source), repeats)
    # A copy reads as many bytes as it writes.
    return MachineRates(
        exponentials_per_s=16 * CACHED_NUMBERS / exp_s, bytes_per_s=2 * source.numel() * source.element_size() / copy_s
    )


def _least_seconds(work: Callable[[], object], repeats: int) -> float:
    work()
    least = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - started)
    return least


def write_record(
    results: Path, command: Sequence[str], threads: int, plan: BenchPlan, machine: MachineRates, rows: Sequence[CaseRow]
) -> Path:
    """Write `results/bench/<utc>-<id>/record.json`; returns its path.

    Raises:
        RecordError: it cannot be written.
    """
    now = datetime.now(UTC)
    record = BenchRecord(
        command=tuple(command),
        started_utc=now.isoformat(timespec="seconds"),
        threads=threads,
        seed=plan.seed,
        seconds_a_bench=plan.seconds,
        machine=machine,
        environment=describe_environment("cpu"),
        rows=tuple(rows),
    )
    identity = canonical_sha256(record.model_dump(mode="json"))[:12]
    folder = results / "bench" / f"{now:%Y%m%dT%H%M%SZ}-{identity}"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "record.json", to_json(record))
    return folder / "record.json"
