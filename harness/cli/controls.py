"""`controls`: the same questions with the audio taken away or spoilt, to see whether it was used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import _asking as asking
from harness.cli._exit_codes import EXIT_INTERRUPTED
from harness.cli._options import ModelOptions, PluginFiles, ResultsFolder, TaskOptions

if TYPE_CHECKING:
    from harness.config import RunConfig


def controls(
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
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, even where these controls are complete.")] = False,
    plugin: PluginFiles = None,
) -> int:
    """Ask about each clip as it is, silent, as noise, swapped, reversed, missing and cut; print the audio gain.

    The same command again continues controls that were interrupted, and shows those that are complete. The exit code
    is 1 when an item failed in any condition.
    """
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
        fresh=fresh,
    )
    return _carry_out(config)


def _carry_out(config: RunConfig) -> int:
    from harness.controls import controls_lines, controls_table, n_failed, run_controls
    from harness.tables import plain_text

    try:
        outcome = run_controls(config, command=["lalm-harness", *sys.argv[1:]])
    except KeyboardInterrupt:
        print("Interrupted; the same command continues.", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(plain_text(controls_table(outcome.record)))
    for line in controls_lines(outcome.record, outcome.folder):
        print(line)
    return int(n_failed(outcome.record) > 0)
