"""What a model costs at growing lengths of audio: a plan of points, each measured in a process of its own.

The order of the lengths is drawn, and at each length every model has its turn in an order drawn anew, so that whatever
drifts on the machine meets all models alike. A point that fails is a row with its outcome. Points that are there
already are not measured again, but for those that ended by an error or a kill: the same command continues, and one with
more lengths or models adds to the same folder.
"""

from __future__ import annotations

import itertools
import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.config import RunConfig
from harness.contracts import CostedModel, InspectableModel, OptionValue
from harness.environment import cpu_model, deciding_versions, describe_environment
from harness.errors import OptionError, PluginError, UsageError
from harness.flop_counting import CoverageError
from harness.fresh_process import Outcome, OutcomeKind, run_fresh
from harness.hashing import canonical_sha256
from harness.noise_bursts import PROMPT
from harness.point_summary import PointPlan
from harness.progress import progress, say_on_stderr
from harness.promises import described
from harness.record_files import cut_torn_line
from harness.registry import code_fingerprint, create, split_model
from harness.run_folder import ID_LENGTH, create_run, locked, newest_run, utc_now
from harness.scaling_rows import (
    POINTS_FILE,
    CoverageRow,
    Measured,
    PointKey,
    PointRow,
    ScalingRecord,
    ScalingSession,
    Step,
    append_point,
    load_points,
    load_scaling_record,
    newest_points,
    write_scaling_record,
)

