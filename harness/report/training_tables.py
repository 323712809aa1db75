"""Tables of training: one row a training run, and one row a model, recipe and held-out part over all of its seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.loading import KeptTraining, Results
from harness.report.rendering import DASH, ReportTable, Source
from harness.report.weights import config_of, kind_of, learned_from, recipe_text
from harness.results_frame import model_order


def training_tables(results: Results) -> list[ReportTable]:
    """Both tables, where a training run was recorded."""
    recorded = [kept for kept in results.training if kept.record is not None]
    return [training(recorded), training_seeds(recorded, results.training)] if recorded else []


def training_source(kept: KeptTraining) -> Source:
    """A training run as the sidecars name it."""
    record = kept.record or {}
    environment = record.get("environment", {})
    facts = {
        "kind": "training",
        "weights_sha256": record.get("weights_sha256"),
        "git_commit": environment.get("git_commit"),
        "git_is_dirty": environment.get("git_is_dirty"),
        "cpu": environment.get("cpu"),
    }
    return Source(kept.place, kept.name, facts)


def training(recorded: Sequence[KeptTraining]) -> ReportTable:
    """One row a training run that was recorded."""
    header = ("model and training", "recipe", "clips", "held out", "seed", "steps", "hours", "threads", "last loss")
    return ReportTable(
        name="training",
        title="What the models learned from",
        header=header,
        rows=tuple(_run_cells(each, each.record or {}) for each in recorded),
        sources=tuple(map(training_source, recorded)),
        notes=("Hours: of this training run alone; a round that was taken over from another is in that one's row.",),
    )


def _run_cells(kept: KeptTraining, record: Mapping[str, Any]) -> tuple[str, ...]:
    config = config_of(record)
    losses = [value for line in kept.curve[-1:] for name, value in line.items() if name.endswith("loss")]
    return (
        kept.name,
        *_data_cells(record),
        str(config.get("seed", DASH)),
        str(config.get("steps", DASH)),
        f"{record['trained_s'] / 3600:.2f}",
        str(config.get("threads", DASH)),
        f"{losses[0]:.3f}" if losses else DASH,
    )


def _data_cells(record: Mapping[str, Any]) -> tuple[str, str, str]:
    """Recipe, number of clips, and what was held out."""
    learned = learned_from(record)
    fold = learned.get("hold_out_fold")
    return recipe_text(record), str(learned.get("n_clips", DASH)), f"fold {fold}" if fold else DASH


# --- over seeds ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Hours:
    """Time of a training: of its own, and of the first round that it took over (None: it took over none, or one whose
    settings and whole curve are not here, as `is_whole` tells)."""

    own: float
    first: float | None
    is_whole: bool


def training_seeds(recorded: Sequence[KeptTraining], every: Iterable[KeptTraining]) -> ReportTable:
    """One row a model, recipe and held-out part: settings, mean time, and the held-out score of each seed.

    Args:
        recorded: the trainings with a record.
        every: these, and those that left but a first round for others to take over.
    """
    groups: dict[str, list[KeptTraining]] = {}
    one_a_seed, older = _one_a_seed(recorded)
    for kept in one_a_seed:
        groups.setdefault(kind_of(kept.model, kept.record or {}), []).append(kept)
    first_rounds = {kept.first_round_sha256: kept for kept in every if kept.first_round_sha256 is not None}
    rows = [_group_cells(group, first_rounds) for group in groups.values()]
    header = ("model", "recipe", "clips", "held out", "seeds", "steps x clips", "hours", "threads")
    return ReportTable(
        name="training-seeds",
        title="What the models learned from, over seeds",
        header=(*header, "held-out accuracy %"),
        rows=tuple(sorted(rows, key=_place_of_row)),
        sources=tuple(map(training_source, recorded)),
        notes=(
            "Hours: mean over seeds; where a first round was taken over from another training, the hours of first "
            "rounds stand before the plus sign.",
            "Held-out accuracy: the mean over seeds and, in brackets behind it, each seed's value in the order of "
            "seeds; of one seed, its 95 % interval in square brackets.",
            *older,
        ),
    )


def _one_a_seed(recorded: Iterable[KeptTraining]) -> tuple[list[KeptTraining], list[str]]:
    """One training of each kind and seed, in the order of seeds, and what was left out for it.

    Training records tell no time: the last by the folder's name stands for the newest.
    """
    kept: dict[tuple[str, int], KeptTraining] = {}
    older = []
    for each in sorted(recorded, key=lambda each: (_seed(each), each.place)):
        key = (kind_of(each.model, each.record or {}), _seed(each))
        if key in kept:
            older.append(f"{kept[key].place} is left out for {each.place}, another training of the same seed.")
        kept[key] = each
    return list(kept.values()), older


def _place_of_row(row: tuple[str, ...]) -> tuple[object, ...]:
    model, recipe, n_clips, held_out, *_ = row
    return (model_order(model.partition(":")[0]), model, recipe, held_out, n_clips)


def _seed(kept: KeptTraining) -> int:
    seed = config_of(kept.record or {}).get("seed")
    return seed if isinstance(seed, int) else -1


def _group_cells(group: Sequence[KeptTraining], first_rounds: Mapping[str, KeptTraining]) -> tuple[str, ...]:
    records = [kept.record or {} for kept in group]
    seeds = sorted({_seed(kept) for kept in group})
    threads = sorted({str(config_of(record).get("threads", DASH)) for record in records})
    named = ", ".join(str(seed) for seed in seeds)
    return (
        group[0].model,
        *_data_cells(records[0]),
        f"{len(seeds)} ({named})",
        _rounds_text(config_of(records[0])),
        _hours_text(_hours_of_rounds(group, first_rounds)),
        ", ".join(threads),
        _held_out_text([record.get("held_out", []) for record in records]),
    )


def _rounds_text(config: Mapping[str, Any]) -> str:
    """Such as "3200 x 16 + 3200 x 32"; "-" where a recipe has other settings."""
    if not {"steps", "second_share", "batch_size", "second_batch_size"} <= set(config):
        return DASH
    second = round(config["steps"] * config["second_share"])
    rounds = [(config["steps"] - second, config["batch_size"]), (second, config["second_batch_size"])]
    return " + ".join(f"{steps} x {batch_size}" for steps, batch_size in rounds if steps)


def _hours_of_rounds(group: Sequence[KeptTraining], first_rounds: Mapping[str, KeptTraining]) -> list[_Hours]:
    """Of each training; where some took over a first round, the time of those that did not is parted likewise."""
    found = [_hours(kept, first_rounds) for kept in group]
    if all(hours.first is None for hours in found):
        return found
    return [
        hours if hours.first is not None or not hours.is_whole else _parted(hours, kept)
        for hours, kept in zip(found, group, strict=True)
    ]


def _parted(hours: _Hours, kept: KeptTraining) -> _Hours:
    first = _first_round_hours(kept)
    return hours if first is None else _Hours(hours.own - first, first, is_whole=True)


def _hours(kept: KeptTraining, first_rounds: Mapping[str, KeptTraining]) -> _Hours:
    record = kept.record or {}
    own, taken_over = record["trained_s"] / 3600, learned_from(record).get("hearing_from_sha256")
    if taken_over is None:
        return _Hours(own, None, is_whole=True)
    first = first_rounds.get(taken_over)
    hours = None if first is None else _first_round_hours(first)
    return _Hours(own, hours, is_whole=hours is not None)


def _first_round_hours(kept: KeptTraining) -> float | None:
    """Time of the first round's steps: each line of a curve tells its last step, and the speed since the line before.

    None where the settings or the curve do not tell it.
    """
    config = kept.config
    if not {"steps", "second_share", "batch_size"} <= set(config):
        return None
    n_steps = config["steps"] - round(config["steps"] * config["second_share"])
    seconds, before = 0.0, 0.0
    for line in kept.curve:
        last = min(line["step"], n_steps)
        if last > before:
            if not line.get("clips_per_s"):
                return None
            seconds += (last - before) * config["batch_size"] / line["clips_per_s"]
            before = last
    return seconds / 3600 if before == n_steps else None


def _hours_text(found: Sequence[_Hours]) -> str:
    if not all(hours.is_whole for hours in found):
        return f"{_mean([hours.own for hours in found]):.2f} and a first round whose record is not here as a whole"
    firsts = [hours.first for hours in found if hours.first is not None]
    own = f"{_mean([hours.own for hours in found]):.2f}"
    if not firsts:
        return own
    return f"{_mean(firsts):.2f} + {own}" if len(firsts) == len(found) else f"{_mean(firsts):.2f} (of some) + {own}"


def _held_out_text(reports: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Each scorer's mean over seeds with the values, such as "exact 35.0 (33.0, 37.0), n 40"."""
    by_scorer: dict[str, list[Mapping[str, Any]]] = {}
    for of_seed in reports:
        for report in of_seed:
            if "scorer" in report:
                by_scorer.setdefault(report["scorer"], []).append(report)
    return "; ".join(_scorer_text(scorer, found) for scorer, found in by_scorer.items()) or DASH


def _scorer_text(scorer: str, found: Sequence[Mapping[str, Any]]) -> str:
    values = [100 * report["value"] for report in found]
    items = ", ".join(sorted({str(report["n_items"]) for report in found}))
    if len(values) > 1:
        return f"{scorer} {_mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)}), n {items}"
    low, high = (100 * found[0]["interval"][end] for end in ("low", "high"))
    return f"{scorer} {values[0]:.1f} [{low:.1f}, {high:.1f}], n {items}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
