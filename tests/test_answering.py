"""How much audio a run holds at a time: batches are cut by their length too, and the next one may have to wait."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import dataclass, field

import numpy as np
import pytest

from harness.contracts import AudioClip, AudioItem
from harness.hearing import BatchItem, Failure, hear_batches, partition

HOUR_S = 3600.0


@dataclass
class Tape:
    """A source of any length by its header, that counts the clips of its kind in memory."""

    header_s: float | None
    clips: list[weakref.ref[AudioClip]]
    is_decoded: threading.Event = field(default_factory=threading.Event)
    n_alive_at_load: int | None = None

    def load(self, sample_rate_hz: int) -> AudioClip:
        gc.collect()
        self.n_alive_at_load = sum(clip() is not None for clip in self.clips)
        clip = AudioClip(np.zeros(8, dtype=np.float32), sample_rate_hz, sample_rate_hz, 1, 8)
        self.clips.append(weakref.ref(clip))
        self.is_decoded.set()
        return clip

    def identity(self) -> str:
        return "tape"

    def duration_s(self) -> float | None:
        return self.header_s


def tapes(*headers_s: float | None) -> list[BatchItem]:
    clips: list[weakref.ref[AudioClip]] = []
    return [
        BatchItem(AudioItem(str(n), Tape(header_s, clips), ("a",), "c"), "tape", header_s)
        for n, header_s in enumerate(headers_s)
    ]


def sizes(items: list[BatchItem], size: int, max_audio_s: float | None = None) -> list[int]:
    return [len(batch) for batch in partition(items, size, max_audio_s)]


@pytest.mark.parametrize(
    ("headers_s", "expected"),
    [
        ([5.0] * 7, [3, 3, 1]),
        ([HOUR_S] * 3, [1, 1, 1]),
        ([500.0] * 5, [2, 2, 1]),
        ([5.0, HOUR_S, 5.0, 5.0], [1, 1, 2]),
        ([None] * 4, [3, 1]),
        ([], []),
    ],
)
def test_a_batch_ends_at_its_size_or_at_twenty_minutes(headers_s: list[float | None], expected: list[int]) -> None:
    assert sizes(tapes(*headers_s), 3) == expected


def test_clips_that_are_too_long_for_the_model_take_no_room() -> None:
    assert sizes(tapes(*[HOUR_S] * 3), 3, max_audio_s=600.0) == [3]


def test_a_partition_keeps_every_item_in_order() -> None:
    items = tapes(5.0, HOUR_S, 700.0, 700.0, None, 5.0)
    assert [item for batch in partition(items, 2, None) for item in batch] == items


def test_a_clip_whose_header_does_not_tell_is_measured_when_it_is_heard() -> None:
    (heard,) = next(hear_batches([tapes(None)], sample_rate_hz=2, max_audio_s=3.0))
    assert heard.heard == Failure("ModelLimitError", "the clip lasts 4.0 s; the model takes at most 3 s")


def test_the_next_short_batch_is_decoded_while_the_caller_works() -> None:
    items = tapes(5.0, 5.0)
    batches = hear_batches([items[:1], items[1:]], 16_000)
    next(batches)
    second = items[1].item.source
    assert isinstance(second, Tape) and second.is_decoded.wait(timeout=10)
    batches.close()


def test_the_next_long_batch_waits_until_the_caller_has_let_go_of_the_last() -> None:
    items = tapes(*[HOUR_S] * 4)
    sources = [item.item.source for item in items]
    for position, batch in enumerate(hear_batches([[item] for item in items], 16_000)):
        following = sources[position + 1] if position < 3 else None
        # Decoding a tape takes no time: had it begun, it would be done long before this.
        assert not (isinstance(following, Tape) and following.is_decoded.wait(timeout=0.1))
        assert len(batch) == 1


def test_no_long_batch_is_decoded_beside_another() -> None:
    items = tapes(*[HOUR_S] * 4)
    for batch in hear_batches([[item] for item in items], 16_000):
        assert len(batch) == 1
        del batch
    assert [item.item.source.n_alive_at_load for item in items] == [0] * 4  # type: ignore[attr-defined]
