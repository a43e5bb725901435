"""Numbers at the edge of float32 in what is added to the scores, and lanes of a block that hold no row."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import mmha
from mmha.bias import ALiBi, Bias, Relative
from tolerances import assert_near

SMALL = torch.finfo(torch.float32).min


def problem(q_len: int = 67, k_len: int = 307) -> list[Tensor]:
    torch.manual_seed(11)
    return [torch.randn(1, 2, n, 8, requires_grad=True) for n in (q_len, k_len, k_len)]


@pytest.mark.parametrize("bias", [ALiBi([-1.0, -0.5]), Relative(torch.full((2, 21), 89.0))], ids=["slopes", "table"])
def test_lanes_without_a_row_add_nothing_to_the_gradient_of_a_bias(bias: Bias, isa: str) -> None:
    """67 rows fill a block and three lanes of the next. exp(score - 0) of a lane without a row may be infinite."""
    x = problem()
    parts = bias.parts()
    (leaf,) = [part.requires_grad_() for part in (parts.slopes, parts.table) if part is not None]
    (got,) = torch.autograd.grad(mmha.attention(*x, bias=bias).square().sum(), leaf)
    exact = torch.autograd.grad(mmha.attention(*(t.double() for t in x), bias=bias).square().sum(), leaf)[0]
    assert got.isfinite().all()
    # A row's gradients of scores sum to 0: what is left is measured by its terms, times the distance for slopes.
    assert_near(
        got, exact, torch.float32, factor=3.0, scale=torch.tensor(3.0 * (307 if parts.slopes is not None else 1))
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_lowest_finite_number_does_not_hide(dtype: torch.dtype, isa: str) -> None:
    """A row whose keys all get finfo.min sees them all alike, as in float64 and in torch; only -inf hides."""
    q, k, v = problem(5, 7)
    mask = torch.zeros(5, 7, dtype=dtype)
    mask[2] = torch.finfo(dtype).min
    mask[4] = -math.inf
    out, lse = mmha.attention(q, k, v, mask, return_lse=True)
    exact = mmha.attention(q.double(), k.double(), v.double(), mask)
    assert_near(out, exact, torch.float32)
    torch.testing.assert_close(out[:, :, 2], v.mean(2), rtol=1e-5, atol=1e-6)
    assert lse[:, :, 2].isfinite().all()
    assert (lse[:, :, 4] == -math.inf).all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), (q, k, v)))


@pytest.mark.parametrize("sink", [3e38, -3e38, SMALL])
def test_a_sink_at_the_edge_gives_a_limit_and_not_nan(sink: float, isa: str) -> None:
    q, k, v = problem(5, 7)
    out, lse = mmha.attention(q, k, v, sinks=torch.tensor([sink, 0.0]), return_lse=True)
    assert not lse.isnan().any()
    plain = torch.zeros_like(out[:, 0]) if sink > 0 else mmha.attention(q, k, v)[:, 0]
    torch.testing.assert_close(out[:, 0], plain, rtol=1e-6, atol=1e-6)


def test_a_slope_beyond_float32_does_not_hide_either(isa: str) -> None:
    q, k, v = problem(5, 7)
    out = mmha.attention(q, k, v, bias=ALiBi([3e38, 0.0]), q_start=100)  # every key is far
    assert out.isfinite().all()
    assert out[:, 0].abs().sum() > 0


@pytest.mark.parametrize("q_len", [1, 37])
def test_an_infinite_value_stays_infinite_beside_later_keys(q_len: int, isa: str) -> None:
    """What a block keeps of one chunk of 1024 keys must not meet the next one's factors: 0 times infinity is NaN."""
    q, k, v = problem(q_len, 2100)
    v = v.detach().clone()
    v[0, 0, 5, 3], v[0, 1, 1500, 2] = math.inf, -math.inf
    out = mmha.attention(q, k, v)
    expected = torch.zeros_like(out)
    expected[0, 0, :, 3], expected[0, 1, :, 2] = math.inf, -math.inf
    torch.testing.assert_close(torch.where(out.isfinite(), 0.0, out), expected, rtol=0, atol=0)
