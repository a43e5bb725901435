"""Two sides of one problem: what each computes, and how their results are brought into one form to be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmha.bench.cases import TORCH_NAMES, Case, Direction, Sizes
from mmha.bench.patterns import seeded
from mmha.masks import Mask

Results = tuple[Tensor, ...]
Work = Callable[[], Results]


def as_it_is(results: Results) -> Results:
    """The view of most sides: results that can be compared as they are."""
    return results


@dataclass(frozen=True)
class Side:
    """One side of a contest: out = attend(*inputs), the gradient that comes back to out, and the view of results."""

    attend: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    grad: Tensor
    view: Callable[[Results], Results] = as_it_is

    def work(self, direction: Direction) -> Work:
        """What is timed: (out,), the gradients of the inputs, or both, with everything else already done."""
        attend, grad = self.attend, self.grad
        if direction == "forward":
            return lambda: (attend(*self.inputs),)
        inputs = tuple(x.detach().requires_grad_() for x in self.inputs)
        if direction == "recorded":
            return lambda: (attend(*inputs),)
        if direction == "backward":
            out = attend(*inputs)
            return lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True)

        def step() -> Results:
            made = attend(*inputs)
            return made.detach(), *torch.autograd.grad(made, inputs, grad)

        return step


@dataclass(frozen=True)
class Contest:
    """mmha's side, torch's side and the visible pairs of both.

    still: the same without dropout, where results can be compared; None where this one's own can be.
    read: the bytes that one call of ours must read, where that is what bounds it.
    part: what ours does besides, to be timed in turns with both; None where there is nothing to take apart.
    """

    ours: Side
    theirs: Side
    pairs: int
    still: Contest | None = None
    read: int = 0
    part: Work | None = None


def tensors(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v and the gradient of out: unit-normal, the same at every run; in bfloat16 for a cache in int8."""
    size, generator = case.sizes, seeded(7)
    dtype: torch.dtype = torch.bfloat16 if case.dtype == "i8" else getattr(torch, TORCH_NAMES[case.dtype])

    def draw(heads: int, length: int) -> Tensor:
        return torch.randn(size.batch, heads, length, size.dim, generator=generator).to(dtype)

    q, k, v = draw(size.heads, size.q_len), draw(size.kv_heads, size.k_len), draw(size.kv_heads, size.k_len)
    return q, k, v, draw(size.heads, size.q_len)


def visible(mask: Mask | None, size: Sizes) -> int:
    """How many pairs the mask leaves visible."""
    return size.pairs if mask is None else mask.plan(size.batch, size.heads, size.q_len, size.k_len).visible


def added(mask: Mask, size: Sizes, dtype: torch.dtype, *, batch: int = 1) -> Tensor:
    """The mask as torch takes it fastest, numbers added to the scores: 0 or -inf, (batch, 1, Tq, Tk).

    A bool tensor would be turned into this one within every call.
    """
    hidden = mask.dense(batch, 1, size.q_len, size.k_len).logical_not_()
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf)
