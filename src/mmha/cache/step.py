"""`masked_multihead_attention`: one new token a row against a cache, from the fused projection to the output."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmha import checks
from mmha.bias import Bias
from mmha.cache.contiguous import KVCache
from mmha.masks import Mask
from mmha.nn.rotary import Rotary
from mmha.ops import cached
from mmha.ops.caches import Cache
from mmha.ops.call import Call

QKV_DTYPES = ("float32", "bfloat16", "float16", "int32")
FLOATS = ("float32", "bfloat16", "float16", "float64")


def masked_multihead_attention(
    qkv: Tensor,
    cache: Cache,
    *,
    bias: Tensor | None = None,
    src_mask: Tensor | None = None,
    rotary: Rotary | None = None,
    positions: Tensor | None = None,
    lengths: Tensor | None = None,
    beam: Tensor | None = None,
    mask: Mask | None = None,
    score_bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    qkv_scale: Tensor | None = None,
    out_shift: Tensor | None = None,
    out_smooth: Tensor | None = None,
    out_scale: float | None = None,
    round: str = "even",
    out_bounds: tuple[float, float] = (-127.0, 127.0),
) -> Tensor:
    """One decode step: each row's new token is split, shifted, rotated, appended to the cache, and attends to it.

    q, k, v = split(qkv · qkv_scale + bias);  q, k = rotary(q, p), rotary(k, p);  the cache appends k, v;
    x = attention(q, cache) as `mmha.attention` has it;  y = (x + out_shift) · out_smooth;
    with out_scale: int8 clip(round(out_bounds[1] · out_scale · y), out_bounds).

    Args:
        qkv: (B, (H + Hk)·D + Hk·Dv), all heads of q, then of k, then of v; H follows from the width. float32, bfloat16
            or float16; or int32 with qkv_scale.
        cache: a `KVCache`, or a batch of a `PagedKVCache`; it grows by one token a row, in place.
        bias, qkv_scale: float, of the width of qkv.
        src_mask: float, broadcastable to (B, H, 1, t + 1), t the length of the longest row that is not skipped: added
            to the scores, -inf hides.
        rotary: how q and k are rotated, at `positions`, integers (B,) or (B, 2); None = the row's length.
        lengths: integers (B,): row b writes its token at lengths[b], what stood there and after is forgotten; negative:
            the row is skipped, nothing is written and its output is 0. None = the cache's own lengths.
        beam: integers (B, max_len): the row in whose memory past step j of row b stands; None = its own.
        mask, score_bias, scale, softcap, sinks: as mask, bias, scale, softcap and sinks of `mmha.attention`.
        out_shift, out_smooth: float (H·Dv,). out_scale: > 0, the output becomes int8. round: "even", ties to even, or
            "away", ties away from zero. out_bounds: what int8 is clipped to.

    Returns:
        (B, H·Dv) in the dtype of qkv (float32 for int32), or int8. No gradient flows through a cache.

    Raises:
        TypeError, ValueError: naming the argument, before anything is written.

    Source: NVIDIA FasterTransformer 5, masked multi-head attention; PaddlePaddle, `masked_multihead_attention`.

    >>> import torch, mmha
    >>> cache = mmha.KVCache(batch=3, kv_heads=2, max_len=16, head_dim=8)
    >>> qkv = torch.randn(3, (4 + 2 + 2) * 8)  # 4 query heads share 2 key/value heads
    >>> mmha.masked_multihead_attention(qkv, cache, rotary=mmha.Rotary(8)).shape, cache.lengths
    (torch.Size([3, 32]), tensor([1, 1, 1]))
    """
    heads = _heads(qkv, cache)
    x = _projected(qkv, qkv_scale)
    step = _Step(cache, heads, *_places(cache, lengths))
    shift = _vector("bias", bias, qkv.shape[1])
    finish = _Finish.checked(heads * cache.value_dim, out_shift, out_smooth, out_scale, round, out_bounds)
    table = None if beam is None else _beam_table(step, beam)
    sizes = (cache.batch, heads, 1, int(step.stop.max()) if cache.batch else 0)
    if mask is not None and not isinstance(mask, Mask):
        raise checks.type_error("mask", "None or a Mask (tensors go into src_mask)", mask)
    with checks.renamed(mask="src_mask") if src_mask is not None else nullcontext(), checks.renamed(bias="score_bias"):
        query = cached.prepare(sizes, mask, _src_mask(src_mask, step, sizes[3]), score_bias, scale, softcap, sinks)
    seen = cached.lower(query.mask, cache, sizes, step.stop, step.first.tolist())
    q, k, v = step.split(x, shift, rotary, positions)
    out = step.attend(q, k, v, (seen, query.call), table)
    made = finish(out.view(cache.batch, heads * cache.value_dim), qkv.dtype)
    return made if step.skipped is None else made.masked_fill_(step.skipped[:, None], 0)


class _Step(NamedTuple):
    """Where the new tokens stand: row b writes counts[b] (0 or 1) at first[b]."""

    cache: Cache
    heads: int
    first: Tensor
    counts: Tensor
    skipped: Tensor | None

    @property
    def stop(self) -> Tensor:
        return self.first + self.counts

    def split(
        self, x: Tensor, bias: Tensor | None, rotary: Rotary | None, positions: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q (B, H, 1, D), k and v (B, Hk, 1, ...), float32, with the bias and rotated."""
        c = self.cache
        q = x.new_empty(c.batch, self.heads, 1, c.head_dim)
        k = x.new_empty(c.batch, c.kv_heads, 1, c.head_dim)
        v = x.new_empty(c.batch, c.kv_heads, 1, c.value_dim)
        turn, places = _turn(rotary, c, self.first if positions is None else positions)
        c._native.split_step(
            self.heads, x.data_ptr(), 0 if bias is None else bias.data_ptr(),
            (*turn, 0 if places is None else places.data_ptr(), 1 if places is None or places.dim() == 1 else 2),
            (q.data_ptr(), k.data_ptr(), v.data_ptr()),
        )  # fmt: skip
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, query: tuple[cached.Seen, Call], table: Tensor | None) -> Tensor:
        """The output (B, H, 1, Dv) of the tokens, which are appended first."""
        cache = self.cache
        if cache.window is not None and bool((self.stop < cache._lengths).any()):
            assert isinstance(cache, KVCache)
            cache.truncate(torch.minimum(self.first, cache._lengths))
        cache._write(k, v, self.counts, self.first)
        if table is None:
            return cached.attend(q, cache, *query, self.first.tolist(), False)[0]
        cache._native.point(0, 0, table.data_ptr())
        try:
            return cached.attend(q, cache, *query, self.first.tolist(), False)[0]
        finally:
            cache._native.point(0, 0, 0)


