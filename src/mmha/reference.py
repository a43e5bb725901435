"""Attention straight from the formula, in float64: what the kernels are judged by, and the slow path behind them.

    s[i, j] = scale * q[i] . k[j] + additive[i, j]      lse[i] = log sum_j exp(s[i, j])
    w[i, j] = exp(s[i, j] - lse[i])                     out[i] = sum_j w[i, j] v[j]    j over the visible keys of row i

It borrows nothing from what it judges: no plan, no kernel, no autograd; the gradients are written out below. It runs
over a few rows at a time, so that it too needs no Tq x Tk tensor, and so that a result depends on nothing but its own
head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

#: Scores of one head held at a time. The rows in a block follow from this and Tk alone, never from batch or heads.
ROW_ELEMENTS = 1 << 17
#: Scores held at a time, over all heads of a block.
BLOCK_ELEMENTS = 1 << 18

RowsVisible = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class Rule:
    """Which pairs are visible, what is added to their scores, and the scale.

    visible: bool, broadcastable to (B, H, Tq, Tk), True = visible; or a function (start, stop) that returns the same
    for rows start..stop, broadcastable to (B, H, stop - start, Tk); None = all.
    additive: broadcastable to (B, H, Tq, Tk); -inf hides.
    scale: a number; None = 1 / sqrt(D).
    """

    visible: Tensor | RowsVisible | None = None
    additive: Tensor | None = None
    scale: float | None = None


@dataclass(frozen=True)
class Gradients:
    """What flows back into each result; None = nothing. Shapes (B, H, Tq, Dv), (B, H, Tq) and (B, H, Tq, Tk)."""

    out: Tensor | None = None
    lse: Tensor | None = None
    weights: Tensor | None = None


def attention(
    q: Tensor, k: Tensor, v: Tensor, rule: Rule | None = None, *, return_weights: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Masked attention in float64, row chunk by row chunk.

    q (B, H, Tq, D), k (B, Hk, Tk, D), v (B, Hk, Tk, Dv), any floating dtype, H a multiple of Hk; query head h reads
    key head h // (H / Hk). Returns out (B, H, Tq, Dv), lse (B, H, Tq) as a natural logarithm, and the weights (B, H,
    Tq, Tk) or None, all float64 and without a graph. A row that sees nothing gives out 0, weights 0 and lse -inf. NaN
    or Inf at a hidden pair has no effect.

    Source: Vaswani et al. 2017, equation 1.

    >>> one = torch.ones(1, 1, 1, 2)
    >>> out, lse, _ = attention(one, one, one, Rule(scale=0.5))
    >>> out.tolist(), lse.item()
    ([[[[1.0, 1.0]]]], 1.0)
    """
    problem = _Problem(q, k, v, rule or Rule())
    batch, heads, q_len, k_len = problem.sizes
    out = problem.q.new_zeros(batch, heads, q_len, v.shape[3])
    lse = problem.q.new_full((batch, heads, q_len), -math.inf)
    weights = problem.q.new_zeros(batch, heads, q_len, k_len) if return_weights else None
    for block in problem.blocks():
        at, visible, w, row_lse = block.at, *problem.weights(block)
        out[at] = problem.unfold(_sum_visible(w, problem.v[block.kv], visible))[..., : v.shape[3]]
        lse[at] = problem.unfold(row_lse)[..., 0]
        if weights is not None:
            weights[at] = problem.unfold(w)[..., :k_len]
    return out, lse, weights


