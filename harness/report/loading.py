"""Everything that a results folder holds, read once; what cannot be trusted is left out and told of in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, FiniteFloat, ValidationError

from harness.errors import HarnessError, RecordError
from harness.frontier_rows import PROBES_FILE, FrontierRecord, ProbeRow, load_frontier, load_probes
from harness.hashing import file_sha256
from harness.records import ComparisonRecord, ControlsRecord, load_comparison, load_controls
from harness.results_frame import KeptRun, read_runs
from harness.scaling_rows import PointRow, ScalingRecord, load_points, load_scaling_record, newest_points
from harness.streaming_rows import POINTS_FILE, MinuteRow, StreamingRecord, load_minutes, load_streaming
from harness.training import FIRST_ROUND

KeptT = TypeVar("KeptT")


@dataclass(frozen=True)
class KeptScaling:
    """A scaling record and the newest point of each key."""

    place: str
    record: ScalingRecord
    points: tuple[PointRow, ...]


@dataclass(frozen=True)
class KeptFrontier:
    """A frontier record and its probes."""

    place: str
    record: FrontierRecord
    probes: tuple[ProbeRow, ...]


@dataclass(frozen=True)
class KeptStreaming:
    """A record of `frontier --streaming` and its minutes."""

    place: str
    record: StreamingRecord
    minutes: tuple[MinuteRow, ...]


@dataclass(frozen=True)
class KeptTraining:
    """A training run's curve, one dictionary a logged step, its settings, and its record where it has one.

    `first_round_sha256` is the hash of what a first round left for others to take over, of a folder that keeps that or
    its hash.
    """

    place: str
    record: dict[str, Any] | None
    curve: tuple[dict[str, float], ...]
    config: dict[str, Any]
    first_round_sha256: str | None

    @property
    def model(self) -> str:
        """The model as it is typed."""
        return self.place.rsplit("/", 2)[1].replace("-", ":", 1)

    @property
    def name(self) -> str:
        """The model as it is typed, and the name of the training run."""
        return f"{self.model} {self.place.rsplit('/', 1)[1]}"


@dataclass(frozen=True)
class KeptControls:
    """Controls of one model and task, in `folder`."""

    folder: Path
    place: str
    record: ControlsRecord


@dataclass(frozen=True)
class KeptComparison:
    """What `compare` found."""

    place: str
    record: ComparisonRecord


@dataclass(frozen=True)
class Results:
    """What was read from `folder`; `problems` tell what was left out, one line each."""

    folder: Path
    runs: tuple[KeptRun, ...]
    scaling: tuple[KeptScaling, ...]
    frontiers: tuple[KeptFrontier, ...]
    streaming: tuple[KeptStreaming, ...]
    controls: tuple[KeptControls, ...]
    comparisons: tuple[KeptComparison, ...]
    training: tuple[KeptTraining, ...]
    problems: tuple[str, ...]


class _Bounds(BaseModel):
    low: FiniteFloat
    high: FiniteFloat


class _HeldOutScore(BaseModel):
    scorer: str
    value: FiniteFloat
    n_items: int
    interval: _Bounds


class _TrainingRecord(BaseModel):
    """What is read of a training record; recipes may write more. A staged recipe holds losses out, not scores."""

    learned_from: dict[str, Any]
    config: dict[str, Any]
    trained_s: FiniteFloat
    model_options: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    weights_sha256: str | None = None
    held_out: list[_HeldOutScore | dict[str, FiniteFloat]] = []


def load_all(folder: Path) -> Results:
    """Read a results folder.

    Raises:
        UsageError: there is no such folder.
    """
    runs, problems = read_runs(folder)
    problems += _duplicates(runs)
    return Results(
        folder,
        tuple(runs),
        tuple(_kept(folder, "scaling", "record.json", _scaling, problems)),
        tuple(_kept(folder, "frontier", "record.json", _frontier, problems)),
        tuple(_kept(folder, "streaming", "record.json", _streaming, problems)),
        tuple(_kept(folder, "controls", "controls.json", _controls, problems)),
        tuple(_kept(folder, "compare", "record.json", _comparison, problems)),
        tuple(_kept(folder, "training", "curve.jsonl", _training, problems)),
        tuple(problems),
    )


def _kept(
    results: Path, kind: str, file: str, read: Callable[[Path, str], KeptT | None], problems: list[str]
) -> Iterator[KeptT]:
    """What `read` makes of every folder below results/kind that has such a file."""
    for path in sorted((results / kind).rglob(file)):
        folder = path.parent
        try:
            kept = read(folder, folder.relative_to(results).as_posix())
        except (HarnessError, ValidationError, OSError, ValueError) as error:
            problems.append(f"Left out: {_one_line(path, error)}")
            continue
        if kept is not None:
            yield kept


def _one_line(path: Path, error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        return f"{path} does not fit its schema: {where}: {first['msg']}."
    text = " ".join(str(error).split())
    return text if isinstance(error, HarnessError) else f"{path} cannot be read: {text}."


def _scaling(folder: Path, place: str) -> KeptScaling | None:
    record = load_scaling_record(folder)
    return None if record is None else KeptScaling(place, record, tuple(newest_points(load_points(folder))))


def _frontier(folder: Path, place: str) -> KeptFrontier:
    record = load_frontier(folder)
    if record.ended_utc is None:
        raise RecordError(f"{folder} is not finished: its search was interrupted.")
    if not (folder / PROBES_FILE).exists():
        raise RecordError(f"{folder} has no {PROBES_FILE}: its frontier cannot be checked.")
    return KeptFrontier(place, record, tuple(load_probes(folder)))


def _streaming(folder: Path, place: str) -> KeptStreaming:
    record = load_streaming(folder)
    if record.ended_utc is None:
        raise RecordError(f"{folder} is not finished: it was interrupted.")
    # Where every model failed in its first minute, no minute was ever written.
    if any(row.n_minutes for row in record.rows) and not (folder / POINTS_FILE).exists():
        raise RecordError(f"{folder} has no {POINTS_FILE}: its minutes cannot be shown.")
    return KeptStreaming(place, record, tuple(load_minutes(folder)))


def _controls(folder: Path, place: str) -> KeptControls | None:
    record = load_controls(folder)
    if record is not None and not record.is_complete:
        raise RecordError(f"{folder} is not finished; its `controls` command continues it.")
    return None if record is None else KeptControls(folder, place, record)


def _comparison(folder: Path, place: str) -> KeptComparison | None:
    record = load_comparison(folder)
    return None if record is None else KeptComparison(place, record)


def _training(folder: Path, place: str) -> KeptTraining:
    lines = (folder / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    curve = tuple(json.loads(line) for line in lines)
    for number, line in enumerate(curve, start=1):
        # JSON as Python reads it has NaN; a comparison with itself finds it.
        if not isinstance(line, dict) or "step" not in line or any(value != value for value in line.values()):
            raise RecordError(f"{folder / 'curve.jsonl'} line {number} has no step, or a value that is no number.")
    return KeptTraining(
        place,
        _training_record(folder / "record.json"),
        curve,
        _read_object(folder / "config.json") or {},
        _first_round_sha256(folder),
    )


def _first_round_sha256(folder: Path) -> str | None:
    """As it was noted, or of the file itself."""
    noted, weights = folder / "first_round.sha256", folder / FIRST_ROUND
    if noted.exists():
        return noted.read_text(encoding="utf-8").strip()
    return file_sha256(weights) if weights.exists() else None


def _training_record(path: Path) -> dict[str, Any] | None:
    found = _read_object(path)
    if found is not None:
        _TrainingRecord.model_validate(found)
    return found


def _read_object(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise RecordError(f"{path} holds no JSON object.")
    return found


def _duplicates(runs: list[KeptRun]) -> list[str]:
    """One line for each run that lies there more than once; tables take the newest."""
    by_id: dict[str, list[str]] = {}
    for run in runs:
        by_id.setdefault(run.record.identity_sha256, []).append(run.place)
    return [
        f"The run {places[0].rsplit('-', 1)[-1]} was made {len(places)} times ({', '.join(places)}): "
        "tables show the newest."
        for places in by_id.values()
        if len(places) > 1
    ]
