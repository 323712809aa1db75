"""What the stress tests of long audio share: their options, their labels, and what they say of themselves.

An item is drawn by its number alone: item 7 of every length, depth and ratio has the same clips, and from its beginning
the same background, so that what differs between two cells of the grid is the cell and not the clips.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from harness.contracts import AudioItem, ItemSet, Label, Task, TaskKind
from harness.errors import OptionError
from tasks._labels import labels_from_names

if TYPE_CHECKING:
    from tasks._backgrounds import Background
    from tasks._clips import Clip

LABELS: tuple[str, ...] = (
    "dog",
    "rooster",
    "cow",
    "frog",
    "cat",
    "sheep",
    "crow",
    "chirping_birds",
    "glass_breaking",
    "car_horn",
)
"""Classes of the starter set that are events and no ambience, and of which the test split has three clips or more."""

AMBIENCES = ("rain", "sea_waves", "wind", "crickets", "crackling_fire")
"""Classes of the starter set that go on evenly, and of which the test split has clips of 3.5 s or more."""

NAMED_SOUNDS: Mapping[str, tuple[str, ...]] = {
    "esc10": (
        "dog",
        "rooster",
        "rain",
        "sea_waves",
        "crackling_fire",
        "clock_tick",
        "helicopter",
        "chainsaw",
    )
}
"""Sets of sounds by name. `esc10`: the classes of ESC-10 of which the test split has four clips or more. The tiny
models learned each from 27 clips or more, most of LABELS from two to four."""

BACKGROUNDS = ("silence", "white", "babble", "ambience", "mean_level")
BACKGROUNDS_WITHOUT_RATIO = ("silence", "mean_level")
LONGEST_S = 24 * 3600.0
RATE_HZ = 16_000
"""The rate at which everything is made; a model with another rate hears it resampled."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|min|h)?")
_SECONDS = {None: 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}
_STARTER = Path(__file__).parent / "starter" / "esc50"
T = TypeVar("T")


@dataclass(frozen=True)
class LongOptions:
    """The options that all four share, read from their texts.

    `snrs_db` is (None,) where the background has no power to compare with, or a level of its own. `labels` are those of
    the clips, in order; `events` is the user's folder, None for the starter set.
    """

    lengths_s: tuple[float, ...]
    snrs_db: tuple[float | None, ...]
    background: str
    n: int
    seed: int
    events: Path | None
    labels: tuple[str, ...]

    def clips(self) -> dict[str, tuple[Clip, ...]]:
        """The clips of each label."""
        from tasks._clips import folder_sounds, starter_sounds

        found = starter_sounds(self.labels) if self.events is None else folder_sounds(self.events, self.labels)
        return {label: tuple(clip for clip in found if clip.label == label) for label in self.labels}

    def background_of(self, number: int) -> Background:
        """The background of item `number`."""
        from tasks._backgrounds import make_background

        return make_background(self.background, seed_of("background", self.seed, number))


def long_options(
    task: str,
    lengths: str,
    snrs: str,
    background: str,
    n: int,
    seed: int,
    events: Path | None,
    sounds: str | None,
) -> LongOptions:
    """Read the options that all of them have.

    Args:
        task: the task's name, for messages.
        lengths: of the items, parted by commas: seconds, or as in 90s, 30min, 2.5h.
        snrs: signal-to-noise ratios in dB over each sound's span; without meaning for silence and mean_level.
        background: silence, white, babble, ambience or an audio file; for needle also mean_level.
        n: items a cell of the grid.
        seed: decides clips, places and backgrounds.
        events: a folder with one folder of clips a label; the starter set's test split when None.
        sounds: which classes, parted by commas, or the name of a set (`NAMED_SOUNDS`); when None ten of the starter
            set, or all of the folder's. Each is heard as often where `n` is a multiple of their number.

    Raises:
        OptionError: a value is no number, out of range, the background is none or may hold a sound that is asked for,
            or there are no clips of a sound.
        MissingDataError: the folder of events is not there, or holds no clips.
    """
    lengths_s = tuple(_seconds(task, text) for text in _words(task, "lengths", lengths))
    if len(set(lengths_s)) < len(lengths_s):
        raise OptionError(f"{task}: lengths '{lengths}' has a length twice.")
    ratios = numbers(task, "snrs", snrs, -60.0, 60.0)
    if n < 1:
        raise OptionError(f"{task} needs n of at least 1, not {n}.")
    labels = _labels(task, events, sounds)
    _check_background(task, background, labels)
    return LongOptions(
        lengths_s=lengths_s,
        snrs_db=(None,) if background in BACKGROUNDS_WITHOUT_RATIO else ratios,
        background=background,
        n=n,
        seed=seed,
        events=events,
        labels=labels,
    )


def numbers(task: str, option: str, text: str, low: float, high: float) -> tuple[float, ...]:
    """Numbers parted by commas, none twice.

    Raises:
        OptionError: one is no number between `low` and `high`, or comes twice.
    """
    values = []
    for word in _words(task, option, text):
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise OptionError(f"{task}: {option} '{word}' is no number from {low:g} to {high:g}.")
        values.append(value)
    if len(set(values)) < len(values):
        raise OptionError(f"{task}: {option} '{text}' has a value twice.")
    return tuple(values)


def require_room(task: str, options: LongOptions, needed_s: float) -> None:
    """Refuse lengths that might not hold an item's events.

    Raises:
        OptionError: one is shorter than `needed_s`.
    """
    shortest = min(options.lengths_s)
    if shortest < needed_s:
        raise OptionError(f"{task}: an item of {shortest:g} s has no room; lengths from {needed_s:g} s do.")


