"""A run that was cut off anywhere and given again ends as one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config import RunConfig
from harness.errors import RecordError
from harness.records import (
    PREDICTIONS_FILE,
    Prediction,
    RunRecord,
    load_predictions,
    load_record,
    load_run,
    write_record,
)
from harness.registry import add_plugin_file
from harness.runner import RunOutcome, run

PLUGINS = Path(__file__).parent / "plugins"
REPOSITORY = Path(__file__).resolve().parents[1]
N_ITEMS = 80


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunOutcome]:
    """Runs the two fakes with results below the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    for name in ("beeps.py", "moody.py"):
        add_plugin_file(PLUGINS / name)

    def make(model: dict[str, Any] | None = None, say: Callable[[str], None] | None = None) -> RunOutcome:
        config = RunConfig("moody", "beeps", model_options=model or {}, batch_size=4, device="cpu", threads=1)
        return run(config, say=say or (lambda line: None))

    return make


def _lasting(rows: list[Prediction]) -> list[Prediction]:
    """Predictions without what the clock decides."""
    return [row.model_copy(update={"load_s": 0.0, "answer_s": 0.0}) for row in rows]


def _cut_off(folder: Path, n_bytes: int) -> None:
    """Make a complete run look as if it had been killed after so many bytes of predictions."""
    record = load_record(folder)
    assert record is not None
    running = record.sessions[-1].model_copy(update={"outcome": "running", "ended_utc": None})
    changes = {"is_complete": False, "scores": (), "predictions_sha256": None, "sessions": (running,)}
    write_record(folder, record.model_copy(update=changes))
    path = folder / PREDICTIONS_FILE
    path.write_bytes(path.read_bytes()[:n_bytes])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.77, 0.999, 1.0])
def test_a_run_cut_off_anywhere_ends_the_same(go: Callable[..., RunOutcome], share: float) -> None:
    first = go()
    path = first.folder / PREDICTIONS_FILE
    before = load_predictions(first.folder)
    _cut_off(first.folder, int(share * path.stat().st_size))
    second = go()
    assert (second.folder, _lasting(load_predictions(second.folder)), second.scores) == (
        first.folder,
        _lasting(before),
        first.scores,
    )


