"""The pattern of dropout: its value, its rate, and that nothing about it is alike from place to place."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mmha import reference
from mmha.reference import Dropout, Gradients, Rule, noise

B, H, TQ, TK, D, DV = 2, 3, 5, 7, 11, 13
SIGMAS = 5.0
Floats = npt.NDArray[np.float64]


def draw(seed: int = 0, b: int = 0, heads: int = 8, rows: int = 257, keys: int = 521) -> Floats:
    """Noise as numbers in [-1, 1)."""
    return noise(seed, b, slice(0, heads), slice(0, rows), keys) * 2.0**-31 - 1.0


def test_values() -> None:
    """Computed by hand from the formula, once; the kernels are held to the same numbers."""
    assert noise(1, 2, slice(3, 4), slice(5, 6), 8)[0, 0, 7] == 0x31604118
    assert (
        noise(-1, 0, slice(0, 1), slice(0, 1), 1)[0, 0, 0] == noise(2**64 - 1, 0, slice(0, 1), slice(0, 1), 1)[0, 0, 0]
    )


def test_a_part_is_a_part_of_the_whole() -> None:
    whole, dropout = noise(7, 1, slice(0, H), slice(0, TQ), TK), Dropout(0.3, 7)
    keep = dropout.keep(1, slice(0, H), slice(0, TQ), TK)
    for h, i in product(range(H), range(TQ)):
        assert (noise(7, 1, slice(h, h + 1), slice(i, i + 1), TK - 2)[0, 0] == whole[h, i, :-2]).all()
        assert torch.equal(dropout.keep(1, slice(h, h + 1), slice(i, i + 1), TK)[0, 0], keep[h, i])


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_as_many_are_kept_as_asked_for(p: float, seed: int) -> None:
    heads, rows, keys = 8, 257, 521
    keep = Dropout(p, seed).keep(0, slice(0, heads), slice(0, rows), keys).double()
    for dims, count in (((0, 1, 2), keep.numel()), ((1, 2), rows * keys)):
        error = (keep.mean(dims) - (1.0 - p)).abs().max().item()
        assert error <= SIGMAS * math.sqrt(p * (1.0 - p) / count)


def test_noise_is_even_and_its_bits_are_fair() -> None:
    x = noise(11, 0, slice(0, 8), slice(0, 257), 521).reshape(-1)
    for shift in range(0, 32, 8):
        counts = np.bincount((x >> np.uint32(shift)).astype(np.uint8), minlength=256)
        chi2 = float(((counts - x.size / 256) ** 2 / (x.size / 256)).sum())
        assert abs(chi2 - 255) < SIGMAS * math.sqrt(2 * 255)


def correlation(x: Floats, y: Floats) -> float:
    """In standard deviations of what chance would give: for evenly drawn numbers in [-1, 1), E[(xy)**2] = 1/9."""
    return abs(float((x * y).sum())) / math.sqrt(x.size / 9)


def test_neighbours_are_independent() -> None:
    x = draw()
    for step in (1, 2, 3, 8, 16, 32, 64, 128):
        assert correlation(x[:, step:], x[:, :-step]) < SIGMAS, f"rows {step} apart"
        assert correlation(x[:, :, step:], x[:, :, :-step]) < SIGMAS, f"keys {step} apart"
        assert correlation(x[:, step:, step:], x[:, :-step, :-step]) < SIGMAS, f"along the diagonal, {step} apart"
    for step in (1, 2, 4):
        assert correlation(x[step:], x[:-step]) < SIGMAS, f"heads {step} apart"
    square = draw(rows=521)[:, :, :521]
    assert correlation(square, square.transpose(0, 2, 1)[:, ::-1]) < SIGMAS


def test_seeds_and_batch_rows_are_independent() -> None:
    x = draw()
    for seed in (1, 2, 3, 2**32, 2**63, -1):
        assert correlation(draw(seed=seed), x) < SIGMAS, f"seed {seed}"
    for b in (1, 2, 3, 17, 1 << 20):
        assert correlation(draw(b=b), x) < SIGMAS, f"batch row {b}"
    for h, i in ((0, 1), (1, 0), (2, 1)):  # numbers of a head, a row and a batch row do not stand for each other
        assert correlation(draw(b=1)[h, i], x[i, h]) < SIGMAS


def test_rows_and_keys_do_not_meet_in_rectangles() -> None:
    """Four corners of a rectangle share two rows and two keys: where a hash of both is too simple, they betray it."""
    x = draw(rows=256, keys=512)
    sign = np.where(x < -0.8, 1.0, -1.0 / 9.0) * 3.0  # dropped or kept at p = 0.1, with mean 0 and variance 1
    for rows, keys in product((1, 2, 16, 128), repeat=2):
        corners = sign[:, rows:, keys:] * sign[:, :-rows, keys:] * sign[:, rows:, :-keys] * sign[:, :-rows, :-keys]
        assert abs(float(corners.sum())) / math.sqrt(corners.size) < SIGMAS, f"{rows} rows by {keys} keys"


def numbers() -> tuple[tuple[torch.Tensor, ...], Gradients]:
    shapes = ((B, H, TQ, D), (B, H, TK, D), (B, H, TK, DV))
    return tuple(torch.randn(shape).double() for shape in shapes), Gradients(torch.randn(B, H, TQ, DV).double())


def test_nothing_is_dropped_at_0() -> None:
    x, grad = numbers()
    rule = Rule(dropout=Dropout(0.0, seed=1))
    for have, want in zip(
        (*reference.attention(*x, rule)[:2], *reference.gradients(*x, grad, rule)[:3]),
        (*reference.attention(*x)[:2], *reference.gradients(*x, grad)[:3]),
        strict=True,
    ):
        assert torch.equal(have, want)


def test_everything_is_dropped_at_1() -> None:
    x, grad = numbers()
    rule = Rule(sinks=torch.randn(H), dropout=Dropout(1.0, seed=1))
    out, lse, weights = reference.attention(*x, rule, return_weights=True)
    _, wanted_lse, wanted_weights = reference.attention(*x, replace(rule, dropout=None), return_weights=True)
    assert Dropout(1.0, seed=1).factor == 0.0  # the largest noise, 2**32 - 1, is not below any threshold
    assert not out.any()
    assert torch.equal(lse, wanted_lse)
    assert weights is not None
    assert wanted_weights is not None
    assert torch.equal(weights, wanted_weights)
    derivatives = reference.gradients(*x, grad, rule)
    assert not any(dx.any() for dx in (*derivatives[:3], derivatives.sinks) if dx is not None)


def test_the_mean_over_seeds_is_what_attention_without_dropout_gives() -> None:
    x, _ = numbers()
    outs = torch.stack([reference.attention(*x, Rule(dropout=Dropout(0.3, seed)))[0] for seed in range(400)])
    error = (outs.mean(0) - reference.attention(*x)[0]).abs() / (outs.std(0) / math.sqrt(len(outs)))
    assert error.max() < SIGMAS
