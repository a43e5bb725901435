"""Dropout of weights: which seed it draws, that forward and backward drop the same, and what it does to a result."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import mmha
from feature_zoo import seed_drawn_after
from mmha import reference
from mmha.masks import Causal, KeyPadding
from mmha.reference import Dropout, Gradients, Rule
from tolerances import assert_near

B, H, HK, TQ, TK, D, DV = 2, 6, 3, 37, 67, 17, 13
MASK = Causal() & KeyPadding([TK - 5, 29])
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def inputs(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    torch.manual_seed(3)
    shapes = ((B, H, TQ, D), (B, HK, TK, D), (B, HK, TK, DV))
    return [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0, 1, 1e-9])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_seed_gives_what_the_reference_gives(p: float, dtype: torch.dtype) -> None:
    x = inputs(dtype)
    seed = seed_drawn_after(13)
    results = mmha.attention(*x, MASK, dropout_p=p, return_lse=True)
    rule = Rule(MASK.dense(B, H, TQ, TK), dropout=Dropout(float(p), seed))
    for have, want in zip(results, reference.attention(*x, rule), strict=False):
        assert want is not None
        assert_near(have, want, have.dtype)
    grads = [torch.randn(r.shape).to(r.dtype) for r in results]
    got = torch.autograd.grad(results, x, grads)
    for have, want in zip(got, reference.gradients(*x, Gradients(*grads), rule), strict=False):
        assert isinstance(want, Tensor)
        assert_near(have, want, dtype, factor=2.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_manual_seed_governs_it(dtype: torch.dtype) -> None:
    x = inputs(dtype)

    def run(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        outs = [mmha.attention(*x, MASK, dropout_p=0.4) for _ in range(2)]
        return [*outs, *torch.autograd.grad(outs[0].sum() + outs[1].square().sum(), x)]

    first = run(5)
    assert all(torch.equal(a, b) for a, b in zip(first, run(5), strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], run(6)[0])


def test_the_generator_moves_only_when_something_is_dropped() -> None:
    x = inputs()
    before = torch.get_rng_state()
    assert torch.equal(mmha.attention(*x, MASK, dropout_p=0.0), mmha.attention(*x, MASK))
    mmha.attention(*x, MASK, dropout_p=0)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.device("meta"):
        mmha.attention(*x, MASK, dropout_p=0.1)
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_is_left_is_scaled_and_lse_is_not_touched(dtype: torch.dtype) -> None:
    """With the unit matrix as values the output is the weights as they are after dropout."""
    q, k, _ = inputs(dtype)
    v = torch.eye(TK, dtype=dtype).expand(B, HK, TK, TK)
    weights, lse = mmha.attention(q, k, v, MASK, return_lse=True)
    dropped, same_lse, before = mmha.attention(
        q, k, v, MASK, dropout_p=0.25, return_lse=True, return_weights=True
    )  # fmt: skip
    torch.testing.assert_close(same_lse, lse)
    torch.testing.assert_close(before, weights)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], weights[kept] / 0.75)
    share = 1.0 - kept.sum() / (weights != 0).sum()
    assert abs(share - 0.25) < 0.02


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_dropped_is_zero_and_only_lse_has_a_gradient(dtype: torch.dtype) -> None:
    q, k, v = inputs(dtype)
    out, lse = mmha.attention(q, k, v, MASK, dropout_p=1.0, return_lse=True)
    assert not out.any()
    assert not any(g.any() for g in torch.autograd.grad(out.sum(), (q, k, v), retain_graph=True))
    seen = lse.masked_fill(lse == -math.inf, 0.0).sum()
    (got,) = torch.autograd.grad(seen, q)
    plain = mmha.attention(q, k, v, MASK, return_lse=True)[1]
    (want,) = torch.autograd.grad(plain.masked_fill(plain == -math.inf, 0.0).sum(), q)
    torch.testing.assert_close(got, want)


@pytest.mark.filterwarnings("ignore")
def test_checkpointing_replays_the_seed() -> None:
    x = inputs()
    torch.manual_seed(7)
    want = torch.autograd.grad(mmha.attention(*x, MASK, dropout_p=0.3).cos().sum(), x)
    torch.manual_seed(7)
    out = torch.utils.checkpoint.checkpoint(
        lambda *t: mmha.attention(*t, MASK, dropout_p=0.3), *x, use_reentrant=False
    )  # fmt: skip
    torch.rand(3)
    for have, expected in zip(torch.autograd.grad(out.cos().sum(), x), want, strict=True):
        assert torch.equal(have, expected)
