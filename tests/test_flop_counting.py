"""The counter sees attention as it is, splits by component, and names what it cannot count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from harness.flop_counting import CoverageError, FlopCount, FlopCounter

# Batch, heads, queries, keys, width of a head.
B, H, LQ, LK, D = 2, 4, 48, 64, 16
SQUARE = 256  # one batch, 4 heads of 16: the sizes of the project's table of counters


def counted(call: Any, *args: Any, **kwargs: Any) -> FlopCount:
    with torch.inference_mode(), FlopCounter() as counter:
        call(*args, **kwargs)
    return counter.count()


def heads(length: int, n: int = H, batch: int = B) -> Tensor:
    return torch.randn(batch, n, length, D)


def attend(query: Tensor, key: Tensor, **kwargs: Any) -> FlopCount:
    return counted(functional.scaled_dot_product_attention, query, key, key, **kwargs)


def test_full_attention_counts_scores_and_values_of_every_pair() -> None:
    # 4 heads x 256 x 256 pairs x (2 x 16 for the score + 2 x 16 for the value).
    assert attend(heads(SQUARE, batch=1), heads(SQUARE, batch=1)).total == 16_777_216


def test_causal_attention_counts_only_what_a_query_may_see() -> None:
    # 4 heads x 256 x 257 / 2 pairs x 64.
    assert attend(heads(SQUARE, batch=1), heads(SQUARE, batch=1), is_causal=True).total == 8_421_376


@pytest.mark.parametrize("shape", [(LQ, LK), (B, 1, LQ, LK), (B, H, LQ, LK), (1, LK)])
@pytest.mark.parametrize("is_bool", [True, False])
def test_a_mask_counts_the_pairs_that_it_leaves(shape: tuple[int, ...], is_bool: bool) -> None:
    seen = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.4
    mask = seen if is_bool else torch.zeros(shape).masked_fill(~seen, -torch.inf)
    pairs = int(seen.expand(B, H, LQ, LK).sum())
    assert attend(heads(LQ), heads(LK), attn_mask=mask).total == pairs * 4 * D


def test_a_decoding_step_sees_every_key_once() -> None:
    assert attend(heads(1), heads(LK)).total == B * H * LK * 4 * D


def test_grouped_queries_count_for_every_query_head() -> None:
    assert attend(heads(LQ), heads(LK, n=2), enable_gqa=True).total == B * H * LQ * LK * 4 * D


def test_the_plain_form_of_attention_counts_as_the_fused_one() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        plain = attend(heads(LK), heads(LK), is_causal=True)
    assert plain.total == attend(heads(LK), heads(LK), is_causal=True).total


def test_the_backward_pass_of_attention_has_five_products_for_two() -> None:
    query, key = heads(LK).requires_grad_(), heads(LK).requires_grad_()
    with FlopCounter() as counter:
        out = functional.scaled_dot_product_attention(query, key, key, is_causal=True)
        counter.enter("decode")
        out.sum().backward()
    count = counter.count()
    assert count.flops("decode") * 2 == count.flops("outside") * 5


def test_attention_on_outlines_counts_every_pair_under_a_mask() -> None:
    query, key, mask = (torch.empty(s, device="meta") for s in ((B, H, LQ, D), (B, H, LK, D), (LQ, LK)))
    assert attend(query, key, attn_mask=mask).total == B * H * LQ * LK * 4 * D


def test_a_transform_of_512_real_values_takes_11_520_operations() -> None:
    # 2.5 x 512 x 9; seven of them.
    assert counted(torch.fft.rfft, torch.randn(7, 400), n=512).parts == {"outside": {"fourier": 7 * 11_520}}


def test_a_transform_back_counts_as_the_one_there() -> None:
    assert counted(torch.fft.irfft, torch.randn(7, 257, dtype=torch.complex64)).total == 7 * 11_520


def test_a_complex_transform_counts_twice_a_real_one() -> None:
    assert counted(torch.fft.fft, torch.randn(7, 512, dtype=torch.complex64)).total == 2 * 7 * 11_520


PLAIN: dict[str, Any] = {
    "linear": lambda: functional.linear(torch.randn(2, 5, 64), torch.randn(32, 64), torch.randn(32)),
    "matmul": lambda: torch.randn(3, 1, 8, 16) @ torch.randn(1, 4, 16, 2),
    "einsum": lambda: torch.einsum("bld,ed->ble", torch.randn(2, 5, 8), torch.randn(3, 8)),
    "conv2d": lambda: functional.conv2d(torch.randn(2, 6, 20, 30), torch.randn(12, 2, 3, 3), stride=2, groups=3),
    "conv1d": lambda: functional.conv1d(torch.randn(1, 64, 259), torch.randn(64, 1, 4), groups=64),
}


@pytest.mark.parametrize("name", PLAIN)
def test_products_and_convolutions_count_as_torchs_own_counter_has_them(name: str) -> None:
    with torch.inference_mode(), FlopCounterMode(display=False) as reference:
        PLAIN[name]()
    assert counted(PLAIN[name]).total == reference.get_total_flops() > 0


def test_a_product_with_a_vector_counts_though_torch_has_no_formula() -> None:
    assert counted(torch.mv, torch.randn(30, 20), torch.randn(20)).total == 2 * 30 * 20
    assert counted(torch.dot, torch.randn(20), torch.randn(20)).total == 2 * 20


def test_gradients_are_counted_too() -> None:
    weight = torch.randn(8, 4, requires_grad=True)
    with FlopCounter() as counter:
        (torch.randn(3, 8) @ weight).sum().backward()
    # Once forward, once for the weight; the input asks for no gradient.
    assert counter.count().total == 2 * (2 * 3 * 8 * 4)


def test_work_is_counted_where_the_meter_says() -> None:
    x = torch.randn(4, 4)
    with FlopCounter() as counter:
        _ = x @ x
        counter.enter("encoder")
        _ = x @ x @ x
        counter.enter("prefill")
        counter.token()
        counter.enter("encoder")
        _ = x @ x
    one = 2 * 4**3
    assert counter.count().parts == {"outside": {"linear": one}, "encoder": {"linear": 3 * one}}


@pytest.fixture
def stranger() -> Iterator[Any]:
    """An operator of somebody's, for which nobody registered a formula."""
    library = torch.library.Library("stranger", "DEF")
    library.define("mix(Tensor x) -> Tensor")
    library.impl("mix", lambda x: x @ x, "CPU")
    yield torch.ops.stranger.mix
    library._destroy()


