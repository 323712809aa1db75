"""`run`: a model answers a task's questions, and the answers are scored."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli._exit_codes import EXIT_INTERRUPTED
from harness.cli._options import ModelOptions, PluginFiles, ResultsFolder, TaskOptions, add_plugins, parse_options

if TYPE_CHECKING:
    from harness.config import RunConfig


def run(
    model: Annotated[str, typer.Option(metavar="NAME[:VARIANT]", help="The model to ask. `list models` names them.")],
    task: Annotated[str, typer.Option(metavar="NAME", help="The benchmark to ask. `list tasks` names them.")],
    model_option: ModelOptions = None,
    task_option: TaskOptions = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which of the task's questions to ask. [default: its first]")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="Ask only N items, drawn at random with --seed and asked in the data's order."),
    ] = None,
    items: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ask only the items in this file, one item id a line.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Decides every random draw, that of --limit included.")] = 0,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Clips the model is asked about at once. [default: 8]")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="auto, cpu, mps, cuda or cuda:N. [default: auto]")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="Number type of the weights: float32, bfloat16, float16. [default: float32]"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="CPU threads to compute with. [default: every usable core]")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the task's data lies. [default: $LALM_HARNESS_DATA, then ./data, then the task's starter set]",
        ),
    ] = None,
    results: ResultsFolder = Path("results"),
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="What turns answers into labels; repeat it or separate names by commas. "
            "[default: exact, and loglik for models that score labels]",
        ),
    ] = None,
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
    from harness.config import FailureLimit, RunConfig
    from harness.registry import split_model

    add_plugins(plugin)
    name, variant = split_model(model)
    config = RunConfig(
        model=name,
        variant=variant,
        task=task,
        model_options=parse_options(model_option, "-m"),
        task_options=parse_options(task_option, "-t"),
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
        scorers=split_names(scorer),
        max_failures=FailureLimit.parse(max_failures),
        fresh=fresh,
    )
    return _carry_out(config)


def split_names(texts: list[str] | None) -> tuple[str, ...]:
    """Take ["exact,loglik", "embed"] apart into single names."""
    return tuple(name.strip() for text in texts or () for name in text.split(",") if name.strip())


def _carry_out(config: RunConfig) -> int:
    from harness.config import pin_threads

    # Before the first import of a numerical library: its pool is sized then.
    pin_threads(config.resolved_threads())
    from harness.runner import run as run_config
    from harness.tables import print_result

    try:
        outcome = run_config(config, command=["lalm-harness", *sys.argv[1:]])
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    print_result(outcome.record, outcome.scores, outcome.folder)
    if outcome.exit_code:
        print(
            f"{outcome.record.counts.n_failed} of {outcome.record.counts.n_items} items failed; "
            f"--max-failures allows {config.max_failures}.",
            file=sys.stderr,
        )
    return outcome.exit_code
