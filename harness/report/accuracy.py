"""The accuracy tables, models by tasks, in the layout of the field: classification, captioning, averages.

One table an origin of the data, a way of asking and a scorer of labels, so that numbers that do not compare never share
a column. Best in bold; what is tied with it carries a mark, by a paired test where `compare` made one of these very
answers, else by overlapping intervals. Published rows stand below the runs, in the columns of their own scorer alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.records import ScoreRow
from harness.report.columns import METRIC_NAMES, Column, Entry, Grid, grids
from harness.report.loading import Results
from harness.report.published import SIGNS, PublishedNumber, percent_text, published_numbers
from harness.report.published_tables import published_tables
from harness.report.rendering import DASH, DIFFERS, INCOMPLETE, LEARNED, TIED, ReportTable, Source, file_name
from harness.report.weights import row_names, trained_weights
from harness.results_frame import KeptRun, score_facts
from harness.scoring import VERBATIM, is_better_low

Verdicts = Mapping[tuple[frozenset[str], str, str], str]
"""What paired tests found, by the hashes of both runs' answers, scorer and metric: a model's name, or "tied"."""
UNAVAILABLE = "n/a"
_COMPARED = "Bold: the best of the column; published rows are not compared."


def accuracy_tables(results: Results) -> list[ReportTable]:
    """Every accuracy table, the table of all scores, and the published numbers by scorer."""
    trained = trained_weights(results.training)
    tables = [accuracy_table(grid, verdicts(results), published_numbers()) for grid in grids(results.runs, trained)]
    if results.runs:
        tables.append(all_scores(results.runs, row_names(results.runs, trained)))
    return [*tables, *published_tables(published_numbers())]


def run_source(run: KeptRun) -> Source:
    """A run as the sidecars name it."""
    environment = run.record.environment
    facts = {
        "kind": "run",
        "command": list(run.record.command),
        "predictions_sha256": run.record.predictions_sha256,
        "git_commit": environment.git_commit,
        "git_is_dirty": environment.git_is_dirty,
        "cpu": environment.cpu,
        "started_utc": run.started_utc,
    }
    return Source(run.place, run.record.run_id, facts)


def verdicts(results: Results) -> Verdicts:
    """The paired tests that were kept; a later one of the same answers stands for an earlier one."""
    found: dict[tuple[frozenset[str], str, str], str] = {}
    for kept in sorted(results.comparisons, key=lambda kept: (kept.record.created_utc, kept.place)):
        record = kept.record
        for pair in record.runs:
            # A row names its task, not its runs: where a task was paired twice, none of the two is meant for sure.
            is_only = sum(other.task == pair.task for other in record.runs) == 1
            hashes = frozenset(sha for sha in (pair.first_predictions_sha256, pair.second_predictions_sha256) if sha)
            rows = [row for row in record.comparisons if row.task.partition(" (")[0] == pair.task]
            if is_only:
                found |= {(hashes, row.scorer, row.metric): row.better for row in rows if row.unavailable is None}
    return found


def accuracy_table(grid: Grid, tests: Verdicts, published: Sequence[PublishedNumber]) -> ReportTable:
    """The table of one grid."""
    best, ties, ways = _judged(grid, tests)
    averaged = _averaged(grid)
    header = ("model", *grid.titles, *(f"{kind} average" for kind in averaged))
    rows, bold = [], set()
    for line, name in enumerate(grid.rows):
        entries = [grid.cells.get((name, column)) for column in grid.columns]
        cells = [cell_text(entry, (name, c) in ties) for entry, c in zip(entries, grid.columns, strict=True)]
        rows.append((name, *cells, *(_average(grid, name, columns) for columns in averaged.values())))
        bold |= {(line, place) for place, c in enumerate(grid.columns, start=1) if (name, c) in best}
    outside = _published_rows(grid, published) if grid.setting.origin == "official" else []
    rows += [(*cells, *[DASH] * len(averaged)) for cells, _ in outside]
    entries_used = {entry.run.place: entry.run for entry in grid.cells.values()}
    asked = f", {grid.setting.asked}" if grid.setting.asked else ""
    return ReportTable(
        name=file_name("accuracy", grid.setting.origin, grid.setting.asked, grid.scorer),
        title=f"Scores in percent with 95 % intervals: {_origin_words(grid.setting.origin)}{asked}; {_by(grid)}",
        header=header,
        rows=tuple(rows),
        sources=tuple(run_source(run) for run in entries_used.values()),
        notes=(
            *_notes(grid, ways, bool(averaged)),
            *(f"{cells[0]}: {'; '.join(sorted({n.source for n in used}))}." for cells, used in outside),
        ),
        bold=frozenset(bold),
        rules=frozenset({len(grid.rows)}) if outside else frozenset(),
        data=tuple(_long_rows(grid, best, ties, outside)),
    )


def _by(grid: Grid) -> str:
    return "captions as they are" if grid.scorer == VERBATIM else f"labels by {grid.scorer}"


def _origin_words(origin: str) -> str:
    words = {"starter": "starter sets, which are no benchmark", "generated": "generated by the harness"}
    return words.get(origin, "official data")


def cell_text(entry: Entry | None, is_tied: bool) -> str:
    """The score with its interval and marks; "-" where there is none, "n/a" where the metric was not available."""
    if entry is None:
        return DASH
    score = entry.score
    if score.value is None or score.interval is None:
        return UNAVAILABLE
    marks = TIED if is_tied else ""
    marks += INCOMPLETE if score.n_failed or score.n_unparsed else ""
    marks += LEARNED if score.n_clean is not None else ""
    bounds = f"[{100 * score.interval.low:.1f}, {100 * score.interval.high:.1f}]"
    return f"{100 * score.value:.1f}{marks} {bounds}"


def _notes(grid: Grid, ways: Mapping[str, int], has_average: bool) -> list[str]:
    notes = ["Failed, unparsed and truncated items count as wrong. Intervals: bootstrap over recordings.", _COMPARED]
    lower = sorted({c.metric for c in grid.columns if is_better_low(c.metric)})
    if lower:
        notes.append(f"Lower is better: {', '.join(METRIC_NAMES.get(name, name) for name in lower)}.")
    if ways:
        counted = ", ".join(f"{n} by {way}" for way, n in sorted(ways.items()))
        notes.append(f"Compared with the best of its column, and whether they tie: {counted}.")
    if has_average:
        notes.append("Averages are plain means over the columns that are whole; only models with all of them have one.")
    reasons = {
        f"{column}: {entry.score.unavailable}" for (_, column), entry in grid.cells.items() if entry.score.unavailable
    }
    learned = {
        f"{name} learned from: {entry.run.record.model.trained_on.rstrip('.')}."
        for (name, _), entry in grid.cells.items()
        if entry.run.record.model.trained_on
    }
    versions = {(c.scorer, c.scorer_version) for c in grid.columns if c.scorer != VERBATIM}
    scorers = [f"Scorer {name}, version {version}." for name, version in sorted(versions)]
    return [*notes, *scorers, *sorted(reasons), *sorted(learned), *grid.left_out]


# --- best and ties ---------------------------------------------------------------------------------------------------

Place = tuple[str, Column]


def _judged(grid: Grid, tests: Verdicts) -> tuple[set[Place], set[Place], dict[str, int]]:
    """Places of the best and of what ties with it, and how many were compared by which way."""
    best: set[Place] = set()
    ties: set[Place] = set()
    ways: dict[str, int] = {}
    for column in grid.columns:
        entries = {name: grid.cells[name, column] for name in grid.rows if (name, column) in grid.cells}
        valued = {name: entry for name, entry in entries.items() if entry.score.value is not None}
        if len(valued) < 2:
            continue
        sign = -1.0 if is_better_low(column.metric) else 1.0
        top = max(sign * _value(entry) for entry in valued.values())
        winners = {name for name, entry in valued.items() if sign * _value(entry) == top}
        best |= {(name, column) for name in winners}
        leader = valued[min(winners)]
        for name in valued.keys() - winners:
            is_tied, way = _is_tied(valued[name], leader, tests)
            ways[way] = ways.get(way, 0) + 1
            if is_tied:
                ties.add((name, column))
    return best, ties, ways


def _value(entry: Entry) -> float:
    assert entry.score.value is not None
    return entry.score.value


def _is_tied(entry: Entry, leader: Entry, tests: Verdicts) -> tuple[bool, str]:
    pair = frozenset(e.run.record.predictions_sha256 or "" for e in (entry, leader))
    verdict = tests.get((pair, entry.score.scorer, entry.score.metric)) if len(pair) == 2 else None
    if verdict is not None:
        return verdict == "tied", "paired test"
    ours, theirs = entry.score.interval, leader.score.interval
    assert ours is not None and theirs is not None
    return ours.low <= theirs.high and theirs.low <= ours.high, "overlapping intervals"


# --- averages --------------------------------------------------------------------------------------------------------


def _averaged(grid: Grid) -> dict[str, tuple[Column, ...]]:
    """The columns of each average: whole tasks, each once, at least two of a kind."""
    kinds: dict[str, tuple[Column, ...]] = {}
    whole = [column for column in grid.columns if grid.is_whole(column)]
    for kind in ("classification", "captioning"):
        of_kind = tuple(column for column in whole if column.kind == kind)
        # One task in two versions, or with two sets of items, would count twice.
        if len(of_kind) > 1 and len({column.task for column in of_kind}) == len(of_kind):
            kinds[kind] = of_kind
    return kinds


def _average(grid: Grid, name: str, columns: Sequence[Column]) -> str:
    entries = [grid.cells.get((name, column)) for column in columns]
    values = [entry.score.value for entry in entries if entry is not None and entry.score.value is not None]
    return f"{100 * sum(values) / len(values):.1f}" if len(values) == len(columns) else DASH


# --- published rows --------------------------------------------------------------------------------------------------


def _published_rows(
    grid: Grid, published: Sequence[PublishedNumber]
) -> list[tuple[tuple[str, ...], list[PublishedNumber]]]:
    """Cells of each system that has a number in a column here, and the numbers used."""
    rows = []
    for system in dict.fromkeys(number.system for number in published):
        cells, used = [], []
        for column in grid.columns:
            number = next((n for n in published if n.system == system and _belongs(n, column, grid)), None)
            cells.append(DASH if number is None else _published_cell(number, grid))
            used += [number] if number is not None else []
        if used:
            rows.append(((system, *cells), used))
    return rows


def _belongs(number: PublishedNumber, column: Column, grid: Grid) -> bool:
    asked = (column.task, column.metric, column.scorer_name)
    return grid.is_whole(column) and (number.task, number.metric, number.scorer) == asked


def _published_cell(number: PublishedNumber, grid: Grid) -> str:
    differs = "" if grid.setting.asked == f"protocol {number.protocol}" else DIFFERS
    return f"{percent_text(number)}{differs}{SIGNS[number.mark]}"


# --- data ------------------------------------------------------------------------------------------------------------

_LONG_HEADER = (
    *("model", "task", "options", "metric", "scorer", "scorer_version", "value", "low", "high", "confidence"),
    *("n_items", "n_declared", "n_failed", "n_unparsed", "is_best", "is_tied", "mark", "source"),
)


def _long_rows(
    grid: Grid, best: set[Place], ties: set[Place], outside: Iterable[tuple[tuple[str, ...], list[PublishedNumber]]]
) -> Iterable[tuple[Any, ...]]:
    """The table with one line a number, shares in [0, 1] unrounded."""
    yield _LONG_HEADER
    for name in grid.rows:
        for c in grid.columns:
            entry = grid.cells.get((name, c))
            if entry is not None:
                start = (name, c.task, c.options, c.metric, c.scorer, c.scorer_version)
                judged = (int((name, c) in best), int((name, c) in ties), "", entry.run.place)
                yield (*start, *_values(entry.score), c.n_items, c.n_declared, *_lacks(entry.score), *judged)
    for _, numbers in outside:
        for n in numbers:
            counts = [""] * 9
            yield (n.system, n.task, "", n.metric, n.scorer, "", n.percent / 100, *counts, n.mark, n.source)


def _values(score: ScoreRow) -> tuple[Any, ...]:
    interval = score.interval
    return (score.value, *((interval.low, interval.high, interval.confidence) if interval else ("", "", "")))


def _lacks(score: ScoreRow) -> tuple[int, int]:
    return score.n_failed, score.n_unparsed


def all_scores(runs: Sequence[KeptRun], names: Mapping[str, str]) -> ReportTable:
    """Every score of every run, for whoever computes further; printed with the columns that a reader wants first.

    Args:
        runs: of which scores are wanted.
        names: what each run's model is called, by the run's place.
    """
    named = [(names[run.place], row) for run in runs for row in score_facts(run)]
    facts = [row for _, row in named]
    shown = ("model_options", "asked", "scorer", "metric")
    rows = tuple(
        (name, *(str(row[column]) or DASH for column in shown), _percent(row), str(row["n_items"]), _counts(row))
        for name, row in named
    )
    return ReportTable(
        name="scores",
        title="Every score of every run",
        header=("model", *shown, "score % [95 %]", "n", "unparsed / failed"),
        rows=rows,
        sources=tuple(run_source(run) for run in runs),
        notes=("Scores of different scorers, metrics or item sets do not compare.",),
        data=(tuple(facts[0]), *(tuple(row.values()) for row in facts)) if facts else None,
    )


def _percent(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return UNAVAILABLE
    return f"{100 * row['value']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _counts(row: Mapping[str, Any]) -> str:
    return f"{row['n_unparsed']} / {row['n_failed']}"
