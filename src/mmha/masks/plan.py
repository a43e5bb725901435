"""`Plan`: a mask lowered for given sizes, as the kernels take it; the bounded cache of plans; and dense evaluation."""

from __future__ import annotations

import atexit
import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmha import _kernels
from mmha.masks.arrays import CHUNK
from mmha.masks.grid import Coordinates, Grid
from mmha.masks.rows import Rows

if TYPE_CHECKING:
    from mmha.masks.base import Mask


class Plan:
    """A mask lowered for one problem: spans of visible keys per query row, or bits, whichever takes fewer bytes.

    `batch`, `heads`, `q_len`, `k_len` are the problem's sizes B, H, Tq, Tk. `native` is what the kernels take; its own
    batch and heads are 1 where the mask does not depend on them. Made by `Mask.plan`.

    >>> from mmha.masks import Causal, Window
    >>> plan = (Causal() & Window(2)).plan(batch=2, heads=3, q_len=5, k_len=5)
    >>> plan.kind, plan.visible, plan.density
    ('spans', 72, 0.48)
    >>> plan.row(4)
    [(2, 5)]
    """

    __slots__ = ("batch", "heads", "k_len", "kind", "native", "q_len")

    def __init__(self, grid: Grid, rows: Rows) -> None:
        self.batch, self.heads, self.q_len, self.k_len = grid.batch, grid.heads, grid.q_len, grid.k_len
        self.kind = "spans" if rows.bits is None else "bits"
        b, h, t = rows.dims
        self.native = _kernels.Plan(b, h, t, rows.k_len, rows.offsets, rows.spans, rows.bits)

    @property
    def visible(self) -> int:
        """How many (batch, head, query, key) pairs are visible."""
        own = self.native.batch * self.native.heads
        return int(self.native.visible) * (self.batch * self.heads // own) if own else 0

    @property
    def density(self) -> float:
        """The visible share of all pairs, 0 to 1; 0 when there is no pair."""
        pairs = self.batch * self.heads * self.q_len * self.k_len
        return self.visible / pairs if pairs else 0.0

    @property
    def nbytes(self) -> int:
        """Memory the plan holds, in bytes."""
        return int(self.native.nbytes)

    def tiles(self, q_tile: int = 32, k_tile: int = 256) -> npt.NDArray[np.uint8]:
        """Per tile of q_tile x k_tile pairs 0 = empty, 1 = mixed, 2 = full: uint8 (1 or B, 1 or H, q tiles, k tiles).

        >>> from mmha.masks import Causal
        >>> Causal().plan(1, 1, 8, 8).tiles(4, 4)[0, 0].tolist()
        [[1, 0], [2, 1]]
        """
        return self.native.tiles(q_tile, k_tile)

    def row(self, query: int, batch: int = 0, head: int = 0) -> list[tuple[int, int]]:
        """The visible spans [start, stop) of one query row; negative indices are not taken. Raises IndexError."""
        if not (0 <= query < self.q_len and 0 <= batch < self.batch and 0 <= head < self.heads):
            sizes = f"({self.batch}, {self.heads}, {self.q_len})"
            raise IndexError(f"row ({batch}, {head}, {query}) is outside (B, H, Tq) = {sizes}")
        b, h = min(batch, self.native.batch - 1), min(head, self.native.heads - 1)
        return list(self.native.row((b * self.native.heads + h) * self.q_len + query))

    def __repr__(self) -> str:
        sizes = f"batch={self.batch}, heads={self.heads}, q_len={self.q_len}, k_len={self.k_len}"
        return f"<Plan {sizes}: {self.density:.1%} visible, {self.nbytes} bytes of {self.kind}>"


class _Cache:
    """The most recently used plans: at most `count`, and at most `nbytes` bytes with the tensors of their masks."""

    def __init__(self, count: int, nbytes: int) -> None:
        self.count, self.limit, self.nbytes = count, nbytes, 0
        self._plans: OrderedDict[tuple[Mask, Grid], tuple[Plan, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._plans)

    def get(self, key: tuple[Mask, Grid]) -> Plan | None:
        with self._lock:
            if key not in self._plans:
                return None
            self._plans.move_to_end(key)
            return self._plans[key][0]

    def put(self, key: tuple[Mask, Grid], made: Plan) -> None:
        cost = made.nbytes + sum(tensor.numel() * tensor.element_size() for tensor in key[0].flatten()[1])
        with self._lock:
            self.nbytes += cost - self._plans.pop(key, (made, 0))[1]
            self._plans[key] = (made, cost)
            while self._plans and (len(self._plans) > self.count or self.nbytes > self.limit):
                self.nbytes -= self._plans.popitem(last=False)[1][1]

    def clear(self) -> None:
        with self._lock:
            self._plans.clear()
            self.nbytes = 0

    def after_fork(self) -> None:
        """In the child: when another thread was inside, it will never leave, and what it left may be half done."""
        if self._lock.acquire(blocking=False):  # locked() lags behind: a thread may have the lock and not yet the GIL
            self._lock.release()
        else:
            self._plans, self._lock, self.nbytes = OrderedDict(), threading.Lock(), 0


CACHE = _Cache(count=128, nbytes=2**28)
atexit.register(CACHE.clear)  # native plans must be gone before the interpreter is
os.register_at_fork(after_in_child=CACHE.after_fork)


def lookup(mask: Mask, grid: Grid) -> Plan:
    """The plan of the mask on the grid: from the cache, or lowered now and remembered."""
    if mask._shared:  # its tensors may change under us
        return lower(mask, grid)
    key = (mask, grid)
    found = CACHE.get(key)
    if found is None:
        found = lower(mask, grid)
        CACHE.put(key, found)
    return found


def lower(mask: Mask, grid: Grid) -> Plan:
    """Check that the mask fits, lower it, and hand the smallest form to the kernels."""
    mask._fit(grid)
    rows = mask._lower(grid, None).compact()
    b, h, _ = rows.dims
    return Plan(grid, rows.expand((b, h, grid.q_len)).compact())


def evaluate(mask: Mask, grid: Grid) -> Tensor:
    """The definition at every pair, bool (B, H, Tq, Tk); some rows at a time, as definitions may compute in int64."""
    mask._fit(grid)
    out = torch.empty((grid.batch, grid.heads, grid.q_len, grid.k_len), dtype=torch.bool, device="cpu")
    step = max(1, CHUNK // max(1, grid.k_len))
    for row in range(0, grid.q_len, step):
        rows = slice(row, min(row + step, grid.q_len))
        out[:, :, rows] = mask._holds(Coordinates.of(grid, rows, slice(0, grid.k_len)))
    return out
