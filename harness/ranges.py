"""Numbers of a training's settings, checked once where the settings are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.errors import UsageError


def check_ranges(config: Any, at_least_1: Sequence[str], positive: Sequence[str], at_least_0: Sequence[str]) -> None:
    """Refuse a number of a training's settings that is out of range.

    Args:
        config: whose fields the names are.
        at_least_1: counts.
        positive: above 0 and finite.
        at_least_0: 0 or above, and finite.

    Raises:
        UsageError: it names the field and its value.
    """
    for name in at_least_1:
        if getattr(config, name) < 1:
            raise UsageError(f"{name} must be at least 1, not {getattr(config, name)}")
    for name in positive:
        if not 0 < getattr(config, name) < math.inf:
            raise UsageError(f"{name} must be positive and finite, not {getattr(config, name)}")
    for name in at_least_0:
        if not 0 <= getattr(config, name) < math.inf:
            raise UsageError(f"{name} must be 0 or more and finite, not {getattr(config, name)}")
