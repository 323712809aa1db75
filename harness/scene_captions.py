"""Sentences that tell of sounds one after the other: references of the captioning task `soundscape`, and lessons."""

from __future__ import annotations

from collections.abc import Sequence


def scene_captions(labels: Sequence[str], behind: str | None) -> tuple[str, str]:
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