class _Finish(NamedTuple):
    """What happens to the output: (x + shift) * smooth, then int8 with out_scale."""

    shift: Tensor | None
    smooth: Tensor | None
    scale: float | None
    away: bool
    bounds: tuple[float, float]

    @staticmethod
    def checked(width: int, shift: Any, smooth: Any, scale: Any, rounding: Any, bounds: Any) -> _Finish:
        if scale is not None:
            scale = checks.number("out_scale", scale)
            checks.require(scale > 0, "out_scale", "None or a number > 0", scale)
        away = checks.one_of("round", rounding, ("even", "away")) == "away"
        if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
            raise checks.type_error("out_bounds", "two numbers (low, high)", bounds)
        low, high = (checks.number("out_bounds", bound) for bound in bounds)
        checks.require(-128 <= low < high <= 127, "out_bounds", "low < high within -128 to 127", f"({low}, {high})")
        return _Finish(
            _vector("out_shift", shift, width), _vector("out_smooth", smooth, width), scale, away, (low, high)
        )

    def __call__(self, out: Tensor, dtype: torch.dtype) -> Tensor:
        if self.shift is not None:
            out = out + self.shift
        if self.smooth is not None:
            out = out * self.smooth
        if self.scale is None:
            return out if dtype == torch.int32 else out.to(dtype)
        scaled = out * (self.bounds[1] * self.scale)
        rounded = scaled.sign() * (scaled.abs() + 0.5).floor() if self.away else scaled.round()
        return rounded.clamp(*self.bounds).to(torch.int8)


def _heads(qkv: Any, cache: Any) -> int:
    """H, when qkv and the cache fit together."""
    if not isinstance(cache, Cache):
        raise checks.type_error("cache", "a KVCache or a batch of a PagedKVCache", cache)
    checks.dtype_in("qkv", qkv, QKV_DTYPES)
    cache._refresh()
    checks.shape_is("qkv", qkv, (cache.batch, None), "(B, (H + Hk)·D + Hk·Dv)")
    cached.check_device("qkv", qkv)
    if qkv.requires_grad and torch.is_grad_enabled():
        raise checks.value_error("qkv", "no gradient beside a cache (use torch.no_grad())", "one that requires it")
    rest = qkv.shape[1] - cache.kv_heads * (cache.head_dim + cache.value_dim)
    heads, left = divmod(rest, cache.head_dim)
    if left or heads < 1 or heads % cache.kv_heads:
        own = f"Hk = {cache.kv_heads}, D = {cache.head_dim}, Dv = {cache.value_dim}"
        raise checks.value_error("qkv", f"width (H + Hk)·D + Hk·Dv with {own}, H a multiple of Hk", str(qkv.shape[1]))
    return int(heads)


