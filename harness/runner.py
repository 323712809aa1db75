"""`run`: items to batches to answers to predictions to scores to a record. Continues what an earlier process began.

Everything that decides the predictions makes up the run's identity, whose hash names the folder. A run of the same
identity that is complete is shown, not computed; one that is not is continued at the first missing line.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from harness.answering import answer_batch, seed_generators
from harness.config import RunConfig, limit_loaded_pools
from harness.errors import PluginError, RecordError
from harness.hearing import hear_batches
from harness.plan import Plan, make_plan
from harness.progress import progress, say_on_stderr
from harness.promises import described, load_model
from harness.records import (
    PREDICTIONS_FILE,
    ModelRow,
    Prediction,
    PredictionWriter,
    RunRecord,
    ScoreRow,
    canonical_sha256,
    drop_torn_tail,
    load_predictions,
    load_run,
)
from harness.run_folder import create_run, locked, newest_run
from harness.run_record import RecordKeeper, SessionClock, earlier_sessions, label_rows, model_row
from harness.scores import compute_scores, load_finished, make_scorer, score_run, stored_scores

Say = Callable[[str], None]


@dataclass(frozen=True)
class RunOutcome:
    """What a run came to. `exit_code` is 0, or 1 when more items failed than allowed."""

    folder: Path
    record: RunRecord
    scores: tuple[ScoreRow, ...]
    was_complete: bool
    exit_code: int


def run(config: RunConfig, command: Sequence[str] = (), say: Say | None = None) -> RunOutcome:
    """Carry out a `run` command.

    Args:
        config: what is asked for.
        command: the words of the command line, for the record.
        say: takes lines for the user; they go to standard error when None.

    Raises:
        HarnessError: nothing was computed, or a plugin broke its contract on the way.
        KeyboardInterrupt: the user interrupted; what was answered so far is on disk.
    """
    say = say or say_on_stderr
    clock = SessionClock()
    plan = make_plan(config, say)
    with locked(plan.folder, plan.run_id()):
        finished = None if config.fresh else _find_finished(plan)
        if finished is not None:
            return _reuse(plan, finished, say)
        unfinished = None if config.fresh else newest_run(plan.folder, plan.run_id())
        return _compute(plan, unfinished, command, clock, say)


# --- a run that is there already -------------------------------------------------------------------------------------


def _find_finished(plan: Plan) -> Path | None:
    """A complete run with these predictions; one that also recorded label scores serves a scorer that needs none."""
    for wants in dict.fromkeys((plan.wants_label_scores, True)):
        folder = newest_run(plan.folder, plan.run_id(wants))
        with _hint_of_fresh():
            record = load_run(folder)[0] if folder is not None else None
        if folder is not None and record is not None and record.is_complete:
            _check_identity(record, plan, wants, folder)
            return folder
    return None


def _reuse(plan: Plan, folder: Path, say: Say) -> RunOutcome:
    """Show a complete run; scores that it lacks are computed from its predictions."""
    with _hint_of_fresh():
        record = load_finished(folder)
    say(f"This run is complete since {record.sessions[-1].ended_utc}: the model is not asked again (--fresh does).")
    rows = stored_scores(folder, record)
    # A scorer's rows are filed under its own name, which is not how its options were typed.
    names = {text: make_scorer(text).name for text in plan.scorers}
    wanted = [(names[text], metric) for text in plan.scorers for metric in plan.benchmark.metrics]
    # A metric that was not available may be by now.
    lacking = {key[0] for key in wanted if key not in rows or rows[key].unavailable is not None}
    missing = [text for text in plan.scorers if names[text] in lacking]
    rows |= {(row.scorer, row.metric): row for row in score_run(folder, missing)[1]}
    return _outcome(plan, folder, record, [rows[key] for key in wanted], was_complete=True)


@contextmanager
def _hint_of_fresh() -> Iterator[None]:
    """A damaged run needs not stop its command: the message says how to begin another."""
    try:
        yield
    except RecordError as error:
        raise RecordError(f"{error} Use --fresh to leave it as it is.") from error


def _check_identity(record: RunRecord, plan: Plan, wants_label_scores: bool, folder: Path) -> None:
    if record.identity_sha256 != canonical_sha256(plan.identity(wants_label_scores)):
        raise RecordError(f"{folder} has this run's id but another identity. Use --fresh to leave it as it is.")


def _outcome(plan: Plan, folder: Path, record: RunRecord, scores: Sequence[ScoreRow], was_complete: bool) -> RunOutcome:
    too_many = plan.config.max_failures.is_exceeded(record.counts.n_failed, record.counts.n_items)
    return RunOutcome(folder, record, tuple(scores), was_complete, exit_code=int(too_many))


# --- computing -------------------------------------------------------------------------------------------------------


def _compute(plan: Plan, folder: Path | None, command: Sequence[str], clock: SessionClock, say: Say) -> RunOutcome:
    """Answer what is missing, score, and write the record.

    Args:
        folder: of an unfinished run to continue, None to begin one.
    """
    record, done = _read_unfinished(plan, folder)
    sessions = () if folder is None else earlier_sessions(folder, record, len(done))
    if folder is not None:
        drop_torn_tail(folder)
        say(f"Continuing {folder}: {len(done)} of {len(plan.items)} items are done.")
    if folder is not None and record is not None and len(done) == len(plan.items):
        return _finish(plan, RecordKeeper(plan, folder, command, clock, sessions), folder, record.model)
    clock.model_load_s = load_planned(plan)
    try:
        folder = folder or create_run(plan.folder, plan.run_id())
        keeper = RecordKeeper(plan, folder, command, clock, sessions)
        _answer(plan, keeper, folder, done, say)
        return _finish(plan, keeper, folder, _model_now(plan))
    finally:
        plan.adapter.close()


def _read_unfinished(plan: Plan, folder: Path | None) -> tuple[RunRecord | None, list[Prediction]]:
    """Record and predictions of earlier sessions.

    Raises:
        RecordError: they are not the beginning of this run.
    """
    if folder is None:
        return None, []
    with _hint_of_fresh():
        record, done = load_run(folder)
    if record is not None:
        _check_identity(record, plan, plan.wants_label_scores, folder)
    expected = [item.item_id for item in plan.items[: len(done)]]
    if [prediction.item_id for prediction in done] != expected:
        raise RecordError(f"{folder / PREDICTIONS_FILE} does not begin with this run's items in order. Use --fresh.")
    return record, done


def load_planned(plan: Plan) -> float:
    """Load the plan's model, and return the seconds that took."""
    started = time.perf_counter()
    limit_loaded_pools(plan.config.resolved_threads())
    seed_generators(str(plan.config.seed))
    load_model(plan.adapter, plan.model.name, plan.device, plan.config.resolved_dtype())
    # Once more: load is where most models first import torch.
    limit_loaded_pools(plan.config.resolved_threads())
    if described(plan.adapter, plan.model.name).fingerprint != plan.description.fingerprint:
        raise PluginError(
            f"The model '{plan.model.name}' changed its fingerprint while it was loaded, so its runs cannot be told "
            "apart: describe() must give the same one before load()."
        )
    return time.perf_counter() - started


