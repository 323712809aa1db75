"""What encoder and language model change: the four models that two of each make, trained alike.

An outcome is the score of one task by one scorer, or of its items of one length of audio. Each model has a value in it
for each seed of training. An effect is a contrast of the four models' values, so it is computed seed by seed: seed 1 of
all four learned from the same examples in the same order. A resample draws seeds, the same for all four, and
recordings, the same for all models and seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    why_not_anew,
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
class ColumnPart:
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
class Beside:
    """What a model that is none of the four scores in the same."""

    value: float
    entry: Entry


@dataclass(frozen=True)
class Outcome:
    """One part of a column: an estimate for each of CELLS and of EFFECTS, over the same seeds.

    `no_interval` says why there are no intervals, where there are none. `beside` holds every other model that was asked
    the same; `entries` the four models' runs.
    """

    part: ColumnPart
    n_items: int
    seeds: tuple[int, ...]
    cells: tuple[Estimate, ...]
    effects: tuple[Estimate, ...]
    no_interval: str
    beside: Mapping[str, Beside]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class TwoByTwo:
    """All outcomes of four models of one size and number type that were trained alike, by one scorer of labels."""

    size: str
    dtype: str
    recipe: str
    scorer: str
    outcomes: tuple[Outcome, ...]
    remarks: tuple[str, ...]


def two_by_twos(all_grids: Iterable[Grid], trained: Mapping[str, Trained]) -> list[TwoByTwo]:
    """One a size, number type, training and scorer, of what was asked as the tasks ask first.

    All four models must share a seed; of several, those that all four have count.

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
    remarks: dict[_Alike, list[str]] = {}
    for grid in asked_first:
        rows, of_grid = seeds_of_models(grid, trained)
        for (alike, column), cells in _whole_cells(rows, grid.scorer, trained).items():
            seeds = sorted(set.intersection(*(set(cells[cell].entries) for cell in CELLS)))
            # Captions stand in the grids of every origin.
            if seeds and all(column != known.part.column for known in outcomes.get(alike, [])):
                made = [_outcome(part, cells, seeds, grid) for part in _parts(grid, column, cells)]
                outcomes.setdefault(alike, []).extend(made)
                remarks.setdefault(alike, []).extend(of_grid)
    return [_two_by_two(alike, outcomes, remarks[alike]) for alike in outcomes]


@dataclass(frozen=True)
class _Alike:
    """What four models must share: size, number type, all that their training has but model and seed, the scorer."""

    size: str
    dtype: str
    recipe: str
    lessons: str
    scorer: str

    @property
    def shown(self) -> tuple[str, str, str, str]:
        """What names it in a table."""
        return (self.size, self.dtype, self.recipe, self.scorer)


def _two_by_two(alike: _Alike, outcomes: Mapping[_Alike, Sequence[Outcome]], remarks: Iterable[str]) -> TwoByTwo:
    is_only = [other.shown for other in outcomes].count(alike.shown) == 1
    return TwoByTwo(
        size=alike.size,
        dtype=alike.dtype,
        recipe=alike.recipe if is_only else f"{alike.recipe} [{alike.lessons[:6]}]",
        scorer=alike.scorer,
        outcomes=tuple(outcomes[alike]),
        remarks=tuple(dict.fromkeys(remarks)),
    )


def _whole_cells(
    rows: Iterable[Seeds], scorer: str, trained: Mapping[str, Trained]
) -> dict[tuple[_Alike, Column], dict[str, Seeds]]:
    """The seeds of all four models in each column; what lacks one, or has one twice, is left out."""
    found: dict[tuple[_Alike, Column], list[Seeds]] = {}
    for row in rows:
        some_entry = next(iter(row.entries.values()))
        lessons = trained[some_entry.run.record.model.weights_sha256 or ""].lessons
        alike = _Alike(row.model.partition(":")[2], row.dtype, row.recipe, lessons, scorer)
        if _cell(row) in CELLS:
            found.setdefault((alike, row.column), []).append(row)
    return {
        key: {_cell(row): row for row in of_key}
        for key, of_key in found.items()
        if sorted(map(_cell, of_key)) == sorted(CELLS)
    }


