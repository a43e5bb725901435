"""The two functions of the reference: forward, and the gradients written out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmha.reference.blocks import Block, Problem, aligned, product, sum_visible, tree_sum
from mmha.reference.rule import Derivatives, Gradients, Rule
from mmha.reference.scores import Scores, Softmax


def attention(
    q: Tensor, k: Tensor, v: Tensor, rule: Rule | None = None, *, return_weights: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Masked attention in float64, row chunk by row chunk; the formula is that of `mmha.reference`.

    q (B, H, Tq, D), k (B, Hk, Tk, D), v (B, Hk, Tk, Dv), any floating dtype, H a multiple of Hk; query head h reads
    key head h // (H / Hk). Returns out (B, H, Tq, Dv), lse (B, H, Tq) as a natural logarithm, and the weights before
    dropout (B, H, Tq, Tk) or None, all float64 and without a graph. A row that sees nothing gives out 0, weights 0 and
    lse -inf, with sinks too. NaN or Inf at a hidden pair has no effect.

    Source: Vaswani et al. 2017, equation 1.

    >>> one = torch.ones(1, 1, 1, 2)
    >>> out, lse, _ = attention(one, one, one, Rule(scale=0.5))
    >>> out.tolist(), lse.item()
    ([[[[1.0, 1.0]]]], 1.0)
    """
    rule = rule or Rule()
    problem = Problem(q, k, v, rule.visible)
    scores = Scores(problem, rule)
    batch, heads, q_len, k_len = problem.sizes
    out = problem.q.new_zeros(batch, heads, q_len, v.shape[3])
    lse = problem.q.new_full((batch, heads, q_len), -math.inf)
    weights = problem.q.new_zeros(batch, heads, q_len, k_len) if return_weights else None
    for block in problem.blocks():
        made, keep = scores.softmax(block), scores.kept(block)
        dropped = scores.drop(made.weights, keep)
        sums = sum_visible(dropped, problem.v[block.kv], made.visible)
        out[block.at] = problem.unfold(sums)[..., : v.shape[3]]
        lse[block.at] = problem.unfold(made.lse)[..., 0]
        if weights is not None:
            weights[block.at] = problem.unfold_pairs(made.weights)
    return out, lse, weights


def gradients(q: Tensor, k: Tensor, v: Tensor, grad: Gradients, rule: Rule | None = None) -> Derivatives:
    """What flows back into q, k, v and all that the rule holds, in float64 and in their shapes.

    dw[i, j] = drop(grad.out[i] . v[j]) + grad.weights[i, j], drop as in the forward pass;
    delta[i] = sum_j w[i, j] dw[i, j] - grad.lse[i],  g[i, j] = w[i, j] (dw[i, j] - delta[i]), the gradient of s, and
    ds[i, j] = g[i, j] * (1 - tanh(scale * q[i] . k[j] / softcap)**2), or g[i, j] without a cap;
    dv[j] = sum_i drop(w[i, j]) grad.out[i],  dq[i] = scale * sum_j ds[i, j] k[j],  dk[j] = scale * sum_i ds[i, j] q[i],
    dadditive = g,  dslope = -sum g[i, j] |p - j|,  dtable[r] = sum of g[i, j] over the pairs that read entry r,
    dsink = -sum_i exp(sink - lse[i]) delta[i] over the rows that see something.
    Sums run over visible pairs only, so NaN or Inf at a hidden pair, in a hidden row of q or of a gradient has no
    effect.

    >>> one = torch.ones(1, 1, 1, 2)
    >>> gradients(one, one, one, Gradients(out=one)).v.tolist()
    [[[[1.0, 1.0]]]]
    """
    rule = rule or Rule()
    backward = _Backward(Problem(q, k, v, rule.visible), rule, grad)
    for block in backward.problem.blocks():
        backward.take(block)
    scores = backward.scores
    added = tuple(term.grad for term in scores.additives)
    inputs = zip(backward.sums, (q, k, v), strict=True)
    dq, dk, dv = (dx[:, :, : x.shape[2], : x.shape[3]].contiguous() for dx, x in inputs)
    return Derivatives(
        dq,
        dk,
        dv,
        None if rule.additive is None else added[0] if isinstance(rule.additive, Tensor) else added,
        None if scores.slopes is None else scores.slopes.grad,
        None if scores.table is None else scores.table.grad,
        backward.dsinks,
    )


class _Backward:
    """The gradients of a problem, gathered block by block."""

    def __init__(self, problem: Problem, rule: Rule, grad: Gradients) -> None:
        self.problem, self.scores = problem, Scores(problem, rule)
        self.out, self.weights = (None if g is None else aligned(g) for g in (grad.out, grad.weights))
        self.lse = None if grad.lse is None else grad.lse.detach().double()[..., None]
        self.sums = tuple(torch.zeros_like(x) for x in (problem.q, problem.k, problem.v))
        self.dsinks = None if self.scores.sinks is None else torch.zeros_like(self.scores.sinks)

    def take(self, block: Block) -> None:
        """Add what flows back through one block."""
        problem, scores, (dq, dk, dv) = self.problem, self.scores, self.sums
        made, keep = scores.softmax(block), scores.kept(block)
        if self.out is not None:
            g_out, dropped = problem.fold(self.out[block.at]), scores.drop(made.weights, keep)
            dv[block.kv] += sum_visible(dropped.mT, g_out, made.visible.mT)
        g, delta = self._of_scores(block, made, keep)
        for term in scores.terms:
            term.collect(block, problem.unfold_pairs(g))
        if self.dsinks is not None and made.share is not None:
            pull = torch.where(made.visible.any(-1, keepdim=True), made.share * delta, 0.0)
            self.dsinks[block.heads] -= tree_sum(problem.unfold(pull), 1)[:, 0, 0]
        ds = g if made.steep is None else torch.where(made.visible, g * made.steep, 0.0)
        dq[block.at] = scores.scale * problem.unfold(sum_visible(ds, problem.k[block.kv], made.visible))
        dk[block.kv] += scores.scale * sum_visible(ds.mT, problem.fold(problem.q[block.at]), made.visible.mT)

    def _of_scores(self, block: Block, made: Softmax, keep: Tensor | None) -> tuple[Tensor, Tensor]:
        """g and delta, folded."""
        fold, dw = self.problem.fold, torch.zeros_like(made.weights)
        if self.out is not None:
            dw = self.scores.drop(product(fold(self.out[block.at]), self.problem.v[block.kv].mT), keep)
        if self.weights is not None:
            dw = dw + fold(self.weights[block.at])
        delta = tree_sum(torch.where(made.visible, made.weights * dw, 0.0), 2)
        if self.lse is not None:
            delta = delta - fold(self.lse[block.at])
        return torch.where(made.visible, made.weights * (dw - delta), 0.0), delta
