"""`Dropout`: how often, how much, which gradient, and that torch's generator settles it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmha.nn import Dropout
from mmha.nn.dropout import FEWEST, dropout

SHAPE = (131, 257)  # not a multiple of 4
COUNT = SHAPE[0] * SHAPE[1]
assert COUNT >= FEWEST


@pytest.mark.parametrize("p", [0.003, 0.1, 0.5, 0.97])
def test_rate_scale_and_independence(p: float) -> None:
    out = dropout(torch.ones(40, *SHAPE), p)
    count = out.numel()
    kept = out != 0
    assert out[kept].unique().numel() == 1
    assert out[kept][0].item() == pytest.approx(1 / (1 - p), rel=1e-5 / (1 - p))
    assert abs(kept.double().mean().item() - (1 - p)) < 4 * math.sqrt(p * (1 - p) / count) + 2**-17
    flat = kept.flatten().double() - kept.double().mean()
    for apart in (1, 2, 3, 4, SHAPE[1], COUNT, 20 * COUNT):
        pairs = (flat[:-apart] * flat[apart:]).sum() / (p * (1 - p))
        assert abs(pairs.item()) < 4.5 * math.sqrt(count), f"numbers {apart} apart are dropped together"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_gradient_goes_through_what_was_kept(dtype: torch.dtype) -> None:
    x = torch.randn(SHAPE, dtype=dtype).requires_grad_()
    toward = torch.randn(SHAPE, dtype=dtype)
    out = dropout(x, 0.25)
    (grad,) = torch.autograd.grad(out, x, toward)
    kept = out != 0
    torch.testing.assert_close(out, torch.where(kept, x / 0.75, 0))
    torch.testing.assert_close(grad, torch.where(kept, toward / 0.75, 0))
    assert out.dtype == grad.dtype == dtype


def test_the_seed_settles_it() -> None:
    x = torch.ones(SHAPE)
    found = []
    for seed in (5, 5, 7):
        torch.manual_seed(seed)
        found.append((dropout(x, 0.1), dropout(x, 0.1)))
    (first, second), again, other = found
    assert first.equal(again[0])
    assert second.equal(again[1])
    assert not first.equal(second)
    assert not first.equal(other[0])


def test_a_checkpoint_drops_the_same_again() -> None:
    x = torch.ones(SHAPE, requires_grad=True)
    out = checkpoint(dropout, x, 0.3, use_reentrant=False)
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.equal(out.detach())


def test_views_and_other_shapes() -> None:
    x = torch.randn(SHAPE)
    for view in (x.t(), x[:, 3:], x[None, :, None], x.expand(3, *SHAPE)):
        out = dropout(view, 0.5)
        assert out.shape == view.shape
        assert ((out == 0) | (out == 2 * view)).all()


@pytest.mark.parametrize("p", [0.0, 1.0, 1e-9, 1 - 1e-9])
def test_shares_without_a_choice_are_torch_s(p: float) -> None:
    x = torch.randn(SHAPE)
    torch.testing.assert_close(dropout(x, p), x if p < 0.5 else torch.zeros_like(x))


def test_torch_drops_few_numbers_and_those_in_place() -> None:
    for layer, x in ((Dropout(0.5), torch.ones(7, 11)), (Dropout(0.5, inplace=True), torch.ones(SHAPE))):
        torch.manual_seed(3)
        wanted = F.dropout(x.clone(), 0.5)
        torch.manual_seed(3)
        out = layer(x)
        assert out.equal(wanted)
        assert (out is x) == layer.inplace


def test_in_evaluation_nothing_is_dropped() -> None:
    x = torch.randn(SHAPE)
    assert Dropout(0.5).eval()(x).equal(x)
    assert isinstance(Dropout(0.5), nn.Dropout)


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_shares_that_are_none_are_refused(p: float) -> None:
    with pytest.raises(ValueError, match=rf"between 0 and 1, but got {p}"):
        dropout(torch.ones(SHAPE), p)
