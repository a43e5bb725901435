"""Contests over a cache: one token a row, the fused step, a chunk and a tree of guesses, against torch's own attention.

torch gets keys and values side by side in memory, as long as what is cached, and never copies them. Where heads share
keys it gets the query heads of a group as rows of one head, which reads keys and values once: several times as fast
as its enable_gqa, which repeats them. A cache in int8 has no counterpart there: it meets torch in bfloat16, over keys
and values that are not rounded to int8.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import mmha
from mmha import KVCache, Rotary
from mmha.bench.cases import TORCH_NAMES, Case
from mmha.bench.contest import Contest, Results, Side, added, tensors, visible
from mmha.bench.patterns import mask_of, seeded
from mmha.masks import Mask

SCALE_BYTES = 4  # of a token's keys, and of its values, in a head of a cache in int8


def token(case: Case) -> Contest:
    """One token a row: the cache is read once, and that is nearly all there is to do."""
    return over_cache(case, None)


def prefill(case: Case) -> Contest:
    """A chunk of a prompt behind what is cached: each token sees the past, the chunk's tokens before it, and itself."""
    return over_cache(case, mask_of("causal", case.sizes))


def guesses(case: Case) -> Contest:
    """A binary tree of guesses behind what is cached; each sees the past, its ancestors and itself."""
    return over_cache(case, mask_of("tree", case.sizes))


def over_cache(case: Case, mask: Mask | None) -> Contest:
    """The last Tq tokens of what is cached, under a mask, against torch on dense keys and values."""
    q, k, v, grad = tensors(case)
    cache, size = filled(case, k, v), case.sizes
    group = size.heads // size.kv_heads
    hidden = None if mask is None else added(mask, size, q.dtype).repeat(1, 1, group, 1)

    def torch_attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return unfolded(F.scaled_dot_product_attention(folded(q, size.kv_heads), k, v, attn_mask=hidden), q)

    return Contest(
        ours=Side(lambda q: mmha.attention(q, cache, mask=mask), (q,), grad),
        theirs=Side(torch_attend, (q, k, v), grad),
        pairs=visible(mask, size),
        read=read_bytes(case) if case.unit == "GB/s" else 0,
    )


def step(case: Case) -> Contest:
    """The fused step: bias, rotary, append and attention for one token a row, against torch's lines for each of them.

    `part` is the attention alone, so that what the step adds to it can be told.
    """
    q, k, v, _ = tensors(case)
    size = case.sizes
    dense, last = (k.clone(), v.clone()), size.k_len - 1
    # A ring, so that a step may be repeated: the first is compared, those after it take as long.
    cache = KVCache(size.batch, size.kv_heads, size.k_len, size.dim, window=size.k_len)
    cache.append(k[:, :, :last], v[:, :, :last])
    width = (size.heads + 2 * size.kv_heads) * size.dim
    qkv, bias = (torch.randn(*shape, generator=seeded(9)).to(q.dtype) for shape in ((size.batch, width), (width,)))
    positions = torch.full((size.batch,), last)
    rotary = Rotary(size.dim)
    angles = last * rotary.base ** (-torch.arange(0, size.dim, 2) / size.dim)
    cos, sin = (x.repeat(2).to(q.dtype) for x in (angles.cos(), angles.sin()))

    def turned(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-second, first), dim=-1) * sin

    def torch_step() -> Results:
        heads = (qkv + bias).view(size.batch, -1, 1, size.dim)
        new_q, new_k, new_v = heads.tensor_split((size.heads, size.heads + size.kv_heads), dim=1)
        dense[0][:, :, last:] = turned(new_k)
        dense[1][:, :, last:] = new_v
        out = F.scaled_dot_product_attention(folded(turned(new_q), size.kv_heads), *dense)
        return (unfolded(out, new_q).flatten(1),)

    def our_step() -> Results:
        return (mmha.masked_multihead_attention(qkv, cache, bias=bias, rotary=rotary, positions=positions),)

    return Contest(
        ours=Side(lambda: our_step()[0], (), q),
        theirs=Side(lambda: torch_step()[0], (), q),
        pairs=size.pairs,
        read=read_bytes(case),
        part=lambda: (mmha.attention(q, cache, mask=None),),
    )


def filled(case: Case, k: Tensor, v: Tensor) -> KVCache:
    """A cache in the case's dtype that holds these keys and values and has no room left."""
    size = case.sizes
    dtype: torch.dtype = getattr(torch, TORCH_NAMES[case.dtype])
    cache = KVCache(size.batch, size.kv_heads, size.k_len, size.dim, dtype=dtype)
    cache.append(k, v)
    return cache


def read_bytes(case: Case) -> int:
    """Keys, values and their scales: what a call must read whatever it does.

    >>> from mmha.bench.cases import sizes
    >>> read_bytes(Case("decode", "forward", "token", sizes(16384, q_len=1, kv_heads=2), aim=1.0, dtype="i8"))
    4456448
    """
    size = case.sizes
    element: int = getattr(torch, TORCH_NAMES[case.dtype]).itemsize
    scale = SCALE_BYTES if case.dtype == "i8" else 0
    return 2 * size.batch * size.kv_heads * size.k_len * (size.dim * element + scale)


def folded(q: Tensor, kv_heads: int) -> Tensor:
    """(B, Hk, G * Tq, D): the query heads of a group, one below the other, as rows of their key/value head."""
    batch, heads, q_len, dim = q.shape
    return q.reshape(batch, kv_heads, heads // kv_heads * q_len, dim)


def unfolded(out: Tensor, q: Tensor) -> Tensor:
    """The heads of `q` (B, H, Tq, D) again."""
    return out.reshape(*q.shape[:3], out.shape[-1])
