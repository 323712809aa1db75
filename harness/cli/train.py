"""`train`: a recipe makes a model's weights."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli._exit_codes import EXIT_INTERRUPTED
from harness.cli._options import ModelOptions, PluginFiles, add_plugins, parse_options
from harness.cli._stages import print_forecast, print_stages, staged_config, train_stages

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
    micro_batch: Annotated[
        int | None, typer.Option(metavar="N", help="Clips at a time, of a step's. For recipes in stages.")
    ] = None,
    precision: Annotated[str | None, typer.Option(metavar="TYPE", help="float32 or bfloat16.")] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Less memory, more time: gradient checkpointing. For recipes in stages.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write the curve for TensorBoard too. For recipes in stages.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it will need, and stop. For recipes in stages.")
    ] = False,
    speed: Annotated[
        float | None, typer.Option(metavar="CLIPS_PER_S", min=1e-9, help="Of one device, for the hours of --dry-run.")
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="How many, for --dry-run. A launcher (torchrun) says it in training."),
    ] = None,
    sharded: Annotated[
        bool, typer.Option("--sharded", help="For --dry-run: the devices share the frozen weights out (FSDP).")
    ] = False,
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
        "precision": precision,
    }
    staged = {"micro_batch_size": micro_batch, "recompute": recompute or None}
    asked = _Asked(model, parse_options(model_option, "-m"), recipe, parse_options(recipe_option, "-r"), data_root, out)
    show = _Shown(tensorboard, dry_run, speed, devices, sharded)
    try:
        outcome = _carry_out(asked, changes, staged, show)
    except KeyboardInterrupt:
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        return EXIT_INTERRUPTED
    if outcome is not None:
        _print_outcome(outcome)
    return 0


@dataclass(frozen=True)
class _Asked:
    """What to train, how, from what and whereto, as typed."""

    model: str
    model_options: Mapping[str, str]
    recipe: str
    recipe_options: Mapping[str, str]
    data_root: Path | None
    out: Path | None

    def folder(self, label: str, seed: int) -> Path:
        """The run's folder: named, or made of what was asked for."""
        shown = {f"m.{key}": value for key, value in self.model_options.items() if key != "variant"}
        shown |= self.recipe_options
        named = [f"{key}={value}".replace("/", "_") for key, value in sorted(shown.items())]
        return self.out or Path("results") / "training" / label / "-".join([self.recipe, f"seed{seed}", *named])


@dataclass(frozen=True)
class _Shown:
    """What to tell besides the curve; for recipes in stages."""

    has_tensorboard: bool
    is_dry_run: bool
    speed: float | None
    devices: int | None
    is_sharded: bool


def _carry_out(
    asked: _Asked, changes: Mapping[str, Any], staged: Mapping[str, Any], shown: _Shown
) -> TrainOutcome | None:
    """Train, or only say what that would need; None then."""
    from harness import registry
    from harness.contracts import TrainableModel
    from harness.curriculum import CurriculumConfig, CurriculumModel
    from harness.errors import UsageError

    name, variant = registry.split_model(asked.model)
    options = {**asked.model_options, **({"variant": variant} if variant else {})}
    made = registry.create("models", name, options)
    if not isinstance(made.value, TrainableModel):
        raise UsageError(f"the model '{name}' cannot be trained")
    recipe = registry.create("recipes", asked.recipe, asked.recipe_options).value
    label = "-".join([name, str(made.options_resolved.get("variant", ""))]).rstrip("-")
    if not isinstance(recipe.defaults, CurriculumConfig):
        _refuse_staged(asked.recipe, staged, shown)
        return _train_in_rounds(asked, made, recipe, changes, label)
    if not isinstance(made.value, CurriculumModel):
        raise UsageError(f"the model '{name}' cannot be trained in stages")
    config = staged_config(recipe.defaults, {**changes, **staged})
    if shown.is_dry_run:
        many, is_sharded = shown.devices or 1, shown.is_sharded
        print_forecast(made.value, recipe, config, asked.data_root, label, shown.speed, many, is_sharded)
        return None
    _refuse_forecast(shown)
    folder, resolved = asked.folder(label, config.seed), made.options_resolved
    return train_stages(made.value, recipe, config, folder, asked.data_root, resolved, label, shown.has_tensorboard)


def _refuse_forecast(shown: _Shown) -> None:
    from harness.errors import UsageError

    flags = {"--speed": shown.speed, "--devices": shown.devices, "--sharded": shown.is_sharded}
    given = [flag for flag, value in flags.items() if value]
    if given:
        raise UsageError(f"{', '.join(given)}: for --dry-run alone")


def _refuse_staged(recipe: str, staged: Mapping[str, Any], shown: _Shown) -> None:
    from harness.errors import UsageError

    flags = {"--micro-batch": staged["micro_batch_size"], "--recompute": staged["recompute"]}
    flags |= {"--tensorboard": shown.has_tensorboard, "--dry-run": shown.is_dry_run, "--speed": shown.speed}
    flags |= {"--devices": shown.devices, "--sharded": shown.is_sharded}
    given = [flag for flag, value in flags.items() if value]
    if given:
        raise UsageError(f"{', '.join(given)}: the recipe '{recipe}' is not one in stages")


def _train_in_rounds(asked: _Asked, made: Any, recipe: Any, changes: Mapping[str, Any], label: str) -> TrainOutcome:
    from dataclasses import replace

    from harness.errors import UsageError
    from harness.processes import is_launched
    from harness.training import train as train_model

    if is_launched():
        raise UsageError(f"the recipe '{asked.recipe}' trains in one process, without torchrun or accelerate launch")

    first_rounds = [f"--{name.replace('_', '-')}" for name in ("learning_rate", "batch_size") if changes.get(name)]
    if not recipe.defaults.first_round and first_rounds:
        raise UsageError(f"{', '.join(first_rounds)}: the recipe '{asked.recipe}' has no first round, whose they are")
    config: TrainConfig = replace(recipe.defaults, **{k: v for k, v in changes.items() if v is not None})
    folder, show = asked.folder(label, config.seed), _Progress(label, config)
    return train_model(
        made.value, recipe, config, folder, asked.data_root, made.options_resolved, show.start, show.line
    )


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
    if "stages" in outcome.record:
        print_stages(outcome)
        return
    for report in outcome.record["held_out"]:
        low, high = (100 * report["interval"][end] for end in ("low", "high"))
        value = f"{report['metric']} {100 * report['value']:.1f} % [{low:.1f}, {high:.1f}]"
        print(f"held out: {value}, scorer {report['scorer']}, n {report['n_items']}")
    print(f"weights: {outcome.folder / 'weights.safetensors'}")
    print(f"record: {outcome.folder / 'record.json'}")
