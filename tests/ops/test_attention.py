"""`mmha.attention` against the float64 reference: every mask, dtype, size and layout, on every instruction set."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mmha
from mask_zoo import HK, TK, TQ, ZOO, B, H, zoo_mask
from mmha import masks, reference
from mmha.masks import Causal, Full, Mask, Window
from mmha.reference import Gradients, Rule
from tolerances import assert_near

D, DV = 17, 13


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Waking a second thread for problems this small costs more than it does; test_promises.py has the threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensors(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v of sizes (B, H, Hk, Tq, Tk, D, Dv)."""
    torch.manual_seed(seed)
    b, h, hk, tq, tk, d, dv = shape
    return torch.randn(b, h, tq, d).to(dtype), torch.randn(b, hk, tk, d).to(dtype), torch.randn(b, hk, tk, dv).to(dtype)


def expect(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, **rule: Any) -> tuple[Tensor, Tensor, Tensor]:
    out, lse, weights = reference.attention(q, k, v, Rule(visible, **rule), return_weights=True)
    assert weights is not None
    return out, lse, weights


def compare(q: Tensor, k: Tensor, v: Tensor, mask: Any, rule: Rule, **arguments: Any) -> None:
    """Forward and backward of every result against the reference."""
    dtype = q.dtype
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    results = mmha.attention(*leaves, mask, return_lse=True, **arguments)
    wanted = reference.attention(q, k, v, rule)
    assert results[0].dtype == dtype
    assert results[1].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_near(results[0], wanted[0], dtype)
    assert_near(results[1], wanted[1], results[1].dtype)
    grads = [torch.randn(x.shape).to(x.dtype) for x in results]
    got = torch.autograd.grad(results, leaves, grads)
    exact = reference.gradients(q, k, v, Gradients(*grads), rule)
    for have, want in zip(got, exact, strict=False):
        assert have.dtype == dtype
        assert_near(have, want, dtype, factor=2.0)


@pytest.mark.parametrize("name", ZOO)
def test_every_mask(name: str, isa: str) -> None:
    mask = zoo_mask(name)
    q, k, v = tensors((B, H, HK, TQ, TK, D, DV))
    compare(q, k, v, mask, Rule(mask.dense(B, H, TQ, TK)))


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_every_mask_in_other_dtypes(name: str, dtype: torch.dtype) -> None:
    mask = zoo_mask(name)
    q, k, v = tensors((B, H, HK, TQ, TK, D, DV), dtype)
    compare(q, k, v, mask, Rule(mask.dense(B, H, TQ, TK)))


