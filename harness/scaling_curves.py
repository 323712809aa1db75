"""From rows to curves: which points belong to one line, and which lines may be compared.

Points form one line when only their length differs; kernels and the way of launching them count too, so that a fused
scan and a plain one, or a graph and no graph, are never drawn as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.fits import Crossover, Curve, Growth, find_crossover, fit_growth
from harness.scaling_rows import Measured, PointKey, PointRow, SpreadRow, newest_points

TINY = "tiny"


@dataclass(frozen=True)
class Quantity:
    """A cost that a point has. `samples` gives its samples: none where it was not measured, one where it is exact."""

    name: str
    title: str
    unit: str
    samples: Callable[[Measured], Sequence[float]]


def _one(value: float | None) -> tuple[float, ...]:
    return () if value is None else (float(value),)


def _prefill(measured: Measured) -> Sequence[float]:
    return measured.samples.component_s.get("prefill", ()) if measured.prefill is not None else ()


def _beyond_model(measured: Measured) -> Sequence[float]:
    model, allocated = measured.memory.model, measured.memory.peak.allocated
    return () if model is None or allocated is None else (float(allocated - model),)


QUANTITIES: tuple[Quantity, ...] = (
    Quantity("total", "Total time", "s", lambda m: m.samples.total_s),
    Quantity("first_token", "Time to first token", "s", lambda m: m.samples.first_token_s),
    Quantity("prefill", "Prefill", "s", _prefill),
    Quantity("per_token", "Time per output token", "s", lambda m: m.samples.per_token_s),
    Quantity("allocated", "Peak allocated", "bytes", lambda m: _one(m.memory.peak.allocated)),
    # Beside gigabytes of weights even a cache that doubles with the length looks flat.
    Quantity("beyond_model", "Peak allocated beyond the model", "bytes", _beyond_model),
    Quantity("reserved", "Peak reserved", "bytes", lambda m: _one(m.memory.peak.reserved)),
    Quantity("process", "Process peak", "bytes", lambda m: _one(m.memory.peak.process)),
    Quantity("flops", "Operations", "FLOPs", lambda m: _one(m.flops)),
)
BY_NAME: Mapping[str, Quantity] = {quantity.name: quantity for quantity in QUANTITIES}
CROSSED = ("total", "first_token", "allocated", "reserved", "flops")


@dataclass(frozen=True)
class Conditions:
    """What two lines must share to stand in one figure."""

    step: str
    batch_size: int
    n_tokens: int
    device: str
    dtype: str
    threads: int
    graph: str

    @classmethod
    def of(cls, key: PointKey) -> Conditions:
        """The conditions of a point."""
        return cls(key.step, key.batch_size, key.n_tokens, key.device, key.dtype, key.threads, key.graph)

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' * (self.threads > 1)}" if self.device == "cpu" else ""
        tokens = f", {self.n_tokens} tokens" if self.step == "infer" else ""
        graph = "" if self.graph == "none" else f", graph {self.graph}"
        return f"{self.step}, batch {self.batch_size}{tokens}, {self.device}, {self.dtype}{threads}{graph}"


@dataclass(frozen=True)
class Line:
    """Points of one model in one way, by length; failed ones too.

    `label` has the options that are not the model's defaults, so that a cut of the audio or a slower scan never hides,
    and what else tells the line from others of its conditions.
    """

    label: str
    model: str
    variant: str
    conditions: Conditions
    kernels: Mapping[str, str]
    points: tuple[PointRow, ...]

    def curve(self, quantity: Quantity) -> Curve:
        """Samples by length, where they were measured."""
        measured = ((p.key.seconds, p.measured) for p in self.points)
        found = {seconds: tuple(quantity.samples(m)) for seconds, m in measured if m is not None}
        return {seconds: samples for seconds, samples in sorted(found.items()) if samples}

    @property
    def keeps_growing_state(self) -> bool | None:
        """Whether its language model keeps a cache that grows; None where no point tells."""
        for point in self.points:
            if point.measured is not None and point.measured.state.growing is not None:
                return point.measured.state.growing > 0
        return None


def lines_of(points: Iterable[PointRow]) -> list[Line]:
    """Points grouped into lines, in order of model; the newest point of each key counts.

    A failed point does not tell its kernels: it joins every line of its model and conditions.
    """
    rows = newest_points(list(points))
    groups: dict[tuple[object, ...], list[PointRow]] = {}
    for row in rows:
        if row.measured is not None:
            groups.setdefault((*_identity(row), _kernels(row)), []).append(row)
    for row in rows:
        if row.measured is None:
            homes = [key for key in groups if key[:-1] == _identity(row)]
            for key in homes or [(*_identity(row), ())]:
                groups.setdefault(key, []).append(row)
    lines = [_line(members) for members in groups.values()]
    return sorted(_told_apart(lines), key=lambda line: (str(line.conditions), line.label))


def growth_of(line: Line, quantity: Quantity) -> Growth | None:
    """The exponent of a line."""
    return fit_growth(line.curve(quantity))


@dataclass(frozen=True)
class Pair:
    """Two lines that differ in what `differs` names: `first` has the state-space part, `second` the transformer."""

    first: Line
    second: Line
    differs: str

    def crossover(self, quantity: Quantity) -> Crossover | None:
        """From which length on the first is cheaper."""
        return find_crossover(self.first.curve(quantity), self.second.curve(quantity))


# The 2x2: which of our models stands beside which, and in what they differ.
_COUNTERPARTS: tuple[tuple[str, str, str], ...] = (
    ("ssalm", "ltu", "whole model"),
    ("ssalm", "hybrid", "language model"),
    ("ast_mamba", "ltu", "language model"),
    ("ssalm", "ast_mamba", "encoder"),
    ("hybrid", "ltu", "encoder"),
)


def pairs_of(lines: Sequence[Line]) -> list[Pair]:
    """Lines under the same conditions to compare: those of the 2x2, tiny with tiny and published with published.

    Any other model whose state does not grow stands beside each one whose cache does.
    """
    named = {name for row in _COUNTERPARTS for name in row[:2]}
    pairs = []
    for first in lines:
        for second in lines:
            if first is second or first.conditions != second.conditions:
                continue
            differs = next((d for a, b, d in _COUNTERPARTS if (a, b) == (first.model, second.model)), None)
            is_same_scale = (first.variant == TINY) == (second.variant == TINY)
            if differs is not None and is_same_scale:
                pairs.append(Pair(first, second, differs))
            elif not {first.model, second.model} <= named and _is_constant_beside_growing(first, second):
                pairs.append(Pair(first, second, "model"))
    return pairs


def _is_constant_beside_growing(first: Line, second: Line) -> bool:
    return first.keeps_growing_state is False and second.keeps_growing_state is True


def median_of(spread: SpreadRow | None) -> float | None:
    """The median, where there is one."""
    return None if spread is None else spread.median


def _identity(row: PointRow) -> tuple[object, ...]:
    key = row.key
    return key.full_name, tuple(sorted(key.options.items())), key.fingerprint, Conditions.of(key)


def _kernels(row: PointRow) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(row.measured.kernels.items())) if row.measured is not None else ()


def _line(members: Sequence[PointRow]) -> Line:
    key = members[0].key
    kernels = next((dict(row.measured.kernels) for row in members if row.measured is not None), {})
    points = tuple(sorted(members, key=lambda row: row.key.seconds))
    return Line(_named(key), key.model, key.variant, Conditions.of(key), kernels, points)


def _named(key: PointKey) -> str:
    """The model and its options; random weights cost the same, and the variant is in the name."""
    hidden = {"variant": key.variant, "weights": "random"}
    options = [f"{name}={value}" for name, value in sorted(key.options.items()) if hidden.get(name) != value]
    return f"{key.full_name} ({', '.join(options)})" if options else key.full_name


def _told_apart(lines: Sequence[Line]) -> list[Line]:
    """Lines of one label under the same conditions get what differs, weights or kernels, into their labels."""
    told = []
    for line in lines:
        rivals = [o for o in lines if (o.label, o.conditions) == (line.label, line.conditions)]
        if len(rivals) > 1:
            facts = [{**{k: str(v) for k, v in o.points[0].key.options.items()}, **o.kernels} for o in rivals]
            own = facts[next(i for i, o in enumerate(rivals) if o is line)]
            differing = sorted(k for k in own if any(other.get(k) != own[k] for other in facts))
            suffix = ", ".join(f"{k}={own[k]}" for k in differing) or line.points[0].key.fingerprint[:8]
            label = f"{line.label[:-1]}, {suffix})" if line.label.endswith(")") else f"{line.label} ({suffix})"
            line = replace(line, label=label)
        told.append(line)
    return told
