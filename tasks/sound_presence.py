"""Is a certain sound in a long background? Yes or no. Items are generated from a seed and never stored.

A clip of the starter's test split, or of the user's own, up to 3 s long, at a random place: in every second item, as
drawn, one of the sound that is asked about, in the others one of another class. So who always says yes, or never hears
anything, is right in half of the items. Item k has the same clip over the same background in every cell, at a place
that is the same share of the length.

Metadata: length_s, snr_db, background, event, sound (that is asked about), recording, start_s.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.contracts import AudioItem, Label, Task
from harness.errors import OptionError
from tasks._labels import labels_from_names
from tasks._long_items import in_a_row, long_item, places
from tasks._long_task import (
    RATE_HZ,
    LongOptions,
    any_clip,
    balanced,
    long_options,
    long_task,
    random_of,
    require_room,
)

LONGEST_EVENT_S = 3.0
YES_NO = (Label("yes", "yes"), Label("no", "no"))
SAMPLE_ROWS = (
    "item_id,length_s,snr_db,background,event,sound,recording,start_s",
    "sound_presence-dog-60s-snr10-white-003,60,10,white,cow,dog,megaglest_cow,12.4",
)


def sound_presence(
    sound: str = "dog",
    lengths: str = "10,60",
    snrs: str = "10",
    background: str = "white",
    n: int = 40,
    seed: int = 0,
    events: Path | None = None,
    sounds: str | None = None,
) -> Task:
    """Say whether a certain sound is in 10 s to hours of background.

    Args:
        sound: the class that is asked about.
        lengths, snrs, background, n, seed, events, sounds: see `long_options`.

    Raises:
        OptionError: a value is wrong, or there are no clips of the sound.
        MissingDataError: the folder of events is not there.
    """
    options = long_options("sound_presence", lengths, snrs, background, n, seed, events, sounds)
    require_room("sound_presence", options, LONGEST_EVENT_S)
    if sound not in options.labels:
        raise OptionError(f"sound_presence: '{sound}' is none of the sounds, which are {', '.join(options.labels)}.")
    (words,) = (label.text for label in labels_from_names([sound]))
    return long_task(
        name="sound_presence",
        summary="Say whether a certain sound is in 10 s to hours of background, generated.",
        labels=YES_NO,
        prompts={
            "occurs": f"Does the sound event '{words}' occur in the audio clip?",
            "closed": f"Close-ended question: Is there the sound of '{words}' in the audio?",
        },
        metrics=("accuracy",),
        sample_rows=SAMPLE_ROWS,
        read=lambda: list(_items(options, sound)),
    )


def _items(options: LongOptions, sound: str) -> Iterator[AudioItem]:
    clips = options.clips()
    others = [label for label in options.labels if label != sound]
    for place in places(options):
        is_there = balanced((True, False), place.number, "presence", sound, options.seed)
        label = sound if is_there else random_of("other", sound, options.seed, place.number).choice(others)
        clip = any_clip(clips, label, place.number, "presence", options.seed)
        row = in_a_row(options, place, [clip], LONGEST_EVENT_S)
        yield long_item(
            f"sound_presence-{sound}",
            options,
            place,
            row.source,
            event=clip.label,
            references=("yes" if is_there else "no",),
            cluster=clip.recording,
            sound=sound,
            recording=clip.recording,
            start_s=row.starts[0] / RATE_HZ,
        )
