"""Tables over seeds: what each model scores when it is trained again with nothing changed but the seed.

One table for each accuracy table that holds weights of several seeds, one row a model, recipe and task. Seeds are known
by the training records of the results: weights that none of those left are in no row. The interval is that of the
mean over seeds. Each of its resamples draws seeds, with replacement, and recordings as well, the same ones for every
seed, since all were asked about the same clips. One seed fewer is drawn than there are: as many would make the spread
of few seeds too small, by a third of its square with three (Rao and Wu 1988, JASA 83, section 2.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.contracts import Scored
from harness.errors import HarnessError, MetricUnavailable
from harness.measuring import BoundMetric
from harness.records import Prediction, ScoreRow
from harness.registry import create
from harness.report.accuracy import run_source
from harness.report.columns import Column, Entry, Grid, grids
from harness.report.loading import Results
from harness.report.rendering import DASH, ReportTable, file_name
from harness.report.weights import Trained, first_rounds_text, plain_name, trained_weights
from harness.results_frame import model_order
from harness.scores import decided_items, make_scorer, run_facts
from harness.scoring import VERBATIM, gives_scores, is_mean_of
from harness.statistics import Interval, Resampled, percentile_interval, resampled_values
from harness.tables import no_width_lines

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Scorers that need no model of their own: `report` loads none.
LIGHT_SCORERS = ("exact", "loglik")
CONFIDENCE = 0.95
_FEWEST = 2


@dataclass(frozen=True)
class Seeds:
    """One model and recipe in one column: the newest score of each seed, in the order of seeds.

    `model` is the model with its options, `name` what its row is called: with the number type where several were used.
    """

    model: str
    name: str
    dtype: str
    recipe: str
    column: Column
    entries: Mapping[int, Entry]


def seed_tables(results: Results) -> list[ReportTable]:
    """One table for each accuracy table in which a model has several seeds."""
    trained = trained_weights(results.training)
    tables = []
    for grid in grids(results.runs, trained):
        found, remarks = seeds_of_models(grid, trained)
        rows = [seeds for seeds in found if len(seeds.entries) >= _FEWEST]
        if rows:
            strangers = _strangers(grid, trained, {seeds.model for seeds in rows})
            tables.append(_table(grid, rows, trained, [*remarks, *strangers]))
    return tables


def seeds_of_models(grid: Grid, trained: Mapping[str, Trained]) -> tuple[list[Seeds], list[str]]:
    """Each model and recipe in each column, and which runs gave way to a newer one of the same seed."""
    found: dict[tuple[Column, str, str, str], dict[int, Entry]] = {}
    recipes: dict[str, str] = {}
    remarks = []
    for (_, column), entry in sorted(grid.cells.items(), key=lambda cell: (cell[1].run.started_utc, cell[1].run.place)):
        known = trained.get(entry.run.record.model.weights_sha256 or "")
        if known is None or entry.score.value is None:
            continue
        recipes[known.kind] = known.recipe
        of_row = found.setdefault((column, plain_name(entry.run), entry.run.record.dtype, known.kind), {})
        if known.seed in of_row:
            remarks.append(f"{of_row[known.seed].run.place} is left out for a newer run of the same seed.")
        of_row[known.seed] = entry
    dtypes = {model: {dtype for _, other, dtype, _ in found if other == model} for _, model, _, _ in found}
    rows = [
        Seeds(
            model,
            f"{model} [{dtype}]" if len(dtypes[model]) > 1 else model,
            dtype,
            recipes[kind],
            column,
            dict(sorted(of_row.items())),
        )
        for (column, model, dtype, kind), of_row in found.items()
    ]
    return sorted(rows, key=lambda row: _order(row, grid)), sorted(set(remarks))


def _order(row: Seeds, grid: Grid) -> tuple[Any, ...]:
    name = row.model.partition(":")[0].partition(" ")[0]
    return (grid.columns.index(row.column), model_order(name), row.name, row.recipe)


def _strangers(grid: Grid, trained: Mapping[str, Trained], models: set[str]) -> list[str]:
    """What a reader might look for among the seeds of these models, and why it is not there."""
    runs = {entry.run.place: entry for entry in grid.cells.values() if plain_name(entry.run) in models}
    unknown = [place for place, e in runs.items() if (e.run.record.model.weights_sha256 or "") not in trained]
    return [f"Not among the seeds, as no training record here left its weights: {place}." for place in sorted(unknown)]


def _table(grid: Grid, rows: Sequence[Seeds], trained: Mapping[str, Trained], notes: Sequence[str]) -> ReportTable:
    seeds = sorted({seed for row in rows for seed in row.entries})
    made = [_Made(row, _mean(row), _interval(row)) for row in rows]
    title = dict(zip(grid.columns, grid.titles, strict=True))
    sources = {entry.run.place: entry.run for row in rows for entry in row.entries.values()}
    asked = f", {grid.setting.asked}" if grid.setting.asked else ""
    return ReportTable(
        name=file_name("seeds", grid.setting.origin, grid.setting.asked, grid.scorer),
        title=f"Scores in percent over seeds of training: {grid.setting.origin} data{asked}; labels by {grid.scorer}",
        header=("model", "recipe", "task", "seeds", "mean [95 %]", *(f"seed {seed}" for seed in seeds)),
        rows=tuple(
            (each.row.name, each.row.recipe, title[each.row.column], str(len(each.row.entries)), _mean_text(each))
            + tuple(_percent(each.row.entries[seed]) if seed in each.row.entries else DASH for seed in seeds)
            for each in made
        ),
        sources=tuple(run_source(run) for run in sources.values()),
        notes=(
            "Mean over seeds. Its interval: bootstrap that draws seeds, one fewer than there are, and recordings, both "
            "with replacement, the same recordings for every seed. Few seeds say little of how far others would lie.",
            *first_rounds_text({row.name: _weights(row) for row in rows}, trained),
            *_no_interval(made),
            *no_width_lines([each.interval for each in made if not isinstance(each.interval, str)]),
            *notes,
        ),
        data=tuple(_long_rows(made)),
    )


@dataclass(frozen=True)
class _Made:
    """A row with its mean, and the interval of that or why there is none."""

    row: Seeds
    mean: float
    interval: Interval | str


def _weights(row: Seeds) -> list[str]:
    return [entry.run.record.model.weights_sha256 or "" for entry in row.entries.values()]


def _mean(row: Seeds) -> float:
    values = [entry.score.value or 0.0 for entry in row.entries.values()]
    return sum(values) / len(values)


def _mean_text(made: _Made) -> str:
    interval = made.interval
    bounds = "" if isinstance(interval, str) else f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    return f"{100 * made.mean:.1f}{bounds}"


def _percent(entry: Entry) -> str:
    return f"{100 * (entry.score.value or 0.0):.1f}"


def _no_interval(made: Sequence[_Made]) -> list[str]:
    """Why rows have no interval, each reason once."""
    told = (
        f"No interval in {each.row.column.metric} by {each.row.column.scorer}: {each.interval.rstrip('.')}."
        for each in made
        if isinstance(each.interval, str)
    )
    return list(dict.fromkeys(told))


# --- the interval ----------------------------------------------------------------------------------------------------


def _interval(row: Seeds) -> Interval | str:
    """The interval of the mean, or why there is none."""
    try:
        drawn = [resampled_score(entry, row.column) for entry in row.entries.values()]
        return over_seeds([statistic for statistic, _ in drawn], drawn[0][1])
    except HarnessError as error:
        return str(error)


def resampled_score(entry: Entry, column: Column, length_s: float | None = None) -> tuple[Resampled, list[str]]:
    """A score as a function of the items' multiplicities, and the items' clusters in the same order for all models.

    It is computed anew from the answers, or where `report` does not do that from the items' recorded values.

    Args:
        entry, column: the score, and the column that it stands in.
        length_s: only of the items whose audio is so long; of all where it is None.

    Raises:
        HarnessError: neither can be done; the message says why.
    """
    if column.scorer == VERBATIM and entry.score.item_values is not None:
        return _recorded(entry.score, _asked(entry, length_s))
    if reason := why_not_anew(column):
        raise MetricUnavailable(reason)
    metric, items = scored_items(entry, length_s)
    if metric.bootstrap_is_biased:
        raise MetricUnavailable("the mean of its resamples is another than its value")
    return metric.resampled(items), [item.cluster for item in items]


def why_not_anew(column: Column) -> str:
    """Why `report` does not score the answers of a column again; nothing where it does."""
    if column.scorer == VERBATIM:
        return "`report` scores no captions or transcripts anew, and not all runs hold the values of their items"
    if column.scorer not in LIGHT_SCORERS:
        known = " and ".join(LIGHT_SCORERS)
        return f"scorers other than {known} need a model or a service, which `report` never asks"
    version = make_scorer(column.scorer).version
    if version != column.scorer_version:
        return f"scored by version {column.scorer_version} of the scorer; this program has version {version}"
    return ""


def scored_items(entry: Entry, length_s: float | None = None) -> tuple[BoundMetric, list[Scored]]:
    """The metric of an entry and its items by their ids, which is one order for every run of a column.

    Raises:
        HarnessError: the answers cannot be scored.
    """
    record = entry.run.record
    facts = run_facts(record)
    scorer, scored = decided_items(_asked(entry, length_s), record.task.labels, entry.score.scorer, facts)
    function = create("metrics", entry.score.metric).value
    labels = tuple(label.name for label in record.task.labels)
    metric = BoundMetric(entry.score.metric, labels, function, gives_scores(scorer), facts.n_trials)
    return metric, sorted(scored, key=lambda item: item.item_id)


def _asked(entry: Entry, length_s: float | None) -> list[Prediction]:
    """The items of one length, or all, in whichever order they were asked."""
    return [p for p in entry.run.predictions if length_s is None or p.metadata.get("length_s") == length_s]


def _recorded(score: ScoreRow, asked: Sequence[Prediction]) -> tuple[Resampled, list[str]]:
    import numpy as np

    values = score.item_values or {}
    items = sorted(asked, key=lambda item: item.item_id)
    if not {item.item_id for item in items} <= values.keys():
        raise MetricUnavailable("the recorded values are not those of its items")
    if score.value is None or not is_mean_of(score.value, values.values()):
        raise MetricUnavailable("the recorded values of its items do not average to it")
    values_N = np.array([values[item.item_id] for item in items])

    def mean(counts_NR: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        return np.asarray(values_N @ counts_NR / counts_NR.sum(axis=0), dtype=np.float64)

    return mean, [item.cluster for item in items]


def over_seeds(
    statistics: Sequence[Resampled], clusters: Sequence[str], n_resamples: int = 1000, seed: int = 0
) -> Interval:
    """Interval of the mean over seeds of training, from a bootstrap that draws seeds and clusters of items.

    Args:
        statistics: one a seed of training, each from multiplicities of the same items to its metric.
        clusters: the items' clusters.
        n_resamples, seed: of the bootstrap.
    """
    drawn = means_of_drawn_seeds([statistics], clusters, n_resamples, seed)
    return percentile_interval(drawn[0], clusters, CONFIDENCE, seed)


def means_of_drawn_seeds(
    statistics: Sequence[Sequence[Resampled]], clusters: Sequence[str], n_resamples: int = 1000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """The mean over seeds in each resample, shape (n_models, n_resamples): the same seeds and clusters for all models.

    Args:
        statistics: of each model one a seed of training, as in `over_seeds`; as many seeds for each model.
        clusters, n_resamples, seed: as there.
    """
    import numpy as np

    def of_all(counts: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        return np.stack([one(counts) for of_seeds in statistics for one in of_seeds])

    values_MSR = resampled_values(of_all, clusters, n_resamples, seed).reshape(len(statistics), -1, n_resamples)
    n_seeds = values_MSR.shape[1]
    n_drawn = max(1, n_seeds - 1)
    drawn_SR = np.random.default_rng([seed, n_seeds]).integers(0, n_seeds, size=(n_drawn, n_resamples))
    means_MR = np.take_along_axis(values_MSR, drawn_SR[np.newaxis], axis=1).mean(axis=1)
    return np.asarray(means_MR, dtype=np.float64)


# --- data ------------------------------------------------------------------------------------------------------------

_LONG_HEADER = (
    *("model", "recipe", "task", "options", "metric", "scorer", "scorer_version", "seed", "value", "low", "high"),
    *("n_seeds", "n_items", "weights_sha256", "source"),
)


def _long_rows(made: Iterable[_Made]) -> Iterable[tuple[Any, ...]]:
    """One line a seed, with the interval of its score, and one for the mean; shares in [0, 1] unrounded."""
    yield _LONG_HEADER
    for each in made:
        row, c = each.row, each.row.column
        start = (row.name, row.recipe, c.task, c.options, c.metric, c.scorer, c.scorer_version)
        for seed, entry in row.entries.items():
            bounds = entry.score.interval
            ends = (bounds.low, bounds.high) if bounds else ("", "")
            weights = entry.run.record.model.weights_sha256
            yield (*start, seed, entry.score.value, *ends, 1, c.n_items, weights, entry.run.place)
        ends = ("", "") if isinstance(each.interval, str) else (each.interval.low, each.interval.high)
        yield (*start, "mean", each.mean, *ends, len(row.entries), c.n_items, "", "")
