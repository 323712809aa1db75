"""What `scaling` writes: a line of `points.jsonl` for each point, and `record.json` beside it.

Both are versioned, with JSON schemas in `harness/schema/`; write those anew with `python -m harness.scaling_rows`.
Tables, fits and figures are made from these rows alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from harness.contracts import Component, OptionValue
from harness.environment import Environment
from harness.fresh_process import OutcomeKind
from harness.record_files import Row, append_row, find_record, read_rows, to_json, write_atomically
from harness.records import RECORD_FILE, ModelRow
from harness.schema_files import texts_of, write_texts

SCHEMA_VERSION: Final = 1
POINTS_FILE = "points.jsonl"
Step = Literal["infer", "train"]


class SpreadRow(Row):
    """Median of the samples with its 95 % interval from order statistics; none where there are too few samples."""

    median: float
    low: float | None
    high: float | None
    n_samples: int


class PeakRow(Row):
    """Peaks in bytes; what each means says `harness.memory`."""

    allocated: int | None
    reserved: int | None
    process: int | None
    device: int | None


class MemoryRow(Row):
    """The five numbers: the model's bytes and four peaks. `base` was held before the work; `reasons` excuse a None."""

    model: int | None
    peak: PeakRow
    base: int | None
    reasons: dict[str, str]


class WorkRow(Row):
    """Operations from formulas, one multiplication or one addition each; `other` (norms, activations) beside them."""

    flops: int
    macs: int
    other: int
    parts: dict[str, int]


class ComponentRow(Row):
    """One component: its time, its share of the formulas, its memory, and the operations a second that follow."""

    component: Component
    seconds: SpreadRow | None
    work: WorkRow | None
    flops_per_s: float | None
    peak: PeakRow | None


class StateRow(Row):
    """What the language model keeps for one clip: by formula after `n_tokens` audio tokens, and its measured growth.

    `formula_growth_per_token` and `measured_growth_per_token` are bytes for each further token.
    """

    n_tokens: int | None
    growing: int | None
    constant: int | None
    formula_growth_per_token: float | None
    measured_growth_per_token: float | None


class EnergyRow(Row):
    """Joules of one run of the whole batch, by counter ("cpu", "gpu"), idle power subtracted; gross ones with it."""

    joules: dict[str, float]
    gross_joules: dict[str, float]
    idle_watts: dict[str, float]
    n_runs: int
    window_s: float
    reasons: dict[str, str]


class SamplesRow(Row):
    """Every sample of the time pass, in seconds, one entry an iteration.

    `component_s` has its own iterations on a device that works on its own. `token_s` are the moments of the tokens of
    the last iteration, since its start. `device_s` are the device's own clock between start and end. `cpu_s` is the
    process's time on all cores: on the CPU, what other programs took of `total_s` is not in it.
    """

    total_s: tuple[float, ...]
    first_token_s: tuple[float, ...]
    per_token_s: tuple[float, ...]
    component_s: dict[Component, tuple[float, ...]]
    device_s: tuple[float, ...]
    token_s: tuple[float, ...]
    cpu_s: tuple[float, ...] = Field(default=())


class Measured(Row):
    """What one process measured. Times are of a whole batch; `noise` says what the samples lack, empty when nothing.

    `work` is by formula, and None for a training step, where `work_missing` says why; `counted` are the operations of
    such a step by component, as they ran. `flops_per_s` is of the one or the other. `real_time_factor` is time over
    seconds of audio in the batch. `tokens_sha256` hashes the token ids of the timed run; `tokens_alike` tells whether
    the first call gave the same.
    """

    description: ModelRow
    kernels: dict[str, str]
    load_s: float
    first_call_s: float
    total: SpreadRow
    first_token: SpreadRow | None
    per_token: SpreadRow | None
    prefill: SpreadRow | None
    device_time: SpreadRow | None
    noise: str
    real_time_factor: float
    clips_per_s: float
    answer_tokens_per_s: float | None
    work: WorkRow | None
    work_missing: str
    flops_per_s: float | None
    memory: MemoryRow
    components: tuple[ComponentRow, ...]
    state: StateRow
    energy: EnergyRow | None
    energy_missing: str
    tokens_sha256: str | None
    tokens_alike: bool | None
    samples: SamplesRow
    counted: dict[Component | Literal["outside"], int] | None = None

    @property
    def flops(self) -> int | None:
        """Operations in all: by formula, else as counted; None where neither is known."""
        if self.work is not None:
            return self.work.flops
        return None if self.counted is None else sum(self.counted.values())

    def component_flops(self, row: ComponentRow) -> int | None:
        """Operations of one component, in the same way."""
        return row.work.flops if row.work is not None else (self.counted or {}).get(row.component)


