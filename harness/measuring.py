"""What a metric's file has to offer beside the metric: resampling without the items, per-item values, remarks.

A file `harness/metrics/<name>.py` defines `<name>(scored)`, and may define

- `weighted(scored)`, which prepares per-item numbers once and returns a function from multiplicities, shape (n_items,),
  to the metric of the set in which each item stands so many times;
- `weighted_many(scored)`, the same for many resamples at once: from shape (n_items, n_resamples) to (n_resamples,);
- `per_item(scored)`, one number an item where the metric has such, else None;
- `remarks(scored)`, texts that a reader of the value needs;
- `KINDS`, the kinds of task that it means something for; all, where it is not there;
- `BOOTSTRAP_IS_BIASED`, True for a share in [0, 1] whose resamples have another mean than sets of the same size;
- `COUNTS_SETS`, True where every label that was decided counts, and not the one label alone.

Where one of these, or the metric, takes `labels`, it gets the names of the task's labels in the order of
`Decision.scores`; where it takes `gives_scores`, whether the scorer gives such scores. A metric that lacks both
weighted forms is computed anew for each resample.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

from harness.contracts import Metric, Scored
from harness.errors import HarnessError, MetricUnavailable, PluginError
from harness.promises import broken_plugin
from harness.statistics import Resampled

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# A metric and its weighted form add up in another order.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class BoundMetric:
    """A metric with its options, the task's label names, and whether the scorer gives scores (None: not known).

    Where each clip was asked `n_trials` times, under ids that end in "#1", "#2" and so on, the metric is the mean over
    these trials of its value in each.
    """

    name: str
    labels: tuple[str, ...]
    metric: Metric
    gives_scores: bool | None = None
    n_trials: int = 1

    def kinds(self) -> tuple[str, ...] | None:
        """Kinds of task that the metric means something for; None where it does not say."""
        found = self._global("KINDS")
        return None if found is None else tuple(found)

    @property
    def bootstrap_is_biased(self) -> bool:
        """Whether its interval must be moved by the bootstrap's bias."""
        return bool(self._global("BOOTSTRAP_IS_BIASED"))

    @property
    def counts_sets(self) -> bool:
        """Whether it counts every label that was decided."""
        return bool(self._global("COUNTS_SETS"))

    def value(self, scored: Sequence[Scored]) -> float:
        """The metric of some items.

        Raises:
            MetricUnavailable: it cannot be computed of them; what the metric raises as ValueError comes so too.
            PluginError: it raised anything else, or gave no number.
        """
        values = [self._number(self._call(self.metric, [scored[n] for n in part])) for part in self._trials(scored)]
        return sum(values) / len(values)

    def _number(self, value: object) -> float:
        if not isinstance(value, Real):
            raise PluginError(f"The metric '{self.name}' gave {value!r} where a number belongs.")
        return float(value)

    def resampled(self, scored: Sequence[Scored], value: float | None = None) -> Resampled:
        """The metric as a function of multiplicities, by the fastest way that the metric's file offers.

        Args:
            scored: every item once.
            value: the metric of them, where it is known already.

        Raises:
            MetricUnavailable: as in `value`; calling the result may raise it as well.
            PluginError: the weighted form and the metric disagree on the items as they are.
        """
        trials = self._trials(scored)
        if len(trials) > 1:
            alone = replace(self, n_trials=1)
            return _mean_over_trials([alone.resampled([scored[n] for n in part]) for part in trials], trials)
        many, one = self._companion("weighted_many"), self._companion("weighted")
        if many is not None:
            return self._checked(self._call(many, scored), scored, value)
        if one is not None:
            return self._checked(_column_by_column(self._call(one, scored)), scored, value)
        return functools.partial(_repeat_items, self.value, scored)

    def per_item(self, scored: Sequence[Scored]) -> npt.NDArray[np.float64] | None:
        """One number an item, or None where the metric has no such."""
        import numpy as np

        function = self._companion("per_item")
        if function is None:
            return None
        found = np.empty(len(scored))
        for part in self._trials(scored):
            found[part] = self._call(function, [scored[n] for n in part])
        return found

    def remarks(self, scored: Sequence[Scored]) -> tuple[str, ...]:
        """What a reader must know of the value."""
        function = self._companion("remarks")
        own = () if function is None else tuple(self._call(function, scored))
        return own if self.n_trials == 1 else (*own, f"mean over {self.n_trials} answers to each clip")

    def _trials(self, scored: Sequence[Scored]) -> list[list[int]]:
        """Places of the items of each trial; all together where there is one."""
        if self.n_trials == 1 or not scored:
            return [list(range(len(scored)))]
        parts: dict[str, list[int]] = {}
        for place, item in enumerate(scored):
            parts.setdefault(item.item_id.rpartition("#")[2], []).append(place)
        return list(parts.values())

    def _companion(self, name: str) -> Callable[..., Any] | None:
        """Another function of the metric's own file; None for a metric that is not its file's plugin."""
        found: Callable[..., Any] | None = self._global(name)
        return found

    def _global(self, name: str) -> Any:
        function = inspect.unwrap(getattr(self.metric, "func", self.metric))
        space = getattr(function, "__globals__", {})
        is_plugin = str(space.get("__name__", "")).endswith(getattr(function, "__name__", "?"))
        return space.get(name) if is_plugin else None

    def _call(self, function: Callable[..., Any], scored: Sequence[Scored]) -> Any:
        """Call with the labels, the scorer's promise and the metric's options, as far as the function takes them."""
        own = {"labels": self.labels, "gives_scores": self.gives_scores}
        given = {**getattr(self.metric, "keywords", {}), **own}
        known = inspect.signature(function).parameters
        with self._refusal_as_reason():
            return function(scored, **{name: value for name, value in given.items() if name in known})

    @contextmanager
    def _refusal_as_reason(self) -> Iterator[None]:
        """A metric that refuses the items must not cost the answers that were computed: its reason is recorded."""
        try:
            yield
        except ValueError as error:
            raise MetricUnavailable(f"the metric '{self.name}' refuses these items: {error}") from error
        except HarnessError:
            raise
        except Exception as error:
            raise broken_plugin(error, f"The metric '{self.name}' failed") from error

    def _checked(self, statistic: Resampled, scored: Sequence[Scored], value: float | None) -> Resampled:
        import numpy as np

        def translated(counts: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
            with self._refusal_as_reason():
                return statistic(counts)

        found = float(translated(np.ones((len(scored), 1), dtype=np.int32))[0])
        value = self.value(scored) if value is None else value
        if not math.isclose(found, value, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
            raise PluginError(f"The metric '{self.name}' is {value}, and its weighted form makes {found} of it.")
        return translated


def _mean_over_trials(statistics: Sequence[Resampled], trials: Sequence[Sequence[int]]) -> Resampled:
    """Trials share their clips, and so their clusters: one draw counts for all of them."""

    def values(counts: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        import numpy as np

        parts = [statistic(counts[list(part)]) for statistic, part in zip(statistics, trials, strict=True)]
        return np.asarray(sum(parts) / len(parts), dtype=np.float64)

    return values


def _column_by_column(statistic: Callable[[Any], float]) -> Resampled:
    def values(counts: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        import numpy as np

        return np.array([float(statistic(column)) for column in counts.T.astype(np.float64)])

    return values


def _repeat_items(
    metric: Callable[[Sequence[Scored]], float], scored: Sequence[Scored], counts: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """The slow way: the metric of the items themselves, each as often as it was drawn."""
    import numpy as np

    items = [[item for item, n in zip(scored, column, strict=True) for _ in range(n)] for column in counts.T]
    return np.array([metric(drawn) for drawn in items])
