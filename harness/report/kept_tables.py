"""Tables that other verbs made, as tables of the report: scaling, frontier, streaming, comparisons, controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.frontier_table import closing_lines, frontier_table
from harness.records import ComparisonRow, GainRow, SensitivityRow
from harness.report.costs import as_report, named_scaling, scaling_source
from harness.report.loading import KeptComparison, KeptControls, KeptFrontier, KeptStreaming, Results
from harness.report.rendering import DASH, ReportTable, Source
from harness.report.weights import row_names, trained_weights
from harness.results_frame import model_order
from harness.scaling_tables import NOTES, POINTS_NOTE, components_table, crossover_table, growth_table, points_table
from harness.streaming_cost import TABLE_NOTE, streaming_table
from harness.tables import NOT_AVAILABLE

UNITS_NOTE = "Exponents are of the long end of each curve; 95 % intervals by a bootstrap over lengths and samples."


def kept_tables(results: Results) -> list[ReportTable]:
    """Every such table that has rows."""
    tables = [*_scaling_tables(results), *_frontier_tables(results), *streaming_tables(results)]
    if results.comparisons:
        tables.append(comparisons(results.comparisons))
    if results.controls:
        tables.append(audio_gains(results))
    return [table for table in tables if table.rows]


def _scaling_tables(results: Results) -> list[ReportTable]:
    tables = []
    for kept, name in named_scaling(results, "scaling"):
        sources = (scaling_source(kept),)
        made = (
            ("points", "Cost over the length of audio", points_table(kept.points), (POINTS_NOTE,)),
            ("components", "Cost by component", components_table(kept.points), (POINTS_NOTE,)),
            ("exponents", "How cost grows with length", growth_table(kept.points), (UNITS_NOTE,)),
            (
                "crossovers",
                "From which length on the first model is cheaper",
                crossover_table(kept.points),
                (NOTES["crossovers"],),
            ),
        )
        tables += [as_report(table, f"{name}-{part}", title, sources, notes) for part, title, table, notes in made]
    return tables


def _frontier_tables(results: Results) -> list[ReportTable]:
    return [
        as_report(
            frontier_table(kept.record, kept.probes),
            record_name("frontier", kept.place, len(results.frontiers)),
            "Longest audio under the caps",
            (frontier_source(kept),),
            closing_lines(kept.record),
        )
        for kept in results.frontiers
    ]


def streaming_tables(results: Results) -> list[ReportTable]:
    """What each further minute of listening costs: one table a record."""
    return [
        as_report(
            streaming_table(kept.record, kept.minutes),
            record_name("streaming", kept.place, len(results.streaming)),
            "What each further minute of listening costs",
            (streaming_source(kept),),
            (TABLE_NOTE, f"{conditions_text(kept)}."),
        )
        for kept in results.streaming
    ]


def conditions_text(kept: KeptStreaming) -> str:
    """Device, number type, threads and caps of a streaming record."""
    config = kept.record.config
    limit = config.get("time_limit_s")
    return (
        f"{kept.record.environment.cpu}, {config.get('device')}, {config.get('dtype')}, {config.get('threads')} "
        f"threads; memory cap {kept.record.memory_cap}; "
        f"time limit {'none' if limit is None else f'{limit:g} s'} for the whole answer"
    )


def record_name(start: str, place: str, n_records: int) -> str:
    """What is made of a record: with its folder's name where there are several of a kind."""
    return start if n_records == 1 else f"{start}-{place.rsplit('/', 1)[-1]}"


def streaming_source(kept: KeptStreaming) -> Source:
    """A streaming record as the sidecars name it."""
    return _source("streaming", kept.place, kept.record)


def frontier_source(kept: KeptFrontier) -> Source:
    """A frontier record as the sidecars name it."""
    return _source("frontier", kept.place, kept.record)


def controls_source(kept: KeptControls) -> Source:
    """Controls as the sidecars name them."""
    return _source("controls", kept.place, kept.record)


def _source(kind: str, place: str, record: Any) -> Source:
    environment = record.environment
    facts = {
        "kind": kind,
        "command": list(record.command),
        "git_commit": environment.git_commit,
        "git_is_dirty": environment.git_is_dirty,
        "cpu": environment.cpu,
    }
    return Source(place, place.rsplit("/", 1)[-1], facts)


# --- comparisons -----------------------------------------------------------------------------------------------------


def comparison_source(kept: KeptComparison) -> Source:
    """A comparison as the sidecars name it."""
    return _source("compare", kept.place, kept.record)


def newest_comparisons(kept: Sequence[KeptComparison]) -> list[tuple[KeptComparison, list[ComparisonRow]]]:
    """Each record with its rows that no later record made again of the same answers.

    Holm's adjustment is over the tasks of one record, so a row that stands in two has two verdicts.
    """
    newest: dict[tuple[object, ...], KeptComparison] = {}
    in_order = sorted(kept, key=lambda each: (each.record.created_utc, each.place))
    for each in in_order:
        for row in each.record.comparisons:
            newest[_compared(each, row)] = each
    return [(each, [r for r in each.record.comparisons if newest[_compared(each, r)] is each]) for each in in_order]


def _compared(kept: KeptComparison, row: ComparisonRow) -> tuple[object, ...]:
    runs = [
        (pair.first_predictions_sha256, pair.second_predictions_sha256)
        for pair in kept.record.runs
        if pair.task == row.task.partition(" (")[0]
    ]
    return (kept.record.first, kept.record.second, row.task, row.scorer, row.metric, *runs)


