"""`compare A B`: two runs, item by item. Runs that were not asked the same are refused, never compared all the same.

Two runs pair when task and its version, every item's id, audio and references, the prompt and the scorer are the same,
by their hashes. Accuracy is tested by McNemar's exact test on the items that only one of the two has right; every other
metric by a paired cluster bootstrap. The difference and its interval are the paired bootstrap's in both cases. p-values
are adjusted over the tasks that are compared under one scorer and metric (Holm 1979); what is not significant then is
tied. McNemar's test takes clips for independent: where several come from one recording, read the interval beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.contracts import Scored
from harness.errors import HarnessError, MetricUnavailable, RecordError, UsageError
from harness.measuring import BoundMetric
from harness.pair_remarks import pair_remarks
from harness.records import Prediction, RunRecord, load_predictions, load_record
from harness.registry import create, split_model
from harness.scores import check_metric_fits, decided_items, load_finished, make_scorer, run_facts, stored_scores
from harness.scoring import VERBATIM, gives_scores, is_better_low
from harness.statistics import Interval, compare_paired, holm, mcnemar_exact
from harness.tables import NOT_AVAILABLE, Table, model_text, task_text

MCNEMAR = "exact McNemar"
BOOTSTRAP = "paired bootstrap"
TIED = "tied"
LEVEL = 0.05


@dataclass(frozen=True)
class FinishedRun:
    """A finished run's folder, record and predictions."""

    folder: Path
    record: RunRecord
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True)
class Comparison:
    """One task, scorer and metric. `difference` is second minus first; `better` names a model, or is "tied".

    `n_flipped` items were decided, or said where the text itself is judged, another way by the second run. Of accuracy,
    `n_first_only` and `n_second_only` are the items that one run alone has right, which are what its test counts.
    Where the metric is not available there is no value, and the reason.
    """

    task: str
    scorer: str
    metric: str
    n_items: int
    n_clusters: int
    first: float | None = None
    second: float | None = None
    difference: float | None = None
    interval: Interval | None = None
    test: str = ""
    p_value: float | None = None
    p_holm: float | None = None
    better: str = ""
    unavailable: str | None = None
    n_flipped: int | None = None
    n_first_only: int | None = None
    n_second_only: int | None = None


@dataclass(frozen=True)
class ComparisonReport:
    """Every comparison, the models as they are typed, the runs that were paired, and what could not be."""

    first: str
    second: str
    comparisons: tuple[Comparison, ...]
    folders: tuple[tuple[Path, Path], ...]
    remarks: tuple[str, ...]


def compare(
    first: str,
    second: str,
    results: Path,
    scorers: Sequence[str] = (),
    metrics: Sequence[str] = (),
    n_resamples: int = 1000,
    seed: int = 0,
) -> ComparisonReport:
    """Compare two runs, or two models on every task that both were asked.

    Args:
        first, second: each a run's folder, or a model as NAME[:VARIANT]: on each task the newest finished run of the
            largest set of items that both were asked.
        results: where the models' runs lie.
        scorers: those that both runs have scores of, when empty.
        metrics: each task's first, when empty.
        n_resamples, seed: of the bootstrap.

    Raises:
        UsageError: there is no such run, the two were not asked or scored the same, or a model's name stands for runs
            with several weights or options.
        RecordError: a run is damaged.
    """
    pairs, remarks = _pairs(_runs(first, results), _runs(second, results), first, second)
    rows: list[Comparison] = []
    for one, other in pairs:
        check_paired(one, other)
        remarks += pair_remarks(one.record, other.record)
        for metric in metrics:
            check_metric_fits(metric, one.record.task.kind)
        usable, left_out = _scorers(one, other, scorers)
        remarks += left_out
        for scorer in usable:
            for metric in metrics or one.record.task.metrics[:1]:
                rows.append(_compared(one, other, scorer, metric, n_resamples, seed))
    names = (_name(pairs[0][0], pairs[0][1]), _name(pairs[0][1], pairs[0][0]))
    folders = tuple((one.folder, other.folder) for one, other in pairs)
    return ComparisonReport(*names, tuple(_judged(rows, *names)), folders, tuple(remarks))


# --- finding and pairing runs ----------------------------------------------------------------------------------------


