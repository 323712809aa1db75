"""The two files of a run: `predictions.jsonl`, one line an item, and `record.json`, all that makes it repeatable.

Both have a version and a JSON schema in `harness/schema/`; write the schemas anew with `python -m harness.records`.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from harness.contracts import DataOrigin, OptionValue
from harness.environment import Environment
from harness.errors import RecordError
from harness.length_policies import is_named_cut
from harness.record_files import (
    Row,
    find_record,
    read_bytes,
    read_rows,
    sync_folder,
    to_json,
    to_line,
    write_atomically,
)
from harness.schema_files import texts_of, write_texts

SCHEMA_VERSION: Final = 1
RECORD_FILE = "record.json"
PREDICTIONS_FILE = "predictions.jsonl"
CONTROLS_FILE = "controls.json"

Status = Literal["ok", "truncated", "failed"]
SessionOutcome = Literal["running", "complete", "interrupted", "stopped", "killed"]


class Prediction(Row):
    """What came of one item: a line of `predictions.jsonl`.

    `status` is "truncated" when fewer frames reached the encoder than the clip has, "failed" when there is no answer;
    then `error_type` and `error` say why. `audio_identity` is the audio source's own identity. `load_s` is the time to
    decode this clip; of a long one that reached the model unread, all readings together, what the harness read after
    the answer included. `answer_s` is the time of its batch, less what reading took, divided by the clips in it.
    `metadata` is the item's own.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    item_id: str
    cluster: str
    references: tuple[str, ...]
    status: Status
    error_type: str | None = None
    error: str | None = None
    text: str = ""
    label_scores: tuple[float, ...] | None = None
    n_audio_tokens: NonNegativeInt = 0
    n_prompt_tokens: NonNegativeInt = 0
    n_answer_tokens: NonNegativeInt = 0
    stopped: Literal["end", "length"] | None = None
    frames_total: NonNegativeInt = 0
    frames_heard: NonNegativeInt = 0
    duration_s: NonNegativeFloat | None = None
    source_rate_hz: int | None = None
    source_channels: int | None = None
    notes: tuple[str, ...] = ()
    audio_identity: str
    prompt_sha256: str
    load_s: NonNegativeFloat = 0.0
    answer_s: NonNegativeFloat = 0.0
    batch_index: NonNegativeInt
    # Absent from lines of before it was told.
    metadata: dict[str, OptionValue] = Field(default_factory=dict)


class LabelRow(Row):
    """One class of the task."""

    name: str
    text: str


class TaskRow(Row):
    """The benchmark that was asked.

    `options_changed` are those that differ from their defaults. `root` is the name of the data's folder. `n_found`
    counts the items in it, `n_declared` those of the full set.
    """

    name: str
    version: int
    kind: str
    options_passed: dict[str, OptionValue]
    options_resolved: dict[str, OptionValue]
    options_changed: dict[str, OptionValue]
    plugin: str | None
    origin: DataOrigin
    root: str
    n_found: int
    n_declared: int
    item_set_sha256: str
    labels: tuple[LabelRow, ...]
    metrics: tuple[str, ...]
    licence: str


class ModelRow(Row):
    """The model that answered: its own description, and the options that made it."""

    name: str
    variant: str
    summary: str
    options_passed: dict[str, OptionValue]
    options_resolved: dict[str, OptionValue]
    plugin: str | None
    parameters: dict[str, int]
    sample_rate_hz: int
    audio_tokens_per_s: float | None
    length_policy: str
    weights_sha256: str | None
    generation: dict[str, OptionValue]
    kernels: dict[str, str]
    fingerprint: str
    can_score_labels: bool
    needs_labels: bool
    trained_on: str
    max_audio_s: float | None
    # Absent from records of before it was told.
    trainable_parameters: dict[str, int] = Field(default_factory=dict)


class PromptRow(Row):
    """The question that every clip was asked. `is_default` tells whether it is the task's first."""

    name: str
    is_default: bool
    text: str
    sha256: str


class IntervalRow(Row):
    """The interval of a score.

    `method` is "cluster bootstrap, percentile"; the same "less its bias" for metrics whose resamples have another mean;
    or "exact, all alike" without resamples.
    """

    low: float
    high: float
    confidence: float
    n_resamples: int
    n_clusters: int
    seed: int
    method: str


class ClassRow(Row):
    """How one class fared."""

    label: str
    n: int
    n_right: int


