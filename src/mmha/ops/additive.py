"""Float masks: they hide where they are -inf, and are added to the scores elsewhere. Most hold only 0 and -inf."""

from __future__ import annotations

import torch
from torch import Tensor

from mmha import checks
from mmha.ops.arguments import check_memory


def check_numbers(argument: str, expected: str, x: Tensor) -> None:
    """Raise ValueError for NaN and +inf, which would turn rows into NaN; -inf hides and is fine."""
    top = x.amax().item() if x.numel() else 0.0  # amax of anything with NaN is NaN
    if not top < float("inf"):
        raise checks.value_error(argument, expected, f"one with {top} in it")


def split(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Where the mask is above -inf, bool in its shape; and the flags (2,): is that everywhere, is it 0 all there.

    Raises ValueError for a mask with NaN or +inf in it.
    """
    check_memory("mask", mask)
    check_numbers("mask", "a float mask of finite numbers and -inf", mask)
    visible = (mask > -torch.inf).contiguous()
    plain = torch.equal(mask == 0.0, visible)
    return visible, torch.tensor([bool(visible.all()), plain], device="cpu")


def split_like(mask: Tensor) -> tuple[Tensor, Tensor]:
    """What `split` returns, without computing it."""
    return mask.new_empty(mask.shape, dtype=torch.bool), mask.new_empty(2, dtype=torch.bool)
