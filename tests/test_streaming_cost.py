"""Streaming cost: the log that the sound keeps, spans of minutes, and the command over a model that breaks."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.clips import UnreadClip
from harness.contracts import BlockSource, CostedModel, StateBytes
from harness.edge import Ladder
from harness.errors import RecordError
from harness.frontier import FrontierConfig, Known
from harness.frontier_probe import Subject, look
from harness.noise_bursts import NoiseBursts
from harness.records import ModelRow
from harness.registry import add_plugin_file
from harness.schema_files import SCHEMA_FOLDER
from harness.streaming_cost import LoggingSound, Mark, measure_streaming, minute_fields, resident_bytes, spans
from harness.streaming_rows import (
    MinuteRow,
    StreamingRecord,
    StreamingRow,
    load_minutes,
    load_streaming,
    schema_texts,
)

PLUGIN = Path(__file__).parent / "plugins" / "breaker.py"


def _clock() -> Iterator[Mark]:
    """One second, and half a second of work, a look."""
    for number in range(1000):
        yield Mark(float(number), number / 2, 1000 * number, None)


def _logged(length_s: float) -> LoggingSound:
    clock = _clock()
    return LoggingSound(NoiseBursts(length_s), lambda: next(clock))


def test_there_is_a_mark_before_the_sound_and_after_each_whole_minute() -> None:
    sound = _logged(150.0)
    assert isinstance(sound, BlockSource)
    assert (sum(map(len, sound.blocks(100))), len(sound.marks)) == (15_000, 3)


def test_a_minute_is_marked_only_when_the_next_sound_is_asked_for() -> None:
    sound = _logged(61.0)
    blocks = sound.blocks(100)
    for _ in range(60):
        next(blocks)
    assert len(sound.marks) == 1
    next(blocks)
    assert len(sound.marks) == 2


def test_the_end_is_marked_apart_from_the_last_minute() -> None:
    sound = _logged(60.0)
    list(sound.blocks(100))
    assert sound.ended is not None
    assert (len(sound.marks), sound.ended.wall) == (2, sound.marks[-1].wall + 1)


def test_hearing_the_sound_again_begins_the_log_anew() -> None:
    sound = _logged(60.0)
    clip = UnreadClip(sound, 100)
    assert clip.n_samples == 6000
    list(clip.blocks())
    assert [mark.wall for mark in sound.marks] == [3.0, 4.0]


class Keeper:
    """Only what `minute_fields` asks of a `CostedModel`."""

    def state_bytes(self, n_tokens: int) -> StateBytes:
        return StateBytes(growing=8 * n_tokens, constant=64)


def test_a_minutes_row_holds_what_lies_between_two_marks_and_how_it_ended() -> None:
    model: CostedModel = Keeper()  # type: ignore[assignment]
    marks = [Mark(0.0, 0.0, 10, None), Mark(2.0, 1.0, 20, None), Mark(5.0, 3.0, 40, None)]
    assert minute_fields(marks, model, 2.5)[1] == {
        "minute": 2,
        "wall_s": 3.0,
        "cpu_s": 2.0,
        "resident_bytes": 40,
        "device_allocated_bytes": None,
        "state_growing_bytes": 40,
        "state_constant_bytes": 64,
    }


def test_a_model_that_does_not_tell_its_state_has_none_in_the_rows() -> None:
    marks = [Mark(0.0, 0.0, 10, None), Mark(2.0, 1.0, 20, None)]
    assert minute_fields(marks, None, 2.5)[0]["state_growing_bytes"] is None


@pytest.mark.parametrize("n", [1, 3, 5, 12, 30])
def test_spans_cover_every_minute_once(n: int) -> None:
    covered = [minute for first, last in spans(n) for minute in range(first, last)]
    assert (covered, len(spans(n)) <= 5) == (list(range(n)), True)


def test_no_minutes_no_spans() -> None:
    assert spans(0) == []


def test_the_resident_set_grows_with_what_is_held() -> None:
    before = resident_bytes()
    if before is None:
        pytest.skip("this system does not tell the resident set")
    # Pages of its own: the allocator of a process that has run a while may hand out some that are resident already.
    with mmap.mmap(-1, 50_000_000) as held:
        held.write(b"\1" * len(held))
        after = resident_bytes()
        assert after is not None and after - before > 0.9 * len(held)


def _streaming(tmp_path: Path, *words: str) -> tuple[int, list[dict[str, float]], dict[str, float]]:
    command = ["frontier", "--streaming", "--model", "breaker", "--plugin", str(PLUGIN), "--longest", "3m", *words]
    code = main([*command, "--memory", "none", "--threads", "1", "--results", str(tmp_path)])
    (folder,) = (path for path in (tmp_path / "streaming").iterdir() if path.is_dir())
    points = [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]
    return code, points, json.loads((folder / "record.json").read_text())["rows"][0]


def test_memory_that_a_model_keeps_is_seen_minute_by_minute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, points, row = _streaming(tmp_path, "-m", "bytes_per_s=500000")
    growth = [
        later["resident_bytes"] - before["resident_bytes"] for before, later in zip(points, points[1:], strict=False)
    ]
    assert (code, [point["minute"] for point in points], row["kind"]) == (0, [1, 2, 3], "ok")
    # Malloc may keep or give back pages of a buffer that it moves.
    assert all(0.5 * 30e6 < grown < 2 * 30e6 for grown in growth)
    assert "resident KiB/min" in capsys.readouterr().out


def test_a_model_that_breaks_on_the_way_keeps_the_minutes_before(tmp_path: Path) -> None:
    code, points, row = _streaming(tmp_path, "-m", "mood=stops", "-m", "at_s=130")
    assert (code, len(points), row["kind"], row["n_minutes"]) == (1, 2, "position_limit", 2)


def test_a_variant_left_out_is_in_the_table_with_its_minutes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _streaming(tmp_path, "-m", "variant=small")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("breaker:small")]
    assert [line[1] for line in lines] == ["1-1", "2-2", "3-3"]


class _Killed(BaseException):
    """Ends the command in the middle, as a signal would."""


MODELS = ("breaker:small", "breaker:large")


def _known(name: str) -> Known:
    """A size of the model, as it describes itself."""
    add_plugin_file(PLUGIN)
    subject = Subject("breaker", {"variant": name.partition(":")[2]}, (str(PLUGIN),), "cpu", "float32", 0)
    told = look(asdict(subject))
    facts = {key: told[key] for key in ("options_passed", "options_resolved", "plugin")}
    return Known(name, subject, ModelRow.model_validate({**told["description"], **facts}))


def _measured(
    tmp_path: Path, listened: list[str], killed_at: str | None = None, fresh: bool = False
) -> tuple[Path, StreamingRecord]:
    """Two models of two minutes each, whose listening is only noted; killed before one of them is in the record."""
    caps: dict[str, Any] = {"memory_bytes": None, "time_limit_s": None, "ladder": Ladder(120.0, 120.0), "threads": 1}
    way: dict[str, Any] = {"options": {}, "device": "cpu", "dtype": "float32", "seed": 0, "second_way": {}}
    config = FrontierConfig(models=MODELS, plugins=(str(PLUGIN),), **caps, **way)
    unknown = ("device_allocated_bytes", "resident_bytes", "state_growing_bytes", "state_constant_bytes")
    minute = {"wall_s": 1.0, "cpu_s": 1.0, **dict.fromkeys(unknown)}

    def listen(config: FrontierConfig, known: Known) -> tuple[StreamingRow, list[MinuteRow]]:
        if known.name == killed_at:
            raise _Killed
        listened.append(known.name)
        row = StreamingRow(model=known.row, kind="ok", message="", n_minutes=2, listening_s=2.0, after_s=0.1)
        return row, [MinuteRow.model_validate({"model": known.name, "minute": n, **minute}) for n in (1, 2)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.streaming_cost._listened", listen)
        patch.setattr("harness.streaming_cost.look_at_all", lambda config, needs_scores: list(map(_known, MODELS)))
        return measure_streaming(config, tmp_path, ["frontier"], lambda line: None, fresh)[:2]


def test_an_interrupted_command_goes_on_with_the_model_that_is_missing(tmp_path: Path) -> None:
    listened: list[str] = []
    with pytest.raises(_Killed):
        _measured(tmp_path, listened, killed_at="breaker:large")
    (folder,) = (path for path in (tmp_path / "streaming").iterdir() if path.is_dir())
    points = folder / "points.jsonl"
    other = points.read_text().replace("breaker:small", "breaker:large")
    with points.open("a") as stream:  # killed while the second model's minutes were written
        stream.write(other[:-30])
    again, record = _measured(tmp_path, listened)
    assert (again, listened) == (folder, list(MODELS))
    assert [(point.model, point.minute) for point in load_minutes(folder)] == [(m, n) for m in MODELS for n in (1, 2)]
    assert record == load_streaming(folder)
    assert record.ended_utc is not None and len(record.rows) == 2


def test_a_command_that_ended_is_done_again_in_a_folder_of_its_own(tmp_path: Path) -> None:
    listened: list[str] = []
    assert _measured(tmp_path, listened)[0] != _measured(tmp_path, listened)[0]
    assert len(listened) == 4


def test_fresh_leaves_what_was_interrupted_alone(tmp_path: Path) -> None:
    listened: list[str] = []
    with pytest.raises(_Killed):
        _measured(tmp_path, listened, killed_at="breaker:large")
    _measured(tmp_path, listened, fresh=True)
    assert listened == ["breaker:small", *MODELS]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is not there"), ("{", "is not JSON"), ('{"schema_version": 2}', "has schema version 2")],
)
def test_a_record_that_cannot_be_read_is_one_clear_error(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "record.json").write_text(content)
    with pytest.raises(RecordError, match=message) as caught:
        load_streaming(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_schema_files_are_those_of_the_rows() -> None:
    assert {name: (SCHEMA_FOLDER / name).read_text() for name in schema_texts()} == schema_texts()
