"""What each operator computes on CPU tensors, and what it returns (the `_like` functions) without computing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmha import reference
from mmha.ops import kernels
from mmha.ops.additive import check_numbers, split, split_like
from mmha.ops.arguments import check_memory
from mmha.ops.call import FLOAT, Call
from mmha.ops.plans import PLANS

Pair = tuple[Tensor, Tensor]
Three = tuple[Tensor, Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor, list[Tensor]]
Grads = Sequence[Tensor | None]

float_mask, float_mask_like = split, split_like


def forward(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Pair:
    """out and lse."""
    call = _checked(q, k, v, Call(*rest))
    if kernels.has_kernel(q, v, call):
        return kernels.forward(PLANS.get(call.mask_call(kernels.sizes_of(q, k))), q, k, v, call)
    out, lse, _ = reference.attention(q, k, v, _rule(q, k, call))
    return out.to(q.dtype), lse.to(_lse_dtype(q))


def backward(saved: Sequence[Tensor], grads: Grads, wanted: Sequence[bool], *rest: Any) -> Gradients:
    """dq, dk, dv, and of `Call.differentiable()` the gradients that are wanted. saved: q, k, v, out, lse."""
    q, k, v, out, _ = saved
    call = Call(*rest)
    if call.mask == FLOAT:
        call = call.settled(keep=wanted[3])
        wanted = (*wanted[:3], *wanted[len(wanted) - len(call.additives) :])
    if not kernels.has_kernel(q, v, call):
        return _reference_gradients(q, k, v, grads, wanted, call)
    plan = PLANS.get(call.mask_call(kernels.sizes_of(q, k)), backward=True)
    grad_out = torch.zeros_like(out) if grads[0] is None else grads[0]
    return kernels.backward(plan, saved, (grad_out, grads[1]), wanted, call)


def reference_forward(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Three:
    """out, lse and the weights."""
    call = _checked(q, k, v, Call(*rest))
    out, lse, weights = reference.attention(q, k, v, _rule(q, k, call), return_weights=True)
    assert weights is not None
    return out.to(q.dtype), lse.to(_lse_dtype(q)), weights.to(q.dtype)


def reference_backward(saved: Sequence[Tensor], grads: Grads, wanted: Sequence[bool], *rest: Any) -> Gradients:
    """As `backward`; the third of the gradients that come in is that of the weights."""
    return _reference_gradients(*saved[:3], grads, wanted, Call(*rest).settled(keep=True))


def _checked(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Call:
    """The call without FLOAT, when all numbers that it needs are in memory and make sense."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_memory(name, x)
    for x in call.mask_tensors:
        check_memory("mask", x)
    for x in (call.slopes, call.table, *call.additives):
        if x is not None:
            check_memory("bias", x)
    if call.sinks is not None:
        check_memory("sinks", call.sinks)
        check_numbers("sinks", "a tensor of finite numbers and -inf", call.sinks)
    for x in (call.slopes, call.table):
        if x is not None:
            check_numbers("bias", "slopes and a table of finite numbers", x.abs())
    return call.settled()


def _reference_gradients(
    q: Tensor, k: Tensor, v: Tensor, grads: Grads, wanted: Sequence[bool], call: Call
) -> Gradients:
    made = reference.gradients(q, k, v, reference.Gradients(*grads), _rule(q, k, call))
    table = made.table
    if table is not None and call.table is not None:
        table = table.sum_to_size(call.table.shape)
    extras = (made.slopes, table, made.sinks, *(made.additive or ()))
    return (
        made.q.to(q.dtype), made.k.to(q.dtype), made.v.to(q.dtype),
        [g.to(x.dtype) for g, x, want in zip(extras, call.differentiable(), wanted, strict=True) if want],
    )  # fmt: skip


def _rule(q: Tensor, k: Tensor, call: Call) -> reference.Rule:
    dropout = None if call.seed is None else reference.Dropout(call.dropout_p, int(call.seed))
    table = None if call.table is None else call.table.expand(q.shape[1], -1)
    return reference.Rule(
        visible=call.mask_call(kernels.sizes_of(q, k)).rows_visible(), additive=tuple(call.additives) or None,
        scale=call.scale, softcap=call.softcap, sinks=call.sinks, slopes=call.slopes, table=table,
        q_start=call.q_start, dropout=dropout,
    )  # fmt: skip


def _lse_dtype(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def forward_like(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> Pair:
    """What `forward` returns."""
    return q.new_empty((*q.shape[:3], v.shape[3])), q.new_empty(q.shape[:3], dtype=_lse_dtype(q))


def backward_like(saved: Sequence[Tensor], grads: Grads, wanted: Sequence[bool], *rest: Any) -> Gradients:
    """What `backward` and `reference_backward` return."""
    q, k, v = (x.new_empty(x.shape) for x in saved[:3])
    extras = zip(Call(*rest).differentiable(), wanted, strict=True)
    return q, k, v, [x.new_empty(x.shape) for x, want in extras if want and x is not None]


def reference_forward_like(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> Three:
    """What `reference_forward` returns."""
    return *forward_like(q, k, v), q.new_empty((*q.shape[:3], k.shape[2]))


reference_backward_like = backward_like
