"""What each further minute costs while a model listens on: time and memory, minute by minute, of one long answer.

A recurrent state should make every minute cost the same; a cache that grows makes each cost more than the last. The
sound itself keeps the log: it comes a second at a time, and whenever a model asks for the first second of a new minute,
all that it did with the minute before is done. So nothing of the model's inside is needed, but a model that takes all
of the sound before it begins shows nothing until the end: then `after_s` holds its time, and the table says so.

Models work in pieces longer than a second (windows of an encoder, chunks of a language model), so single minutes are
uneven and the table shows spans of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.clips import UnreadClip
from harness.contracts import CostedModel, Query
from harness.environment import describe_environment
from harness.fresh_process import kind_of, run_fresh
from harness.frontier import FrontierConfig, Known, cap_text, full_name, identity_of, interrupted, look_at_all
from harness.frontier_probe import LABELS, Subject, asked, loaded
from harness.noise_bursts import PROMPT, NoiseBursts
from harness.record_files import append_row, to_json, to_line, write_atomically
from harness.records import RECORD_FILE
from harness.run_folder import create_run, locked, utc_now
from harness.streaming_rows import (
    POINTS_FILE,
    MinuteRow,
    StreamingRecord,
    StreamingRow,
    load_minutes,
    load_streaming,
)
from harness.tables import Table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MINUTE_S = 60
# Long enough to go through every piece of a streamed answer once: compilers and allocators have had their turn.
WARM_UP_S = 180.0
TABLE_SPANS = 5
TABLE_NOTE = (
    "One pass, without intervals. Models hear in pieces: what they do with the end of a span may fall into the next, "
    "and the last of it into after s (from the end of the sound to the answer). State: by formula."
)


@dataclass(frozen=True)
class Mark:
    """How things stood at one moment: two clocks in seconds, memory in bytes."""

    wall: float
    cpu: float
    resident: int | None
    allocated: int | None


class LoggingSound:
    """A `BlockSource` that takes a mark at the start, after each whole minute, and at its end."""

    def __init__(self, sound: NoiseBursts, take: Callable[[], Mark]) -> None:
        self._sound = sound
        self._take = take
        self.marks: list[Mark] = []
        self.ended: Mark | None = None

    def blocks(self, sample_rate_hz: int) -> Generator[npt.NDArray[np.float32], None, None]:
        """The sound's; a reader that begins anew begins the log anew."""
        self.marks, self.ended = [self._take()], None
        n_heard, per_minute = 0, MINUTE_S * sample_rate_hz
        for block in self._sound.blocks(sample_rate_hz):
            yield block
            n_heard += len(block)
            if n_heard >= per_minute * len(self.marks):
                self.marks.append(self._take())
        self.ended = self._take()

    def load(self, sample_rate_hz: int) -> Any:
        """As the sound's; nothing is logged."""
        return self._sound.load(sample_rate_hz)

    def identity(self) -> str:
        """As the sound's."""
        return self._sound.identity()

    def duration_s(self) -> float:
        """As the sound's."""
        return self._sound.duration_s()


# --- in the fresh process --------------------------------------------------------------------------------------------