class ScoreRow(Row):
    """One metric by one scorer over every item; failed, unparsed and truncated items count as wrong in `value`.

    `n_answered` items reached the scorer; `n_failed` is the rest, truncated items among them; `n_unparsed` of the
    answered ones name no label.
    `answered_only` is the same metric over the answered items, None when there is none. `confusion` maps reference
    to decided label to count, with "(unparsed)" and "(failed)" among the decided labels. A metric that could not be
    computed here, such as one that needs Java, has neither value nor interval, and `unavailable` says why. `notes` are
    what a reader must know of the value, such as classes that were left out. `clean` is the metric over the `n_clean`
    items whose recording the model did not learn from, as far as that is known; both are None where it heard none.
    `item_values` maps an item's id to its own value, of a metric over texts that is the mean of its items' values.
    """

    scorer: str
    scorer_version: int
    metric: str
    value: float | None
    interval: IntervalRow | None
    answered_only: float | None
    n_items: int
    n_answered: int
    n_failed: int
    n_unparsed: int
    per_class: tuple[ClassRow, ...]
    confusion: dict[str, dict[str, int]]
    # Absent from records of before these were told.
    unavailable: str | None = None
    notes: tuple[str, ...] = ()
    clean: float | None = None
    n_clean: int | None = None
    item_values: dict[str, float] | None = None

    @model_validator(mode="after")
    def _value_or_reason(self) -> ScoreRow:
        is_there = self.value is not None and self.interval is not None
        if is_there == (self.unavailable is not None):
            raise ValueError("a score has a value with its interval, or says why it is unavailable")
        return self


class Counts(Row):
    """How many items came to what; `failures` counts failed items by error type, `notes` what was said of clips.

    Of the clips that were heard in part, `n_cut` were cut as the model's length policy says in its name, and count as
    answered; `n_truncated` are the others. The frames are sums over all answered clips. `n_answers_cut` answers reached
    the model's limit of tokens before their end; they are scored as they are. It is None where nobody counted them.
    """

    n_items: int
    n_ok: int
    n_truncated: int
    n_failed: int
    failures: dict[str, int]
    notes: dict[str, int]
    # Absent from records of before these were told.
    n_cut: int = 0
    frames_total: int = 0
    frames_heard: int = 0
    n_answers_cut: int | None = None


class Session(Row):
    """One command that worked on the run. A killed session's end is the time of its last written line.

    Of `n_processes` that shared the work, seconds and memory are those of the main one.
    """

    started_utc: str
    ended_utc: str | None = None
    outcome: SessionOutcome
    wall_s: NonNegativeFloat = 0.0
    model_load_s: NonNegativeFloat = 0.0
    n_items: NonNegativeInt = 0
    peak_rss_bytes: NonNegativeInt = 0
    # Absent from records of before it was told.
    n_processes: PositiveInt = 1


class Times(Row):
    """Seconds, summed over sessions. Clips are decoded beside the answering, so the parts may exceed the wall time."""

    wall_s: NonNegativeFloat
    model_load_s: NonNegativeFloat
    audio_load_s: NonNegativeFloat
    answer_s: NonNegativeFloat


class LeakageRow(Row):
    """Which of the asked items a model may have heard in training, by what it says of itself.

    `flagged` maps an item's id to the training set that holds it, or another clip of its recording. `unchecked` names
    what the model learned from and nothing here could be compared with.
    """

    learned_from: tuple[str, ...]
    flagged: dict[str, str]
    unchecked: tuple[str, ...]


class _Conditions(Row):
    """What ran, on what and how: the same for every record of a model that answered a task."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: str
    is_complete: bool
    command: tuple[str, ...]
    config_passed: dict[str, Any]
    config_resolved: dict[str, Any]
    identity: dict[str, Any]
    identity_sha256: str
    task: TaskRow
    model: ModelRow
    prompt: PromptRow
    code_fingerprint: str
    environment: Environment
    device: str
    dtype: str
    threads: int
    batch_size: int
    seeds: dict[str, int]
    # Absent from records of before these were told.
    protocol: str | None = None
    leakage: LeakageRow | None = None


class RunRecord(_Conditions):
    """Everything needed to repeat and to trust a run: `record.json`.

    `identity` holds what decides the predictions; `run_id` is the start of its SHA-256. `is_complete` tells a finished
    run from one that can be continued; only a finished one has `predictions_sha256` and scores.
    """

    sessions: tuple[Session, ...]
    times: Times
    peak_rss_bytes: NonNegativeInt
    counts: Counts
    predictions_sha256: str | None
    scores: tuple[ScoreRow, ...]


class ScoreFile(Row):
    """Scores that were computed after the run: `scores-<scorer>.json`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: str
    predictions_sha256: str
    scores: tuple[ScoreRow, ...] = Field(min_length=1)