def test_a_custom_operator_without_a_formula_is_named(stranger: Any) -> None:
    with pytest.raises(CoverageError, match=r"stranger\.mix \(outside, 1 calls, 16 values\)"):
        counted(stranger, torch.randn(4, 4)).require_coverage()


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("aten._int_mm", lambda: torch._int_mm(torch.ones(4, 8, dtype=torch.int8), torch.ones(8, 8, dtype=torch.int8))),
        ("aten._trilinear", lambda: functional.bilinear(torch.randn(2, 3), torch.randn(2, 4), torch.randn(5, 3, 4))),
        ("aten.linalg_inv_ex", lambda: torch.linalg.inv(torch.eye(4))),
    ],
)
def test_an_operator_like_a_product_without_a_formula_is_named(name: str, call: Any) -> None:
    with pytest.raises(CoverageError, match=name.replace(".", r"\.")):
        counted(call).require_coverage()


def test_additions_norms_and_copies_need_no_formula_but_are_listed_by_size() -> None:
    def call() -> None:
        functional.layer_norm(torch.randn(10, 100), (100,))
        torch.ones(2).exp()

    count = counted(call)
    count.require_coverage()
    large = {operator.name: operator.most_values for operator in count.larger_than(10)}
    assert large["aten.native_layer_norm"] == 1020  # means and deviations of ten rows too
    assert "aten.exp" not in large and any(operator.name == "aten.exp" for operator in count.uncovered)


def test_looking_at_a_tensor_in_another_shape_is_no_operator_without_a_formula() -> None:
    assert counted(lambda x: x.view(4, 4).t()[1:].unsqueeze(0), torch.zeros(16)).uncovered == ()
