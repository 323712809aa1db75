"""How an item of a long-audio task comes about: its place in the grid, its sounds one after another, its record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from harness.contracts import AudioItem, AudioSource, OptionValue
from tasks._long_task import RATE_HZ, LongOptions, cell_text, random_of, spread

if TYPE_CHECKING:
    from tasks._clips import Clip
    from tasks._long_audio import LongSource

GAP_S = 0.5
"""The least time between two sounds of an item."""


@dataclass(frozen=True)
class Place:
    """Where an item stands in a task's grid: its cell, and its number within the cell."""

    length_s: float
    snr_db: float | None
    number: int


def places(options: LongOptions) -> Iterator[Place]:
    """The whole grid, one cell after another."""
    for length_s, snr_db in product(options.lengths_s, options.snrs_db):
        for number in range(options.n):
            yield Place(length_s, snr_db, number)


@dataclass(frozen=True)
class Row:
    """Sounds one after another in a background. `starts` and `durations` are those of the sounds, in samples."""

    source: LongSource
    starts: tuple[int, ...]
    durations: tuple[int, ...]

    @property
    def starts_s(self) -> str:
        """Where the sounds begin, for the metadata: seconds parted by spaces."""
        return " ".join(f"{start / RATE_HZ:.3f}" for start in self.starts)


def in_a_row(options: LongOptions, place: Place, clips: Sequence[Clip], longest_s: float) -> Row:
    """Put clips at random places, in this order and `GAP_S` apart at least.

    Args:
        options: of the task.
        place: the item's; its number and the seed decide the places, as shares of the length.
        clips: in the order in which they are heard. One may come several times.
        longest_s: how much of each is heard, in seconds.
    """
    from tasks._long_audio import Event, LongSource

    n_samples = round(place.length_s * RATE_HZ)
    duration_of = {clip: len(clip.samples(longest_s)) for clip in set(clips)}
    durations = tuple(duration_of[clip] for clip in clips)
    draws = random_of("places", options.seed, place.number)
    starts = tuple(spread(durations, n_samples, round(GAP_S * RATE_HZ), draws))
    events = tuple(Event(clip, start, longest_s) for clip, start in zip(clips, starts, strict=True))
    source = LongSource(n_samples, options.background_of(place.number), events, place.snr_db)
    return Row(source, starts, durations)


def room_for(n_events: int, longest_s: float) -> float:
    """Seconds that so many sounds in a row may need."""
    return n_events * longest_s + (n_events - 1) * GAP_S


def long_item(
    task: str,
    options: LongOptions,
    place: Place,
    source: AudioSource,
    event: str,
    references: Sequence[str],
    cluster: str,
    cell_more: str = "",
    **metadata: OptionValue,
) -> AudioItem:
    """One item.

    Args:
        task: the task's name, with which the id begins.
        options: of the task.
        place: the item's in the grid.
        source: what is heard.
        event: what is to be heard; results are split by it, and by the cell.
        references: right answers.
        cluster: which items the bootstrap draws together.
        cell_more: the part of a cell's name that this task alone has, such as "-d0.5".
        metadata: the task's own.
    """
    cell = cell_text(place.length_s, place.snr_db, options.background)
    shared: dict[str, OptionValue] = {
        "length_s": place.length_s,
        "snr_db": place.snr_db,
        "background": options.background,
        "event": event,
    }
    return AudioItem(
        item_id=f"{task}-{cell}{cell_more}-{place.number:03}",
        source=source,
        references=tuple(references),
        cluster=cluster,
        metadata={**shared, **metadata},
    )
