"""torch's scaled_dot_product_attention on `mmha.attention`: any leading dimensions, torch's meaning throughout."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor

from mmha import checks
from mmha.masks import Causal, Mask
from mmha.nn.refusals import refused
from mmha.ops import attention
from mmha.ops.arguments import causal_bias

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_CAUSAL, _AS_IT_IS = Causal(), contextlib.nullcontext()
_SHAPES = (("query", "(..., H, L, E)"), ("key", "(..., Hk, S, E)"), ("value", "(..., Hk, S, Ev)"))


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | Mask | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention`, argument by argument, computed by `mmha.attention`.

    out[i] = sum_j drop(softmax_j(scale * query[i] . key[j] + attn_mask[i, j])) value[j], over the visible keys j.

    Args:
        query: (..., H, L, E); float32, bfloat16, float16, or float64 through the slow reference.
        key: (..., Hk, S, E), the dtype of query.
        value: (..., Hk, S, Ev), the dtype of query. The leading dimensions of the three are broadcast, and none is
            needed: (L, E) is one head.
        attn_mask: broadcastable to (..., H, L, S), bool (True = visible), or float32 or the dtype of query (added to
            the scores; -inf hides), or torch's `CausalBias`. Or a `mmha.masks.Mask`, whose sizes are B, the product of
            all dimensions before H, and H; three dimensions are (B, L, E) to it unless enable_gqa says that they are
            (H, L, E).
        dropout_p: the share of weights to drop, 0 to 1, whenever it is given.
        is_causal: row i sees the keys up to i, from the top left, whatever L and S are. (The mask `Causal()` is aligned
            at the bottom right: its last row sees the last key.)
        scale: a finite number; None = 1 / sqrt(E).
        enable_gqa: H may be a multiple of Hk: query head h reads key head h // (H / Hk).

    Returns:
        (..., H, L, Ev) in the dtype of query. A row that sees nothing is 0, as are its gradients; what is hidden has no
        influence, NaN included.

    Raises:
        Refused: (a RuntimeError, as torch raises, and a ValueError) for shapes and dtypes that do not fit, attn_mask
            beside is_causal, a dropout_p outside of 0 to 1.
        TypeError: for an argument of the wrong type. ValueError: for a scale, or numbers in a float mask, that are NaN
            or infinite. What else `mmha.attention` raises: on other devices, for second derivatives.

    Source: Vaswani et al. 2017, equation 1; torch's documentation of the function.

    >>> import torch
    >>> from mmha.nn.functional import scaled_dot_product_attention
    >>> q, k, v = torch.randn(2, 6, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 4)
    >>> scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).shape
    torch.Size([2, 6, 5, 4])
    """
    _check_arguments(attn_mask, is_causal, enable_gqa)
    if side := causal_bias(attn_mask):
        attn_mask, is_causal = (None, True) if side == "UPPER_LEFT" else (_CAUSAL, False)
    if isinstance(dropout_p, (int, float)) and not 0.0 <= dropout_p <= 1.0:
        raise refused("dropout_p", "a number from 0 to 1", str(dropout_p))
    rank = _check_tensors(query, key, value)
    if rank == 3 and isinstance(attn_mask, Mask) and not enable_gqa:
        q, k, v = (x.unsqueeze(-3) for x in (query, key, value))
        return scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, scale=scale).squeeze(-3)
    q, k, v, batch = _four(query, key, value, enable_gqa)
    q_len, k_len = q.shape[2], k.shape[2]
    mask: Mask | Tensor | None = _CAUSAL if is_causal else attn_mask
    if isinstance(mask, Tensor):
        mask = _four_mask(mask, q.dtype, (*batch, q.shape[1], q_len, k_len)[-rank:])
    start = 0 if is_causal and q_len != k_len else None
    with _AS_IT_IS if attn_mask is None else checks.renamed(mask="attn_mask"):
        out = attention(q, k, v, mask, scale=scale, dropout_p=dropout_p, q_start=start)
    if rank == 4:
        return out  # type: ignore[no-any-return]
    return out.reshape((*batch, *out.shape[1:])[-rank:])  # type: ignore[no-any-return]


def _check_arguments(attn_mask: Any, is_causal: Any, enable_gqa: Any) -> None:
    for name, flag in (("is_causal", is_causal), ("enable_gqa", enable_gqa)):
        if flag is not True and flag is not False:
            raise checks.type_error(name, "True or False", flag)
    if attn_mask is not None and not isinstance(attn_mask, (Tensor, Mask)):
        raise checks.type_error("attn_mask", "None, a bool or float tensor, or a Mask", attn_mask)
    if is_causal and attn_mask is not None:
        raise refused(
            "attn_mask", "None beside is_causal=True (join masks: Causal() & mask)", checks.describe(attn_mask)
        )


