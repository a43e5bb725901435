"""Dropout between the layers, at an eighth of the time that torch takes to draw it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmha.ops.watch import is_plain

#: From so many numbers on it pays; fewer are torch's.
FEWEST = 1 << 14
CHANCES = 1 << 16


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """torch.nn.functional.dropout: each number is 0 with probability p, and otherwise divided by 1 − p.

    torch draws a Bernoulli number at a time, one after the other. Here 64 random bits of torch's generator decide
    about four numbers: p is rounded to a multiple of 2⁻¹⁶, and the numbers kept are divided by 1 − that. What is
    dropped follows from torch.manual_seed, though not in the pattern of torch's own dropout.

    Shapes: x (...), any floating dtype → the same.
    Raises: ValueError for p outside [0, 1].
    Source: Srivastava et al. (2014).

    >>> _ = torch.manual_seed(7)
    >>> dropped = dropout(torch.ones(200, 100), p=0.1)
    >>> sorted({round(x, 3) for x in dropped.flatten().tolist()}), round((dropped == 0).double().mean().item(), 1)
    ([0.0, 1.111], 0.1)
    """
    threshold = round(p * CHANCES)
    if not training or not 0 < threshold < CHANCES or x.numel() < FEWEST or not is_plain(x):
        return F.dropout(x, p, training)
    out: Tensor = _Dropout.apply(x, threshold)  # type: ignore[no-untyped-call]
    return out


class Dropout(nn.Dropout):
    """torch.nn.Dropout, drawn by `dropout`.

    >>> Dropout(0.1).eval()(torch.ones(2, 3)).sum()
    tensor(6.)
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, True) if self.inplace else dropout(input, self.p, self.training)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        kept = _drawn(x, threshold)
        ctx.save_for_backward(kept)
        ctx.scale = CHANCES / (CHANCES - threshold)
        return (x * kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (kept,) = ctx.saved_tensors
        return grads[0] * kept * ctx.scale, None


def _drawn(x: Tensor, threshold: int) -> Tensor:
    """1 where a number stays and 0 where it goes, in the dtype and shape of x."""
    count = x.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)
    return (bits[:count] >= threshold - CHANCES // 2).to(x.dtype).view(x.shape)
