"""What is written can be read back, and what is damaged is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.errors import RecordError
from harness.records import (
    PREDICTIONS_FILE,
    Counts,
    Prediction,
    PredictionWriter,
    count_outcomes,
    load_predictions,
    load_record,
    load_run,
    schema_texts,
)
from harness.schema_files import SCHEMA_FOLDER


def _prediction(item_id: str, **values: Any) -> Prediction:
    facts = {"cluster": "c", "references": ("dog",), "status": "ok", "audio_identity": "x", "prompt_sha256": "y"}
    return Prediction.model_validate({"item_id": item_id, "batch_index": 0, **facts, **values})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three predictions."""
    with PredictionWriter(tmp_path) as writer:
        for item_id in ("a", "b", "c"):
            writer.append(_prediction(item_id, text="a dog\u2028barks\n", label_scores=(-0.1, -1e-9)))
    return tmp_path


def test_the_schema_files_are_current() -> None:
    assert {name: (SCHEMA_FOLDER / name).read_text() for name in schema_texts()} == schema_texts()


def test_a_line_fits_its_schema(folder: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((SCHEMA_FOLDER / "prediction.v1.json").read_text())
    line = (folder / PREDICTIONS_FILE).read_bytes().split(b"\n")[0]
    jsonschema.validate(json.loads(line), schema)


def test_predictions_come_back_as_they_were_written(folder: Path) -> None:
    assert load_predictions(folder)[1] == _prediction("b", text="a dog\u2028barks\n", label_scores=(-0.1, -1e-9))


def test_an_empty_folder_is_an_empty_run(tmp_path: Path) -> None:
    assert load_run(tmp_path) == (None, [])


def test_a_torn_last_line_is_left_out(folder: Path) -> None:
    path = folder / PREDICTIONS_FILE
    path.write_bytes(path.read_bytes()[:-5])
    assert [row.item_id for row in load_predictions(folder)] == ["a", "b"]


@pytest.mark.parametrize(
    ("old", "new", "part_of_message"),
    [
        (b'"item_id": "b"', b'"item_id": "a"', "line 2: item 'a' is on line 1"),
        (b'{"schema_version": 1, "item_id": "b"', b'{"item_id": "b"', "schema version None"),
        (b'{"schema_version": 1, "item_id": "b"', b'{"schema_version": 2, "item_id": "b"', "schema version 2"),
        (b'{"schema_version": 1, "item_id": "b"', b'"schema_version": 1', "line 2 is not JSON"),
        (b'"item_id": "b"', b'"item_id": 3', "line 2 does not fit its schema: item_id"),
        (b'"item_id": "b"', b'"item_id": "b", "mood": 1', "line 2 does not fit its schema: mood"),
    ],
)
def test_a_damaged_line_is_named(folder: Path, old: bytes, new: bytes, part_of_message: str) -> None:
    path = folder / PREDICTIONS_FILE
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(RecordError, match=part_of_message):
        load_predictions(folder)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"schema_version": 1')
    with pytest.raises(RecordError, match=r"record\.json is not JSON"):
        load_record(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_prediction_holds_no_score_that_is_not_finite(value: float) -> None:
    with pytest.raises(ValidationError):
        _prediction("a", label_scores=(value,))


def test_failures_are_counted_by_type() -> None:
    rows = [_prediction(str(n), status="failed", error_type=kind) for n, kind in enumerate(["A", "B", "B"])]
    counts = count_outcomes([*rows, _prediction("t", status="truncated"), _prediction("o")])
    assert (counts.n_ok, counts.n_truncated, counts.n_failed, counts.failures) == (1, 1, 3, {"B": 2, "A": 1})


def test_notes_on_clips_are_counted_by_kind() -> None:
    notes = [("silent",), ("above full scale (peak 1.5)",), ("above full scale (peak 2)", "ends early (1 of 2 bytes)")]
    counts = count_outcomes(_prediction(str(n), notes=each) for n, each in enumerate(notes))
    assert list(counts.notes.items()) == [("above full scale", 2), ("ends early", 1), ("silent", 1)]


def test_a_record_of_before_cut_answers_were_counted_does_not_say_that_there_were_none() -> None:
    told = count_outcomes([]).model_dump(exclude={"n_answers_cut"})
    assert Counts.model_validate(told).n_answers_cut is None
