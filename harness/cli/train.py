"""`train`: a recipe makes a model's weights."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli._exit_codes import EXIT_INTERRUPTED
from harness.cli._options import ModelOptions, PluginFiles, add_plugins, parse_options

if TYPE_CHECKING:
    from harness.training import TrainConfig, TrainOutcome


def train(
    model: Annotated[str, typer.Option(metavar="NAME[:VARIANT]", help="The model to train.")],
    recipe: Annotated[str, typer.Option(metavar="NAME", help="How. `list recipes` names them.")],
    model_option: ModelOptions = None,
    recipe_option: Annotated[
        list[str] | None,
        typer.Option("-r", "--recipe-option", metavar="KEY=VALUE", help="An option of the recipe. Repeatable."),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where the data lies. [default: $LALM_HARNESS_DATA, then ./data]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The run's folder. [default: results/training/MODEL/RECIPE-seedN...]"),
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Steps. [default: the recipe's]")] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Clips a step. [default: the recipe's]")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="RATE", help="Highest rate. [default: the recipe's]")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Decides weights, clips and masks.")] = None,
    threads: Annotated[
        int, typer.Option(metavar="N", help="CPU threads. Weights differ in their last digits with another number.")
    ] = 1,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="cpu or cuda:N. [default: cpu]")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(metavar="N", help="Steps between checkpoints.")] = None,
    log_every: Annotated[int | None, typer.Option(metavar="N", help="Steps between lines of the curve.")] = None,
    plugin: PluginFiles = None,
) -> int:
    """Train a model by a recipe. The same command again continues where it was interrupted."""
    from harness.config import pin_threads

    add_plugins(plugin)
    pin_threads(threads)
    changes = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "threads": threads,
        "device": device,
        "checkpoint_every": checkpoint_every,
        "log_every": log_every,
    }
    options = parse_options(recipe_option, "-r")
    try:
        outcome = _carry_out(model, parse_options(model_option, "-m"), recipe, options, changes, data_root, out)
    except KeyboardInterrupt:
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        return EXIT_INTERRUPTED
    _print_outcome(outcome)
    return 0


def _carry_out(
    model_text: str,
    model_options: Mapping[str, str],
    recipe_name: str,
    recipe_options: Mapping[str, str],
    changes: Mapping[str, Any],
    data_root: Path | None,
    out: Path | None,
) -> TrainOutcome:
    from dataclasses import replace

    from harness import registry
    from harness.contracts import TrainableModel
    from harness.errors import UsageError
    from harness.training import train as train_model

    name, variant = registry.split_model(model_text)
    made = registry.create("models", name, {**model_options, **({"variant": variant} if variant else {})})
    if not isinstance(made.value, TrainableModel):
        raise UsageError(f"the model '{name}' cannot be trained")
    recipe = registry.create("recipes", recipe_name, recipe_options).value
    config: TrainConfig = replace(recipe.defaults, **{k: v for k, v in changes.items() if v is not None})
    label = "-".join([name, str(made.options_resolved.get("variant", ""))]).rstrip("-")
    shown = {**{f"m.{key}": value for key, value in model_options.items() if key != "variant"}, **recipe_options}
    tags = [
        recipe_name,
        f"seed{config.seed}",
        *(f"{key}={value}".replace("/", "_") for key, value in sorted(shown.items())),
    ]
    folder = out or Path("results") / "training" / label / "-".join(tags)
    show = _Progress(label, config)
    return train_model(made.value, recipe, config, folder, data_root, made.options_resolved, show.start, show.line)


class _Progress:
    """One line of text for each line of the curve, with the time that is left."""

    def __init__(self, label: str, config: TrainConfig) -> None:
        self._label, self._config = label, config

    def start(self, step: int) -> None:
        """Say where training starts."""
        verb = "starts" if step == 0 else f"continues at step {step}"
        print(
            f"{self._label}: training {verb} of {self._config.steps}, {self._config.first_round} in the first round",
            flush=True,
        )

    def line(self, line: Mapping[str, float]) -> None:
        """Say how it goes."""
        from harness.progress import duration_text

        step, config = int(line["step"]), self._config
        # The second round's steps are not those that the speed was measured on, so only this round's are told.
        end = config.first_round if step < config.first_round else config.steps
        left_s = (end - step) * config.batch_size_at(step) / line["clips_per_s"]
        losses = " ".join(f"{key} {value:.3f}" for key, value in line.items() if key.endswith("_loss"))
        print(
            f"{self._label}: step {line['step']:.0f} of {self._config.steps}, {losses}, "
            f"{line['clips_per_s']:.1f} clips/s, {duration_text(left_s)} left of this round",
            flush=True,
        )


def _print_outcome(outcome: TrainOutcome) -> None:
    if outcome.already_done:
        print("this training was finished before; delete the folder or name another with --out to repeat it")
    for report in outcome.record["held_out"]:
        low, high = (100 * report["interval"][end] for end in ("low", "high"))
        value = f"{report['metric']} {100 * report['value']:.1f} % [{low:.1f}, {high:.1f}]"
        print(f"held out: {value}, scorer {report['scorer']}, n {report['n_items']}")
    print(f"weights: {outcome.folder / 'weights.safetensors'}")
    print(f"record: {outcome.folder / 'record.json'}")
