"""Formula against counter on one short answer, in a process of its own: whether all that works is counted."""

from __future__ import annotations

from typing import Any

from harness.contracts import CostedModel
from harness.flop_counting import FlopCounter
from harness.measure_point import made, noise_clips
from harness.point_summary import PROMPT, PointPlan
from harness.promises import described, load_model


def cover(**plan: Any) -> dict[str, Any]:
    """Count one answer.

    Args:
        plan: the fields of `harness.point_summary.PointPlan`.

    Returns:
        `formula_flops` and `counted_flops` by component, and `uncovered`: names of operators that must be counted and
        have no formula.
    """
    point = PointPlan(**{**plan, "plugins": tuple(plan["plugins"])})
    model: CostedModel = made(point).value
    load_model(model, point.model, point.device, point.dtype)
    rate = described(model, point.model).sample_rate_hz
    clips = noise_clips(point, rate)
    with FlopCounter() as counter:
        model.answer_metered(clips, PROMPT, point.n_tokens, counter)
    count = counter.count()
    formulas = model.work(round(point.seconds * rate), PROMPT, point.n_tokens, point.batch_size)
    return {
        "formula_flops": {component: work.flops for component, work in formulas.items()},
        "counted_flops": {component: count.flops(component) for component in formulas},
        "uncovered": sorted({operator.name for operator in count.uncovered if operator.must_count}),
    }