def _projected(qkv: Tensor, scale: Any) -> Tensor:
    """qkv in float32, contiguous; integers times their scale."""
    if (qkv.dtype == torch.int32) != (scale is not None):
        expected = "a scale a column for int32 qkv" if scale is None else "None unless qkv is int32"
        raise checks.type_error("qkv_scale", expected, scale)
    x = qkv.detach().to(torch.float32).resolve_neg().contiguous()
    factor = _vector("qkv_scale", scale, qkv.shape[1])
    return x if factor is None else x * factor


def _vector(name: str, x: Any, width: int) -> Tensor | None:
    """A float tensor (width,) as contiguous float32; None stays None."""
    if x is None:
        return None
    checks.dtype_in(name, x, FLOATS)
    cached.check_device(name, x)
    checks.shape_is(name, x, (width,))
    return x.detach().to(torch.float32).resolve_neg().contiguous()  # type: ignore[no-any-return]


def _places(cache: Cache, lengths: Any) -> tuple[Tensor, Tensor, Tensor | None]:
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


def _src_mask(mask: Any, step: _Step, k_len: int) -> Tensor | None:
    """The additive mask as wide as the longest row: a skipped one may be longer than those that attend."""
    if mask is None:
        return None
    checks.dtype_in("src_mask", mask, FLOATS)
    cached.check_device("src_mask", mask)
    attending = int((step.stop * step.counts).max()) if step.cache.batch else 0
    if mask.dim() and mask.shape[-1] == attending:
        return torch.nn.functional.pad(mask, (0, k_len - attending))
    return mask  # type: ignore[no-any-return]


def _turn(rotary: Any, cache: Cache, positions: Any) -> tuple[tuple[int, float, bool], Tensor | None]:
    """The rotation as the kernels take it, and int64 positions (B,) or (B, 2); (0, ...) for none."""
    if rotary is None:
        return (0, 1.0, False), None
    if not isinstance(rotary, Rotary):
        raise checks.type_error("rotary", "None or a Rotary", rotary)
    checks.require(rotary.dims <= cache.head_dim, "rotary", f"at most D = {cache.head_dim} dims", rotary.dims)
    checks.dtype_in("positions", positions, ("int64", "int32", "int16", "int8", "uint8"))
    cached.check_device("positions", positions)
    two = positions.dim() == 2
    checks.shape_is("positions", positions, (cache.batch, 2) if two else (cache.batch,), "(B, 2)" if two else "(B,)")
    if two:
        checks.require(rotary.dims % 4 == 0, "rotary", "dims in a multiple of 4 for two position ids", rotary.dims)
    return (rotary.dims, rotary.base, rotary.style == "interleaved"), positions.to(torch.int64).contiguous()


def _beam_table(step: _Step, beam: Any) -> Tensor:
    """The rows to read past steps from as the kernels take them, int32 (B, slots); a new token is its row's own."""
    cache = step.cache
    if not isinstance(cache, KVCache) or cache.window is not None or cache._beam is not None:
        kind = "a KVCache without a window that was not branched"
        raise checks.value_error("beam", f"None for any cache but {kind}", checks.describe(beam))
    checks.dtype_in("beam", beam, ("int64", "int32", "int16", "int8", "uint8"))
    cached.check_device("beam", beam)
    longest = int(step.first.max()) if cache.batch else 0
    if beam.dim() != 2 or beam.shape[0] != cache.batch or not longest <= beam.shape[1] <= cache.max_len:
        expected = f"shape (B, max_len) = ({cache.batch}, {cache.max_len}), or at least {longest} steps of it"
        raise checks.value_error("beam", expected, checks.shape_text(beam.shape))
    table = cache._read_from()
    past = torch.arange(beam.shape[1], device="cpu") < step.first[:, None]
    table[:, : beam.shape[1]] = torch.where(past, beam.to(torch.int32), table[:, : beam.shape[1]])
    wrong = (table < 0) | (table >= cache.batch)
    if bool(wrong.any()):
        raise checks.value_error("beam", f"rows from 0 to {cache.batch - 1}", str(int(table[wrong][0])))
    steps = torch.arange(cache.max_len, device="cpu")
    unwritten = (steps >= cache._lengths[table.long()]) & (steps < step.first[:, None])
    if bool(unwritten.any()):
        b, j = unwritten.nonzero()[0].tolist()
        raise checks.value_error("beam", "rows that hold the step", f"row {int(table[b, j])} for step {j} of row {b}")
    return table
