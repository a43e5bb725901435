"""Contests beyond masks: dropout, biases, softcap and sinks, against what a user of torch would write instead."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

import mmha
from mmha.bench.cases import Case
from mmha.bench.contest import Contest, Results, Side, added, tensors, visible
from mmha.bench.patterns import seeded
from mmha.bias import ALiBi, Relative
from mmha.masks import Causal

DROPOUT, RADIUS = 0.1, 128
SOFTCAP = 2.0  # bends unit-normal scores well enough that the comparison would see it missing


def dropout(case: Case) -> Contest:
    """A tenth of the weights dropped, against torch's own dropout_p; `still` is the same with none dropped."""
    q, k, v, grad = tensors(case)

    def contest(p: float) -> Contest:
        return Contest(
            ours=Side(lambda q, k, v: mmha.attention(q, k, v, dropout_p=p), (q, k, v), grad),
            theirs=Side(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=p), (q, k, v), grad),
            pairs=case.sizes.pairs,
        )

    return replace(contest(DROPOUT), still=contest(0.0))


def alibi(case: Case) -> Contest:
    """Causal with ALiBi, against torch with both in one dense tensor (1, H, Tq, Tk), built outside the clock."""
    q, k, v, grad = tensors(case)
    size, mask, bias = case.sizes, Causal(), ALiBi.standard(case.sizes.heads)
    dense = bias.dense(1, size.heads, size.q_len, size.k_len) + added(mask, size, q.dtype)
    return Contest(
        ours=Side(lambda q, k, v: mmha.attention(q, k, v, mask, bias=bias), (q, k, v), grad),
        theirs=Side(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=dense), (q, k, v), grad),
        pairs=visible(mask, size),
    )


def relative(case: Case) -> Contest:
    """A learned table of distances, against torch with a dense bias that needs a gradient.

    In torch's favour: its bias is built from the table, and its gradient folded back into it, outside the clock.
    """
    q, k, v, grad = tensors(case)
    size = case.sizes
    table = torch.randn(size.heads, 2 * RADIUS + 1, generator=seeded(8))
    dense = Relative(table).dense(1, size.heads, size.q_len, size.k_len)

    def view(results: Results) -> Results:
        if len(results) == 1:
            return results
        *others, grad_dense = results
        return *others, fold(grad_dense)

    return Contest(
        ours=Side(lambda q, k, v, table: mmha.attention(q, k, v, bias=Relative(table)), (q, k, v, table), grad),
        theirs=Side(
            lambda q, k, v, dense: F.scaled_dot_product_attention(q, k, v, attn_mask=dense),
            (q, k, v, dense),
            grad,
            view,
        ),
        pairs=size.pairs,
    )


def fold(grad_dense: Tensor) -> Tensor:
    """The gradient of the table (H, 2R + 1) from that of the dense bias (1, H, Tq, Tk)."""
    _, heads, q_len, k_len = grad_dense.shape
    away = torch.arange(k_len) - torch.arange(k_len - q_len, k_len)[:, None]
    place = RADIUS + away.clamp(-RADIUS, RADIUS).flatten()
    made = torch.zeros(heads, 2 * RADIUS + 1, dtype=torch.float64)
    return made.index_add_(1, place, grad_dense[0].flatten(1).double()).to(grad_dense.dtype)


def softcap(case: Case) -> Contest:
    """Causal with scores bent by tanh, against the formula in torch; its own attention has no such argument."""
    q, k, v, grad = tensors(case)
    mask, hidden = Causal(), added(Causal(), case.sizes, q.dtype)

    def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax(SOFTCAP * torch.tanh(scores(q, k) / SOFTCAP) + hidden, dim=-1) @ v

    return Contest(
        ours=Side(lambda q, k, v: mmha.attention(q, k, v, mask, softcap=SOFTCAP), (q, k, v), grad),
        theirs=Side(formula, (q, k, v), grad),
        pairs=visible(mask, case.sizes),
    )


def sinks(case: Case) -> Contest:
    """Causal with a learned logit per head in the denominator, against the formula in torch: one more column."""
    q, k, v, grad = tensors(case)
    mask, hidden = Causal(), added(Causal(), case.sizes, q.dtype)
    logits = torch.randn(case.sizes.heads, generator=seeded(8))

    def formula(q: Tensor, k: Tensor, v: Tensor, logits: Tensor) -> Tensor:
        column = logits[:, None, None].expand(*q.shape[:3], 1)
        return torch.softmax(torch.cat((scores(q, k) + hidden, column), dim=-1), dim=-1)[..., :-1] @ v

    return Contest(
        ours=Side(lambda q, k, v, logits: mmha.attention(q, k, v, mask, sinks=logits), (q, k, v, logits), grad),
        theirs=Side(formula, (q, k, v, logits), grad),
        pairs=visible(mask, case.sizes),
    )


def scores(q: Tensor, k: Tensor) -> Tensor:
    """scale * q k^T, (B, H, Tq, Tk)."""
    return (q / math.sqrt(q.shape[-1])) @ k.mT
