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
from typing import TYPE_CHECKING, Literal

from harness.contracts import AudioItem, AudioSource, Task
from harness.errors import OptionError
from tasks._items import check_option
from tasks._long_task import (
    RATE_HZ,
    LongOptions,
    balanced,
    cell_text,
    clip_for,
    event_labels,
    item_metadata,
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
    protocol: Literal["mixed", "dass"] = "mixed",
) -> Task:
    """Name the one sound in 10 s to hours of background, among 10 classes.

    Args:
        lengths: of the items, parted by commas: seconds, or as in 90s, 30min, 2.5h.
        depths: where the sound lies, from 0 (it begins) to 1 (it ends).
        snrs: signal-to-noise ratios in dB over the sound's span; without meaning for silence and mean_level.
        background: silence, white, babble, ambience, mean_level (with protocol=dass) or an audio file.
        n: items a cell of the grid.
        seed: decides clips and backgrounds.
        events: a folder with one folder of clips a label; the starter set's ten classes when None.
        protocol: "mixed" adds the sound to the background; "dass" puts it between two parts of it.

    Raises:
        OptionError: a value is wrong.
        MissingDataError: the folder of events is not there.
    """
    check_option("needle", "protocol", protocol, ("mixed", "dass"))
    options = long_options("needle", lengths, snrs, background, n, seed, events)
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
    make = partial(_mixed if protocol == "mixed" else _inserted, options)
    for length_s, snr_db, depth in product(options.lengths_s, options.snrs_db, depths):
        for number in range(options.n):
            label = balanced(options.labels, number, "needle", options.seed)
            clip = clip_for(clips, label, number, "needle", options.seed)
            yield make(clip, number, length_s, depth, snr_db)


def _mixed(
    options: LongOptions, clip: Clip, number: int, length_s: float, depth: float, snr_db: float | None
) -> AudioItem:
    from tasks._long_audio import Event, LongSource

    n_samples = round(length_s * RATE_HZ)
    n_event = len(Event(clip, 0, LONGEST_EVENT_S).samples())
    start = round(depth * (n_samples - n_event))
    source = LongSource(n_samples, options.background_of(number), (Event(clip, start, LONGEST_EVENT_S),), snr_db)
    return _item(options, source, clip, number, depth, snr_db, start, n_event)


def _inserted(
    options: LongOptions, clip: Clip, number: int, length_s: float, depth: float, snr_db: float | None
) -> AudioItem:
    from tasks._dass_haystack import FRAME, NEEDLE_SAMPLES, HaystackSource, needle_frame

    n_frames = round(length_s * RATE_HZ / FRAME)
    source = HaystackSource(n_frames, depth, clip, options.background_of(number), snr_db)
    start = needle_frame(n_frames, depth) * FRAME
    n_event = min(len(clip.samples()), NEEDLE_SAMPLES)
    return _item(options, source, clip, number, depth, snr_db, start, n_event)


def _item(
    options: LongOptions,
    source: AudioSource,
    clip: Clip,
    number: int,
    depth: float,
    snr_db: float | None,
    start: int,
    n_event: int,
) -> AudioItem:
    length_s = source.duration_s() or 0.0
    metadata = item_metadata(
        length_s,
        snr_db,
        options.background,
        clip.label,
        depth=depth,
        recording=clip.recording,
        start_s=start / RATE_HZ,
        event_s=n_event / RATE_HZ,
    )
    item_id = f"needle-{cell_text(length_s, snr_db, options.background)}-d{depth:g}-{number:03}"
    return AudioItem(item_id, source, (clip.label,), clip.recording, metadata)
