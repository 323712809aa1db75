"""`run` in several processes: each answers its share of the batches, and the main one merges, scores and records.

Batches are those of a run in one process, with the same seeds, so the merged predictions are that run's: its identity
and its folder's name are the same, and either kind continues what the other began. A share that was not finished is
shared out anew among the processes that continue.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

from harness.answering import answer_batch
from harness.config import RunConfig
from harness.errors import UsageError
from harness.hearing import hear_batches
from harness.plan import Plan, make_plan
from harness.processes import Processes
from harness.progress import Advance, progress, say_on_stderr
from harness.run_folder import locked, newest_run
from harness.run_record import SessionClock
from harness.runner import (
    RunOutcome,
    Say,
    begin,
    find_finished,
    finish,
    finish_answered,
    is_answered,
    load_planned,
    model_now,
    read_unfinished,
    recorded,
    reuse,
)
from harness.shards import collect, merge, shard_writer


def run_shared(
    config: RunConfig, processes: Processes, command: Sequence[str] = (), say: Say = say_on_stderr
) -> RunOutcome | None:
    """Carry out a `run` command together with others; the outcome in the main process, None in the others.

    Args:
        config: what is asked for, the same in all.
        processes: this one among those that answer.
        command: the words of the command line, for the record.
        say: takes lines for the user, in the main process.

    Raises:
        HarnessError: as `harness.runner.run`; or the processes do not agree on what is asked, or see no common folder.
    """
    clock = SessionClock(processes.count)
    plan = make_plan(config, say if processes.is_main else _say_nothing)
    _check_same(plan, processes)
    if not processes.is_main:
        _help(plan, processes)
        return None
    with locked(plan.folder, plan.run_id()):
        return _lead(plan, processes, command, clock, say)


def _say_nothing(line: str) -> None:
    """For processes whose lines the main one says too."""


def _check_same(plan: Plan, processes: Processes) -> None:
    """Every process makes its own plan, on its node: a file that is another there must not go unnoticed."""
    ids = processes.gather(plan.run_id())
    if len(set(ids)) > 1:
        raise UsageError(
            f"process {ids.index(next(i for i in ids if i != ids[0]))} would answer another run than process 0: "
            "its data, weights, packages or number of threads are not the same"
        )


def _lead(plan: Plan, processes: Processes, command: Sequence[str], clock: SessionClock, say: Say) -> RunOutcome:
    """The main process: it finds what is there, answers its share, merges, scores and records."""
    finished = None if plan.config.fresh else find_finished(plan)
    if finished is not None:
        processes.from_main(False)
        return reuse(plan, finished, say)
    unfinished = read_unfinished(plan, None if plan.config.fresh else newest_run(plan.folder, plan.run_id()), say)
    if is_answered(plan, unfinished):
        processes.from_main(False)
        return finish_answered(plan, unfinished, command, clock)
    processes.from_main(True)
    clock.model_load_s = load_planned(plan)
    try:
        keeper, folder = begin(plan, unfinished, command, clock)
        with recorded(plan, keeper, folder, unfinished, say):
            # What is done is told, not read by each: shards grow while a slower process would read them.
            done = frozenset(unfinished.done)
            processes.from_main((folder, done))
            _answer_share(plan, folder, done, processes)
            processes.wait()
            item_ids = [item.item_id for item in plan.items]
            merge(folder, item_ids, collect(folder, item_ids))
        return finish(plan, keeper, folder, model_now(plan))
    finally:
        plan.adapter.close()


def _help(plan: Plan, processes: Processes) -> None:
    """Any other process: it answers its share of what the main one found missing."""
    is_needed = processes.from_main(None)
    if not is_needed:
        return
    load_planned(plan)
    try:
        folder, done = processes.from_main(None)
        if not folder.is_dir():
            raise UsageError(f"process {processes.rank} does not see {folder}: all need one file system")
        _answer_share(plan, folder, done, processes)
        processes.wait()
    finally:
        plan.adapter.close()


def _answer_share(plan: Plan, folder: Path, done: Container[str], processes: Processes) -> None:
    """Compute whole batches, every so-manieth of those that lack an item, and keep their rows in this one's shard."""
    batches = plan.batches()
    missing = [index for index, batch in enumerate(batches) if any(each.item.item_id not in done for each in batch)]
    own = processes.share(missing)
    n_items = sum(each.item.item_id not in done for index in own for each in batches[index])
    clips = hear_batches(
        [batches[index] for index in own], plan.description.sample_rate_hz, plan.description.max_audio_s
    )
    with (
        shard_writer(folder, processes.rank) as writer,
        closing(clips),
        _progress(plan, n_items, processes) as advance,
    ):
        for index, batch in zip(own, clips, strict=True):
            rows = answer_batch(plan.adapter, batch, plan.question, index, plan.config.seed)
            del batch  # its clips need not wait in memory while the next ones are decoded
            rows = [row for row in rows if row.item_id not in done]
            for row in rows:
                writer.append(row)
            writer.sync()
            advance(len(rows))


def _progress(plan: Plan, n_items: int, processes: Processes) -> AbstractContextManager[Advance]:
    """Of the main process's share, which is as large as the others'."""
    if not processes.is_main:
        return nullcontext(lambda n_items: None)
    return progress(f"{plan.config.model} on {plan.task.name}, process 1 of {processes.count}", n_items)