def _runs(text: str, results: Path) -> list[FinishedRun]:
    folder = Path(text)
    if folder.is_dir():
        return [_finished(folder)]
    name, variant = split_model(text)
    runs: dict[Path, RunRecord] = {}
    for path in sorted((results / "runs").glob("*/*/*/record.json")):
        record = load_record(path.parent)
        is_named = record is not None and record.model.name == name and variant in (None, record.model.variant)
        if record is not None and is_named and record.is_complete:
            runs[path.parent] = record
    variants = sorted({record.model.variant for record in runs.values()})
    if not runs:
        raise UsageError(f"There is no finished run of '{text}' in {results / 'runs'}, and no folder of that name.")
    if len(variants) > 1:
        raise UsageError(f"'{text}' has runs of several variants: {', '.join(variants)}. Name one as {name}:VARIANT.")
    newest = {(_asked(record), record.model.fingerprint): path for path, record in runs.items()}
    return [_finished(path) for path in newest.values()]


def _finished(folder: Path) -> FinishedRun:
    return FinishedRun(folder, load_finished(folder), tuple(load_predictions(folder)))


def _asked(record: RunRecord) -> tuple[str, ...]:
    """What a run was asked: runs that agree in this can be paired."""
    task = record.task
    return (task.name, str(task.version), task.origin, task.item_set_sha256, record.prompt.sha256)


def _pairs(
    first: Sequence[FinishedRun], second: Sequence[FinishedRun], first_text: str, second_text: str
) -> tuple[list[tuple[FinishedRun, FinishedRun]], list[str]]:
    ours, theirs = _by_question(first), _by_question(second)
    keys, remarks = _largest({key: ours[key][0].record for key in ours if key in theirs})
    pairs = [(_only_one(ours[key], first_text), _only_one(theirs[key], second_text)) for key in keys]
    paired = {one.record.task.name for one, _ in pairs}
    our_tasks, their_tasks = ({run.record.task.name: run for run in runs} for runs in (first, second))
    for name in sorted((our_tasks.keys() | their_tasks.keys()) - paired):
        if name in our_tasks and name in their_tasks:
            raise UsageError(_difference(our_tasks[name], their_tasks[name]))
        missing = second_text if name in our_tasks else first_text
        remarks.append(f"{name} is left out: there is no finished run of {missing} on it.")
    if not pairs:
        raise UsageError(f"{first_text} and {second_text} have no task in common. " + " ".join(remarks))
    return pairs, remarks


def _by_question(runs: Sequence[FinishedRun]) -> dict[tuple[str, ...], list[FinishedRun]]:
    """The runs that were asked the same, together."""
    found: dict[tuple[str, ...], list[FinishedRun]] = {}
    for run in runs:
        found.setdefault(_asked(run.record), []).append(run)
    return found


