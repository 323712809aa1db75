"""Scores of a run, computed from what lies in its folder and never from memory or from a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ValidationError

from harness.contracts import Label, OptionValue, Scored, Scorer
from harness.errors import HarnessError, PluginError, RecordError, UsageError
from harness.measuring import BoundMetric
from harness.record_files import to_json, write_atomically
from harness.records import (
    ControlsRecord,
    LabelRow,
    Prediction,
    RunRecord,
    ScoreFile,
    ScoreRow,
    load_predictions,
    load_record,
    load_score_file,
    predictions_sha256,
    was_cut,
)
from harness.registry import create, names
from harness.scoring import VERBATIM, ScoringInput, Verbatim, decide_items, score_items


@dataclass(frozen=True)
class RunFacts:
    """What the score of a run depends on beside its answers.

    `length_policy` is the model's own, which may name a cut: clips that were cut just so are answered ones.
    `learned_from` holds the ids of items that the model may have heard in training. `n_trials` is how many captions of
    each clip were asked for: the score is the mean over them.
    """

    length_policy: str = ""
    learned_from: frozenset[str] = frozenset()
    n_trials: int = 1


def run_facts(record: RunRecord | ControlsRecord) -> RunFacts:
    """The facts that a record holds."""
    flagged = frozenset(record.leakage.flagged) if record.leakage is not None else frozenset[str]()
    return RunFacts(record.model.length_policy, flagged, n_trials(record.task.kind, record.task.options_resolved))


def n_trials(task_kind: str, task_options: Mapping[str, OptionValue]) -> int:
    """How often each clip of a task is asked: the option `captions` of the captioning tasks."""
    asked = task_options.get("captions", 1)
    return asked if task_kind == "captioning" and isinstance(asked, int) else 1


def score_run(
    folder: Path, scorers: Sequence[str], metrics: Sequence[str] = (), overwrite: bool = False
) -> tuple[RunRecord, list[ScoreRow]]:
    """Score a finished run and write `scores-<scorer>.json` beside its predictions.

    Args:
        folder: a run's folder.
        scorers: their names.
        metrics: their names; the task's own when empty.
        overwrite: replace a score of the same scorer and metric that differs from the new one.

    Raises:
        RecordError: the run is damaged, or has no record.
        UsageError: the run is not finished, lacks what a scorer needs, or has another score of that name already; or a
            scorer or a metric is not for tasks of its kind.
    """
    record = load_finished(folder)
    predictions = load_predictions(folder)
    rows: list[ScoreRow] = []
    for metric in metrics:
        check_metric_fits(metric, record.task.kind)
    for scorer in scorers:
        check_scorer_fits(scorer, record.task.kind)
        wanted = metrics or record.task.metrics
        new = compute_scores(predictions, record.task.labels, scorer, wanted, run_facts(record))
        _write_scores(folder, record, new, overwrite)
        rows += new
    return record, rows


def compute_scores(
    predictions: Sequence[Prediction],
    labels: Sequence[LabelRow],
    scorer_name: str,
    metric_names: Sequence[str],
    facts: RunFacts | None = None,
) -> list[ScoreRow]:
    """One row a metric.

    Args:
        predictions: of a run.
        labels: of its task.
        scorer_name: with options in brackets where it has some.
        metric_names: what is computed.
        facts: of the run; None for a model that names no cut and learned from none of the items.

    Raises:
        UsageError: the scorer needs label scores that the run did not record.
        PluginError: the scorer or the metric gave something that cannot be recorded.
    """
    facts = facts or RunFacts()
    scorer = make_scorer(scorer_name)
    inputs = _scoring_inputs(predictions, scorer, scorer_name, facts)
    named = [Label(row.name, row.text) for row in labels]
    return [_score_row(inputs, named, scorer, metric, facts) for metric in metric_names]


def decided_items(
    predictions: Sequence[Prediction], labels: Sequence[LabelRow], scorer_name: str, facts: RunFacts | None = None
) -> tuple[Scorer, list[Scored]]:
    """The scorer, and each item with what it made of the answer.

    Raises:
        UsageError, PluginError: as in `compute_scores`.
    """
    scorer = make_scorer(scorer_name)
    inputs = _scoring_inputs(predictions, scorer, scorer_name, facts or RunFacts())
    return scorer, decide_items(inputs, [Label(row.name, row.text) for row in labels], scorer)


def make_scorer(text: str) -> Scorer:
    """The scorer of a name, with options behind it in brackets where there are some: "ltu[cut=audio_caption]".

    Options are parted by semicolons. "verbatim" is the one that decides nothing.

    Raises:
        UsageError: there is no such scorer or option, or the text is not of that form.
    """
    if text == VERBATIM:
        return Verbatim()
    name, bracket, rest = text.partition("[")
    if bracket and not rest.endswith("]"):
        raise UsageError(f"'{text}' is not a scorer: write NAME or NAME[KEY=VALUE;KEY=VALUE].")
    pairs = [pair.partition("=") for pair in rest.removesuffix("]").split(";") if pair]
    wrong = ["".join(pair) for pair in pairs if not pair[1]]
    if wrong:
        raise UsageError(f"'{wrong[0]}' in the scorer '{text}' is not KEY=VALUE.")
    scorer: Scorer = create("scorers", name, {key.strip(): value for key, _, value in pairs}).value
    return scorer


def check_scorer_fits(scorer_name: str, task_kind: str) -> None:
    """Refuse a scorer of labels for a task without labels, and the other way round.

    Raises:
        UsageError: they do not fit.
    """
    if (scorer_name == VERBATIM) == (task_kind != "classification"):
        return
    if scorer_name == VERBATIM:
        raise UsageError("The scorer 'verbatim' makes no labels, and a classification task needs them.")
    raise UsageError(f"A {task_kind} task has no labels for '{scorer_name}' to find: its scorer is 'verbatim'.")


def check_metric_fits(metric_name: str, task_kind: str) -> None:
    """Refuse a metric that would give a number without a meaning, such as word errors of labels.

    Raises:
        UsageError: it does not fit; the message names those that do.
    """
    kinds = _kinds_of(metric_name)
    if kinds is None or task_kind in kinds:
        return
    fitting = [name for name in names("metrics") if _is_for(name, task_kind)]
    raise UsageError(
        f"The metric '{metric_name}' is for {' and '.join(kinds)} tasks, and this is a {task_kind} task. "
        f"Metrics that fit: {', '.join(fitting)}."
    )


def _kinds_of(metric_name: str) -> tuple[str, ...] | None:
    return BoundMetric(metric_name, (), create("metrics", metric_name).value).kinds()


def _is_for(metric_name: str, task_kind: str) -> bool:
    """Whether the metric says that it is; a plugin that cannot be imported is no metric to advise."""
    try:
        return task_kind in (_kinds_of(metric_name) or ())
    except HarnessError:
        return False


def stored_scores(folder: Path, record: RunRecord) -> dict[tuple[str, str], ScoreRow]:
    """Every score of a run by scorer and metric; one that was computed later stands for that of the record.

    Raises:
        RecordError: a score file is damaged, or belongs to other predictions.
    """
    rows = list(record.scores)
    for path in sorted(folder.glob("scores-*.json")):
        rows += _load_scores(path, folder, record)
    return {(row.scorer, row.metric): row for row in rows}


def load_finished(folder: Path) -> RunRecord:
    """Read the record of a finished run, and check that its predictions are those it was written for.

    Raises:
        RecordError: there is no record, or the predictions changed since.
        UsageError: there is no such folder, or the run is not finished.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.")
    record = load_record(folder)
    if record is None:
        raise RecordError(f"{folder} holds no record.json: it is not a run's folder.")
    if not record.is_complete:
        raise UsageError(f"The run in {folder} is not finished. Give its `run` command again to continue it.")
    if predictions_sha256(folder) != record.predictions_sha256:
        raise RecordError(f"{folder}: predictions.jsonl was changed after the run; its scores cannot be trusted.")
    return record