def _check_tensors(query: Any, key: Any, value: Any) -> int:
    """The largest number of dimensions, when sizes and dtypes fit."""
    if isinstance(query, Tensor) and isinstance(key, Tensor) and isinstance(value, Tensor):
        four = query.dim() == key.dim() == value.dim() == 4
        same = query.dtype == key.dtype == value.dtype and query.dtype in DTYPES
        if four and same and query.shape[3] == key.shape[3] and key.shape[2] == value.shape[2]:
            return 4  # at once: the questions below cost a small call dearly
    for (name, letters), x in zip(_SHAPES, (query, key, value), strict=True):
        if not isinstance(x, Tensor):
            raise checks.type_error(name, f"a tensor {letters}", x)
        if x.dim() < 2:
            raise refused(name, f"2 dimensions or more, {letters}", f"shape {checks.shape_text(x.shape)}")
        if x.dtype not in DTYPES:
            raise refused(name, "dtype float32, bfloat16, float16 or float64", _name(x.dtype))
        if x.dtype != query.dtype:
            raise refused(name, f"the dtype of query, {_name(query.dtype)}", _name(x.dtype))
    if key.shape[-1] != query.shape[-1]:
        raise refused("key", f"the head size of query, {query.shape[-1]}", f"shape {checks.shape_text(key.shape)}")
    if value.shape[-2] != key.shape[-2]:
        raise refused("value", f"the length of key, {key.shape[-2]}", f"shape {checks.shape_text(value.shape)}")
    return max(int(query.dim()), int(key.dim()), int(value.dim()))


def _four(
    query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool
) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...]]:
    """The three as `attention` takes them, (B, heads, T, D), and the dimensions before the heads, broadcast."""
    tensors = query, key, value
    if query.dim() == key.dim() == value.dim() == 4 and query.shape[:2] == key.shape[:2] == value.shape[:2]:
        return *tensors, query.shape[:1]
    batch = _broadcast([x.shape[:-3] for x in tensors], "leading dimensions", tensors) or (1,)
    heads, k_heads, v_heads = (x.shape[-3] if x.dim() > 2 else 1 for x in tensors)
    if enable_gqa:
        for name, h in (("key", k_heads), ("value", v_heads)):
            if heads != h and (h == 0 or heads % h):
                raise refused(name, f"heads that divide those of query, {heads}", str(h))
    else:
        (k_heads,) = _broadcast([(k_heads,), (v_heads,)], "heads Hk", tensors)
        (heads,) = _broadcast([(heads,), (k_heads,)], "heads H", tensors)
        v_heads = k_heads
    q, k, v = (_expand(x, batch, h) for x, h in zip(tensors, (heads, k_heads, v_heads), strict=True))
    if k_heads != v_heads:  # torch lets the heads of key and of value each divide those of query
        k, v = (x.repeat_interleave(heads // x.shape[1], 1) for x in (k, v))
    return q, k, v, batch


def _expand(x: Tensor, batch: tuple[int, ...], heads: int) -> Tensor:
    wide = x.expand(*batch, heads, *x.shape[-2:])
    return wide if len(batch) == 1 else wide.reshape(math.prod(batch), *wide.shape[-3:])


def _broadcast(shapes: Any, what: str, tensors: tuple[Tensor, Tensor, Tensor]) -> tuple[int, ...]:
    try:
        return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]
    except RuntimeError:
        hint = ", or enable_gqa=True" if what.startswith("heads") else ""
        got = ", ".join([checks.shape_text(x.shape) for x in tensors])
        raise refused("query, key, value", f"{what} that broadcast{hint}", f"shapes {got}") from None


def _four_mask(mask: Tensor, dtype: torch.dtype, pairs: tuple[int, ...]) -> Tensor:
    """The mask as `attention` takes it, when it fits the pairs (..., H, L, S)."""
    if mask.dtype not in (torch.bool, torch.float32, dtype):
        raise refused("attn_mask", f"dtype bool, float32 or that of query, {_name(dtype)}", _name(mask.dtype))
    trailing = pairs[len(pairs) - mask.dim() :]
    if mask.dim() > len(pairs) or any(have not in (1, want) for have, want in zip(mask.shape, trailing, strict=True)):
        text = f"a shape that broadcasts to (..., H, L, S) = {checks.shape_text(pairs)}"
        raise refused("attn_mask", text, checks.shape_text(mask.shape))
    if mask.dim() < 4 or len(pairs) == 4:
        return mask
    batch, own = pairs[:-3], mask.shape[-3:]
    if all(size == 1 for size in mask.shape[:-3]):
        return mask.reshape(own)
    return mask.expand(*batch, *own).reshape(math.prod(batch), *own)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
