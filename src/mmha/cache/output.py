"""What a decode step does to its output: shift, smooth, and round to int8."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmha import checks
from mmha.cache.arguments import vector

INT8 = (-127.0, 127.0)


class Finish(NamedTuple):
    """What happens to the output: (x + shift) * smooth, then int8 with out_scale."""

    shift: Tensor | None
    smooth: Tensor | None
    scale: float | None
    away: bool
    bounds: tuple[float, float]

    @staticmethod
    def checked(width: int, shift: Any, smooth: Any, scale: Any, rounding: Any, bounds: Any) -> Finish:
        if shift is None and smooth is None and scale is None and rounding == "even" and bounds == INT8:
            return NOTHING
        if scale is not None:
            scale = checks.number("out_scale", scale)
            checks.require(scale > 0, "out_scale", "None or a number > 0", scale)
        away = checks.one_of("round", rounding, ("even", "away")) == "away"
        if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
            raise checks.type_error("out_bounds", "two numbers (low, high)", bounds)
        low, high = (checks.number("out_bounds", bound) for bound in bounds)
        checks.require(-128 <= low < high <= 127, "out_bounds", "low < high within -128 to 127", f"({low}, {high})")
        return Finish(vector("out_shift", shift, width), vector("out_smooth", smooth, width), scale, away, (low, high))

    def __call__(self, out: Tensor, dtype: torch.dtype) -> Tensor:
        if self.shift is not None:
            out = out + self.shift
        if self.smooth is not None:
            out = out * self.smooth
        if self.scale is None:
            return out if dtype in (torch.float32, torch.int32) else out.to(dtype)
        scaled = out * (self.bounds[1] * self.scale)
        rounded = scaled.sign() * (scaled.abs() + 0.5).floor() if self.away else scaled.round()
        return rounded.clamp(*self.bounds).to(torch.int8)


NOTHING = Finish(None, None, None, False, INT8)
