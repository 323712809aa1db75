"""Tables that other verbs made, as tables of the report: scaling, frontier, comparisons, controls; and training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.frontier_table import closing_lines, frontier_table
from harness.records import ComparisonRow, GainRow
from harness.report.costs import as_report, named_scaling, scaling_source
from harness.report.loading import KeptComparison, KeptControls, KeptFrontier, KeptTraining, Results
from harness.report.rendering import DASH, ReportTable, Source
from harness.scaling_tables import POINTS_NOTE, components_table, crossover_table, growth_table, points_table
from harness.tables import NOT_AVAILABLE

UNITS_NOTE = "Exponents are of the long end of each curve; 95 % intervals by a bootstrap over lengths and samples."


def kept_tables(results: Results) -> list[ReportTable]:
    """Every such table that has rows."""
    tables = [*_scaling_tables(results), *_frontier_tables(results)]
    if results.comparisons:
        tables.append(comparisons(results.comparisons))
    if results.controls:
        tables.append(audio_gains(results.controls))
    if any(kept.record is not None for kept in results.training):
        tables.append(training(results.training))
    return [table for table in tables if table.rows]


def _scaling_tables(results: Results) -> list[ReportTable]:
    tables = []
    for kept, name in named_scaling(results, "scaling"):
        sources = (scaling_source(kept),)
        made = (
            ("points", "Cost over the length of audio", points_table(kept.points), (POINTS_NOTE,)),
            ("components", "Cost by component", components_table(kept.points), (POINTS_NOTE,)),
            ("exponents", "How cost grows with length", growth_table(kept.points), (UNITS_NOTE,)),
            ("crossovers", "From which length on the first model is cheaper", crossover_table(kept.points), ()),
        )
        tables += [as_report(table, f"{name}-{part}", title, sources, notes) for part, title, table, notes in made]
    return tables


def _frontier_tables(results: Results) -> list[ReportTable]:
    several = len(results.frontiers) > 1
    return [
        as_report(
            frontier_table(kept.record, kept.probes),
            f"frontier-{kept.place.rsplit('/', 1)[-1]}" if several else "frontier",
            "Longest audio under the caps",
            (frontier_source(kept),),
            closing_lines(kept.record),
        )
        for kept in results.frontiers
    ]


def frontier_source(kept: KeptFrontier) -> Source:
    """A frontier record as the sidecars name it."""
    return _source("frontier", kept.place, kept.record)


def controls_source(kept: KeptControls) -> Source:
    """Controls as the sidecars name them."""
    return _source("controls", kept.place, kept.record)


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
    rows = [
        (each.record.first, each.record.second, *_comparison_cells(row))
        for each in kept
        for row in each.record.comparisons
    ]
    return ReportTable(
        name="comparisons",
        title="Paired tests, item by item",
        header=header,
        rows=tuple(rows),
        sources=tuple(_source("compare", each.place, each.record) for each in kept),
        notes=(
            "Difference: second minus first, in points of a percent, with its 95 % interval by a paired bootstrap. "
            "Accuracy is tested by McNemar's exact test, other metrics by the bootstrap; p adjusted over tasks (Holm).",
            *dict.fromkeys(remark for each in kept for remark in each.record.remarks),
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


def audio_gains(kept: Sequence[KeptControls]) -> ReportTable:
    """One row a model, task and scorer: the score in each condition, and what hearing the audio is worth."""
    conditions = list(dict.fromkeys(row.name for each in kept for row in each.record.conditions))
    rows = []
    for each in kept:
        for gain in each.record.gains:
            scores = {
                row.name: score.value
                for row in each.record.conditions
                for score in row.scores
                if (score.scorer, score.metric) == (gain.scorer, gain.metric)
            }
            model, task = each.record.model, each.record.task
            name = f"{model.name}:{model.variant}" if model.variant else model.name
            start = (name, f"{task.name} ({task.origin})", gain.scorer, gain.metric)
            rows.append((*start, *(_percent(scores.get(name)) for name in conditions), _gain_text(gain)))
    return ReportTable(
        name="audio-gain",
        title="Scores in percent with the audio taken away or spoilt, and what hearing it is worth",
        header=("model", "task", "scorer", "metric", *(name.replace("_", " ") for name in conditions), "audio gain"),
        rows=tuple(rows),
        sources=tuple(map(controls_source, kept)),
        notes=(
            "Audio gain: the real clips less the best control, in points of a percent, with a paired 95 % interval.",
            *dict.fromkeys(note for each in kept for note in each.record.notes),
        ),
    )


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f}"


def _gain_text(gain: GainRow) -> str:
    if gain.gain is None or gain.interval is None:
        return NOT_AVAILABLE
    bounds = f"[{100 * gain.interval.low:+.1f}, {100 * gain.interval.high:+.1f}]"
    return f"{100 * gain.gain:+.1f} {bounds} over {gain.best_control}"


# --- training --------------------------------------------------------------------------------------------------------


def training(kept: Sequence[KeptTraining]) -> ReportTable:
    """One row a training run that was recorded."""
    rows = [_training_cells(each, each.record) for each in kept if each.record is not None]
    return ReportTable(
        name="training",
        title="What the models learned from",
        header=("model and training", "recipe", "clips", "held out", "steps", "hours", "threads", "last loss"),
        rows=tuple(rows),
        sources=tuple(training_source(each) for each in kept if each.record is not None),
        notes=("Hours: of this training run alone; a round that was taken over from another is in that one's row.",),
    )


def _training_cells(kept: KeptTraining, record: dict[str, Any]) -> tuple[str, ...]:
    learned, config = record.get("learned_from", {}), record.get("config", {})
    losses = [value for line in kept.curve[-1:] for name, value in line.items() if name.endswith("loss")]
    seconds = record.get("trained_s")
    return (
        kept.name,
        f"{learned.get('recipe', DASH)} {learned.get('recipe_version', '')}".strip(),
        str(learned.get("n_clips", DASH)),
        f"fold {learned['hold_out_fold']}" if learned.get("hold_out_fold") else DASH,
        str(config.get("steps", DASH)),
        DASH if seconds is None else f"{seconds / 3600:.2f}",
        str(config.get("threads", DASH)),
        f"{losses[0]:.3f}" if losses else DASH,
    )
