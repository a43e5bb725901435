"""Attention of queries over a cache: what `mmha.attention` does when a cache takes the place of k and v."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmha import checks, masks
from mmha.bias import Parts
from mmha.masks import And, Causal, Full, KeyPadding, Mask, Prefix, Spans, StrictCausal, Window
from mmha.ops import arguments, operators
from mmha.ops.caches import Cache, plain
from mmha.ops.call import FLOAT, FULL, Call
from mmha.ops.extras import make_extras
from mmha.ops.plans import PLAIN
from mmha.ops.watch import outside_graphs

check_device = arguments.check_storage

Bounds = tuple[int, int]
FAR = 1 << 40  # further than any key is from any query

#: What queries may come in; they are computed in float32.
QUERY_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def attend(
    q: Tensor, cache: Cache, seen: Seen, call: Call, start: list[int] | None, want_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """out (B, H, Tq, Dv) and lse (B, H, Tq), float32, of float32 queries at positions start[b] + i; all is checked.

    seen: what `lower` made of the mask; call: everything else; start: None = the last tokens of each row. Raises
    ValueError when a query sees a key that a cyclic cache has overwritten.
    """
    batch, heads, q_len, dim = q.shape
    out = torch.empty(batch, heads, q_len, cache.value_dim, dtype=torch.float32, device="cpu")
    lse = torch.empty(batch, heads, q_len, dtype=torch.float32, device="cpu") if want_lse else None
    if out.numel() == 0 or not cache._native.longest():
        return out.zero_(), lse.fill_(-math.inf) if lse is not None else None
    extras = None if call is PLAIN_CALL else make_extras(call, batch)
    lost = cache._native.attend(
        None if seen.plan is None else seen.plan.native, seen.bounds, start,
        (q.data_ptr(), out.data_ptr(), 0 if lse is None else lse.data_ptr()), heads, q_len,
        1.0 / math.sqrt(dim) if call.scale is None else call.scale, None if extras is None else extras.native,
        torch.get_num_threads(),
    )  # fmt: skip
    if lost >= 0:
        room = cache._ring - (cache.window or 0) + 1
        expected = f"queries that see only what the ring still holds (append at most {room} tokens before attending)"
        raise checks.value_error("q", expected, f"in row {lost} {q_len} queries of which one sees an overwritten key")
    return out, lse


class Seen(NamedTuple):
    """What a mask says: p - left <= j <= p + right for bounds (left, right); or a plan, with the cache's rule."""

    bounds: tuple[int, int]
    plan: masks.Plan | None


#: A call without anything of its own.
PLAIN_CALL = Call([], FULL)


class Query(NamedTuple):
    """What goes along with the queries: a mask value or None, and everything else of the call."""

    mask: Mask | None
    call: Call


def prepare(sizes: arguments.Sizes, mask: Any, tensor: Any, bias: Any, scale: Any, softcap: Any, sinks: Any) -> Query:
    """The arguments of a call, checked. mask: None or a Mask; tensor: None, or a bool or float mask beside it."""
    if tensor is None and bias is None and scale is None and softcap is None and sinks is None:
        return Query(arguments.check_mask(mask, sizes), PLAIN_CALL)  # type: ignore[arg-type]
    parts = arguments.check_bias(bias, sizes) or Parts()
    slopes, table, additives = parts.slopes, parts.table, list(parts.additives)
    call = Call(
        [], FULL, None, arguments.check_scale(scale, torch.float32), slopes, table, additives,
        arguments.check_sinks(sinks, sizes[1]), arguments.check_softcap(softcap),
    )  # fmt: skip
    _refuse_gradients(bias=(slopes, table, *additives), mask=(tensor,), sinks=(call.sinks,))
    arguments.check_mask(mask, sizes)
    if tensor is None:
        return Query(mask, operators.checked(call) if call.parts() else call)
    arguments.check_mask(tensor, sizes)
    if tensor.dtype == torch.bool:
        call = operators.checked(call)
        seen = masks.as_mask(tensor)
    else:
        visible = list(operators.float_mask(tensor.detach()))
        call = operators.checked(call._replace(mask_tensors=visible, mask=FLOAT, additives=[tensor, *additives]))
        seen = masks.as_mask(call.mask_tensors[0]) if call.mask == PLAIN else Full()
    return Query(seen if mask is None else mask & seen, call)


