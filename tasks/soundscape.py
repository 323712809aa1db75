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

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from harness.contracts import AudioItem, Task
from harness.errors import OptionError
from harness.scene_captions import scene_captions
from tasks._captions import DIRECT_PROMPT
from tasks._captions import METRICS as CAPTION_METRICS
from tasks._items import check_option
from tasks._long_items import in_a_row, long_item, places, room_for
from tasks._long_task import (
    BACKGROUNDS,
    LongOptions,
    any_clip,
    balanced,
    event_labels,
    long_options,
    long_task,
    random_of,
    require_room,
)
from tasks._prompts import LTU_AUDIOCAPS, LTU_CLASSIFICATION

LONGEST_EVENT_S = 1.5
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
    sounds: str | None = None,
    answer: Literal["labels", "caption"] = "labels",
) -> Task:
    """Name each of one to four sounds in 10 s to hours of background.

    Args:
        lengths, snrs, background, n, seed, events, sounds: see `long_options`.
        answer: "labels" to be named, or a "caption" that tells of all sounds.

    Raises:
        OptionError: a value is wrong.
        MissingDataError: the folder of events is not there.
    """
    check_option("soundscape", "answer", answer, ("labels", "caption"))
    options = long_options("soundscape", lengths, snrs, background, n, seed, events, sounds)
    require_room("soundscape", options, room_for(MOST_EVENTS, LONGEST_EVENT_S))
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
    for place in places(options):
        n_events = balanced(range(1, most + 1), place.number, "n_events", options.seed)
        labels = random_of("labels", options.seed, place.number).sample(options.labels, n_events)
        drawn = [any_clip(clips, label, place.number, "soundscape", options.seed) for label in labels]
        row = in_a_row(options, place, drawn, LONGEST_EVENT_S)
        yield long_item(
            "soundscape",
            options,
            place,
            row.source,
            event=" ".join(labels),
            references=scene_captions(labels, _heard_behind(options, place.number)) if is_caption else labels,
            cluster=f"draw-{place.number:03}",
            n_events=n_events,
            starts_s=row.starts_s,
            recordings=" ".join(clip.recording for clip in drawn),
        )


def _heard_behind(options: LongOptions, number: int) -> str | None:
    if options.background == "ambience":
        from tasks._backgrounds import Ambience

        background = options.background_of(number)
        assert isinstance(background, Ambience)
        return background.clip.label.replace("_", " ")
    return BACKGROUND_WORDS.get(options.background)
