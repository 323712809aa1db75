"""Contract checks: what every model, task, scorer and metric promises, tried out on the real thing.

The `check` command shows them to whoever writes a plugin; the tests run them over every registered one. A claim is
checked by a function that returns the reason why it does not hold, or None.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness import registry
from harness.contracts import (
    Answer,
    AudioClip,
    AudioSource,
    BlockSource,
    DataOrigin,
    Decision,
    InspectableModel,
    ItemSet,
    Label,
    ModelAdapter,
    ModelDescription,
    Query,
    ScorableAnswer,
    Scored,
    Scorer,
    Task,
)
from harness.errors import AudioError, HarnessError, MetricUnavailable, MissingExtraError
from harness.promises import answer_problem, checked_answers, description_problems

Outcome = Literal["ok", "failed", "skipped"]
Claim = tuple[str, Callable[[], str | None]]

_PROMPT = "What is the sound?"
_LABELS = ("dog", "rain", "church bells")
# What metrics are tried on, as labels and as captions: long enough for sequences of four words.
_SENTENCES = ("a dog barks at the gate", "rain falls on some tin roof", "church bells ring in our town")
_CLIP_SECONDS = (1.0, 2.3, 0.6)
_DECODE_RATE_HZ = 16_000
_SCORE_TOLERANCE = 1e-3  # nats per token: float32 sums in another order, over padded batches
_SHOWN = 5


@dataclass(frozen=True)
class CheckResult:
    """One claim and how it went; `reason` is empty when it holds."""

    claim: str
    outcome: Outcome
    reason: str = ""


# --- models ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelReport:
    """A model's claims, and what it says of itself: after it was loaded where it could be; None where it says nothing.

    `kernels` are those in use, or those that would be where the weights are not there.
    """

    results: tuple[CheckResult, ...]
    description: ModelDescription | None = None
    kernels: Mapping[str, str] = field(default_factory=dict)


def check_model(
    name: str, options: Mapping[str, object] | None = None, device: str = "cpu", dtype: str = "float32"
) -> list[CheckResult]:
    """The claims of `inspect_model` alone."""
    return list(inspect_model(name, options, device, dtype).results)


def inspect_model(
    name: str, options: Mapping[str, object] | None = None, device: str = "cpu", dtype: str = "float32"
) -> ModelReport:
    """Check a model adapter on generated clips. Reads its weights; what needs a missing extra, or weights that are not
    there, is skipped with the reason.
    """
    made = _make("models", name, options)
    if isinstance(made, CheckResult):
        return ModelReport((made,))
    model: ModelAdapter = made
    results = _run_claims(
        [
            ("is a ModelAdapter", lambda: None if isinstance(model, ModelAdapter) else f"it is a {type(model)}"),
            ("describes itself before it is loaded", lambda: _wrong_description(model.describe(), name)),
        ]
    )
    if _any_failed(results):
        return ModelReport(tuple(results))
    description = model.describe()
    if isinstance(model, InspectableModel) and (missing := model.missing()):
        skipped = [CheckResult(claim, "skipped", missing) for claim in ("loads", "answers")]
        return ModelReport((*results, *skipped), description, model.kernels_on(device, dtype))
    loading = _run_claims([("loads", lambda: _cannot_load(model, device, dtype))])
    if loading[0].outcome != "ok":
        return ModelReport((*results, *loading), description)
    try:
        answering = _run_claims(_answer_claims(model, description))
        description = model.describe()
    finally:
        closing = _run_claims([("can be closed twice", lambda: _cannot_close(model))])
    return ModelReport((*results, *loading, *answering, *closing), description, description.kernels)


def _answer_claims(model: ModelAdapter, description: ModelDescription) -> list[Claim]:
    """What is asked of a loaded model; `description` is from before it was loaded, and was found right."""
    queries = example_queries(description.sample_rate_hz)
    return [
        ("describes itself after it is loaded", lambda: _wrong_description(model.describe(), description.name)),
        ("gives answers that a record can hold", lambda: _unusable_answers(model, queries)),
        ("gives no answers to no queries", lambda: _if(len(model.answer([])) != 0, "it gave some")),
        ("gives one answer a query", lambda: _wrong_count(model, queries)),
        ("answers alone as in a batch of mixed lengths", lambda: _differs_alone(model, queries)),
        ("answers in the order of the queries", lambda: _differs_rotated(model, queries)),
        ("gives the same answer twice", lambda: _difference(model.answer(queries), model.answer(queries))),
        ("scores each label when it says that it can", lambda: _wrong_scores(model, queries, description)),
        ("takes queries without labels", lambda: _wrong_length(model, [_without_labels(query) for query in queries])),
        ("hears no more frames than there are", lambda: _wrong_frames(model.answer(queries))),
    ]


def example_queries(sample_rate_hz: int) -> list[Query]:
    """Three different sounds of different lengths, about the same labels: a tone, noise and clicks."""
    import numpy as np

    random = np.random.default_rng(0)
    queries = []
    for number, seconds in enumerate(_CLIP_SECONDS):
        time_s = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
        sounds = (
            0.5 * np.sin(2 * np.pi * 440 * time_s),
            0.1 * random.standard_normal(len(time_s)),
            0.8 * (time_s % 0.1 < 0.002),
        )
        samples = sounds[number].astype(np.float32)
        clip = AudioClip(samples, sample_rate_hz, sample_rate_hz, 1, len(samples))
        queries.append(Query(f"check-{number}", clip, _PROMPT, _LABELS))
    return queries


def _without_labels(query: Query) -> Query:
    return Query(query.item_id, query.clip, query.prompt)


def _cannot_load(model: ModelAdapter, device: str, dtype: str) -> str | None:
    model.load(device, dtype)
    return None


def _cannot_close(model: ModelAdapter) -> str | None:
    model.close()
    model.close()
    return None


def _wrong_description(description: ModelDescription, name: str) -> str | None:
    empty = [f"{field} is empty" for field in ("summary", "length_policy") if not getattr(description, field, "")]
    return _joined([*description_problems(description, name), *empty])


def _unusable_answers(model: ModelAdapter, queries: Sequence[Query]) -> str | None:
    """What would stop a run, in answers with label scores and without."""
    answers = checked_answers(model.answer(queries), len(queries))
    answers += checked_answers(model.answer([_without_labels(query) for query in queries]), len(queries))
    problems = [answer_problem(answer) for answer in answers]
    return _joined(f"bad {problem}" for problem in problems if problem)


def _wrong_count(model: ModelAdapter, queries: Sequence[Query]) -> str | None:
    return _wrong_length(model, queries) or _joined(answer.error for answer in model.answer(queries))


def _wrong_length(model: ModelAdapter, queries: Sequence[Query]) -> str | None:
    """An answer may be an error: a model without words of its own cannot do without labels."""
    n_answers = len(model.answer(queries))
    return _if(n_answers != len(queries), f"{n_answers} answers to {len(queries)} queries")


def _differs_alone(model: ModelAdapter, queries: Sequence[Query]) -> str | None:
    alone = [answer for query in queries for answer in model.answer([query])]
    return _difference(alone, model.answer(queries))


def _differs_rotated(model: ModelAdapter, queries: Sequence[Query]) -> str | None:
    rotated = list(model.answer([*queries[1:], queries[0]]))
    return _difference(model.answer(queries), [*rotated[-1:], *rotated[:-1]])


def _difference(first: Sequence[Answer], second: Sequence[Answer]) -> str | None:
    if len(first) != len(second):
        return f"{len(first)} answers and {len(second)} answers"
    for one, other in zip(first, second, strict=True):
        if one.text != other.text:
            return f"'{one.text}' and '{other.text}'"
        if not _close(one.label_scores, other.label_scores):
            return f"label scores {one.label_scores} and {other.label_scores}"
    return None


def _close(first: Sequence[float] | None, second: Sequence[float] | None) -> bool:
    if first is None or second is None:
        return first is second
    pairs = zip(first, second, strict=False)
    return len(first) == len(second) and all(abs(one - other) <= _SCORE_TOLERANCE for one, other in pairs)


def _wrong_scores(model: ModelAdapter, queries: Sequence[Query], description: ModelDescription) -> str | None:
    for answer in model.answer(queries):
        scores = answer.label_scores
        if not description.can_score_labels and scores is not None:
            return "it gives label scores, and its description says that it cannot"
        if description.can_score_labels and (scores is None or len(scores) != len(_LABELS)):
            return f"{scores} for {len(_LABELS)} labels"
        if scores is not None and not all(math.isfinite(score) for score in scores):
            return f"a score is not finite: {scores}"
    return None


def _wrong_frames(answers: Sequence[Answer]) -> str | None:
    wrong = [answer for answer in answers if not 0 <= answer.frames_heard <= answer.frames_total]
    return _joined(f"heard {answer.frames_heard} of {answer.frames_total}" for answer in wrong)


# --- tasks -----------------------------------------------------------------------------------------------------------


def check_task(name: str, options: Mapping[str, object] | None = None) -> list[CheckResult]:
    """Check a task: what it says of itself, and its starter set if it has one, down to each file."""
    made = _make("tasks", name, options)
    if isinstance(made, CheckResult):
        return [made]
    if not isinstance(made, Task):
        return [CheckResult("is a Task", "failed", f"it is a {type(made)}")]
    return _run_claims([*_task_claims(made, name), *_starter_claims(made)])


def _task_claims(task: Task, name: str) -> list[Claim]:
    texts = ("summary", "citation", "licence", "homepage", "download")
    return [
        ("is named like its file", lambda: _if(task.name != name, f"its name is '{task.name}'")),
        ("has a version from 1", lambda: _if(task.version < 1, f"it is {task.version}")),
        ("says where it comes from", lambda: _joined(f"{text} is empty" for text in texts if not getattr(task, text))),
        ("has different labels", lambda: _wrong_labels(task)),
        ("has prompts, none empty", lambda: _wrong_prompts(task.prompts)),
        ("names metrics that exist", lambda: _unknown_metrics(task.metrics)),
        (
            "shows rows of its metadata",
            lambda: _if(not all(task.sample_rows) or not task.sample_rows, "there are none"),
        ),
        ("finds nothing in an empty folder", lambda: _found_in_nothing(task)),
    ]


def _wrong_labels(task: Task) -> str | None:
    if task.kind != "classification":
        return _if(bool(task.labels), "only classification has labels")
    return _joined(
        [
            _if(len(task.labels) < 2, f"there are {len(task.labels)}"),
            _repeated((label.name for label in task.labels), "name"),
            _repeated((label.text for label in task.labels), "text"),
            _if(not all(label.name and label.text.strip() for label in task.labels), "one is empty"),
        ]
    )


def _wrong_prompts(prompts: Mapping[str, str]) -> str | None:
    return _if(not prompts, "there are none") or _joined(
        f"'{name}'" for name, text in prompts.items() if not text.strip()
    )


def _unknown_metrics(metrics: Sequence[str]) -> str | None:
    unknown = [f"'{metric}' is none" for metric in metrics if metric not in registry.names("metrics")]
    return _if(not metrics, "it names none") or _joined(unknown)


def _found_in_nothing(task: Task) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        found = task.find(Path(folder))
    return _if(found is not None, f"it found {found}")


def _starter_claims(task: Task) -> list[Claim]:
    if task.read_starter is None or task.starter_root is None:
        has_half = task.read_starter is not None or task.starter_root is not None
        return [("has a starter set with its reader, or neither", lambda: _if(has_half, "one of the two is missing"))]
    try:
        found = task.read_starter(task.starter_root)
    except (HarnessError, OSError, ValueError, KeyError) as error:
        reason = _error_text(error)
        return [("has a starter set that reads", lambda: reason)]
    return [
        ("has a starter set with items", lambda: _if(not found.items, "there are none")),
        ("marks its starter set as one", lambda: _if(found.origin == "official", f"its origin is '{found.origin}'")),
        ("declares at least the items there are", lambda: _too_few_declared(found)),
        ("gives each item an id of its own", lambda: _repeated((item.item_id for item in found.items), "id")),
        ("gives each item a cluster", lambda: _joined(item.item_id for item in found.items if not item.cluster)),
        ("gives each item known references", lambda: _wrong_references(task, found)),
        ("has starter files that all decode", lambda: _undecodable(found)),
    ]


def _too_few_declared(found: ItemSet) -> str | None:
    return _if(found.n_declared < len(found.items), f"{found.n_declared} declared, {len(found.items)} there")


def _wrong_references(task: Task, found: ItemSet) -> str | None:
    known = {label.name for label in task.labels}
    return _joined(
        f"{item.item_id}: {', '.join(item.references) or 'none'}"
        for item in found.items
        if not item.references or (known and not known.issuperset(item.references))
    )


def _undecodable(found: ItemSet) -> str | None:
    problems = []
    for item in found.items:
        try:
            _listen(item.source, found.origin)
        except AudioError as error:
            problems.append(f"{item.item_id}: {error}")
    return _joined(problems)


def _listen(source: AudioSource, origin: DataOrigin) -> None:
    """Decode a clip to its end; of generated audio in blocks, of which there may be hours, the first block."""
    if origin == "generated" and isinstance(source, BlockSource):
        next(source.blocks(_DECODE_RATE_HZ))
    else:
        source.load(_DECODE_RATE_HZ)


# --- scorers and metrics ---------------------------------------------------------------------------------------------


def check_scorer(name: str, options: Mapping[str, object] | None = None) -> list[CheckResult]:
    """Check a scorer on answers that leave no doubt."""
    made = _make("scorers", name, options)
    if isinstance(made, CheckResult):
        return [made]
    scorer: Scorer = made
    labels = tuple(Label(text.replace(" ", "_"), text) for text in _LABELS)
    perfect = [_perfect_answer(right, labels) for right in range(len(labels))]
    names = [label.name for label in labels]
    return _run_claims(
        [
            ("is named like its file", lambda: _if(scorer.name != name, f"its name is '{scorer.name}'")),
            ("has a version from 1", lambda: _if(scorer.version < 1, f"it is {scorer.version}")),
            ("makes no decisions of no answers", lambda: _if(len(scorer.decide([], labels)) != 0, "it made some")),
            ("understands a perfect answer", lambda: _unequal(_decided(scorer, perfect, labels), names)),
            (
                "decides each answer by itself",
                lambda: _unequal(_decided(scorer, perfect[::-1], labels), names[::-1]),
            ),
            ("gives no scores or one a label", lambda: _wrong_decision_scores(scorer.decide(perfect, labels), labels)),
        ]
    )


def check_metric(name: str, options: Mapping[str, object] | None = None) -> list[CheckResult]:
    """Check a metric on items that are all right, all wrong, in another order, or none."""
    made = _make("metrics", name, options)
    if isinstance(made, CheckResult):
        return [made]
    perfect, wrong = _scored_items(shift=0), _scored_items(shift=1)
    # All items at once, and first: a metric that starts a program for items that it has not seen starts it once.
    mixed = [*perfect, *wrong]
    return _run_claims(
        [
            ("does not depend on the order", lambda: _order_matters(made, mixed)),
            ("is finite for perfect items", lambda: _if(not math.isfinite(made(perfect)), f"it is {made(perfect)}")),
            ("tells right from wrong", lambda: _if(made(perfect) == made(wrong), f"it is {made(wrong)} for both")),
            ("refuses an empty list with a ValueError", lambda: _accepts_nothing(made)),
        ]
    )


def _perfect_answer(right: int, labels: Sequence[Label]) -> ScorableAnswer:
    return ScorableAnswer(labels[right].text, _scores_for(right, len(labels)))


def _scores_for(right: int, n_labels: int) -> tuple[float, ...]:
    """Log-likelihoods (nats per token) that leave no doubt."""
    return tuple(-0.1 if number == right else -9.0 for number in range(n_labels))


def _decided(scorer: Scorer, answers: Sequence[ScorableAnswer], labels: Sequence[Label]) -> list[str | None]:
    return [decision.label for decision in scorer.decide(answers, labels)]


def _wrong_decision_scores(decisions: Sequence[Decision], labels: Sequence[Label]) -> str | None:
    lengths = {len(decision.scores) for decision in decisions if decision.scores is not None}
    return _if(not lengths <= {len(labels)}, f"{sorted(lengths)} scores for {len(labels)} labels")


def _scored_items(shift: int) -> list[Scored]:
    """Two items a sentence; each says and is decided for the one `shift` places on: 0 is all right, 1 all wrong."""
    items = []
    for number in range(2 * len(_SENTENCES)):
        said = (number + shift) % len(_SENTENCES)
        decision = Decision(_SENTENCES[said], _scores_for(said, len(_SENTENCES)))
        reference = _SENTENCES[number % len(_SENTENCES)]
        items.append(Scored(f"check-{number}", (reference,), f"cluster-{number}", True, decision, _SENTENCES[said]))
    return items


def _order_matters(metric: Callable[[Sequence[Scored]], float], items: list[Scored]) -> str | None:
    forwards, backwards = metric(items), metric(items[::-1])
    return _if(not math.isclose(forwards, backwards, rel_tol=1e-12), f"{forwards} forwards, {backwards} backwards")


def _accepts_nothing(metric: Callable[[Sequence[Scored]], float]) -> str | None:
    try:
        return f"it gives {metric([])}"
    except ValueError:
        return None


# --- running claims --------------------------------------------------------------------------------------------------


def _make(kind: str, name: str, options: Mapping[str, object] | None) -> Any:
    """The plugin's object, or the result that says why there is none. Unknown names and options are raised."""
    try:
        return registry.create(kind, name, options).value
    except MissingExtraError as error:
        return CheckResult("can be made", "skipped", str(error))


