"""From a `run` command to a plan: every name resolved, the data found, all parts checked against each other.

Nothing heavy happens here: the model is made but its weights are not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from harness.answering import Question
from harness.config import RunConfig
from harness.contracts import AudioItem, ItemSet, ModelAdapter, ModelDescription, Task
from harness.datasets import audio_identity, find_items, header_seconds, item_set_hash, select_items
from harness.environment import deciding_versions
from harness.errors import OptionError, PluginError, UnknownNameError, UsageError
from harness.hashing import canonical_sha256
from harness.hearing import BatchItem, partition
from harness.leakage import find_leakage
from harness.progress import say_on_stderr
from harness.promises import described
from harness.protocols import follow
from harness.records import LeakageRow
from harness.registry import Created, code_fingerprint, create
from harness.run_folder import ID_LENGTH, task_folder
from harness.scores import RunFacts, check_metric_fits, check_scorer_fits, make_scorer, n_trials
from harness.scoring import VERBATIM, asked_labels

DEFAULT_SCORERS = ("exact", "loglik")
# `exact` gives no score for each label, and these metrics rank clips by such scores.
SCORING_DEFAULT_SCORERS = ("embed", "loglik")
METRICS_OF_SCORES = frozenset({"mean_ap", "mean_ap_ltu"})


@runtime_checkable
class CountsLabels(Protocol):
    """A floor that may look at how frequent a task's labels are, and must say so in its description: `majority`."""

    def count_labels(self, counts: Mapping[str, int]) -> None:
        """How many of the set's items have each label as a reference, by the label's text, in the task's order."""


@dataclass(frozen=True)
class Plan:
    """A command with every name and default resolved, before the model's weights are read.

    `given` is the command as it was typed; `config` the same with what its protocol fixes.
    """

    given: RunConfig
    config: RunConfig
    model: Created
    task: Created
    description: ModelDescription
    item_set: ItemSet
    items: tuple[AudioItem, ...]
    identities: tuple[str, ...]
    item_set_sha256: str
    prompt_name: str
    scorers: tuple[str, ...]
    wants_label_scores: bool
    device: str
    code_fingerprint: str
    versions: Mapping[str, str]
    leakage: LeakageRow | None

    @property
    def run_facts(self) -> RunFacts:
        """What scores depend on beside the answers."""
        flagged = frozenset(self.leakage.flagged) if self.leakage is not None else frozenset[str]()
        trials = n_trials(self.benchmark.kind, self.task.options_resolved)
        return RunFacts(self.description.length_policy, flagged, trials)

    @property
    def adapter(self) -> ModelAdapter:
        """The model."""
        adapter: ModelAdapter = self.model.value
        return adapter

    @property
    def benchmark(self) -> Task:
        """The task."""
        task: Task = self.task.value
        return task

    @property
    def question(self) -> Question:
        """What each item is asked."""
        if not self.wants_label_scores:
            return Question(self.benchmark.prompts[self.prompt_name], None)
        return Question(self.benchmark.prompts[self.prompt_name], asked_labels(self.benchmark.labels))

    @property
    def folder(self) -> Path:
        """Where the runs of this model on this task lie."""
        return task_folder(self.config.results, self.model.name, self.description.variant, self.task.name)

    def batches(self) -> list[tuple[BatchItem, ...]]:
        """A fixed partition of the items, so that a batch is the same whenever it is computed."""
        pairs = zip(self.items, self.identities, strict=True)
        items = [BatchItem(item, identity, header_seconds(item)) for item, identity in pairs]
        return partition(items, self.config.resolved_batch_size(), self.description.max_audio_s)

    def identity(self, wants_label_scores: bool | None = None) -> dict[str, Any]:
        """Everything that decides the predictions; `wants_label_scores` None stands for the plan's own."""
        wants = self.wants_label_scores if wants_label_scores is None else wants_label_scores
        # Left out where there is none, so that runs of before there were any are still found.
        protocol = {} if self.config.protocol is None else {"protocol": self.config.protocol}
        return protocol | {
            "model": self.model.name,
            "model_options": dict(self.model.options_resolved),
            "model_fingerprint": self.description.fingerprint,
            "task": self.task.name,
            "task_version": self.benchmark.version,
            "task_options": dict(self.task.options_resolved),
            "data_origin": self.item_set.origin,
            "item_set_sha256": self.item_set_sha256,
            "prompt_sha256": self.question.prompt_sha256,
            "wants_label_scores": wants,
            "seed": self.config.seed,
            "device": self.device,
            "dtype": self.config.resolved_dtype(),
            "threads": self.config.resolved_threads(),
            "batch_size": self.config.resolved_batch_size(),
            "code_fingerprint": self.code_fingerprint,
            "versions": dict(self.versions),
        }

    def run_id(self, wants_label_scores: bool | None = None) -> str:
        """Start of the identity's SHA-256."""
        return canonical_sha256(self.identity(wants_label_scores))[:ID_LENGTH]


