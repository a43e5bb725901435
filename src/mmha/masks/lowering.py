"""Lowering of masks whose pairs must be looked at one by one: in blocks, so that memory stays bounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmha import _kernels
from mmha.masks.arrays import CHUNK, check_room
from mmha.masks.rows import Dims, Rows

NARROW = 256  # rows at a time when each row's visible range is known: fewer rows hug a diagonal closer


@dataclass(frozen=True, slots=True)
class Block:
    """A block of the (b, h, t, Tk) pairs to look at."""

    batch: slice
    heads: slice
    rows: slice
    keys: slice

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Its sizes."""
        b, h, t, k = (part.stop - part.start for part in (self.batch, self.heads, self.rows, self.keys))
        return b, h, t, k


def from_blocks(
    dims: Dims, k_len: int, evaluate: Callable[[Block], npt.NDArray[np.bool_]], within: Rows | None
) -> Rows:
    """Rows of a mask that `evaluate` gives as bools (b, h, rows, keys), block by block; hidden outside `within`."""
    if not (k_len and math.prod(dims)):
        return Rows(dims, k_len, np.zeros((math.prod(dims), 2), dtype=np.int32))
    parts: list[Rows] = []
    words, runs = -(-k_len // 64), 0
    for block in _blocks(dims, k_len, within):
        count, width = math.prod(block.shape[:3]), block.shape[3]
        if width == 0:  # nothing within reach of these rows: `evaluate` is not asked
            parts.append(Rows((1, 1, count), k_len, np.zeros((count, 2), dtype=np.int32)))
            continue
        seen = np.ascontiguousarray(evaluate(block)).reshape(count, width)
        offsets, spans = _kernels.from_bool(seen)
        runs += len(spans)
        if len(spans) + count <= count * words:
            parts.append(Rows((1, 1, count), k_len, spans + np.int32(block.keys.start), offsets))
            continue
        if width < k_len:
            whole = np.zeros((count, k_len), dtype=np.bool_)
            whole[:, block.keys] = seen
            seen = whole
        parts.append(Rows((1, 1, count), k_len, bits=_kernels.pack_bits(seen)))
        check_room(8 * words * math.prod(dims))
    rows = math.prod(dims)
    if runs + rows <= rows * words:
        pairs = [part.general() for part in parts]
        parts = [Rows((1, 1, len(offsets) - 1), k_len, spans, offsets) for offsets, spans in pairs]
    return Rows.join(parts, dims, k_len)


def _blocks(dims: Dims, k_len: int, within: Rows | None) -> Iterator[Block]:
    """Blocks in row order, of at most CHUNK pairs (or one row)."""
    b, h, t = dims
    keys = slice(0, k_len)
    if h * t * k_len <= CHUNK:
        step = max(1, CHUNK // (h * t * k_len))
        for first in range(0, b, step):
            yield Block(slice(first, min(first + step, b)), slice(0, h), slice(0, t), keys)
        return
    bound: Any = within.hull().single if within is not None else None
    for batch in range(b):
        for head in range(h):
            row = 0
            while row < t:
                rows = slice(row, min(row + max(1, CHUNK // k_len), t))
                if bound is not None and t > 1:
                    rows, keys = _narrow(bound, dims, (batch, head, row))
                yield Block(slice(batch, batch + 1), slice(head, head + 1), rows, keys)
                row = rows.stop


def _narrow(bound: npt.NDArray[np.int32], dims: Dims, place: tuple[int, int, int]) -> tuple[slice, slice]:
    """The next rows and the range of keys that matters for any of them."""
    row = place[2]
    axes = [slice(None) if 1 in (dims[axis], bound.shape[axis]) else place[axis] for axis in (0, 1)]
    count = min(NARROW, dims[2] - row)
    while True:
        part = bound[axes[0], axes[1]][..., row : row + count, :] if bound.shape[2] > 1 else bound
        start, stop = part[..., 0], part[..., 1]
        seen = start < stop
        first = int(start[seen].min()) if seen.any() else 0
        last = int(stop[seen].max()) if seen.any() else 0
        if count == 1 or count * (last - first) <= CHUNK:
            return slice(row, row + count), slice(first, last)
        count //= 2
