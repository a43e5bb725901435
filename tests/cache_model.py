"""What a cache is, as plain as can be: a list of the keys and values that each row has seen. Judges every real one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmha import reference
from mmha.masks import Mask, Tree
from mmha.reference import Rule, stored_as
from tolerances import RELATIVE, relative_error

#: How far attention over an int8 cache may stand from attention over the numbers that were given to it.
INT8 = 0.012

Pair = tuple[Tensor, Tensor]


@dataclass
class ListModel:
    """rows: of each row k (Hk, t, D) and v (Hk, t, Dv), float64, rounded as `stored` says."""

    rows: list[Pair]
    stored: torch.dtype | None = None

    @staticmethod
    def empty(
        batch: int, kv_heads: int, dim: int, value_dim: int | None = None, stored: torch.dtype | None = None
    ) -> ListModel:
        sizes = (dim, dim if value_dim is None else value_dim)
        k, v = (torch.zeros(kv_heads, 0, d, dtype=torch.float64) for d in sizes)
        return ListModel([(k, v)] * batch, stored)

    @property
    def lengths(self) -> list[int]:
        return [k.shape[1] for k, _ in self.rows]

    def append(self, k: Tensor, v: Tensor, counts: Sequence[int] | None = None) -> None:
        for b, row in enumerate(self.rows):
            n = k.shape[2] if counts is None else counts[b]
            new = (stored_as(x[b, :, :n], self.stored) for x in (k, v))
            self.rows[b] = tuple(torch.cat([old, x], 1) for old, x in zip(row, new, strict=True))  # type: ignore[assignment]

    def truncate(self, lengths: int | Sequence[int]) -> None:
        given = [lengths] * len(self.rows) if isinstance(lengths, int) else lengths
        self.rows = [(k[:, :n], v[:, :n]) for (k, v), n in zip(self.rows, given, strict=True)]

    def reset(self, rows: Sequence[int] | None = None) -> None:
        for b in range(len(self.rows)) if rows is None else rows:
            self.rows[b] = (self.rows[b][0][:, :0], self.rows[b][1][:, :0])

    def reorder(self, index: Sequence[int]) -> None:
        self.rows = [self.rows[b] for b in index]

    def dense(self) -> Pair:
        """As `to_dense`: float32 (B, Hk, max(lengths), .), zeros beyond a row's length."""
        longest = max(self.lengths, default=0)
        k, v = (
            torch.stack([torch.nn.functional.pad(row[i], (0, 0, 0, longest - row[i].shape[1])) for row in self.rows])
            for i in (0, 1)
        )
        return k.float(), v.float()


def same_as(cache: Any, model: ListModel) -> None:
    """The cache holds what the model holds: the same bits, and of int8 what half a step of its scale allows."""
    assert cache.lengths.dtype == torch.int64
    assert cache.lengths.tolist() == model.lengths
    for have, want in zip(cache.to_dense(), model.dense(), strict=True):
        assert have.dtype == torch.float32
        if model.stored == torch.int8:
            step = want.abs().amax(-1, keepdim=True) / 127.0 if want.numel() else want
            apart = (have - want).abs() > 1e-6 * (1.0 + want.abs())
            assert ((have - want).abs() <= step * 1.001 + 1e-6).all()
            assert apart.sum() <= 1 + want.numel() // 500  # the same number half way between two steps, rounded twice
        else:
            assert torch.equal(have, want)


def visible_to(
    mask: Mask | Tensor | None, heads: int, q_len: int, lengths: Sequence[int], starts: Sequence[int]
) -> list[Tensor]:
    """Of each row, which of its keys the queries from starts[b] on see: bool (H, Tq, t). A tree is the end of a row."""
    batch, longest = len(lengths), max(lengths)
    if mask is None:
        return [torch.ones(heads, q_len, n, dtype=torch.bool) for n in lengths]
    if isinstance(mask, Tree):
        return [mask.dense(1, heads, q_len, n, start)[0] for n, start in zip(lengths, starts, strict=True)]
    if isinstance(mask, Tensor):
        whole = mask.expand(batch, heads, q_len, longest)
    else:
        whole = mask.dense(batch, heads, q_len, longest, torch.tensor(starts))
    return [whole[b, :, :, :n] for b, n in enumerate(lengths)]


def expected(
    q: Tensor,
    model: ListModel,
    mask: Mask | Tensor | None = None,
    *,
    q_start: int | Sequence[int] | None = None,
    window: int | None = None,
    sink_tokens: int = 0,
    **rule: Any,
) -> tuple[Tensor, Tensor]:
    """out (B, H, Tq, Dv) and lse of the last Tq tokens of each row (or those from q_start on), by the reference."""
    _, heads, q_len, _ = q.shape
    outs, lses = [], []
    starts = [n - q_len for n in model.lengths] if q_start is None else q_start
    starts = [starts] * len(model.rows) if isinstance(starts, int) else starts
    for b, seen in enumerate(visible_to(mask, heads, q_len, model.lengths, starts)):
        k, v = model.rows[b]
        p, j = starts[b] + torch.arange(q_len)[:, None], torch.arange(k.shape[1])
        if window is not None:
            seen = seen & ((j > p - window) | (j < sink_tokens))
        held = Rule(seen, q_start=torch.tensor(starts[b]), **rule)
        held = replace(held, additive=_of_row(held.additive, b, k.shape[1]))
        out, lse, _ = reference.attention(q[b : b + 1], k[None], v[None], held)
        outs.append(out)
        lses.append(lse)
    return torch.cat(outs), torch.cat(lses)


def _of_row(additive: Tensor | tuple[Tensor, ...] | None, b: int, length: int) -> tuple[Tensor, ...] | None:
    if additive is None:
        return None
    whole = (
        (x.reshape((1,) * (4 - x.dim()) + x.shape)) for x in ((additive,) if isinstance(additive, Tensor) else additive)
    )
    return tuple((x[b : b + 1] if x.shape[0] > 1 else x)[..., :length] for x in whole)


def near(got: Tensor, want: Tensor, stored: torch.dtype, factor: float = 1.0) -> None:
    """Within the tolerance of the coarser of the result's dtype and the cache's."""
    limit = INT8 if stored == torch.int8 else max(RELATIVE[got.dtype], RELATIVE[stored]) * factor
    error = relative_error(got, want)
    assert error <= limit, f"relative error {error:.3g} > {limit:.3g}"


def hidden(lse: Tensor) -> Tensor:
    """Which rows of attention saw nothing."""
    return lse == -math.inf