def _largest(records: Mapping[tuple[str, ...], RunRecord]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Of each task, one set of items: a part of a set would be tested beside the whole as if it were another task.

    Returns:
        What the runs that are kept were asked, and what is left out.
    """
    kept: dict[tuple[str, ...], tuple[str, ...]] = {}
    for key, record in records.items():
        task = record.task
        # Not all options: an older record lacks those that a task has gained since.
        options = str(sorted(task.options_changed.items()))
        of_task = (task.name, str(task.version), task.origin, options, record.prompt.sha256)
        best = kept.get(of_task)
        if best is None or record.counts.n_items >= records[best].counts.n_items:
            kept[of_task] = key
    smaller = [record for key, record in records.items() if key not in kept.values()]
    return list(kept.values()), [
        f"{task_text(record)} with {record.counts.n_items} items is left out for a set of as many or more."
        for record in smaller
    ]


def _only_one(runs: Sequence[FinishedRun], text: str) -> FinishedRun:
    """The run of a question, where the model's name stands for one set of weights and options."""
    if len(runs) > 1:
        folders = ", ".join(str(run.folder) for run in runs)
        raise UsageError(
            f"'{text}' has runs with several weights or options on {task_text(runs[0].record)}: give the folder of one "
            f"instead of the name: {folders}."
        )
    return runs[0]


def check_paired(one: FinishedRun, other: FinishedRun) -> None:
    """Refuse two runs that were not asked the same.

    Raises:
        UsageError: they differ in task, version, items, audio, references or prompt; the message says in which.
    """
    if _asked(one.record) != _asked(other.record):
        raise UsageError(_difference(one, other))
    theirs = {row.item_id: row for row in other.predictions}
    if len(one.predictions) != len(theirs) or any(row.item_id not in theirs for row in one.predictions):
        raise UsageError(f"{one.folder} and {other.folder} hold answers to different items: they cannot be paired.")
    for row in one.predictions:
        for field in ("audio_identity", "references", "cluster", "prompt_sha256"):
            if getattr(row, field) != getattr(theirs[row.item_id], field):
                raise UsageError(
                    f"{one.folder} and {other.folder} differ in the {field} of '{row.item_id}': they cannot be paired."
                )


def _difference(one: FinishedRun, other: FinishedRun) -> str:
    fields = ("task", "task version", "origin of the data", "item set", "prompt")
    both = zip(fields, _asked(one.record), _asked(other.record), strict=True)
    differing = [f"{field} ({_short(a)} and {_short(b)})" for field, a, b in both if a != b]
    return (
        f"{one.folder} and {other.folder} were not asked the same and cannot be paired: they differ in "
        f"{', '.join(differing)}."
    )


def _short(text: str) -> str:
    return text[:12]


# --- comparing -------------------------------------------------------------------------------------------------------


def _scorers(one: FinishedRun, other: FinishedRun, wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """The scorers to use, those that were asked for or those that both runs were scored with; and what is left out."""
    if wanted:
        return list(wanted), []
    ours, theirs = (
        {row.scorer: row.scorer_version for row in stored_scores(run.folder, run.record).values()}
        for run in (one, other)
    )
    shared = [name for name in ours if name in theirs]
    for name in shared:
        if ours[name] != theirs[name]:
            raise UsageError(
                f"{one.folder} was scored by version {ours[name]} of '{name}' and {other.folder} by version "
                f"{theirs[name]}. Score both again: score FOLDER --scorer {name} --overwrite."
            )
    usable = [name for name in shared if _can_be_remade(name)]
    left_out = [f"{name} is left out: give it with --scorer as it was typed." for name in shared if name not in usable]
    if not usable:
        problem = " ".join(left_out) or "Name one with --scorer."
        raise UsageError(f"{one.folder} and {other.folder} have no scorer in common that can be used. {problem}")
    return usable, left_out


def _can_be_remade(name: str) -> bool:
    """Whether a stored name makes the same scorer; some options are shortened in names, such as a folder's."""
    try:
        return make_scorer(name).name == name
    except HarnessError:
        return False


def _compared(
    one: FinishedRun, other: FinishedRun, scorer_name: str, metric_name: str, n_resamples: int, seed: int
) -> Comparison:
    labels = one.record.task.labels
    if other.record.task.labels != labels:
        raise UsageError(f"{one.folder} and {other.folder} have other label tables: they cannot be paired.")
    scorer, first = decided_items(one.predictions, labels, scorer_name, run_facts(one.record))
    in_order = {row.item_id: row for row in other.predictions}
    theirs = [in_order[row.item_id] for row in one.predictions]
    _, second = decided_items(theirs, labels, scorer_name, run_facts(other.record))
    _check_versions(one, other, scorer.name, scorer.version)
    metric = BoundMetric(
        metric_name,
        tuple(row.name for row in labels),
        create("metrics", metric_name).value,
        gives_scores(scorer),
        run_facts(one.record).n_trials,
    )
    clusters = [item.cluster for item in first]
    n_flipped = _n_flipped(first, second, scorer.name, metric.counts_sets)
    task = task_text(one.record)
    row = Comparison(task, scorer.name, metric_name, len(first), len(set(clusters)), n_flipped=n_flipped)
    try:
        values = metric.value(first), metric.value(second)
        paired = compare_paired(
            metric.resampled(first, values[0]), metric.resampled(second, values[1]), clusters, n_resamples, seed=seed
        )
    except MetricUnavailable as error:
        return replace(row, unavailable=str(error))
    row = replace(row, first=values[0], second=values[1], difference=values[1] - values[0], interval=paired.interval)
    if metric_name != "accuracy":
        return replace(row, test=BOOTSTRAP, p_value=paired.p_value)
    alone = _right_alone(metric, first, second)
    return replace(row, test=MCNEMAR, p_value=mcnemar_exact(*alone), n_first_only=alone[0], n_second_only=alone[1])


def _n_flipped(first: Sequence[Scored], second: Sequence[Scored], scorer_name: str, counts_sets: bool) -> int:
    """How many items came out another way, right or wrong; failing is a way of its own."""

    def outcome(item: Scored) -> object:
        made = item.text if scorer_name == VERBATIM else item.decision.decided(counts_sets)
        return item.answered and made

    return sum(outcome(a) != outcome(b) for a, b in zip(first, second, strict=True))


def _check_versions(one: FinishedRun, other: FinishedRun, scorer: str, version: int) -> None:
    """The decisions made now must be those that the runs' own scores came from."""
    for run in (one, other):
        stored = {row.scorer_version for row in stored_scores(run.folder, run.record).values() if row.scorer == scorer}
        if stored - {version}:
            raise RecordError(
                f"{run.folder} was scored by another version of '{scorer}' than {version}, which this program has. "
                f"Score it again: score {run.folder} --scorer {scorer} --overwrite."
            )


def _right_alone(metric: BoundMetric, first: Sequence[Scored], second: Sequence[Scored]) -> tuple[int, int]:
    """Items that only the first run has right, and only the second."""
    pairs = [(metric.value([a]), metric.value([b])) for a, b in zip(first, second, strict=True)]
    return sum(a > b for a, b in pairs), sum(b > a for a, b in pairs)


def _judged(rows: Sequence[Comparison], first: str, second: str) -> list[Comparison]:
    """Adjust the p-values of each scorer and metric over its tasks, and name the better model or a tie."""
    judged = list(rows)
    families = {(row.scorer, row.metric) for row in rows}
    for family in sorted(families):
        places = [n for n, row in enumerate(rows) if (row.scorer, row.metric) == family and row.p_value is not None]
        for place, p_holm in zip(places, holm([rows[n].p_value or 0.0 for n in places]), strict=True):
            row = rows[place]
            gain = (row.difference or 0.0) * (-1.0 if is_better_low(row.metric) else 1.0)
            better = (second if gain > 0 else first) if p_holm < LEVEL and gain else TIED
            judged[place] = replace(row, p_holm=p_holm, better=better)
    return judged


def _name(run: FinishedRun, beside: FinishedRun) -> str:
    """The model; with its run's folder where both runs are of one model."""
    name = model_text(run.record)
    return name if name != model_text(beside.record) else f"{name} ({run.folder.name})"


# --- showing ---------------------------------------------------------------------------------------------------------


_HEADER = (
    *("task", "scorer", "metric", "n", "flips", "right in one alone"),
    *("first %", "second %", "difference [95 %]", "p", "p (Holm)", "better"),
)


def comparison_table(report: ComparisonReport) -> Table:
    """One row a comparison."""
    return Table(_HEADER, tuple(_cells(row) for row in report.comparisons))


def comparison_lines(report: ComparisonReport) -> list[str]:
    """What was paired and how it was tested."""
    tests = sorted({f"{row.metric}: {row.test}" for row in report.comparisons if row.test})
    lines = [f"First: {report.first}. Second: {report.second}. Difference: second minus first."]
    lines += [f"Test of {'; of '.join(tests)}. Holm over the tasks of a scorer; tied where p (Holm) >= {LEVEL}."]
    lines += ["Flips: items that came out another way, right or wrong. Right in one alone: the first : the second."]
    missing = [f"{row.metric} is not available: {row.unavailable}" for row in report.comparisons if row.unavailable]
    folders = [f"Paired: {one} and {other}" for one, other in report.folders]
    return [*(lines if tests else lines[:1]), *dict.fromkeys([*missing, *report.remarks]), *folders]


def _cells(row: Comparison) -> tuple[str, ...]:
    alone = "-" if row.n_first_only is None else f"{row.n_first_only} : {row.n_second_only}"
    flips = "-" if row.n_flipped is None else str(row.n_flipped)
    start = (row.task, row.scorer, row.metric, str(row.n_items), flips, alone)
    if row.first is None or row.second is None or row.interval is None or row.difference is None:
        return (*start, NOT_AVAILABLE, NOT_AVAILABLE, "-", "-", "-", "-")
    return (
        *start,
        f"{row.first * 100:.1f}",
        f"{row.second * 100:.1f}",
        f"{row.difference * 100:+.1f} [{row.interval.low * 100:+.1f}, {row.interval.high * 100:+.1f}]",
        f"{row.p_value:.3g}",
        f"{row.p_holm:.3g}",
        row.better,
    )
