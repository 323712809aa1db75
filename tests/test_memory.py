"""Memory: sums over events, passes that complete each other, and known allocations in processes of their own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from harness.allocator_events import AllocatorEvent, live_bytes
from harness.fresh_process import run_fresh
from harness.memory import MemoryMeter, MemoryUse, Peaks, growth_per_token
from harness.memory_probes import probe_for
from harness.scaling_rows import Measured

PLUGIN = Path(__file__).parent / "plugins" / "costed.py"
KNOWN = 200_000_000
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, which only Linux has")


def _measure(**options: Any) -> Measured:
    plan = {
        "model": "costed",
        "options": options,
        "plugins": [str(PLUGIN)],
        "step": "infer",
        "seconds": 1.0,
        "batch_size": 1,
        "device": "cpu",
        "dtype": "float32",
        "n_tokens": 8,
        "half_width": 0.5,
        "least_s": 0.0,
        "most_s": 0.5,
        "seed": 0,
    }
    outcome = run_fresh("harness.measure_point:measure", plan, threads=1, time_limit_s=300)
    assert outcome.kind == "ok", outcome.message
    return Measured.model_validate(outcome.value)


def test_the_peak_is_the_highest_sum_of_what_is_live() -> None:
    events = [AllocatorEvent(100), AllocatorEvent(50), AllocatorEvent(-100), AllocatorEvent(60)]
    assert live_bytes(events, base=1000, n_steps=0).total.allocated == 1150


def test_a_component_has_the_peak_of_its_own_turns_and_what_it_found() -> None:
    events = [
        AllocatorEvent(mark="encoder"),
        AllocatorEvent(100),
        AllocatorEvent(-90),
        AllocatorEvent(mark="decode"),
        AllocatorEvent(5),
        AllocatorEvent(mark="encoder"),
        AllocatorEvent(1),
    ]
    use = live_bytes(events, base=0, n_steps=0)
    assert {name: peaks.allocated for name, peaks in use.components.items()} == {"encoder": 100, "decode": 15}


def test_what_was_there_before_and_is_released_lowers_what_is_live() -> None:
    assert live_bytes([AllocatorEvent(-400), AllocatorEvent(300)], base=1000, n_steps=0).total.allocated == 1000


def test_growth_leaves_out_what_only_the_first_step_brings() -> None:
    live = [1000] + [5000 + 10 * step for step in range(9)]
    assert growth_per_token(live, 10) == 10


def test_growth_of_a_batch_that_tells_of_each_clips_token_is_that_of_a_step() -> None:
    assert growth_per_token([100 * step for step in range(6) for _ in range(4)], 6) == 100


def test_two_passes_complete_each_other_and_drop_excuses_that_are_no_longer_needed() -> None:
    first = MemoryUse(
        Peaks(process=7), {"encoder": Peaks(process=5)}, None, 3, {"allocated": "not seen", "device": "no"}
    )
    second = MemoryUse(Peaks(allocated=9), {"encoder": Peaks(allocated=8)}, 2.0)
    joined = first.joined_with(second)
    assert joined.total == Peaks(allocated=9, process=7)
    assert joined.components == {"encoder": Peaks(allocated=8, process=5)}
    assert (joined.growth_per_token, joined.base, dict(joined.reasons)) == (2.0, 3, {"device": "no"})


@pytest.mark.parametrize("device", ["mps", "mps:0"])
def test_on_mps_the_cpus_numbers_do_not_pass_for_the_devices(device: str) -> None:
    probe = probe_for(device, 1_000_000)
    probe.settle()
    peaks = probe.peaks()
    probe.outside()
    assert (peaks.allocated, peaks.reserved) == (None, None)
    assert {"allocated", "reserved"} <= set(probe.reasons)


def test_a_mark_that_the_system_does_not_tell_is_none_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.memory_probes._status_bytes", lambda name: None)
    probe = probe_for("cpu", 1_000_000)
    probe.settle()
    peaks = probe.peaks()
    probe.outside()
    assert (peaks.reserved, peaks.process) == (None, None)
    assert {"reserved", "process"} <= set(probe.reasons)


class FakeProbe:
    """Peaks that a test sets."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.now = 10

    def settle(self) -> int:
        return 10

    def reset(self) -> None:
        self.now = 10

    def peaks(self) -> Peaks:
        return Peaks(allocated=self.now)

    def outside(self) -> Peaks:
        return Peaks(device=77)

    def allocated_now(self) -> int:
        return self.now


def test_a_meter_gives_a_later_component_no_peak_of_an_earlier_one() -> None:
    probe = FakeProbe()
    meter = MemoryMeter(probe)
    meter.enter("encoder")
    probe.now = 500
    meter.enter("decode")
    probe.now = 20
    use = meter.stop(1)
    assert {name: peaks.allocated for name, peaks in use.components.items()} == {"encoder": 500, "decode": 20}
    assert use.total == Peaks(allocated=500, device=77)


@linux_only
def test_a_known_allocation_is_measured_right_within_two_percent() -> None:
    measured = _measure(torch_bytes=KNOWN)
    model, peak = measured.memory.model, measured.memory.peak
    assert model == 4_000_000
    assert peak.allocated is not None and peak.reserved is not None
    assert peak.allocated - model == pytest.approx(KNOWN, rel=0.02)
    assert peak.reserved - model == pytest.approx(KNOWN, rel=0.02)


@linux_only
def test_memory_that_torch_does_not_know_is_in_the_processs_numbers() -> None:
    measured = _measure(array_bytes=KNOWN)
    memory = measured.memory
    assert memory.peak.process is not None and memory.base is not None
    assert memory.peak.process - memory.base == pytest.approx(KNOWN, rel=0.02)
    assert (memory.peak.allocated, memory.reasons) == (None, {"allocated": "the model does not use torch"})


@linux_only
def test_a_state_that_grows_is_measured_by_token() -> None:
    state = _measure(growth_bytes=65_536).state
    assert (state.formula_growth_per_token, state.measured_growth_per_token) == (65_536, 65_536)


@linux_only
def test_less_after_more_reads_as_it_does_alone() -> None:
    _measure(array_bytes=KNOWN)
    after, alone = (_measure(array_bytes=KNOWN // 10).memory for _ in range(2))
    assert after.peak.process is not None and alone.peak.process is not None
    assert after.peak.process <= 1.02 * alone.peak.process
