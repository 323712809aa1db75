"""One short sound in a long background: which sound is it? Items are generated from a seed and never stored.

A grid of lengths, depths and signal-to-noise ratios, `n` items a cell. Depth 0 begins with the sound, depth 1 ends with
it. The sound is a clip of the starter's test split, up to 5 s long, or of the user's own; its class is the answer, and
the other classes are the wrong ones. Item k is the same clip over the same background in every cell.

`protocol=dass` follows DASS's needle in a haystack as far as audio can; see tasks/_dass_haystack.py for what differs
from the published one, and what was wrong there.

Metadata: length_s, depth, snr_db, background, event, recording, start_s, event_s.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from harness.contracts import AudioItem, AudioSource, Task
from harness.errors import OptionError
from tasks._items import check_option
from tasks._long_items import Place, long_item
from tasks._long_task import (
    RATE_HZ,
    LongOptions,
    balanced,
    clip_for,
    event_labels,
    long_options,
    long_task,
    numbers,
    require_room,
)
from tasks._prompts import LTU_CLASSIFICATION

if TYPE_CHECKING:
    from tasks._clips import Clip

Protocol = Literal["mixed", "dass"]
LONGEST_EVENT_S = 5.0
DASS_NEEDLE_S = 10.24
PROMPTS = {
    # The question of esc50, which the tiny models know.
    "classify": "Classify the sound event in the audio clip.",
    "which": "Which sound occurs in the audio clip?",
    "ltu": LTU_CLASSIFICATION,
}
SAMPLE_ROWS = (
    "item_id,length_s,depth,snr_db,background,event,recording,start_s,event_s",
    "needle-60s-snr10-white-d0.5-003,60,0.5,10,white,cow,megaglest_cow,29.325,1.35",
)


def needle(
    lengths: str = "10,60",
    depths: str = "0,0.5,1",
    snrs: str = "10",
    background: str = "white",
    n: int = 10,
    seed: int = 0,
    events: Path | None = None,
    sounds: str | None = None,
    protocol: Literal["mixed", "dass"] = "mixed",
) -> Task:
    """Name the one sound in 10 s to hours of background, among 10 classes or those that are given.

    Args:
        depths: where the sound lies, from 0 (it begins) to 1 (it ends).
        protocol: "mixed" adds the sound to the background; "dass" puts it between two parts of it, and allows the
            background mean_level.
        lengths, snrs, background, n, seed, events, sounds: see `long_options`.

    Raises:
        OptionError: a value is wrong.
        MissingDataError: the folder of events is not there.
    """
    check_option("needle", "protocol", protocol, ("mixed", "dass"))
    options = long_options("needle", lengths, snrs, background, n, seed, events, sounds)
    places = numbers("needle", "depths", depths, 0.0, 1.0)
    require_room("needle", options, LONGEST_EVENT_S if protocol == "mixed" else DASS_NEEDLE_S)
    if background == "mean_level" and protocol != "dass":
        raise OptionError("needle: the background mean_level has a level of its own: it needs protocol=dass.")
    return long_task(
        name="needle",
        summary="Name the one sound in 10 s to hours of background, generated.",
        labels=event_labels(options),
        prompts=PROMPTS,
        metrics=("accuracy",),
        sample_rows=SAMPLE_ROWS,
        read=lambda: list(_items(options, places, protocol)),
    )


def _items(options: LongOptions, depths: tuple[float, ...], protocol: Protocol) -> Iterator[AudioItem]:
    clips = options.clips()
    hide = partial(_mixed if protocol == "mixed" else _inserted, options)
    for length_s, snr_db, depth in product(options.lengths_s, options.snrs_db, depths):
        for number in range(options.n):
            label = balanced(options.labels, number, "needle", options.seed)
            clip = clip_for(clips, label, number, "needle", options.seed)
            source, start, n_event = hide(Place(length_s, snr_db, number), clip, depth)
            yield long_item(
                "needle",
                options,
                Place(source.duration_s() or 0.0, snr_db, number),
                source,
                event=clip.label,
                references=(clip.label,),
                cluster=clip.recording,
                cell_more=f"-d{depth:g}",
                depth=depth,
                recording=clip.recording,
                start_s=start / RATE_HZ,
                event_s=n_event / RATE_HZ,
            )


class Hidden(NamedTuple):
    """A sound in its background; where it begins and how long it is, in samples."""

    source: AudioSource
    start: int
    n_event: int


def _mixed(options: LongOptions, place: Place, clip: Clip, depth: float) -> Hidden:
    from tasks._long_audio import Event, LongSource

    n_samples = round(place.length_s * RATE_HZ)
    n_event = len(clip.samples(LONGEST_EVENT_S))
    start = round(depth * (n_samples - n_event))
    event = Event(clip, start, LONGEST_EVENT_S)
    return Hidden(LongSource(n_samples, options.background_of(place.number), (event,), place.snr_db), start, n_event)


def _inserted(options: LongOptions, place: Place, clip: Clip, depth: float) -> Hidden:
    from tasks._dass_haystack import FRAME, NEEDLE_SAMPLES, HaystackSource, needle_frame

    n_frames = round(place.length_s * RATE_HZ / FRAME)
    source = HaystackSource(n_frames, depth, clip, options.background_of(place.number), place.snr_db)
    return Hidden(source, needle_frame(n_frames, depth) * FRAME, min(len(clip.samples()), NEEDLE_SAMPLES))