@outside_graphs
def attention(
    q: Any, cache: Cache, mask: Any, bias: Any, scale: Any, softcap: Any, sinks: Any, q_start: Any, want_lse: bool
) -> Any:
    """`mmha.attention(q, cache, ...)`: out in the dtype of q, or (out, lse)."""
    sizes = check_query(q, cache)
    is_tensor = isinstance(mask, Tensor)
    query = prepare(sizes, None if is_tensor else mask, mask if is_tensor else None, bias, scale, softcap, sinks)
    start = None if q_start is None else start_of(q_start, sizes)
    x = plain(q)
    seen = lower(query.mask, cache, sizes, cache._lengths, start)
    out, lse = attend(x, cache, seen, query.call, start, want_lse)
    if q.dtype != torch.float32:
        out = out.to(q.dtype)
    return (out, lse) if want_lse else out


def _refuse_gradients(**given: Sequence[Tensor | None]) -> None:
    """Raise ValueError for the argument of which a tensor waits for a gradient: none comes through a cache."""
    if torch.is_grad_enabled():
        for name, tensors in given.items():
            if any(x is not None and x.requires_grad for x in tensors):
                raise checks.value_error(
                    name, "no gradient beside a cache (use torch.no_grad())", "one that requires it"
                )


def check_query(q: Any, cache: Cache) -> arguments.Sizes:
    """(B, H, Tq, longest row), when q fits the cache."""
    cache._refresh()
    if type(q) is Tensor and q.dtype is torch.float32 and q.is_cpu and not q.requires_grad and q.dim() == 4:
        batch, heads, q_len, dim = q.shape  # what nearly always comes
        if batch == cache.batch and dim == cache.head_dim and heads % cache.kv_heads == 0 and q.layout is torch.strided:
            return batch, heads, q_len, cache._native.longest()
    if not isinstance(q, Tensor):
        raise checks.type_error("q", "a tensor of shape (B, H, Tq, D)", q)
    arguments.check_storage("q", q)
    if q.dtype not in QUERY_DTYPES:
        raise TypeError(checks.message("q", "dtype float32, bfloat16 or float16", str(q.dtype).removeprefix("torch.")))
    checks.shape_is("q", q, (cache.batch, None, None, cache.head_dim), "(B, H, Tq, D)")
    _refuse_gradients(q=(q,))
    if q.shape[1] % cache.kv_heads:
        raise checks.value_error("q", f"heads H in a multiple of the cache's {cache.kv_heads}", f"H = {q.shape[1]}")
    return cache.batch, q.shape[1], q.shape[2], cache._native.longest()


def start_of(q_start: Any, sizes: arguments.Sizes) -> list[int]:
    """The position of each row's first query."""
    start = arguments.check_start(q_start, sizes[0])
    assert start is not None
    return start.tolist() if start.dim() else [int(start)] * sizes[0]


def bounds_of(mask: Mask | None) -> Bounds | None:
    """(left, right) of a mask that says p - left <= j <= p + right and no more; None for any other."""
    if mask is None or type(mask) is Full:
        return FAR, FAR
    if type(mask) is Causal:
        return FAR, 0
    if type(mask) is StrictCausal:
        return FAR, -1
    if type(mask) is Window:
        return FAR if mask.left is None else mask.left, FAR if mask.right is None else mask.right
    if type(mask) is And:
        parts = [bounds_of(part) for part in mask._args()]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            return min(left for left, _ in known), min(right for _, right in known)
    return None


def lower(mask: Mask | None, cache: Cache, sizes: arguments.Sizes, lengths: Tensor, start: list[int] | None) -> Seen:
    """The mask for rows of these lengths. Raises ValueError when it does not fit."""
    bounds = bounds_of(mask)
    if bounds is not None or 0 in sizes:
        return Seen(bounds or (0, 0), None)
    assert mask is not None
    if start is None:
        start = [length - sizes[2] for length in lengths.tolist()]
    rule: Mask = KeyPadding(lengths)
    if cache.window is not None:
        rule = rule & (Window(cache.window - 1, None) | Prefix(cache.sinks))
    if "Tree(" in mask.flatten()[0] and bool((lengths != sizes[3]).any()):
        mask = _row_by_row(mask, sizes, lengths, start)
    return Seen((0, 0), (mask & rule).plan(*sizes, torch.tensor(start, dtype=torch.int64, device="cpu")))


def _row_by_row(mask: Mask, sizes: arguments.Sizes, lengths: Tensor, start: list[int]) -> Mask:
    """A mask that asks for the last key, lowered for each row's own last key."""
    batch, heads, q_len, k_len = sizes
    runs: list[tuple[int, int]] = []
    offsets = [0]
    for b, length in enumerate(lengths.tolist()):
        plan = mask.plan(batch, heads, q_len, length, start[b])
        for h in range(heads):
            for i in range(q_len):
                runs += plan.row(i, b, h)
                offsets.append(len(runs))
    spans = torch.tensor(runs, dtype=torch.int64, device="cpu").view(-1, 2)
    return Spans((batch, heads, q_len, k_len), offsets, spans)
