"""One to four different sounds in a long background: which occur? Items are generated from a seed and never stored.

Clips of the starter's test split, or of the user's own, each of another class and up to 1.5 s long, one after the other
at random places, half a second apart at least. Every class that occurs is a reference, so the labels are scored as
those of a multi-label set. With `answer=caption` the task is captioning instead, and the references are two sentences
that name the sounds in the order in which they are heard, and the background.

Item k has the same clips over the same background in every cell, at places that are the same shares of the length.

Metadata: length_s, snr_db, background, event (all of them, in order), n_events, starts_s, recordings. A cluster of the
bootstrap is a draw, in every cell; draws may share clips, of which each class has a few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.contracts import AudioItem, Task
from harness.errors import OptionError
from tasks._captions import DIRECT_PROMPT
from tasks._captions import METRICS as CAPTION_METRICS
from tasks._items import check_option
from tasks._long_task import (
    BACKGROUNDS,
    RATE_HZ,
    LongOptions,
    any_clip,
    balanced,
    cell_text,
    event_labels,
    item_metadata,
    long_options,
    long_task,
    random_of,
    require_room,
    spread,
)
from tasks._prompts import LTU_AUDIOCAPS, LTU_CLASSIFICATION

if TYPE_CHECKING:
    from tasks._clips import Clip

LONGEST_EVENT_S = 1.5
GAP_S = 0.5
MOST_EVENTS = 4
LABEL_PROMPTS = {
    "which": "Which sound events occur in the audio clip?",
    "ltu": LTU_CLASSIFICATION,
}
CAPTION_PROMPTS = {"describe": DIRECT_PROMPT, "ltu": LTU_AUDIOCAPS}
BACKGROUND_WORDS = {"white": "white noise", "babble": "many people talking"}
SAMPLE_ROWS = (
    "item_id,length_s,snr_db,background,event,n_events,starts_s,recordings",
    "soundscape-60s-snr10-white-003,60,10,white,cow frog,2,12.400 35.250,megaglest_cow bolitas_frog",
)


def soundscape(
    lengths: str = "10,60",
    snrs: str = "10",
    background: str = "white",
    n: int = 20,
    seed: int = 0,
    events: Path | None = None,
    answer: Literal["labels", "caption"] = "labels",
) -> Task:
    """Name each of one to four sounds in 10 s to hours of background.

    Args:
        lengths: of the items, parted by commas: seconds, or as in 90s, 30min, 2.5h.
        snrs: signal-to-noise ratios in dB over each sound's span; without meaning for silence.
        background: silence, white, babble, ambience or an audio file.
        n: items a cell of the grid.
        seed: decides clips, places and backgrounds.
        events: a folder with one folder of clips a label; the starter set's ten classes when None.
        answer: "labels" to be named, or a "caption" that tells of all sounds.

    Raises:
        OptionError: a value is wrong.
        MissingDataError: the folder of events is not there.
    """
    check_option("soundscape", "answer", answer, ("labels", "caption"))
    options = long_options("soundscape", lengths, snrs, background, n, seed, events)
    require_room("soundscape", options, MOST_EVENTS * LONGEST_EVENT_S + (MOST_EVENTS - 1) * GAP_S)
    if answer == "caption" and background not in BACKGROUNDS:
        raise OptionError("soundscape: a caption cannot tell what is in a background of your own: use answer=labels.")
    is_caption = answer == "caption"
    return long_task(
        name="soundscape",
        kind="captioning" if is_caption else "classification",
        summary="Name each of one to four sounds in 10 s to hours of background, generated.",
        labels=() if is_caption else event_labels(options),
        prompts=CAPTION_PROMPTS if is_caption else LABEL_PROMPTS,
        metrics=CAPTION_METRICS if is_caption else ("micro_f1", "mean_ap"),
        sample_rows=SAMPLE_ROWS,
        read=lambda: list(_items(options, is_caption)),
        version=2,
    )


def _items(options: LongOptions, is_caption: bool) -> Iterator[AudioItem]:
    clips = options.clips()
    most = min(MOST_EVENTS, len(options.labels))
    for length_s, snr_db in product(options.lengths_s, options.snrs_db):
        for number in range(options.n):
            n_events = balanced(range(1, most + 1), number, "n_events", options.seed)
            labels = random_of("labels", options.seed, number).sample(options.labels, n_events)
            drawn = [any_clip(clips, label, number, "soundscape", options.seed) for label in labels]
            yield _item(options, drawn, number, length_s, snr_db, is_caption)


def _item(
    options: LongOptions, clips: Sequence[Clip], number: int, length_s: float, snr_db: float | None, is_caption: bool
) -> AudioItem:
    from tasks._long_audio import Event, LongSource

    n_samples = round(length_s * RATE_HZ)
    durations = [len(Event(clip, 0, LONGEST_EVENT_S).samples()) for clip in clips]
    starts = spread(durations, n_samples, round(GAP_S * RATE_HZ), random_of("places", options.seed, number))
    placed = tuple(Event(clip, start, LONGEST_EVENT_S) for clip, start in zip(clips, starts, strict=True))
    labels = tuple(clip.label for clip in clips)
    background = options.background_of(number)
    metadata = item_metadata(
        length_s,
        snr_db,
        options.background,
        " ".join(labels),
        n_events=len(labels),
        starts_s=" ".join(f"{start / RATE_HZ:.3f}" for start in starts),
        recordings=" ".join(clip.recording for clip in clips),
    )
    return AudioItem(
        item_id=f"soundscape-{cell_text(length_s, snr_db, options.background)}-{number:03}",
        source=LongSource(n_samples, background, placed, snr_db),
        references=captions(labels, _heard_behind(options, number)) if is_caption else labels,
        cluster=f"draw-{number:03}",
        metadata=metadata,
    )


def captions(labels: Sequence[str], behind: str | None) -> tuple[str, str]:
    """Two sentences that name the sounds in the order in which they are heard.

    Args:
        labels: names of classes.
        behind: what is heard in the background, None for nothing.
    """
    words = [label.replace("_", " ") for label in labels]
    rest = f" with {behind} in the background" if behind else ""
    first = "The sound of " + " followed by ".join(words) + rest + "."
    second = "There is " + ", then ".join(words) + (f", while {behind} can be heard throughout." if behind else ".")
    return first, second


def _heard_behind(options: LongOptions, number: int) -> str | None:
    if options.background == "ambience":
        from tasks._backgrounds import Ambience

        background = options.background_of(number)
        assert isinstance(background, Ambience)
        return background.clip.label.replace("_", " ")
    return BACKGROUND_WORDS.get(options.background)
