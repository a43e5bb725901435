"""Both sides of every kind of row compute the same, and what is timed is what the direction says."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from mmha.bench import agree, features, masked
from mmha.bench.cases import Case, Direction, DType, Kind, Sizes, sizes
from mmha.bench.contest import Contest, Side, added, tensors
from mmha.bench.measure import BUILDERS
from mmha.bench.patterns import PATTERNS, half_full, mask_of
from mmha.bias import Relative
from mmha.masks import Window

OVER_CACHE = ("token", "step", "prefill", "guesses")  # have no gradients: test_decode.py
DENSE = [kind for kind in get_args(Kind) if kind not in OVER_CACHE]
SMALL: dict[Kind, Sizes] = {
    "tree": sizes(263, q_len=13, heads=3, dim=29),
    "padded": sizes(131, batch=5, heads=3, dim=29),
    "packed": sizes(131, batch=5, heads=3, dim=29),
}


def case(kind: Kind, direction: Direction = "forward", dtype: DType = "f32", size: Sizes | None = None) -> Case:
    size = size or SMALL.get(kind, sizes(263, heads=3, dim=29))
    return Case("masks", direction, kind, size, aim=1.0, dtype=dtype)


def build(row: Case) -> Contest:
    return BUILDERS.get(row.kind, masked.masked)(row)


@pytest.mark.parametrize("direction", ["forward", "training"])
@pytest.mark.parametrize("kind", DENSE)
def test_both_sides_agree(kind: Kind, direction: Direction, isa: str) -> None:
    row = case(kind, direction)
    contest = build(row)
    ours, theirs = (side.work(direction)() for side in (contest.ours, contest.theirs))
    assert agree.check(row, contest, ours, theirs) < 4e-6


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("kind", ["causal", "window"])
def test_both_sides_agree_in_short_formats(kind: Kind, direction: Direction, dtype: DType) -> None:
    row = case(kind, direction, dtype)
    contest = build(row)
    ours, theirs = (side.work(direction)() for side in (contest.ours, contest.theirs))
    assert ours[0].dtype == theirs[0].dtype == {"bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    assert agree.check(row, contest, ours, theirs) > 0


@pytest.mark.parametrize("size", [sizes(263, q_len=7, kv_heads=2, dim=29), sizes(263, q_len=1, kv_heads=4, dim=29)])
def test_few_queries_and_shared_heads_agree(size: Sizes) -> None:
    row = case("causal", size=size)
    contest = build(row)
    assert contest.ours.inputs[1].shape == (1, size.kv_heads, 263, 29)
    assert agree.check(row, contest, contest.ours.work("forward")(), contest.theirs.work("forward")()) < 4e-6


@pytest.mark.parametrize("kind", [kind for kind in get_args(Kind) if kind in PATTERNS])
def test_pairs_are_what_the_mask_shows(kind: Kind) -> None:
    row = case(kind)
    mask, size = mask_of(kind, row.sizes), row.sizes
    expected = size.pairs if mask is None else None
    if kind in ("padded", "packed"):
        expected = size.heads * sum(n * n for n in half_full(size.batch, size.k_len))
    elif mask is not None:
        expected = int(mask.dense(size.batch, size.heads, size.q_len, size.k_len).sum())
    assert build(row).pairs == expected


@pytest.mark.parametrize("kind", ["alibi", "softcap", "sinks"])
def test_causal_features_count_causal_pairs(kind: Kind) -> None:
    assert build(case(kind)).pairs == 3 * 263 * 264 // 2


def test_torch_is_told_no_more_than_it_needs() -> None:
    def told(row: Case) -> dict[str, object]:
        mask = mask_of(row.kind, row.sizes)
        return masked.torch_options(row, mask, build(row).pairs, torch.float32)

    assert told(case("dense")) == {}
    assert told(case("causal")) == {"is_causal": True}
    assert told(case("causal", size=sizes(31, q_len=1, kv_heads=2))) == {"enable_gqa": True}
    assert list(told(case("causal", size=sizes(31, q_len=7)))) == ["attn_mask"]  # its is_causal is top-left
    assert list(told(case("window"))) == ["attn_mask"]


def test_a_mask_becomes_numbers_in_the_dtype_of_q() -> None:
    made = added(Window(1), sizes(3), torch.bfloat16)
    hidden = -torch.inf
    expected = [[0.0, hidden, hidden], [0.0, 0.0, hidden], [hidden, 0.0, 0.0]]
    assert torch.equal(made, torch.tensor([[expected]], dtype=torch.bfloat16))


def side() -> Side:
    q, k, v, grad = tensors(case("dense", size=sizes(7, heads=3, dim=5)))
    return Side(F.scaled_dot_product_attention, (q, k, v), grad)


def test_forward_records_nothing_and_recorded_does() -> None:
    (out,), (recorded,) = side().work("forward")(), side().work("recorded")()
    assert not out.requires_grad
    assert recorded.requires_grad
    assert torch.equal(out, recorded.detach())


def test_backward_is_training_without_out_again_and_again() -> None:
    out, *grads = side().work("training")()
    work = side().work("backward")
    for made in (work(), work()):
        assert len(made) == 3
        assert all(torch.equal(a, b) for a, b in zip(made, grads, strict=True))
    assert torch.equal(out, side().work("forward")()[0])
    q, k, v = (x.clone().requires_grad_() for x in side().inputs)
    F.scaled_dot_product_attention(q, k, v).backward(side().grad)
    assert [torch.equal(a, b.grad) for a, b in zip(grads, (q, k, v), strict=True)] == [True] * 3


def test_folding_is_what_autograd_does_to_the_table() -> None:
    table = torch.randn(3, 2 * features.RADIUS + 1, requires_grad=True)
    dense = Relative(table).dense(1, 3, 197, 311)
    grad = torch.randn_like(dense)
    (expected,) = torch.autograd.grad(dense, table, grad)
    torch.testing.assert_close(features.fold(grad), expected, rtol=1e-5, atol=1e-4)


def test_dropout_is_compared_without_it() -> None:
    contest = build(case("dropout"))
    assert contest.still is not None
    plain = F.scaled_dot_product_attention(*contest.theirs.inputs)
    assert torch.equal(contest.still.theirs.work("forward")()[0], plain)
    assert not torch.allclose(contest.theirs.work("forward")()[0], plain, rtol=0.1)


def test_dropout_on_one_side_alone_is_noticed() -> None:
    row = case("dropout")
    contest = build(row)
    assert contest.still is not None
    one_sided = replace(contest, ours=contest.still.ours)
    with pytest.raises(RuntimeError, match=r"dropout scales the mean by 1\.000 and adds noise of 0\.000, torch 0\."):
        agree.check(row, one_sided, one_sided.ours.work("forward")(), one_sided.theirs.work("forward")())
