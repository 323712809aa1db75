"""Counting the floating-point operations of what really runs, by component, and naming what cannot be counted.

The cross-check of the formulas in `CostedModel.work`: every operator that torch dispatches is looked up among torch's
formulas (`torch.utils.flop_counter`, where models register their own operators) and ours (`harness/flop_formulas.py`,
which go first). An operator without a formula is listed with what it returned. Most of them are additions, norms and
copies, which formulas leave out too; but a product of matrices, an attention, a transform or a custom operator without
one would make a count too low without a trace, so `FlopCount.require_coverage` raises and names them.

Compiled code and replayed CUDA graphs never reach torch's dispatcher: count what runs eagerly, and time the rest.
One multiplication or one addition is one operation.

    with FlopCounter() as counter:
        model.answer_metered(clips, prompt, 32, counter)
    counter.count().require_coverage()
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from harness.contracts import Component
from harness.errors import HarnessError
from harness.flop_formulas import FORMULAS

Place = Component | Literal["outside"]
"""Where work was done; "outside" before the meter was told of any component."""

# Namespaces whose operators are known to torch, or move data between machines and compute nothing that is counted.
KNOWN_NAMESPACES = ("aten", "prim", "prims", "profiler", "c10d", "_c10d_functional")
# Names of torch's own operators that multiply and add by the row.
HEAVY = re.compile(
    r"(^|_)(mm|bmm|addmm|baddbmm|matmul|mv|addmv|addbmm|dot|vdot|inner|einsum|linear|bilinear|trilinear|cdist|linalg"
    r"|conv\d?d?|convolution|lstm|gru|rnn|attention|multi_head|fft|transformer)(_|\d|$)"
)
PARTS = (
    ("attention", re.compile(r"dot_product|attention")),
    ("scan", re.compile(r"scan")),
    ("convolution", re.compile(r"conv")),
    ("fourier", re.compile(r"_fft")),
    ("gate", re.compile(r"gate")),
)


class CoverageError(HarnessError):
    """Operators that must be counted have no formula, so no number of operations can be given."""


@dataclass(frozen=True)
class UncoveredOperator:
    """An operator without a formula: calls, and values that it returned, in all and at most in one call.

    `must_count` says that it may hold what formulas count: it is like a matrix product or an attention, or is no
    operator of torch's own.
    """

    name: str
    place: Place
    n_calls: int
    n_values: int
    most_values: int
    must_count: bool


@dataclass(frozen=True)
class FlopCount:
    """What was counted: operations by component and part ("linear", "attention", "scan", ...), and by operator."""

    parts: Mapping[Place, Mapping[str, int]]
    operators: Mapping[str, int]
    uncovered: tuple[UncoveredOperator, ...]

    def flops(self, place: Place) -> int:
        """Operations of one component."""
        return sum(self.parts.get(place, {}).values())

    @property
    def total(self) -> int:
        """Operations in all."""
        return sum(self.flops(place) for place in self.parts)

    def larger_than(self, n_values: int) -> tuple[UncoveredOperator, ...]:
        """Operators without a formula of which a call returned more than `n_values`, those with most values first."""
        large = [operator for operator in self.uncovered if operator.most_values > n_values]
        return tuple(sorted(large, key=lambda operator: -operator.n_values))

    def require_coverage(self) -> None:
        """Nothing, if all that must be counted was.

        Raises:
            CoverageError: it was not; the message names the operators.
        """
        missing = [operator for operator in self.uncovered if operator.must_count]
        if missing:
            named = "; ".join(f"{o.name} ({o.place}, {o.n_calls} calls, {o.n_values} values)" for o in missing)
            raise CoverageError(f"Operations cannot be counted, for want of a formula: {named}.")


class FlopCounter:
    """A `Meter` that counts what is dispatched while it is entered as a context manager. Use it once."""

    def __init__(self) -> None:
        self._place: Place = "outside"
        self._parts: dict[Place, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._operators: dict[str, int] = defaultdict(int)
        self._uncovered: dict[tuple[str, Place], UncoveredOperator] = {}
        self._watch: AbstractContextManager[Any] | None = None

    def __enter__(self) -> FlopCounter:
        self._watch = _watching(self)
        self._watch.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        assert self._watch is not None
        self._watch.__exit__(*raised)

    def enter(self, component: Component) -> None:
        """What follows is counted as this component's."""
        self._place = component

    def token(self) -> None:
        """Counts nothing."""

    def count(self) -> FlopCount:
        """What was counted so far."""
        return FlopCount(
            parts={place: dict(parts) for place, parts in self._parts.items()},
            operators=dict(self._operators),
            uncovered=tuple(self._uncovered.values()),
        )

    def _see(self, operator: Any, args: Any, kwargs: Mapping[str, Any], out: Any) -> None:
        """One call of an operator that torch does not take apart."""
        flops = _flops(operator, args, kwargs, out)
        name = _name(operator)
        if flops is None:
            self._see_uncovered(operator, name, out)
            return
        self._operators[name] += flops
        self._parts[self._place][_part(name)] += flops

    def _see_uncovered(self, operator: Any, name: str, out: Any) -> None:
        if _is_view(operator) or name.startswith("prim."):  # which asks a tensor for a fact, such as its device
            return
        n_values, key = _n_values(out), (name, self._place)
        before = self._uncovered.get(key) or UncoveredOperator(name, self._place, 0, 0, 0, _must_count(name))
        self._uncovered[key] = UncoveredOperator(
            name=name,
            place=self._place,
            n_calls=before.n_calls + 1,
            n_values=before.n_values + n_values,
            most_values=max(before.most_values, n_values),
            must_count=before.must_count,
        )


def _watching(counter: FlopCounter) -> AbstractContextManager[Any]:
    """Torch's hook on every operator; one that is only made of others is taken apart, as torch's counter does."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        supports_higher_order_operators = True

        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if isinstance(operator, torch._ops.OpOverload) and _name(operator) not in FORMULAS:
                if operator is not torch.ops.prim.device.default:
                    with self:
                        out = operator.decompose(*args, **kwargs)
                    if out is not NotImplemented:
                        return out
            out = operator(*args, **kwargs)
            counter._see(operator, args, kwargs, out)
            return out

    return Watch()  # type: ignore[no-untyped-call]


def _flops(operator: Any, args: Any, kwargs: Mapping[str, Any], out: Any) -> int | None:
    """By our formula or torch's; None where there is none."""
    from torch.utils.flop_counter import flop_registry

    formula = FORMULAS.get(_name(operator))
    if formula is not None:
        names = [argument.name for argument in operator._schema.arguments]
        return formula({**dict(zip(names, args, strict=False)), **kwargs}, out)
    registered = flop_registry.get(getattr(operator, "_overloadpacket", operator))
    return None if registered is None else int(registered(*args, **kwargs, out_val=out))


def _name(operator: Any) -> str:
    """As in "aten.mm", without the overload."""
    return str(getattr(operator, "_overloadpacket", operator))


def _part(name: str) -> str:
    return next((part for part, pattern in PARTS if pattern.search(name)), "linear")


def _must_count(name: str) -> bool:
    namespace, _, own = name.rpartition(".")
    return namespace not in KNOWN_NAMESPACES or HEAVY.search(own) is not None


def _is_view(operator: Any) -> bool:
    """Whether the operator only looks at its input in another shape."""
    returns = getattr(getattr(operator, "_schema", None), "returns", ())
    aliases = [r.alias_info for r in returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _n_values(out: Any) -> int:
    from torch.utils._pytree import tree_leaves

    return sum(int(leaf.numel()) for leaf in tree_leaves(out) if hasattr(leaf, "numel"))