def counts_as_answered(prediction: Prediction, length_policy: str = "") -> bool:
    """Whether a scorer gets to see an item: an answer to a part of a clip is no answer to the clip.

    Unless the model's length policy names that cut, as LTU's does: then the cut is part of what is measured.
    """
    return prediction.status == "ok" or was_cut(prediction, length_policy)


def _scoring_inputs(
    predictions: Sequence[Prediction], scorer: Scorer, scorer_name: str, facts: RunFacts
) -> list[ScoringInput]:
    inputs = [_scoring_input(prediction, facts.length_policy) for prediction in predictions]
    if scorer.needs_label_scores and any(item.answered and item.label_scores is None for item in inputs):
        raise UsageError(
            f"The scorer '{scorer_name}' needs label scores, and this run did not record them. "
            f"Run the model with --scorer {scorer_name}."
        )
    return inputs


def _scoring_input(prediction: Prediction, length_policy: str) -> ScoringInput:
    answered = counts_as_answered(prediction, length_policy)
    return ScoringInput(
        item_id=prediction.item_id,
        references=prediction.references,
        cluster=prediction.cluster,
        answered=answered,
        text=prediction.text if answered else "",
        label_scores=prediction.label_scores if answered else None,
    )


def _score_row(
    inputs: Sequence[ScoringInput], labels: Sequence[Label], scorer: Scorer, metric_name: str, facts: RunFacts
) -> ScoreRow:
    metric = create("metrics", metric_name).value
    report = score_items(
        inputs, labels, scorer, metric_name, metric, learned_from=facts.learned_from, n_trials=facts.n_trials
    )
    try:
        return ScoreRow.model_validate(asdict(report))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PluginError(
            f"Metric '{metric_name}' by scorer '{scorer.name}' cannot be recorded: {where}: {first['msg']}."
        ) from error


