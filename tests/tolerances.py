"""How far a result may stand from the float64 reference: one table for every test that compares numbers.

Relative means: the largest error, divided by the largest magnitude of the exact result (the error of a sum follows
the size of its terms, not of what is left of them). For float32 the contract is 2e-6 on unit-normal inputs. In
bfloat16 and float16 everything is computed in float32, so what remains is the rounding of the result: half a unit in
the last place.
"""

from __future__ import annotations

import torch
from torch import Tensor

RELATIVE = {
    torch.float64: 1e-13,
    torch.float32: 2e-6,
    torch.bfloat16: 2.0**-8 * 1.01,
    torch.float16: 2.0**-11 * 1.01,
}


def relative_error(got: Tensor, exact: Tensor, scale: Tensor | None = None) -> float:
    """The largest |got - exact| over the largest |scale| (by default |exact|); inf if they differ in what is finite."""
    got, exact = got.detach().double(), exact.detach().double()
    if got.shape != exact.shape or not torch.equal(got.isfinite(), exact.isfinite()):
        return float("inf")
    strange = ~exact.isfinite()
    if not torch.equal(got[strange].nan_to_num(2.0, 3.0, 4.0), exact[strange].nan_to_num(2.0, 3.0, 4.0)):
        return float("inf")
    if exact.numel() == 0 or bool(strange.all()):
        return 0.0
    size = exact if scale is None else scale.double()
    size = size[size.isfinite()].abs().max().clamp_min(1e-30)
    return float((got - exact)[~strange].abs().max() / size)


def assert_near(
    got: Tensor, exact: Tensor, dtype: torch.dtype, *, factor: float = 1.0, scale: Tensor | None = None
) -> None:
    """Raise unless `got` is within the table's tolerance (times `factor`) of the exact result."""
    error, limit = relative_error(got, exact, scale), RELATIVE[dtype] * factor
    assert error <= limit, f"relative error {error:.3g} > {limit:.3g}"
