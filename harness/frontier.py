"""The longest audio that a model answers before it breaks, and what breaks it: out of memory, out of time, or worse.

After section 4.4 of the measuring notes: geometric growth to the first failure, bisection to 5 %, every probe in a
fresh process under the caps. A length passes when the model answers within them and its numbers hold: logits are
finite, they move when the last second of the audio does, and where the model has a second way to compute the same (the
plain scan beside a kernel), that gives the same. The edge has to pass three times.

The caps are on the answer. Proofs need more than an answer (two clips, copies of the cache for two labels), so they
have processes of their own, with `PROOF_TIMES` the memory and the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.contracts import OptionValue
from harness.edge import Edge, Ladder, find_edge
from harness.environment import cpu_model, deciding_versions, describe_environment
from harness.errors import UsageError
from harness.fresh_process import MEMORY_CAP, Outcome, OutcomeKind, run_fresh
from harness.frontier_probe import LABELS, Subject, max_difference
from harness.frontier_rows import (
    PROBES_FILE,
    AnswerRow,
    FrontierRecord,
    FrontierRow,
    ProbeRow,
    ProofRow,
    SecondWayRow,
    Step,
    load_frontier,
    load_probes,
)
from harness.hashing import canonical_sha256
from harness.noise_bursts import PROMPT
from harness.record_files import append_row, cut_torn_line, to_json, write_atomically
from harness.records import RECORD_FILE, ModelRow
from harness.registry import code_fingerprint
from harness.run_folder import ID_LENGTH, create_run, locked, newest_run, utc_now
from harness.streaming_rows import StreamingRecord

AUDIO = "generated noise, loud for a quarter of each second; its last second is drawn anew for the second clip"
PROOF_TIMES = 4
# Only against a process that hangs before it begins: how long imports and loading take is no property of the model.
LOADING_LIMIT_S = 1800.0
# How far label scores of two ways may differ, in nats per token beside scores of some nats.
AGREEMENT = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}
TORCH_CAP = "torch's share of the device's memory (set_per_process_memory_fraction)"
Say = Callable[[str], None]


@dataclass(frozen=True)
class FrontierConfig:
    """One `frontier` command, all values resolved.

    `memory_bytes` caps each answer's memory: the process's on the CPU, torch's on CUDA; None for no cap.
    `time_limit_s` is for an answer, once the model is loaded; None for none. `second_way` are options of
    a model that make it compute the same in another way; a model that does not know them has none.
    """

    models: tuple[str, ...]
    options: Mapping[str, OptionValue]
    memory_bytes: int | None
    time_limit_s: float | None
    ladder: Ladder
    device: str
    dtype: str
    threads: int
    seed: int
    second_way: Mapping[str, OptionValue]
    plugins: tuple[str, ...] = ()

    @property
    def has_device_memory(self) -> bool:
        """Whether the cap is on a device of its own, not on the process."""
        return self.device.startswith("cuda")

    def as_record(self) -> dict[str, Any]:
        """In types that JSON has."""
        return asdict(self)


@dataclass(frozen=True)
class Known:
    """A model as it describes itself before it is loaded, and the options that its probes use.

    `name` has the variant, typed or not: rows and tables find each other by it.
    """

    name: str
    subject: Subject
    row: ModelRow


class Prober:
    """Tries one model at one length after another, and writes down each try.

    `earlier` are rows of the model from an interrupted search: what they tell is not tried again.
    """

    def __init__(
        self, config: FrontierConfig, known: Known, probes: Path, say: Say, earlier: Sequence[ProbeRow] = ()
    ) -> None:
        self._config = config
        self._known = known
        self._probes = probes
        self._say = say
        self._second_way = dict(config.second_way) if set(config.second_way) <= set(known.row.options_resolved) else {}
        self._earlier = list(earlier)
        self.rows: list[ProbeRow] = []

    def passes(self, rung: int, step: Step) -> bool:
        """Whether the model answers at a rung of the ladder, within the caps and with numbers that hold."""
        length_s = self._config.ladder.length_s(rung)
        row = self._told_earlier(length_s, step)
        if row is None:
            row = self._tried(length_s, step)
            append_row(self._probes, row)
            self._say(f"{self._known.name}: {length_s:g} s: {probe_text(row)}")
        self.rows.append(row)
        return row.kind == "ok"

    def _told_earlier(self, length_s: float, step: Step) -> ProbeRow | None:
        """The next row of the interrupted search: it went the same way, since nothing about a search is drawn."""
        if not self._earlier or (self._earlier[0].length_s, self._earlier[0].step) != (length_s, step):
            self._earlier.clear()
            return None
        return self._earlier.pop(0)

    def _tried(self, length_s: float, step: Step) -> ProbeRow:
        started_utc = utc_now()
        answered = self._answer(length_s)
        proved = self._fresh("prove", length_s) if answered.kind == "ok" else None
        second = self._second(length_s, proved.value) if proved is not None and proved.kind == "ok" else None
        kind, message = _verdict(answered, proved, second)
        return ProbeRow(
            model=self._known.name,
            length_s=length_s,
            step=step,
            kind=kind,
            message=message,
            started_utc=started_utc,
            answer_wall_s=answered.wall_s,
            exit_code=answered.exit_code,
            answer=None if answered.value is None else AnswerRow.model_validate(answered.value),
            proof_wall_s=None if proved is None else proved.wall_s,
            proof=None if proved is None or proved.value is None else ProofRow.model_validate(proved.value),
            second_way=second,
        )

    def _answer(self, length_s: float) -> Outcome:
        config = self._config
        on_device = config.memory_bytes if config.has_device_memory else None
        return run_fresh(
            "harness.frontier_probe:answer",
            {
                "subject": asdict(self._known.subject),
                "length_s": length_s,
                "device_memory_bytes": on_device,
                "time_limit_s": config.time_limit_s,
            },
            threads=config.threads,
            memory_bytes=None if config.has_device_memory else config.memory_bytes,
            time_limit_s=_with_loading(config.time_limit_s),
        )

    def _fresh(self, target: str, length_s: float, options: Mapping[str, OptionValue] | None = None) -> Outcome:
        config = self._config
        cap = None if config.has_device_memory else config.memory_bytes
        limit_s = config.time_limit_s
        return run_fresh(
            f"harness.frontier_probe:{target}",
            {"subject": asdict(self._known.subject.with_options(options or {})), "length_s": length_s},
            threads=config.threads,
            memory_bytes=None if cap is None else PROOF_TIMES * cap,
            time_limit_s=_with_loading(None if limit_s is None else PROOF_TIMES * limit_s),
        )

    def _second(self, length_s: float, first: Mapping[str, Any]) -> SecondWayRow | None:
        if not self._second_way:
            return None
        options = self._second_way
        other = self._fresh("scores", length_s, options)
        if other.kind != "ok":
            why = f"{other.kind}: {other.message}"
            return SecondWayRow(options=options, result="not done", difference=None, message=why)
        if other.value["kernels"] == first["kernels"]:
            self._second_way = {}  # nor will there be one at other lengths
            return SecondWayRow(options=options, result="same kernels", difference=None, message="")
        difference = max_difference(first["scores"], other.value["scores"])
        agrees = difference <= AGREEMENT[self._config.dtype] * max(1.0, *map(abs, first["scores"]))
        return SecondWayRow(
            options=options, result="agrees" if agrees else "differs", difference=difference, message=""
        )


def _verdict(answered: Outcome, proved: Outcome | None, second: SecondWayRow | None) -> tuple[OutcomeKind, str]:
    """What a probe came to: the first of its steps that failed. A second way that could not be gone is no failure."""
    if proved is None:
        return answered.kind, answered.message
    if proved.kind != "ok":
        told = "" if proved.kind == "wrong_numbers" else "the answer came, but its numbers could not be proved: "
        return proved.kind, f"{told}{proved.message}"
    if second is not None and second.result == "differs":
        chosen = ", ".join(f"{key}={value}" for key, value in second.options.items())
        return "wrong_numbers", f"with {chosen} label scores differ by {second.difference:.1e}"
    return "ok", ""


def _with_loading(limit_s: float | None) -> float | None:
    return None if limit_s is None else LOADING_LIMIT_S + limit_s


def full_name(row: ModelRow) -> str:
    """As it is typed in full, such as "ssalm:tiny"."""
    return f"{row.name}:{row.variant}" if row.variant else row.name


def probe_text(row: ProbeRow) -> str:
    """One line on a probe, without its model and length."""
    if row.kind != "ok" or row.answer is None or row.proof is None:
        return f"{row.kind.replace('_', ' ')}: {row.message}"
    parts = [f"ok in {row.answer.answer_s:.1f} s, {row.answer.peak_rss_bytes / 2**20:.0f} MiB resident"]
    if row.answer.peak_device_reserved_bytes is not None:
        parts.append(f"{row.answer.peak_device_reserved_bytes / 2**20:.0f} MiB reserved on the device")
    parts.append(f"last second moves scores by {row.proof.sensitivity:.1e}")
    if row.second_way is not None:
        parts.append(f"second way: {row.second_way.result}")
    return ", ".join(parts)


def look_at(name: str, config: FrontierConfig, needs_scores: bool = True) -> Known:
    """What a model says of itself, asked in a fresh process.

    Raises:
        UsageError: it cannot be made; or `needs_scores`, and it gives no label scores, without which nothing shows what
            it computes.
    """
    from harness.registry import split_model

    plain, variant = split_model(name)
    options = {**({} if variant is None else {"variant": variant}), **config.options}
    subject = Subject(plain, options, config.plugins, config.device, config.dtype, config.seed)
    outcome = run_fresh("harness.frontier_probe:look", {"subject": asdict(subject)}, threads=config.threads)
    if outcome.kind != "ok":
        raise UsageError(f"{name} cannot be probed: {outcome.message}")
    told = outcome.value
    row = ModelRow.model_validate(
        {**told["description"], **{key: told[key] for key in ("options_passed", "options_resolved", "plugin")}}
    )
    if needs_scores and not row.can_score_labels:
        raise UsageError(f"{name} gives no label scores, so nothing would show that its answers mean anything.")
    return Known(full_name(row), subject.with_options(told["options"]), row)


def look_at_all(config: FrontierConfig, needs_scores: bool = True) -> list[Known]:
    """`look_at` for every model of a command.

    Raises:
        UsageError: as `look_at`; or one model is named twice, which its variant left out may hide.
    """
    known = [look_at(name, config, needs_scores) for name in config.models]
    names = [one.name for one in known]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"--model names {', '.join(twice)} more than once.")
    return known


def search(
    config: FrontierConfig, results: Path, command: Sequence[str], say: Say, fresh: bool = False
) -> tuple[Path, FrontierRecord]:
    """Find the frontier of each model, one after another.

    Writes `results/frontier/<utc>-<id>/`: `probes.jsonl` as it goes, `record.json` after each model. A search that was
    interrupted is continued by the same command; one that ended is done again in a folder of its own.

    Args:
        config: what to search.
        results: where records lie.
        command: as typed.
        say: hears a line a probe.
        fresh: leave an interrupted search alone and begin another.

    Raises:
        UsageError: a model cannot be probed, or the folder cannot be made.
    """
    known = look_at_all(config)
    home, identity = results / "frontier", identity_of(config)
    with locked(home, identity):
        begun = None if fresh else interrupted(home, identity, load_frontier)
        folder = begun or create_run(home, identity)
        record = load_frontier(folder) if begun is not None else _new_record(config, command)
        probes = folder / PROBES_FILE
        cut_torn_line(probes)
        earlier = load_probes(folder)
        if earlier:
            say(f"{folder}: {len(earlier)} probes are there already")
        for one in known[len(record.rows) :]:
            write_atomically(folder / RECORD_FILE, to_json(record))
            own = [row for row in earlier if row.model == one.name]
            row = _frontier(config, one, Prober(config, one, probes, say, own))
            record = record.model_copy(update={"rows": (*record.rows, row)})
        record = record.model_copy(update={"ended_utc": utc_now()})
        write_atomically(folder / RECORD_FILE, to_json(record))
    return folder, record


def identity_of(config: FrontierConfig) -> str:
    """What decides the answer; what was interrupted goes on under the same alone."""
    machine = {"code": code_fingerprint(), "versions": deciding_versions(), "processor": cpu_model()}
    return canonical_sha256({**config.as_record(), **machine})[:ID_LENGTH]


def interrupted(home: Path, identity: str, load: Callable[[Path], FrontierRecord | StreamingRecord]) -> Path | None:
    """The newest folder of that identity, where its work did not end; `load` reads its record."""
    newest = newest_run(home, identity)
    if newest is None or not (newest / RECORD_FILE).exists() or load(newest).ended_utc is not None:
        return None
    return newest


def _new_record(config: FrontierConfig, command: Sequence[str]) -> FrontierRecord:
    return FrontierRecord(
        command=tuple(command),
        config=config.as_record(),
        memory_cap=cap_text(config),
        prompt=PROMPT,
        labels=LABELS,
        audio=AUDIO,
        environment=describe_environment(config.device),
        started_utc=utc_now(),
        ended_utc=None,
        rows=(),
    )


def cap_text(config: FrontierConfig) -> str:
    """How the memory cap is kept, for the record."""
    if config.memory_bytes is None:
        return "none"
    return TORCH_CAP if config.has_device_memory else MEMORY_CAP


def _frontier(config: FrontierConfig, known: Known, prober: Prober) -> FrontierRow:
    started = time.perf_counter()
    edge = find_edge(config.ladder, prober.passes)
    failure = _failure_at(edge, config.ladder, prober.rows)
    return FrontierRow(
        model=known.row,
        options=dict(known.subject.options),
        edge_s=None if edge.rung is None else config.ladder.length_s(edge.rung),
        n_passes=edge.n_passes,
        breaks_at_s=None if failure is None else failure.length_s,
        breaks_by=None if failure is None else failure.kind,
        breaks_message="" if failure is None else failure.message,
        n_probes=len(prober.rows),
        wall_s=time.perf_counter() - started,
    )


def _failure_at(edge: Edge, ladder: Ladder, rows: Sequence[ProbeRow]) -> ProbeRow | None:
    if edge.failed_rung is None:
        return None
    length_s = ladder.length_s(edge.failed_rung)
    return next(row for row in rows if row.length_s == length_s and row.kind != "ok")
