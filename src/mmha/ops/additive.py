"""Float masks: what is added to the scores. Most hold only 0 and -inf, and those are boolean masks in disguise."""

from __future__ import annotations

import torch
from torch import Tensor

from mmha import checks


def check_values(additive: Tensor) -> None:
    """Raise ValueError for NaN and +inf, which would turn rows into NaN; -inf hides a pair and is fine."""
    top = additive.amax().item() if additive.numel() else 0.0  # amax of anything with NaN is NaN
    if not top < float("inf"):
        raise checks.value_error("mask", "a float mask of finite numbers and -inf", f"a mask with {top} in it")


def visible_if_plain(additive: Tensor) -> Tensor | None:
    """The bool mask that says the same, when every value is 0 or -inf; else None."""
    visible = additive == 0.0
    plain = bool((visible | (additive == -torch.inf)).all())
    return visible if plain else None
