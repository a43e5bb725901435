"""Attention straight from the formula, in float64: what the kernels are judged by, and the slow path behind them.

    s[i, j] = scale * q[i] . k[j] + additive[i, j]      lse[i] = log sum_j exp(s[i, j])      (j over the visible keys of row i)
    w[i, j] = exp(s[i, j] - lse[i])                     out[i] = sum_j w[i, j] v[j]

It borrows nothing from what it judges: no plan, no kernel, no autograd; the gradients are written out below. It runs over a few
rows of one head at a time, so that it too needs no Tq x Tk tensor, and so that a result depends on nothing but its own head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

#: Scores held at a time. The number of rows in a chunk follows from this and Tk alone, so batch and heads cannot change a result.
CHUNK_ELEMENTS = 1 << 18

RowsVisible = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class Rule:
    """Which pairs are visible, what is added to their scores, and the scale.

    visible: bool, broadcastable to (B, H, Tq, Tk), True = visible; or a function (start, stop) that returns the same for rows
    start..stop, shape broadcastable to (B, H, stop - start, Tk); None = all. additive: broadcastable to (B, H, Tq, Tk), -inf hides.
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

    q (B, H, Tq, D), k (B, Hk, Tk, D), v (B, Hk, Tk, Dv), any floating dtype, H a multiple of Hk; query head h reads key head
    h // (H / Hk). Returns out (B, H, Tq, Dv), lse (B, H, Tq) as a natural logarithm, and the weights (B, H, Tq, Tk) or None, all
    float64 and without a graph. A row that sees nothing gives out 0, weights 0 and lse -inf. NaN or Inf at a hidden pair has no effect.

    Source: Vaswani et al. 2017, equation 1.

    >>> one = torch.ones(1, 1, 1, 2)
    >>> out, lse, _ = attention(one, one, one, Rule(scale=0.5))
    >>> out.tolist(), lse.item()
    ([[[[1.0, 1.0]]]], 1.0)
    """
    head = _Heads(q, k, v, rule or Rule())
    batch, heads, q_len, k_len = head.sizes
    out = head.q.new_zeros(batch, heads, q_len, v.shape[3])
    lse = head.q.new_full((batch, heads, q_len), -math.inf)
    weights = head.q.new_zeros(batch, heads, q_len, k_len) if return_weights else None
    for rows in head.chunks():
        for b, h in head.pairs():
            visible, w, row_lse = head.weights(rows, b, h)
            out[b, h, rows.part] = _sum_visible(w, head.v[b, h // head.group], visible)
            lse[b, h, rows.part] = row_lse
            if weights is not None:
                weights[b, h, rows.part] = w
    return out, lse, weights


def gradients(
    q: Tensor, k: Tensor, v: Tensor, grad: Gradients, rule: Rule | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What flows back into q, k, v and rule.additive (None without one), in float64 and in their shapes.

    With dw[i, j] = grad.out[i] . v[j] + grad.weights[i, j]:
    ds[i, j] = w[i, j] * (dw[i, j] - sum_l w[i, l] dw[i, l] + grad.lse[i]);
    dv[j] = sum_i w[i, j] grad.out[i], dq[i] = scale * sum_j ds[i, j] k[j], dk[j] = scale * sum_i ds[i, j] q[i], dadditive = ds.
    Sums run over visible pairs only, so NaN or Inf at a hidden pair, in a hidden row of q or of a gradient has no effect.

    >>> one = torch.ones(1, 1, 1, 2)
    >>> gradients(one, one, one, Gradients(out=one))[2].tolist()
    [[[[1.0, 1.0]]]]
    """
    head = _Heads(q, k, v, rule or Rule())
    given = [None if g is None else g.detach().double() for g in (grad.out, grad.lse, grad.weights)]
    dq, dk, dv = (x.new_zeros(x.shape) for x in (head.q, head.k, head.v))
    added = None if head.additive is None else head.additive.new_zeros(head.additive.shape)
    for rows in head.chunks():
        for b, h in head.pairs():
            g_out, g_lse, g_weights = (None if g is None else g[b, h, rows.part] for g in given)
            visible, w, _ = head.weights(rows, b, h)
            dw = torch.zeros_like(w)
            if g_out is not None:
                dw = g_out @ head.v[b, h // head.group].T
                dv[b, h // head.group] += _sum_visible(w.T, g_out, visible.T)
            if g_weights is not None:
                dw = dw + g_weights
            inside = dw - torch.where(visible, w * dw, 0.0).sum(-1, keepdim=True)
            if g_lse is not None:
                inside = inside + g_lse[:, None]
            ds = torch.where(visible, w * inside, 0.0)
            dq[b, h, rows.part] = head.scale * _sum_visible(ds, head.k[b, h // head.group], visible)
            dk[b, h // head.group] += head.scale * _sum_visible(ds.T, head.q[b, h, rows.part], visible.T)
            if added is not None:
                into = _at(added, b, h, rows)
                into += ds.sum_to_size(into.shape)
    return dq, dk, dv, None if added is None or head.given is None else added.reshape(head.given.shape)


@dataclass(frozen=True)
class _Rows:
    """A chunk of query rows, and what is visible in it, broadcastable to (B, H, rows, Tk)."""

    start: int
    stop: int
    visible: Tensor | None

    @property
    def part(self) -> slice:
        return slice(self.start, self.stop)


class _Heads:
    """The problem in float64, and the weights of one head's rows."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> None:
        self.q, self.k, self.v = (x.detach().double() for x in (q, k, v))
        self.sizes = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        self.group = q.shape[1] // max(k.shape[1], 1)
        # With D = 0 every score is 0 whatever the scale, and 1 / sqrt(0) would turn them into NaN.
        self.scale = 1.0 / math.sqrt(max(q.shape[3], 1)) if rule.scale is None else rule.scale
        self.given = rule.additive
        self.visible = rule.visible
        self.additive = None if rule.additive is None else _four(rule.additive.detach().double())

    def chunks(self) -> Iterator[_Rows]:
        """The rows, a few at a time."""
        step = max(1, CHUNK_ELEMENTS // max(self.sizes[3], 1))
        for start in range(0, self.sizes[2], step):
            stop = min(start + step, self.sizes[2])
            if isinstance(self.visible, Tensor):
                whole = _four(self.visible)
                yield _Rows(start, stop, whole if whole.shape[2] == 1 else whole[:, :, start:stop])
            else:
                yield _Rows(start, stop, None if self.visible is None else _four(self.visible(start, stop)))

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Every (batch, query head)."""
        return ((b, h) for b in range(self.sizes[0]) for h in range(self.sizes[1]))

    def weights(self, rows: _Rows, b: int, h: int) -> tuple[Tensor, Tensor, Tensor]:
        """What is visible (rows, Tk), the softmax over it (rows, Tk), 0 where hidden, and its log-sum-exp (rows,)."""
        s = self.scale * (self.q[b, h, rows.part] @ self.k[b, h // self.group].T)
        visible = torch.ones_like(s, dtype=torch.bool)
        if rows.visible is not None:
            visible = _at(rows.visible, b, h, None).expand_as(s)
        if self.additive is not None:
            added = _at(self.additive, b, h, rows)
            s, visible = s + added, visible & (added != -math.inf)
        s = torch.where(visible, s, -math.inf)
        if s.shape[1] == 0:
            return visible, s, s.new_full((s.shape[0],), -math.inf)
        top = s.amax(-1, keepdim=True)
        top = torch.where(top == -math.inf, 0.0, top)
        e = torch.exp(s - top)
        total = e.sum(-1, keepdim=True)
        return visible, e / torch.where(total == 0.0, 1.0, total), (top + total.log())[:, 0]


def _sum_visible(w: Tensor, x: Tensor, visible: Tensor) -> Tensor:
    """sum_j w[i, j] x[j] over the visible j only: a product of matrices alone would let NaN and Inf in through 0 * NaN."""
    finite = x.isfinite()
    sums = w @ torch.where(finite, x, 0.0)
    rows = (visible & ~finite.all(-1)).any(-1)  # those that see a number which is not finite
    if bool(rows.any()):
        w, visible = w[rows], visible[rows]
        sums[rows] = torch.stack([torch.where(visible, w * x[:, d], 0.0).sum(-1) for d in range(x.shape[1])], -1)
    return sums


def _four(x: Tensor) -> Tensor:
    """The tensor with leading dimensions of size 1, up to four dimensions."""
    return x.reshape((1,) * (4 - x.dim()) + tuple(x.shape))


def _at(x: Tensor, b: int, h: int, rows: _Rows | None) -> Tensor:
    """The part of a broadcastable (B, H, Tq, Tk) tensor that belongs to one head and (unless None) a chunk of rows: a 2-d view."""
    head = x[b if x.shape[0] > 1 else 0, h if x.shape[1] > 1 else 0]
    return head if rows is None or x.shape[2] == 1 else head[rows.part]
