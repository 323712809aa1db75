"""How long a metric and 1000 resamples of it take, at the size of the largest published test sets.

`python -m harness.bootstrap_times [--items N] [METRIC ...]` generates answers from a seed, and prints for each metric
the seconds of processor time of its value, of preparing the resamples, and of the interval. Captions are tokenized
already and SPICE is left out, so that Java is needed by METEOR alone; what Java does is not in METEOR's seconds.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence

from harness.contracts import Decision, Scored
from harness.errors import HarnessError
from harness.measuring import BoundMetric
from harness.registry import create
from harness.statistics import bootstrap_weighted_interval

N_ITEMS = 20_000
METRICS = (
    "accuracy",
    "micro_f1",
    "macro_f1",
    "mean_ap",
    "mean_ap_ltu",
    "wer",
    "bleu_1",
    "bleu_4",
    "rouge_l",
    "cider_d",
    "meteor",
)
_N_LABELS = 527
_N_WORDS = 2000
_N_REFERENCES = 5
_CAPTIONS = frozenset({"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "meteor", "spice", "spider"})


def labelled_items(n_items: int, seed: int = 0) -> tuple[list[Scored], tuple[str, ...]]:
    """Clips with two of 527 labels and a score for each, and the labels."""
    rng = random.Random(seed)
    labels = tuple(f"label {number}" for number in range(_N_LABELS))
    items = []
    for number in range(n_items):
        references = tuple(rng.sample(labels, 2))
        scores = tuple(rng.random() for _ in labels)
        decided = references[0] if rng.random() < 0.5 else labels[max(range(_N_LABELS), key=lambda n: scores[n])]
        items.append(Scored(str(number), references, str(number // 2), True, Decision(decided, scores)))
    return items, labels


def captioned_items(n_items: int, n_references: int = _N_REFERENCES, seed: int = 0) -> list[Scored]:
    """Clips with captions of 6 to 16 words, of which common ones come far more often than others."""
    rng = random.Random(seed)
    words = [f"w{number}" for number in range(_N_WORDS)]
    weights = [1 / (number + 1) for number in range(_N_WORDS)]

    def caption() -> str:
        return " ".join(rng.choices(words, weights, k=rng.randint(6, 16)))

    return [
        Scored(str(n), tuple(caption() for _ in range(n_references)), str(n // 2), True, Decision(None), caption())
        for n in range(n_items)
    ]


def items_for(name: str, n_items: int) -> tuple[list[Scored], tuple[str, ...]]:
    """Items that a metric means something for, and their labels, where they have some."""
    if name == "wer":
        return captioned_items(n_items, n_references=1), ()
    return (captioned_items(n_items), ()) if name in _CAPTIONS else labelled_items(n_items)


def bound_metric(name: str, labels: tuple[str, ...]) -> BoundMetric:
    """The metric as it is scored; captions count as tokenized."""
    options = {"tokenizer": "none"} if name in _CAPTIONS else {}
    return BoundMetric(name, labels, create("metrics", name, options).value)


def measure(name: str, items: Sequence[Scored], labels: tuple[str, ...]) -> tuple[float, float, float]:
    """Seconds of processor time for the value, for preparing resamples, and for 1000 of them.

    Raises:
        MetricUnavailable: the metric cannot be computed here.
    """
    bound = bound_metric(name, labels)
    clusters = [item.cluster for item in items]
    moments = [time.process_time()]
    value = bound.value(items)
    moments.append(time.process_time())
    resampled = bound.resampled(items, value)
    moments.append(time.process_time())
    bootstrap_weighted_interval(resampled, clusters)
    moments.append(time.process_time())
    return moments[1] - moments[0], moments[2] - moments[1], moments[3] - moments[2]


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 2 where a name is no metric."""
    parser = argparse.ArgumentParser(prog="python -m harness.bootstrap_times", description=__doc__.partition("\n")[0])
    parser.add_argument("metrics", nargs="*", default=METRICS, metavar="METRIC")
    parser.add_argument("--items", type=int, default=N_ITEMS)
    asked = parser.parse_args(words)
    line = "{:<12} {:>6} {:>9} {:>12} {:>17}".format
    print(line("metric", "items", "value s", "preparing s", "1000 resamples s"))
    for name in asked.metrics:
        items, labels = items_for(name, asked.items)
        try:
            cells = [f"{seconds:.2f}" for seconds in measure(name, items, labels)]
        except HarnessError as error:
            print(f"{name}: {error}", file=sys.stderr)
            cells = ["-"] * 3
        # At once: some take minutes.
        print(line(name, len(items), *cells), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
