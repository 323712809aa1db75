"""What one answer to a given length of audio takes, by model: the costs that stand beside scores."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from harness.report.loading import KeptScaling
from harness.report.rendering import DASH
from harness.scaling_curves import lines_of
from harness.scaling_rows import Measured
from harness.scaling_tables import NOISY, time_text

COST_NOTE = (
    "GFLOPs by formula. Peak: most that the allocator held, weights included, in 10^6 bytes. "
    f"{NOISY}: the interval of a time is wider than asked, or there are too few samples for one."
)
"""What tables say of their columns of costs (`cost_cells`)."""


@dataclass(frozen=True)
class CostsAt:
    """What one answer to audio of one length took, by model as it is typed, all under the same conditions."""

    kept: KeptScaling
    conditions: str
    by_model: Mapping[str, Measured]


def costs_at(seconds: float, scaling: Iterable[KeptScaling], models: Collection[str]) -> CostsAt | None:
    """The measurement that knows most of these models at this length, the newest of such; None where none knows any."""
    wanted = set(models)
    found = [_measured(kept, seconds, wanted) for kept in sorted(scaling, key=lambda kept: kept.place)]
    best = max(reversed(found), key=lambda costs: len(costs.by_model.keys() & wanted), default=None)
    return best if best is not None and best.by_model.keys() & wanted else None


def _measured(kept: KeptScaling, seconds: float, wanted: set[str]) -> CostsAt:
    """Of several conditions, those that most of the wanted models share; without options that change the cost."""
    found: dict[str, dict[str, Measured]] = {}
    for line in lines_of(kept.points):
        at_length = [p.measured for p in line.points if p.key.seconds == seconds and p.measured is not None]
        is_plain = line.label == line.points[0].key.full_name
        if at_length and is_plain and (line.conditions.step, line.conditions.batch_size) == ("infer", 1):
            found.setdefault(str(line.conditions), {})[line.label] = at_length[0]
    conditions = max(found, key=lambda shared: len(found[shared].keys() & wanted), default="")
    return CostsAt(kept, conditions, found.get(conditions, {}))


def cost_cells(measured: Measured | None) -> tuple[str, str, str]:
    """Operations in 10^9, time, and peak of the allocator in 10^6 bytes, as the tables show them."""
    if measured is None:
        return DASH, DASH, DASH
    allocated = measured.memory.peak.allocated
    return (
        DASH if measured.flops is None else f"{measured.flops / 1e9:.3g}",
        (NOISY if measured.noise else "") + time_text(measured.total.median),
        DASH if allocated is None else f"{allocated / 1e6:.3g}",
    )
