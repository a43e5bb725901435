"""How gradients flow through the operators: each forward operator has a backward operator, and there it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mmha.ops import library, operators
from mmha.ops.call import Call

_ORDINARY = (Tensor, torch.nn.Parameter)


class Way(NamedTuple):
    """A forward operator and its backward, and the functions beneath them."""

    forward: Any
    backward: Any
    forward_here: Callable[..., Any]
    backward_here: Callable[..., Any]


KERNELS = Way(library.FORWARD, library.BACKWARD, operators.forward, operators.backward)
REFERENCE = Way(
    library.REFERENCE_FORWARD, library.REFERENCE_BACKWARD, operators.reference_forward, operators.reference_backward
)


def attention(way: Way, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Any:
    """The way's operator, past the dispatcher where nobody is watching: that halves the cost of a small call."""
    parts = call.differentiable()
    if is_direct(q, k, v, *parts):
        if _wants_graph(q, k, v, *parts):
            return _apply(_Attention, way, True, (q, k, v), call)
        return way.forward_here(q, k, v, *call)
    if _transformed():
        return _apply(_Transformed, way, False, (q, k, v), call)
    return way.forward(q, k, v, *call)


def float_mask(mask: Tensor) -> list[Tensor]:
    """`mmha::float_mask`: the visible pairs and the flags of a float mask."""
    mask = mask.detach()
    return list(operators.float_mask(mask) if is_direct(mask) else library.FLOAT_MASK(mask))


def is_direct(*tensors: Tensor | None) -> bool:
    """Whether these are ordinary tensors and no compiler, tracer, mode, transform or profiler watches."""
    return (
        not torch.compiler.is_compiling()
        and all(x is None or type(x) in _ORDINARY for x in tensors)
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._are_functorch_transforms_active()
        and not torch.autograd.profiler._is_profiler_enabled
        and not torch._C._is_tracing()
    )


def _autograd_forward(way: Way) -> Callable[..., Any]:
    """The autograd kernel of a forward operator."""

    def kernel(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Any:
        call = Call(*rest)
        if _wants_graph(q, k, v, *call.differentiable()):
            return _apply(_Attention, way, False, (q, k, v), call)
        return _below(way.forward, q, k, v, *call)

    return kernel


def _autograd_backward(way: Way) -> Callable[..., Any]:
    """The autograd kernel of a backward operator, whose results cannot be differentiated again."""
    return lambda *args: _once(way.backward, args)


def _apply(function: Any, way: Way, direct: bool, inputs: tuple[Tensor, Tensor, Tensor], call: Call) -> Any:
    return function.apply(way, direct, call, *inputs, *call.differentiable())


class _Attention(torch.autograd.Function):
    """Arguments: way, direct, call, q, k, v, then `call.differentiable()`, which autograd would not find in the call."""

    @staticmethod
    def forward(ctx: Any, way: Way, direct: bool, call: Call, *inputs: Any) -> Any:
        q, k, v, *_ = inputs
        made = way.forward_here(q, k, v, *call) if direct else _below(way.forward, q, k, v, *call)
        _keep(ctx, way, call, inputs, made)
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        way, saved, call = _kept(ctx)
        wanted = list(ctx.needs_input_grad[6:])
        if not torch.is_grad_enabled() and is_direct(*saved, *grads):
            made = way.backward_here(saved, grads, wanted, *call)
        else:
            args = saved, list(grads), wanted, *call
            # torch.func cannot enter an autograd.Function from the operator's own kernel.
            made = _once(way.backward, args) if _transformed() else way.backward(*args)
        *main, extras = made
        rest = iter(extras)
        return None, None, None, *main, *(next(rest) if want else None for want in wanted)


# torch.func asks for a forward without a context. Outside of it that form costs 40 microseconds a call more.
class _Transformed(torch.autograd.Function):
    @staticmethod
    def forward(way: Way, direct: bool, call: Call, *inputs: Any) -> Any:
        q, k, v, *parts = inputs
        return _below(way.forward, q, k, v, *call.with_differentiable(tuple(parts)))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        way, _, call, *tensors = inputs
        _keep(ctx, way, call.with_differentiable(tuple(tensors[3:])), tuple(tensors), output)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        raise RuntimeError(library.NO_VMAP)

    backward = _Attention.backward


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(op: Any, spec: Any, *leaves: Any) -> Any:
        *main, extras = _below(op, *pytree.tree_unflatten(list(leaves), spec))
        return *main, *extras

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: there is no way back."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        raise RuntimeError(library.NO_VMAP)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "mmha.attention: the gradient of its gradient is not available (double backward, as gradgradcheck or a "
            "second backward through create_graph=True asks for)"
        )


def _once(op: Any, args: tuple[Any, ...]) -> Any:
    """The backward operator, in a graph that ends there. autograd.Function does not see tensors inside lists."""
    leaves, spec = pytree.tree_flatten(args)
    made = _Once.apply(op, spec, *leaves)  # type: ignore[no-untyped-call]
    return *made[:3], list(made[3:])


def _transformed() -> bool:
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def _wants_graph(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _below(op: Any, *args: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return op(*args)


def _keep(ctx: Any, way: Way, call: Call, inputs: tuple[Any, ...], made: Any) -> None:
    """Save everything for the backward: tensors with autograd, which frees them with the graph, the rest as it is."""
    ctx.set_materialize_grads(False)
    ctx.rest = way, call.mask, call.scale, call.softcap, call.dropout_p
    ctx.save_for_backward(*inputs[:3], *made[:2], call.q_start, call.seed, *inputs[3:], *call.mask_tensors)
    ctx.parts = len(inputs) - 3


def _kept(ctx: Any) -> tuple[Way, list[Tensor], Call]:
    q, k, v, out, lse, q_start, seed, *tensors = ctx.saved_tensors
    way, mask, scale, softcap, dropout_p = ctx.rest
    slopes, table, sinks, *additives = tensors[: ctx.parts]
    call = Call(
        tensors[ctx.parts :], mask, q_start, scale, slopes, table, additives, sinks, softcap, dropout_p, seed
    )  # fmt: skip
    return way, [q, k, v, out, lse], call


for _way in (KERNELS, REFERENCE):
    library.LIBRARY.impl(_way.forward.name(), _autograd_forward(_way), "Autograd")
    library.LIBRARY.impl(_way.backward.name(), _autograd_backward(_way), "Autograd")
