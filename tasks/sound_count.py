"""One sound several times in a long background: how many times? Items are generated from a seed and never stored.

A clip of the starter's test split, or of the user's own, cut to 1 s, comes 1 to `most` times at random places, half a
second apart at least; the number is the answer. The clip is the same each time, and each time is one occurrence however
many barks it holds. Item k is the same clip and number over the same background in every cell, at places that are the
same shares of the length.

Metadata: length_s, snr_db, background, event, count, recording, starts_s.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contracts import AudioItem, Label, Task
from harness.errors import OptionError
from tasks._long_task import (
    RATE_HZ,
    LongOptions,
    balanced,
    cell_text,
    clip_for,
    item_metadata,
    long_options,
    long_task,
    random_of,
    require_room,
    spread,
)

if TYPE_CHECKING:
    from tasks._clips import Clip

LONGEST_EVENT_S = 1.0
GAP_S = 0.5
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PROMPTS = {
    "count": "How many times does the sound event occur in the audio clip?",
    "closed": "Close-ended question: How many times does the sound event occur?",
}
SAMPLE_ROWS = (
    "item_id,length_s,snr_db,background,event,count,recording,starts_s",
    "sound_count-60s-snr10-white-003,60,10,white,cow,2,megaglest_cow,12.4 41.0",
)


def sound_count(
    lengths: str = "10,60",
    snrs: str = "10",
    background: str = "white",
    most: int = 5,
    n: int = 25,
    seed: int = 0,
    events: Path | None = None,
) -> Task:
    """Count the occurrences of a sound in 10 s to hours of background, one to five.

    Args:
        lengths: of the items, parted by commas: seconds, or as in 90s, 30min, 2.5h.
        snrs: signal-to-noise ratios in dB over each occurrence's span; without meaning for silence.
        background: silence, white, babble, ambience or an audio file.
        most: the largest number, 2 to 10.
        n: items a cell of the grid.
        seed: decides clips, places and backgrounds.
        events: a folder with one folder of clips a label; the starter set's ten classes when None.

    Raises:
        OptionError: a value is wrong.
        MissingDataError: the folder of events is not there.
    """
    options = long_options("sound_count", lengths, snrs, background, n, seed, events)
    if not 2 <= most <= len(NUMBERS):
        raise OptionError(f"sound_count can count up to 2 to {len(NUMBERS)}, not {most}.")
    require_room("sound_count", options, most * LONGEST_EVENT_S + (most - 1) * GAP_S)
    return long_task(
        name="sound_count",
        summary="Count a sound in 10 s to hours of background, generated.",
        labels=tuple(Label(str(number), NUMBERS[number - 1]) for number in range(1, most + 1)),
        prompts=PROMPTS,
        metrics=("accuracy",),
        sample_rows=SAMPLE_ROWS,
        read=lambda: list(_items(options, most)),
    )


def _items(options: LongOptions, most: int) -> Iterator[AudioItem]:
    clips = options.clips()
    for length_s, snr_db in product(options.lengths_s, options.snrs_db):
        for number in range(options.n):
            label = balanced(options.labels, number, "count", options.seed)
            count = balanced(range(1, most + 1), number, "number", options.seed)
            yield _item(options, clip_for(clips, label, number, "count", options.seed), count, number, length_s, snr_db)


def _item(
    options: LongOptions, clip: Clip, count: int, number: int, length_s: float, snr_db: float | None
) -> AudioItem:
    from tasks._long_audio import Event, LongSource

    n_samples = round(length_s * RATE_HZ)
    n_event = len(Event(clip, 0, LONGEST_EVENT_S).samples())
    draws = random_of("places", options.seed, number)
    starts = spread([n_event] * count, n_samples, round(GAP_S * RATE_HZ), draws)
    placed = tuple(Event(clip, start, LONGEST_EVENT_S) for start in starts)
    metadata = item_metadata(
        length_s,
        snr_db,
        options.background,
        clip.label,
        count=count,
        recording=clip.recording,
        starts_s=" ".join(f"{start / RATE_HZ:.3f}" for start in starts),
    )
    return AudioItem(
        item_id=f"sound_count-{cell_text(length_s, snr_db, options.background)}-{number:03}",
        source=LongSource(n_samples, options.background_of(number), placed, snr_db),
        references=(str(count),),
        cluster=clip.recording,
        metadata=metadata,
    )
