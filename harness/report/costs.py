"""The efficiency tables: what each run took, and what `scaling` measured at the lengths that matter most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.report.accuracy import run_source
from harness.report.loading import KeptScaling, Results
from harness.report.rendering import DASH, ReportTable, Source
from harness.report.weights import row_names, trained_weights
from harness.results_frame import KeptRun
from harness.scaling_curves import Line, lines_of
from harness.scaling_rows import Measured, PointRow
from harness.scaling_tables import POINTS_NOTE, points_table
from harness.tables import Table, task_text

SHORT_S = 10.0
_FROM_POINTS = (
    "total",
    "TTFT",
    "TPOT",
    "prefill",
    "RTF",
    "FLOPs",
    "FLOP/s",
    "allocated MB",
    "process MB",
    "state B",
    "J",
)


def cost_tables(results: Results) -> list[ReportTable]:
    """The table of runs where there are any, and one of each scaling record."""
    names = row_names(results.runs, trained_weights(results.training))
    tables = [run_costs(results.runs, names)] if results.runs else []
    return tables + [efficiency(kept, name) for kept, name in named_scaling(results, "efficiency")]


def named_scaling(results: Results, start: str) -> list[tuple[KeptScaling, str]]:
    """Each scaling record that has points, with a name for what is made of it: the id too where there are several."""
    kept = [each for each in results.scaling if each.points]
    return [(each, start if len(kept) == 1 else f"{start}-{each.record.record_id}") for each in kept]


def scaling_source(kept: KeptScaling) -> Source:
    """A scaling record as the sidecars name it."""
    environment = kept.record.environment
    facts = {
        "kind": "scaling",
        "command": list(kept.record.sessions[-1].command) if kept.record.sessions else [],
        "git_commit": environment.git_commit,
        "git_is_dirty": environment.git_is_dirty,
        "cpu": environment.cpu,
    }
    return Source(kept.place, kept.record.record_id, facts)


# --- runs ------------------------------------------------------------------------------------------------------------


def machine_text(run: KeptRun) -> str:
    """Where a run took place: times of different machines do not compare."""
    record, environment = run.record, run.record.environment
    device = environment.gpu.name if environment.gpu is not None and record.device != "cpu" else environment.cpu
    threads = f"{record.threads} thread{'s' * (record.threads > 1)}"
    return f"{device}, {record.device}, {record.dtype}, {threads}, batch {record.batch_size}"


def seconds_a_clip(run: KeptRun) -> float | None:
    """Mean time of an answer, without loading of model and clip; None where there are no items."""
    return sum(p.answer_s for p in run.predictions) / len(run.predictions) if run.predictions else None


def run_costs(runs: Sequence[KeptRun], names: Mapping[str, str]) -> ReportTable:
    """What each run took, from its answers.

    Args:
        runs: of which costs are wanted.
        names: what each run's model is called, by the run's place.
    """
    machines = list(dict.fromkeys(map(machine_text, runs)))
    letters = {machine: f"M{number}" for number, machine in enumerate(machines, start=1)}
    header = ("model", "task", "parameters", "trainable", "s a clip", "RTF", "tokens/s", "peak RSS MiB", "machine")
    rows = tuple((names[run.place], *_run_cells(run), letters[machine_text(run)]) for run in runs)
    return ReportTable(
        name="run-costs",
        title="What each run took",
        header=header,
        rows=rows,
        sources=tuple(map(run_source, runs)),
        notes=(
            "s a clip: mean time of an answer within its batch; loading is not in it. RTF: that over seconds of audio. "
            "tokens/s: answer tokens over the time of whole answers, prefill included.",
            "These times were taken once, while answering: scaling measures them with intervals.",
            *(f"{letter}: {machine}." for machine, letter in letters.items()),
        ),
    )


def _run_cells(run: KeptRun) -> tuple[str, ...]:
    record = run.record
    answered = [p for p in run.predictions if p.status != "failed"]
    seconds = sum(p.answer_s for p in answered)
    audio = sum(p.duration_s or 0.0 for p in answered)
    n_tokens = sum(p.n_answer_tokens for p in answered)
    a_clip = seconds_a_clip(run)
    return (
        task_text(record),
        count_text(sum(record.model.parameters.values())),
        count_text(sum(record.model.trainable_parameters.values())),
        DASH if a_clip is None else f"{a_clip:.3g}",
        f"{seconds / audio:.3g}" if audio else DASH,
        f"{n_tokens / seconds:.3g}" if n_tokens and seconds else DASH,
        f"{record.peak_rss_bytes / 2**20:.0f}",
    )


def count_text(n: int) -> str:
    """Such as "2.81 G", "1.69 M", or "-" for none."""
    for letter, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {letter}"
    return str(n) if n else DASH


# --- scaling ---------------------------------------------------------------------------------------------------------


def efficiency(kept: KeptScaling, name: str) -> ReportTable:
    """Each model at 10 s, or the shortest length above, and at the longest that all of its conditions passed."""
    lines = lines_of(kept.points)
    wanted = {str(line.conditions): _lengths([o for o in lines if o.conditions == line.conditions]) for line in lines}
    points = points_table(kept.points)
    rows = []
    for (line, point), cells in zip(((li, p) for li in lines for p in li.points), points.rows, strict=True):
        if point.key.seconds in wanted[str(line.conditions)] and point.measured is not None:
            by_name = dict(zip(points.header, cells, strict=True))
            start = (line.label, str(line.conditions), f"{point.key.seconds:g} s")
            rows.append((*start, *_size_cells(point.measured), *(by_name[column] for column in _FROM_POINTS)))
    header = ("model", "conditions", "audio", "parameters", "trainable", "tokens/s", *_FROM_POINTS)
    return ReportTable(
        name=name,
        title="Cost of one answer",
        header=header,
        rows=tuple(rows),
        sources=(scaling_source(kept),),
        notes=(POINTS_NOTE, f"Machine: {kept.record.environment.cpu}.", *_random_weights(kept.points)),
    )


def _lengths(lines: Iterable[Line]) -> set[float]:
    """Two lengths that every line of some conditions passed; fewer where there are fewer."""
    passed = [{p.key.seconds for p in line.points if p.measured is not None} for line in lines]
    common = sorted(set.intersection(*passed)) if passed else []
    if not common:
        return set()
    return {next((s for s in common if s >= SHORT_S), common[-1]), common[-1]}


def _size_cells(measured: Measured) -> tuple[str, ...]:
    described, speed = measured.description, measured.answer_tokens_per_s
    sizes = (sum(described.parameters.values()), sum(described.trainable_parameters.values()))
    return (*map(count_text, sizes), DASH if speed is None else f"{speed:.3g}")


def _random_weights(points: Iterable[PointRow]) -> list[str]:
    names = {p.key.full_name for p in points if p.key.options.get("weights") == "random"}
    return [f"{name}: weights are random." for name in sorted(names)]


def as_report(table: Table, name: str, title: str, sources: Sequence[Source], notes: Sequence[str] = ()) -> ReportTable:
    """A table of another part of the harness, as one of the report."""
    return ReportTable(name, title, table.header, table.rows, tuple(sources), tuple(notes))
