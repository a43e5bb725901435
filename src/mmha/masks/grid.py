"""The problem a mask is asked about: how many rows and keys there are, and at which positions the queries stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmha import checks

Int64s = npt.NDArray[np.int64]
MAX_KEYS = 2**31 - 1  # spans are int32
FARTHEST = 2**60  # positions and reaches up to here add up without overflow
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True, slots=True)
class Grid:
    """Sizes of one attention problem. `starts` holds q_start once for all rows of the batch, or one per row."""

    batch: int
    heads: int
    q_len: int
    k_len: int
    starts: tuple[int, ...]
    first_head: int = 0  # PerHead looks at one head at a time: the heads are first_head ... first_head + heads - 1
    all_heads: int = 0

    @staticmethod
    def of(batch: int, heads: int, q_len: int, k_len: int, q_start: int | Tensor | None = None) -> Grid:
        """The checked grid of a call. `q_start` defaults to k_len - q_len (bottom-right alignment)."""
        batch = checks.integer("batch", batch, 0)
        heads = checks.integer("heads", heads, 0)
        q_len = checks.integer("q_len", q_len, 0)
        k_len = checks.integer("k_len", k_len, 0, MAX_KEYS)
        return Grid(batch, heads, q_len, k_len, _starts(q_start, batch, k_len - q_len), 0, heads)

    def head(self, index: int) -> Grid:
        """The same problem for one of its heads only."""
        return Grid(self.batch, 1, self.q_len, self.k_len, self.starts, self.first_head + index, self.all_heads)

    def positions(self) -> Int64s:
        """Absolute positions of the query rows: int64, (1 or B, 1, q_len)."""
        steps = np.arange(self.q_len, dtype=np.int64)
        if len(self.starts) == 1:
            steps += self.starts[0]
            return steps.reshape(1, 1, -1)
        return (np.array(self.starts, dtype=np.int64)[:, None] + steps).reshape(len(self.starts), 1, self.q_len)

    def extent(self) -> tuple[int, int]:
        """The first position and one past the last, over all rows of the batch; (0, 0) when there is no row."""
        if not self.q_len or not self.starts:
            return 0, 0
        return min(self.starts), max(self.starts) + self.q_len

    def heads_of(self, size: int) -> slice:
        """Which part of an axis of all heads (or of one, broadcast) this grid looks at."""
        return slice(None) if size == 1 else slice(self.first_head, self.first_head + self.heads)


def reach(argument: str, value: Any, minimum: int) -> int:
    """The value as an int from `minimum` to as far as positions may go."""
    number = checks.integer(argument, value)
    if number < minimum or number > FARTHEST:
        expected = f">= {minimum}" if number < minimum and minimum > -FARTHEST else "within 2**60"
        raise checks.value_error(argument, f"an integer {expected}", str(number))
    return number


def _starts(q_start: Any, batch: int, default: int) -> tuple[int, ...]:
    if q_start is None:
        return (default,)
    if not isinstance(q_start, Tensor):
        if checks.is_tensor(q_start) or not hasattr(q_start, "__index__"):
            raise checks.type_error("q_start", f"None, an int or an int tensor of shape ({batch},)", q_start)
        return (reach("q_start", q_start, -FARTHEST),)
    if q_start.dtype not in INTEGERS:
        raise checks.type_error("q_start", f"None, an int or an int tensor of shape ({batch},)", q_start)
    if q_start.dim() == 0:
        return (reach("q_start", int(q_start), -FARTHEST),)
    checks.shape_is("q_start", q_start, (batch,), "(B,)")
    values = tuple(reach("q_start", value, -FARTHEST) for value in q_start.tolist())
    return values[:1] if len(set(values)) == 1 else values


@dataclass(frozen=True, slots=True)
class Coordinates:
    """What a mask's definition is evaluated on: int64 tensors that broadcast to (B, H, rows, Tk).

    b (B, 1, 1, 1), h (1, H, 1, 1), i (1, 1, rows, 1) the row, p (1 or B, 1, rows, 1) its position, j (1, 1, 1, Tk).
    """

    grid: Grid
    b: Tensor
    h: Tensor
    i: Tensor
    p: Tensor
    j: Tensor

    @staticmethod
    def of(grid: Grid, rows: slice, keys: slice) -> Coordinates:
        """Coordinates of a block of the grid."""
        i = torch.arange(rows.start, rows.stop, device="cpu").reshape(1, 1, -1, 1)
        return Coordinates(
            grid,
            torch.arange(grid.batch, device="cpu").reshape(-1, 1, 1, 1),
            torch.arange(grid.first_head, grid.first_head + grid.heads, device="cpu").reshape(1, -1, 1, 1),
            i,
            torch.tensor(grid.starts, dtype=torch.int64, device="cpu").reshape(-1, 1, 1, 1) + i,
            torch.arange(keys.start, keys.stop, device="cpu").reshape(1, 1, 1, -1),
        )

    def head(self, index: int) -> Coordinates:
        """The same block for one of its heads only."""
        head = self.h.new_tensor([[[[self.grid.first_head + index]]]])
        return Coordinates(self.grid.head(index), self.b, head, self.i, self.p, self.j)
