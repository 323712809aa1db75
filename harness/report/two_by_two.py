"""What the architecture alone changes: the four models that two encoders and two language models make, trained alike.

An outcome is the score of one task by one scorer, or of its items of one length of audio. Each model has a value in it
for each seed of training. An effect is a contrast of the four models' values, so it is computed seed by seed: seed 1 of
all four learned from the same examples in the same order. A resample draws seeds, the same for all four, and
recordings, the same for all models and seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.report.columns import GENERATED, Column, Entry, Grid
from harness.report.over_seeds import (
    CONFIDENCE,
    LIGHT_SCORERS,
    Seeds,
    means_of_drawn_seeds,
    resampled_score,
    scored_items,
    seeds_of_models,
)
from harness.report.weights import Trained
from harness.statistics import Interval, percentile_interval

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# AST and LLaMA, AST and Mamba, DASS and LLaMA, DASS and Mamba.
CELLS = ("ltu", "ast_mamba", "hybrid", "ssalm")


@dataclass(frozen=True)
class Effect:
    """A contrast: what each of CELLS counts for."""

    name: str
    weights: tuple[float, float, float, float]


EFFECTS = (
    Effect("DASS less AST", (-0.5, -0.5, 0.5, 0.5)),
    Effect("Mamba less LLaMA", (-0.5, 0.5, -0.5, 0.5)),
    Effect("interaction", (1.0, -1.0, -1.0, 1.0)),
)


@dataclass(frozen=True)
class Question:
    """A column, or its items of one length of audio; `title` is what its row is called."""

    column: Column
    title: str
    length_s: float | None = None


@dataclass(frozen=True)
class Estimate:
    """A value over seeds, that of each seed, and the interval of the former where one can be made."""

    name: str
    by_seed: tuple[float, ...]
    interval: Interval | None

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return sum(self.by_seed) / len(self.by_seed)


@dataclass(frozen=True)
class Outcome:
    """One question: an estimate for each of CELLS and of EFFECTS, over the same seeds, and why there are no intervals.

    `beside` holds the value of every other model that was asked the same.
    """

    question: Question
    n_items: int
    seeds: tuple[int, ...]
    cells: tuple[Estimate, ...]
    effects: tuple[Estimate, ...]
    no_interval: str
    beside: Mapping[str, float]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class TwoByTwo:
    """All outcomes of four models of one size that were trained alike, by one scorer of labels."""

    size: str
    recipe: str
    scorer: str
    outcomes: tuple[Outcome, ...]


def two_by_twos(all_grids: Sequence[Grid], trained: Mapping[str, Trained]) -> list[TwoByTwo]:
    """One a size, training and scorer, of what was asked as the tasks ask first; all four models must share a seed.

    Args:
        all_grids: whose rows are in any number of seeds.
        trained: what left the weights of each hash.
    """
    # Recordings first, what the harness generates after them.
    asked_first = sorted(
        (grid for grid in all_grids if not grid.setting.asked and grid.scorer in LIGHT_SCORERS),
        key=lambda grid: grid.setting.origin == GENERATED,
    )
    outcomes: dict[_Alike, list[Outcome]] = {}
    for grid in asked_first:
        for (alike, column), cells in _whole_cells(grid, trained).items():
            seeds = sorted(set.intersection(*(set(cells[cell].entries) for cell in CELLS)))
            # Captions stand in the grids of every origin.
            if seeds and all(column != known.question.column for known in outcomes.get(alike, [])):
                made = [_outcome(question, cells, seeds, grid) for question in _questions(grid, column, cells)]
                outcomes.setdefault(alike, []).extend(made)
    named = [(alike.size, alike.recipe, alike.scorer) for alike in outcomes]
    return [
        TwoByTwo(
            size=alike.size,
            recipe=alike.recipe if named.count(name) == 1 else f"{alike.recipe} [{alike.lessons[:6]}]",
            scorer=alike.scorer,
            outcomes=tuple(outcomes[alike]),
        )
        for alike, name in sorted(zip(outcomes, named, strict=True), key=lambda pair: str(pair))
    ]


@dataclass(frozen=True)
class _Alike:
    """What four models must share: size and number type, all that their training has but model and seed, the scorer."""

    size: str
    recipe: str
    lessons: str
    scorer: str


def _whole_cells(grid: Grid, trained: Mapping[str, Trained]) -> dict[tuple[_Alike, Column], dict[str, Seeds]]:
    """The seeds of all four models in each column; what lacks one, or has one twice, is left out."""
    rows, _ = seeds_of_models(grid, trained)
    found: dict[tuple[_Alike, Column], list[tuple[str, Seeds]]] = {}
    for row in rows:
        cell, _, size = row.name.partition(":")
        some_entry = next(iter(row.entries.values()))
        lessons = trained[some_entry.run.record.model.weights_sha256 or ""].lessons
        found.setdefault((_Alike(size, row.recipe, lessons, grid.scorer), row.column), []).append((cell, row))
    by_cell = {key: {cell: row for cell, row in rows if cell in CELLS} for key, rows in found.items()}
    n_cells = {key: sum(cell in CELLS for cell, _ in rows) for key, rows in found.items()}
    return {key: cells for key, cells in by_cell.items() if len(cells) == n_cells[key] == len(CELLS)}


def _questions(grid: Grid, column: Column, cells: Mapping[str, Seeds]) -> list[Question]:
    """The column, and each length of audio where its items were put at a place in audio of several lengths."""
    title = f"{dict(zip(grid.columns, grid.titles, strict=True))[column]}, {grid.setting.origin}"
    if column.scorer not in LIGHT_SCORERS:
        return [Question(column, title)]
    asked = next(iter(cells[CELLS[0]].entries.values())).run.predictions
    placed = {p.metadata.get("length_s") for p in asked if "depth" in p.metadata}
    lengths = sorted(length for length in placed if isinstance(length, (int, float)))
    split = [
        Question(column, f"{column.task} at {length:g} s, {grid.setting.origin}", float(length)) for length in lengths
    ]
    return [Question(column, title), *(split if len(split) > 1 else [])]


def _outcome(question: Question, cells: Mapping[str, Seeds], seeds: Sequence[int], grid: Grid) -> Outcome:
    import numpy as np

    entries = [[cells[cell].entries[seed] for seed in seeds] for cell in CELLS]
    values = [tuple(_value(entry, question) for entry in row) for row in entries]
    contrasts = [tuple(_contrast(effect, of_seed) for of_seed in zip(*values, strict=True)) for effect in EFFECTS]
    try:
        drawn = [[resampled_score(entry, question.column, question.length_s) for entry in row] for row in entries]
        clusters = drawn[0][0][1]
        means_MR = means_of_drawn_seeds([[statistic for statistic, _ in row] for row in drawn], clusters)
        of_cells: list[Interval | None] = [_interval(means_R, clusters) for means_R in means_MR]
        of_effects: list[Interval | None] = [
            _interval(np.asarray(effect.weights) @ means_MR, clusters) for effect in EFFECTS
        ]
        why_not, n_items = "", len(clusters)
    except HarnessError as error:
        of_cells, of_effects = [None] * len(CELLS), [None] * len(EFFECTS)
        why_not, n_items = str(error), question.column.n_items
    others = {row: grid.cells.get((row, question.column)) for row in grid.rows if row.partition(":")[0] not in CELLS}
    beside = {row: entry for row, entry in others.items() if entry is not None and entry.score.value is not None}
    return Outcome(
        question=question,
        n_items=n_items,
        seeds=tuple(seeds),
        cells=tuple(map(Estimate, CELLS, values, of_cells)),
        effects=tuple(map(Estimate, [effect.name for effect in EFFECTS], contrasts, of_effects)),
        no_interval=why_not,
        beside={row: _value(entry, question) for row, entry in beside.items()},
        entries=tuple(entry for row in entries for entry in row),
    )


def _value(entry: Entry, question: Question) -> float:
    if question.length_s is None:
        assert entry.score.value is not None, "seeds without a value are no rows"
        return entry.score.value
    metric, items = scored_items(entry, question.length_s)
    return metric.value(items)


def _contrast(effect: Effect, values: Sequence[float]) -> float:
    return sum(weight * value for weight, value in zip(effect.weights, values, strict=True))


def _interval(results: npt.NDArray[np.float64], clusters: Sequence[str]) -> Interval:
    return percentile_interval(results, clusters, CONFIDENCE, seed=0)
