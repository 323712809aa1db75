"""Which training left which weights: what tells the seeds of one recipe apart, and both from weights of unknown origin.

Two trainings are of one kind where all but the seed is the same: model and options, recipe and its version, clips, what
was held out, and every setting that decides the weights. Only their weights are seeds of one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.hashing import canonical_sha256
from harness.protocols import PROTOCOLS
from harness.records import ControlsRecord, RunRecord
from harness.report.loading import KeptTraining
from harness.report.rendering import DASH
from harness.results_frame import KeptRun
from harness.tables import model_text

# How a training was carried out; what was taken over from another training differs from seed to seed as the weights do.
_NOT_OF_THE_KIND = frozenset(
    "seed threads device checkpoint_every log_every "
    "hearing_from_sha256 hearing_seed start_weights_sha256 start_seed".split()
)

# What tells the four models of the 2x2 apart, and which weights they begin with.
_OF_THE_MODEL = frozenset("start_model encoder encoder_weights lm scan weights".split())


class Named(Protocol):
    """What is called by the model that was asked: a run, or controls. `place` tells it from all others."""

    @property
    def place(self) -> str:
        """Its folder."""

    @property
    def record(self) -> RunRecord | ControlsRecord:
        """What was asked of which model."""


@dataclass(frozen=True)
class Trained:
    """Weights that a training run of the results left.

    `kind` names all that decides them but the seed, `first_round_sha256` the first round that they or the training that
    they go on from began with; None where there is none or it is not known. `lessons` names what `kind` does but for
    what makes the model: two models of the same learned alike.
    """

    model: str
    recipe: str
    kind: str
    seed: int
    first_round_sha256: str | None
    lessons: str


def trained_weights(training: Iterable[KeptTraining]) -> dict[str, Trained]:
    """What left the weights of each SHA-256, of every training run that recorded weights and a seed."""
    known = {}
    for kept in training:
        weights = (kept.record or {}).get("weights_sha256")
        if isinstance(weights, str) and isinstance(config_of(kept.record or {}).get("seed"), int):
            known[weights] = kept
    found = {}
    for weights, kept in known.items():
        record = kept.record or {}
        begun = known.get(learned_from(record).get("start_weights_sha256", ""), kept)
        heard = learned_from(begun.record or {}).get("hearing_from_sha256") or begun.first_round_sha256
        named = (kept.model, recipe_text(record), kind_of(kept.model, record), config_of(record)["seed"])
        lessons = _lessons_of(record) + (_lessons_of(begun.record or {}) if begun is not kept else "")
        found[weights] = Trained(*named, first_round_sha256=heard, lessons=lessons)
    return found


def first_rounds_text(seeds: Mapping[str, Iterable[str]], trained: Mapping[str, Trained]) -> list[str]:
    """Which seeds of a model share a first round; nothing where each has its own.

    Args:
        seeds: by model, the hashes of its seeds' weights.
        trained: what left them.
    """
    models: dict[str, list[str]] = {}
    for model, hashes in seeds.items():
        by_round: dict[str, set[int]] = {}
        for known in (trained[sha256] for sha256 in set(hashes) if sha256 in trained):
            if known.first_round_sha256 is not None:
                by_round.setdefault(known.first_round_sha256, set()).add(known.seed)
        shared = sorted(sorted(group) for group in by_round.values() if len(group) > 1)
        if shared:
            models.setdefault(" and ".join(f"seeds {', '.join(map(str, group))}" for group in shared), []).append(model)
    told = [
        f"Of each of {', '.join(sorted(of))}, {shared} share one first round, in which the encoder learned."
        for shared, of in models.items()
    ]
    more = "Such seeds differ in the later rounds alone, so the intervals say less of training an encoder anew."
    return [*told, more] if told else []


def kind_of(model: str, record: Mapping[str, Any]) -> str:
    """A hash of all that decides the weights but the seed."""
    options = {name: value for name, value in record.get("model_options", {}).items() if name != "weights"}
    parts = (options, learned_from(record), config_of(record))
    told = [{name: value for name, value in part.items() if name not in _NOT_OF_THE_KIND} for part in parts]
    return canonical_sha256({"model": model, "told": told})


def _lessons_of(record: Mapping[str, Any]) -> str:
    """A hash of data, settings and options, but for the seed and what makes the model another."""
    options = {name: value for name, value in record.get("model_options", {}).items() if value is not None}
    parts = (options, learned_from(record), config_of(record))
    passed_over = _NOT_OF_THE_KIND | _OF_THE_MODEL
    return canonical_sha256(
        {"told": [{name: value for name, value in part.items() if name not in passed_over} for part in parts]}
    )


def recipe_text(record: Mapping[str, Any]) -> str:
    """The recipe and its version, such as "tiny 3"."""
    learned = learned_from(record)
    return f"{learned.get('recipe', DASH)} {learned.get('recipe_version', '')}".strip()


def learned_from(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a training record tells of its data."""
    found: Mapping[str, Any] = record.get("learned_from", {})
    return found


