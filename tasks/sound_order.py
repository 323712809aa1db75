"""Two different sounds in a long background: which is first? Items are generated from a seed and never stored.

Two clips of the starter's test split, or of the user's own, of different classes and up to 3 s long, at random places
and half a second apart at least. The class of the first is the answer; who hears both and not the order is right in
half of the items. Item k has the same clips over the same background in every cell, at places that are the same shares
of the length.

Metadata: length_s, snr_db, background, event (the first), second, gap_s (from the first's end to the second's start),
first_s, second_s (where they begin), recordings (of both). The bootstrap's cluster is the first one's recording.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contracts import AudioItem, Task
from tasks._long_items import in_a_row, long_item, places, room_for
from tasks._long_task import (
    RATE_HZ,
    LongOptions,
    any_clip,
    balanced,
    clip_for,
    event_labels,
    long_options,
    long_task,
    random_of,
    require_room,
)

if TYPE_CHECKING:
    from tasks._clips import Clip

LONGEST_EVENT_S = 3.0
PROMPTS = {
    "first": "Which sound event occurs first in the audio clip?",
    "closed": "Close-ended question: Which of the two sounds occurs first?",
}
SAMPLE_ROWS = (
    "item_id,length_s,snr_db,background,event,second,gap_s,first_s,second_s,recordings",
    "sound_order-60s-snr10-white-003,60,10,white,cow,frog,21.5,12.4,35.25,megaglest_cow bolitas_frog",
)


def sound_order(
    lengths: str = "10,60",
    snrs: str = "10",
    background: str = "white",
    n: int = 20,
    seed: int = 0,
    events: Path | None = None,
    sounds: str | None = None,
) -> Task:
    """Say which of two sounds is first in 10 s to hours of background.

    Args:
        lengths, snrs, background, n, seed, events, sounds: see `long_options`.

    Raises:
        OptionError: a value is wrong.
        MissingDataError: the folder of events is not there.
    """
    options = long_options("sound_order", lengths, snrs, background, n, seed, events, sounds)
    require_room("sound_order", options, room_for(2, LONGEST_EVENT_S))
    return long_task(
        name="sound_order",
        summary="Say which of two sounds is first in 10 s to hours of background, generated.",
        labels=event_labels(options),
        prompts=PROMPTS,
        metrics=("accuracy",),
        sample_rows=SAMPLE_ROWS,
        read=lambda: list(_items(options)),
        version=2,
    )


def _items(options: LongOptions) -> Iterator[AudioItem]:
    clips = options.clips()
    for place in places(options):
        pair = _pair(options, clips, place.number)
        row = in_a_row(options, place, pair, LONGEST_EVENT_S)
        yield long_item(
            "sound_order",
            options,
            place,
            row.source,
            event=pair[0].label,
            references=(pair[0].label,),
            cluster=pair[0].recording,
            second=pair[1].label,
            gap_s=(row.starts[1] - row.starts[0] - row.durations[0]) / RATE_HZ,
            first_s=row.starts[0] / RATE_HZ,
            second_s=row.starts[1] / RATE_HZ,
            recordings=" ".join(clip.recording for clip in pair),
        )


def _pair(options: LongOptions, clips: Mapping[str, Sequence[Clip]], number: int) -> list[Clip]:
    """The two clips of item `number`, of different classes."""
    first = balanced(options.labels, number, "order", options.seed)
    others = [label for label in options.labels if label != first]
    second = random_of("second", options.seed, number).choice(others)
    return [
        clip_for(clips, first, number, "order", options.seed),
        any_clip(clips, second, number, "second", options.seed),
    ]
