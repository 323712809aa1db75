"""One process of a shared run, with the others played: what it is told, what it answers, and what stops it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness import shared_run
from harness.config import RunConfig
from harness.errors import UsageError
from harness.plan import make_plan
from harness.processes import Processes, ProcessesError
from harness.records import PREDICTIONS_FILE, PredictionWriter, load_predictions, load_record
from harness.registry import add_plugin_file
from harness.run_record import SessionClock
from harness.runner import RunOutcome, run
from harness.shards import shard_folder
from harness.shared_run import _check_same, _help, _lead
from harness.tables import closing_lines

PLUGINS = Path(__file__).parent / "plugins"


@dataclass(frozen=True)
class Played(Processes):
    """One of two processes: a helper hears what is in `told`, and the main one says it there and does all the work."""

    count: int = 2
    told: list[Any] = field(default_factory=list)

    def share(self, things: Sequence[Any]) -> Sequence[Any]:
        return things if self.is_main else super().share(things)

    def gather(self, thing: Any) -> list[Any]:
        return [thing, *self.told]

    def from_main(self, thing: Any) -> Any:
        if not self.is_main:
            return self.told.pop(0)
        self.told.append(thing)
        return thing

    def wait(self) -> None:
        """The other is there already."""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Twelve items in six batches."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LALM_HARNESS_DATA", raising=False)
    for name in ("beeps.py", "moody.py"):
        add_plugin_file(PLUGINS / name)
    return RunConfig("moody", "beeps", batch_size=2, device="cpu", threads=1)


def _lead_run(config: RunConfig, processes: Processes) -> RunOutcome:
    plan = make_plan(config, _say_nothing)
    return _lead(plan, processes, (), SessionClock(processes.count), _say_nothing)


def _say_nothing(line: str) -> None:
    """For runs whose lines no test reads."""


def test_a_slow_helper_answers_its_share_of_what_it_was_told_and_not_of_what_lies_there(config: RunConfig) -> None:
    """The main process wrote its first two batches before the helper looked."""
    folder = run(config, say=_say_nothing).folder
    rows = load_predictions(folder)
    place = shard_folder(folder, 0)
    place.mkdir(parents=True)
    with PredictionWriter(place) as writer:
        for number in (0, 1, 4, 5):
            writer.append(rows[number])
    (folder / PREDICTIONS_FILE).unlink()
    _help(make_plan(config, _say_nothing), Played(rank=1, told=[True, (folder, frozenset())]))
    answered = [row.item_id for row in load_predictions(shard_folder(folder, 1))]
    assert answered == [rows[number].item_id for number in (2, 3, 6, 7, 10, 11)]


def test_the_main_process_tells_the_folder_and_what_is_done(config: RunConfig) -> None:
    processes = Played()
    outcome = _lead_run(config, processes)
    assert processes.told == [True, (outcome.folder, frozenset())]


def test_a_helper_that_sees_no_common_folder_says_so(config: RunConfig, tmp_path: Path) -> None:
    processes = Played(rank=1, told=[True, (tmp_path / "elsewhere", frozenset())])
    with pytest.raises(UsageError, match="process 1 does not see .*elsewhere: all need one file system"):
        _help(make_plan(config, _say_nothing), processes)


def test_a_process_that_would_answer_another_run_is_named(config: RunConfig) -> None:
    other = make_plan(replace(config, seed=1), _say_nothing).run_id()
    with pytest.raises(UsageError, match="process 1 would answer another run than process 0"):
        _check_same(make_plan(config, _say_nothing), Played(told=[other]))


def test_record_and_closing_lines_tell_how_many_processes_answered(config: RunConfig) -> None:
    outcome = _lead_run(config, Played())
    assert [session.n_processes for session in outcome.record.sessions] == [2]
    assert "Answered in 2 processes." in closing_lines(outcome.record, outcome.folder)


def test_one_process_is_nothing_to_tell(config: RunConfig) -> None:
    outcome = run(config, say=_say_nothing)
    assert not any("processes" in line for line in closing_lines(outcome.record, outcome.folder))


def test_what_stopped_a_run_is_told_even_where_its_rows_cannot_be_read(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process was cut off in the middle of a line that is not the last."""

    def tear(plan: Any, folder: Path, done: Any, processes: Processes) -> None:
        place = shard_folder(folder, 1)
        place.mkdir(parents=True)
        (place / PREDICTIONS_FILE).write_text("torn\n")
        raise ProcessesError("another process ended")

    monkeypatch.setattr(shared_run, "_answer_share", tear)
    with pytest.raises(ProcessesError, match="another process ended"):
        _lead_run(config, Played())
    (record,) = (load_record(path.parent) for path in Path("results").rglob("record.json"))
    assert record is not None and record.sessions[-1].outcome == "stopped"