def comparisons(kept: Sequence[KeptComparison]) -> ReportTable:
    """One row a pair, task, scorer and metric."""
    header = (
        "first",
        "second",
        "task",
        "scorer",
        "metric",
        "n",
        "first %",
        "second %",
        "difference",
        "p (Holm)",
        "better",
    )
    shown = newest_comparisons(kept)
    rows = [(each.record.first, each.record.second, *_comparison_cells(row)) for each, own in shown for row in own]
    n_older = sum(len(each.record.comparisons) for each in kept) - len(rows)
    older = f"{n_older} rows are left out for later ones of the same answers."
    return ReportTable(
        name="comparisons",
        title="Paired tests, item by item",
        header=header,
        rows=tuple(rows),
        sources=tuple(comparison_source(each) for each, own in shown if own),
        notes=(
            "Difference: second minus first, in points of a percent, with its 95 % interval by a paired bootstrap. "
            "Accuracy is tested by McNemar's exact test, other metrics by the bootstrap; p adjusted over tasks (Holm).",
            "McNemar's test takes items for independent and the interval does not: where several items come of one "
            "recording, p is too small, and the interval counts. tied: not told apart at 0.05, which does not mean "
            "equal.",
            "One set of weights of each model: nothing here is of how trainings differ.",
            *([older] if n_older else []),
            *dict.fromkeys(remark for each, own in shown if own for remark in each.record.remarks),
        ),
    )


def _comparison_cells(row: ComparisonRow) -> tuple[str, ...]:
    start = (row.task, row.scorer, row.metric, str(row.n_items))
    if row.first is None or row.second is None or row.difference is None or row.interval is None:
        return (*start, DASH, DASH, NOT_AVAILABLE, DASH, DASH)
    bounds = f"[{100 * row.interval.low:+.1f}, {100 * row.interval.high:+.1f}]"
    p_value = DASH if row.p_holm is None else f"{row.p_holm:.2g}"
    values = (f"{100 * row.first:.1f}", f"{100 * row.second:.1f}", f"{100 * row.difference:+.1f} {bounds}")
    return (*start, *values, p_value, row.better)


# --- controls --------------------------------------------------------------------------------------------------------


def newest_controls(results: Results) -> dict[tuple[str, str], KeptControls]:
    """The newest controls of each model, by what it is called, weights and all, and by what was asked."""
    in_order = sorted(results.controls, key=lambda kept: (kept.record.started_utc, kept.place))
    names = row_names(in_order, trained_weights(results.training))
    found = {(names[kept.place], asked_text(kept)): kept for kept in in_order}
    return dict(sorted(found.items(), key=lambda item: (model_order(item[1].record.model.name), item[0])))


def asked_text(kept: KeptControls) -> str:
    """The task with the origin of its data, and what of the question is not the default."""
    task, record = kept.record.task, kept.record
    parts = [str(task.origin), *(f"{name}={value}" for name, value in task.options_changed.items())]
    if record.protocol is not None:
        parts.append(f"protocol={record.protocol}")
    elif not record.prompt.is_default:
        parts.append(f"prompt={record.prompt.name}")
    return f"{task.name} ({', '.join(parts)})"


def audio_gains(results: Results) -> ReportTable:
    """One row a model, task and scorer: the score in each condition, and what hearing the audio is worth."""
    kept = newest_controls(results)
    conditions = list(dict.fromkeys(row.name for each in kept.values() for row in each.record.conditions))
    rows = []
    for (model, task), each in kept.items():
        for gain in each.record.gains:
            scores = {
                row.name: score.value
                for row in each.record.conditions
                for score in row.scores
                if (score.scorer, score.metric) == (gain.scorer, gain.metric)
            }
            start = (model, task, gain.scorer, gain.metric)
            ends = (_gain_text(gain), _sensitivity_text(each.record.sensitivity))
            rows.append((*start, *(_percent(scores.get(name)) for name in conditions), *ends))
    shown = (*(name.replace("_", " ") for name in conditions), "audio gain", "last second")
    return ReportTable(
        name="audio-gain",
        title="Scores in percent with the audio taken away or spoilt, and what hearing it is worth",
        header=("model", "task", "scorer", "metric", *shown),
        rows=tuple(rows),
        sources=tuple(map(controls_source, kept.values())),
        notes=(
            "Audio gain: the real clips less the best control, in points of a percent, with a paired 95 % interval. "
            "The last second silenced is no control.",
            "Last second: percent of answers that change when the last second of the clip is silenced.",
            *dict.fromkeys(text for (_, task), each in kept.items() for text in _shorter_text(task, each)),
            *dict.fromkeys(f"{note.rstrip('.')}." for each in kept.values() for note in each.record.notes),
        ),
    )


def _shorter_text(task: str, kept: KeptControls) -> list[str]:
    found = kept.record.sensitivity
    if found is None or not found.n_shorter_than_a_second:
        return []
    return [f"Of {task}, {found.n_shorter_than_a_second} of {found.n_items} clips last under a second: silenced whole."]


def _sensitivity_text(found: SensitivityRow | None) -> str:
    if found is None or found.share is None or found.interval is None:
        return DASH
    return f"{100 * found.share:.1f} [{100 * found.interval.low:.1f}, {100 * found.interval.high:.1f}]"


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f}"


def _gain_text(gain: GainRow) -> str:
    if gain.gain is None or gain.interval is None:
        return NOT_AVAILABLE
    bounds = f"[{100 * gain.interval.low:+.1f}, {100 * gain.interval.high:+.1f}]"
    return f"{100 * gain.gain:+.1f} {bounds} over {gain.best_control}"
