"""What the captioning tasks share: the metrics they name, a question of our own, and asking for several captions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from harness.contracts import AudioItem
from harness.errors import OptionError

METRICS = ("spider", "spice", "cider_d", "meteor", "rouge_l", "bleu_4")
DIRECT_PROMPT = "Describe the sounds in the audio clip in one sentence."


def check_captions(task: str, captions: int) -> None:
    """Refuse to ask for no caption.

    Raises:
        OptionError: it is less than one.
    """
    if captions < 1:
        raise OptionError(f"{task} must ask for at least one caption a clip, not {captions}.")


def asked_often(items: Iterable[AudioItem], captions: int) -> list[AudioItem]:
    """Each item so many times, under ids of their own ("clip#2"), so that a model that samples says something else."""
    if captions == 1:
        return list(items)
    return [replace(item, item_id=f"{item.item_id}#{n}") for item in items for n in range(1, captions + 1)]
