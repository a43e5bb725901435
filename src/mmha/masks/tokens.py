"""Masks that follow from the tokens of a batch: padding on either side, any keys and queries, packed documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmha import _kernels, checks
from mmha.masks import held
from mmha.masks.algebra import take_within
from mmha.masks.arrays import owners
from mmha.masks.base import Mask
from mmha.masks.grid import Coordinates, Grid, Int64s
from mmha.masks.rows import Rows

Lengths = int | Tensor | Sequence[int]


class _PerBatch(Mask):
    """A mask made of one number per row of the batch."""

    lengths: int | Tensor
    _field = "lengths"

    def __init__(self, lengths: Lengths) -> None:
        self._set(lengths=held.lengths(self._field, lengths), _shared=isinstance(lengths, held.Shared))

    def _args(self) -> tuple[Any, ...]:
        return (self.lengths,)

    def _fit(self, grid: Grid) -> None:
        held.fit_lengths(self._field, self.lengths, grid.batch)

    def _at(self, at: Coordinates) -> int | Tensor:
        return self.lengths if isinstance(self.lengths, int) else self.lengths[at.b]


class KeyPadding(_PerBatch):
    """Only the first keys of each row of the batch are real: j < lengths[b]. Padding on the left: `KeyPadding.left`.

    lengths: integers (B,), or one int for all. A length beyond the keys is no error (all are visible: a cache that
    fills up), a length of 0 hides every key and gives output 0. Raises ValueError below 0 or when (B,) does not fit.

    >>> from mmha.masks import KeyPadding
    >>> print(KeyPadding([2, 3]).show(2, 4, batch=2, item=(1, 0)))
    0 ██████·
    1 ██████·
    """

    @staticmethod
    def left(starts: Lengths) -> LeftPadding:
        """The first keys are padding: visible when j >= starts[b]. starts: integers (B,), or one int for all.

        >>> from mmha.masks import KeyPadding
        >>> KeyPadding.left([1, 2])
        KeyPadding.left([1, 2])
        """
        return LeftPadding(starts)

    def _holds(self, at: Coordinates) -> Tensor:
        return at.j < self._at(at)

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        return Rows.interval(grid.k_len, 0, held.per_row(self.lengths))


class LeftPadding(_PerBatch):
    """Keys before a start are padding: j >= starts[b]. Written `KeyPadding.left(starts)`.

    >>> from mmha.masks import KeyPadding
    >>> print(KeyPadding.left(1).show(1, 3))
    0 · ████
    """

    _name = "KeyPadding.left"
    _field = "starts"

    def _holds(self, at: Coordinates) -> Tensor:
        return at.j >= self._at(at)

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        return Rows.interval(grid.k_len, held.per_row(self.lengths), grid.k_len)


class QueryPadding(_PerBatch):
    """Only the first positions of each row of the batch are real queries: p < lengths[b]; other rows are fully hidden.

    lengths: integers (B,), or one int for all. A hidden row gives output 0, gradients 0, lse -inf.
    Raises ValueError below 0 or when (B,) does not fit.

    >>> from mmha.masks import QueryPadding
    >>> print(QueryPadding(1).show(2))
    0 ████
    1 · ·
    """

    def _holds(self, at: Coordinates) -> Tensor:
        return at.p < self._at(at)

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        real = grid.positions() < held.per_row(self.lengths)
        return Rows.interval(grid.k_len, 0, np.where(real, grid.k_len, 0))


class _Flags(Mask):
    """A mask made of bools (B, T) or (T,) about the tokens on one side."""

    real: Tensor

    def __init__(self, real: Tensor | Sequence[Any]) -> None:
        made = held.bools("real", real, "bools of shape (B, T) or (T,), True = real")
        if made.dim() not in (1, 2):
            raise checks.value_error("real", "bools of shape (B, T) or (T,)", f"shape {checks.shape_text(made.shape)}")
        self._set(real=made, _shared=isinstance(real, held.Shared))

    def _args(self) -> tuple[Any, ...]:
        return (self.real,)

    def _check(self, batch: int, length: int, names: str) -> None:
        wanted = (length,) if self.real.dim() == 1 else (batch, length)
        checks.shape_is("real", self.real, wanted, f"({names})" if self.real.dim() == 2 else f"({names[3:]},)")


class Keys(_Flags):
    """Only real keys are visible: real[b, j]. For padding at one end, `KeyPadding` is cheaper.

    real: bool (B, Tk), or (Tk,) for all; True = real. Raises ValueError when the shape does not fit.

    >>> from mmha.masks import Keys
    >>> print(Keys([1, 0, 1]).show(1, 3))
    0 ██· ██
    """

    def _fit(self, grid: Grid) -> None:
        self._check(grid.batch, grid.k_len, "B, Tk")

    def _holds(self, at: Coordinates) -> Tensor:
        return self.real[at.j] if self.real.dim() == 1 else self.real[at.b, at.j]

    def _irregular(self) -> bool:
        return True  # one long row for all queries, of which a window needs little

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        real = np.ascontiguousarray(np.atleast_2d(held.numpy(self.real)))
        offsets, spans = _kernels.from_bool(real)
        return Rows((len(real), 1, 1), grid.k_len, spans, offsets).compact()


class Queries(_Flags):
    """Only real queries see anything: real[b, i], i the row of the query. Other rows are fully hidden: output 0.

    real: bool (B, Tq), or (Tq,) for all; True = real. Raises ValueError when the shape does not fit.

    >>> from mmha.masks import Queries
    >>> print(Queries([True, False]).show(2))
    0 ████
    1 · ·
    """

    def _fit(self, grid: Grid) -> None:
        self._check(grid.batch, grid.q_len, "B, Tq")

    def _holds(self, at: Coordinates) -> Tensor:
        return self.real[at.i] if self.real.dim() == 1 else self.real[at.b, at.i]

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        real = np.atleast_2d(held.numpy(self.real))[:, None, :]
        return Rows.interval(grid.k_len, 0, np.where(real, np.int32(grid.k_len), np.int32(0)))


class Documents(Mask):
    """Packed sequences that do not see each other: ids[p] == ids[j]. Usually `Causal() & Documents(ids)`.

    ids: integers (B, T) or (T,), the document of every position; equal ids need not be neighbours.
    T must cover the keys and the positions asked for. Raises ValueError when it does not, or when B does not fit.
    Source: Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination".

    >>> from mmha.masks import Causal, Documents
    >>> print((Causal() & Documents([7, 7, 8, 8])).show(4))
    0 ██· · ·
    1 ████· ·
    2 · · ██·
    3 · · ████
    """

    ids: Tensor

    def __init__(self, ids: Tensor | Sequence[Any]) -> None:
        made = held.integers("ids", ids, "integers of shape (B, T) or (T,)")
        if made.dim() not in (1, 2):
            got = f"shape {checks.shape_text(made.shape)}"
            raise checks.value_error("ids", "integers of shape (B, T) or (T,)", got)
        self._set(ids=made, _shared=isinstance(ids, held.Shared))

    @staticmethod
    def from_lengths(lengths: Tensor | Sequence[Any]) -> Documents:
        """Documents of these lengths, one after the other; a list of lists gives one packing per row of the batch.

        Raises ValueError below 0, or when the rows of a batch do not add up to the same T.

        >>> from mmha.masks import Documents
        >>> Documents.from_lengths([2, 3])
        Documents([0, 0, 1, 1, 1])
        """
        rows = lengths.tolist() if isinstance(lengths, (Tensor, np.ndarray)) else lengths
        if not isinstance(rows, (list, tuple)):
            raise checks.type_error("lengths", "a list of integers, or of lists of them", lengths)
        packs = rows if rows and isinstance(rows[0], (list, tuple)) else [rows]
        counts = [held.integers("lengths", pack, "a list of integers, or of lists of them") for pack in packs]
        for pack in counts:
            if pack.dim() != 1:
                raise checks.type_error("lengths", "a list of integers, or of lists of them", lengths)
            held.fit_lengths("lengths", pack, len(pack))
        ids = [torch.from_numpy(owners(held.numpy(pack))) for pack in counts]
        totals = sorted({len(row) for row in ids})
        if len(totals) > 1:
            got = f"sums {', '.join(map(str, totals))}"
            raise checks.value_error("lengths", "rows of the batch with the same sum", got)
        return Documents(ids[0] if packs[0] is rows else torch.stack(ids))

    def _args(self) -> tuple[Any, ...]:
        return (self.ids,)

    def _fit(self, grid: Grid) -> None:
        length = self.ids.shape[-1]
        if self.ids.dim() == 2:
            checks.shape_is("ids", self.ids, (grid.batch, None), "(B, T)")
        first, stop = grid.extent()
        if grid.k_len > length:
            raise checks.value_error("ids", f"an id for each of the {grid.k_len} keys", f"{length} ids")
        if first < 0 or stop > length:
            raise checks.value_error("ids", f"an id for each query position {first} to {stop - 1}", f"{length} ids")

    def _holds(self, at: Coordinates) -> Tensor:
        if self.ids.dim() == 1:
            return self.ids[at.p] == self.ids[at.j]
        return self.ids[at.b, at.p] == self.ids[at.b, at.j]

    def _irregular(self) -> bool:
        return True  # ids that are no neighbours make long rows

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        ids = np.atleast_2d(held.numpy(self.ids))
        runs = _ascending(ids, grid)
        if runs is not None:
            return runs
        positions = grid.positions()[:, 0]
        count = max(len(ids), len(positions))
        bounds = [_of_row(within, b, count) for b in range(count)]
        rows = [_packed(ids[b % len(ids)], positions[b % len(positions)], grid.k_len, bounds[b]) for b in range(count)]
        return rows[0] if count == 1 else Rows.stack(rows, axis=0)


def _ascending(ids: Int64s, grid: Grid) -> Rows | None:
    """The common packing, ids that never fall: every row sees the one run of keys that it stands in. Else None."""
    keys = ids[:, : grid.k_len]
    first, stop = grid.extent()
    if stop > grid.k_len or not grid.k_len or bool((keys[:, 1:] < keys[:, :-1]).any()):
        return None
    index = np.arange(1, grid.k_len, dtype=np.int32)
    differs = keys[:, 1:] != keys[:, :-1]
    starts, stops = np.zeros(keys.shape, dtype=np.int32), np.full(keys.shape, grid.k_len, dtype=np.int32)
    np.copyto(starts[:, 1:], index, where=differs)
    np.maximum.accumulate(starts, axis=1, out=starts)
    np.copyto(stops[:, :-1], index, where=differs)
    np.minimum.accumulate(stops[:, ::-1], axis=1, out=stops[:, ::-1])
    if len(grid.starts) == 1:
        return Rows.interval(grid.k_len, starts[:, None, first:stop], stops[:, None, first:stop])
    batch, positions = np.arange(grid.batch)[:, None, None] % len(ids), grid.positions()
    return Rows.interval(grid.k_len, starts[batch, positions], stops[batch, positions])


def _of_row(within: Rows | None, b: int, count: int) -> Rows | None:
    """What lies within for row b of the batch; None where a row stands for all and these differ in it."""
    if within is None or within.dims[0] == 1:
        return within
    _, h, t = within.dims
    return within.take(np.arange(b * h * t, (b + 1) * h * t), (1, h, t)) if count > 1 else None


def _packed(ids: Int64s, positions: Int64s, k_len: int, within: Rows | None) -> Rows:
    """The runs of equal ids among the keys, grouped by id; then each row takes the group of its own id."""
    edges = np.flatnonzero(ids[1:k_len] != ids[: max(k_len - 1, 0)]) + 1
    starts = np.concatenate(([0], edges))[: k_len or 0]
    stops = np.concatenate((edges, [k_len]))[: len(starts)]
    order = np.argsort(ids[starts], kind="stable")
    names, counts = np.unique(ids[starts], return_counts=True)
    spans = np.stack((starts, stops), axis=-1)[order].astype(np.int32)
    offsets = np.concatenate(([0], np.cumsum(counts), [len(spans)])).astype(np.int64)  # the last group is empty
    group = np.searchsorted(names, ids[positions])
    known = group < len(names)
    known[known] = names[group[known]] == ids[positions[known]]
    group[~known] = len(names)
    table = Rows((1, 1, len(names) + 1), k_len, spans, offsets)
    return take_within(table, group, (1, 1, len(positions)), within)
