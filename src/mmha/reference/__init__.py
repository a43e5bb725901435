"""Attention straight from the formula, in float64: what the kernels are judged by, and the slow path behind them.

For row i at position p = q_start + i and the keys j visible to it:

    x[i, j] = scale * q[i] . k[j],  or softcap * tanh(scale * q[i] . k[j] / softcap)
    s[i, j] = x[i, j] + table[R + clip(j - p, -R, R)] - slope * |p - j| + sum of additive[i, j]
    lse[i]  = log(sum_j exp(s[i, j]) + exp(sink))       w[i, j] = exp(s[i, j] - lse[i])
    out[i]  = sum_j drop(w[i, j]) v[j]                  drop(w) = 0 or w / (1 - p), see `Dropout`

It borrows nothing from what it judges: no plan, no bias, no kernel, no autograd; the gradients are written out. It
runs over a few rows at a time, so that it too needs no Tq x Tk tensor, and so that a result depends on nothing but its
own head (and, with dropout, on which head of which batch row that is).
"""

from mmha.reference.dropout import Dropout, noise
from mmha.reference.formula import attention, gradients
from mmha.reference.rule import Derivatives, Gradients, RowsVisible, Rule
from mmha.reference.step import Output, Rotation, Step, masked_multihead_attention, rotate, stored_as

__all__ = [
    "Derivatives",
    "Dropout",
    "Gradients",
    "Output",
    "Rotation",
    "RowsVisible",
    "Rule",
    "Step",
    "attention",
    "gradients",
    "masked_multihead_attention",
    "noise",
    "rotate",
    "stored_as",
]
