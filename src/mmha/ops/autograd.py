"""How gradients flow through the operators: each forward operator has a backward operator, and there it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mmha.ops import library, operators
from mmha.ops.call import Call
from mmha.ops.watch import is_direct, is_transformed


class Way(NamedTuple):
    """A forward operator and its backward, the functions beneath them, and how many results are for the caller.

    The results are out, lse, perhaps the weights, and what rounding took from out, which may be None or empty.
    """

    forward: Any
    backward: Any
    run: Callable[..., Any]
    gradients: Callable[..., Any]
    results: int


State = tuple[Way, Call, bool]

KERNELS = Way(library.FORWARD, library.BACKWARD, operators.run, operators.gradients, results=2)
WEIGHTS = Way(
    library.WEIGHTS_FORWARD, library.WEIGHTS_BACKWARD, operators.run_weights, operators.weights_gradients, results=3
)


def attention(way: Way, q: Tensor, k: Tensor, v: Tensor, call: Call, direct: bool, want_lse: bool) -> Any:
    """The results of the way's operator: out first, the second may be None when lse is not wanted.

    direct: `watch.is_direct` of q, k and v; then the call goes past the dispatcher, which halves its cost when small.
    """
    parts = call.parts()
    if direct and (not (parts or call.mask_tensors) or is_direct(*_given(parts, call.mask_tensors))):
        if _wants_graph(q, k, v, parts):
            return _apply_directly((way, call, want_lse), q, k, v, *parts)
        return way.run(q, k, v, call, want_lse, False)
    if is_transformed():
        return _Transformed.apply((way, call, True), q, k, v, *parts)  # type: ignore[no-untyped-call]
    return way.forward(q, k, v, False, *call)


def float_mask(mask: Tensor) -> list[Tensor]:
    """`mmha::float_mask`: the visible pairs and the flags of a float mask."""
    mask = mask.detach()
    return list(operators.float_mask(mask) if is_direct(mask) else library.FLOAT_MASK(mask))


def _autograd_forward(way: Way) -> Callable[..., Any]:
    """The autograd kernel of a forward operator."""

    def kernel(q: Tensor, k: Tensor, v: Tensor, for_backward: bool, *rest: Any) -> Any:
        call = Call(*rest)
        if _wants_graph(q, k, v, call.parts()):
            return _Watched.apply((way, call, True), q, k, v, *call.parts())  # type: ignore[no-untyped-call]
        return _below(way.forward, q, k, v, for_backward, *call)

    return kernel


def _autograd_backward(way: Way) -> Callable[..., Any]:
    """The autograd kernel of a backward operator, whose results cannot be differentiated again."""
    return lambda *args: _once(way.backward, args)


# The arguments of each: (way, call, want_lse), q, k, v, and `call.parts()`, which autograd would not find in the call.
class _Direct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, state: State, q: Tensor, k: Tensor, v: Tensor, *parts: Any) -> Any:
        way, call, want_lse = state
        made = way.run(q, k, v, call)
        _keep(ctx, way, call, (q, k, v), made)
        if want_lse or way is WEIGHTS:
            return made[: way.results]
        return made[:1]  # a result less, a microsecond less

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        return _flow_back(ctx, grads)


#: `Function.apply` without its preparations for torch.func, for calls outside of it: they cost 5 microseconds.
_apply_directly: Callable[..., Any] = super(torch.autograd.Function, _Direct).apply


class _Watched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, state: State, q: Tensor, k: Tensor, v: Tensor, *parts: Any) -> Any:
        way, call, _ = state
        made = _below(way.forward, q, k, v, True, *call)
        _keep(ctx, way, call, (q, k, v), made)
        ctx.mark_non_differentiable(*made[way.results :])
        return made

    backward = _Direct.backward


# torch.func asks for a forward without a context. Outside of it that form costs 40 microseconds a call more.
class _Transformed(torch.autograd.Function):
    @staticmethod
    def forward(state: State, q: Tensor, k: Tensor, v: Tensor, *parts: Any) -> Any:
        way, call, _ = state
        return _below(way.forward, q, k, v, True, *call.with_parts(parts))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        (way, call, _), q, k, v, *parts = inputs
        _keep(ctx, way, call.with_parts(parts), (q, k, v), output)
        ctx.mark_non_differentiable(*output[way.results :])

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        raise RuntimeError(library.NO_VMAP)

    backward = _Direct.backward


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


def _wants_graph(q: Tensor, k: Tensor, v: Tensor, parts: tuple[Tensor | None, ...]) -> bool:
    if not torch.is_grad_enabled():
        return False
    more = bool(parts) and any(x is not None and x.requires_grad for x in parts)
    return q.requires_grad or k.requires_grad or v.requires_grad or more


def _given(*tensors: Sequence[Tensor | None]) -> list[Tensor]:
    return [x for some in tensors for x in some if x is not None]


def _below(op: Any, *args: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return op(*args)


def _keep(ctx: Any, way: Way, call: Call, inputs: tuple[Tensor, Tensor, Tensor], made: Any) -> None:
    """Save everything for the backward: tensors with autograd, which frees them with the graph, the rest as it is."""
    call, tensors = call.taken_apart()
    ctx.set_materialize_grads(False)
    ctx.rest = way, call
    ctx.save_for_backward(*inputs, *made[: way.results + 1], *tensors)


def _flow_back(ctx: Any, grads: tuple[Tensor | None, ...]) -> Any:
    """None for the state, and the gradients of q, k, v and of the parts of the call."""
    way, call = ctx.rest
    count = 4 + way.results
    *saved, more = (tensors := ctx.saved_tensors)[:count]  # asked for once: a checkpoint computes them anew each time
    saved += [] if more is None or not more.numel() else [more]
    call, wanted = call.put_together(tensors[count:]), ctx.needs_input_grad[4:]
    three = (*grads, None, None)[:3]
    if not torch.is_grad_enabled() and is_direct(*_given(saved, call.parts(), call.mask_tensors, grads)):
        made = way.gradients(saved, three, wanted, call)
    else:
        args = saved, *three, list(wanted), *call
        # torch.func cannot enter an autograd.Function from the operator's own kernel.
        made = _once(way.backward, args) if is_transformed() else way.backward(*args)
    *main, extras = made
    rest = iter(extras)
    return None, *main, *(next(rest) if want else None for want in wanted)


for _way in (KERNELS, WEIGHTS):
    library.LIBRARY.impl(_way.forward.name(), _autograd_forward(_way), "Autograd")
    library.LIBRARY.impl(_way.backward.name(), _autograd_backward(_way), "Autograd")
