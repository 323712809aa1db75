"""Two different sounds in a long background: which is first? Items are generated from a seed and never stored.

Two clips of the starter's test split, or of the user's own, of different classes and up to 3 s long, at random places
and half a second apart at least. The class of the first is the answer; who hears both and not the order is right in
half of the items. Item k has the same clips over the same background in every cell, at places that are the same shares
of the length.

Metadata: length_s, snr_db, background, event (the first), second, gap_s (from the first's end to the second's start),
first_s, second_s (where they begin), recordings (of both). The bootstrap's cluster is the first one's recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contracts import AudioItem, Task
from tasks._long_task import (
    RATE_HZ,
    LongOptions,
    any_clip,
    balanced,
    cell_text,
    clip_for,
    event_labels,
    item_metadata,
    long_options,
    long_task,
    random_of,
    require_room,
    spread,
)

if TYPE_CHECKING:
    from tasks._clips import Clip

LONGEST_EVENT_S = 3.0
GAP_S = 0.5
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
) -> Task:
    """Say which of two sounds is first in 10 s to hours of background.

    Args:
        lengths: of the items, parted by commas: seconds, or as in 90s, 30min, 2.5h.
        snrs: signal-to-noise ratios in dB over each sound's span; without meaning for silence.
        background: silence, white, babble, ambience or an audio file.
        n: items a cell of the grid.
        seed: decides clips, places and backgrounds.
        events: a folder with one folder of clips a label; the starter set's ten classes when None.

    Raises:
        OptionError: a value is wrong.
        MissingDataError: the folder of events is not there.
    """
    options = long_options("sound_order", lengths, snrs, background, n, seed, events)
    require_room("sound_order", options, 2 * LONGEST_EVENT_S + GAP_S)
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
    for length_s, snr_db in product(options.lengths_s, options.snrs_db):
        for number in range(options.n):
            first = balanced(options.labels, number, "order", options.seed)
            others = [label for label in options.labels if label != first]
            second = random_of("second", options.seed, number).choice(others)
            pair = [
                clip_for(clips, first, number, "order", options.seed),
                any_clip(clips, second, number, "second", options.seed),
            ]
            yield _item(options, pair, number, length_s, snr_db)


def _item(options: LongOptions, pair: list[Clip], number: int, length_s: float, snr_db: float | None) -> AudioItem:
    from tasks._long_audio import Event, LongSource

    n_samples = round(length_s * RATE_HZ)
    durations = [len(Event(clip, 0, LONGEST_EVENT_S).samples()) for clip in pair]
    starts = spread(durations, n_samples, round(GAP_S * RATE_HZ), random_of("places", options.seed, number))
    placed = tuple(Event(clip, start, LONGEST_EVENT_S) for clip, start in zip(pair, starts, strict=True))
    metadata = item_metadata(
        length_s,
        snr_db,
        options.background,
        pair[0].label,
        second=pair[1].label,
        gap_s=(starts[1] - starts[0] - durations[0]) / RATE_HZ,
        first_s=starts[0] / RATE_HZ,
        second_s=starts[1] / RATE_HZ,
        recordings=" ".join(clip.recording for clip in pair),
    )
    return AudioItem(
        item_id=f"sound_order-{cell_text(length_s, snr_db, options.background)}-{number:03}",
        source=LongSource(n_samples, options.background_of(number), placed, snr_db),
        references=(pair[0].label,),
        cluster=pair[0].recording,
        metadata=metadata,
    )
