"""`run`: items to batches to answers to predictions to scores to a record. Continues what an earlier process began.

Everything that decides the predictions makes up the run's identity, whose hash names the folder. A run of the same
identity that is complete is shown, not computed; one that is not is continued at the first missing line.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType

from harness.answering import answer_batch, seed_generators
from harness.config import RunConfig, limit_loaded_pools
from harness.errors import PluginError, RecordError
from harness.hashing import canonical_sha256
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
    Session,
    load_predictions,
    load_record,
    load_run,
)
from harness.run_folder import create_run, locked, newest_run
from harness.run_record import RecordKeeper, SessionClock, earlier_sessions, label_rows, model_row
from harness.scores import compute_scores, load_finished, make_scorer, score_run, stored_scores
from harness.shards import collect, delete_shards, drop_torn_tails, merge

Say = Callable[[str], None]
NOTHING: Mapping[str, Prediction] = MappingProxyType({})


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
        finished = None if config.fresh else find_finished(plan)
        if finished is not None:
            return reuse(plan, finished, say)
        unfinished = None if config.fresh else newest_run(plan.folder, plan.run_id())
        return _compute(plan, unfinished, command, clock, say)


# --- a run that is there already -------------------------------------------------------------------------------------


def find_finished(plan: Plan) -> Path | None:
    """A complete run with these predictions; one that also recorded label scores serves a scorer that needs none."""
    for wants in dict.fromkeys((plan.wants_label_scores, True)):
        folder = newest_run(plan.folder, plan.run_id(wants))
        with _hint_of_fresh():
            record = load_run(folder)[0] if folder is not None else None
        if folder is not None and record is not None and record.is_complete:
            _check_identity(record, plan, wants, folder)
            return folder
    return None


def reuse(plan: Plan, folder: Path, say: Say) -> RunOutcome:
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


@dataclass(frozen=True)
class Unfinished:
    """What earlier sessions left of a run: rows by item in the run's order, of which `n_merged` are in its file.

    `folder` is None where there was no session.
    """

    folder: Path | None
    record: RunRecord | None
    done: Mapping[str, Prediction]
    n_merged: int
    sessions: tuple[Session, ...]


def _compute(plan: Plan, folder: Path | None, command: Sequence[str], clock: SessionClock, say: Say) -> RunOutcome:
    """Answer what is missing, score, and write the record.

    Args:
        folder: of an unfinished run to continue, None to begin one.
    """
    unfinished = read_unfinished(plan, folder, say)
    if is_answered(plan, unfinished):
        return finish_answered(plan, unfinished, command, clock)
    clock.model_load_s = load_planned(plan)
    try:
        keeper, folder = begin(plan, unfinished, command, clock)
        with recorded(plan, keeper, folder, unfinished, say):
            answer_missing(plan, folder, unfinished.n_merged, known=unfinished.done)
        return finish(plan, keeper, folder, model_now(plan))
    finally:
        plan.adapter.close()


def read_unfinished(plan: Plan, folder: Path | None, say: Say) -> Unfinished:
    """What earlier sessions left; torn lines are cut, and what several processes answered is merged as far as it goes.

    Raises:
        RecordError: it is not a part of this run.
    """
    if folder is None:
        return Unfinished(None, None, {}, 0, ())
    item_ids = [item.item_id for item in plan.items]
    with _hint_of_fresh():
        record = load_record(folder)
        done = collect(folder, item_ids)
    if record is not None:
        _check_identity(record, plan, plan.wants_label_scores, folder)
    sessions = earlier_sessions(folder, record, len(done))
    drop_torn_tails(folder)
    n_merged = merge(folder, item_ids, done)
    say(f"Continuing {folder}: {len(done)} of {len(plan.items)} items are done.")
    return Unfinished(folder, record, done, n_merged, sessions)


def is_answered(plan: Plan, unfinished: Unfinished) -> bool:
    """Whether nothing is missing but scores and the record."""
    return unfinished.record is not None and unfinished.n_merged == len(plan.items)


def finish_answered(plan: Plan, unfinished: Unfinished, command: Sequence[str], clock: SessionClock) -> RunOutcome:
    """Score and record a run that has every line, without its model."""
    assert unfinished.folder is not None and unfinished.record is not None
    keeper = RecordKeeper(plan, unfinished.folder, command, clock, unfinished.sessions)
    return finish(plan, keeper, unfinished.folder, unfinished.record.model)


def begin(plan: Plan, unfinished: Unfinished, command: Sequence[str], clock: SessionClock) -> tuple[RecordKeeper, Path]:
    """Who writes the record of this session, and the folder: the one that is continued, or a new one."""
    folder = unfinished.folder or create_run(plan.folder, plan.run_id())
    return RecordKeeper(plan, folder, command, clock, unfinished.sessions), folder


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


@contextmanager
def recorded(plan: Plan, keeper: RecordKeeper, folder: Path, unfinished: Unfinished, say: Say) -> Iterator[None]:
    """The block answers items; when that ends early, the record says so before the exception goes on."""
    keeper.write("running", model_now(plan), list(unfinished.done.values()))
    try:
        yield
    except BaseException as error:
        is_interrupt = isinstance(error, KeyboardInterrupt)
        written = list(_rows_there(plan, folder, otherwise=unfinished.done).values())
        keeper.write("interrupted" if is_interrupt else "stopped", model_now(plan), written)
        if is_interrupt:
            say(
                f"Interrupted after {len(written)} of {len(plan.items)} items, which are kept in {folder}. "
                "The same command continues there."
            )
        raise


def _rows_there(plan: Plan, folder: Path, otherwise: Mapping[str, Prediction]) -> Mapping[str, Prediction]:
    """What lies in `folder`; `otherwise` where that cannot be read: the error which stopped the run is to be told."""
    try:
        return collect(folder, [item.item_id for item in plan.items])
    except RecordError:
        return otherwise


def answer_missing(
    plan: Plan, folder: Path, n_done: int, condition: str = "", known: Mapping[str, Prediction] = NOTHING
) -> None:
    """Compute whole batches, from the one of the first missing item, and append the lines that are not there yet.

    Args:
        plan: whose model is loaded.
        folder: where `predictions.jsonl` lies, or will.
        n_done: lines that it has.
        condition: what the progress display calls these items, where they are not the plain ones.
        known: rows by item that lie elsewhere; a batch of nothing else is not computed.
    """
    batches = plan.batches()
    starts = [0, *accumulate(map(len, batches))]
    indices = range(bisect_right(starts, n_done) - 1, len(batches))
    missing = {index for index in indices if any(each.item.item_id not in known for each in batches[index])}
    label = f"{plan.config.model} on {plan.task.name}{condition and f', {condition}'}"
    clips = hear_batches(
        [batches[index] for index in sorted(missing)], plan.description.sample_rate_hz, plan.description.max_audio_s
    )
    with (
        PredictionWriter(folder) as writer,
        closing(clips),
        progress(label, len(plan.items), n_done) as advance,
    ):
        for index in indices:
            if index in missing:
                batch = next(clips)
                rows = answer_batch(plan.adapter, batch, plan.question, index, plan.config.seed)
                del batch  # its clips need not wait in memory while the next ones are decoded
            else:
                rows = [known[each.item.item_id] for each in batches[index]]
            rows = rows[max(0, n_done - starts[index]) :]
            for row in rows:
                writer.append(known.get(row.item_id, row))
            writer.sync()
            advance(len(rows))


def finish(plan: Plan, keeper: RecordKeeper, folder: Path, model: ModelRow) -> RunOutcome:
    """Score what lies on disk and write the final record."""
    predictions = load_predictions(folder)
    if len(predictions) != len(plan.items):
        raise RecordError(f"{folder / PREDICTIONS_FILE} has {len(predictions)} lines for {len(plan.items)} items.")
    delete_shards(folder)
    labels = label_rows(plan.benchmark)
    metrics, facts = plan.benchmark.metrics, plan.run_facts
    scores = [row for name in plan.scorers for row in compute_scores(predictions, labels, name, metrics, facts)]
    record = keeper.write("complete", model, predictions, scores)
    return _outcome(plan, folder, record, scores, was_complete=False)


def model_now(plan: Plan) -> ModelRow:
    """The model as it describes itself now: some know their kernels only once they are loaded."""
    return model_row(plan, described(plan.adapter, plan.model.name))
