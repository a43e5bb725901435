"""How gradients flow through the operators: each forward operator has a backward operator, and there it ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mmha.ops import operators

OPS = torch.ops.mmha
NO_VMAP = "mmha.attention: torch.vmap is not available; put the mapped dimension into the batch of q, k and v"
_ORDINARY = (Tensor, torch.nn.Parameter)


def attention(q: Tensor, k: Tensor, v: Tensor, *mask: Any) -> Any:
    """`mmha::attention_forward`, past the dispatcher where nobody is watching: that halves the cost of a small call."""
    if is_direct(q, k, v):
        if _wants_graph(q, k, v):
            return _Attention.apply(True, q, k, v, *mask)  # type: ignore[no-untyped-call]
        return operators.forward(q, k, v, *mask)
    if _transformed():
        return _TransformedAttention.apply(False, q, k, v, *mask)  # type: ignore[no-untyped-call]
    return OPS.attention_forward.default(q, k, v, *mask)


def reference_attention(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Any:
    """`mmha::attention_reference_forward`."""
    op = _TransformedReference.apply if _transformed() else OPS.attention_reference_forward.default
    return op(q, k, v, *rest)  # type: ignore[no-untyped-call]


def is_direct(*tensors: Tensor) -> bool:
    """Whether these are ordinary tensors and no compiler, tracer, mode, transform or profiler watches."""
    return (
        not torch.compiler.is_compiling()
        and all(type(x) in _ORDINARY for x in tensors)
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._are_functorch_transforms_active()
        and not torch.autograd.profiler._is_profiler_enabled
        and not torch._C._is_tracing()
    )


def forward(q: Tensor, k: Tensor, v: Tensor, *mask: Any) -> Any:
    """The autograd kernel of `mmha::attention_forward`."""
    if _wants_graph(q, k, v):
        return _Attention.apply(False, q, k, v, *mask)  # type: ignore[no-untyped-call]
    return _below(OPS.attention_forward.default, q, k, v, *mask)


def reference_forward(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Any:
    """The autograd kernel of `mmha::attention_reference_forward`."""
    return _Reference.apply(q, k, v, *rest)  # type: ignore[no-untyped-call]


def backward(*args: Any) -> Any:
    """The autograd kernel of `mmha::attention_backward`, whose results cannot be differentiated again."""
    return _once(OPS.attention_backward.default, args)


def reference_backward(*args: Any) -> Any:
    """The autograd kernel of `mmha::attention_reference_backward`, whose results cannot be differentiated again."""
    return _once(OPS.attention_reference_backward.default, args)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, direct: bool, q: Tensor, k: Tensor, v: Tensor, *mask: Any) -> Any:
        made = operators.forward(q, k, v, *mask) if direct else _below(OPS.attention_forward.default, q, k, v, *mask)
        _keep(ctx, [q, k, v, *made], mask)
        return made

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> Any:
        saved, mask = _kept(ctx, 5)
        if grad_out is None:
            grad_out = torch.zeros_like(saved[3])
        if not torch.is_grad_enabled() and is_direct(*saved, grad_out):
            made = operators.backward(saved, grad_out, grad_lse, *mask)
        else:
            made = _watched(OPS.attention_backward.default, saved, grad_out, grad_lse, *mask)
        return None, *made, None, None, None, None


class _Reference(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, additive: Tensor | None, weights: bool, *mask: Any) -> Any:
        made = _below(OPS.attention_reference_forward.default, q, k, v, additive, weights, *mask)
        if not weights:
            ctx.mark_non_differentiable(made[2])
        _keep(ctx, [q, k, v, *made[:2], additive], mask)
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        (*saved, additive), mask = _kept(ctx, 6)
        wanted = ctx.needs_input_grad[3]
        made = _watched(OPS.attention_reference_backward.default, saved, additive, list(grads), wanted, *mask)
        return *made[:3], made[3] if wanted else None, None, None, None, None, None


# torch.func asks for a forward without a context. Outside of it that form costs 40 microseconds a call more.
class _Transformed(torch.autograd.Function):
    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        raise RuntimeError(NO_VMAP)


class _TransformedAttention(_Transformed):
    @staticmethod
    def forward(direct: bool, q: Tensor, k: Tensor, v: Tensor, *mask: Any) -> Any:
        return _below(OPS.attention_forward.default, q, k, v, *mask)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _keep(ctx, [*inputs[1:4], *output], inputs[4:])

    backward = _Attention.backward


class _TransformedReference(_Transformed):
    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Any:
        return _below(OPS.attention_reference_forward.default, q, k, v, *rest)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        if not inputs[4]:
            ctx.mark_non_differentiable(output[2])
        _keep(ctx, [*inputs[:3], *output[:2], inputs[3]], inputs[5:])

    backward = _Reference.backward


class _Once(_Transformed):
    @staticmethod
    def forward(op: Any, spec: Any, *leaves: Any) -> Any:
        return _below(op, *pytree.tree_unflatten(list(leaves), spec))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: there is no way back."""

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "mmha.attention: the gradient of its gradient is not available (double backward, as gradgradcheck or a "
            "second backward through create_graph=True asks for)"
        )


def _watched(op: Any, *args: Any) -> Any:
    """Call the operator; under torch.func past its dispatch, which cannot enter an autograd.Function from a kernel."""
    return _once(op, args) if _transformed() else op(*args)


def _once(op: Any, args: tuple[Any, ...]) -> Any:
    leaves, spec = pytree.tree_flatten(args)  # autograd.Function does not see tensors inside lists
    return _Once.apply(op, spec, *leaves)  # type: ignore[no-untyped-call]


def _transformed() -> bool:
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def _wants_graph(q: Tensor, k: Tensor, v: Tensor) -> bool:
    return torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)


def _below(op: Any, *args: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return op(*args)


def _keep(ctx: Any, tensors: list[Tensor | None], mask: tuple[Any, ...]) -> None:
    ctx.set_materialize_grads(False)
    mask_tensors, ctx.spec, q_start, ctx.scale = mask
    ctx.save_for_backward(*tensors, q_start, *mask_tensors)


def _kept(ctx: Any, count: int) -> tuple[list[Any], tuple[Any, ...]]:
    tensors = list(ctx.saved_tensors)
    return tensors[:count], (tensors[count + 1 :], ctx.spec, tensors[count], ctx.scale)
