"""What `frontier` writes: a line of `probes.jsonl` for each probe, and in `record.json` what they came to.

Both have JSON schemas in `harness/schema/`; write those anew with `python -m harness.frontier_rows`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from harness.contracts import OptionValue
from harness.environment import Environment
from harness.fresh_process import OutcomeKind
from harness.record_files import Row, read_record, read_rows
from harness.records import RECORD_FILE, ModelRow
from harness.schema_files import texts_of, write_texts

SCHEMA_VERSION: Final = 1
PROBES_FILE = "probes.jsonl"
Step = Literal["growth", "bisection", "edge"]


class AnswerRow(Row):
    """One answer under the caps.

    `load_s` is the model's loading, `answer_s` the answer from generating the audio to the last token; the process has
    more, its start and its imports. `peak_rss_bytes` is the process's resident set at its highest, shared libraries
    included; the device's two are of torch's CUDA allocator.
    """

    load_s: float
    answer_s: float
    peak_rss_bytes: int
    peak_device_allocated_bytes: int | None
    peak_device_reserved_bytes: int | None
    n_audio_tokens: int
    n_answer_tokens: int
    kernels: dict[str, str]


class ProofRow(Row):
    """Label scores after the clip (nats per token), and how far the largest moved when the last second changed."""

    scores: tuple[float, ...]
    sensitivity: float
    kernels: dict[str, str]


class SecondWayRow(Row):
    """The same clip by other means: "agrees", "differs", "same kernels" (so that nothing was compared), or "not done".

    `difference` is the largest between label scores, in nats per token; `message` says why it was not done.
    """

    options: dict[str, OptionValue]
    result: Literal["agrees", "differs", "same kernels", "not done"]
    difference: float | None
    message: str


class ProbeRow(Row):
    """One length tried once: a line of `probes.jsonl`. Times are of whole processes.

    `kind` is "ok" only where the answer came within the caps and its numbers were proved.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model: str
    length_s: float
    step: Step
    kind: OutcomeKind
    message: str
    started_utc: str
    answer_wall_s: float
    exit_code: int | None
    answer: AnswerRow | None
    proof_wall_s: float | None
    proof: ProofRow | None
    second_way: SecondWayRow | None


class FrontierRow(Row):
    """The frontier of one model.

    `edge_s` is the longest audio that passed all its `n_passes` probes, None where the shortest failed. `breaks_at_s`
    is the shortest length above it that failed, by `breaks_by`; None for both where the search's longest passed, so
    that the edge is no edge but a bound. `wall_s` is of the session that ended it.
    """

    model: ModelRow
    options: dict[str, OptionValue]
    edge_s: float | None
    n_passes: int
    breaks_at_s: float | None
    breaks_by: OutcomeKind | None
    breaks_message: str
    n_probes: int
    wall_s: float


class FrontierRecord(Row):
    """One `frontier` command. `ended_utc` is None while it works, and stays so where it was interrupted.

    `memory_cap` names how the cap is kept: "RLIMIT_DATA" (see `harness.fresh_process`), or torch's own on CUDA.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    command: tuple[str, ...]
    config: dict[str, Any]
    memory_cap: str
    prompt: str
    labels: tuple[str, ...]
    audio: str
    environment: Environment
    started_utc: str
    ended_utc: str | None
    rows: tuple[FrontierRow, ...]


def load_probes(folder: Path) -> list[ProbeRow]:
    """The probes of a folder in order; a torn last line is left out.

    Raises:
        RecordError: a line is damaged, or of an unknown version.
    """
    return read_rows(folder / PROBES_FILE, ProbeRow)


def load_frontier(folder: Path) -> FrontierRecord:
    """Read `record.json` of a folder.

    Raises:
        RecordError: it is not there, is damaged, or of an unknown version.
    """
    return read_record(folder / RECORD_FILE, FrontierRecord)


def schema_texts() -> dict[str, str]:
    """File name to content of the schemas of both."""
    return texts_of({"frontier_probe": ProbeRow, "frontier_record": FrontierRecord}, SCHEMA_VERSION)


if __name__ == "__main__":
    write_texts(schema_texts())