def _run_claims(claims: Iterable[Claim]) -> list[CheckResult]:
    return [_run_claim(claim, find_problem) for claim, find_problem in claims]


def _run_claim(claim: str, find_problem: Callable[[], str | None]) -> CheckResult:
    try:
        problem = find_problem()
    except (MissingExtraError, MetricUnavailable) as error:
        return CheckResult(claim, "skipped", str(error))
    # Whatever a plugin's own code raises is what this check is there to report.
    except Exception as error:
        return CheckResult(claim, "failed", _error_text(error))
    return CheckResult(claim, "failed", problem) if problem else CheckResult(claim, "ok")


def _any_failed(results: Iterable[CheckResult]) -> bool:
    return any(result.outcome == "failed" for result in results)


def _error_text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _if(is_wrong: bool, problem: str) -> str | None:
    return problem if is_wrong else None


def _unequal(found: object, expected: object) -> str | None:
    return _if(found != expected, f"{found} instead of {expected}")


def _repeated(values: Iterable[str], what: str) -> str | None:
    values = list(values)
    repeated = sorted({value for value in values if values.count(value) > 1})
    return _if(bool(repeated), f"{what} comes more than once: {_joined(repeated)}")


def _joined(problems: Iterable[str | None]) -> str | None:
    """The first few problems as one text; None when there are none."""
    found = [problem for problem in problems if problem]
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more if found else None
