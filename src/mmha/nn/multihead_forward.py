"""What `MultiheadAttention` and `multi_head_attention_forward` share: shapes, projections in, attention, heads joined.

Nothing is copied on the way to the kernels: the projections are cut into heads as views, whatever the layout.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmha import checks
from mmha.nn.linear import linear
from mmha.nn.refusals import refused, require
from mmha.nn.rotary import Rotary
from mmha.nn.torch_masks import Joined, Sizes, join
from mmha.ops import attention
from mmha.ops.caches import Cache

Three = tuple[Tensor, Tensor, Tensor]


class Heads(NamedTuple):
    """H query heads and Hk heads of keys and values, each of D numbers."""

    query: int
    kv: int
    size: int


class Layout(NamedTuple):
    """How inputs lie in memory: (N, T, E), (T, N, E), or (T, E) when there is no batch."""

    batched: bool
    batch_first: bool

    def sizes(self, query: Tensor, key: Tensor, heads: int) -> Sizes:
        """N, H, L and S."""
        if not self.batched:
            return Sizes(1, heads, query.shape[0], key.shape[0])
        batch, length = (0, 1) if self.batch_first else (1, 0)
        return Sizes(query.shape[batch], heads, query.shape[length], key.shape[length])

    def split(self, x: Tensor) -> Tensor:
        """(N, H, T, D) of what ends in (..., H, D): a view."""
        if not self.batched:
            return x.transpose(0, 1).unsqueeze(0)
        return x.transpose(1, 2) if self.batch_first else x.permute(1, 2, 0, 3)

    def join(self, x: Tensor) -> Tensor:
        """(..., H * D) of (N, H, T, D)."""
        if not self.batched:
            return x.squeeze(0).transpose(0, 1).flatten(1)
        return (x.transpose(1, 2) if self.batch_first else x.permute(2, 0, 1, 3)).flatten(2)


def check_inputs(query: Any, key: Any, value: Any, dims: tuple[int, int, int], batch_first: bool) -> Layout:
    """The layout, when query (..., dims[0]), key (..., dims[1]) and value (..., dims[2]) fit together.

    Raises `Refused`, or TypeError for what is no tensor.
    """
    batched = isinstance(query, Tensor) and query.dim() == 3
    if key is query and value is query and batched and not query.is_nested and dims == (query.shape[-1],) * 3:
        return Layout(True, batch_first)  # self-attention, what nearly always comes
    for name, x, dim in (("query", query, dims[0]), ("key", key, dims[1]), ("value", value, dims[2])):
        if not isinstance(x, Tensor):
            raise checks.type_error(name, "a tensor", x)
        if x.is_nested:
            raise refused(name, "a dense tensor (with a padding mask)", "a nested tensor")
        if x.dim() not in (2, 3):
            raise refused(name, "2 dimensions (T, E), or 3 with a batch", _shape(x))
        if x.dim() != query.dim():
            raise refused(name, f"{query.dim()} dimensions, as the query has", _shape(x))
        if x.shape[-1] != dim:
            raise refused(name, f"{dim} features in the last dimension", _shape(x))
    if key.shape[:-1] != value.shape[:-1]:
        raise refused("value", f"the batch and length of the key, {checks.shape_text(key.shape[:-1])}", _shape(value))
    axis = 0 if batch_first else 1
    if batched and query.shape[axis] != key.shape[axis]:
        raise refused("key", f"the batch of the query, N = {query.shape[axis]}", _shape(key))
    return Layout(batched, batch_first)


def join_masks(
    query: Tensor,
    layout: Layout,
    sizes: Sizes,
    attn_mask: Any,
    key_padding_mask: Any,
    is_causal: bool,
    mask: Any = None,
) -> Joined:
    """`torch_masks.join`, where the padding of unbatched input is (S,); nothing where there are no numbers."""
    if isinstance(key_padding_mask, Tensor):
        if key_padding_mask.dim() != (2 if layout.batched else 1):
            letters = "2 dimensions (N, S) beside batched" if layout.batched else "1 dimension (S,) beside unbatched"
            raise refused("key_padding_mask", f"{letters} input", _shape(key_padding_mask))
        if not layout.batched:
            key_padding_mask = key_padding_mask.unsqueeze(0)
    return Joined() if query.is_meta else join(sizes, attn_mask, key_padding_mask, is_causal, mask)


def project_packed(inputs: Three, weight: Tensor, bias: Tensor | None, heads: Heads) -> Three:
    """q, k and v as (..., heads, D): one product in self-attention, two where key is value, else three.

    weight: ((H + 2 Hk) D, E), bias: ((H + 2 Hk) D,), those of q, k and v one below the other.
    """
    query, key, value = inputs
    parts = [heads.query, heads.kv, heads.kv]
    if key is value and query is key:
        q, k, v = _in_heads(linear(query, weight, bias), heads.size).split_with_sizes(parts, -2)
        return q, k, v
    if key is value:
        rows = [heads.query * heads.size, 2 * heads.kv * heads.size]
        w_q, w_kv = weight.split_with_sizes(rows)
        b_q, b_kv = (None, None) if bias is None else bias.split_with_sizes(rows)
        k, v = _in_heads(linear(key, w_kv, b_kv), heads.size).split_with_sizes(parts[1:], -2)
        return _in_heads(linear(query, w_q, b_q), heads.size), k, v
    return project_apart(inputs, weight.split_with_sizes([n * heads.size for n in parts]), bias, heads)


def project_apart(inputs: Three, weights: Any, bias: Tensor | None, heads: Heads) -> Three:
    """The same with three weights, (H D, Eq), (Hk D, Ek) and (Hk D, Ev); the biases still stand in one tensor."""
    rows = [heads.query * heads.size, heads.kv * heads.size, heads.kv * heads.size]
    biases = (None, None, None) if bias is None else bias.split_with_sizes(rows)
    q, k, v = (_in_heads(linear(x, w, b), heads.size) for x, w, b in zip(inputs, weights, biases, strict=True))
    return q, k, v


def _in_heads(x: Tensor, size: int) -> Tensor:
    return x.view(*x.shape[:-1], x.shape[-1] // size, size)


class Extra(NamedTuple):
    """Keys that every query sees beside those of the input: one with a learned key and value, one of zeros.

    key, value: (1, 1, Hk * D), `bias_k` and `bias_v`. zero: `add_zero_attn`.
    """

    key: Tensor | None = None
    value: Tensor | None = None
    zero: bool = False


class Call(NamedTuple):
    """What else attention needs: masks, the share of weights to drop, whether weights are wanted, more keys."""

    joined: Joined
    dropout_p: float
    want_weights: bool
    extra: Extra = Extra()


def attend(q: Tensor, k: Tensor | Cache, v: Tensor | None, call: Call) -> tuple[Tensor, Tensor | None]:
    """out (N, H, L, D) and, when wanted, the weights (N, H, L, S + extra keys)."""
    mask, bias = call.joined
    if q.is_meta:
        return _on_meta(q, k, v, call)
    options: dict[str, Any] = {"bias": bias, "dropout_p": call.dropout_p, "return_weights": call.want_weights}
    if call.extra.key is None and not call.extra.zero:
        made = attention(q, k, v, mask, **options)
        return made if call.want_weights else (made, None)
    out, lse, *weights = attention(q, k, v, mask, **options, return_lse=True)
    return _with_extra(q, out, lse, weights[0] if weights else None, call)


def _with_extra(
    q: Tensor, out: Tensor, lse: Tensor, weights: Tensor | None, call: Call
) -> tuple[Tensor, Tensor | None]:
    """The softmax over all keys, from that over the input's keys and its log-denominator: no key has to be copied."""
    extra, scores = call.extra, []
    if extra.key is not None:
        products = q.to(lse.dtype) * _a_head(extra.key, q)[:, None]  # autocast would round those of a matmul
        scores.append(products.sum(-1, keepdim=True) / math.sqrt(q.shape[-1]))
    if extra.zero:
        scores.append(lse.new_zeros(*lse.shape, 1))
    score = torch.cat(scores, -1)
    lse = lse.unsqueeze(-1)
    total = torch.logaddexp(lse, score.logsumexp(-1, keepdim=True))
    share, more = (lse - total).exp(), (score - total).exp()  # a share of 0 where no key of the input is visible
    mixed = out * share
    if extra.value is not None:
        mixed = mixed + F.dropout(more[..., :1], call.dropout_p) * _a_head(extra.value, q)[:, None]
    if weights is not None:
        weights = torch.cat((weights * share, more), -1).to(q.dtype)
    return mixed.to(q.dtype), weights