def _answer(plan: Plan, keeper: RecordKeeper, folder: Path, done: Sequence[Prediction], say: Say) -> None:
    """Answer the missing items; when that ends early, the record says so before the exception goes on."""
    keeper.write("running", _model_now(plan), done)
    try:
        answer_missing(plan, folder, len(done))
    except BaseException as error:
        is_interrupt = isinstance(error, KeyboardInterrupt)
        written = load_predictions(folder)
        keeper.write("interrupted" if is_interrupt else "stopped", _model_now(plan), written)
        if is_interrupt:
            say(
                f"Interrupted after {len(written)} of {len(plan.items)} items, which are kept in {folder}. "
                "The same command continues there."
            )
        raise


def answer_missing(plan: Plan, folder: Path, n_done: int, condition: str = "") -> None:
    """Compute whole batches, from the one of the first missing item, and append the lines that are not there yet.

    Args:
        plan: whose model is loaded.
        folder: where `predictions.jsonl` lies, or will.
        n_done: lines that it has.
        condition: what the progress display calls these items, where they are not the plain ones.
    """
    batches = plan.batches()
    starts = [0, *accumulate(map(len, batches))]
    batch_index = bisect_right(starts, n_done) - 1
    label = f"{plan.config.model} on {plan.task.name}{condition and f', {condition}'}"
    clips = hear_batches(batches[batch_index:], plan.description.sample_rate_hz, plan.description.max_audio_s)
    with (
        PredictionWriter(folder) as writer,
        closing(clips),
        progress(label, len(plan.items), n_done) as advance,
    ):
        for batch in clips:
            rows = answer_batch(plan.adapter, batch, plan.question, batch_index, plan.config.seed)
            del batch  # its clips need not wait in memory while the next ones are decoded
            missing = rows[max(0, n_done - starts[batch_index]) :]
            for row in missing:
                writer.append(row)
            writer.sync()
            advance(len(missing))
            batch_index += 1


def _finish(plan: Plan, keeper: RecordKeeper, folder: Path, model: ModelRow) -> RunOutcome:
    """Score what lies on disk and write the final record."""
    predictions = load_predictions(folder)
    if len(predictions) != len(plan.items):
        raise RecordError(f"{folder / PREDICTIONS_FILE} has {len(predictions)} lines for {len(plan.items)} items.")
    labels = label_rows(plan.benchmark)
    metrics, facts = plan.benchmark.metrics, plan.run_facts
    scores = [row for name in plan.scorers for row in compute_scores(predictions, labels, name, metrics, facts)]
    record = keeper.write("complete", model, predictions, scores)
    return _outcome(plan, folder, record, scores, was_complete=False)


def _model_now(plan: Plan) -> ModelRow:
    return model_row(plan, described(plan.adapter, plan.model.name))
