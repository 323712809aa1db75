"""`controls`: is the audio used, and all of it? The same questions about clips that were taken away or spoilt.

A model that does as well without the audio did not need it. Each condition asks every item of the task: as it is; with
silence, noise of the clip's own level, the audio of another clip of other labels, or its own audio backwards in its
place; with next to no audio; and with its last second silenced. "Audio gain" is the metric on the real clips minus the
best of the controls; the controls do not include the last condition, which tells whether the end of a clip is heard.

Each condition's answers lie in a folder of its own and are continued like those of a run. Complete controls are not
asked again: a scorer that they lack is computed from the answers and added to the record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from harness.answering import answer_batch
from harness.config import RunConfig
from harness.contracts import AudioClip, AudioItem, Scored
from harness.control_sources import CONDITIONS, CONTROLS, control_items, nothing_heard
from harness.environment import describe_environment, peak_rss_bytes
from harness.errors import MetricUnavailable, RecordError
from harness.hashing import canonical_sha256
from harness.hearing import HeardItem
from harness.measuring import BoundMetric
from harness.plan import Plan, make_plan
from harness.progress import say_on_stderr
from harness.promises import described
from harness.record_files import cut_torn_line, to_json, write_atomically
from harness.records import (
    CONTROLS_FILE,
    PREDICTIONS_FILE,
    ConditionRow,
    ControlsRecord,
    GainRow,
    IntervalRow,
    Prediction,
    ScoreRow,
    SensitivityRow,
    count_outcomes,
    load_controls,
    load_predictions,
    predictions_sha256,
)
from harness.registry import create
from harness.run_folder import ID_LENGTH, create_run, locked, newest_run, utc_now
from harness.run_record import label_rows, model_row, plan_fields
from harness.runner import answer_missing, load_planned
from harness.scorers._best import unique_best
from harness.scores import compute_scores, decided_items, make_scorer
from harness.scoring import gives_scores, is_better_low
from harness.statistics import Interval, bootstrap_mean_interval, compare_paired
from harness.tables import Table, no_width_lines, score_text, truncated_text

# Rises when a condition would sound different.
VERSION = 1
_Named = TypeVar("_Named", ScoreRow, GainRow)
# Seconds of silence that are tried in turn: the first that the model answers is "no audio".
_SHORTEST_S = (1e-9, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.24)


@dataclass(frozen=True)
class ControlsOutcome:
    """What the controls came to."""

    folder: Path
    record: ControlsRecord
    was_complete: bool


def run_controls(
    config: RunConfig, command: Sequence[str] = (), say: Callable[[str], None] | None = None
) -> ControlsOutcome:
    """Carry out a `controls` command.

    Args:
        config: as for a run.
        command: the words of the command line, for the record.
        say: takes lines for the user; they go to standard error when None.

    Raises:
        HarnessError: nothing was computed, or a plugin broke its contract on the way.
        KeyboardInterrupt: the user interrupted; what was answered so far is on disk.
    """
    say = say or say_on_stderr
    plan = make_plan(config, say)
    identity = _identity(plan, plan.wants_label_scores)
    run_id = canonical_sha256(identity)[:ID_LENGTH]
    place = config.results / "controls" / plan.folder.relative_to(config.results / "runs")
    with locked(place, run_id):
        finished = None if config.fresh else _find_finished(plan, place)
        if finished is not None:
            folder, record = finished
            say(f"These controls are complete since {record.ended_utc}: the model is not asked again (--fresh does).")
            return ControlsOutcome(folder, _with_lacking_scores(plan, folder, record), was_complete=True)
        unfinished = None if config.fresh else newest_run(place, run_id)
        work = _Work(plan, identity, run_id, tuple(command), unfinished or create_run(place, run_id))
        return ControlsOutcome(work.folder, work.carry_out(say), was_complete=False)


@dataclass(frozen=True)
class _Work:
    """One session's work on the controls in one folder."""

    plan: Plan
    identity: dict[str, Any]
    run_id: str
    command: tuple[str, ...]
    folder: Path

    def carry_out(self, say: Callable[[str], None]) -> ControlsRecord:
        """Answer every condition, score, and write the record."""
        started_utc, started = utc_now(), time.perf_counter()
        load_planned(self.plan)
        try:
            nothing_s = shortest_answered_s(self.plan)
            conditions, notes = control_items(self.plan.items, self.plan.config.seed, nothing_s)
            for name, items in conditions.items():
                say(f"{name}: {CONDITIONS[name]}")
                self._answer(name, items)
            model = model_row(self.plan, described(self.plan.adapter, self.plan.model.name))
        finally:
            self.plan.adapter.close()
        predictions = {name: load_predictions(self.folder / name) for name in conditions}
        record = ControlsRecord(
            **_fields(self.plan, self.identity, self.run_id),
            is_complete=True,
            command=self.command,
            model=model,
            environment=describe_environment(self.plan.device),
            started_utc=started_utc,
            ended_utc=utc_now(),
            wall_s=time.perf_counter() - started,
            peak_rss_bytes=peak_rss_bytes(),
            notes=(nothing_heard(nothing_s), *notes),
            conditions=tuple(self._condition(name, rows) for name, rows in predictions.items()),
            gains=tuple(_gains(self.plan, predictions, self.plan.scorers)),
            sensitivity=sensitivity(predictions["real"], predictions["last_second_silenced"]),
        )
        write_atomically(self.folder / CONTROLS_FILE, to_json(record))
        return record

    def _answer(self, name: str, items: Sequence[AudioItem]) -> None:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        cut_torn_line(folder / PREDICTIONS_FILE)
        done = load_predictions(folder)
        if [row.item_id for row in done] != [item.item_id for item in items[: len(done)]]:
            raise RecordError(f"{folder / PREDICTIONS_FILE} does not begin with these items in order. Use --fresh.")
        identities = tuple(item.source.identity() for item in items)
        if len(done) < len(items):
            answer_missing(replace(self.plan, items=tuple(items), identities=identities), folder, len(done), name)

    def _condition(self, name: str, predictions: Sequence[Prediction]) -> ConditionRow:
        return ConditionRow(
            name=name,
            summary=CONDITIONS[name],
            predictions_sha256=predictions_sha256(self.folder / name),
            counts=count_outcomes(predictions, self.plan.description.length_policy),
            scores=tuple(_scores(self.plan, predictions, self.plan.scorers)),
        )


