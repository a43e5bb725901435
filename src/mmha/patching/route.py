"""The functions that stand in torch's places: each looks at its arguments and calls mmha, or what it replaced."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.attention.bias import CausalBias

from mmha.masks import Mask
from mmha.nn import functional as ours
from mmha.ops.watch import is_forward_mode
from mmha.patching.remembered import hidden_as_mask, visible_as_mask

#: How many `with mmha.patch()` this thread or task is in.
DEPTH: ContextVar[int] = ContextVar("mmha_patch", default=0)
_DTYPES = frozenset((torch.float32, torch.bfloat16, torch.float16))
_ORDINARY = frozenset((Tensor, torch.nn.Parameter))


Function = TypeVar("Function", bound=Callable[..., Any])
_NAMES = tuple(inspect.signature(torch.nn.functional.multi_head_attention_forward).parameters)


class State:
    """What holds in the whole process. torch.compile guards an attribute, and cannot read a ContextVar."""

    installed = False


STATE = State()


def is_active() -> bool:
    """Whether calls go to mmha here and now. What torch.compile makes outlives a `with`: it follows install() alone."""
    return STATE.installed or (not torch.compiler.is_compiling() and DEPTH.get() > 0)


def _takes(query: Any, key: Any, value: Any, *more: Any) -> bool:
    """Whether these are ordinary tensors in this machine's memory that kernels know, and nobody transforms the call.

    more: None and any dtype are fine among them.
    """
    if not isinstance(query, Tensor) or not isinstance(key, Tensor) or not isinstance(value, Tensor):
        return False
    if query.dtype not in _DTYPES or not query.dtype == key.dtype == value.dtype:
        return False
    for x in (query, key, value, *more):
        if x is not None and (
            type(x) not in _ORDINARY or not x.is_cpu or x.layout is not torch.strided or x.is_nested or x.is_quantized
        ):
            return False
    if torch._C._are_functorch_transforms_active():
        return False
    return torch.compiler.is_compiling() or not (is_forward_mode() or torch._C._is_tracing())


def _readable(mask: Tensor | None, query: Tensor, key: Tensor, value: Tensor) -> Mask | Tensor | None:
    """The mask of scaled_dot_product_attention, as a remembered value where it can be one: beside four dimensions."""
    if mask is None or not query.dim() == key.dim() == value.dim() == 4:
        return mask
    return visible_as_mask(mask)


@functools.lru_cache(maxsize=16)
def scaled_dot_product(previous: Callable[..., Any]) -> Callable[..., Any]:
    """What stands in the place of torch.nn.functional.scaled_dot_product_attention, which is `previous`."""

    def scaled_dot_product_attention(
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: Any = 0.0,
        is_causal: Any = False,
        *,
        scale: Any = None,
        enable_gqa: Any = False,
    ) -> Any:
        rest = dropout_p, is_causal
        if type(attn_mask) is CausalBias:  # it asks for torch's function by the name that this one has now
            return attn_mask._dispatch(query, key, value, attn_mask, *rest, scale=scale, enable_gqa=enable_gqa)
        if is_active() and _takes(query, key, value, attn_mask):
            try:
                return ours.scaled_dot_product_attention(
                    query,
                    key,
                    value,
                    _readable(attn_mask, query, key, value),
                    *rest,
                    scale=scale,
                    enable_gqa=enable_gqa,
                )
            except (TypeError, ValueError):
                pass  # torch says what is wrong, or computes what is refused here, as with NaN in a mask
        return previous(query, key, value, attn_mask, *rest, scale=scale, enable_gqa=enable_gqa)

    return _in_the_place_of(previous, scaled_dot_product_attention)


@functools.lru_cache(maxsize=16)
def multi_head(previous: Callable[..., Any]) -> Callable[..., Any]:
    """What stands in the place of torch.nn.functional.multi_head_attention_forward, which is `previous`."""

    def multi_head_attention_forward(*args: Any, **kwargs: Any) -> Any:
        if is_active():
            given = _for_ours({**dict(zip(_NAMES, args, strict=False)), **kwargs})
            if given is not None:
                try:
                    return ours.multi_head_attention_forward(**given)
                except (TypeError, ValueError):
                    pass  # as above
        return previous(*args, **kwargs)

    return _in_the_place_of(previous, multi_head_attention_forward)


def _for_ours(given: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments by which ours computes what torch's does by these; None where torch's shall compute.

    torch takes is_causal for a hint: alone it is refused, beside padding or wanted weights attn_mask counts, and
    otherwise attn_mask is ignored, from the top left. That last case is left to torch, whose
    scaled_dot_product_attention comes here. It returns weights as they are after dropout; ours would be those before.
    """
    if not _takes(*(given.get(name) for name in _NAMES[:3]), *(x for x in given.values() if isinstance(x, Tensor))):
        return None
    query, mask = given["query"], given.get("attn_mask")
    weights, padding = given.get("need_weights", True), given.get("key_padding_mask")
    if given.get("is_causal") and (mask is None or (padding is None and not weights)):
        return None
    if weights and given.get("dropout_p") and given.get("training", True):
        return None
    if isinstance(mask, Tensor):
        if mask.dim() == 3 and query.dim() == 3 and mask.shape[0] == query.shape[1] * given["num_heads"]:
            mask = mask.unflatten(0, (query.shape[1], given["num_heads"]))  # type: ignore[no-untyped-call]
        mask = hidden_as_mask(mask)
    return {**given, "attn_mask": mask, "is_causal": False}


@functools.lru_cache(maxsize=16)
def fast_path(previous: Callable[[], bool]) -> Callable[[], bool]:
    """What stands in the place of torch.backends.mha.get_fastpath_enabled, which is `previous`."""

    def get_fastpath_enabled() -> bool:
        if is_active() and (torch.compiler.is_compiling() or _would_take(sys._getframe(1).f_locals)):
            return False
        return previous()

    return _in_the_place_of(previous, get_fastpath_enabled)


def _would_take(caller: dict[str, Any]) -> bool:
    """Whether the module's own forward, which asks for the fast path, has an input whose attention would come here.

    The question has no arguments; but a nested tensor has no other path than the fast one, and on other devices there
    is no reason to leave it.
    """
    x = caller.get("query", caller.get("src"))
    return _takes(x, x, x)


def _in_the_place_of(previous: Any, ours: Function) -> Function:
    """Ours, which knows what it replaced, and says about itself what that said."""
    vars(ours)["previous"], ours.__doc__ = previous, previous.__doc__
    return ours
