"""What several processes answered of a run: collected, merged in order, and nothing lost or counted twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config import RunConfig
from harness.errors import RecordError, UsageError
from harness.records import PREDICTIONS_FILE, Prediction, PredictionWriter, load_predictions, load_record, write_record
from harness.registry import add_plugin_file
from harness.runner import RunOutcome, run
from harness.shards import SHARDS, collect, merge, shard_folder, shard_writer

PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], RunOutcome]:
    """Runs the two fakes, 12 items in batches of two; the model's loads are counted in `marker`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    for name in ("beeps.py", "moody.py"):
        add_plugin_file(PLUGINS / name)
    config = RunConfig("moody", "beeps", batch_size=2, device="cpu", threads=1, model_options={"marker": "marker"})
    return lambda: run(config, say=lambda line: None)


def _lasting(rows: list[Prediction]) -> list[dict[str, Any]]:
    """Predictions without what the clock decides."""
    return [row.model_dump(exclude={"load_s", "answer_s"}) for row in rows]


def _taken_apart(folder: Path, n_merged: int, shards: list[list[int]]) -> list[Prediction]:
    """Make a complete run look as if several processes had been killed in it; returns its rows."""
    record, rows = load_record(folder), load_predictions(folder)
    assert record is not None
    running = record.sessions[-1].model_copy(update={"outcome": "running", "ended_utc": None})
    changes = {"is_complete": False, "scores": (), "predictions_sha256": None, "sessions": (running,)}
    write_record(folder, record.model_copy(update=changes))
    (folder / PREDICTIONS_FILE).unlink()
    for place, numbers in [(folder, list(range(n_merged)))] + [
        (shard_folder(folder, r), s) for r, s in enumerate(shards)
    ]:
        place.mkdir(parents=True, exist_ok=True)
        with PredictionWriter(place) as writer:
            for number in numbers:
                writer.append(rows[number])
    return rows


def test_rows_are_collected_in_the_runs_order_each_once(go: Callable[[], RunOutcome]) -> None:
    folder = go().folder
    rows = _taken_apart(folder, 3, [[2, 3, 8, 9], [4, 5]])
    ids = [row.item_id for row in rows]
    assert list(collect(folder, ids)) == [ids[n] for n in (0, 1, 2, 3, 4, 5, 8, 9)]


def test_of_an_item_that_a_shard_has_twice_the_first_row_counts(go: Callable[[], RunOutcome]) -> None:
    """A process that outlived its main one may have answered it too."""
    folder = go().folder
    rows = _taken_apart(folder, 0, [[0]])
    with PredictionWriter(shard_folder(folder, 0)) as writer:
        writer.append(rows[0].model_copy(update={"text": "said later"}))
    assert collect(folder, [rows[0].item_id]) == {rows[0].item_id: rows[0]}


def test_a_shard_that_another_process_writes_is_refused(tmp_path: Path) -> None:
    with shard_writer(tmp_path, 1), pytest.raises(UsageError, match=r"Another process .* working on this run: .*00001"):
        shard_writer(tmp_path, 1).__enter__()


def test_rows_are_merged_up_to_the_first_gap(go: Callable[[], RunOutcome]) -> None:
    folder = go().folder
    rows = _taken_apart(folder, 3, [[2, 3, 8, 9], [4, 5]])
    ids = [row.item_id for row in rows]
    assert merge(folder, ids, collect(folder, ids)) == 6
    assert load_predictions(folder) == rows[:6]


def test_a_run_goes_on_from_what_several_processes_left(go: Callable[[], RunOutcome]) -> None:
    first = go()
    before = _taken_apart(first.folder, 1, [[2, 3, 8], [4, 5, 10, 11]])
    second = go()
    assert _lasting(load_predictions(second.folder)) == _lasting(before)
    assert (second.folder, second.scores) == (first.folder, first.scores)
    assert not (second.folder / SHARDS).exists()


def test_rows_that_lie_in_a_shard_are_not_asked_for_again(go: Callable[[], RunOutcome]) -> None:
    first = go()
    before = _taken_apart(first.folder, 0, [[0, 1, 4, 5], [2, 3, 8, 9]])
    go()
    after = load_predictions(first.folder)
    assert [n for n in range(12) if after[n].answer_s == before[n].answer_s] == [0, 1, 2, 3, 4, 5, 8, 9]


def test_a_run_whose_shards_have_every_row_needs_no_model(go: Callable[[], RunOutcome], tmp_path: Path) -> None:
    first = go()
    _taken_apart(first.folder, 0, [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]])
    assert go().record.is_complete
    assert (tmp_path / "marker").read_text() == "loaded\n"


def test_a_killed_session_of_several_processes_counts_what_they_answered(go: Callable[[], RunOutcome]) -> None:
    first = go()
    _taken_apart(first.folder, 0, [[0, 1, 4, 5], [2, 3]])
    sessions = go().record.sessions
    assert [(session.outcome, session.n_items) for session in sessions] == [("killed", 6), ("complete", 6)]


def test_a_torn_line_of_a_shard_is_answered_again(go: Callable[[], RunOutcome]) -> None:
    first = go()
    before = _taken_apart(first.folder, 0, [[0, 1], [2, 3]])
    path = shard_folder(first.folder, 1) / PREDICTIONS_FILE
    path.write_bytes(path.read_bytes()[:-9])
    assert _lasting(load_predictions(go().folder)) == _lasting(before)


def test_a_shard_of_another_run_is_refused(go: Callable[[], RunOutcome]) -> None:
    folder = go().folder
    rows = _taken_apart(folder, 0, [[0, 1]])
    with pytest.raises(RecordError, match=r"'beep-01', which is no item of this run"):
        collect(folder, [rows[0].item_id])
