"""A measured answer is the model's own answer, told apart by component, and costs what the formulas say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from harness.contracts import AudioClip, Component, CostedModel, Query
from harness.errors import ItemError, ModelLimitError
from harness.flop_counting import FlopCount, FlopCounter
from models._lalm import LalmAdapter
from models._metered import _regrouped
from models.ast_mamba import ast_mamba
from models.hybrid import hybrid
from models.ltu import ltu
from models.nn.streaming import regroup
from models.ssalm import ssalm

MODELS: dict[str, Any] = {"ssalm": ssalm, "ltu": ltu, "hybrid": hybrid, "ast_mamba": ast_mamba}
PROMPT = "Which sound event is in the clip?"
N_TOKENS = 4
# Shorter than what the models were trained on; some encoder passes of AST; longer than one window of DASS.
LENGTHS_S = (1.0, 9.0, 100.0)
LONG_S = 100.0


class Diary:
    """A meter that keeps what it is told: components in order, each change once, and "token"."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def enter(self, component: Component) -> None:
        if self.lines[-1:] != [component]:
            self.lines.append(component)

    def token(self) -> None:
        self.lines.append("token")


@cache
def adapter(name: str) -> LalmAdapter:
    made: LalmAdapter = MODELS[name](weights="random")
    made.load("cpu", "float32")
    return made


def clip(seconds: float, seed: int = 0) -> AudioClip:
    samples = np.random.default_rng(seed).normal(0, 0.1, int(seconds * 16_000)).astype(np.float32)
    return AudioClip(samples, 16_000, 16_000, 1, len(samples))


@cache
def counted(name: str, seconds: float) -> FlopCount:
    with FlopCounter() as counter:
        adapter(name).answer_metered([clip(seconds)], PROMPT, N_TOKENS, counter)
    return counter.count()


@pytest.mark.parametrize("seconds", LENGTHS_S)
@pytest.mark.parametrize("name", MODELS)
def test_every_component_costs_what_the_formulas_say_within_a_hundredth(name: str, seconds: float) -> None:
    count = counted(name, seconds)
    work = adapter(name).work(len(clip(seconds).samples), PROMPT, N_TOKENS)
    assert {part: count.flops(part) for part in work} == pytest.approx(
        {part: of.flops for part, of in work.items()}, rel=0.01
    )


@pytest.mark.parametrize("name", MODELS)
def test_nothing_that_must_be_counted_lacks_a_formula_and_nothing_falls_outside(name: str) -> None:
    count = counted(name, 9.0)
    count.require_coverage()
    assert "outside" not in count.parts


@pytest.mark.parametrize("name", MODELS)
def test_attention_and_scan_are_counted_to_the_last_operation(name: str) -> None:
    count, work = counted(name, 9.0), adapter(name).work(9 * 16_000, PROMPT, N_TOKENS)
    for component, of in work.items():
        for part in ("attention", "scan"):
            assert count.parts[component].get(part, 0) == of.parts.get(part, 0)


@pytest.mark.parametrize(
    ("name", "policy"), [("ssalm", "full"), ("hybrid", "first_10_24s"), ("ltu", "interpolate"), ("ltu", "first_10_24s")]
)
def test_every_length_policy_costs_what_the_formulas_say(name: str, policy: str) -> None:
    made = MODELS[name](weights="random", length_policy=policy)
    made.load("cpu", "float32")
    with FlopCounter() as counter:
        made.answer_metered([clip(12.0)], PROMPT, 1, counter)
    work = made.work(12 * 16_000, PROMPT, 1)
    assert counter.count().total == pytest.approx(sum(of.flops for of in work.values()), rel=0.01)


def test_two_clips_together_cost_twice_one() -> None:
    made = adapter("ssalm")
    with FlopCounter() as counter:
        made.answer_metered([clip(5.0, 1), clip(5.0, 2)], PROMPT, 2, counter)
    two, one = (made.work(5 * 16_000, PROMPT, 2, n) for n in (2, 1))
    assert counter.count().total == pytest.approx(sum(of.flops for of in two.values()), rel=0.01)
    assert all(two[part].flops == 2 * one[part].flops for part in one)


@pytest.mark.parametrize("name", MODELS)
def test_work_is_known_before_anything_is_loaded(name: str) -> None:
    made: CostedModel = MODELS[name](weights="random")
    assert made.work(16_000, PROMPT, N_TOKENS) == adapter(name).work(16_000, PROMPT, N_TOKENS)


def test_parts_add_up_to_the_operations() -> None:
    for of in adapter("hybrid").work(160_000, PROMPT, N_TOKENS).values():
        assert sum(of.parts.values()) == of.flops
        assert 0 <= 2 * of.macs <= of.flops and of.other > 0


def test_what_mamba2_would_take_as_a_recurrence_stands_beside_what_it_does() -> None:
    made = ssalm(variant="mamba2-130m", weights="random")
    assert isinstance(made, CostedModel)
    prefill = made.work(160_000, PROMPT, 2)["prefill"]
    plain = prefill.parts["scan as a recurrence"]
    assert plain > 0 and prefill.parts["scan"] > 0
    assert sum(prefill.parts.values()) == prefill.flops + plain


@pytest.mark.parametrize(("name", "seconds"), [*((name, 9.0) for name in MODELS), ("ssalm", LONG_S), ("ltu", LONG_S)])
def test_a_measured_answer_begins_as_the_models_own(name: str, seconds: float) -> None:
    made = adapter(name)
    ids = list(made.answer_metered([clip(seconds)], PROMPT, N_TOKENS, Diary())[0])
    own = made.answer([Query("x", clip(seconds), PROMPT)])[0].text
    if made._text.end_id not in ids:
        assert own.startswith(made._text.decode(ids))
    else:
        assert own == made._text.decode(ids[: ids.index(made._text.end_id)])


