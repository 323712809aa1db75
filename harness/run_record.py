"""Writing a run's record: at the start of a session, and again at its end, however it ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.contracts import ModelDescription, Task
from harness.environment import describe_environment, peak_rss_bytes
from harness.hashing import canonical_sha256
from harness.plan import Plan
from harness.records import (
    PREDICTIONS_FILE,
    LabelRow,
    ModelRow,
    Prediction,
    PromptRow,
    RunRecord,
    ScoreRow,
    Session,
    SessionOutcome,
    TaskRow,
    Times,
    count_outcomes,
    predictions_sha256,
    write_record,
)
from harness.run_folder import utc_now

_BOOTSTRAP_SEED = 0


class SessionClock:
    """When this process began to work on a run, and how long its model took to load.

    `n_processes` share the work, of which this is the main one.
    """

    def __init__(self, n_processes: int = 1) -> None:
        self.n_processes = n_processes
        self.started_utc = utc_now()
        self.model_load_s = 0.0
        self._started = time.perf_counter()

    def session(self, outcome: SessionOutcome, n_items: int) -> Session:
        """The session as it stands now, with the items that it answered."""
        return Session(
            started_utc=self.started_utc,
            ended_utc=None if outcome == "running" else utc_now(),
            outcome=outcome,
            wall_s=time.perf_counter() - self._started,
            model_load_s=self.model_load_s,
            n_items=n_items,
            peak_rss_bytes=peak_rss_bytes(),
            n_processes=self.n_processes,
        )


class RecordKeeper:
    """Writes the record of one run's folder for one session."""

    def __init__(
        self, plan: Plan, folder: Path, command: Sequence[str], clock: SessionClock, earlier: Sequence[Session]
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._command = tuple(command)
        self._clock = clock
        self._earlier = tuple(earlier)

    def write(
        self,
        outcome: SessionOutcome,
        model: ModelRow,
        predictions: Sequence[Prediction],
        scores: Sequence[ScoreRow] = (),
    ) -> RunRecord:
        """Write `record.json` as things stand, and return it. Scores belong to the outcome "complete"."""
        n_before = sum(session.n_items for session in self._earlier)
        sessions = (*self._earlier, self._clock.session(outcome, len(predictions) - n_before))
        record = RunRecord(
            **plan_fields(self._plan),
            is_complete=outcome == "complete",
            command=self._command,
            model=model,
            environment=describe_environment(self._plan.device),
            sessions=sessions,
            times=_times(sessions, predictions),
            peak_rss_bytes=max(session.peak_rss_bytes for session in sessions),
            counts=count_outcomes(predictions, model.length_policy),
            predictions_sha256=predictions_sha256(self._folder) if outcome == "complete" else None,
            scores=tuple(scores),
        )
        write_record(self._folder, record)
        return record


def label_rows(task: Task) -> tuple[LabelRow, ...]:
    """The task's classes as a record holds them."""
    return tuple(LabelRow(name=label.name, text=label.text) for label in task.labels)


def earlier_sessions(folder: Path, record: RunRecord | None, n_predictions: int) -> tuple[Session, ...]:
    """Sessions of other processes. One that never ended was killed: its end is the time of its last written line.

    Args:
        folder: the run's folder, before anything in it is changed.
        record: what lies in it.
        n_predictions: whole lines that lie in it.
    """
    if record is None:
        return ()
    *ended, last = record.sessions
    if last.outcome != "running":
        return record.sessions
    begun = datetime.fromisoformat(last.started_utc)
    # Its own, and those of several processes that have not been merged.
    times = [path.stat().st_mtime for path in folder.rglob(PREDICTIONS_FILE)]
    stopped = datetime.fromtimestamp(max(times), UTC) if times else begun
    killed = last.model_copy(
        update={
            "outcome": "killed",
            "ended_utc": f"{max(begun, stopped):%Y-%m-%dT%H:%M:%SZ}",
            "wall_s": max(last.wall_s, (stopped - begun).total_seconds()),
            "n_items": n_predictions - sum(session.n_items for session in ended),
        }
    )
    return (*ended, killed)


def model_row(plan: Plan, description: ModelDescription) -> ModelRow:
    """The model as it describes itself, with the options that made it."""
    return ModelRow.model_validate(
        {
            **asdict(description),
            "options_passed": dict(plan.model.options_passed),
            "options_resolved": dict(plan.model.options_resolved),
            "plugin": _file_name(plan.model.source),
        }
    )


def plan_fields(plan: Plan) -> dict[str, Any]:
    """The part of a record that is known before the model runs, by the record's field names."""
    config = plan.config
    return {
        "run_id": plan.run_id(),
        "config_passed": plan.given.as_record(),
        "config_resolved": _resolved(plan),
        "identity": plan.identity(),
        "identity_sha256": canonical_sha256(plan.identity()),
        "task": _task_row(plan),
        "prompt": PromptRow(
            name=plan.prompt_name,
            is_default=plan.prompt_name == next(iter(plan.benchmark.prompts)),
            text=plan.question.prompt,
            sha256=plan.question.prompt_sha256,
        ),
        "code_fingerprint": plan.code_fingerprint,
        "device": plan.device,
        "dtype": config.resolved_dtype(),
        "threads": config.resolved_threads(),
        "batch_size": config.resolved_batch_size(),
        "seeds": {"run": config.seed, "bootstrap": _BOOTSTRAP_SEED},
        "protocol": config.protocol,
        "leakage": plan.leakage,
    }


def _resolved(plan: Plan) -> dict[str, Any]:
    """The command's values after defaults: what would have to be typed to leave nothing open."""
    config = plan.config
    return config.as_record() | {
        "variant": plan.description.variant,
        "model_options": dict(plan.model.options_resolved),
        "task_options": dict(plan.task.options_resolved),
        "prompt": plan.prompt_name,
        "batch_size": config.resolved_batch_size(),
        "device": plan.device,
        "dtype": config.resolved_dtype(),
        "threads": config.resolved_threads(),
        # The starter set lies inside the installed package: its place tells nothing of the data.
        "data_root": str(plan.item_set.root) if plan.item_set.origin == "official" else None,
        "scorers": list(plan.scorers),
    }


def _task_row(plan: Plan) -> TaskRow:
    task = plan.benchmark
    return TaskRow(
        name=plan.task.name,
        version=task.version,
        kind=task.kind,
        options_passed=dict(plan.task.options_passed),
        options_resolved=dict(plan.task.options_resolved),
        options_changed=dict(plan.task.options_changed),
        plugin=_file_name(plan.task.source),
        origin=plan.item_set.origin,
        root=plan.item_set.root.name,
        n_found=len(plan.item_set.items),
        n_declared=plan.item_set.n_declared,
        item_set_sha256=plan.item_set_sha256,
        labels=label_rows(task),
        metrics=task.metrics,
        licence=task.licence,
    )


def _times(sessions: Sequence[Session], predictions: Sequence[Prediction]) -> Times:
    return Times(
        wall_s=sum(session.wall_s for session in sessions),
        model_load_s=sum(session.model_load_s for session in sessions),
        audio_load_s=sum(prediction.load_s for prediction in predictions),
        answer_s=sum(prediction.answer_s for prediction in predictions),
    )


def _file_name(source: Path | None) -> str | None:
    return None if source is None else source.name
