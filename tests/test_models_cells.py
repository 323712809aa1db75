"""Encoder by language model: four tiny models matched in size and in hearing, and options that mean what they say."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from harness import registry
from harness.contracts import AudioClip, InspectableModel, Query, TrainableModel
from harness.errors import OptionError, UsageError
from models import ast_mamba, hybrid, ltu, ssalm
from models._cells import TINY_FRAMES
from models._lalm import LalmAdapter
from models.nn.hearing import OVERLAP_FRAMES, WINDOW_FRAMES
from models.nn.parts import part_counts
from models.nn.tiny import TRAINED_FRAMES, tiny

MODULES: dict[str, Any] = {"ssalm": ssalm, "ltu": ltu, "hybrid": hybrid, "ast_mamba": ast_mamba}
LABELS = ("dog", "sea waves")


def make(name: str, **options: Any) -> LalmAdapter:
    """A model as the registry would make it."""
    made: LalmAdapter = getattr(MODULES[name], name)(**options)
    return made


@functools.cache
def loaded(name: str, **options: Any) -> LalmAdapter:
    """A model with random weights, ready; shared by the tests, which do not change it."""
    model = make(name, weights="random", max_new_tokens=2, **options)
    model.load("cpu", "float32")
    return model


def query(seconds: float, seed: int = 0, labels: tuple[str, ...] | None = None) -> Query:
    samples = np.random.default_rng(seed).normal(0, 0.1, int(seconds * 16_000)).astype(np.float32)
    return Query(f"{seconds}-{seed}", AudioClip(samples, 16_000, 16_000, 1, len(samples)), "What is it?", labels)


def counts_of(name: str) -> dict[str, int]:
    cell = MODULES[name].CELL
    with torch.device("meta"):
        return part_counts(tiny(cell.hear, cell.speak))


# --- the 2x2 ---------------------------------------------------------------------------------------------------------


def test_the_four_models_are_each_pair_of_halves_once() -> None:
    halves = {(module.CELL.hear, module.CELL.speak) for module in MODULES.values()}
    assert halves == {(hear, speak) for hear in ("dass", "ast") for speak in ("mamba", "llama")}


@pytest.mark.parametrize("name", MODULES)
def test_the_variants_are_tiny_and_the_published_sizes(name: str) -> None:
    assert get_args(MODULES[name].Variant) == ("tiny", *MODULES[name].CELL.sizes)


@pytest.mark.parametrize(
    "parts", [("encoder", "connector"), ("language_model",), ("encoder", "connector", "language_model")]
)
def test_the_tiny_models_are_matched_within_five_percent(parts: tuple[str, ...]) -> None:
    sizes = [sum(counts_of(name)[part] for part in parts) for name in MODULES]
    assert max(sizes) / min(sizes) < 1.05


@pytest.mark.parametrize(
    ("first", "second", "part"),
    [
        ("ssalm", "hybrid", "encoder"),
        ("ltu", "ast_mamba", "encoder"),
        ("ssalm", "ast_mamba", "language_model"),
        ("ltu", "hybrid", "language_model"),
    ],
)
def test_models_that_share_a_half_have_the_same_one(first: str, second: str, part: str) -> None:
    assert counts_of(first)[part] == counts_of(second)[part]


@pytest.mark.parametrize("seconds", [0.01, 5.12, 7.3, 12.0])
def test_all_four_hand_over_as_many_audio_tokens(seconds: float) -> None:
    counts = set()
    for name in MODULES:
        counts.add(loaded(name).answer([query(seconds)])[0].n_audio_tokens)
    assert len(counts) == 1


def test_clips_are_padded_to_the_length_that_the_tiny_models_were_trained_on() -> None:
    assert TINY_FRAMES == TRAINED_FRAMES


# --- decoding --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=MODULES)
def loud(request: pytest.FixtureRequest) -> Iterator[Callable[[str], LalmAdapter]]:
    """Makes one of the four by its decoding, with random weights whose answers depend on what they hear."""

    def make_loud(decoding: str) -> LalmAdapter:
        made = make(request.param, decoding=decoding, max_new_tokens=12, weights="random")
        made.load("cpu", "float32")
        names = ("connector.linear.weight", "audio_proj.1.weight", "out_proj.weight", "o_proj.weight", "x_proj.weight")
        with torch.no_grad():
            for name, parameter in made._require_network().named_parameters():
                if name.endswith(names) and "encoder" not in name:
                    parameter.mul_(10)
        return made

    yield make_loud


@pytest.mark.parametrize("decoding", ["greedy", "ltu"])
def test_a_batch_of_eight_says_what_each_says_alone(loud: Callable[[str], LalmAdapter], decoding: str) -> None:
    model = loud(decoding)
    queries = [query(seconds, seed) for seed, seconds in enumerate([5.0, 0.4, 5.0, 6.5, 2.0, 5.0, 5.0, 1.0])]
    together = [answer.text for answer in model.answer(queries)]
    assert len(set(together)) > 1, "clips must differ in what is said of them"
    assert together == [model.answer([each])[0].text for each in queries]


def test_sampling_differs_with_the_seed_and_not_from_call_to_call() -> None:
    said = []
    for seed in (0, 0, 1):
        model = make("ssalm", decoding="ltu", seed=seed, max_new_tokens=20)
        model.load("cpu", "float32")
        # At a temperature of 0.1 trained answers hardly vary: noise at the end of a prompt of its own does.
        head = model._require_network().lm.backbone.embeddings.weight
        with torch.no_grad():
            head.mul_(0.05)
        said.append(model.answer([query(5.0)])[0].text)
    assert said[0] == said[1] != said[2]


def test_the_preset_of_ltu_is_the_published_one() -> None:
    assert make("ltu", decoding="ltu").describe().generation == {
        "decoding": "ltu",
        "max_new_tokens": 400,
        "temperature": 0.1,
        "top_p": 0.95,
        "top_k": 500,
        "repetition_penalty": 1.1,
        "seed": 0,
    }


# --- long audio ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_a_clip_of_more_than_one_window_is_heard_to_its_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.nn.hearing.WINDOW_FRAMES", 1024)
    long = query(12.0, labels=LABELS)
    silenced = long.clip.samples.copy()
    silenced[-16_000:] = 0.0
    cut = Query("cut", AudioClip(silenced, 16_000, 16_000, 1, len(silenced)), long.prompt, LABELS)
    first, second = loaded(name).answer([long, cut])
    assert first.frames_heard == first.frames_total == 1198
    assert first.label_scores != second.label_scores


@pytest.mark.parametrize("name", MODULES)
def test_a_clip_read_in_chunks_is_answered_as_one_read_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = query(12.0, labels=LABELS)
    at_once = loaded(name).answer([asked])[0]
    monkeypatch.setattr("models.nn.hearing.WINDOW_FRAMES", 1024)
    in_chunks = loaded(name).answer([asked])[0]
    assert (in_chunks.text, in_chunks.n_audio_tokens) == (at_once.text, at_once.n_audio_tokens)
    np.testing.assert_allclose(in_chunks.label_scores, at_once.label_scores, atol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("window_frames", [1024, 8192])
def test_the_published_cut_is_reported(name: str, window_frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.nn.hearing.WINDOW_FRAMES", window_frames)
    answer = loaded(name, length_policy="first_10_24s").answer([query(12.0)])[0]
    assert (answer.frames_total, answer.frames_heard, answer.n_audio_tokens) == (1198, 1024, 32)


def test_the_policy_names_the_window_of_the_network() -> None:
    policy = make("ssalm").describe().length_policy
    assert f"{WINDOW_FRAMES / 100:g} s" in policy and f"{2 * OVERLAP_FRAMES / 100:g} s" in policy


def test_another_length_policy_is_another_model_to_a_record() -> None:
    prints = {
        make("ssalm", weights="random", length_policy=policy).describe().fingerprint
        for policy in ("window", "full", "first_10_24s")
    }
    assert len(prints) == 3


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_every_model_can_be_trained_and_looked_at(name: str) -> None:
    assert isinstance(make(name), TrainableModel) and isinstance(make(name), InspectableModel)


@pytest.mark.parametrize("name", MODULES)
def test_random_weights_are_the_seeds_own_and_say_so(name: str) -> None:
    answers = []
    for seed in (0, 0, 1):
        model = make(name, weights="random", seed=seed, max_new_tokens=1)
        assert model.describe().trained_on.startswith("nothing: random weights")
        model.load("cpu", "float32")
        answers.append((model.describe().weights_sha256, model.answer([query(2.0, labels=LABELS)])[0].label_scores))
    assert answers[0] == answers[1]
    assert answers[0][0] != answers[2][0] and answers[0][1] != answers[2][1]


def test_random_weights_leave_torchs_generator_as_it_was() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    make("ssalm", weights="random").load("cpu", "float32")
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("option", [{"encoder": "small"}, {"connector": "pool"}, {"lora": False}, {"lm": Path(".")}])
def test_an_option_of_the_published_sizes_is_refused_by_a_tiny_model(option: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"'{next(iter(option))}' is an option of the published sizes"):
        make("ssalm", **option)


def test_a_scan_that_cannot_run_here_is_told_when_the_model_is_loaded() -> None:
    with pytest.raises(UsageError, match="scan=mamba_ssm"):
        make("ssalm", weights="random", scan="mamba_ssm").load("cpu", "float32")


@pytest.mark.parametrize("scan", ["torch", "numba"])
def test_answers_do_not_depend_on_the_scan_and_the_record_names_it(scan: str) -> None:
    scores = []
    for name in ("auto", scan):
        model = make("ssalm", weights="random", scan=name, max_new_tokens=1)
        model.load("cpu", "float32")
        scores.append(model.answer([query(1.0, labels=LABELS)])[0].label_scores)
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)
    assert model.describe().kernels["selective_scan"] == scan


def test_json_of_the_generation_settings_is_plain() -> None:
    assert json.loads(json.dumps(dict(make("ltu", decoding="ltu").describe().generation)))["decoding"] == "ltu"


def test_training_does_not_pass_over_weights_that_were_named(tmp_path: Path) -> None:
    made = registry.create("models", "ssalm", {"weights": str(tmp_path / "w.safetensors")}).value
    with pytest.raises(UsageError, match="leave out -m weights="):
        made.start_training(None, "cpu")


def test_a_device_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UsageError, match="The device 'nonsense' cannot be used"):
        registry.create("models", "ssalm").value.load("nonsense", "float32")