@pytest.mark.parametrize("n_kept", [1, 3, 6])
def test_a_run_whose_batches_are_cut_by_their_length_goes_on_as_well(
    go: Callable[..., RunOutcome], monkeypatch: pytest.MonkeyPatch, n_kept: int
) -> None:
    # Beeps last 0.05 s, so batches hold two of them instead of four.
    monkeypatch.setattr("harness.hearing._AUDIO_AT_ONCE_S", 0.12)
    first = go()
    before = load_predictions(first.folder)
    assert [row.batch_index for row in before] == [n // 2 for n in range(12)]
    lines = (first.folder / PREDICTIONS_FILE).read_bytes().splitlines(keepends=True)
    _cut_off(first.folder, len(b"".join(lines[:n_kept])))
    assert _lasting(load_predictions(go().folder)) == _lasting(before)


@pytest.mark.parametrize("n_kept", [0, 1, 2, 3])
def test_a_run_of_unread_clips_cut_off_anywhere_ends_the_same(
    go: Callable[..., RunOutcome], monkeypatch: pytest.MonkeyPatch, n_kept: int
) -> None:
    # Beeps last 0.05 s: all of them are long, so that each is a batch of its own and seeded as such.
    monkeypatch.setattr("harness.hearing.LONG_S", 0.04)
    first = go()
    before = load_predictions(first.folder)
    assert [row.batch_index for row in before] == list(range(12))
    lines = (first.folder / PREDICTIONS_FILE).read_bytes().splitlines(keepends=True)
    _cut_off(first.folder, len(b"".join(lines[:n_kept])) + 5)
    assert _lasting(load_predictions(go().folder)) == _lasting(before)


def test_lines_that_are_there_are_not_written_again(go: Callable[..., RunOutcome]) -> None:
    first = go()
    path = first.folder / PREDICTIONS_FILE
    kept = b"".join(path.read_bytes().splitlines(keepends=True)[:6])
    _cut_off(first.folder, len(kept))
    go()
    assert path.read_bytes().startswith(kept)


def test_a_run_with_every_line_is_finished_without_loading_the_model(
    go: Callable[..., RunOutcome], tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    first = go({"marker": str(marker)})
    _cut_off(first.folder, (first.folder / PREDICTIONS_FILE).stat().st_size)
    second = go({"marker": str(marker)})
    assert (marker.read_text(), second.record.is_complete) == ("loaded\n", True)


def test_a_killed_session_stays_in_the_record(go: Callable[..., RunOutcome]) -> None:
    first = go()
    _cut_off(first.folder, 3000)
    sessions = go().record.sessions
    assert [session.outcome for session in sessions] == ["killed", "complete"]
    assert sum(session.n_items for session in sessions) == 12


def test_an_interrupt_keeps_what_was_answered_and_says_how_to_go_on(
    go: Callable[..., RunOutcome], tmp_path: Path
) -> None:
    said: list[str] = []
    model = {"mood": "interrupted once", "on": "beep-05", "marker": str(tmp_path / "marker")}
    with pytest.raises(KeyboardInterrupt):
        go(model, said.append)
    assert "Interrupted after 4 of 12 items" in said[-1]
    assert [session.outcome for session in go(model).record.sessions] == ["interrupted", "complete"]


def test_a_plugin_that_breaks_off_a_run_leaves_a_stopped_session(go: Callable[..., RunOutcome], tmp_path: Path) -> None:
    with pytest.raises(Exception, match="bad n_answer_tokens"):
        go({"mood": "negative count", "on": "beep-05"})
    record, rows = load_run(next((tmp_path / "results/runs/moody/beeps").glob("*-*")))
    assert (record is not None and record.sessions[-1].outcome, len(rows)) == ("stopped", 4)


def test_predictions_of_other_items_are_not_continued(go: Callable[..., RunOutcome]) -> None:
    first = go()
    path = first.folder / PREDICTIONS_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[1] + lines[0])
    _cut_off(first.folder, 10**6)
    with pytest.raises(RecordError, match="in order"):
        go()


# --- kill -9 ---------------------------------------------------------------------------------------------------------


def _start(results: Path) -> subprocess.Popen[str]:
    words = ["run", "--model", "moody", "-m", "delay_s=0.01", "--task", "beeps", "-t", f"n={N_ITEMS}"]
    words += ["--plugin", str(PLUGINS / "moody.py"), "--plugin", str(PLUGINS / "beeps.py")]
    words += ["--batch-size", "3", "--threads", "1", "--device", "cpu", "--results", str(results)]
    environment = {name: value for name, value in os.environ.items() if name != "LALM_HARNESS_DATA"}
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *words],
        cwd=results.parent,
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(results: Path) -> tuple[RunRecord, list[Prediction]]:
    process = _start(results)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    (folder,) = (path for path in (results / "runs/moody/beeps").iterdir() if path.is_dir())
    record, rows = load_run(folder)
    assert record is not None
    return record, rows


def _n_lines(results: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in results.rglob(PREDICTIONS_FILE))


def _kill_at(results: Path, chance: random.Random) -> int:
    """Kill a session while it starts, or a little after it has written some lines; tell how many lie there then."""
    process = _start(results)
    if chance.random() < 0.2:
        time.sleep(chance.uniform(0.0, 0.5))
    else:
        wanted = _n_lines(results) + chance.randint(0, 5)
        while process.poll() is None and _n_lines(results) < wanted:
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.02))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, "the session ended before it was killed"
    return _n_lines(results)


@pytest.mark.parametrize(("n_kills", "n_places"), [(3, 2), pytest.param(10, 4, marks=pytest.mark.slow)])
def test_kills_in_a_row_change_neither_predictions_nor_scores(tmp_path: Path, n_kills: int, n_places: int) -> None:
    (tmp_path / "calm").mkdir()
    (tmp_path / "rough").mkdir()
    calm_record, calm_rows = _finish(tmp_path / "calm" / "results")
    chance = random.Random(0)
    progress = [_kill_at(tmp_path / "rough" / "results", chance) for _ in range(n_kills)]
    assert len(set(progress)) >= n_places, "the kills did not fall into the answering"
    rough_record, rough_rows = _finish(tmp_path / "rough" / "results")
    assert (_lasting(rough_rows), rough_record.scores) == (_lasting(calm_rows), calm_record.scores)