class PointKey(Row):
    """What decides a point within a record's conditions.

    `fingerprint` is the model's own: weights and options. `graph` is how the work is launched: one kernel at a time.
    """

    model: str
    variant: str
    options: dict[str, OptionValue]
    fingerprint: str
    step: Step
    seconds: float
    batch_size: int
    n_tokens: int
    device: str
    dtype: str
    threads: int
    graph: Literal["none"] = "none"

    @property
    def full_name(self) -> str:
        """As it is typed, such as "ssalm:tiny"."""
        return f"{self.model}:{self.variant}" if self.variant else self.model

    @property
    def identity(self) -> str:
        """The same for two keys that are the same."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


class PointRow(Row):
    """One point: a line of `points.jsonl`. `measured` is there when `outcome` is "ok"; else `message` says why not.

    `wall_s` is the whole life of its process. `position` is its place in the drawn order of the session.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    key: PointKey
    outcome: OutcomeKind
    message: str
    exit_code: int | None
    wall_s: float
    started_utc: str
    position: int
    measured: Measured | None


class CoverageRow(Row):
    """Formula against counter for one model on a short clip, by component, and operators that no formula knows.

    "outside" is work before the model named a component. `left_out` are operators that nobody counts (additions, norms,
    copies), with the values that they returned. `fingerprint` is that of the model's points.
    """

    model: str
    fingerprint: str = ""
    seconds: float
    formula_flops: dict[Component | Literal["outside"], int]
    counted_flops: dict[Component | Literal["outside"], int]
    uncovered: tuple[str, ...]
    left_out: dict[str, int] = Field(default={})

    @property
    def identity(self) -> tuple[str, str]:
        """What need not be counted again."""
        return self.model, self.fingerprint

    def disagreements(self, tolerance: float = 0.01) -> list[Component | Literal["outside"]]:
        """Components whose two figures differ by more than that share."""
        pairs = self.formula_flops.items()
        return [c for c, n in pairs if abs(n - self.counted_flops[c]) > tolerance * max(n, self.counted_flops[c])]


class ScalingSession(Row):
    """One command that worked on the record; `ended_utc` is None where it was interrupted or killed."""

    command: tuple[str, ...]
    config: dict[str, Any]
    started_utc: str
    ended_utc: str | None
    n_measured: int
    load_average: tuple[float, float, float] | None


class ScalingRecord(Row):
    """All that makes the points repeatable: `record.json`. `conditions` decide the folder; points add theirs."""

    schema_version: Literal[1] = SCHEMA_VERSION
    record_id: str
    conditions: dict[str, Any]
    prompt: str
    environment: Environment
    sessions: tuple[ScalingSession, ...]
    coverage: tuple[CoverageRow, ...] = Field(default=())


def append_point(folder: Path, point: PointRow) -> None:
    """Add one line; when this returns, it is on disk.

    Raises:
        RecordError: it cannot be written.
    """
    append_row(folder / POINTS_FILE, point)


def load_points(folder: Path) -> list[PointRow]:
    """The points of a folder in the order of writing; a torn last line is left out.

    Raises:
        RecordError: a line is damaged, or of an unknown version.
    """
    return read_rows(folder / POINTS_FILE, PointRow)


def newest_points(points: Sequence[PointRow]) -> list[PointRow]:
    """The last point of each key: one that was measured afresh stands for the one before."""
    return list({point.key.identity: point for point in points}.values())


def load_scaling_record(folder: Path) -> ScalingRecord | None:
    """Read `record.json`; None when there is none.

    Raises:
        RecordError: it is damaged, or of an unknown version.
    """
    return find_record(folder / RECORD_FILE, ScalingRecord)


def write_scaling_record(folder: Path, record: ScalingRecord) -> None:
    """Write `record.json` atomically."""
    write_atomically(folder / RECORD_FILE, to_json(record))


def schema_texts() -> dict[str, str]:
    """File name to content of the schemas of both."""
    return texts_of({"scaling_point": PointRow, "scaling_record": ScalingRecord}, SCHEMA_VERSION)


if __name__ == "__main__":
    write_texts(schema_texts())
