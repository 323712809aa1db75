"""Where two values of plain data differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

_TOLERANCE = 1e-9
# Sums of the same numbers in another order may leave this much where they cancel out.
_ZERO = 1e-15


def differing(stored: Any, made: Any, place: str = "") -> Iterator[str]:
    """Where two values of plain data differ, by their path; numbers may differ by one part in 10^9."""
    if isinstance(stored, Mapping) and isinstance(made, Mapping):
        for key in sorted(set(stored) | set(made), key=str):
            yield from differing(stored.get(key), made.get(key), f"{place}.{key}".lstrip("."))
    elif _is_list(stored) and _is_list(made) and len(stored) == len(made):
        for number, (one, other) in enumerate(zip(stored, made, strict=True)):
            yield from differing(one, other, f"{place}.{number}".lstrip("."))
    elif not _is_same(stored, made):
        yield f"{place}: {_short(stored)} stands there, {_short(made)} follows from the records"


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_ZERO)
    return bool(one == other)


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
