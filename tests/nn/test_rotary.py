"""Rotary positions against complex multiplication in float64: a pair (x1, x2) is x1 + i·x2, times exp(i·p·f)."""

from __future__ import annotations

import cmath

import pytest
import torch
from torch import Tensor

import mmha
from mmha.nn import Rotary
from tolerances import assert_near

BATCH, HEADS, LENGTH, SIZE = 2, 3, 5, 13


def turned(x: Tensor, dims: int, base: float, style: str, positions: Tensor) -> Tensor:
    """Number by number, in complex arithmetic; positions (B, T)."""
    out = x.double().clone()
    for b, h, t in torch.cartesian_prod(*map(torch.arange, x.shape[:3])).tolist():
        for i in range(dims // 2):
            one, two = (i, i + dims // 2) if style == "half" else (2 * i, 2 * i + 1)
            number = complex(float(out[b, h, t, one]), float(out[b, h, t, two]))
            number *= cmath.exp(1j * int(positions[b, t]) * base ** (-2 * i / dims))
            out[b, h, t, one], out[b, h, t, two] = number.real, number.imag
    return out


@pytest.mark.parametrize("style", ["half", "interleaved"])
@pytest.mark.parametrize("dims", [2, 6, 10, 12])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_it_is_a_product_of_complex_numbers(style: str, dims: int, dtype: torch.dtype) -> None:
    x = torch.randn(BATCH, HEADS, LENGTH, SIZE).to(dtype)
    positions = torch.tensor([[0, 1, 2, 3, 4], [7, 1023, 0, 100_003, 31]])
    found = Rotary(dims, 500.0, style)(x, positions)
    assert found.dtype == dtype
    assert_near(found, turned(x, dims, 500.0, style, positions), dtype)
    assert torch.equal(found[..., dims:], x[..., dims:])


@pytest.mark.parametrize("style", ["half", "interleaved"])
@pytest.mark.parametrize("dims", [4, 8, 12])
def test_two_position_ids_turn_two_halves(style: str, dims: int) -> None:
    x = torch.randn(BATCH, HEADS, LENGTH, SIZE)
    positions = torch.randint(0, 97, (BATCH, LENGTH, 2))
    exact = x.double()
    for part in range(2):
        at = slice(part * dims // 2, (part + 1) * dims // 2)
        exact[..., at] = turned(x[..., at], dims // 2, 10000.0, style, positions[..., part])
    assert_near(Rotary(dims, style=style)(x, positions), exact, torch.float32)


def test_positions_of_all_rows_may_be_given_once() -> None:
    x, rotary = torch.randn(BATCH, HEADS, LENGTH, SIZE), Rotary(6)
    each = rotary(x, torch.arange(3, 3 + LENGTH).expand(BATCH, LENGTH))
    assert torch.equal(rotary(x, torch.arange(3, 3 + LENGTH, dtype=torch.int32)), each)


@pytest.mark.parametrize("style", ["half", "interleaved"])
def test_the_bits_do_not_depend_on_who_stands_beside(style: str) -> None:
    x, rotary = torch.randn(BATCH, HEADS, 67, SIZE), Rotary(10, style=style)
    whole = rotary(x, torch.arange(67))
    alone = [rotary(x[1:, :, t : t + 1], torch.tensor([[t]])) for t in range(67)]
    assert torch.equal(torch.cat(alone, 2), whole[1:])


@pytest.mark.parametrize("style", ["half", "interleaved"])
def test_a_score_depends_on_the_distance_alone(style: str) -> None:
    q, k, rotary = torch.randn(1, 1, 1, 12), torch.randn(1, 1, 1, 12), Rotary(12, style=style)
    near, far = (
        (rotary(q.double(), torch.tensor([at])) * rotary(k.double(), torch.tensor([at - 11]))).sum()
        for at in (11, 10_007)
    )
    assert near.item() == pytest.approx(far.item(), rel=1e-9)


def test_the_gradient_turns_back() -> None:
    x = torch.randn(BATCH, HEADS, LENGTH, SIZE, dtype=torch.float64, requires_grad=True)
    up, positions = torch.randn(BATCH, HEADS, LENGTH, SIZE, dtype=torch.float64), torch.arange(LENGTH)
    Rotary(10)(x, positions).backward(up)
    assert x.grad is not None
    assert_near(x.grad, Rotary(10)(up, -positions), torch.float64)


def test_it_is_a_value_and_a_public_name() -> None:
    assert mmha.Rotary is Rotary
    assert Rotary(6, 500.0) == Rotary(6, 500.0, "half") != Rotary(6)
    assert hash(Rotary(6)) == hash(Rotary(6))


X = torch.zeros(BATCH, HEADS, LENGTH, SIZE)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "`dims`: expected an integer >= 2, got 0"),
        ((7,), ValueError, "`dims`: expected an even number, got 7"),
        ((6.0,), TypeError, "`dims`: expected an integer >= 2, got 6.0"),
        ((6, 0.0), ValueError, "`base`: expected a number > 0, got 0.0"),
        ((6, float("nan")), ValueError, "`base`: expected a finite number, got nan"),
        ((6, 1.0, "halv"), ValueError, "`style`: expected 'half' or 'interleaved', got 'halv'; did you mean 'half'?"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: tuple[int], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        Rotary(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("dims", "x", "positions", "error", "message"),
    [
        (6, X.int(), torch.arange(5), TypeError,
         "`x`: expected a tensor of float32, bfloat16, float16 or float64, got int32"),
        (6, X[0], torch.arange(5), ValueError, "`x`: expected 4 dimensions (B, H, T, D), got (3, 5, 13)"),
        (14, X, torch.arange(5), ValueError, "`x`: expected D >= dims = 14, got (2, 3, 5, 13)"),
        (6, X, torch.arange(5.0), TypeError,
         "`positions`: expected a tensor of int64, int32, int16, int8 or uint8, got float32"),
        (6, X, torch.arange(3), ValueError, "`positions`: expected shape (T,) = (5,), got (3,)"),
        (6, X, torch.zeros(3, 5).int(), ValueError, "`positions`: expected shape (B, T) = (2, 5), got (3, 5)"),
        (8, X, torch.zeros(2, 7, 2).int(), ValueError,
         "`positions`: expected shape (B, T, 2) = (2, 5, 2), got (2, 7, 2)"),
        (6, X, torch.zeros(2, 5, 2).int(), ValueError, "`dims`: expected a multiple of 4 for two position ids, got 6"),
        (6, X, torch.zeros(2, 5, 3).int(), ValueError,
         "`positions`: expected shape (T,), (B, T) or (B, T, 2), got (2, 5, 3)"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_refused(
    dims: int, x: Tensor, positions: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        Rotary(dims)(x, positions)
    assert str(caught.value) == message
