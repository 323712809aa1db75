"""`run`: a model answers a task's questions, and the answers are scored."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import _asking as asking
from harness.cli._asking import split_names as split_names
from harness.cli._exit_codes import EXIT_INTERRUPTED
from harness.cli._options import ModelOptions, PluginFiles, ResultsFolder, TaskOptions

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.runner import RunOutcome


def run(
    model: asking.ModelName,
    task: asking.TaskName,
    protocol: asking.Protocol = None,
    model_option: ModelOptions = None,
    task_option: TaskOptions = None,
    prompt: asking.Prompt = None,
    limit: asking.Limit = None,
    items: asking.Items = None,
    seed: asking.Seed = 0,
    batch_size: asking.BatchSize = None,
    device: asking.Device = None,
    dtype: asking.Dtype = None,
    threads: asking.Threads = None,
    data_root: asking.DataRoot = None,
    results: ResultsFolder = Path("results"),
    scorer: asking.ScorerNames = None,
    max_failures: Annotated[
        str,
        typer.Option(
            metavar="N|N%", help="Exit with code 1 when more items fail: a number of items, or a share such as 5%."
        ),
    ] = "0",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin a new run, even where the same one is complete or was interrupted.")
    ] = False,
    plugin: PluginFiles = None,
) -> int:
    """Ask a model every question of a task, score its answers, and print the table.

    The same command again continues a run that was interrupted, and shows one that is complete.
    """
    from harness.config import FailureLimit

    config = asking.asked_config(
        model,
        task,
        plugin,
        model_option,
        task_option,
        scorer,
        protocol=protocol,
        prompt=prompt,
        limit=limit,
        items=items,
        seed=seed,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        threads=threads,
        data_root=data_root,
        results=results,
        max_failures=FailureLimit.parse(max_failures),
        fresh=fresh,
    )
    return _carry_out(config)


def _carry_out(config: RunConfig) -> int:
    from harness.tables import print_result

    try:
        outcome = _outcome(config, ["lalm-harness", *sys.argv[1:]])
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    if outcome is None:
        return 0
    print_result(outcome.record, outcome.scores, outcome.folder)
    if outcome.exit_code:
        print(
            f"{outcome.record.counts.n_failed} of {outcome.record.counts.n_items} items failed; "
            f"--max-failures allows {config.max_failures}.",
            file=sys.stderr,
        )
    return outcome.exit_code


def _outcome(config: RunConfig, command: list[str]) -> RunOutcome | None:
    """What the run came to; None in all processes but the main one, which prints it."""
    from harness.processes import is_launched, joined_to_answer
    from harness.runner import run as run_config

    if not is_launched():
        return run_config(config, command)
    from harness.shared_run import run_shared

    with joined_to_answer(config.resolved_device()) as processes:
        return run_shared(config, processes, command)
