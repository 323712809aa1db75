"""`score`: a finished run under another scorer or metric, without asking the model again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli._options import PluginFiles, add_plugins
from harness.errors import UsageError


def score(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="The folder that `run` printed.")],
    scorer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="What turns answers into labels; repeat it or separate names by commas."),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="What is computed of them. [default: the task's metrics]")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Split the scores by the items' metadata, such as length_s,depth,snr_db; writes strata-*.csv instead.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a score of the same scorer and metric that differs.")
    ] = False,
    plugin: PluginFiles = None,
) -> int:
    """Score a finished run again, print the table, and write scores-<scorer>.json into its folder."""
    from harness.cli.run import split_names

    scorers = split_names(scorer)
    if not scorers:
        raise UsageError("score needs --scorer NAME: `list scorers` names them; captions, transcripts: verbatim.")
    add_plugins(plugin)
    from harness.scores import score_run
    from harness.tables import print_result

    if names := split_names(by):
        return _print_strata(run_folder, scorers, names, split_names(metric))
    record, rows = score_run(run_folder, scorers, split_names(metric), overwrite)
    print_result(record, rows, run_folder)
    return 0


def _print_strata(run_folder: Path, scorers: tuple[str, ...], by: tuple[str, ...], metrics: tuple[str, ...]) -> int:
    from harness.strata import strata_file, strata_lines, strata_of, strata_table
    from harness.tables import model_text, plain_text, task_text

    record, reports = strata_of(run_folder, scorers, by, metrics)
    for report in reports:
        typer.echo(f"{model_text(record)} on {task_text(record)}, {report.metric} by {report.scorer}")
        typer.echo(plain_text(strata_table(report)))
        for line in strata_lines(report):
            typer.echo(line)
        typer.echo(f"Table: {strata_file(run_folder, report)}")
    return 0