class ConditionRow(Row):
    """The clips of a task in one condition, such as "silence", and how the model did on them."""

    name: str
    summary: str
    predictions_sha256: str
    counts: Counts
    scores: tuple[ScoreRow, ...]


class GainRow(Row):
    """What hearing the audio is worth: the metric on the real clips against the best of the controls.

    `gain` is how much better the real clips do, with the interval of a paired bootstrap over the same items.
    """

    scorer: str
    metric: str
    real: float | None
    best_control: str | None
    control: float | None
    gain: float | None
    interval: IntervalRow | None
    unavailable: str | None = None


class SensitivityRow(Row):
    """Of `n_items` answered both as they are and with their last second silenced, `n_changed` got another answer."""

    n_items: int
    n_changed: int
    n_shorter_than_a_second: int
    share: float | None
    interval: IntervalRow | None


class ControlsRecord(_Conditions):
    """A model asked a task's questions with the audio taken away or spoilt: `controls.json`."""

    started_utc: str
    ended_utc: str | None
    wall_s: NonNegativeFloat
    peak_rss_bytes: NonNegativeInt
    notes: tuple[str, ...]
    conditions: tuple[ConditionRow, ...]
    gains: tuple[GainRow, ...]
    sensitivity: SensitivityRow | None


class ComparedRuns(Row):
    """Two runs that were paired, by their folders as given and by what they hold."""

    task: str
    first_folder: str
    second_folder: str
    first_run_id: str
    second_run_id: str
    first_predictions_sha256: str | None
    second_predictions_sha256: str | None


class ComparisonRow(Row):
    """One task, scorer and metric: `difference` is second minus first; `better` names a model, or is "tied".

    `n_flipped` items came out another way in the second run; the other two are what McNemar's test counts.
    """

    task: str
    scorer: str
    metric: str
    n_items: int
    n_clusters: int
    first: float | None
    second: float | None
    difference: float | None
    interval: IntervalRow | None
    test: str
    p_value: float | None
    p_holm: float | None
    better: str
    unavailable: str | None
    # Absent from records of before they were counted.
    n_flipped: int | None = None
    n_first_only: int | None = None
    n_second_only: int | None = None


class ComparisonRecord(Row):
    """What `compare` found: `results/compare/<utc>-<id>/record.json`.

    `comparison_id` is the start of the SHA-256 of `asked`: the runs, their predictions, scorers, metrics and the
    bootstrap's numbers.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    comparison_id: str
    asked: dict[str, Any]
    command: tuple[str, ...]
    created_utc: str
    environment: Environment
    first: str
    second: str
    level: float
    runs: tuple[ComparedRuns, ...]
    comparisons: tuple[ComparisonRow, ...]
    remarks: tuple[str, ...]


# --- writing ---------------------------------------------------------------------------------------------------------


def write_record(folder: Path, record: RunRecord) -> None:
    """Write a run's `record.json` atomically."""
    write_atomically(folder / RECORD_FILE, to_json(record))


