"""The main table: what each model scores beside what its answer costs, one table an origin of the data.

Scores are those of the table of accuracy by SCORER, asked as the task asks first, of one set of weights a model. Costs
are those of one minute of audio as `scaling` measured them; models that it did not measure have none. Data that the
harness generates stand in tables of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.report.accuracy import cell_text, run_source
from harness.report.columns import GENERATED, Grid, grids
from harness.report.costs import count_text, scaling_source
from harness.report.costs_at import COST_NOTE, CostsAt, cost_cells, costs_at
from harness.report.loading import Results
from harness.report.rendering import ReportTable, Source, file_name
from harness.report.weights import Trained, one_set_of_weights, plain_name, trained_weights
from harness.results_frame import KeptRun

SCORER = "exact"
COST_AT_S = 60.0


def main_tables(results: Results) -> list[ReportTable]:
    """One table each origin of the data, where a model in it was measured at COST_AT_S."""
    trained = trained_weights(results.training)
    shown = grids(one_set_of_weights(results.runs, trained), trained)
    wanted = [g for g in shown if (g.scorer, g.setting.asked) == (SCORER, "") and g.setting.origin != GENERATED]
    tables = []
    for grid in wanted:
        models = {plain_name(entry.run) for entry in grid.cells.values()}
        if (best := costs_at(COST_AT_S, results.scaling, models)) is not None:
            tables.append(_table(grid, best, _seed_notes(grid, results.runs, trained)))
    return tables


def _seed_notes(grid: Grid, runs: Sequence[KeptRun], trained: Mapping[str, Trained]) -> list[str]:
    """Which seed a row shows, where runs of the same model have weights of further seeds of the same training."""
    asked: dict[tuple[str, str], set[int]] = {}
    for run in runs:
        if (known := trained.get(run.record.model.weights_sha256 or "")) is not None:
            asked.setdefault((plain_name(run), known.kind), set()).add(known.seed)
    notes = []
    for (name, _), entry in grid.cells.items():
        known = trained.get(entry.run.record.model.weights_sha256 or "")
        others = asked[plain_name(entry.run), known.kind] - {known.seed} if known is not None else set()
        if known is not None and others:
            listed = f"seed{'s' * (len(others) > 1)} {', '.join(map(str, sorted(others)))}"
            notes.append(f"{name}: seed {known.seed} of its training; {listed} not shown here.")
    return sorted(set(notes))


def _table(grid: Grid, costs: CostsAt, seed_notes: Sequence[str]) -> ReportTable:
    length = f"{COST_AT_S:g} s"
    entries = {name: [grid.cells.get((name, column)) for column in grid.columns] for name in grid.rows}
    runs = {entry.run.place: entry.run for entry in grid.cells.values()}
    rows = []
    for name, cells in entries.items():
        run = next(entry.run for entry in cells if entry is not None)
        scores = [cell_text(entry, is_tied=False) for entry in cells]
        parameters = count_text(sum(run.record.model.parameters.values()))
        rows.append((name, *scores, parameters, *cost_cells(costs.by_model.get(plain_name(run)))))
    units = ("parameters", f"GFLOPs, {length}", f"time, {length}", f"peak MB, {length}")
    sources: Sequence[Source] = (*map(run_source, runs.values()), scaling_source(costs.kept))
    return ReportTable(
        name=file_name("main", grid.setting.origin),
        title=f"Scores in percent with 95 % intervals, and the cost of answering {length} of audio",
        header=("model", *(f"{title}, {grid.setting.origin}" for title in grid.titles), *units),
        rows=tuple(rows),
        sources=tuple(sources),
        notes=(
            f"Labels by {SCORER}; {grid.setting.origin} data. Failed, unparsed and truncated items count as wrong.",
            f"Costs: {costs.conditions}; {costs.kept.record.environment.cpu}. {COST_NOTE}",
            *seed_notes,
        ),
    )
