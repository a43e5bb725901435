"""How gradients flow through the operators: each forward operator has a backward operator, and there it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmha.ops import operators

OPS = torch.ops.mmha
_ORDINARY = (Tensor, torch.nn.Parameter)


def attention(q: Tensor, k: Tensor, v: Tensor, *mask: Any) -> Any:
    """`mmha::attention_forward`, past the dispatcher where nobody is watching it: that is half the cost of a small call."""
    if not is_direct(q, k, v):
        return OPS.attention_forward.default(q, k, v, *mask)
    if _wants_graph(q, k, v):
        return _Attention.apply(True, q, k, v, *mask)  # type: ignore[no-untyped-call]
    return operators.forward(q, k, v, *mask)


def is_direct(*tensors: Tensor) -> bool:
    """Whether these are ordinary tensors and no compiler, mode, transform or profiler wants to see the operator."""
    return (
        not torch.compiler.is_compiling()
        and all([type(x) in _ORDINARY for x in tensors])
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._are_functorch_transforms_active()
        and not torch.autograd.profiler._is_profiler_enabled
    )


def forward(q: Tensor, k: Tensor, v: Tensor, *mask: Any) -> Any:
    """The autograd kernel of `mmha::attention_forward`."""
    if _wants_graph(q, k, v):
        return _Attention.apply(False, q, k, v, *mask)  # type: ignore[no-untyped-call]
    return _below(OPS.attention_forward.default, q, k, v, *mask)


def reference_forward(q: Tensor, k: Tensor, v: Tensor, additive: Tensor | None, weights: bool, *mask: Any) -> Any:
    """The autograd kernel of `mmha::attention_reference_forward`."""
    return _Reference.apply(q, k, v, additive, weights, *mask)  # type: ignore[no-untyped-call]


def backward(saved: list[Tensor], grad_out: Tensor, grad_lse: Tensor | None, *mask: Any) -> Any:
    """The autograd kernel of `mmha::attention_backward`, whose results cannot be differentiated again."""
    return _once(OPS.attention_backward.default, [*saved, grad_out, grad_lse], saved, grad_out, grad_lse, *mask)


def reference_backward(saved: list[Tensor], additive: Tensor | None, grads: list[Tensor | None], *rest: Any) -> Any:
    """The autograd kernel of `mmha::attention_reference_backward`, whose results cannot be differentiated again."""
    tensors = [*saved, additive, *grads]
    return _once(OPS.attention_reference_backward.default, tensors, saved, additive, grads, *rest)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, direct: bool, q: Tensor, k: Tensor, v: Tensor, *mask: Any) -> Any:
        made = operators.forward(q, k, v, *mask) if direct else _below(OPS.attention_forward.default, q, k, v, *mask)
        ctx.set_materialize_grads(False)
        _save(ctx, [q, k, v, *made], mask)
        return made

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> Any:
        saved, mask = _saved(ctx, 5)
        if grad_out is None:
            grad_out = torch.zeros_like(saved[3])
        direct = not torch.is_grad_enabled() and is_direct(*saved, grad_out)
        op = operators.backward if direct else OPS.attention_backward.default
        return None, *op(saved, grad_out, grad_lse, *mask), None, None, None, None


class _Reference(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, additive: Tensor | None, weights: bool, *mask: Any) -> Any:
        made = _below(OPS.attention_reference_forward.default, q, k, v, additive, weights, *mask)
        ctx.set_materialize_grads(False)
        if not weights:
            ctx.mark_non_differentiable(made[2])
        _save(ctx, [q, k, v, *made[:2], additive], mask)
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        (*saved, additive), mask = _saved(ctx, 6)
        wanted = ctx.needs_input_grad[3]
        made = OPS.attention_reference_backward.default(saved, additive, list(grads), wanted, *mask)
        return *made[:3], made[3] if wanted else None, None, None, None, None, None


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Callable[[], Any], *_tensors: Tensor | None) -> Any:
        return call()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "mmha.attention: the gradient of its gradient is not available (double backward, as gradgradcheck or a second "
            "backward through create_graph=True asks for)"
        )


def _once(op: Any, tensors: list[Any], *args: Any) -> Any:
    # Tensors inside lists are invisible to autograd.Function: it is shown all of them flat, beside the call itself.
    return _Once.apply(lambda: _below(op, *args), *tensors)  # type: ignore[no-untyped-call]


def _wants_graph(q: Tensor, k: Tensor, v: Tensor) -> bool:
    return torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)


def _below(op: Any, *args: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return op(*args)


def _save(ctx: Any, tensors: list[Tensor | None], mask: tuple[Any, ...]) -> None:
    mask_tensors, ctx.spec, q_start, ctx.scale = mask
    ctx.save_for_backward(*tensors, q_start, *mask_tensors)


def _saved(ctx: Any, count: int) -> tuple[list[Any], tuple[Any, ...]]:
    tensors = list(ctx.saved_tensors)
    return tensors[:count], (tensors[count + 1 :], ctx.spec, tensors[count], ctx.scale)