# --- controls that are there already ----------------------------------------------------------------------------------


def _identity(plan: Plan, wants_label_scores: bool) -> dict[str, Any]:
    return plan.identity(wants_label_scores) | {"controls_version": VERSION, "conditions": list(CONDITIONS)}


def _find_finished(plan: Plan, place: Path) -> tuple[Path, ControlsRecord] | None:
    """Complete controls with these answers; such as also recorded label scores serve a scorer that needs none."""
    for wants in dict.fromkeys((plan.wants_label_scores, True)):
        folder = newest_run(place, canonical_sha256(_identity(plan, wants))[:ID_LENGTH])
        record = None if folder is None else load_controls(folder)
        if folder is not None and record is not None and record.is_complete:
            _check_unchanged(folder, record)
            return folder, record
    return None


def _with_lacking_scores(plan: Plan, folder: Path, record: ControlsRecord) -> ControlsRecord:
    """The record with the scores that it lacks, or that were not available, computed from the answers on disk."""
    texts = [text for text in plan.scorers if _lacks(record, make_scorer(text).name, plan.benchmark.metrics[0])]
    if not texts:
        return record
    predictions = {row.name: load_predictions(folder / row.name) for row in record.conditions}
    conditions = [
        row.model_copy(update={"scores": _merged(row.scores, _scores(plan, predictions[row.name], texts))})
        for row in record.conditions
    ]
    gains = _merged(record.gains, _gains(plan, predictions, texts))
    record = record.model_copy(update={"conditions": tuple(conditions), "gains": gains})
    write_atomically(folder / CONTROLS_FILE, to_json(record))
    return record


def _lacks(record: ControlsRecord, scorer: str, metric: str) -> bool:
    """Whether a condition, or the gain, has no value of that scorer and metric."""
    rows: list[Sequence[ScoreRow | GainRow]] = [*(each.scores for each in record.conditions), record.gains]
    return not all(
        any((row.scorer, row.metric, row.unavailable) == (scorer, metric, None) for row in each) for each in rows
    )


