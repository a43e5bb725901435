"""Masks that follow from positions alone: Full, Causal, StrictCausal, Window, Dilated, Chunked, Prefix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmha import checks
from mmha.masks import held
from mmha.masks.base import Mask
from mmha.masks.grid import Coordinates, Grid, reach
from mmha.masks.rows import Rows


class Full(Mask):
    """Every query sees every key.

    >>> from mmha.masks import Full
    >>> print(Full().show(2, 3))
    0 ██████
    1 ██████
    """

    def _args(self) -> tuple[Any, ...]:
        return ()

    def _holds(self, at: Coordinates) -> Tensor:
        return at.j >= 0

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        return Rows.interval(grid.k_len, 0, grid.k_len)


class Causal(Mask):
    """A query sees itself and what came before: j <= p. At p < 0 (more queries than keys) nothing is visible.

    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.3.

    >>> from mmha.masks import Causal
    >>> print(Causal().show(2, 3))  # bottom-right aligned: q_start = 3 - 2
    0 ████·
    1 ██████
    """

    def _args(self) -> tuple[Any, ...]:
        return ()

    def _holds(self, at: Coordinates) -> Tensor:
        return at.j <= at.p

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        return Rows.interval(grid.k_len, 0, grid.positions() + 1)


class StrictCausal(Mask):
    """A query sees what came before but not itself: j < p. The first row is fully hidden and gives output 0.

    >>> from mmha.masks import StrictCausal
    >>> print(StrictCausal().show(3))
    0 · · ·
    1 ██· ·
    2 ████·
    """

    def _args(self) -> tuple[Any, ...]:
        return ()

    def _holds(self, at: Coordinates) -> Tensor:
        return at.j < at.p

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        return Rows.interval(grid.k_len, 0, grid.positions())


class Window(Mask):
    """A query sees the keys near it: p - left <= j <= p + right; None is unbounded on that side.

    `left` and `right` count keys beside the query's own, so Window(255) shows 256. Raises ValueError below 0 (the -1
    of other libraries is None here) and TypeError when not integers.
    Source: Beltagy et al. 2020, "Longformer", section 3.1.

    >>> from mmha.masks import Window
    >>> print(Window(1, 2).show(4, 4))
    0 ██████·
    1 ████████
    2 · ██████
    3 · · ████
    """

    left: int | None
    right: int | None

    def __init__(self, left: int | None, right: int | None = 0) -> None:
        self._set(left=_side("left", left), right=_side("right", right))

    def _args(self) -> tuple[Any, ...]:
        return (self.left,) if self.right == 0 else (self.left, self.right)

    def _holds(self, at: Coordinates) -> Tensor:
        seen = at.j >= 0
        if self.left is not None:
            seen = seen & (at.j >= at.p - self.left)
        if self.right is not None:
            seen = seen & (at.j <= at.p + self.right)
        return seen

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        p = grid.positions()
        start = 0 if self.left is None else p - self.left
        return Rows.interval(grid.k_len, start, grid.k_len if self.right is None else p + (self.right + 1))


def _side(argument: str, value: Any) -> int | None:
    if value is None:
        return None
    expected = "an integer >= 0, or None for no bound"
    try:
        number = checks.integer(argument, value)
    except TypeError:
        raise checks.type_error(argument, expected, value) from None
    if number < 0:
        raise checks.value_error(argument, expected, str(number))
    return reach(argument, number, 0)


class Dilated(Mask):
    """A query sees every step-th key, counted from its own place: (p - j) % step == 0.

    Raises ValueError unless step >= 1. Source: Child et al. 2019, "Generating Long Sequences with Sparse Transformers".

    >>> from mmha.masks import Causal, Dilated
    >>> print((Causal() & Dilated(2)).show(4))
    0 ██· · ·
    1 · ██· ·
    2 ██· ██·
    3 · ██· ██
    """

    step: int

    def __init__(self, step: int) -> None:
        self._set(step=reach("step", step, 1))

    def _args(self) -> tuple[Any, ...]:
        return (self.step,)

    def _irregular(self) -> bool:
        return True

    def _holds(self, at: Coordinates) -> Tensor:
        return (at.p - at.j) % self.step == 0

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        if self.step == 1:
            return Rows.interval(grid.k_len, 0, grid.k_len)
        p = grid.positions()
        if within is not None and (bound := within.hull().single) is not None:
            start, stop = bound[..., 0].astype(np.int64), bound[..., 1]
            first = start + (p - start) % self.step
            keys = np.maximum(stop - first + self.step - 1, 0) // self.step
            if int(keys.sum()) <= keys.size * -(-grid.k_len // 64):  # else bits are smaller than spans of one key
                return Rows.singles(grid.k_len, first, stop, self.step)
        starts = np.arange(min(self.step, grid.k_len + 1)).reshape(1, 1, -1)  # rows of the same residue are alike
        alike = Rows.singles(grid.k_len, starts, grid.k_len, self.step)
        residue = np.minimum(p % self.step, grid.k_len)  # residue k_len: no key has it
        return alike.take(residue.reshape(-1), (len(residue), 1, grid.q_len))


class Chunked(Mask):
    """A query sees the keys of its own chunk of `size` positions: p // size == j // size, with floor division.

    Chunks are counted from position 0; a query at p < 0 lies in a chunk without keys.
    Raises ValueError unless size >= 1.

    >>> from mmha.masks import Chunked
    >>> print(Chunked(2).show(4))
    0 ████· ·
    1 ████· ·
    2 · · ████
    3 · · ████
    """

    size: int

    def __init__(self, size: int) -> None:
        self._set(size=reach("size", size, 1))

    def _args(self) -> tuple[Any, ...]:
        return (self.size,)

    def _holds(self, at: Coordinates) -> Tensor:
        return torch.div(at.p, self.size, rounding_mode="floor") == torch.div(at.j, self.size, rounding_mode="floor")

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        start = grid.positions() // self.size * self.size
        return Rows.interval(grid.k_len, start, start + self.size)


class Prefix(Mask):
    """Every query sees the first keys: j < length. Prefix-LM is `Causal() | Prefix(n)`.

    length: an int, or int64 (B,) with one length per row of the batch; a length beyond the keys is no error.
    Raises ValueError below 0 or when the shape does not fit the batch. Source: Raffel et al. 2020, "T5", figure 4.

    >>> from mmha.masks import Causal, Prefix
    >>> print((Causal() | Prefix(2)).show(3))
    0 ████·
    1 ████·
    2 ██████
    """

    length: int | Tensor

    def __init__(self, length: int | Tensor | list[int]) -> None:
        self._set(length=held.lengths("length", length), _shared=isinstance(length, held.Shared))

    def _args(self) -> tuple[Any, ...]:
        return (self.length,)

    def _fit(self, grid: Grid) -> None:
        held.fit_lengths("length", self.length, grid.batch)

    def _holds(self, at: Coordinates) -> Tensor:
        return at.j < (self.length if isinstance(self.length, int) else self.length[at.b])

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        return Rows.interval(grid.k_len, 0, held.per_row(self.length))
