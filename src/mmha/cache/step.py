"""`masked_multihead_attention`: one new token a row against a cache, from the fused projection to the output."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmha import checks
from mmha.bias import Bias
from mmha.cache.arguments import FLOATS, heads_of, places_of, projected, turn_of, vector
from mmha.cache.contiguous import KVCache
from mmha.cache.output import Finish
from mmha.masks import Mask
from mmha.nn.rotary import Rotary
from mmha.ops import cached
from mmha.ops.caches import Cache
from mmha.ops.call import Call
from mmha.ops.extras import make_extras
from mmha.ops.watch import outside_graphs


@outside_graphs
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
    heads = heads_of(qkv, cache)
    x = projected(qkv, qkv_scale)
    shift = vector("bias", bias, qkv.shape[1])
    finish = Finish.checked(heads * cache.value_dim, out_shift, out_smooth, out_scale, round, out_bounds)
    if lengths is None and beam is None and src_mask is None and type(cache) is KVCache:
        bounds = cached.bounds_of(mask)
        if bounds is not None and cache._next_is_own():
            sizes = (cache.batch, heads, 1, cache._native.longest() + 1)
            with nullcontext() if score_bias is None else checks.renamed(bias="score_bias"):
                call = cached.prepare(sizes, mask, None, score_bias, scale, softcap, sinks).call
            out = _at_once(cache, (x, shift, rotary, positions), heads, bounds, call)
            return finish(out, qkv.dtype)
    step = _Step(cache, heads, *places_of(cache, lengths))
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
        own = positions is None and rotary is not None
        turn, places = turn_of(rotary, c, self.first if own else positions)
        what = x.data_ptr(), 0 if bias is None else bias.data_ptr(), *turn
        c._native.split(what, self.heads, (q.data_ptr(), k.data_ptr(), v.data_ptr()))
        del places  # its memory was read until here
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, query: tuple[cached.Seen, Call], table: Tensor | None) -> Tensor:
        """The output (B, H, 1, Dv) of the tokens, which are appended first."""
        cache = self.cache
        cache._write(k, v, self.counts, self.first)
        if table is None:
            return cached.attend(q, cache, *query, self.first.tolist(), False)[0]
        cache._native.point(0, 0, table.data_ptr())
        try:
            return cached.attend(q, cache, *query, self.first.tolist(), False)[0]
        finally:
            cache._native.point(0, 0, 0)


def _at_once(
    cache: KVCache,
    token: tuple[Tensor, Tensor | None, Rotary | None, Tensor | None],
    heads: int,
    bounds: cached.Bounds,
    call: Call,
) -> Tensor:
    """The output (B, H * Dv) of an ordinary step, in a single call of the kernels.

    token: qkv, bias, rotary, positions. Every row appends, at its own length, to a plain cache.
    """
    x, bias, rotary, positions = token
    turn, places = turn_of(rotary, cache, positions)
    out = x.new_empty(cache.batch, heads * cache.value_dim)
    extras = None if call is cached.PLAIN_CALL else make_extras(call, cache.batch)
    row = cache._native.step(
        (x.data_ptr(), 0 if bias is None else bias.data_ptr(), *turn), bounds, out.data_ptr(), heads,
        cache.head_dim**-0.5 if call.scale is None else call.scale, None if extras is None else extras.native,
        torch.get_num_threads(),
    )  # fmt: skip
    del places
    if row >= 0:
        got = f"1 more in row {row}, which has {int(cache._lengths[row])}"
        raise checks.value_error("qkv", f"tokens that fit into max_len = {cache.max_len}", got)
    if row == -2:
        raise checks.value_error("qkv", "finite numbers, which is all that int8 can hold", "NaN or an infinity")
    return out


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
    table = cache._read_from(cache.batch).contiguous()
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