def _merged(old: Sequence[_Named], new: Sequence[_Named]) -> tuple[_Named, ...]:
    """Each scorer and metric once, in the old order; a new row stands for the old one."""
    rows = {(row.scorer, row.metric): row for row in old} | {(row.scorer, row.metric): row for row in new}
    return tuple(rows.values())


def _scores(plan: Plan, predictions: Sequence[Prediction], scorers: Sequence[str]) -> list[ScoreRow]:
    labels, metrics = label_rows(plan.benchmark), plan.benchmark.metrics[:1]
    return [row for scorer in scorers for row in compute_scores(predictions, labels, scorer, metrics, plan.run_facts)]


def _gains(plan: Plan, predictions: Mapping[str, Sequence[Prediction]], scorers: Sequence[str]) -> list[GainRow]:
    labels, metric = label_rows(plan.benchmark), plan.benchmark.metrics[0]
    function, names = create("metrics", metric).value, tuple(label.name for label in labels)
    rows = []
    for text in scorers:
        decided = {name: decided_items(predictions[name], labels, text, plan.run_facts) for name in ("real", *CONTROLS)}
        scorer = decided["real"][0]
        bound = BoundMetric(metric, names, function, gives_scores(scorer), plan.run_facts.n_trials)
        rows.append(audio_gain(scorer.name, bound, {name: items for name, (_, items) in decided.items()}))
    return rows


# --- measuring -------------------------------------------------------------------------------------------------------


def audio_gain(scorer: str, metric: BoundMetric, scored: dict[str, list[Scored]]) -> GainRow:
    """How much better the real clips do than the best control, with a paired interval.

    The best control is chosen on the same clips, which makes the gain a little too small rather than too large.

    Args:
        scorer: its name, for the row.
        metric: what is compared.
        scored: the items of "real" and of each control, in the same order.
    """
    sign = -1.0 if is_better_low(metric.name) else 1.0
    try:
        values = {name: metric.value(items) for name, items in scored.items()}
        best = max(CONTROLS, key=lambda name: sign * values[name])
        paired = compare_paired(
            metric.resampled(scored[best], values[best]),
            metric.resampled(scored["real"], values["real"]),
            [item.cluster for item in scored["real"]],
        )
    except MetricUnavailable as error:
        return _no_gain(scorer, metric.name, str(error))
    return GainRow(
        scorer=scorer,
        metric=metric.name,
        real=values["real"],
        best_control=best,
        control=values[best],
        gain=sign * (values["real"] - values[best]),
        interval=_interval_row(paired.interval, sign),
    )


def sensitivity(real: Sequence[Prediction], silenced: Sequence[Prediction]) -> SensitivityRow:
    """Share of clips whose answer changes when their last second is silenced, with the bootstrap's interval.

    Clips that failed in either condition are left out. An answer is its text and the label that it scores highest;
    scores alone move with every sample.
    """
    pairs = [(a, b) for a, b in zip(real, silenced, strict=True) if "failed" not in (a.status, b.status)]
    changed = [float(_answer_of(a) != _answer_of(b)) for a, b in pairs]
    interval = bootstrap_mean_interval(changed, [a.cluster for a, _ in pairs]) if pairs else None
    return SensitivityRow(
        n_items=len(pairs),
        n_changed=int(sum(changed)),
        n_shorter_than_a_second=sum((a.duration_s or 0.0) < 1.0 for a, _ in pairs),
        share=sum(changed) / len(pairs) if pairs else None,
        interval=None if interval is None else _interval_row(interval, 1.0),
    )


def _answer_of(prediction: Prediction) -> tuple[str, int | None]:
    return prediction.text, unique_best(prediction.label_scores or ())


