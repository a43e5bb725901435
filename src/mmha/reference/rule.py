"""What the reference is asked and what it answers: plain values, trusted as they come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from mmha.reference.dropout import Dropout

RowsVisible = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class Rule:
    """Everything that makes the weights beside q and k; None = there is no such thing.

    visible: bool, broadcastable to (B, H, Tq, Tk), True = visible; or a function (start, stop) that returns the same
    for rows start..stop, broadcastable to (B, H, stop - start, Tk); None = all.
    additive: one tensor or several, each broadcastable to (B, H, Tq, Tk); -inf hides the pair.
    scale: a number; None = 1 / sqrt(D).
    softcap: a number > 0 that bounds the scores before anything is added to them (Gemma 2).
    sinks: (H,), a score that every row which sees something also has, without a value (GPT-OSS).
    slopes: (H,), subtracted once per step of distance (ALiBi).
    table: (H, 2R + 1), added by distance, the end values beyond R (Shaw et al. 2018, Raffel et al. 2020).
    q_start: int64, () or (B,), the position of the first row, for slopes and table; None = Tk - Tq.
    dropout: which weights are dropped; lse and the returned weights are those before it.
    """

    visible: Tensor | RowsVisible | None = None
    additive: Tensor | tuple[Tensor, ...] | None = None
    scale: float | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    slopes: Tensor | None = None
    table: Tensor | None = None
    q_start: Tensor | None = None
    dropout: Dropout | None = None


@dataclass(frozen=True)
class Gradients:
    """What flows back into each result; None = nothing. Shapes (B, H, Tq, Dv), (B, H, Tq) and (B, H, Tq, Tk)."""

    out: Tensor | None = None
    lse: Tensor | None = None
    weights: Tensor | None = None


class Derivatives(NamedTuple):
    """What flows back into each input, float64 and in its shape; None where the rule has no such thing.

    `additive` is a tuple where the rule holds a tuple, and a tensor where it holds one tensor.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    additive: Tensor | tuple[Tensor, ...] | None
    slopes: Tensor | None
    table: Tensor | None
    sinks: Tensor | None
