"""`scaling`: what models cost at growing lengths of audio."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli._options import ModelOptions, PluginFiles, ResultsFolder, add_plugins, parse_options

if TYPE_CHECKING:
    from harness.scaling import ScalingConfig, ScalingOutcome


def scaling(
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:VARIANT]", help="A model to measure. Repeatable. [default: the four tiny models]"),
    ] = None,
    model_option: ModelOptions = None,
    seconds: Annotated[
        str | None,
        typer.Option(metavar="S,S,...", help="Lengths of audio. [default: 1,10,30,60,120,300,600]"),
    ] = None,
    batch_size: Annotated[str, typer.Option(metavar="N,N,...", help="Clips at once.")] = "1",
    step: Annotated[
        Literal["infer", "train"], typer.Option(help="Measure an answer, or a forward and backward pass.")
    ] = "infer",
    tokens: Annotated[int, typer.Option(metavar="N", help="Tokens of each answer; an end does not end it.")] = 16,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="auto, cpu, mps, cuda or cuda:N. [default: auto]")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="TYPE", help="float32, bfloat16 or float16. [default: float32]")
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="CPU threads. [default: every usable core]")] = None,
    half_width: Annotated[
        float, typer.Option(metavar="X", help="Measure until half the median's interval is this share of it.")
    ] = 0.02,
    most_seconds: Annotated[
        float,
        typer.Option(
            metavar="S",
            help="Stop timing a point after so long, or four times as long below ten iterations; what is wider then is "
            "noisy.",
        ),
    ] = 5.0,
    time_limit: Annotated[float, typer.Option(metavar="S", help="End a point's process after so long.")] = 600.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Decides the audio and the order of the points.")] = 0,
    results: ResultsFolder = Path("results"),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure every point, even where it is there already.")
    ] = False,
    plugin: PluginFiles = None,
) -> int:
    """Measure time, memory, operations and energy over the length of audio, by component, and fit how they grow.

    Without arguments: the four tiny models, from 1 s to 10 min. The same command again continues.
    """
    from harness.scaling import DEFAULT_MODELS, DEFAULT_SECONDS, ScalingConfig

    add_plugins(plugin)
    config = ScalingConfig(
        models=tuple(model) if model else DEFAULT_MODELS,
        model_options=parse_options(model_option, "-m"),
        seconds=_numbers(seconds, "--seconds", float) if seconds else DEFAULT_SECONDS,
        batch_sizes=_numbers(batch_size, "--batch-size", int),
        step=step,
        n_tokens=tokens,
        device=device,
        dtype=dtype,
        threads=threads,
        half_width=half_width,
        least_s=min(2.0, most_seconds),
        most_s=most_seconds,
        time_limit_s=time_limit,
        seed=seed,
        plugins=tuple(plugin or ()),
        results=results,
        fresh=fresh,
    )
    return _carry_out(config)


def _carry_out(config: ScalingConfig) -> int:
    from harness.scaling import scale

    outcome = scale(config, command=["lalm-harness", *sys.argv[1:]])
    _show(outcome)
    return outcome.exit_code


def _show(outcome: ScalingOutcome) -> None:
    """What grows how, who is cheaper from where, and where the rest is."""
    from harness.errors import MissingExtraError
    from harness.scaling_figures import draw_figures
    from harness.scaling_rows import load_points, newest_points
    from harness.scaling_tables import crossover_table, growth_table, write_tables
    from harness.tables import plain_text

    for table in (growth_table(outcome.points), crossover_table(outcome.points)):
        if table.rows:
            print(plain_text(table), end="\n\n")
    noisy = sum(bool(p.measured.noise) for p in outcome.points if p.measured is not None)
    if noisy:
        print(
            f"{noisy} of {len(outcome.points)} points are noisy: their intervals are wider than asked (points.md: ~)."
        )
    # Of all that is in the folder, so that it stays of one piece when a command adds lengths.
    points = newest_points(load_points(outcome.folder))
    write_tables(points, outcome.folder)
    try:
        draw_figures(points, outcome.folder)
    except MissingExtraError as error:
        print(f"Figures were not drawn. {error}", file=sys.stderr)
    unlike = sum(p.measured.tokens_alike is False for p in outcome.points if p.measured is not None)
    if unlike:
        print(f"At {unlike} points the timed runs did not say what the first call said: the model is not repeatable.")
    print(f"Record, tables and figures: {outcome.folder}")


def _numbers(text: str, flag: str, kind: type) -> tuple:  # type: ignore[type-arg]
    """Take "1,10,60" apart."""
    from harness.errors import UsageError

    try:
        return tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"{flag} '{text}' is not a list of numbers with commas between.") from error
