"""Who else has a say in a call: torch's dispatcher is passed by only where it would have nothing to do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad, profiler

_modes, _transforms, _tracing, _strided = (
    torch._C._len_torch_dispatch_stack, torch._C._are_functorch_transforms_active, torch._C._is_tracing, torch.strided,
)  # fmt: skip

_ORDINARY = frozenset((Tensor, torch.nn.Parameter))


def is_direct(*tensors: Tensor) -> bool:
    """Whether nobody must see the operator being called: `is_plain`, and no profiler."""
    return not profiler._is_profiler_enabled and is_plain(*tensors)


def is_plain(*tensors: Tensor) -> bool:
    """Whether another operator may do the work of one, on numbers that are in this machine's memory as they are.

    That is: no compiler, tracer, mode, transform or subclass; no negative bit and no zero tensor, which only promise
    numbers; no storage that was freed. (An empty tensor has no memory either: it too goes the long way.)
    """
    if torch.compiler.is_compiling() or _modes() != 0 or _transforms() or _tracing() or forward_ad._current_level >= 0:
        return False
    try:
        for x in tensors:  # one question a tensor would do, its dispatch keys, but these are answered faster
            if type(x) not in _ORDINARY or not x.is_cpu or x.layout is not _strided or x.is_nested:
                return False
            if x.is_neg() or not x.data_ptr():
                return False
    except RuntimeError:  # no storage to point to: gradients that autograd has batched
        return False
    return True


def is_transformed() -> bool:
    """Whether a transform of torch.func is active."""
    return not torch.compiler.is_compiling() and _transforms()


def is_forward_mode() -> bool:
    """Whether forward-mode derivatives are being taken."""
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


Function = TypeVar("Function", bound=Callable[..., Any])


def outside_graphs(function: Function) -> Function:
    """The function, before which torch.compile ends its graph: what changes a cache in place runs as it is."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)  # type: ignore[no-untyped-call]
        return function(*args, **kwargs)

    return cast(Function, call)
