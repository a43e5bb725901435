"""A row whose two results differ is a bug and not a figure: they are compared before anything is timed."""

from __future__ import annotations

import torch
from torch import Tensor

from mmha.bench.cases import Case, DType
from mmha.bench.contest import Contest, Results

# How far the two sides may stand apart, norm over norm: (out, gradients). They share the inputs, so that what is left
# is rounding. In float32 both compute alike. In the short formats mmha rounds its results alone, while torch also
# rounds the weights before they meet the values and, backward, the scores' gradients, and sums dK and dV in the short
# format: that is most of the difference. A cache in int8 rounds keys and values; it has no gradients.
TOLERANCE: dict[DType, tuple[float, float]] = {
    "f32": (2e-5, 2e-5),
    "bf16": (6e-3, 2e-2),
    "f16": (1e-3, 3e-3),
    "i8": (1.2e-2, 1.2e-2),
}
# What two independent patterns of dropout have in common: a mean (that of the result without) and a strength.
MEAN, STRENGTH = 0.02, 0.05


def check(case: Case, contest: Contest, ours: Results, theirs: Results) -> float:
    """The largest relative difference of two results, once it is within the tolerance.

    With dropout the patterns differ, so that the two are compared with it off, and then what it added on each side.

    Raises:
        RuntimeError: mmha and torch do not agree.
    """
    if contest.still is None:
        return compare(case, contest.ours.view(ours), contest.theirs.view(theirs))
    still = [side.work(case.direction)() for side in (contest.still.ours, contest.still.theirs)]
    difference = compare(case, *still)
    for mine, their, plain in zip(ours, theirs, still[1], strict=True):
        compare_noise(case, mine, their, plain)
    return difference


def compare(case: Case, ours: Results, theirs: Results) -> float:
    """The largest relative difference (norm over norm) of the two results; RuntimeError beyond the table."""
    out, gradient = TOLERANCE[case.dtype]
    first = {"forward": out, "recorded": out, "backward": gradient, "training": out}[case.direction]
    largest = 0.0
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        allowed = first if number == 0 else gradient
        a, b = a.detach().float(), b.detach().float()
        difference = float((a - b).norm() / b.norm())
        if not difference <= allowed:  # so that NaN is caught, too
            raise RuntimeError(
                f"{case.name}: mmha and torch differ by {difference:.1e} relative, allowed {allowed:.0e}"
            )
        largest = max(largest, difference)
    return largest


def compare_noise(case: Case, ours: Tensor, theirs: Tensor, plain: Tensor) -> None:
    """RuntimeError unless dropout leaves the mean where it was and adds as much noise on both sides."""
    (mean, strength), (_, expected) = noise(ours, plain), noise(theirs, plain)
    if not (abs(mean - 1) <= MEAN and abs(strength / expected - 1) <= STRENGTH):
        raise RuntimeError(
            f"{case.name}: dropout scales the mean by {mean:.3f} and adds noise of {strength:.3f}, torch {expected:.3f}"
        )


def noise(dropped: Tensor, plain: Tensor) -> tuple[float, float]:
    """(what of `plain` is left in `dropped`, the norm of all that is new, over that of `plain`).

    >>> noise(torch.tensor([2.0, 1.0]), torch.tensor([2.0, 0.0]))
    (1.0, 0.5)
    """
    left = float(torch.sum(dropped * plain) / torch.sum(plain * plain))
    return left, float((dropped - plain).norm() / plain.norm())
