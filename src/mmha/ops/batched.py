"""Gradients of several outputs at a time, as is_grads_batched=True and jacobian(vectorize=True) ask for: one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def one_by_one(operator: Callable[..., Any], several: str) -> Callable[..., Any]:
    """A backward operator over gradients that torch.autograd has batched; `several` is what to raise for two levels."""

    def backward(saved: Any, *given: Any) -> Any:
        grads, rest = given[:3], given[3:]
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        if level != 1:
            raise RuntimeError(several)
        rows = [None if x is None else torch._remove_batch_dim(x, level, 1, 0) for x in grads]
        count = max(len(x) for x in rows if x is not None)
        made = [operator(saved, *(None if x is None else x[i % len(x)] for x in rows), *rest) for i in range(count)]
        *main, extras = zip(*made, strict=True)
        return *(_joined(x, level) for x in main), [_joined(x, level) for x in zip(*extras, strict=True)]

    return backward


def _joined(rows: tuple[Tensor, ...], level: int) -> Tensor:
    made: Tensor = torch._add_batch_dim(torch.stack(rows), 0, level)
    return made