def gradients(
    q: Tensor, k: Tensor, v: Tensor, grad: Gradients, rule: Rule | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What flows back into q, k, v and rule.additive (None without one), in float64 and in their shapes.

    With dw[i, j] = grad.out[i] . v[j] + grad.weights[i, j]:
    ds[i, j] = w[i, j] * (dw[i, j] - sum_l w[i, l] dw[i, l] + grad.lse[i]);
    dv[j] = sum_i w[i, j] grad.out[i], dq[i] = scale * sum_j ds[i, j] k[j], dk[j] = scale * sum_i ds[i, j] q[i],
    dadditive = ds. Sums run over visible pairs only, so NaN or Inf at a hidden pair, in a hidden row of q or of a
    gradient has no effect.

    >>> one = torch.ones(1, 1, 1, 2)
    >>> gradients(one, one, one, Gradients(out=one))[2].tolist()
    [[[[1.0, 1.0]]]]
    """
    problem = _Problem(q, k, v, rule or Rule())
    g_lse = None if grad.lse is None else grad.lse[..., None]
    given = [None if g is None else _aligned(g) for g in (grad.out, grad.weights)]
    dq, dk, dv = (x.new_zeros(x.shape) for x in (problem.q, problem.k, problem.v))
    added = None if problem.additive is None else problem.additive.new_zeros(problem.additive.shape)
    for block in problem.blocks():
        g_out, g_weights = (None if g is None else problem.fold(g[block.at]) for g in given)
        visible, w, _ = problem.weights(block)
        dw = torch.zeros_like(w)
        if g_out is not None:
            dw = g_out @ problem.v[block.kv].mT
            dv[block.kv] += _sum_visible(w.mT, g_out, visible.mT)
        if g_weights is not None:
            dw = dw + g_weights
        inside = dw - torch.where(visible, w * dw, 0.0).sum(-1, keepdim=True)
        if g_lse is not None:
            inside = inside + problem.fold(g_lse[block.at])
        ds = torch.where(visible, w * inside, 0.0)
        dq[block.at] = problem.scale * problem.unfold(_sum_visible(ds, problem.k[block.kv], visible))
        dk[block.kv] += problem.scale * _sum_visible(ds.mT, problem.fold(problem.q[block.at]), visible.mT)
        if added is not None:
            into = _part(added, block)
            into += problem.unfold(ds)[..., : k.shape[2]].sum_to_size(into.shape)
    dq, dk, dv = (dx[:, :, : x.shape[2], : x.shape[3]].contiguous() for dx, x in ((dq, q), (dk, k), (dv, v)))
    return dq, dk, dv, None if added is None or problem.given is None else added.reshape(problem.given.shape)


@dataclass(frozen=True)
class _Block:
    """Some rows of some neighbouring heads of one batch row. visible is broadcastable to (1, heads, rows, Tk)."""

    b: int
    heads: slice
    kv_heads: slice
    rows: slice
    visible: Tensor | None

    @property
    def at(self) -> tuple[int, slice, slice]:
        """Where the block is in a (B, H, Tq, *) tensor."""
        return self.b, self.heads, self.rows

    @property
    def kv(self) -> tuple[int, slice]:
        """Where its keys are in a (B, Hk, Tk, *) tensor."""
        return self.b, self.kv_heads


class _Problem:
    """The problem in float64, block by block. Query heads that share a key head are folded into rows of one matrix."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> None:
        self.q, self.k, self.v = _aligned(q), _aligned(k, keys=True), _aligned(v, keys=True)
        self.sizes = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        self.group = q.shape[1] // max(k.shape[1], 1)
        # With D = 0 every score is 0 whatever the scale, and 1 / sqrt(0) would turn them into NaN.
        self.scale = 1.0 / math.sqrt(max(q.shape[3], 1)) if rule.scale is None else rule.scale
        self.given = rule.additive
        self.visible = rule.visible
        self.additive = None if rule.additive is None else _four(rule.additive.detach().double())

    def blocks(self) -> Iterator[_Block]:
        """All of the problem. Heads, which do not touch each other, share a block if they fit."""
        batch, _, q_len, k_len = self.sizes
        rows = max(1, ROW_ELEMENTS // max(k_len, 1))
        heads = max(1, BLOCK_ELEMENTS // max(self.group * min(rows, q_len) * k_len, 1))
        for start in range(0, q_len, rows):
            part = slice(start, min(start + rows, q_len))
            visible = self._rows_visible(part)
            for b in range(batch):
                for first in range(0, self.k.shape[1], heads):
                    last = min(first + heads, self.k.shape[1])
                    yield _Block(b, slice(first * self.group, last * self.group), slice(first, last), part, visible)

    def fold(self, x: Tensor) -> Tensor:
        """(heads, rows, n) to (key heads, heads per key head * rows, n)."""
        return x.reshape(x.shape[0] // self.group, self.group * x.shape[1], x.shape[2])

    def unfold(self, x: Tensor) -> Tensor:
        """The inverse of `fold`."""
        return x.reshape(x.shape[0] * self.group, x.shape[1] // self.group, x.shape[2])

    def weights(self, block: _Block) -> tuple[Tensor, Tensor, Tensor]:
        """What is visible and the softmax over it, both (key heads, folded rows, Tk), and its log-sum-exp (..., 1)."""
        s = self.scale * (self.fold(self.q[block.at]) @ self.k[block.kv].mT)
        k_len, padding = self.sizes[3], s.shape[2] - self.sizes[3]
        shape = (*self.unfold(s).shape[:2], k_len)
        visible = torch.ones((), dtype=torch.bool) if block.visible is None else _part(block.visible, block, rows=False)
        if self.additive is not None:
            added = _part(self.additive, block)
            s = s + self.fold(pad(added.expand(shape), (0, padding)))
            visible = visible & (added != -math.inf)
        visible = self.fold(pad(visible.expand(shape), (0, padding)))  # the keys that only align are hidden
        s = torch.where(visible, s, -math.inf)
        if s.shape[2] == 0:
            return visible, s, s.new_full((*s.shape[:2], 1), -math.inf)
        top = s.amax(-1, keepdim=True)
        top = torch.where(top == -math.inf, 0.0, top)
        e = torch.exp(s - top)
        total = e.sum(-1, keepdim=True)
        w = e / torch.where(total == 0.0, 1.0, total)
        return visible, torch.where(visible, w, 0.0), top + total.log()  # a NaN in the total stays with the visible

    def _rows_visible(self, rows: slice) -> Tensor | None:
        if self.visible is None or isinstance(self.visible, Tensor):
            whole = None if self.visible is None else _four(self.visible)
            return whole if whole is None or whole.shape[2] == 1 else whole[:, :, rows]
        return _four(self.visible(rows.start, rows.stop))


def _sum_visible(w: Tensor, x: Tensor, visible: Tensor) -> Tensor:
    """sum_j w[., i, j] x[., j] over visible j only: a product of matrices lets NaN and Inf in through 0 * NaN."""
    finite = x.isfinite()
    sums = w @ torch.where(finite, x, 0.0)
    rows = (visible & ~finite.all(-1)[:, None]).any(-1)  # those that see a number which is not finite
    for n in rows.any(-1).nonzero()[:, 0].tolist():
        w_n, visible_n = w[n, rows[n]], visible[n, rows[n]]
        sums[n, rows[n]] = torch.stack(
            [torch.where(visible_n, w_n * x[n, :, d], 0.0).sum(-1) for d in range(x.shape[2])], -1
        )
    return sums


def _aligned(x: Tensor, *, keys: bool = False) -> Tensor:
    """The tensor in float64, its last dimension (for keys, the one before too) padded with zeros to a multiple of 8.

    BLAS rounds differently at different alignments, and a head must not depend on its place in the batch.
    """
    return pad(x.detach().double(), (0, -x.shape[3] % 8, 0, -x.shape[2] % 8 if keys else 0)).contiguous()


def _four(x: Tensor) -> Tensor:
    """The tensor with leading dimensions of size 1, up to four dimensions."""
    return x.reshape((1,) * (4 - x.dim()) + tuple(x.shape))


def _part(x: Tensor, block: _Block, *, rows: bool = True) -> Tensor:
    """What a block looks at of a tensor broadcastable to (B, H, Tq, Tk): a view broadcastable to (heads, rows, Tk)."""
    head = x[block.b if x.shape[0] > 1 else 0]
    head = head[block.heads] if head.shape[0] > 1 else head
    return head[:, block.rows] if rows and head.shape[1] > 1 else head
