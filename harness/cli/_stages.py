"""`train` with a recipe in stages: its options, its forecast, and what it says on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.contracts import OptionValue
    from harness.curriculum import CurriculumConfig, CurriculumModel, CurriculumRecipe
    from harness.staged_training import StagedTrainer
    from harness.training import TrainOutcome

# Options of the verb that every recipe has, and how a recipe in stages calls them.
NAMES = {"steps": "max_steps"}


def staged_config(defaults: CurriculumConfig, changes: Mapping[str, Any]) -> CurriculumConfig:
    """The recipe's settings with what the command line changes.

    Raises:
        UsageError: a rate was given: each stage has its own.
    """
    given = {NAMES.get(name, name): value for name, value in changes.items() if value is not None}
    if "learning_rate" in given:
        raise UsageError("--learning-rate: each stage of this recipe has a rate of its own")
    if "micro_batch_size" not in given and given.get("batch_size", defaults.batch_size) < defaults.micro_batch_size:
        given["micro_batch_size"] = given["batch_size"]
    return replace(defaults, **given)


def print_forecast(
    model: CurriculumModel,
    recipe: CurriculumRecipe,
    config: CurriculumConfig,
    data_root: Path | None,
    label: str,
    speed: float | None,
    devices: int,
    is_sharded: bool,
) -> None:
    """Say what the training will need."""
    from harness.training_forecast import Devices, forecast, forecast_text

    many = Devices(devices, is_sharded)
    stages, reason = forecast(model, recipe, config, data_root, speed, many)
    print(forecast_text(stages, reason, config, label, speed, many))


def train_stages(
    model: CurriculumModel,
    recipe: CurriculumRecipe,
    config: CurriculumConfig,
    folder: Path,
    data_root: Path | None,
    model_options: Mapping[str, OptionValue],
    label: str,
    has_tensorboard: bool,
) -> TrainOutcome | None:
    """Train, and say how it goes. Of several processes the main one speaks, and the others return None.

    Raises:
        MissingExtraError: TensorBoard was asked for and is not installed.
    """
    from harness.processes import joined
    from harness.staged_training import train_in_stages
    from harness.tensorboard_lines import require_tensorboard

    if has_tensorboard:
        require_tensorboard()
    show = _Lines(label, folder, has_tensorboard)
    with joined(config.device) as processes:
        return train_in_stages(
            model, recipe, config, folder, data_root, model_options, show.start, show.line, processes
        )


def print_stages(outcome: TrainOutcome) -> None:
    """Where the weights lie, and what could not be learned from."""
    bad = outcome.record["bad_items"]
    n_bad = bad["n_malformed"] + bad["n_not_learned_from"]
    if n_bad:
        print(f"items not learned from: {n_bad} (malformed {bad['n_malformed']}), named in the record")
    for line in outcome.record["held_out"]:
        print(
            f"held out: {100 * line['held_out_answer_accuracy']:.1f} % of answers word for word, "
            f"{100 * line['held_out_token_accuracy']:.1f} % of their tokens, n {line['n_held_out']}"
        )
    last = outcome.record["stages"][-1]["weights"]
    print(f"weights: {outcome.folder / last} (use them with -m weights={outcome.folder / last})")
    print(f"record: {outcome.folder / 'record.json'}")


class _Lines:
    """One line of text for each line of the curve."""

    def __init__(self, label: str, folder: Path, has_tensorboard: bool) -> None:
        self._label, self._folder, self._has_tensorboard = label, folder, has_tensorboard
        self._board: Any = None

    def start(self, trainer: StagedTrainer) -> None:
        """Say where training starts, and what it learns."""
        done, whole = trainer.done_steps, sum(trainer.n_steps)
        verb = "starts" if done == 0 else f"continues at step {done}"
        count = trainer.processes.count
        many = "" if count == 1 else f", by {count} processes" + ", weights shared out" * trainer.is_sharded
        print(f"{self._label}: training {verb} of {whole} in {len(trainer.n_steps)} stages{many}", flush=True)
        if self._has_tensorboard:
            from harness.tensorboard_lines import TensorBoardLines

            self._board = TensorBoardLines(self._folder, done)

    def line(self, line: Mapping[str, Any]) -> None:
        """Say how it goes."""
        if self._board is not None:
            self._board.line(line)
        place = f"{self._label}: stage {line['stage']}, step {line['stage_step']} of {line['stage_steps']}"
        if "held_out_loss" in line:
            answers, tokens = (100 * line[f"held_out_{what}_accuracy"] for what in ("answer", "token"))
            text = f"held out: loss {line['held_out_loss']:.3f}, answers {answers:.1f} %, tokens {tokens:.1f} %"
        else:
            text = (
                f"loss {line['loss']:.3f}, rate {line['learning_rate']:.2g}, gradient {line['gradient_norm']:.2f}, "
                f"{line['clips_per_s']:.1f} clips/s, {line['tokens_per_s']:.0f} tokens/s, "
                f"memory {line['peak_memory_bytes'] / 2**30:.2f} GiB, {line['n_skipped']} items skipped"
            )
        print(f"{place}: {text}", flush=True)
