"""What each operator computes on CPU tensors, and what it returns (the `_like` functions) without computing it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmha import reference
from mmha.ops import kernels
from mmha.ops.additive import check_values, visible_if_plain
from mmha.ops.arguments import check_memory
from mmha.ops.plans import PLAIN, PLANS, MaskCall

Pair = tuple[Tensor, Tensor]
Three = tuple[Tensor, Tensor, Tensor]
Four = tuple[Tensor, Tensor, Tensor, Tensor]


def forward(
    q: Tensor, k: Tensor, v: Tensor, tensors: list[Tensor], spec: str, q_start: Tensor | None, scale: float | None
) -> Pair:
    check_memory(q, k, v)
    call = MaskCall(spec, tensors, kernels.sizes_of(q, k), q_start)
    if kernels.has_kernel(q, k, v):
        return kernels.forward(PLANS.get(call), q, k, v, kernels.default_scale(q, scale))
    out, lse, _ = reference.attention(q, k, v, reference.Rule(call.rows_visible(), scale=scale))
    return out.to(q.dtype), lse.to(q.dtype)


def backward(
    saved: list[Tensor], grad_out: Tensor, grad_lse: Tensor | None,
    tensors: list[Tensor], spec: str, q_start: Tensor | None, scale: float | None,
) -> Three:  # fmt: skip
    q, k, v, out, lse = saved
    call = MaskCall(spec, tensors, kernels.sizes_of(q, k), q_start)
    if kernels.has_kernel(q, k, v):
        plan = PLANS.get(call, backward=True)
        return kernels.backward(plan, (q, k, v), (out, lse), (grad_out, grad_lse), kernels.default_scale(q, scale))
    rule = reference.Rule(call.rows_visible(), scale=scale)
    dq, dk, dv, *_ = reference.gradients(q, k, v, reference.Gradients(grad_out, grad_lse), rule)
    return dq.to(q.dtype), dk.to(q.dtype), dv.to(q.dtype)


def reference_forward(q: Tensor, k: Tensor, v: Tensor, additive: Tensor | None, weights: bool, *mask: Any) -> Three:
    check_memory(q, k, v)
    if additive is not None:
        check_values(additive)
        visible = None if weights else visible_if_plain(additive)
        if visible is not None:
            return *forward(q, k, v, [visible], PLAIN, None, mask[3]), q.new_empty(0)
    out, lse, made = reference.attention(q, k, v, _rule(q, k, additive, mask), return_weights=weights)
    return out.to(q.dtype), lse.to(q.dtype), q.new_empty(0) if made is None else made.to(q.dtype)


def reference_backward(
    saved: list[Tensor], additive: Tensor | None, grads: list[Tensor | None], additive_grad: bool, *mask: Any
) -> Four:
    q, k, v, out, _ = saved
    if additive is not None and not additive_grad and grads[2] is None:
        visible = visible_if_plain(additive)
        if visible is not None:
            grad_out = torch.zeros_like(out) if grads[0] is None else grads[0]
            return *backward(saved, grad_out, grads[1], [visible], PLAIN, None, mask[3]), q.new_empty(0)
    dq, dk, dv, added, *_ = reference.gradients(q, k, v, reference.Gradients(*grads), _rule(q, k, additive, mask))
    made = q.new_empty(0)
    if additive is not None and additive_grad and isinstance(added, Tensor):
        made = added.to(additive.dtype)
    return dq.to(q.dtype), dk.to(q.dtype), dv.to(q.dtype), made


def _rule(q: Tensor, k: Tensor, additive: Tensor | None, mask: tuple[Any, ...]) -> reference.Rule:
    tensors, spec, q_start, scale = mask
    call = MaskCall(spec, tensors, kernels.sizes_of(q, k), q_start)
    return reference.Rule(call.rows_visible(), additive, scale)


def forward_like(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> Pair:
    return q.new_empty((*q.shape[:3], v.shape[3])), q.new_empty(q.shape[:3])


def backward_like(saved: list[Tensor], *_: Any) -> Three:
    q, k, v = (x.new_empty(x.shape) for x in saved[:3])
    return q, k, v


def reference_forward_like(q: Tensor, k: Tensor, v: Tensor, additive: Tensor | None, weights: bool, *_: Any) -> Three:
    made = q.new_empty((*q.shape[:3], k.shape[2])) if weights else q.new_empty(0)
    return *forward_like(q, k, v), made


def reference_backward_like(
    saved: list[Tensor], additive: Tensor | None, grads: list[Tensor | None], additive_grad: bool, *_: Any
) -> Four:
    wanted = additive is not None and additive_grad
    return *backward_like(saved), additive.new_empty(additive.shape) if wanted and additive is not None else saved[
        0
    ].new_empty(0)
