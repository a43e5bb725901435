"""What a decode step accepts: each argument is checked here, before anything is written."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmha import checks
from mmha.nn.rotary import Rotary
from mmha.ops import cached
from mmha.ops.caches import Cache, plain

QKV_DTYPES = ("float32", "bfloat16", "float16", "int32")
FLOATS = ("float32", "bfloat16", "float16", "float64")


def heads_of(qkv: Any, cache: Any) -> int:
    """H, when qkv and the cache fit together."""
    if not isinstance(cache, Cache):
        raise checks.type_error("cache", "a KVCache or a batch of a PagedKVCache", cache)
    cache._refresh()
    if not _is_ordinary(qkv, cache.batch):
        _check_qkv(qkv, cache)
    rest = qkv.shape[1] - cache.kv_heads * (cache.head_dim + cache.value_dim)
    heads, left = divmod(rest, cache.head_dim)
    if left or heads < 1 or heads % cache.kv_heads:
        own = f"Hk = {cache.kv_heads}, D = {cache.head_dim}, Dv = {cache.value_dim}"
        raise checks.value_error("qkv", f"width (H + Hk)·D + Hk·Dv with {own}, H a multiple of Hk", str(qkv.shape[1]))
    return int(heads)


def _is_ordinary(x: Any, batch: int) -> bool:
    """Whether x is what nearly always comes: floats (B, width) in this machine's memory, without gradient."""
    return (
        type(x) is Tensor and x.dtype in (torch.float32, torch.bfloat16) and x.is_cpu and not x.requires_grad
        and x.layout is torch.strided and x.dim() == 2 and x.shape[0] == batch
    )  # fmt: skip


def _check_qkv(qkv: Any, cache: Cache) -> None:
    """Raise unless qkv is a (B, width) tensor for this cache."""
    checks.dtype_in("qkv", qkv, QKV_DTYPES)
    checks.shape_is("qkv", qkv, (cache.batch, None), "(B, (H + Hk)·D + Hk·Dv)")
    cached.check_device("qkv", qkv)
    if qkv.requires_grad and torch.is_grad_enabled():
        raise checks.value_error("qkv", "no gradient beside a cache (use torch.no_grad())", "one that requires it")


def projected(qkv: Tensor, scale: Any) -> Tensor:
    """qkv in float32, contiguous; integers times their scale."""
    if (qkv.dtype == torch.int32) != (scale is not None):
        expected = "a scale a column for int32 qkv" if scale is None else "None unless qkv is int32"
        raise checks.type_error("qkv_scale", expected, scale)
    x = plain(qkv)
    if scale is None:
        return x
    factor = vector("qkv_scale", scale, qkv.shape[1])
    assert factor is not None
    return x * factor


def vector(name: str, x: Any, width: int) -> Tensor | None:
    """A float tensor (width,) as contiguous float32; None stays None."""
    if x is None:
        return None
    if (
        type(x) is Tensor
        and x.dtype is torch.float32
        and x.is_cpu
        and x.layout is torch.strided
        and x.shape == (width,)
    ):
        return plain(x)
    checks.dtype_in(name, x, FLOATS)
    cached.check_device(name, x)
    checks.shape_is(name, x, (width,))
    return plain(x)


def places_of(cache: Cache, lengths: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Where each row writes, how many tokens (0 or 1), and the rows that are skipped."""
    if lengths is None:
        return cache.lengths, torch.ones(cache.batch, dtype=torch.int64, device="cpu"), None
    wanted = cache._check_rows("lengths", lengths, -(1 << 62), 1 << 62)
    beyond = wanted > cache._lengths
    if bool(beyond.any()):
        b = int(beyond.nonzero()[0])
        expected = f"at most the {int(cache._lengths[b])} tokens of row {b}"
        raise checks.value_error("lengths", expected, str(int(wanted[b])))
    skipped = wanted < 0
    return torch.where(skipped, cache._lengths, wanted), (~skipped).to(torch.int64), skipped


def _is_place_a_row(x: Any, batch: int) -> bool:
    """Whether positions are what nearly always comes: int64 (B,) side by side in this machine's memory."""
    return (
        type(x) is Tensor and x.dtype is torch.int64 and x.is_cpu and x.layout is torch.strided
        and x.shape == (batch,) and x.is_contiguous() and not x.is_neg()
    )  # fmt: skip


Turn = tuple[int, float, bool, int, int]


def turn_of(rotary: Any, cache: Cache, positions: Any) -> tuple[Turn, Tensor | None]:
    """The rotation as the kernels take it, with the address of positions (0: the rows' lengths) and ids a token.

    Also the tensor at that address.
    """
    if rotary is None:
        if positions is not None:
            raise checks.value_error("positions", "None without a rotary", checks.describe(positions))
        return (0, 1.0, False, 0, 1), None
    if not isinstance(rotary, Rotary):
        raise checks.type_error("rotary", "None or a Rotary", rotary)
    checks.require(rotary.dims <= cache.head_dim, "rotary", f"at most D = {cache.head_dim} dims", rotary.dims)
    way = rotary.dims, rotary.base, rotary.style == "interleaved"
    if positions is None:
        return (*way, 0, 1), None
    if _is_place_a_row(positions, cache.batch):
        return (*way, positions.data_ptr(), 1), positions
    checks.dtype_in("positions", positions, ("int64", "int32", "int16", "int8", "uint8"))
    cached.check_device("positions", positions)
    two = positions.dim() == 2
    checks.shape_is("positions", positions, (cache.batch, 2) if two else (cache.batch,), "(B, 2)" if two else "(B,)")
    if two:
        checks.require(rotary.dims % 4 == 0, "rotary", "dims in a multiple of 4 for two position ids", rotary.dims)
    places = positions.to(torch.int64).resolve_neg().contiguous()
    return (*way, places.data_ptr(), 2 if two else 1), places