def told_as(old: ScoreRow, new: ScoreRow) -> ScoreRow:
    """`new` without what an older record of the same score could not hold: the items' own values."""
    return new if old.item_values is not None else new.model_copy(update={"item_values": None})


def _load_scores(path: Path, folder: Path, record: RunRecord) -> tuple[ScoreRow, ...]:
    stored = load_score_file(path)
    if stored is None:
        return ()
    if stored.run_id != record.run_id or stored.predictions_sha256 != predictions_sha256(folder):
        raise RecordError(f"{path} was computed from other predictions than those beside it.")
    return stored.scores


def _write_scores(folder: Path, record: RunRecord, rows: Sequence[ScoreRow], overwrite: bool) -> None:
    """Put the rows into the scorer's file, beside rows of other metrics."""
    # A scorer's options are part of its name, and may hold what a file's name cannot.
    name = re.sub(r"[^\w.=-]+", "_", rows[0].scorer)
    path = folder / f"scores-{name}.json"
    old = list(_load_scores(path, folder, record))
    # What was not available says nothing that another value could contradict.
    valued = [row for row in old if row.unavailable is None]
    differing = [row for row in valued if any(row.metric == new.metric and row != told_as(row, new) for new in rows)]
    if differing and not overwrite:
        raise UsageError(
            f"{path} holds another {differing[0].metric} ({differing[0].value:.4f}, "
            f"version {differing[0].scorer_version} of the scorer). Replace it with --overwrite."
        )
    metrics = {row.metric for row in rows}
    kept = [row for row in old if row.metric not in metrics]
    if old and not differing and all(row in old for row in rows):
        return
    content = ScoreFile(
        run_id=record.run_id,
        predictions_sha256=predictions_sha256(folder),
        scores=tuple(sorted([*kept, *rows], key=lambda row: row.metric)),
    )
    write_atomically(path, to_json(content))
