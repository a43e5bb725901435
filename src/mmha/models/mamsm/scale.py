"""Values as tokens: a scale from the lowest to the highest, cut into steps, and the markers around a series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmha import checks

PAD, CLS, SEP, MASK = range(4)
SPECIAL = 4  # the token of the lowest value


@dataclass(frozen=True)
class Scale:
    """token = 4 + round(clip((x − low) / (high − low), 0, 1) / step), ties to even; x is about low + (token − 4) · step
    · (high − low).

    Args: low, high, of all the data; step, of the range, 0.001 as published: 1001 values and 4 markers.
    Raises: ValueError unless low < high, and the range is a whole number of steps.
    Source: He et al. (2023), section 2.3.

    >>> scale = Scale(-2.0, 2.0, step=0.25)
    >>> scale.vocabulary, scale.encode([[-9.0, -2.0, 0.1, 2.0]]), scale.decode([[4, 6, 8]])
    (9, tensor([[4, 4, 6, 8]]), tensor([[-2.,  0.,  2.]]))
    """

    low: float
    high: float
    step: float = 0.001
    pad: ClassVar[int] = PAD
    cls: ClassVar[int] = CLS
    sep: ClassVar[int] = SEP
    mask: ClassVar[int] = MASK
    first: ClassVar[int] = SPECIAL

    def __post_init__(self) -> None:
        low, high = checks.number("low", self.low), checks.number("high", self.high)
        checks.require(low < high, "high", f"a number above low = {low:g}", high)
        step = checks.number("step", self.step)
        fits = 0 < step <= 1 and abs(1 / step - round(1 / step)) < 1e-6
        checks.require(fits, "step", "1 / n of the range, n a whole number", step)

    @staticmethod
    def of(values: Any, step: float = 0.001) -> Scale:
        """The scale from the lowest to the highest of the values.

        Raises: ValueError when they are all equal, or not finite.
        """
        given = np.asarray(values)
        checks.require(given.size > 0, "values", "at least two values", "none")
        return Scale(float(given.min()), float(given.max()), step)

    @property
    def steps(self) -> int:
        """How many steps the range has."""
        return round(1 / self.step)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are: the markers and the values."""
        return SPECIAL + self.steps + 1

    def encode(self, values: Any) -> Tensor:
        """int64 tokens of values of any shape; what is beyond the range gets its end.

        Raises: ValueError for NaN.
        """
        given = torch.as_tensor(np.asarray(values, np.float64))
        checks.require(not bool(given.isnan().any()), "values", "numbers", "NaN")
        share = ((given - self.low) / (self.high - self.low)).clamp(0, 1)
        return (share * self.steps).round().to(torch.int64) + SPECIAL

    def decode(self, tokens: Any) -> Tensor:
        """float32 values of tokens of any shape.

        Raises: ValueError for markers, and for numbers beyond the vocabulary.
        """
        given = torch.as_tensor(tokens)
        if given.numel():
            least, most = (int(t) for t in given.aminmax())
            wanted = f"tokens of values, {SPECIAL} to {self.vocabulary - 1}"
            checks.require(least >= SPECIAL and most < self.vocabulary, "tokens", wanted, f"{least} to {most}")
        return (self.low + (given - SPECIAL).double() / self.steps * (self.high - self.low)).float()


def frame(tokens: Tensor) -> Tensor:
    """[CLS], the tokens of a series, [SEP]: int64 (B, T) → (B, T + 2).

    >>> frame(torch.tensor([[7, 8]]))
    tensor([[1, 7, 8, 2]])
    """
    return torch.nn.functional.pad(torch.nn.functional.pad(tokens, (1, 0), value=CLS), (0, 1), value=SEP)
