"""`Rows`: a mask lowered. Per row the visible keys as one span, as several spans, or as bits.

Rows come in (batch, head, query) order; an axis the mask does not depend on has size 1. Three forms, by size:
one span a row (spans (R, 2), an empty row is [0, 0)), spans with offsets (R + 1), and bits (R, words of 64 keys).
Only the kernels' own helpers and numpy run here: the cost is O(rows + spans), never rows x keys, except for bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmha import _kernels
from mmha.masks.arrays import Int32s, Int64s, Words, bits_to_spans, check_room, ends, run_count

Dims = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Rows:
    """Visible keys per row; exactly one of `spans` and `bits` is given, `offsets` only with several spans a row."""

    dims: Dims
    k_len: int
    spans: Int32s | None = None
    offsets: Int64s | None = None
    bits: Words | None = None

    @staticmethod
    def interval(k_len: int, start: Any, stop: Any) -> Rows:
        """One span a row from start and stop, integers or arrays that broadcast to (b, h, t); clipped to the keys."""
        start, stop = np.asarray(start), np.asarray(stop)
        shape = np.broadcast_shapes(start.shape, stop.shape, (1, 1, 1))
        spans = np.empty((*shape, 2), dtype=np.int32)
        np.clip(start, 0, k_len, out=spans[..., 0], casting="unsafe")
        np.clip(stop, 0, k_len, out=spans[..., 1], casting="unsafe")
        hidden = spans[..., 0] >= spans[..., 1]
        np.copyto(spans, 0, where=hidden[..., None])
        return Rows((shape[0], shape[1], shape[2]), k_len, spans.reshape(-1, 2))

    @staticmethod
    def singles(k_len: int, first: Any, stop: Any, step: int) -> Rows:
        """Every step-th key of [first, stop), arrays (b, h, t) within the keys: spans of one key each."""
        counts = np.maximum(-((first - stop) // step), 0)
        offsets = ends(counts.reshape(-1))
        check_room(16 * int(offsets[-1]))
        base = np.broadcast_to(first, counts.shape).reshape(-1) - offsets[:-1] * step
        keys = np.arange(offsets[-1], dtype=np.uint32)  # modulo 2**32 on the way; the keys themselves fit
        keys *= np.uint32(step % 2**32)
        keys += np.repeat(base.astype(np.uint32), counts.reshape(-1))
        spans = np.empty((len(keys), 2), dtype=np.int32)
        spans[:, 0] = keys
        spans[:, 1] = spans[:, 0] + 1
        return Rows((counts.shape[0], counts.shape[1], counts.shape[2]), k_len, spans, offsets)

    @staticmethod
    def join(parts: list[Rows], dims: Dims, k_len: int) -> Rows:
        """Rows one after the other, laid out as `dims`, in a form that holds all the parts."""
        if len(parts) == 1:
            return Rows(dims, k_len, parts[0].spans, parts[0].offsets, parts[0].bits)
        if any(part.bits is not None for part in parts):
            return Rows(dims, k_len, bits=np.concatenate([part.as_bits() for part in parts]))
        if all(part.offsets is None for part in parts):
            none = np.zeros((0, 2), dtype=np.int32)
            return Rows(dims, k_len, np.concatenate([none, *(p.spans for p in parts if p.spans is not None)]))
        pairs = [part.general() for part in parts]
        counts = np.concatenate([np.diff(offsets) for offsets, _ in pairs])
        return Rows(dims, k_len, np.concatenate([spans for _, spans in pairs]), ends(counts))

    @staticmethod
    def stack(parts: list[Rows], axis: int) -> Rows:
        """Rows that have size 1 along `axis` (0 batch, 1 head), side by side along it."""
        wide: Any = np.broadcast_shapes(*(part.dims for part in parts))
        dims: Any = (*wide[:axis], len(parts), *wide[axis + 1 :])
        joined = Rows.join([part.expand(wide) for part in parts], dims, parts[0].k_len)
        if axis == 0 or wide[0] == 1:
            return joined
        order = np.arange(joined.count).reshape(len(parts), wide[0], wide[2])
        return joined.take(order.transpose(1, 0, 2).reshape(-1), dims)

    def head(self, index: int) -> Rows:
        """The rows of one head."""
        b, h, t = self.dims
        if h == 1:
            return self
        return self.take(np.arange(self.count).reshape(self.dims)[:, index].reshape(-1), (b, 1, t))

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self.dims[0] * self.dims[1] * self.dims[2]

    @property
    def words(self) -> int:
        """How many 64-bit words a row of bits takes."""
        return -(-self.k_len // 64)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(part.nbytes for part in (self.spans, self.offsets, self.bits) if part is not None)

    @property
    def single(self) -> Int32s | None:
        """Spans (b, h, t, 2) in the form of one span a row, else None."""
        if self.spans is None or self.offsets is not None:
            return None
        return self.spans.reshape(*self.dims, 2)

    def general(self) -> tuple[Int64s, Int32s]:
        """Offsets and spans, whatever the form."""
        if self.bits is not None:
            return bits_to_spans(self.bits, self.k_len)
        assert self.spans is not None
        if self.offsets is not None:
            return self.offsets, self.spans
        seen = self.spans[:, 0] < self.spans[:, 1]
        return ends(seen), self.spans if seen.all() else self.spans[seen]

    def as_bits(self) -> Words:
        """Bits (R, words), whatever the form."""
        if self.bits is not None:
            return self.bits
        check_room(8 * self.count * self.words)
        return _kernels.spans_to_bits(*self.general(), self.k_len)

    def hull(self) -> Rows:
        """One span a row, from the first visible key to the last; a row of bits counts as the whole row."""
        if self.bits is not None:
            return Rows.interval(self.k_len, 0, self.k_len)
        if self.offsets is None:
            return self
        assert self.spans is not None
        hull = np.zeros((self.count, 2), dtype=np.int32)
        seen = self.offsets[1:] > self.offsets[:-1]
        hull[seen, 0] = self.spans[self.offsets[:-1][seen], 0]
        hull[seen, 1] = self.spans[self.offsets[1:][seen] - 1, 1]
        return Rows(self.dims, self.k_len, hull)

    def expand(self, dims: Dims) -> Rows:
        """The same rows with axes of size 1 repeated to `dims`."""
        if dims == self.dims:
            return self
        if self.offsets is None:
            held = self.spans if self.bits is None else self.bits
            assert held is not None
            check_room(math.prod(dims) * held.shape[1] * held.itemsize)
            wide = np.broadcast_to(held.reshape(*self.dims, held.shape[1]), (*dims, held.shape[1]))
            flat = np.ascontiguousarray(wide).reshape(-1, held.shape[1])
            return Rows(dims, self.k_len, bits=flat) if self.bits is not None else Rows(dims, self.k_len, flat)
        index = np.broadcast_to(np.arange(self.count).reshape(self.dims), dims).reshape(-1)
        return self.take(index, dims)

    def take(self, index: Int64s, dims: Dims) -> Rows:
        """Rows picked by number, laid out as `dims`."""
        if self.bits is not None:
            return Rows(dims, self.k_len, bits=self.bits[index])
        assert self.spans is not None
        if self.offsets is None:
            return Rows(dims, self.k_len, self.spans[index])
        sizes = np.diff(self.offsets)
        if not sizes.size or sizes.max() <= 1:  # the compact form is enough
            return self.hull().take(index, dims)
        first, counts = self.offsets[:-1][index], sizes[index]
        total = int(counts.sum())
        if total > len(counts) * self.words and self.count <= len(counts):  # bits of these few, then picked: smaller
            check_room(8 * len(counts) * self.words)
            return Rows(dims, self.k_len, bits=self.as_bits()[index])
        check_room(16 * total)
        offsets = ends(counts)
        pick = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], counts)
        return Rows(dims, self.k_len, self.spans[pick], offsets)

    def complement(self) -> Rows:
        """Visible where this hides."""
        if self.bits is not None:
            bits = ~self.bits
            if self.k_len % 64:  # bits past the last key stay clear
                bits[:, -1] &= np.uint64((1 << self.k_len % 64) - 1)
            return Rows(self.dims, self.k_len, bits=bits)
        one = self.single
        if one is not None:
            start, stop = one[..., 0], one[..., 1]
            empty = start == stop
            if bool((empty | (start == 0) | (stop == self.k_len)).all()):  # what is left is one span again
                left = np.where(start == 0, stop, 0)
                return Rows.interval(self.k_len, left, np.where(empty | (start == 0), self.k_len, start))
        offsets, spans = _kernels.complement(self.general(), self.k_len)
        return Rows(self.dims, self.k_len, spans, offsets)

    def compact(self) -> Rows:
        """The same rows in the form that takes the fewest bytes."""
        if self.bits is not None:
            if 8 * (run_count(self.bits) + self.count + 1) > self.bits.nbytes:
                return self
            offsets, spans = bits_to_spans(self.bits, self.k_len)
            return Rows(self.dims, self.k_len, spans, offsets).compact()
        if self.offsets is None:
            return self
        assert self.spans is not None
        if len(self.spans) <= self.count and bool((np.diff(self.offsets) <= 1).all()):
            return self.hull()
        if self.nbytes > 8 * self.count * self.words:
            return Rows(self.dims, self.k_len, bits=self.as_bits())
        return self