def listen(subject: Mapping[str, Any], length_s: float) -> dict[str, Any]:
    """Answer one question about long sound and log every minute of it; a target of `run_fresh`.

    Returns:
        "minutes", fields of `MinuteRow` but for the model, and fields of `StreamingRow` but for the model. What was
        logged before a failure is kept.
    """
    chosen = Subject.of(subject)
    model, description = loaded(chosen, length_s)
    rate = description.sample_rate_hz
    labels = LABELS if description.needs_labels else None
    asked(model, Query("warm-up", NoiseBursts(min(WARM_UP_S, length_s), chosen.seed).heard_as(rate), PROMPT, labels))
    sound = LoggingSound(NoiseBursts(length_s, chosen.seed), lambda: mark(chosen.device))
    kind, message, done = "ok", "", None
    try:
        asked(model, Query(sound.identity(), UnreadClip(sound, rate), PROMPT, labels))
        done = mark(chosen.device)
    except Exception as error:  # the minutes before it are still worth their figures
        kind, message = kind_of(error), f"{type(error).__name__}: {error}"
    tokens_a_minute = (description.audio_tokens_per_s or 0.0) * MINUTE_S
    ended = sound.ended
    return {
        "minutes": minute_fields(sound.marks, model if isinstance(model, CostedModel) else None, tokens_a_minute),
        "kind": kind,
        "message": message,
        "n_minutes": max(0, len(sound.marks) - 1),
        "listening_s": None if ended is None else ended.wall - sound.marks[0].wall,
        "after_s": None if ended is None or done is None else done.wall - ended.wall,
    }


def mark(device: str) -> Mark:
    """How this process stands now; the device is waited for."""
    allocated = None
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
        allocated = torch.cuda.memory_allocated(device)
    return Mark(time.perf_counter(), time.process_time(), resident_bytes(), allocated)