def test_every_clip_gets_exactly_so_many_tokens_in_the_order_of_the_clips() -> None:
    made = adapter("ssalm")
    clips = [clip(LONG_S, 1), clip(2.0, 2), clip(6.0, 3)]
    together = made.answer_metered(clips, PROMPT, 7, Diary())
    assert [len(ids) for ids in together] == [7, 7, 7]
    assert list(together) == [made.answer_metered([one], PROMPT, 7, Diary())[0] for one in clips]


def test_an_end_token_does_not_end_a_measured_answer() -> None:
    made: LalmAdapter = ssalm(weights="random")  # type: ignore[assignment]
    made.load("cpu", "float32")
    with torch.no_grad():
        # Every token's logit is 0, so the first one is said: the end token.
        made._require_network().lm.backbone.embeddings.weight.zero_()
    assert made._text.end_id == 0
    assert made.answer([Query("x", clip(1.0), PROMPT)])[0].n_answer_tokens == 1
    assert made.answer_metered([clip(1.0)], PROMPT, 3, Diary()) == [[0, 0, 0]]


def last_turns(lines: Sequence[str]) -> list[str]:
    """Components in the order in which each was last entered."""
    return [line for i, line in enumerate(lines) if line != "token" and line not in lines[i + 1 :]]


def test_a_short_clip_goes_from_component_to_component() -> None:
    diary = Diary()
    adapter("ltu").answer_metered([clip(5.0)], PROMPT, 3, diary)
    assert last_turns(diary.lines) == ["front_end", "encoder", "connector", "prefill", "decode"]


def test_the_first_token_ends_the_prefill_and_each_is_told() -> None:
    diary = Diary()
    adapter("ltu").answer_metered([clip(5.0)], PROMPT, 3, diary)
    assert diary.lines[diary.lines.index("prefill") :] == ["prefill", "token", "decode", "token", "token"]


@pytest.mark.parametrize("name", ["ssalm", "ltu"])
def test_long_audio_goes_through_the_components_in_turns(name: str) -> None:
    diary = Diary()
    adapter(name).answer_metered([clip(LONG_S)], PROMPT, 2, diary)
    turns = Counter(diary.lines)
    assert turns["front_end"] >= 5 and turns["encoder"] >= 2 and turns["connector"] >= 2
    assert last_turns(diary.lines) == ["front_end", "encoder", "connector", "prefill", "decode"]


def test_measuring_leaves_the_model_as_it_was() -> None:
    made = adapter("ssalm")
    network = made._require_network()
    made.answer_metered([clip(1.0)], PROMPT, 2, Diary())
    assert not {"read", "read_stream", "generate"} & set(vars(network))
    assert "encode_stream" not in vars(network.hear) and "_speak" not in vars(made)


def test_a_clip_that_the_model_does_not_take_is_an_error_of_that_kind() -> None:
    made: Any = ssalm(weights="random", length_policy="full")
    made.load("cpu", "float32")
    with pytest.raises(ModelLimitError, match=r"601\.0 s"):
        made.answer_metered([clip(601.0)], PROMPT, 1, Diary())
    with pytest.raises(ModelLimitError, match=r"601\.0 s"):
        made.work(601 * 16_000, PROMPT, 1)


def test_any_other_trouble_of_a_clip_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    made = adapter("ssalm")

    def fail(*_: Any) -> None:
        raise ItemError("no sound")

    monkeypatch.setattr(made, "_features", fail)
    with pytest.raises(ItemError, match="no sound"):
        made.answer_metered([clip(1.0)], PROMPT, 1, Diary())


@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_goes_forward_and_backward_through_every_component(name: str) -> None:
    diary = Diary()
    loss = adapter(name).train_step([clip(9.0, 1), clip(9.0, 2)], PROMPT, "dog", diary)
    assert 0 < loss < 20
    assert diary.lines == ["front_end", "encoder", "connector", "prefill", "connector", "encoder"]


def test_a_training_step_hears_the_whole_clip_and_costs_three_times_the_forward_pass() -> None:
    made = adapter("ast_mamba")
    with FlopCounter() as counter:
        made.train_step([clip(9.0)], PROMPT, "dog", counter)
    count = counter.count()
    count.require_coverage()
    forward = made.work(9 * 16_000, PROMPT, 1)["encoder"].flops
    # The spectrogram asks for no gradient, and attention is computed again: near three, not three.
    assert count.flops("encoder") / forward == pytest.approx(3, rel=0.1)


def test_a_training_step_changes_nothing() -> None:
    made = adapter("hybrid")
    network = made._require_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    made.train_step([clip(2.0)], PROMPT, "dog", Diary())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not network.training and all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_state_bytes_are_those_of_the_cache(name: str) -> None:
    made = adapter(name)
    network = made._require_network()
    with torch.inference_mode():
        _, kept = network.lm(torch.zeros(1, 40, network.lm.width))
    of = made.state_bytes(40)
    assert of.growing + of.constant == kept.n_bytes()
    assert (of.growing == 0) == (name in ("ssalm", "ast_mamba"))


@pytest.mark.parametrize("chunks", [[16, 20], [256, 192, 192, 64], [512, 1], [600], [1] * 1030])
def test_tokens_are_grouped_as_the_network_groups_them(chunks: list[int]) -> None:
    groups = regroup((torch.zeros(n, 1) for n in chunks), 512)
    assert _regrouped(chunks) == [len(group) for group in groups]
