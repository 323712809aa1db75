"""`compare`: two runs, or two models on every task that both were asked, item by item."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli._options import PluginFiles, ResultsFolder, add_plugins


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A run's folder, or a model as NAME[:VARIANT].")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    scorer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="What turned answers into labels. [default: every scorer of both runs]"),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="What is compared. [default: each task's first metric]")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the bootstrap.")] = 0,
    results: ResultsFolder = Path("results"),
    plugin: PluginFiles = None,
) -> int:
    """Test whether two models differ, on the same items, prompt and scorer; anything else is refused."""
    from harness.cli.run import split_names

    add_plugins(plugin)
    from harness.compare import compare as compare_runs
    from harness.compare import comparison_lines, comparison_table
    from harness.comparison_record import keep
    from harness.tables import plain_text

    report = compare_runs(first, second, results, split_names(scorer), split_names(metric), seed=seed)
    folder = keep(report, results, ["lalm-harness", *sys.argv[1:]], seed)
    typer.echo(plain_text(comparison_table(report)))
    for line in comparison_lines(report):
        typer.echo(line)
    typer.echo(f"Record: {folder}")
    return 0
