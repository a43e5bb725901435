"""The problem in float64, a few rows at a time, and sums whose order nothing can change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmha.reference.rule import RowsVisible

#: Scores of one head held at a time. The rows in a block follow from this and Tk alone, never from batch or heads.
ROW_ELEMENTS = 1 << 17
#: Scores held at a time, over all heads of a block.
BLOCK_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Block:
    """Some rows of some neighbouring heads of one batch row. visible is broadcastable to (1, heads, rows, Tk)."""

    b: int
    heads: slice
    kv_heads: slice
    rows: slice
    visible: Tensor | None

    @property
    def at(self) -> tuple[int, slice, slice]:
        """Where the block is in a (B, H, Tq, *) tensor."""
        return self.b, self.heads, self.rows

    @property
    def kv(self) -> tuple[int, slice]:
        """Where its keys are in a (B, Hk, Tk, *) tensor."""
        return self.b, self.kv_heads


class Problem:
    """q, k and v in float64, block by block. Query heads that share a key head are folded into rows of one matrix."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, visible: Tensor | RowsVisible | None) -> None:
        self.q, self.k, self.v = aligned(q), aligned(k, keys=True), aligned(v, keys=True)
        self.sizes = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        # With D = 0 every score is 0 whatever the scale, and 1 / sqrt(0) would turn them into NaN.
        self.dim = max(q.shape[3], 1)
        self.group = q.shape[1] // max(k.shape[1], 1)
        self.visible = visible

    def blocks(self) -> Iterator[Block]:
        """All of the problem. Heads, which do not touch each other, share a block if they fit."""
        batch, q_heads, q_len, k_len = self.sizes
        rows = max(1, ROW_ELEMENTS // max(k_len, 1))
        heads = max(1, BLOCK_ELEMENTS // max(self.group * min(rows, q_len) * k_len, 1))
        for start in range(0, q_len if q_heads else 0, rows):
            part = slice(start, min(start + rows, q_len))
            visible = self._rows_visible(part)
            for b in range(batch):
                for first in range(0, self.k.shape[1], heads):
                    last = min(first + heads, self.k.shape[1])
                    yield Block(b, slice(first * self.group, last * self.group), slice(first, last), part, visible)

    def fold(self, x: Tensor) -> Tensor:
        """(heads, rows, n) to (key heads, heads per key head * rows, n)."""
        return x.reshape(x.shape[0] // self.group, self.group * x.shape[1], x.shape[2])

    def unfold(self, x: Tensor) -> Tensor:
        """The inverse of `fold`."""
        return x.reshape(x.shape[0] * self.group, x.shape[1] // self.group, x.shape[2])

    def fold_pairs(self, x: Tensor, block: Block) -> Tensor:
        """Something about pairs, broadcastable to (heads, rows, Tk), folded, with 0 at the keys that only align."""
        shape = (block.heads.stop - block.heads.start, block.rows.stop - block.rows.start, self.sizes[3])
        return self.fold(pad(x.expand(shape), (0, self.k.shape[2] - self.sizes[3])))

    def unfold_pairs(self, x: Tensor) -> Tensor:
        """The inverse of `fold_pairs`: (heads, rows, Tk)."""
        return self.unfold(x)[..., : self.sizes[3]]

    def _rows_visible(self, rows: slice) -> Tensor | None:
        if self.visible is None or isinstance(self.visible, Tensor):
            whole = None if self.visible is None else four(self.visible)
            return whole if whole is None or whole.shape[2] == 1 else whole[:, :, rows]
        return four(self.visible(rows.start, rows.stop))


def tree_sum(x: Tensor, dim: int) -> Tensor:
    """The sum over a dimension, which stays with size 1: halves are added until one is left.

    torch's own sum is split among the threads when it makes a single number, and then depends on how many there are.
    """
    if x.shape[dim] == 0:
        return x.sum(dim, keepdim=True)
    while (size := x.shape[dim]) > 1:
        half = x.narrow(dim, 0, size // 2) + x.narrow(dim, size - size // 2, size // 2)
        x = half if size % 2 == 0 else torch.cat([half, x.narrow(dim, size // 2, 1)], dim)
    return x


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b by one thread: BLAS rounds by how it cuts a product up, and cuts it up by the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return a @ b
    finally:
        torch.set_num_threads(threads)


def sum_visible(w: Tensor, x: Tensor, visible: Tensor) -> Tensor:
    """sum_j w[., i, j] x[., j] over visible j only: a plain product lets NaN and Inf in through 0 * NaN."""
    finite = x.isfinite()
    sums = product(w, torch.where(finite, x, 0.0))
    rows = (visible & ~finite.all(-1)[:, None]).any(-1)  # those that see a number which is not finite
    for n in rows.any(-1).nonzero()[:, 0].tolist():
        w_n, visible_n = w[n, rows[n]], visible[n, rows[n]]
        columns = [tree_sum(torch.where(visible_n, w_n * x[n, :, d], 0.0), 1) for d in range(x.shape[2])]
        sums[n, rows[n]] = torch.cat(columns, 1)
    return sums


def aligned(x: Tensor, *, keys: bool = False) -> Tensor:
    """The tensor in float64, its last dimension (for keys, the one before too) padded with zeros to a multiple of 8.

    BLAS rounds differently at different alignments, and a head must not depend on its place in the batch.
    """
    room = (0, _room(x.shape[3]), 0, _room(x.shape[2])) if keys else (0, _room(x.shape[3]))
    return pad(x.detach().double(), room).contiguous()  # torch 2.9 refuses to add nothing to an empty dimension


def _room(size: int) -> int:
    """What a size lacks to be a multiple of 8; an empty one is filled too, so that a row has a largest score."""
    return max(8 - size, -size % 8)


def four(x: Tensor) -> Tensor:
    """The tensor with leading dimensions of size 1, up to four dimensions."""
    return x.reshape((1,) * (4 - x.dim()) + tuple(x.shape))


def part(x: Tensor, block: Block, *, rows: bool = True) -> Tensor:
    """What a block looks at of a tensor broadcastable to (B, H, Tq, Tk): a view broadcastable to (heads, rows, Tk)."""
    head = x[block.b if x.shape[0] > 1 else 0]
    head = head[block.heads] if head.shape[0] > 1 else head
    return head[:, block.rows] if rows and head.shape[1] > 1 else head
