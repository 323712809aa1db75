"""Length policies that say in their name how much of a clip is heard: "first_10_24s" hears the first 10.24 s.

Such a cut is a choice that is part of the result, and its answers are scored; a clip that was cut by a model that says
nothing of the kind, or cut shorter than it says, is truncated, and counts as wrong.
"""

from __future__ import annotations

import re

_CUT = re.compile(r"first_(\d+)(?:_(\d+))?s\b")
# Frames begin and end within a window of 25 ms, and clips are counted in frames or in samples.
_TOLERANCE_S = 0.05


def named_cut_s(length_policy: str) -> float | None:
    """Seconds that a policy hears of every clip; None for a policy that names no cut.

    Args:
        length_policy: as a model describes itself: the policy's name, and words on it behind a colon.
    """
    found = _CUT.match(length_policy)
    return None if found is None else float(f"{found[1]}.{found[2] or 0}")


def is_named_cut(length_policy: str, duration_s: float | None, frames_heard: int, frames_total: int) -> bool:
    """Whether a clip that was heard in part was heard as far as the policy says.

    Args:
        length_policy: as the model describes it.
        duration_s: of the whole clip; None where that is not known, so that nothing can be told.
        frames_heard, frames_total: as in `Answer`.
    """
    cut_s = named_cut_s(length_policy)
    if cut_s is None or duration_s is None or frames_heard >= frames_total:
        return False
    return duration_s * frames_heard / frames_total >= min(cut_s, duration_s) - _TOLERANCE_S