def _cell(row: Seeds) -> str:
    return row.model.partition(":")[0]


def _parts(grid: Grid, column: Column, cells: Mapping[str, Seeds]) -> list[ColumnPart]:
    """The column, and each length of audio where its items were put at a place in audio of several lengths."""
    title = dict(zip(grid.columns, grid.titles, strict=True))[column]
    whole = ColumnPart(column, f"{title}, {grid.setting.origin}")
    if why_not_anew(column):
        return [whole]
    asked = next(iter(cells[CELLS[0]].entries.values())).run.predictions
    placed = {p.metadata.get("length_s") for p in asked if "depth" in p.metadata}
    lengths = sorted(float(length) for length in placed if isinstance(length, (int, float)))
    is_only = [other.task for other in grid.columns].count(column.task) == 1
    start = column.task if is_only else title
    split = [ColumnPart(column, f"{start} at {length:g} s, {grid.setting.origin}", length) for length in lengths]
    return [whole, *(split if len(split) > 1 else [])]


def _outcome(part: ColumnPart, cells: Mapping[str, Seeds], seeds: Sequence[int], grid: Grid) -> Outcome:
    entries = [[cells[cell].entries[seed] for seed in seeds] for cell in CELLS]
    values = [tuple(_value(entry, part) for entry in row) for row in entries]
    contrasts = [tuple(_contrast(effect, of_seed) for of_seed in zip(*values, strict=True)) for effect in EFFECTS]
    try:
        of_cells, of_effects, n_items = _intervals(part, entries)
        why_not = ""
    except HarnessError as error:
        of_cells, of_effects, n_items = [None] * len(CELLS), [None] * len(EFFECTS), part.column.n_items
        why_not = str(error)
    return Outcome(
        part=part,
        n_items=n_items,
        seeds=tuple(seeds),
        cells=tuple(map(Estimate, CELLS, values, of_cells)),
        effects=tuple(map(Estimate, [effect.name for effect in EFFECTS], contrasts, of_effects)),
        no_interval=why_not,
        beside=_beside(part, grid),
        entries=tuple(entry for row in entries for entry in row),
    )


def _intervals(
    part: ColumnPart, entries: Sequence[Sequence[Entry]]
) -> tuple[Sequence[Interval | None], Sequence[Interval | None], int]:
    """Of each of CELLS, of each of EFFECTS, and over how many items.

    Raises:
        HarnessError: the scores cannot be resampled here; the message says why.
    """
    import numpy as np

    drawn = [[resampled_score(entry, part.column, part.length_s) for entry in row] for row in entries]
    clusters = drawn[0][0][1]
    means_MR = means_of_drawn_seeds([[statistic for statistic, _ in row] for row in drawn], clusters)
    effects_ER = np.asarray([effect.weights for effect in EFFECTS]) @ means_MR
    of_cells, of_effects = ([_interval(row, clusters) for row in rows] for rows in (means_MR, effects_ER))
    return of_cells, of_effects, len(clusters)


def _interval(results: npt.NDArray[np.float64], clusters: Sequence[str]) -> Interval:
    return percentile_interval(results, clusters, CONFIDENCE, seed=0)


def _value(entry: Entry, part: ColumnPart) -> float:
    if part.length_s is None:
        assert entry.score.value is not None, "what has no value is no row"
        return entry.score.value
    metric, items = scored_items(entry, part.length_s)
    return metric.value(items)


def _contrast(effect: Effect, values: Sequence[float]) -> float:
    return sum(weight * value for weight, value in zip(effect.weights, values, strict=True))


def _beside(part: ColumnPart, grid: Grid) -> dict[str, Beside]:
    """Every other model that has a value in the column."""
    others = {row: grid.cells.get((row, part.column)) for row in grid.rows if row.partition(":")[0] not in CELLS}
    return {
        row: Beside(_value(entry, part), entry)
        for row, entry in others.items()
        if entry is not None and entry.score.value is not None
    }
