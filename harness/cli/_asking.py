"""The options by which `run` and `controls` say what is asked, and the one place that makes a config of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli._options import add_plugins, parse_options

if TYPE_CHECKING:
    from harness.config import RunConfig

ModelName = Annotated[
    str, typer.Option("--model", metavar="NAME[:VARIANT]", help="The model to ask. `list models` names them.")
]
TaskName = Annotated[str, typer.Option("--task", metavar="NAME", help="The benchmark to ask. `list tasks` names them.")]
Protocol = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A published protocol: `ltu` sets LTU's question, 10.24 s cut, sampling, scorer and number of captions.",
    ),
]
Prompt = Annotated[
    str | None, typer.Option(metavar="NAME", help="Which of the task's questions to ask. [default: its first]")
]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", help="Ask only N items, drawn at random with --seed and asked in the data's order."),
]
Items = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Ask only the items in this file, one item id a line.")
]
Seed = Annotated[int, typer.Option(metavar="N", help="Decides every random draw, that of --limit included.")]
BatchSize = Annotated[
    int | None, typer.Option(metavar="N", help="Clips the model is asked about at once. [default: 8]")
]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="auto, cpu, mps, cuda or cuda:N. [default: auto]")]
Dtype = Annotated[
    str | None,
    typer.Option(metavar="TYPE", help="Number type of the weights: float32, bfloat16, float16. [default: float32]"),
]
Threads = Annotated[
    int | None, typer.Option(metavar="N", help="CPU threads to compute with. [default: every usable core]")
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where the task's data lies. [default: $LALM_HARNESS_DATA, then ./data, then the task's starter set]",
    ),
]
ScorerNames = Annotated[
    list[str] | None,
    typer.Option(
        "--scorer",
        metavar="NAME",
        help="What turns answers into labels; repeat it or separate names by commas. "
        "[default: exact, and loglik for models that score labels]",
    ),
]


def split_names(texts: Sequence[str] | None) -> tuple[str, ...]:
    """Take ["exact,loglik", "embed"] apart into single names."""
    return tuple(name.strip() for text in texts or () for name in text.split(",") if name.strip())


def asked_config(
    model: str,
    task: str,
    plugin: Sequence[Path] | None,
    model_option: Sequence[str] | None,
    task_option: Sequence[str] | None,
    scorer: Sequence[str] | None,
    **values: Any,
) -> RunConfig:
    """What was typed as a config; the plugin files are known from here on, and the threads are pinned.

    Args:
        model, task, plugin, model_option, task_option, scorer: as typed.
        values: the config's other fields.

    Raises:
        HarnessError: a value is out of range, or a file is no plugin.
    """
    from harness.config import RunConfig, pin_threads
    from harness.registry import split_model

    add_plugins(plugin)
    name, variant = split_model(model)
    config = RunConfig(
        model=name,
        variant=variant,
        task=task,
        model_options=parse_options(model_option, "-m"),
        task_options=parse_options(task_option, "-t"),
        scorers=split_names(scorer),
        **values,
    )
    # Before the first import of a numerical library: its pool is sized then.
    pin_threads(config.resolved_threads())
    return config
