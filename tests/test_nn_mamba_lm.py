"""Our Mamba against transformers' own, on the same weights."""

from __future__ import annotations

import warnings

import pytest
import torch

from models.nn.mamba_lm import MambaConfig, MambaLM


@pytest.fixture(scope="module")
def ours() -> MambaLM:
    torch.manual_seed(0)
    return MambaLM(MambaConfig(vocab_size=100, width=48, n_layers=2)).eval()


@pytest.fixture(scope="module")
def theirs(ours: MambaLM) -> torch.nn.Module:
    from transformers import MambaConfig as TheirConfig
    from transformers import MambaForCausalLM

    network = MambaForCausalLM(TheirConfig(vocab_size=100, hidden_size=48, num_hidden_layers=2, state_size=16)).eval()
    network.load_state_dict({**ours.state_dict(), "lm_head.weight": ours.backbone.embeddings.weight})
    return network


@pytest.mark.parametrize("length", [1, 63, 64, 65, 300])
def test_logits_equal_transformers(ours: MambaLM, theirs: torch.nn.Module, length: int) -> None:
    ids = torch.randint(0, 100, (2, length))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hidden, _ = ours(ours.embed(ids))
        torch.testing.assert_close(ours.head(hidden), theirs(ids).logits, atol=1e-4, rtol=1e-4)


def test_step_by_step_equals_one_pass(ours: MambaLM) -> None:
    embeddings = torch.randn(2, 40, 48)
    with torch.no_grad():
        whole, _ = ours(embeddings)
        hidden, cache = ours(embeddings[:, :10])
        for position in range(10, 40):
            hidden, cache = ours.step(embeddings[:, position], cache)
            torch.testing.assert_close(hidden, whole[:, position], atol=1e-5, rtol=1e-4)


def test_two_halves_equal_one_pass(ours: MambaLM) -> None:
    embeddings = torch.randn(2, 70, 48)
    with torch.no_grad():
        whole, _ = ours(embeddings)
        _, cache = ours(embeddings[:, :33])
        rest, _ = ours(embeddings[:, 33:], cache=cache)
    torch.testing.assert_close(rest, whole[:, 33:], atol=1e-5, rtol=1e-4)


def test_padding_on_the_left_never_enters_the_state(ours: MambaLM) -> None:
    real, junk = torch.randn(1, 20, 48), 100 * torch.randn(1, 9, 48)
    mask = torch.cat([torch.zeros(1, 9), torch.ones(1, 20)], dim=1)
    with torch.no_grad():
        alone, cache_alone = ours(real)
        padded, cache_padded = ours(torch.cat([junk, real], dim=1), mask_BL=mask)
    torch.testing.assert_close(padded[:, 9:], alone, atol=1e-5, rtol=1e-4)
    for a, b in zip(cache_alone.state, cache_padded.state, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_the_cache_does_not_grow_with_what_was_heard(ours: MambaLM) -> None:
    with torch.no_grad():
        sizes = {ours(torch.randn(1, length, 48))[1].n_bytes() for length in (5, 50, 500)}
    assert sizes == {2 * 96 * (16 + 3) * 4}


def test_every_parameter_gets_a_gradient(ours: MambaLM) -> None:
    hidden, _ = ours(ours.embed(torch.randint(0, 100, (2, 12))))
    ours.head(hidden).square().mean().backward()
    without = [name for name, p in ours.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    ours.zero_grad()
    assert without == []
