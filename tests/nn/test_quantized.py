"""Products with weights in int8, against float64 and numpy."""

from __future__ import annotations

import platform

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmha.nn.quantized import Quantized, _has_kernel

M, K = 83, 257  # K is no multiple of what torch reads at a time
ROUNDING = 2.0**-8  # of one number to bfloat16, relative


@pytest.fixture(params=["torch's kernel", "none"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether torch has a fast kernel for this CPU, or says that it has none."""
    if request.param != "none":
        needs_kernel()
    else:
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    return request.param != "none"


def needs_kernel() -> None:
    if not _has_kernel():
        pytest.skip("torch has no fast kernel for this CPU")


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def rounded(x: Tensor) -> NDArray[np.float64]:
    return x.bfloat16().double().numpy()


def by_numpy(weight: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The scales and the whole numbers that stand for the weights; a row of zeros has no scale to speak of."""
    scale = rounded(weight.abs().amax(1) / 127)
    return scale, np.rint(weight.double().numpy() / np.where(scale == 0, 1, scale)[:, None])


@pytest.mark.parametrize("rows", [0, 1, 2, 5, 67])
@pytest.mark.parametrize("columns", [1, 16, K])
@pytest.mark.parametrize("with_bias", [True, False])
def test_products_of_any_number_of_rows(kernel: bool, rows: int, columns: int, with_bias: bool) -> None:
    x, weight, bias = drawn(rows, columns), drawn(M, columns), drawn(M) if with_bias else None
    weight[11] = 0
    scale, numbers = by_numpy(weight)
    product = rounded(x) @ (scale[:, None] * numbers).T
    wanted = product if bias is None else product + rounded(bias)
    sums = columns * 2.0**-23 * (np.abs(rounded(x)) @ np.abs(scale[:, None] * numbers).T)
    bound = ROUNDING * (np.abs(product) + (0 if bias is None else 1.01 * np.abs(wanted))) * 1.01 + 2 * sums
    for relu in (False, True):
        made = Quantized(weight, bias, relu=relu)
        assert (made.slow is None) == kernel
        out = made(x)
        assert out.dtype == torch.float32
        assert out.shape == (rows, M)
        assert (np.abs(out.double().numpy() - (np.maximum(wanted, 0) if relu else wanted)) <= bound).all()
        half = made(x.bfloat16())
        assert half.dtype == torch.bfloat16
        assert half.equal(out.bfloat16())


def test_each_weight_is_within_half_a_scale_and_no_row_is_off_by_a_factor() -> None:
    weight = drawn(997, 31) * torch.logspace(-30, 30, 997)[:, None]
    weight[5] = 0
    made = Quantized(weight)
    held = made.weight[:, :31].double()
    scale = made.scale.double()
    assert ((held * scale[:, None] - weight.double()).abs() <= scale[:, None] / 2).all()
    assert (held.abs().amax(1) == torch.where(torch.arange(997) == 5, 0, 127)).all()
    kept = (held * scale[:, None] * weight.double()).sum(1) / weight.double().square().sum(1)
    assert abs(kept[kept.isfinite()].mean() - 1) < 1e-4
    assert made(torch.ones(2, 31))[:, 5].eq(0).all()


def test_a_row_depends_on_itself_alone() -> None:
    needs_kernel()
    x, made = drawn(67, K), Quantized(drawn(M, K), drawn(M), relu=True)
    whole = made(x)
    assert all(made(x[at : at + 1]).equal(whole[at : at + 1]) for at in range(len(x)))


def test_x_may_lie_anywhere_in_memory() -> None:
    made = Quantized(drawn(M, 32))
    x = drawn(5, 32).bfloat16()
    wanted = made(x)
    for first in range(1, 40, 3):
        memory = torch.full((first + 5 * 32,), torch.nan, dtype=torch.bfloat16)
        view = memory[first:].view(5, 32)
        view.copy_(x)
        assert made(view).equal(wanted)
    assert made(x.t().contiguous().t()).equal(wanted)


def test_the_weights_are_those_of_their_time() -> None:
    weight, x = torch.nn.Parameter(drawn(M, K)), drawn(3, K)
    made = Quantized(weight)
    before = made(x)
    assert not before.requires_grad
    with torch.no_grad():
        weight.zero_()
    assert made(x).equal(before)