class PredictionWriter:
    """Appends lines to a `predictions.jsonl`; what `sync` returned from survives a crash of the machine."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PREDICTIONS_FILE
        try:
            self._stream = self._path.open("ab", buffering=0)
        except OSError as error:
            raise RecordError(f"{self._path} cannot be opened for writing: {error.strerror}.") from error
        sync_folder(folder)

    def append(self, prediction: Prediction) -> None:
        """Write one line with one call.

        Raises:
            RecordError: the line was not written as a whole, such as on a full disk.
        """
        line = to_line(prediction).encode()
        try:
            written = self._stream.write(line)
        except OSError as error:
            raise RecordError(f"{self._path} cannot be written: {error.strerror}.") from error
        if written != len(line):
            raise RecordError(f"{self._path}: only part of a line could be written. Is the disk full?")

    def sync(self) -> None:
        """Wait until every line is on disk.

        Raises:
            RecordError: the disk refuses.
        """
        try:
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise RecordError(f"{self._path} cannot be written: {error.strerror}.") from error

    def close(self) -> None:
        """Sync and close."""
        if not self._stream.closed:
            self.sync()
            self._stream.close()

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# --- reading ---------------------------------------------------------------------------------------------------------


def load_run(folder: Path) -> tuple[RunRecord | None, list[Prediction]]:
    """Read a run's folder: its record, None when there is none yet, and its predictions in the order of writing.

    Raises:
        RecordError: a file is damaged, or of an unknown version. A torn last line is no damage: it is left out.
    """
    return load_record(folder), load_predictions(folder)


def load_record(folder: Path) -> RunRecord | None:
    """Read `record.json`; None when there is none.

    Raises:
        RecordError: it is damaged, or of an unknown version.
    """
    return find_record(folder / RECORD_FILE, RunRecord)


def load_predictions(folder: Path) -> list[Prediction]:
    """Read `predictions.jsonl` but for a torn last line; empty when there is no such file.

    Raises:
        RecordError: a line is damaged or of an unknown version, or two lines tell of one item.
    """
    path = folder / PREDICTIONS_FILE
    predictions = load_rows(folder)
    first_line: dict[str, int] = {}
    for number, prediction in enumerate(predictions, start=1):
        other = first_line.setdefault(prediction.item_id, number)
        if other != number:
            raise RecordError(f"{path} line {number}: item '{prediction.item_id}' is on line {other} already.")
    return predictions


def load_rows(folder: Path) -> list[Prediction]:
    """As `load_predictions`, for a file in which an item may come more than once.

    Raises:
        RecordError: a line is damaged or of an unknown version.
    """
    return read_rows(folder / PREDICTIONS_FILE, Prediction)


def load_score_file(path: Path) -> ScoreFile | None:
    """Read a `scores-<scorer>.json`; None when there is none.

    Raises:
        RecordError: it is damaged, or of an unknown version.
    """
    return find_record(path, ScoreFile)


def load_controls(folder: Path) -> ControlsRecord | None:
    """Read `controls.json`; None when there is none.

    Raises:
        RecordError: it is damaged, or of an unknown version.
    """
    return find_record(folder / CONTROLS_FILE, ControlsRecord)


def load_comparison(folder: Path) -> ComparisonRecord | None:
    """Read the `record.json` of a comparison; None when there is none.

    Raises:
        RecordError: it is damaged, or of an unknown version.
    """
    return find_record(folder / RECORD_FILE, ComparisonRecord)


def predictions_sha256(folder: Path) -> str:
    """SHA-256 of `predictions.jsonl` as it lies on disk."""
    return hashlib.sha256(read_bytes(folder / PREDICTIONS_FILE) or b"").hexdigest()


def was_cut(prediction: Prediction, length_policy: str) -> bool:
    """Whether a clip was heard in part, and just the part that the model's length policy names."""
    heard, total = prediction.frames_heard, prediction.frames_total
    return prediction.status == "truncated" and is_named_cut(length_policy, prediction.duration_s, heard, total)


def count_outcomes(predictions: Iterable[Prediction], length_policy: str = "") -> Counts:
    """Count statuses, and failures by type and notes by kind, most frequent first.

    Args:
        predictions: of a run.
        length_policy: as the model describes it; it may name a cut.
    """
    rows = list(predictions)
    statuses = [row.status for row in rows]
    n_cut = sum(was_cut(row, length_policy) for row in rows)
    return Counts(
        n_items=len(rows),
        n_ok=statuses.count("ok"),
        n_truncated=statuses.count("truncated") - n_cut,
        n_cut=n_cut,
        frames_total=sum(row.frames_total for row in rows),
        frames_heard=sum(row.frames_heard for row in rows),
        n_answers_cut=sum(row.stopped == "length" for row in rows),
        n_failed=statuses.count("failed"),
        failures=_frequencies(row.error_type or "unknown" for row in rows if row.status == "failed"),
        # "above full scale (peak 1.5)" and "above full scale (peak 2)" are of one kind.
        notes=_frequencies(note.partition(" (")[0] for row in rows for note in row.notes),
    )


def _frequencies(kinds: Iterable[str]) -> dict[str, int]:
    """Most frequent first, then by name."""
    counted = Counter(kinds)
    return {kind: counted[kind] for kind in sorted(counted, key=lambda kind: (-counted[kind], kind))}


# --- schemas ---------------------------------------------------------------------------------------------------------


def schema_texts() -> dict[str, str]:
    """The JSON schema files by name, as they should lie in `harness/schema/`."""
    kinds: dict[str, type[BaseModel]] = {
        "comparison": ComparisonRecord,
        "controls": ControlsRecord,
        "prediction": Prediction,
        "run_record": RunRecord,
        "scores": ScoreFile,
    }
    return texts_of(kinds, SCHEMA_VERSION)


if __name__ == "__main__":
    write_texts(schema_texts())
