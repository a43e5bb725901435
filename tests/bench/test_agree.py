"""Results that differ are no figure: the tolerance of each dtype, and what dropout must leave as it was."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from mmha.bench import agree
from mmha.bench.agree import TOLERANCE
from mmha.bench.cases import Case, Direction, DType, sizes


def case(direction: Direction, dtype: DType = "f32") -> Case:
    return Case("masks", direction, "causal", sizes(7), aim=1.0, dtype=dtype)


@pytest.mark.parametrize("wrong", [1.0 + 1e-4, float("nan")])
def test_results_that_differ_are_no_figure(wrong: float) -> None:
    right = torch.randn(3, 5)
    line = r"masks forward causal 7 f32 1x8 d64: mmha and torch differ by .* relative, allowed 2e-05"
    with pytest.raises(RuntimeError, match=line):
        agree.compare(case("forward"), (right * wrong,), (right,))
    with pytest.raises(RuntimeError, match=r"backward .* differ by"):
        agree.compare(case("backward"), (right, right * wrong), (right, right))
    assert agree.compare(case("forward"), (right,), (right,)) == 0.0


def test_the_largest_difference_is_told() -> None:
    right = torch.randn(3, 5)
    told = agree.compare(case("backward"), (right * (1 + 1e-5), right * (1 + 2e-6)), (right, right))
    assert told == pytest.approx(1e-5, rel=0.1)


@pytest.mark.parametrize("dtype", get_args(DType))
def test_out_and_gradients_have_their_own_tolerance(dtype: DType) -> None:
    out, gradient = TOLERANCE[dtype]
    right = torch.full((3, 5), 8.0, dtype=torch.float64)
    for direction, first in (("forward", out), ("recorded", out), ("training", out), ("backward", gradient)):
        row = case(direction, dtype)  # type: ignore[arg-type]
        rest = (right,) if direction in ("training", "backward") else ()
        agree.compare(row, (right * (1 + 0.9 * first), *rest), (right, *rest))
        with pytest.raises(RuntimeError, match=f"allowed {first:.0e}"):
            agree.compare(row, (right * (1 + 1.1 * first), *rest), (right, *rest))
    with pytest.raises(RuntimeError, match=f"allowed {gradient:.0e}"):
        agree.compare(case("training", dtype), (right, right * (1 + 1.1 * gradient)), (right, right))


def test_noise_may_differ_but_not_in_mean_or_strength() -> None:
    plain = torch.randn(211, 307)
    noisy = [plain + 0.3 * torch.randn(211, 307) for _ in range(2)]
    agree.compare_noise(case("forward"), *noisy, plain)
    for wrong in (0.9 * noisy[0], plain, plain + 1.2 * (noisy[0] - plain), noisy[0] * float("nan")):
        with pytest.raises(RuntimeError, match=r"forward .* dropout scales the mean by .* noise of .*, torch 0\.30"):
            agree.compare_noise(case("forward"), wrong, noisy[1], plain)
