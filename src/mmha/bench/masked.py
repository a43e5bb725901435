"""Contests under a mask: ours gets the value; torch is_causal where that says it, else a ready-made tensor."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import mmha
from mmha.bench.cases import Case
from mmha.bench.contest import Contest, Results, Side, added, tensors, visible
from mmha.bench.patterns import half_full, mask_of
from mmha.masks import Mask


def masked(case: Case) -> Contest:
    """One mask for both sides, whatever it is."""
    q, k, v, grad = tensors(case)
    mask = mask_of(case.kind, case.sizes)
    pairs = visible(mask, case.sizes)
    options = torch_options(case, mask, pairs, q.dtype)
    return Contest(
        ours=Side(lambda q, k, v: mmha.attention(q, k, v, mask), (q, k, v), grad),
        theirs=Side(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options), (q, k, v), grad),
        pairs=pairs,
    )


def torch_options(case: Case, mask: Mask | None, pairs: int, dtype: torch.dtype) -> dict[str, Any]:
    """What torch is told: nothing when all is visible, is_causal when it means the same, else the mask as a tensor."""
    size = case.sizes
    options: dict[str, Any] = {"enable_gqa": True} if size.heads != size.kv_heads else {}
    if mask is None or pairs == size.pairs:
        return options
    if case.kind == "causal" and size.q_len == size.k_len:
        return {**options, "is_causal": True}
    return {**options, "attn_mask": added(mask, size, dtype)}


def padded(case: Case) -> Contest:
    """Sequences of uneven length side by side: ours hides padding among keys and queries, torch can among keys alone.

    No gradient comes back to padding, as in training; out is compared where it is real.
    """
    q, k, v, grad = tensors(case)
    mask = mask_of("padded", case.sizes)
    real = real_tokens(case)[:, None, :, None]
    keys = torch.zeros(real.shape, dtype=q.dtype).masked_fill_(~real, -torch.inf).mT  # (B, 1, 1, Tk)

    def view(results: Results) -> Results:
        return tuple(x * real for x in results)

    return Contest(
        ours=Side(lambda q, k, v: mmha.attention(q, k, v, mask), (q, k, v), grad * real),
        theirs=Side(
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=keys), (q, k, v), grad * real, view
        ),
        pairs=visible(mask, case.sizes),
    )


def packed(case: Case) -> Contest:
    """The same batch, which ours gets as one packed row; packing stays outside the clock: an encoder does it once."""
    side_by_side = padded(case)
    lengths = half_full(case.sizes.batch, case.sizes.k_len)
    mask = mask_of("packed", case.sizes)

    def pack(x: Tensor) -> Tensor:
        return mmha.pack(x.transpose(1, 2), lengths)[0].transpose(1, 2).contiguous()

    def unpack(x: Tensor) -> Tensor:
        return mmha.unpack(x.transpose(1, 2), lengths, case.sizes.k_len).transpose(1, 2)

    theirs = side_by_side.theirs
    q, k, v = (pack(x) for x in theirs.inputs)
    return Contest(
        ours=Side(
            lambda q, k, v: mmha.attention(q, k, v, mask),
            (q, k, v),
            pack(theirs.grad),
            lambda results: tuple(unpack(x) for x in results),
        ),
        theirs=theirs,
        pairs=side_by_side.pairs,
    )


def real_tokens(case: Case) -> Tensor:
    """bool (B, T): which tokens of the padded batch are real."""
    lengths = torch.tensor(half_full(case.sizes.batch, case.sizes.k_len))
    return torch.arange(case.sizes.k_len) < lengths[:, None]