def resident_bytes() -> int | None:
    """The process's resident set now; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), None)


def minute_fields(marks: Sequence[Mark], model: CostedModel | None, tokens_a_minute: float) -> list[dict[str, Any]]:
    """What lies between two marks, and how things stood at the later one."""
    rows = []
    for minute, (before, after) in enumerate(zip(marks, marks[1:], strict=False), start=1):
        state = None if model is None else model.state_bytes(round(minute * tokens_a_minute))
        rows.append(
            {
                "minute": minute,
                "wall_s": after.wall - before.wall,
                "cpu_s": after.cpu - before.cpu,
                "resident_bytes": after.resident,
                "device_allocated_bytes": after.allocated,
                "state_growing_bytes": None if state is None else state.growing,
                "state_constant_bytes": None if state is None else state.constant,
            }
        )
    return rows


# --- in the process that asks ----------------------------------------------------------------------------------------


def measure_streaming(
    config: FrontierConfig, results: Path, command: Sequence[str], say: Callable[[str], None], fresh: bool = False
) -> tuple[Path, StreamingRecord, list[MinuteRow]]:
    """Let each model listen for `config.ladder.longest_s`, in a process of its own under the caps.

    Writes `results/streaming/<utc>-<id>/`: `points.jsonl` and `record.json`, both after each model. The same command
    continues what was interrupted, with the first model that is not in the record: half a model's minutes are no
    answer. What ended is done again in a folder of its own.

    Args:
        config: what to measure.
        results: where records lie.
        command: as typed.
        say: hears a line a model.
        fresh: leave what was interrupted alone and begin anew.

    Raises:
        UsageError: a model cannot be probed, or the folder cannot be made.
        RecordError: what was interrupted cannot be read.
    """
    known = look_at_all(config, needs_scores=False)
    home, identity = results / "streaming", identity_of(config)
    with locked(home, identity):
        begun = None if fresh else interrupted(home, identity, load_streaming)
        folder = begun or create_run(home, identity)
        record = load_streaming(folder) if begun is not None else _new_record(config, command)
        points = _keep_minutes(folder, [full_name(row.model) for row in record.rows])
        if record.rows:
            say(f"{folder}: {len(record.rows)} of {len(known)} models are there already")
        write_atomically(folder / RECORD_FILE, to_json(record))
        for one in known[len(record.rows) :]:
            row, minutes = _listened(config, one)
            for point in minutes:
                append_row(folder / POINTS_FILE, point)
            points += minutes
            record = record.model_copy(update={"rows": (*record.rows, row)})
            write_atomically(folder / RECORD_FILE, to_json(record))
            say(f"{one.name}: {row.n_minutes} minutes, {row.kind.replace('_', ' ')}{row.message and ': '}{row.message}")
        record = record.model_copy(update={"ended_utc": utc_now()})
        write_atomically(folder / RECORD_FILE, to_json(record))
    return folder, record, points


def _new_record(config: FrontierConfig, command: Sequence[str]) -> StreamingRecord:
    return StreamingRecord(
        command=tuple(command),
        config=config.as_record(),
        memory_cap=cap_text(config),
        prompt=PROMPT,
        environment=describe_environment(config.device),
        started_utc=utc_now(),
        ended_utc=None,
        rows=(),
    )


def _keep_minutes(folder: Path, names: Sequence[str]) -> list[MinuteRow]:
    """The minutes of these models; those of another, which was killed before it was in the record, are dropped."""
    path = folder / POINTS_FILE
    kept = [point for point in load_minutes(folder) if point.model in names]
    if path.exists():
        write_atomically(path, "".join(to_line(point) for point in kept))
    return kept


def _listened(config: FrontierConfig, known: Known) -> tuple[StreamingRow, list[MinuteRow]]:
    outcome = run_fresh(
        "harness.streaming_cost:listen",
        {"subject": asdict(known.subject), "length_s": config.ladder.longest_s},
        threads=config.threads,
        memory_bytes=None if config.has_device_memory else config.memory_bytes,
        time_limit_s=config.time_limit_s,  # loading and warming up included: what hangs has to end
    )
    told = outcome.value or {
        "kind": outcome.kind,
        "message": outcome.message,
        "n_minutes": 0,
        "listening_s": None,
        "after_s": None,
    }
    minutes = [MinuteRow(model=known.name, **fields) for fields in told.get("minutes", ())]
    row = StreamingRow(model=known.row, **{name: value for name, value in told.items() if name != "minutes"})
    return row, minutes


def streaming_table(record: StreamingRecord, points: Sequence[MinuteRow]) -> Table:
    """Spans of minutes, one after another for each model: what a minute took, and by how much memory grew in it."""
    header = (
        "model",
        "minutes",
        "s/min",
        "CPU s/min",
        "resident KiB/min",
        "device KiB/min",
        "state KiB/min",
        "after s",
    )
    rows = []
    for told in record.rows:
        name = full_name(told.model)
        own = [point for point in points if point.model == name]
        for first, last in spans(len(own)):
            rows.append((name, f"{first + 1}-{last}", *_span_cells(own, first, last), _after_text(told)))
        if not own:
            rows.append((name, told.kind.replace("_", " "), *["-"] * 5, _after_text(told)))
    return Table(header, tuple(rows))


def spans(n: int) -> list[tuple[int, int]]:
    """At most TABLE_SPANS stretches that cover 0 to n, as even as whole minutes can be."""
    n_spans = min(TABLE_SPANS, n)
    cuts = [round(n * index / n_spans) for index in range(n_spans + 1)] if n_spans else [0]
    return list(zip(cuts, cuts[1:], strict=False))


def _span_cells(own: Sequence[MinuteRow], first: int, last: int) -> list[str]:
    part = own[first:last]
    cells = [f"{sum(getattr(point, name) for point in part) / len(part):.3g}" for name in ("wall_s", "cpu_s")]
    # Growth from the end of the minute before the span; the first minute has none before it.
    before, n_steps = (own[first - 1], len(part)) if first else (part[0], len(part) - 1)
    for name in ("resident_bytes", "device_allocated_bytes", "state_growing_bytes"):
        start, end = getattr(before, name), getattr(part[-1], name)
        known = start is not None and end is not None and n_steps
        cells.append(f"{(end - start) / n_steps / 1024:+.1f}" if known else "-")
    return cells


def _after_text(told: StreamingRow) -> str:
    if told.kind != "ok":
        return told.kind.replace("_", " ")
    if told.after_s is None or told.listening_s is None:
        return "-"
    return f"{told.after_s:.3g}{' (heard all before it began)' if told.after_s > told.listening_s else ''}"