@pytest.mark.parametrize("shape", [
    (1, 1, 1, 1, 1, 1, 1), (2, 3, 3, 31, 37, 8, 8), (1, 2, 1, 67, 131, 64, 64), (2, 10, 2, 33, 257, 3, 5),
    (1, 1, 1, 5, 601, 128, 32), (1, 2, 2, 97, 61, 512, 7), (1, 1, 1, 37, 41, 7, 512), (1, 3, 1, 13, 17, 521, 11),
    (3, 2, 1, 1, 263, 80, 80),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("mask", [Full(), Causal(), Window(19, 5)], ids=repr)
def test_every_size(shape: tuple[int, ...], mask: Mask, isa: str) -> None:
    b, h, _, tq, tk, _, _ = shape
    q, k, v = tensors(shape)
    # Window(19, 5) may hide every key but one from every row: then dq and dk cancel to almost nothing.
    compare(q, k, v, mask, Rule(mask.dense(b, h, tq, tk)))


@pytest.mark.parametrize("seed", range(24))
def test_random_problems(seed: int, isa: str) -> None:
    """Sizes, layouts, groups, mask shapes, densities and scales drawn at random."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    hk, group, b = draw.choice([1, 2, 3]), draw.choice([1, 2, 5]), draw.choice([1, 2, 3])
    tq, tk = draw.choice([1, 5, 31, 32, 33, 67, 131]), draw.choice([2, 7, 64, 129, 255, 257, 521])
    d, dv = draw.choice([1, 3, 8, 17, 64, 80, 128, 256]), draw.choice([1, 5, 8, 64, 100, 256])
    h = hk * group
    shape = (draw.choice([1, b]), draw.choice([1, h]), draw.choice([1, tq]), tk)
    visible = torch.rand(shape, generator=generator) < draw.choice([0.02, 0.3, 0.7, 0.98, 1.0])
    q, k, v = tensors((b, h, hk, tq, tk, d, dv), seed=seed)
    q = q.transpose(1, 2).contiguous().transpose(1, 2)
    scale = draw.choice([d**-0.5, -(d**-0.5), 0.25 * d**-0.5, 0.0])
    leaves = [x.requires_grad_() for x in (q, k, v)]
    mask = masks.from_dense(visible.expand(*shape[:2], tq, tk)) if seed % 2 else visible
    results = mmha.attention(*leaves, mask, scale=scale, return_lse=True)
    rule = Rule(visible, scale=scale)
    grads = [torch.randn(x.shape) for x in results]
    got = (*results, *torch.autograd.grad(results, leaves, grads))
    exact = (*reference.attention(q, k, v, rule)[:2], *reference.gradients(q, k, v, Gradients(*grads), rule)[:3])
    for have, want in zip(got, exact, strict=True):
        # Where a row sees one key, its score has no gradient but that of lse: the terms that cancel are larger than 1.
        assert_near(have, want, torch.float32, factor=3.0, scale=torch.cat([want.flatten(), torch.tensor([3.0])]))


@pytest.mark.parametrize("q_start", [None, 0, -3, 4, 100, [2, -1], [5, 5]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_q_start(q_start: Any, dtype: torch.dtype) -> None:
    start = torch.tensor(q_start) if isinstance(q_start, list) else q_start
    mask = Causal() & Window(4)
    q, k, v = tensors((B, H, HK, TQ, TK, D, DV), dtype)
    compare(q, k, v, mask, Rule(mask.dense(B, H, TQ, TK, start)), q_start=start)
    out, weights = mmha.attention(q, k, v, mask, q_start=start, return_weights=True)
    torch.testing.assert_close(out, mmha.attention(q, k, v, mask, q_start=start))
    assert torch.equal(weights != 0, mask.dense(B, H, TQ, TK, start))


def test_q_start_may_be_an_integer_of_numpy() -> None:
    q, k, v = tensors((B, H, HK, TQ, TK, D, DV), torch.float32)
    ours = mmha.attention(q, k, v, Causal(), q_start=4)
    assert torch.equal(mmha.attention(q, k, v, Causal(), q_start=np.int64(4)), ours)


@pytest.mark.parametrize("scale", [0.0, -0.5, 2, 1e-3])
def test_scale(scale: float, isa: str) -> None:
    q, k, v = tensors((B, H, HK, TQ, TK, D, DV))
    compare(q, k, v, Causal(), Rule(Causal().dense(B, H, TQ, TK), scale=float(scale)), scale=scale)


@pytest.mark.parametrize(
    "shape", [(), (TK,), (TQ, 1), (TQ, TK), (H, 1, 1), (B, 1, TQ, TK), (B, H, 1, TK), (B, H, TQ, TK)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_plain_bool_masks(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    q, k, v = tensors((B, H, HK, TQ, TK, D, DV), dtype)
    visible = torch.rand(shape) > 0.4
    compare(q, k, v, visible, Rule(visible))
    additive = torch.zeros(shape).masked_fill(~visible, -math.inf)
    compare(q, k, v, additive, Rule(visible))
    assert torch.equal(mmha.attention(q, k, v, additive), mmha.attention(q, k, v, visible))


@pytest.mark.parametrize("shape", [(), (TK,), (TQ, 1), (H, 1, 1), (B, 1, TQ, TK), (B, H, TQ, TK)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mask_dtype", [torch.float32, torch.float64], ids=str)
def test_plain_float_masks(shape: tuple[int, ...], dtype: torch.dtype, mask_dtype: torch.dtype) -> None:
    q, k, v = tensors((B, H, HK, TQ, TK, D, DV), dtype)
    additive = torch.randn(shape, dtype=mask_dtype)
    compare(q, k, v, additive, Rule(None, additive))
    leaf = additive.requires_grad_()
    out = mmha.attention(q, k, v, leaf)
    grad = torch.randn(out.shape).to(dtype)
    exact = reference.gradients(q, k, v, Gradients(grad), Rule(None, additive))[3]
    assert exact is not None
    (got,) = torch.autograd.grad(out, leaf, grad)
    assert got.dtype == mask_dtype
    # A row of gradients of scores sums to 0: what a sum over keys leaves is rounding, measured by its terms.
    assert_near(got, exact, torch.float32, factor=3.0, scale=torch.tensor(10.0))


def test_a_float_mask_of_zeros_still_gets_its_gradient() -> None:
    q, k, v = tensors((B, H, HK, TQ, TK, D, DV))
    visible = Causal().dense(B, H, TQ, TK)
    mask = torch.zeros(B, H, TQ, TK).masked_fill(~visible, -math.inf).requires_grad_()
    out = mmha.attention(q, k, v, mask)
    (got,) = torch.autograd.grad(out.sum() * 3, mask)
    exact = reference.gradients(
        q, k, v, Gradients(torch.full_like(out, 3.0)), Rule(visible, torch.zeros(B, H, TQ, TK))
    )[3]
    assert exact is not None
    assert exact.abs().max() > 0.1
    assert_near(got, exact, torch.float32)


@pytest.mark.parametrize("name", ["Causal", "Queries", "Dense", "KeyPadding"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_weights_are_the_softmax_and_differentiable(name: str, dtype: torch.dtype) -> None:
    mask = zoo_mask(name)
    q, k, v = tensors((B, H, HK, TQ, TK, D, DV), dtype)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    _out, lse, weights = results = mmha.attention(*leaves, mask, return_lse=True, return_weights=True)
    assert weights.shape == (B, H, TQ, TK)
    assert weights.dtype == dtype
    rule = Rule(mask.dense(B, H, TQ, TK))
    for have, want in zip(results, reference.attention(q, k, v, rule, return_weights=True), strict=True):
        assert want is not None
        assert_near(have, want, have.dtype)
    grads = [torch.randn(x.shape).to(x.dtype) for x in results]
    for have, want in zip(
        torch.autograd.grad(results, leaves, grads), reference.gradients(q, k, v, Gradients(*grads), rule), strict=False
    ):
        assert want is not None
        assert_near(have, want, dtype)
    assert lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_results_come_in_the_order_asked_for() -> None:
    q, k, v = tensors((B, H, HK, TQ, TK, D, DV))
    assert isinstance(mmha.attention(q, k, v), Tensor)
    shapes = {"out": (B, H, TQ, DV), "lse": (B, H, TQ), "weights": (B, H, TQ, TK)}
    for extra in (("lse",), ("weights",), ("lse", "weights")):
        results = mmha.attention(q, k, v, **{f"return_{name}": True for name in extra})
        assert isinstance(results, tuple)
        assert [tuple(x.shape) for x in results] == [shapes[name] for name in ("out", *extra)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_behaves_as_torchs_own_attention(dtype: torch.dtype) -> None:
    q, k, v = tensors((B, H, H, TQ, TK, D, D))
    for inputs in ((q, k, v), (q, k.bfloat16(), v.half()), (q.double(), k.double(), v.double())):
        with torch.autocast("cpu", dtype=dtype):
            ours = mmha.attention(*inputs)
            theirs = torch.nn.functional.scaled_dot_product_attention(*inputs)
        assert ours.dtype == theirs.dtype
        exact = mmha.attention(*(x if x.dtype == torch.float64 else x.to(dtype) for x in inputs))
        assert torch.equal(ours, exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_no_worse_than_torchs(dtype: torch.dtype) -> None:
    q, k, v = tensors((1, 4, 4, 128, 128, 64, 64), dtype)
    visible = Causal().dense(1, 4, 128, 128)
    exact = reference.attention(q, k, v, Rule(visible))[0]
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    ours = mmha.attention(q, k, v, Causal())
    assert (ours - exact).abs().max() <= (theirs - exact).abs().max()
    assert (ours - exact).square().mean() <= (theirs - exact).square().mean()


def test_the_default_dtype_and_device_of_the_user_do_not_matter() -> None:
    q, k, v = tensors((B, H, HK, TQ, TK, D, DV))
    plain = mmha.attention(q, k, v, Causal(), return_lse=True)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            again = mmha.attention(q, k, v, Causal(), q_start=TK - TQ, return_lse=True)
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(plain, again, strict=True):
        assert torch.equal(a, b)