def _a_head(x: Tensor, q: Tensor) -> Tensor:
    """(1, 1, Hk * D) as (H, D): query heads that share a key/value head share its numbers."""
    rows = x.reshape(-1, 1, q.shape[-1])
    return rows.expand(-1, q.shape[1] // rows.shape[0], -1).flatten(0, 1)


def _on_meta(q: Tensor, k: Any, v: Any, call: Call) -> tuple[Tensor, Tensor | None]:
    """What has a shape and no numbers, as torch's own attention has it there."""
    out = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    if not call.want_weights:
        return out, None
    more = (call.extra.key is not None) + call.extra.zero
    return out, q.new_empty((*q.shape[:3], k.shape[2] + more))


def given_weights(weights: Tensor | None, average: bool, layout: Layout) -> Tensor | None:
    """The weights as the caller wants them: averaged over the heads or not, with a batch if the input has one."""
    if weights is None:
        return None
    if average:
        weights = weights.mean(1)
    return weights if layout.batched else weights.squeeze(0)


def turned(rotary: Rotary, q: Tensor, k: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
    """q and k turned by their positions: keys from 0, or from first (N,), and the last query where the last key is."""
    q_len, k_len = q.shape[2], k.shape[2]
    at = torch.arange(min(0, k_len - q_len), k_len)
    if first is not None:
        at = at + first[:, None]
    cos, sin = rotary.angles(at)
    k = rotary.turn(k, cos[..., at.shape[-1] - k_len :, :, :], sin[..., at.shape[-1] - k_len :, :, :])
    q = rotary.turn(q, cos[..., at.shape[-1] - q_len :, :, :], sin[..., at.shape[-1] - q_len :, :, :])
    return q, k


def check_cache(cache: Any, sizes: Sizes, need_weights: bool, dropout_p: float) -> Sizes:
    """The sizes with what the cache will hold for keys, when nothing is asked for that it cannot do."""
    if not isinstance(cache, Cache):
        raise checks.type_error("cache", "a cache (mmha.KVCache, mmha.PagedKVCache)", cache)
    require(not need_weights, "need_weights", "False beside a cache", need_weights)
    require(not dropout_p, "dropout", "0.0 beside a cache, or eval()", dropout_p)
    require(sizes.batch == cache.batch, "cache", f"one for the batch of the query, N = {sizes.batch}", cache.batch)
    longest = int(cache.lengths.max()) if cache.batch else 0
    return sizes._replace(k_len=longest + sizes.k_len)


def attend_cached(inputs: Three, cache: Cache, call: Call) -> tuple[Tensor, Tensor | None]:
    """The same over a cache, to which the keys and values are appended first."""
    q, k, v = inputs
    if q.requires_grad and torch.is_grad_enabled():
        raise refused("cache", "no gradients beside it (use torch.no_grad())", "a query that requires them")
    before = cache.lengths
    with checks.renamed(k="key", v="value"):
        cache.append(k, v)
    try:
        return attend(q, cache, None, call)
    except Exception:
        cache.truncate(before)  # a mask that does not fit is noticed only now: what was appended goes again
        raise


def _shape(x: Tensor) -> str:
    return f"shape {checks.shape_text(x.shape)}"