def shortest_answered_s(plan: Plan) -> float:
    """Seconds of the shortest silence that the loaded model answers: as near to no audio as it lets one come.

    Raises:
        RecordError: it answers none of those that are tried.
    """
    import numpy as np

    rate_hz = plan.description.sample_rate_hz
    for seconds in _SHORTEST_S:
        n_samples = max(1, round(seconds * rate_hz))
        clip = AudioClip(np.zeros(n_samples, dtype=np.float32), rate_hz, rate_hz, 1, n_samples)
        heard = HeardItem(replace(plan.items[0], item_id="shortest"), "silence", clip, 0.0)
        if answer_batch(plan.adapter, [heard], plan.question, 0, plan.config.seed)[0].status != "failed":
            return n_samples / rate_hz
    raise RecordError(f"'{plan.model.name}' answers no silence of up to {_SHORTEST_S[-1]} s: there is no control.")


def _interval_row(interval: Interval, sign: float) -> IntervalRow:
    low, high = sorted((sign * interval.low, sign * interval.high))
    return IntervalRow(
        low=low,
        high=high,
        confidence=interval.confidence,
        n_resamples=interval.n_resamples,
        n_clusters=interval.n_clusters,
        seed=interval.seed,
        method=interval.method,
    )


def _no_gain(scorer: str, metric: str, reason: str) -> GainRow:
    return GainRow(
        scorer=scorer,
        metric=metric,
        real=None,
        best_control=None,
        control=None,
        gain=None,
        interval=None,
        unavailable=reason,
    )


def _fields(plan: Plan, identity: dict[str, Any], run_id: str) -> dict[str, Any]:
    return plan_fields(plan) | {
        "run_id": run_id,
        "identity": identity,
        "identity_sha256": canonical_sha256(identity),
    }


def _check_unchanged(folder: Path, record: ControlsRecord) -> None:
    for row in record.conditions:
        if predictions_sha256(folder / row.name) != row.predictions_sha256:
            raise RecordError(f"{folder / row.name}: predictions.jsonl was changed since. Use --fresh.")


# --- showing ---------------------------------------------------------------------------------------------------------


def controls_table(record: ControlsRecord) -> Table:
    """One row a condition and scorer."""
    header = ("condition", "scorer", "metric", "n", "score % [95 %]", "answered", "failed", "trunc.")
    rows = [
        (
            condition.name,
            row.scorer,
            row.metric,
            str(row.n_items),
            score_text(row),
            str(row.n_answered),
            str(condition.counts.n_failed),
            truncated_text(condition.counts),
        )
        for condition in record.conditions
        for row in condition.scores
    ]
    return Table(header, tuple(rows))


def controls_lines(record: ControlsRecord, folder: Path) -> list[str]:
    """Audio gain, sensitivity to the last second, and what the conditions were."""
    lines = [_gain_text(row) for row in record.gains]
    lines += no_width_lines([row.interval for row in record.gains if row.interval is not None])
    found = record.sensitivity
    if found is not None and found.share is not None and found.interval is not None:
        lines.append(
            f"Sensitivity to the last second: {found.share * 100:.1f} % of {found.n_items} answers change when it is "
            f"silenced [{found.interval.low * 100:.1f}, {found.interval.high * 100:.1f}]; "
            f"{found.n_shorter_than_a_second} clips are shorter than a second."
        )
    return [*lines, *_failure_lines(record), *record.notes, f"Record: {folder}"]


def n_failed(record: ControlsRecord) -> int:
    """Items that failed, over all conditions."""
    return sum(condition.counts.n_failed for condition in record.conditions)


def _failure_lines(record: ControlsRecord) -> list[str]:
    """Failures of a control make the gain larger than hearing does, so they are never left unsaid."""
    return [
        f"{condition.name}: {condition.counts.n_failed} of {condition.counts.n_items} items failed and count as wrong "
        f"({', '.join(f'{count} x {kind}' for kind, count in condition.counts.failures.items())})."
        for condition in record.conditions
        if condition.counts.n_failed
    ]


def _gain_text(row: GainRow) -> str:
    if row.gain is None or row.interval is None or row.real is None or row.control is None:
        return f"Audio gain ({row.metric}, {row.scorer}) is not available: {row.unavailable}"
    return (
        f"Audio gain ({row.metric}, {row.scorer}): {row.gain * 100:+.1f} points "
        f"[{row.interval.low * 100:+.1f}, {row.interval.high * 100:+.1f}]: {row.real * 100:.1f} % with the clips, "
        f"{row.control * 100:.1f} % with the best control, {row.best_control}."
    )
