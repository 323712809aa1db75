"""Streaming cost: the log that the sound keeps, spans of minutes, and the command over a model that breaks."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli import main
from harness.clips import UnreadClip
from harness.contracts import BlockSource, CostedModel, StateBytes
from harness.noise_bursts import NoiseBursts
from harness.records import SCHEMA_FOLDER
from harness.streaming_cost import LoggingSound, Mark, minute_fields, resident_bytes, spans
from harness.streaming_rows import schema_texts

PLUGIN = Path(__file__).parent / "plugins" / "breaker.py"


def _clock() -> Iterator[Mark]:
    """One second, and half a second of work, a look."""
    for look in range(1000):
        yield Mark(float(look), look / 2, 1000 * look, None)


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
    (folder,) = (tmp_path / "streaming").iterdir()
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


def test_the_schema_files_are_those_of_the_rows() -> None:
    assert {name: (SCHEMA_FOLDER / name).read_text() for name in schema_texts()} == schema_texts()