# The 2x2 of encoder and language model.
DEFAULT_MODELS = ("ssalm:tiny", "hybrid:tiny", "ast_mamba:tiny", "ltu:tiny")
DEFAULT_SECONDS = (1.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
SCALING_FOLDER = "scaling"
TARGET = "harness.measure_point:measure"
COVERAGE_TARGET = "harness.flop_coverage:cover"
# Short, since a count looks at every operator: what is covered does not depend on the length.
COVERAGE_SECONDS = 1.0
COVERAGE_TOKENS = 2
# Limits of machine or model, which a point of the same key would meet again. What else ended a point may be over.
LASTING: tuple[OutcomeKind, ...] = ("ok", "out_of_memory", "time_limit", "position_limit", "wrong_numbers")

Fresh = Callable[..., Outcome]
"""Such as `harness.fresh_process.run_fresh`."""


@dataclass(frozen=True)
class ScalingConfig:
    """One `scaling` command. None stands for "not given".

    `half_width` is the goal for the interval of a median, as a share of it; a point's times are taken for `least_s` to
    `most_s` seconds. `time_limit_s` ends a point's process. `model_options` are for every model.

    Raises:
        UsageError: a value is out of range.
    """

    models: tuple[str, ...] = DEFAULT_MODELS
    model_options: Mapping[str, OptionValue] = field(default_factory=dict)
    seconds: tuple[float, ...] = DEFAULT_SECONDS
    batch_sizes: tuple[int, ...] = (1,)
    step: Step = "infer"
    n_tokens: int = 16
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    half_width: float = 0.02
    least_s: float = 2.0
    most_s: float = 5.0
    time_limit_s: float = 600.0
    seed: int = 0
    plugins: tuple[Path, ...] = ()
    results: Path = Path("results")
    fresh: bool = False

    def __post_init__(self) -> None:
        if not self.models or not self.seconds or not self.batch_sizes:
            raise UsageError("scaling needs a model, a length and a batch size.")
        if not all(0 < s < math.inf for s in self.seconds) or any(n < 1 for n in self.batch_sizes):
            raise UsageError("--seconds must be positive, --batch-size at least 1.")
        if self.n_tokens < 2:
            raise UsageError(f"--tokens {self.n_tokens} is out of range: time per token needs at least 2.")
        limits = (self.half_width, self.time_limit_s, self.most_s)
        if not all(0 < limit < math.inf for limit in limits) or not 0 <= self.least_s <= self.most_s:
            raise UsageError("--half-width, --time-limit and --most-seconds must be positive.")
        for what, values in (("--model", self.models), ("--seconds", self.seconds), ("--batch-size", self.batch_sizes)):
            if len(set(values)) < len(values):
                raise UsageError(f"{what} names one value more than once.")
        self.machine()

    def machine(self) -> RunConfig:
        """Device, number type, threads and seed, checked and resolved as for `run`."""
        shared = {"device": self.device, "dtype": self.dtype, "threads": self.threads, "seed": self.seed}
        return RunConfig(model=self.models[0], task="-", **shared)  # type: ignore[arg-type]

    def as_record(self) -> dict[str, Any]:
        """The values as given, in types that JSON has."""
        return {
            **asdict(self),
            "model_options": dict(self.model_options),
            "models": list(self.models),
            "seconds": list(self.seconds),
            "batch_sizes": list(self.batch_sizes),
            "plugins": [str(path) for path in self.plugins],
            "results": str(self.results),
        }


@dataclass(frozen=True)
class Subject:
    """A model to measure: its name, the options that are not its defaults, and the fingerprint of what they make."""

    name: str
    variant: str
    options: Mapping[str, OptionValue]
    fingerprint: str

    @property
    def full_name(self) -> str:
        """As it is typed, such as "ssalm:tiny"."""
        return f"{self.name}:{self.variant}" if self.variant else self.name


@dataclass(frozen=True)
class ScalingOutcome:
    """Where the record lies, and the points that the command asked for, measured now or before."""

    folder: Path
    record: ScalingRecord
    points: tuple[PointRow, ...]

    @property
    def exit_code(self) -> int:
        """1 where a point failed, in whatever way."""
        return int(any(point.outcome != "ok" for point in self.points))


def scale(
    config: ScalingConfig,
    command: Sequence[str],
    fresh: Fresh | None = None,
    say: Callable[[str], None] = say_on_stderr,
) -> ScalingOutcome:
    """Measure the points of a command that are not there yet.

    Args:
        config: what is asked for.
        command: the words typed, for the record.
        fresh: what runs a function in a process of its own; `run_fresh` when None.
        say: takes lines for the user.

    Raises:
        HarnessError: a name is unknown, an option is bad, a model cannot be measured, or an operator is not counted.
    """
    fresh = run_fresh if fresh is None else fresh
    subjects = [find_subject(name, config.model_options, say) for name in config.models]
    names = [subject.full_name for subject in subjects]
    if len(set(names)) < len(names):  # "ssalm" beside "ssalm:tiny"
        raise UsageError(f"--model names one model more than once: {', '.join(names)}.")
    conditions = _conditions(config)
    record_id = canonical_sha256(conditions)[:ID_LENGTH]
    home = config.results / SCALING_FOLDER
    with locked(home, record_id):
        found = None if config.fresh else newest_run(home, record_id)
        folder = found or create_run(home, record_id)
        keeper = _Keeper(folder, record_id, conditions, config, command)
        keeper.cover(subjects, fresh, say)
        points = _measure_missing(config, subjects, keeper, fresh, say)
        return ScalingOutcome(folder, keeper.finish(), points)


def find_subject(name: str, options: Mapping[str, OptionValue], say: Callable[[str], None]) -> Subject:
    """Make the model, without loading it; where it lacks weights, with random ones, which measure cost all the same.

    Raises:
        HarnessError: no such model, a bad option, or a model that does not tell its cost.
    """
    plain, variant = split_model(name)
    given = {**({} if variant is None else {"variant": variant}), **options}
    created = create("models", plain, given)
    model = created.value
    if not isinstance(model, CostedModel):
        raise PluginError(f"The model '{plain}' does not tell its cost, so that it cannot be measured by component.")
    if isinstance(model, InspectableModel) and model.missing() and "weights" not in given:
        given = {**given, "weights": "random"}
        try:
            created = create("models", plain, given)
        except OptionError as error:
            raise UsageError(f"{name} cannot be measured: {model.missing()}") from error
        say(f"{name}: no weights here; measured with random ones (-m weights=random), which cost the same.")
    description = described(created.value, plain)
    return Subject(plain, description.variant, created.options_changed, description.fingerprint)


def drawn_order(subjects: Sequence[Subject], config: ScalingConfig) -> list[tuple[Subject, float, int]]:
    """Model, length and batch size of each point, in the order of measuring."""
    draw = random.Random(config.seed)
    rounds = list(itertools.product(config.seconds, config.batch_sizes))
    draw.shuffle(rounds)
    order = []
    for seconds, batch_size in rounds:
        turn = list(subjects)
        draw.shuffle(turn)
        order += [(subject, seconds, batch_size) for subject in turn]
    return order


def _measure_missing(
    config: ScalingConfig,
    subjects: Sequence[Subject],
    keeper: _Keeper,
    fresh: Fresh,
    say: Callable[[str], None],
) -> tuple[PointRow, ...]:
    """All points of the command, in the order of measuring."""
    there = {point.key.identity: point for point in keeper.points if point.outcome in LASTING}
    order = [(_key(config, *place), place) for place in drawn_order(subjects, config)]
    n_there = sum(key.identity in there for key, _ in order)
    points: list[PointRow] = []
    with progress(f"scaling, {keeper.folder.name}", len(order), n_there) as advance:
        for position, (key, (subject, _, _)) in enumerate(order):
            point = there.get(key.identity)
            if point is None:
                point = _measure(config, key, subject, position, fresh)
                keeper.add(point)
                if point.outcome != "ok":
                    say(f"{key.full_name}, {key.seconds:g} s: {point.outcome.replace('_', ' ')}: {point.message}")
                advance(1)
            points.append(point)
    return tuple(points)


def _measure(config: ScalingConfig, key: PointKey, subject: Subject, position: int, fresh: Fresh) -> PointRow:
    """One point, in a process of its own."""
    started = utc_now()
    plan = _plan(config, subject, key.seconds, key.batch_size)
    outcome = fresh(TARGET, asdict(plan), threads=key.threads, time_limit_s=config.time_limit_s)
    return PointRow(
        key=key,
        outcome=outcome.kind,
        message=outcome.message,
        exit_code=outcome.exit_code,
        wall_s=outcome.wall_s,
        started_utc=started,
        position=position,
        measured=Measured.model_validate(outcome.value) if outcome.kind == "ok" else None,
    )


def _plan(config: ScalingConfig, subject: Subject, seconds: float, batch_size: int) -> PointPlan:
    machine = config.machine()
    return PointPlan(
        model=subject.name,
        options=dict(subject.options),
        plugins=tuple(str(path.resolve()) for path in config.plugins),
        step=config.step,
        seconds=seconds,
        batch_size=batch_size,
        device=machine.resolved_device(),
        dtype=machine.resolved_dtype(),
        n_tokens=config.n_tokens,
        half_width=config.half_width,
        least_s=config.least_s,
        most_s=config.most_s,
        seed=config.seed,
    )


def _key(config: ScalingConfig, subject: Subject, seconds: float, batch_size: int) -> PointKey:
    machine = config.machine()
    return PointKey(
        model=subject.name,
        variant=subject.variant,
        options=dict(subject.options),
        fingerprint=subject.fingerprint,
        step=config.step,
        seconds=seconds,
        batch_size=batch_size,
        n_tokens=config.n_tokens,
        device=machine.resolved_device(),
        dtype=machine.resolved_dtype(),
        threads=machine.resolved_threads(),
    )


def _conditions(config: ScalingConfig) -> dict[str, Any]:
    """What every point of a folder shares, and what decides the folder."""
    machine = config.machine()
    device = machine.resolved_device()
    return {
        "device": device,
        "processor": cpu_model(),
        "gpu": _gpu_name(device),
        "dtype": machine.resolved_dtype(),
        "threads": machine.resolved_threads(),
        "n_tokens": config.n_tokens,
        "prompt": PROMPT,
        "half_width": config.half_width,
        "least_s": config.least_s,
        "most_s": config.most_s,
        "time_limit_s": config.time_limit_s,
        "seed": config.seed,
        "allocator": os.environ.get("PYTORCH_CUDA_ALLOC_CONF") if device.startswith("cuda") else None,
        "code_fingerprint": code_fingerprint(),
        "versions": deciding_versions(),
    }


def _gpu_name(device: str) -> str | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return str(torch.cuda.get_device_properties(device).name)


class _Keeper:
    """Writes a folder's points as they come, and its record at the start and the end of a session."""

    def __init__(
        self,
        folder: Path,
        record_id: str,
        conditions: Mapping[str, Any],
        config: ScalingConfig,
        command: Sequence[str],
    ) -> None:
        self.folder = folder
        cut_torn_line(folder / POINTS_FILE)
        self.points = newest_points(load_points(folder))
        self._config = config
        earlier = load_scaling_record(folder)
        session = ScalingSession(
            command=tuple(command),
            config=config.as_record(),
            started_utc=utc_now(),
            ended_utc=None,
            n_measured=0,
            load_average=_load_average(),
        )
        self._record = ScalingRecord(
            record_id=record_id,
            conditions=dict(conditions),
            prompt=PROMPT,
            environment=describe_environment(config.machine().resolved_device()),
            sessions=(*(earlier.sessions if earlier is not None else ()), session),
            coverage=earlier.coverage if earlier is not None else (),
        )
        self._n_measured = 0
        write_scaling_record(folder, self._record)

    def cover(self, subjects: Sequence[Subject], fresh: Fresh, say: Callable[[str], None]) -> None:
        """Count a short answer of each model that was not counted here yet, and hold it against the formulas.

        A difference is said and recorded; it says that formulas or counter are wrong, not that a point is. So is said
        that a count met a limit of this machine, which the points will then meet by themselves.

        Raises:
            CoverageError: an operator that matters is not counted.
        """
        known = {row.identity for row in self._record.coverage}
        for subject in subjects:
            if (subject.full_name, subject.fingerprint) not in known and self._config.step == "infer":
                row = cover(self._config, subject, fresh, say)
                if row is None:
                    continue
                self._record = self._record.model_copy(update={"coverage": (*self._record.coverage, row)})
                write_scaling_record(self.folder, self._record)
                for component in row.disagreements():
                    numbers = f"{row.formula_flops[component]} by formula, {row.counted_flops[component]} counted"
                    say(f"{row.model}: operations of {component} differ: {numbers} ({row.seconds:g} s of audio)")

    def add(self, point: PointRow) -> None:
        """One more point, on disk when this returns."""
        append_point(self.folder, point)
        self._n_measured += 1

    def finish(self) -> ScalingRecord:
        """The session is over."""
        *before, last = self._record.sessions
        ended = last.model_copy(update={"ended_utc": utc_now(), "n_measured": self._n_measured})
        self._record = self._record.model_copy(update={"sessions": (*before, ended)})
        write_scaling_record(self.folder, self._record)
        return self._record


def cover(config: ScalingConfig, subject: Subject, fresh: Fresh, say: Callable[[str], None]) -> CoverageRow | None:
    """Formula against counter on one short clip; None where there is too little memory or time to count.

    Raises:
        CoverageError: an operator that multiplies matrices, attends, or is custom, has no formula; or the count failed.
    """
    plan = replace(_plan(config, subject, COVERAGE_SECONDS, 1), n_tokens=COVERAGE_TOKENS)
    machine = config.machine()
    outcome = fresh(COVERAGE_TARGET, asdict(plan), threads=machine.resolved_threads(), time_limit_s=config.time_limit_s)
    if outcome.kind in ("out_of_memory", "time_limit", "killed"):
        why = f"{outcome.kind.replace('_', ' ')}: {outcome.message}"
        say(f"{subject.full_name}: operations were not counted, so that only formulas tell them: {why}")
        return None
    if outcome.kind != "ok":
        raise CoverageError(f"The operations of {subject.full_name} cannot be counted: {outcome.message}")
    told = {"model": subject.full_name, "fingerprint": subject.fingerprint, "seconds": COVERAGE_SECONDS}
    row = CoverageRow.model_validate({**told, **outcome.value})
    if row.uncovered:
        raise CoverageError(
            f"{subject.full_name} uses operators that no formula counts: {', '.join(row.uncovered)}. "
            "Register one with torch.utils.flop_counter."
        )
    return row


def _load_average() -> tuple[float, float, float] | None:
    try:
        return os.getloadavg()
    except OSError:
        return None
