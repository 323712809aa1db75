"""Results as data: `load_results(folder)` gives a pandas DataFrame with one row a run, scorer and metric.

    from harness.results_frame import load_results
    frame = load_results("results")
    frame[frame.scorer == "exact"].pivot_table("value", "model", "task")

Reads what lies in the folder, and nothing else: no model is loaded. A run that cannot be read or trusted is left out,
and told of in one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, RecordError, UsageError
from harness.records import Prediction, RunRecord, ScoreRow, load_predictions, load_record, predictions_sha256
from harness.scores import stored_scores
from harness.tables import model_text, task_text

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

MODEL_ORDER = ("ssalm", "hybrid", "ast_mamba", "ltu", "yamnet", "majority", "chance")


@dataclass(frozen=True)
class KeptRun:
    """A finished run: its folder, the same below the results folder, record, scores and answers.

    `place` is how tables name the folder: it does not change when the results are copied elsewhere.
    """

    folder: Path
    place: str
    record: RunRecord
    scores: tuple[ScoreRow, ...]
    predictions: tuple[Prediction, ...]

    @property
    def started_utc(self) -> str:
        """When its first session began."""
        return self.record.sessions[0].started_utc if self.record.sessions else ""


def load_results(path: Path | str = "results") -> pandas.DataFrame:
    """One row a run, scorer and metric; shares in [0, 1], sizes in bytes, times in seconds. Missing is None or NaN.

    Args:
        path: a results folder.

    Returns:
        The rows, by model and task. `attrs["problems"]` lists what was left out, one line each.

    Raises:
        UsageError: there is no such folder.
    """
    import pandas

    runs, problems = read_runs(Path(path))
    rows = [facts for run in runs for facts in score_facts(run)]
    frame = pandas.DataFrame(rows, columns=list(rows[0])) if rows else pandas.DataFrame(columns=["model", "task"])
    frame.attrs["problems"] = problems
    return frame


def read_runs(results: Path) -> tuple[list[KeptRun], list[str]]:
    """The finished runs of a results folder in the order of tables, and what was left out with the reason.

    Raises:
        UsageError: there is no such folder.
    """
    if not results.is_dir():
        raise UsageError(f"There is no folder {results}.")
    runs, problems = [], []
    for folder in sorted(path for path in (results / "runs").glob("*/*/*") if path.is_dir()):
        try:
            runs.append(read_run(folder, folder.relative_to(results).as_posix()))
        except HarnessError as error:
            problems.append(f"Left out: {error}")
    return sorted(runs, key=_place_in_tables), problems


def read_run(folder: Path, place: str) -> KeptRun:
    """Read one run and check that its answers are those that its scores were computed from.

    Raises:
        RecordError: it is damaged, unfinished, or its answers were changed.
    """
    record = load_record(folder)
    if record is None:
        raise RecordError(f"{folder} holds no record.json.")
    if not record.is_complete:
        raise RecordError(f"{folder} is not finished; its `run` command continues it.")
    if not (folder / "predictions.jsonl").exists():
        raise RecordError(f"{folder} has no predictions.jsonl: its scores cannot be checked.")
    if predictions_sha256(folder) != record.predictions_sha256:
        raise RecordError(f"{folder}: predictions.jsonl was changed after the run; its scores cannot be trusted.")
    return KeptRun(
        folder, place, record, tuple(stored_scores(folder, record).values()), tuple(load_predictions(folder))
    )


def model_order(name: str) -> tuple[int, str]:
    """Our own models first, then the point of reference, then the floors; others after them by name."""
    return (MODEL_ORDER.index(name), "") if name in MODEL_ORDER else (len(MODEL_ORDER), name)


def score_facts(run: KeptRun) -> Iterator[dict[str, Any]]:
    """One flat row a score of the run."""
    for score in run.scores:
        yield {**_question(run.record), **_score(score), **_conditions(run)}


def _question(record: RunRecord) -> dict[str, Any]:
    return {
        "model": model_text(record),
        "model_options": _options_text(record.model.options_passed),
        "task": record.task.name,
        "asked": task_text(record),
        "origin": record.task.origin,
        "task_options": _options_text(record.task.options_changed),
        "kind": record.task.kind,
        "prompt": record.prompt.name,
        "protocol": record.protocol,
    }


def _score(score: ScoreRow) -> dict[str, Any]:
    interval = score.interval
    return {
        "scorer": score.scorer,
        "scorer_version": score.scorer_version,
        "metric": score.metric,
        "value": score.value,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "confidence": interval.confidence if interval else None,
        "n_clusters": interval.n_clusters if interval else None,
        "answered_only": score.answered_only,
        "clean": score.clean,
        "n_clean": score.n_clean,
        "n_items": score.n_items,
        "n_answered": score.n_answered,
        "n_failed": score.n_failed,
        "n_unparsed": score.n_unparsed,
        "unavailable": score.unavailable,
    }


def _conditions(run: KeptRun) -> dict[str, Any]:
    record = run.record
    return {
        "n_declared": record.task.n_declared,
        "parameters": sum(record.model.parameters.values()),
        "trainable_parameters": sum(record.model.trainable_parameters.values()) or None,
        "wall_s": record.times.wall_s,
        "answer_s": record.times.answer_s,
        "peak_rss_bytes": record.peak_rss_bytes,
        "device": record.device,
        "dtype": record.dtype,
        "threads": record.threads,
        "batch_size": record.batch_size,
        "cpu": record.environment.cpu,
        "started_utc": run.started_utc,
        "git_commit": record.environment.git_commit,
        "git_is_dirty": record.environment.git_is_dirty,
        "weights_sha256": record.model.weights_sha256,
        "item_set_sha256": record.task.item_set_sha256,
        "predictions_sha256": record.predictions_sha256,
        "run_id": record.run_id,
        "folder": run.place,
    }


def _place_in_tables(run: KeptRun) -> tuple[Any, ...]:
    record = run.record
    return (model_order(record.model.name), model_text(record), task_text(record), run.started_utc, run.place)


def _options_text(options: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(options.items()))
