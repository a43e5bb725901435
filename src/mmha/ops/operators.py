"""What each operator computes on CPU tensors, and what it returns (the `_like` functions) without computing it.

`run` and `gradients` are what is beneath the operators; whoever calls them past torch's dispatcher has made sure that
all tensors are in memory (`watch.is_direct`), as the operators do.
"""

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

Three = tuple[Tensor, Tensor, Tensor]
Four = tuple[Tensor, Tensor, Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor, list[Tensor]]
Grads = tuple[Tensor | None, Tensor | None, Tensor | None]

float_mask, float_mask_like = split, split_like


def run(
    q: Tensor, k: Tensor, v: Tensor, call: Call, want_lse: bool = True, for_backward: bool = True
) -> kernels.Results:
    """out, lse, and what backward needs besides, as `kernels.forward` has them: None stands for what nobody wants."""
    if call.mask_tensors or call.parts():
        call = checked(call)
    if kernels.has_kernel(q, v):
        return kernels.forward(call.plan(q, k), q, k, v, call, want_lse, for_backward)
    out, lse, _ = reference.attention(q, k, v, _rule(q, k, call))
    return _ordered(q, out), lse.to(_lse_dtype(q)), None


def run_weights(
    q: Tensor, k: Tensor, v: Tensor, call: Call, want_lse: bool = True, for_backward: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """out, lse, the weights, and what backward needs besides."""
    call = checked(call)
    if not kernels.has_kernel(q, v):
        out, lse, weights = reference.attention(q, k, v, _rule(q, k, call), return_weights=True)
        assert weights is not None
        return _ordered(q, out), lse.to(_lse_dtype(q)), weights.to(q.dtype), None
    plan = call.plan(q, k)
    out, made, more = kernels.forward(plan, q, k, v, call, True, for_backward)
    assert made is not None
    return out, made, kernels.weights(plan, q, k, made, call), more


def gradients(
    saved: Sequence[Tensor], grads: Grads, wanted: Sequence[bool], call: Call, weights: Tensor | None = None
) -> Gradients:
    """dq, dk, dv, and those of `call.parts()` that are wanted. saved: q, k, v and the results of `run`;
    grads: of out, lse and weights."""
    q, k, v, out = saved[:4]
    if call.mask == FLOAT:
        call = call.settled(keep=wanted[3])
        wanted = (*wanted[:3], *wanted[len(wanted) - len(call.additives) :])
    if not kernels.has_kernel(q, v):
        return _reference_gradients(q, k, v, grads, wanted, call)
    plan = call.plan(q, k, backward=True)
    grad_out = torch.zeros_like(out) if grads[0] is None else grads[0]
    return kernels.backward(plan, saved, (grad_out, *grads[1:]), wanted, call, weights)


def weights_gradients(saved: Sequence[Tensor], grads: Grads, wanted: Sequence[bool], call: Call) -> Gradients:
    """The same of the results of `run_weights`."""
    return gradients([*saved[:5], *saved[6:]], grads, wanted, call, saved[5])


def forward(q: Tensor, k: Tensor, v: Tensor, for_backward: bool, *rest: Any) -> Three:
    """`mmha::attention_forward`: as `run`, with an empty tensor for None."""
    out, lse, more = run(q, k, v, _in_memory(q, k, v, Call(*rest)), True, for_backward)
    assert lse is not None
    return out, lse, _residual(more, q, k, v, for_backward)


def weights_forward(q: Tensor, k: Tensor, v: Tensor, for_backward: bool, *rest: Any) -> Four:
    """`mmha::attention_weights_forward`: as `run_weights`, with an empty tensor for None."""
    out, lse, weights, more = run_weights(q, k, v, _in_memory(q, k, v, Call(*rest)), True, for_backward)
    return out, lse, weights, _residual(more, q, k, v, for_backward)


def _residual(more: Tensor | None, q: Tensor, k: Tensor, v: Tensor, for_backward: bool) -> Tensor:
    return more if more is not None else forward_like(q, k, v, for_backward)[2].zero_()


def backward(saved: Sequence[Tensor], *rest: Any) -> Gradients:
    """`mmha::attention_backward`."""
    q, k, v = saved[:3]
    return gradients(saved, rest[:3], rest[3], _in_memory(q, k, v, Call(*rest[4:])))


def weights_backward(saved: Sequence[Tensor], *rest: Any) -> Gradients:
    """`mmha::attention_weights_backward`."""
    q, k, v = saved[:3]
    return weights_gradients(saved, rest[:3], rest[3], _in_memory(q, k, v, Call(*rest[4:])))


def checked(call: Call) -> Call:
    """The call without FLOAT, when the numbers in it make sense."""
    if call.sinks is not None:
        check_numbers("sinks", "a tensor of finite numbers and -inf", call.sinks)
    for part in (call.slopes, call.table):
        if part is not None:
            check_numbers("bias", "slopes and a table of finite numbers", part.abs())
    return call.settled()


def _in_memory(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Call:
    """The call, when all numbers are in memory."""
    for name, x in (("q", q), ("k", k), ("v", v), ("sinks", call.sinks)):
        check_memory(name, x)
    check_memory("mask", *call.mask_tensors)
    check_memory("bias", call.slopes, call.table, *call.additives)
    return call


def _reference_gradients(
    q: Tensor, k: Tensor, v: Tensor, grads: Grads, wanted: Sequence[bool], call: Call
) -> Gradients:
    made = reference.gradients(q, k, v, reference.Gradients(*grads), _rule(q, k, call))
    table = None if made.table is None or call.table is None else made.table.sum_to_size(call.table.shape)
    extras = (made.slopes, table, made.sinks, *(made.additive or ()))
    parts = zip(extras, call.differentiable(), wanted, strict=True) if any(wanted) else ()
    more = [g.to(x.dtype) for g, x, want in parts if want and g is not None and x is not None]
    return _ordered(q, made.q), _ordered(k, made.k), _ordered(v, made.v), more


def _ordered(x: Tensor, made: Tensor) -> Tensor:
    """What the reference made, in the dtype of x and its order of heads and tokens, as the kernels would leave it."""
    return x.new_empty_strided(*kernels.like(x, made.shape[3])).copy_(made)


def _rule(q: Tensor, k: Tensor, call: Call) -> reference.Rule:
    dropout = None if call.seed is None else reference.Dropout(call.dropout_p, int(call.seed))
    table = None if call.table is None else call.table.expand(q.shape[1], -1)
    return reference.Rule(
        visible=call.mask_call(q, k).rows_visible(), additive=tuple(call.additives) or None,
        scale=call.scale, softcap=call.softcap, sinks=call.sinks, slopes=call.slopes, table=table,
        q_start=call.q_start, dropout=dropout,
    )  # fmt: skip


def _lse_dtype(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def forward_like(q: Tensor, k: Tensor, v: Tensor, for_backward: bool, *_: Any) -> Three:
    """What `forward` returns."""
    out = q.new_empty_strided(*kernels.like(q, v.shape[3]))
    lse = q.new_empty(q.shape[:3], dtype=_lse_dtype(q))
    rounds = for_backward and q.dtype in (torch.bfloat16, torch.float16)
    return out, lse, torch.empty_like(out) if rounds else q.new_empty(0)


def backward_like(saved: Sequence[Tensor], *rest: Any) -> Gradients:
    """What `backward` and `weights_backward` return."""
    q, k, v = map(kernels.empty_like, saved[:3])
    wanted, call = rest[3], Call(*rest[4:])
    parts = [x for x, want in zip(call.parts(), wanted, strict=True) if want and x is not None]
    return q, k, v, [x.new_empty(x.shape) for x in parts]


def weights_forward_like(q: Tensor, k: Tensor, v: Tensor, for_backward: bool, *_: Any) -> Four:
    """What `weights_forward` returns."""
    out, lse, more = forward_like(q, k, v, for_backward)
    return out, lse, q.new_empty((*q.shape[:3], k.shape[2])), more


weights_backward_like = backward_like
