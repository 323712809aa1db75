"""Formula against counter on one short answer, in a process of its own: whether all that works is counted."""

from __future__ import annotations

from typing import Any

from harness.contracts import CostedModel
from harness.flop_counting import FlopCounter
from harness.measure_point import made, noise_clips
from harness.noise_bursts import PROMPT
from harness.point_summary import PointPlan
from harness.promises import described, load_model


def cover(**plan: Any) -> dict[str, Any]:
    """Count one answer.

    Args:
        plan: the fields of `harness.point_summary.PointPlan`.

    Returns:
        `formula_flops` and `counted_flops` by component, "outside" for what was counted before the model named one;
        `uncovered`: names of operators that must be counted and have no formula; `left_out`: those that need none, such
        as additions and norms, with the values that they returned.
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
    # What was counted where no formula knows of any work must not fall under the table.
    by_formula: dict[str, int] = {component: work.flops for component, work in formulas.items()}
    places = list(dict.fromkeys([*formulas, *(place for place in count.parts if count.flops(place))]))
    left_out: dict[str, int] = {}
    for operator in count.uncovered:
        if not operator.must_count:
            left_out[operator.name] = left_out.get(operator.name, 0) + operator.n_values
    return {
        "formula_flops": {place: by_formula.get(place, 0) for place in places},
        "counted_flops": {place: count.flops(place) for place in places},
        "uncovered": sorted({operator.name for operator in count.uncovered if operator.must_count}),
        "left_out": dict(sorted(left_out.items(), key=lambda pair: -pair[1])),
    }