def make_plan(config: RunConfig, say: Callable[[str], None] = say_on_stderr) -> Plan:
    """Resolve every name, find the data and check that all parts fit, without loading the model.

    Args:
        config: what is asked for.
        say: takes lines for the user.

    Raises:
        HarnessError: a name is unknown, an option is bad, the data is missing, or two parts do not fit.
    """
    given, config = config, follow(config)
    task = create("tasks", config.task, config.task_options)
    benchmark: Task = task.value
    prompt_name = _prompt_name(benchmark, config.prompt)
    for metric in benchmark.metrics:
        check_metric_fits(metric, benchmark.kind)
    model = _model(config)
    if not isinstance(model.value, ModelAdapter):
        raise PluginError(f"The model '{model.name}' lacks one of load, answer, describe and close.")
    description = described(model.value, model.name)
    scorers, wants_label_scores = _choose_scorers(config.scorers, description, benchmark)
    item_set = find_items(benchmark, config.data_root, say)
    if isinstance(model.value, CountsLabels):
        model.value.count_labels(_label_counts(benchmark, item_set))
        description = described(model.value, model.name)
    items = select_items(item_set.items, config.limit, config.items, config.seed)
    identities = tuple(audio_identity(item) for item in items)
    return Plan(
        given=given,
        config=config,
        model=model,
        task=task,
        description=description,
        item_set=item_set,
        items=items,
        identities=identities,
        item_set_sha256=item_set_hash(items, identities),
        prompt_name=prompt_name,
        scorers=scorers,
        wants_label_scores=wants_label_scores,
        device=config.resolved_device(),
        code_fingerprint=code_fingerprint(),
        versions=deciding_versions(),
        leakage=find_leakage(
            description.trained_on,
            task.name,
            item_set.origin,
            items,
            config.data_root,
            has_weights=description.weights_sha256 is not None,
        ),
    )


def _label_counts(task: Task, item_set: ItemSet) -> dict[str, int]:
    counted = Counter(reference for item in item_set.items for reference in set(item.references))
    return {text: counted[label.name] for text, label in zip(asked_labels(task.labels), task.labels, strict=True)}


def _model(config: RunConfig) -> Created:
    try:
        return create("models", config.model, config.all_model_options())
    except OptionError as error:
        if config.protocol is None:
            raise
        raise OptionError(f"{error} The protocol '{config.protocol}' is for models that take its options.") from error


def _prompt_name(task: Task, wanted: str | None) -> str:
    if wanted is None:
        return next(iter(task.prompts))
    if wanted not in task.prompts:
        raise UnknownNameError(f"prompt of the task {task.name}", wanted, task.prompts)
    return wanted


def _choose_scorers(wanted: Sequence[str], description: ModelDescription, task: Task) -> tuple[tuple[str, ...], bool]:
    """The scorers to use, and whether one of them needs label scores from the model."""
    for name in wanted:
        check_scorer_fits(name, task.kind)
    if task.kind != "classification":
        return _verbatim(description, task)
    names = tuple(wanted) or _default_scorers(task)
    scorers = [(name, make_scorer(name)) for name in names]
    for _, scorer in scorers:
        # A scorer may say now what it lacks, before the model has worked for hours.
        require_ready = getattr(scorer, "require_ready", None)
        if require_ready is not None:
            require_ready()
    needing = [name for name, scorer in scorers if scorer.needs_label_scores]
    if description.can_score_labels or not needing:
        return names, bool(needing) or description.needs_labels
    if wanted:
        raise UsageError(
            f"The scorer '{needing[0]}' needs a score for each label, and the model '{description.name}' gives none. "
            "Use a scorer that reads text, such as exact."
        )
    return tuple(name for name in names if name not in needing), False


def _verbatim(description: ModelDescription, task: Task) -> tuple[tuple[str, ...], bool]:
    if description.needs_labels:
        raise UsageError(f"The model '{description.name}' chooses among labels, and the task '{task.name}' has none.")
    return (VERBATIM,), False


def _default_scorers(task: Task) -> tuple[str, ...]:
    """`exact` first where a metric counts decisions: of clips with several sounds it alone decides for several."""
    if not METRICS_OF_SCORES.intersection(task.metrics):
        return DEFAULT_SCORERS
    counts_decisions = not METRICS_OF_SCORES.issuperset(task.metrics)
    return (*DEFAULT_SCORERS[:1], *SCORING_DEFAULT_SCORERS) if counts_decisions else SCORING_DEFAULT_SCORERS