def random_of(*names: object) -> random.Random:
    """A generator that depends on the names and numbers alone, on every machine."""
    return random.Random(seed_of(*names))


def seed_of(*names: object) -> int:
    """A whole number below 2**63 from names and numbers."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, names)).encode()).digest()[:8], "big") >> 1


def balanced(values: Sequence[T], number: int, *names: object) -> T:
    """The value of item `number`: each comes once in as many items, in an order drawn anew for each round."""
    turn, place = divmod(number, len(values))
    order = list(values)
    random_of("order", *names, turn).shuffle(order)
    return order[place]


def clip_for(clips: Mapping[str, Sequence[Clip]], label: str, number: int, *names: object) -> Clip:
    """A clip of the label. Each of them comes before one repeats, where each round of labels has its own numbers."""
    return balanced(clips[label], number // len(clips), "clip", label, *names)


def any_clip(clips: Mapping[str, Sequence[Clip]], label: str, number: int, *names: object) -> Clip:
    """A clip of the label for item `number`, drawn anew each time: for labels that come at random, not in rounds."""
    return random_of("clip", *names, label, number).choice(clips[label])


def spread(durations: Sequence[int], n_samples: int, gap: int, draws: random.Random) -> list[int]:
    """Where events of these lengths begin, one after the other, at random with at least `gap` samples between them.

    Args:
        durations: samples of each, in the order in which they are heard.
        n_samples: of the item; at least that of all events and gaps.
        gap: samples.
        draws: as many numbers are drawn as there are events, whatever the length.
    """
    free = n_samples - sum(durations) - gap * (len(durations) - 1)
    places = sorted(draws.random() for _ in durations)
    before = [sum(durations[:number]) + gap * number for number in range(len(durations))]
    return [math.floor(place * free) + used for place, used in zip(places, before, strict=True)]


def cell_text(length_s: float, snr_db: float | None, background: str) -> str:
    """The part of an item's id that says its cell, such as "60s-snr10-white"."""
    name = background if "/" not in background and "\\" not in background else Path(background).stem
    ratio = "" if snr_db is None else f"-snr{snr_db:g}"
    return f"{length_s:g}s{ratio}-{name}"


def long_task(
    *,
    name: str,
    summary: str,
    labels: tuple[Label, ...],
    prompts: Mapping[str, str],
    metrics: tuple[str, ...],
    sample_rows: tuple[str, ...],
    read: Callable[[], Sequence[AudioItem]],
    version: int = 1,
    kind: TaskKind = "classification",
) -> Task:
    """A task whose items are generated when they are asked for."""

    def read_generated(root: Path) -> ItemSet:
        items = tuple(read())
        return ItemSet(items, "generated", len(items), root)

    return Task(
        name=name,
        version=version,
        kind=kind,
        summary=summary,
        labels=labels,
        prompts=prompts,
        metrics=metrics,
        citation="lalm-harness, generated stress tests of long audio",
        licence="clips of the starter sets: each its own (tasks/starter/esc50/LICENCES.md)",
        homepage="https://github.com/Saurabhbhati/DASS (the needle in a haystack that this follows)",
        download="nothing is to be fetched, as every item is generated: leave the data root out; clips of your own are "
        "given with -t events=FOLDER, one folder a label",
        sample_rows=sample_rows,
        find=_find_nothing,
        read_items=read_generated,
        starter_root=_STARTER,
        read_starter=read_generated,
    )


def event_labels(options: LongOptions) -> tuple[Label, ...]:
    """One label a class of clips."""
    return labels_from_names(options.labels)


def _find_nothing(folder: Path) -> None:
    """No folder holds what is never stored."""


def _labels(task: str, events: Path | None, sounds: str | None) -> tuple[str, ...]:
    from tasks._clips import folder_labels, starter_labels

    own = () if events is None else folder_labels(events)
    if sounds is None:
        return own or LABELS
    known = own or starter_labels()
    wanted = NAMED_SOUNDS.get(sounds, tuple(word.strip() for word in sounds.split(",")))
    for label in wanted:
        if label not in known:
            sets = "" if own else f", and the sets {', '.join(NAMED_SOUNDS)}"
            raise OptionError(f"{task}: sounds: there are no clips of '{label}'; there are {', '.join(known)}{sets}.")
    if len(set(wanted)) < len(wanted) or len(wanted) < 2:
        raise OptionError(f"{task}: sounds '{sounds}' must be two or more different ones.")
    return wanted


def _words(task: str, option: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise OptionError(f"{task}: {option} '{text}' is no list of numbers parted by commas.")
    return words


def _seconds(task: str, text: str) -> float:
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0.0 < seconds <= LONGEST_S:
        raise OptionError(f"{task}: the length '{text}' is none: give seconds, or as in 90s, 30min, 2.5h; at most 24h.")
    return seconds


def _check_background(task: str, background: str, labels: Sequence[str]) -> None:
    """Refuse at once, not at the first item, a wrong name, and a background of clips of what is asked for."""
    allowed = BACKGROUNDS if task == "needle" else BACKGROUNDS[:-1]
    if background not in allowed and not Path(background).is_file():
        raise OptionError(f"{task}: the background '{background}' is neither a file nor one of {', '.join(allowed)}.")
    both = [label for label in labels if label in AMBIENCES] if background == "ambience" else []
    if both:
        raise OptionError(f"{task}: background=ambience may itself be {', '.join(both)}: choose other sounds.")
