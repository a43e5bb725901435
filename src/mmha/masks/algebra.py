"""The algebra of lowered masks: what two of them both see, or either; and rows picked from a table.

The cost is O(rows + spans) of what goes in and comes out, or, where one side has few long rows, of what comes out.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from mmha import _kernels
from mmha.masks.arrays import CHUNK, Int32s, Int64s, check_room, ends, owners
from mmha.masks.rows import Dims, Rows

LONG = 8  # spans: with more of them a row is not gone through for each row of the other side


def both(a: Rows, b: Rows) -> Rows:
    """Visible in a and in b; axes of size 1 broadcast."""
    one, two = a.single, b.single
    if one is not None and two is not None:
        start = np.maximum(one[..., 0], two[..., 0])
        return Rows.interval(a.k_len, start, np.minimum(one[..., 1], two[..., 1]))
    return _shared(a, b) or _combine("and", a, b)


def _shared(a: Rows, b: Rows) -> Rows | None:
    """The same where one of them has long rows that many rows of the other share, else None."""
    dims: Any = np.broadcast_shapes(a.dims, b.dims)
    few, table = (a, b) if a.count >= b.count else (b, a)
    long = table.bits is not None or len(table.general()[1]) > LONG * table.count
    if few.bits is not None or not long or table.count >= math.prod(dims):
        return None
    return cut(table, _spread(table, dims), few.expand(dims))


def _spread(rows: Rows, dims: Dims) -> Int64s:
    """The number of the row that stands at each place of `dims`."""
    return np.broadcast_to(np.arange(rows.count).reshape(rows.dims), dims).reshape(-1)


def cut(table: Rows, index: Int64s, few: Rows) -> Rows | None:
    """Row i of `few`, which has spans, and row index[i] of the table, both; None when bits would be smaller.

    A span of `few` finds its place in a long row by bisection, so that the cost is what comes out and not what is in
    the table: a window over keys with many holes costs the window.
    """
    offsets, spans = table.general()
    bounds, pieces = few.general()
    width = table.k_len + 1  # rows one after the other are one rising sequence of keys
    row, base = owners(np.diff(offsets)) * width, index.repeat(np.diff(bounds)) * width
    first = np.searchsorted(row + spans[:, 1], base + pieces[:, 0], side="right")
    counts = np.searchsorted(row + spans[:, 0], base + pieces[:, 1], side="left") - first
    at = ends(counts)
    if at[-1] > few.count * few.words:
        return None
    check_room(16 * int(at[-1]))
    made = np.empty((at[-1], 2), dtype=np.int32)
    step = max(1, CHUNK // 8 * len(counts) // max(1, len(made)))
    for start in range(0, len(counts), step):
        part = slice(start, start + step)
        low, high = at[start], at[min(start + step, len(counts))]
        made[low:high] = spans[np.arange(low, high) + (first[part] - at[:-1][part]).repeat(counts[part])]
    seen = counts > 0
    made[at[:-1][seen], 0] = np.maximum(made[at[:-1][seen], 0], pieces[seen, 0])
    made[at[1:][seen] - 1, 1] = np.minimum(made[at[1:][seen] - 1, 1], pieces[seen, 1])
    return Rows(few.dims, few.k_len, made, at[bounds])


def take_within(table: Rows, index: Int64s, dims: Dims, within: Rows | None) -> Rows:
    """`table.take(index, dims)`, where what lies outside `within` does not matter."""
    if within is not None and within.bits is None and np.broadcast_shapes(within.dims, dims) == dims:
        found = cut(table, index, within.expand(dims))
        if found is not None:
            return found
    return table.take(index, dims)


def either(a: Rows, b: Rows) -> Rows:
    """Visible in a or in b; axes of size 1 broadcast."""
    one, two = a.single, b.single
    if one is not None and two is not None:
        joined = _joined(one, two, a.k_len)
        if joined is not None:
            return joined
    return _combine("or", a, b)


def _joined(one: Int32s, two: Int32s, k_len: int) -> Rows | None:
    """The union of single spans when it is one span in every row, else None."""
    (a, b), (c, d) = np.moveaxis(one, -1, 0), np.moveaxis(two, -1, 0)
    no_left, no_right = a == b, c == d
    if not bool((no_left | no_right | ((c <= b) & (a <= d))).all()):
        return None
    start = np.where(no_left, c, np.where(no_right, a, np.minimum(a, c)))
    return Rows.interval(k_len, start, np.maximum(b, d))


def _combine(op: Literal["and", "or"], a: Rows, b: Rows) -> Rows:
    dims: Any = np.broadcast_shapes(a.dims, b.dims)
    if a.bits is None and b.bits is None:
        offsets, spans = _kernels.combine(op, a.general(), b.general(), dims, a.dims, b.dims)
        return Rows(dims, a.k_len, spans, offsets)
    if a.bits is None:
        a, b = b, a
    assert a.bits is not None
    bits = a.expand(dims).bits
    assert bits is not None
    bits = bits.copy() if bits is a.bits else bits
    other = _spread(b, dims)
    step = max(1, CHUNK // max(1, a.words))
    for row in range(0, len(bits), step):  # in chunks, so that the other operand never stands as bits as a whole
        part = slice(row, min(row + step, len(bits)))
        index = other[part]
        words = b.take(index, (1, 1, len(index))).as_bits()
        (np.bitwise_and if op == "and" else np.bitwise_or)(bits[part], words, out=bits[part])
    return Rows(dims, a.k_len, bits=bits)
