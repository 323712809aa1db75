"""One sound several times in a long background: how many times? Items are generated from a seed and never stored.

A clip of the starter's test split, or of the user's own, cut to 1 s, comes 1 to `most` times at random places, half a
second apart at least; the number is the answer. The clip is the same each time, and each time is one occurrence however
many barks it holds. Item k is the same clip and number over the same background in every cell, at places that are the
same shares of the length.

Metadata: length_s, snr_db, background, event, count, recording, starts_s.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.contracts import AudioItem, Label, Task
from harness.errors import OptionError
from tasks._long_items import in_a_row, long_item, places, room_for
from tasks._long_task import LongOptions, balanced, clip_for, long_options, long_task, require_room

LONGEST_EVENT_S = 1.0
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
    sounds: str | None = None,
) -> Task:
    """Count the occurrences of a sound in 10 s to hours of background, one to five.

    Args:
        most: the largest number, 2 to 10.
        lengths, snrs, background, n, seed, events, sounds: see `long_options`.

    Raises:
        OptionError: a value is wrong.
        MissingDataError: the folder of events is not there.
    """
    options = long_options("sound_count", lengths, snrs, background, n, seed, events, sounds)
    if not 2 <= most <= len(NUMBERS):
        raise OptionError(f"sound_count can count up to 2 to {len(NUMBERS)}, not {most}.")
    require_room("sound_count", options, room_for(most, LONGEST_EVENT_S))
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
    for place in places(options):
        label = balanced(options.labels, place.number, "count", options.seed)
        count = balanced(range(1, most + 1), place.number, "number", options.seed)
        clip = clip_for(clips, label, place.number, "count", options.seed)
        row = in_a_row(options, place, [clip] * count, LONGEST_EVENT_S)
        yield long_item(
            "sound_count",
            options,
            place,
            row.source,
            event=clip.label,
            references=(str(count),),
            cluster=clip.recording,
            count=count,
            recording=clip.recording,
            starts_s=row.starts_s,
        )
