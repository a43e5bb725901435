"""Masks that may say anything: PerHead, Dense tensors, and the Spans read from one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmha import checks
from mmha.masks import held
from mmha.masks.arrays import owners
from mmha.masks.base import Mask
from mmha.masks.grid import Coordinates, Grid
from mmha.masks.lowering import from_blocks
from mmha.masks.rows import Rows


class PerHead(Mask):
    """Every head has a mask of its own: the h-th mask holds for head h.

    masks: one mask per head. Raises ValueError when their number is not H.

    >>> from mmha.masks import Causal, Full, PerHead
    >>> PerHead([Causal(), Full()]).plan(1, 2, 4, 4).visible  # 10 + 16
    26
    """

    masks: tuple[Mask, ...]

    def __init__(self, masks: Sequence[Mask]) -> None:
        if not isinstance(masks, (list, tuple)) or not all(isinstance(mask, Mask) for mask in masks):
            raise checks.type_error("masks", "a list of masks, one per head", masks)
        if not masks:
            raise checks.value_error("masks", "one mask per head", "none")
        self._set(masks=tuple(masks), _shared=any(mask._shared for mask in masks))

    def _args(self) -> tuple[Any, ...]:
        return (self.masks,)

    def _fit(self, grid: Grid) -> None:
        if len(self.masks) != grid.all_heads:
            raise checks.value_error("masks", f"one mask for each of the {grid.all_heads} heads", str(len(self.masks)))
        for head, mask in enumerate(self.masks):
            mask._fit(grid.head(head))

    def _irregular(self) -> bool:
        return any(mask._irregular() for mask in self.masks)

    def _holds(self, at: Coordinates) -> Tensor:
        shape = (at.grid.batch, 1, at.i.shape[2], at.j.shape[3])
        heads = range(at.grid.first_head, at.grid.first_head + at.grid.heads)
        seen = [self.masks[h]._holds(at.head(h - at.grid.first_head)).expand(shape) for h in heads]
        return torch.cat(seen, dim=1)

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        one = within.head if within is not None else None
        rows = [
            self.masks[grid.first_head + h]._lower(grid.head(h), one(h) if one else None) for h in range(grid.heads)
        ]
        return Rows.stack(rows, axis=1)


class Dense(Mask):
    """Any mask, given as a tensor: visible where the tensor is True. Lowered to spans or bits.

    tensor: bool, up to 4 dimensions, broadcastable to (B, H, Tq, Tk); True = visible. It is copied: `as_mask(tensor)`
    holds it without a copy. Raises TypeError unless bool, ValueError when the shape does not fit.

    >>> import torch
    >>> from mmha.masks import Dense
    >>> print(Dense(torch.tensor([[True, False], [False, True]])).show(2))
    0 ██·
    1 · ██
    """

    tensor: Tensor

    def __init__(self, tensor: Tensor | Sequence[Any]) -> None:
        made = held.bools("tensor", tensor, "a bool tensor broadcastable to (B, H, Tq, Tk)")
        if made.dim() > 4:
            got = f"shape {checks.shape_text(made.shape)}"
            raise checks.value_error("tensor", "a bool tensor broadcastable to (B, H, Tq, Tk)", got)
        self._set(tensor=made, _shared=isinstance(tensor, held.Shared))

    def _args(self) -> tuple[Any, ...]:
        return (self.tensor,)

    def _irregular(self) -> bool:
        return True

    def _fit(self, grid: Grid) -> None:
        sizes = (grid.batch, grid.all_heads, grid.q_len, grid.k_len)
        _check_broadcast("tensor", tuple(self.tensor.shape), sizes)

    def _four(self, grid: Grid) -> Tensor:
        four = self.tensor.reshape((1,) * (4 - self.tensor.dim()) + tuple(self.tensor.shape))
        return four[:, grid.heads_of(four.shape[1])]

    def _holds(self, at: Coordinates) -> Tensor:
        four = self._four(at.grid)
        rows = four if four.shape[2] == 1 else four[:, :, at.i.flatten()]
        return rows if rows.shape[3] == 1 else rows[..., at.j.flatten()]

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        four = held.numpy(self._four(grid))
        b, h, t, _ = four.shape
        wide = np.broadcast_to(four, (b, h, t, grid.k_len))
        return from_blocks((b, h, t), grid.k_len, lambda at: wide[at.batch, at.heads, at.rows, at.keys], within)


def _check_broadcast(argument: str, shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    fits = all(have in (1, size) for have, size in zip(reversed(shape), reversed(sizes), strict=False))
    if not fits:
        expected = f"a shape that broadcasts to (B, H, Tq, Tk) = {checks.shape_text(sizes)}"
        raise checks.value_error(argument, expected, checks.shape_text(shape))


class Spans(Mask):
    """A mask written out as spans of visible keys, for one set of sizes; what `from_dense` makes.

    shape: (B or 1, H or 1, Tq, Tk). offsets: integers (R + 1,), R = B H Tq rows in that order; spans: integers (n, 2):
    row r sees the keys of the runs [start, stop) in spans[offsets[r] : offsets[r + 1]], sorted, apart, not empty.
    Raises ValueError when they are not, or when the shape does not fit.

    >>> from mmha.masks import Spans
    >>> print(Spans([1, 1, 2, 4], [0, 1, 3], [[1, 3], [0, 1], [3, 4]]).show(2, 4))
    0 · ████·
    1 ██· · ██
    """

    shape: tuple[int, ...]
    offsets: Tensor
    spans: Tensor

    def __init__(self, shape: Sequence[int], offsets: Tensor | Sequence[int], spans: Tensor | Sequence[Any]) -> None:
        if not isinstance(shape, (list, tuple)) or len(shape) != 4:
            raise checks.type_error("shape", "four integers (B or 1, H or 1, Tq, Tk)", shape)
        sizes = tuple([checks.integer("shape", size, 0) for size in shape])
        starts = held.integers("offsets", offsets, "integers of shape (R + 1,)")
        runs = held.integers("spans", spans, "integers of shape (n, 2)")
        self._set(shape=sizes, offsets=starts, spans=runs if runs.numel() else runs.reshape(0, 2))
        self._set(_shared=isinstance(offsets, held.Shared) or isinstance(spans, held.Shared))
        if not (self._shared or torch.compiler.is_compiling()):
            self._check()

    def _args(self) -> tuple[Any, ...]:
        return (self.shape, self.offsets, self.spans)

    def _check(self) -> None:
        b, h, t, k_len = self.shape
        checks.shape_is("offsets", self.offsets, (b * h * t + 1,), "(R + 1,)")
        checks.shape_is("spans", self.spans, (len(self.spans), 2), "(n, 2)")
        steps = self.offsets.diff()
        if int(self.offsets[0]) != 0 or int(self.offsets[-1]) != len(self.spans) or bool((steps < 0).any()):
            raise checks.value_error(
                "offsets", f"a rise from 0 to the number of spans, {len(self.spans)}", held.text(self.offsets, None)
            )
        row = torch.from_numpy(owners(held.numpy(steps)))
        start, stop = self.spans[:, 0], self.spans[:, 1]
        apart = (row[1:] != row[:-1]) | (stop[:-1] < start[1:])
        if not bool(((start >= 0) & (start < stop) & (stop <= k_len)).all() & apart.all()):
            raise checks.value_error(
                "spans", f"runs within {k_len} keys, sorted and apart in each row", held.text(self.spans, None)
            )

    def _fit(self, grid: Grid) -> None:
        self._check()
        _check_broadcast("shape", self.shape, (grid.batch, grid.all_heads, grid.q_len, grid.k_len))
        if self.shape[2:] != (grid.q_len, grid.k_len):
            expected = f"(Tq, Tk) = ({grid.q_len}, {grid.k_len})"
            raise checks.value_error("shape", expected, checks.shape_text(self.shape[2:]))

    def _holds(self, at: Coordinates) -> Tensor:
        b, h, t, k_len = self.shape
        change = self.spans.new_zeros((b * h * t, k_len + 1))
        row = torch.from_numpy(owners(held.numpy(self.offsets.diff())))
        change[row, self.spans[:, 0]] += 1
        change[row, self.spans[:, 1]] -= 1
        seen = change.cumsum(dim=1)[:, :k_len].reshape(b, h, t, k_len) > 0
        return seen[:, at.grid.heads_of(h), at.i.flatten()][..., at.j.flatten()]

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        b, h, t, _ = self.shape
        spans = held.numpy(self.spans).astype(np.int32)
        rows = Rows((b, h, t), grid.k_len, spans, held.numpy(self.offsets).astype(np.int64)).compact()
        return rows if h == 1 or grid.heads == h else rows.head(grid.first_head)


def from_dense(dense: Tensor) -> Spans:
    """The same mask as spans: O(rows + spans) memory in place of a byte per pair.

    dense: bool (B, H, Tq, Tk), or fewer dimensions (the missing ones broadcast); True = visible.
    Raises TypeError unless bool, ValueError below 2 dimensions.

    >>> import torch
    >>> from mmha.masks import from_dense
    >>> from_dense(torch.ones(2, 3, dtype=torch.bool).tril())
    Spans([1, 1, 2, 3], [0, 1, 2], [[0, 1], [0, 2]])
    """
    checks.dtype_in("dense", dense, ["bool"])
    if not 2 <= dense.dim() <= 4:
        raise checks.value_error("dense", "2 to 4 dimensions", f"shape {checks.shape_text(dense.shape)}")
    b, h, t, k_len = shape = (1,) * (4 - dense.dim()) + tuple(dense.shape)
    seen = held.numpy(dense.detach().cpu().reshape(shape))
    rows = from_blocks((b, h, t), k_len, lambda at: seen[at.batch, at.heads, at.rows, at.keys], None)
    offsets, spans = rows.general()
    return Spans(shape, torch.from_numpy(offsets), torch.from_numpy(spans))


def as_mask(x: Mask | Tensor) -> Mask:
    """A Mask as it is; a bool tensor broadcastable to (B, H, Tq, Tk) as the mask that is visible where it is True.

    The tensor is held without a copy, so it may be large; changing it afterwards changes the mask.
    Raises TypeError for anything else.

    >>> import torch
    >>> from mmha.masks import as_mask
    >>> as_mask(torch.tensor([[True, False]]))
    Dense([[True, False]])
    """
    if isinstance(x, Mask):
        return x
    if not isinstance(x, Tensor) or x.dtype != torch.bool:
        raise checks.type_error("mask", "a Mask or a bool tensor", x)
    return Dense(held.Shared(x.detach().cpu()))  # type: ignore[arg-type]
