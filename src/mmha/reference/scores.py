"""From q and k to weights: the terms of a score one by one, each with its gradient, and the softmax over them."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mmha.reference.blocks import Block, Problem, four, part, product, tree_sum
from mmha.reference.rule import Rule


class Term(Protocol):
    """Something added to the scores that gathers its own gradient in `grad`, block by block."""

    grad: Tensor

    def at(self, block: Block) -> Tensor:
        """What is added in a block, broadcastable to (heads, rows, Tk)."""

    def collect(self, block: Block, g: Tensor) -> None:
        """Take in the gradient of a block's scores, (heads, rows, Tk), 0 at hidden pairs."""


class Added:
    """An additive tensor: a[b, h, i, j]."""

    def __init__(self, given: Tensor) -> None:
        self.given = four(given.detach())
        self.grad = given.new_zeros(given.shape, dtype=torch.float64, requires_grad=False)

    def at(self, block: Block) -> Tensor:
        return part(self.given, block).double()

    def collect(self, block: Block, g: Tensor) -> None:
        into = part(four(self.grad), block)
        for dim in (2, 1, 0):
            g = tree_sum(g, dim) if into.shape[dim] == 1 else g
        into += g


class ByDistance:
    """A term that depends on the head and on the distance j - p alone."""

    def __init__(self, given: Tensor, q_start: Tensor | None, q_len: int, k_len: int) -> None:
        self.given = given.detach().double()
        self.grad = torch.zeros_like(self.given)
        self.keys = torch.arange(k_len, device=given.device)
        self.starts = [k_len - q_len] if q_start is None else q_start.reshape(-1).tolist()

    def distance(self, block: Block) -> Tensor:
        """j - p in a block: int64 (rows, Tk)."""
        start = self.starts[block.b if len(self.starts) > 1 else 0]
        rows = torch.arange(block.rows.start, block.rows.stop, device=self.keys.device)
        return self.keys - (start + rows)[:, None]


class Slopes(ByDistance):
    """ALiBi: -slope[h] * |p - j|."""

    def at(self, block: Block) -> Tensor:
        return -self.given[block.heads, None, None] * self.distance(block).abs()

    def collect(self, block: Block, g: Tensor) -> None:
        self.grad[block.heads] -= tree_sum(tree_sum(g * self.distance(block).abs(), 2), 1)[:, 0, 0]


class Table(ByDistance):
    """A bias by distance: table[h, R + clip(j - p, -R, R)]."""

    def at(self, block: Block) -> Tensor:
        return self.given[block.heads][:, self._entry(block)]

    def collect(self, block: Block, g: Tensor) -> None:
        entry, entries = self._entry(block).flatten(), self.given.shape[1]
        for h, g_h in zip(range(block.heads.start, block.heads.stop), g, strict=True):
            self.grad[h] += torch.bincount(entry, g_h.flatten(), entries)  # one number after the other, on one thread

    def _entry(self, block: Block) -> Tensor:
        radius = self.given.shape[1] // 2
        return radius + self.distance(block).clamp(-radius, radius)


class Softmax(NamedTuple):
    """What the scores of a block come to. Shapes (key heads, folded rows, padded keys), or 1 in the last place.

    share is the weight of the sink, and steep the derivative of the capped score; None without a sink, a cap.
    """

    visible: Tensor
    weights: Tensor
    lse: Tensor
    share: Tensor | None
    steep: Tensor | None


class Scores:
    """A rule at work on a problem."""

    def __init__(self, problem: Problem, rule: Rule) -> None:
        self.problem, self.rule = problem, rule
        lengths = problem.sizes[2:]
        given = (rule.additive,) if isinstance(rule.additive, Tensor) else rule.additive or ()
        self.additives = tuple(Added(x) for x in given)
        self.slopes = None if rule.slopes is None else Slopes(rule.slopes, rule.q_start, *lengths)
        self.table = None if rule.table is None else Table(rule.table, rule.q_start, *lengths)
        by_distance: tuple[Term | None, ...] = (self.table, self.slopes)
        self.terms: tuple[Term, ...] = (*(term for term in by_distance if term is not None), *self.additives)
        self.sinks = None if rule.sinks is None else rule.sinks.detach().double()
        self.scale = 1.0 / math.sqrt(problem.dim) if rule.scale is None else rule.scale

    def softmax(self, block: Block) -> Softmax:
        """The weights of a block, before dropout."""
        x = self.scale * product(self.problem.fold(self.problem.q[block.at]), self.problem.k[block.kv].mT)
        cap, steep = self.rule.softcap, None
        if cap is not None:
            x, steep = cap * torch.tanh(x / cap), _slope_of_tanh(x / cap)
        visible, added = self._surroundings(block)
        s = torch.where(visible, x if added is None else x + added, -math.inf)
        sink = self._sink(block, visible)
        top = s.amax(-1, keepdim=True)
        top = top if sink is None else torch.maximum(top, sink)
        top = torch.where(top == -math.inf, 0.0, top)
        e = torch.exp(s - top)
        of_sink = None if sink is None else torch.exp(sink - top)
        total = tree_sum(e, 2)
        total = total if of_sink is None else total + of_sink
        whole = torch.where(total == 0.0, 1.0, total)
        weights = torch.where(visible, e / whole, 0.0)  # a NaN in the total stays with the visible
        return Softmax(visible, weights, top + total.log(), None if of_sink is None else of_sink / whole, steep)

    def kept(self, block: Block) -> Tensor | None:
        """Which weights dropout leaves, folded; None without dropout."""
        if self.rule.dropout is None:
            return None
        keep = self.rule.dropout.keep(block.b, block.heads, block.rows, self.problem.sizes[3])
        return self.problem.fold_pairs(keep, block)

    def drop(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """drop(w), and with the same pattern what flows back through it."""
        if keep is None or self.rule.dropout is None:
            return x
        return torch.where(keep, self.rule.dropout.factor * x, 0.0)

    def _surroundings(self, block: Block) -> tuple[Tensor, Tensor | None]:
        """Which pairs of a block are visible, and what is added to their scores."""
        visible = self.problem.q.new_ones((), dtype=torch.bool)
        if block.visible is not None:
            visible = part(block.visible, block, rows=False)
        added: Tensor | None = None
        for term in self.terms:
            more = term.at(block)
            added = more if added is None else added + more
            if isinstance(term, Added):
                visible = visible & (more != -math.inf)
        fold = self.problem.fold_pairs  # which hides the keys that only align
        return fold(visible, block), None if added is None else fold(added, block)

    def _sink(self, block: Block, visible: Tensor) -> Tensor | None:
        """The sink's score of every row, -inf where nothing is visible: such a row's lse stays -inf."""
        if self.sinks is None:
            return None
        rows = block.rows.stop - block.rows.start
        sink = self.problem.fold(self.sinks[block.heads, None, None].expand(-1, rows, 1))
        return torch.where(visible.any(-1, keepdim=True), sink, -math.inf)


def _slope_of_tanh(x: Tensor) -> Tensor:
    """1 - tanh(x)**2 without cancellation (torch's cosh would depend on the number of threads)."""
    u = torch.exp(-2.0 * x.abs())
    return 4.0 * u / (1.0 + u) ** 2