def config_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a training record."""
    found: Mapping[str, Any] = record.get("config", {})
    return found


# --- what runs are called --------------------------------------------------------------------------------------------


def row_names(runs: Iterable[Named], trained: Mapping[str, Trained]) -> dict[str, str]:
    """What each run's model is called, by the run's place: with its options, and with its weights or number type where
    runs of one model and options differ in them.

    Two runs have the same name only if model, variant, options, weights and number type are the same.
    """
    kept = list(runs)
    by_name: dict[str, list[Named]] = {}
    for run in kept:
        by_name.setdefault(plain_name(run), []).append(run)
    return {
        run.place: f"{name} [{', '.join(parts)}]" if parts else name
        for name, alike in by_name.items()
        for run, parts in zip(alike, _differences(alike, trained), strict=True)
    }


def plain_name(run: Named) -> str:
    """The model, and in brackets the options that were given and that a protocol did not give; not the weights."""
    record = run.record
    protocol = PROTOCOLS.get(record.protocol or "")
    fixed = {"variant", "weights", *(protocol.model_options if protocol else ())}
    given = {name: value for name, value in record.model.options_passed.items() if name not in fixed}
    if not given:
        return model_text(record)
    return f"{model_text(record)} ({', '.join(f'{name}={value}' for name, value in sorted(given.items()))})"


def _differences(runs: Sequence[Named], trained: Mapping[str, Trained]) -> list[list[str]]:
    """For each of some runs of one model and options, what tells its weights and number type from the others'."""
    weights = {run.record.model.weights_sha256 for run in runs}
    told = _weights_texts(weights, trained)
    dtypes = {run.record.dtype for run in runs}
    found = []
    for run in runs:
        parts = [told[run.record.model.weights_sha256]] if len(weights) > 1 else []
        found.append([*parts, run.record.dtype] if len(dtypes) > 1 else parts)
    return found


def _weights_texts(weights: Iterable[str | None], trained: Mapping[str, Trained]) -> dict[str | None, str]:
    """Several weights of one model by their seeds, with the recipe where they are of several kinds, and with the hash
    where both are not enough: two kinds of one recipe, a seed that was trained twice, or a training not known here."""
    known = {sha256: trained.get(sha256 or "") for sha256 in weights}
    recipes = {of.kind: of.recipe for of in known.values() if of is not None}
    alike = [*recipes.values()]
    names = {sha256: _seed_text(of, len(alike) > 1) for sha256, of in known.items() if of is not None}
    times = [*names.values()]
    found: dict[str | None, str] = {}
    for sha256, of in known.items():
        if of is None:
            found[sha256] = _hash_text(sha256)
        elif alike.count(of.recipe) == 1 and times.count(names[sha256]) == 1:
            found[sha256] = names[sha256]
        else:
            found[sha256] = f"{names[sha256]}, {_hash_text(sha256)}"
    return found


def _seed_text(of: Trained, has_recipe: bool) -> str:
    return f"{of.recipe}, seed {of.seed}" if has_recipe else f"seed {of.seed}"


def _hash_text(sha256: str | None) -> str:
    return f"weights {sha256[:8]}" if sha256 else "no weights"


def one_set_of_weights(runs: Sequence[KeptRun], trained: Mapping[str, Trained]) -> list[KeptRun]:
    """The runs without those of further seeds: of each model, the weights that come with it where those were asked.

    Where no run of a model and kind is without the option `weights`, the lowest seed stays.
    """
    stays: dict[tuple[str, str], tuple[bool, int]] = {}
    for run in runs:
        if (known := trained.get(run.record.model.weights_sha256 or "")) is not None:
            key = (model_text(run.record), known.kind)
            stays[key] = min(stays.get(key, _preference(run, known)), _preference(run, known))
    return [
        run
        for run in runs
        if (known := trained.get(run.record.model.weights_sha256 or "")) is None
        or known.seed == stays[model_text(run.record), known.kind][1]
    ]


def _preference(run: KeptRun, known: Trained) -> tuple[bool, int]:
    return "weights" in run.record.model.options_passed, known.seed
