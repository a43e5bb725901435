"""Masks read from a small table: Global tokens, Blocks of a layout, Tree of speculative tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmha import _kernels, checks
from mmha.masks import held
from mmha.masks.algebra import both, either, take_within
from mmha.masks.base import Mask
from mmha.masks.grid import Coordinates, Grid, reach
from mmha.masks.rows import Rows


class Global(Mask):
    """Some tokens see all and are seen by all: j or p is one of the positions. Usually `Window(w, w) | Global([0])`.

    positions: integers >= 0, shape (n,); those beyond the keys or queries have no effect. Raises ValueError below 0.
    Source: Beltagy et al. 2020, "Longformer", section 3.1.

    >>> from mmha.masks import Global
    >>> print(Global([1]).show(3))
    0 · ██·
    1 ██████
    2 · ██·
    """

    positions: Tensor

    def __init__(self, positions: Tensor | Sequence[int]) -> None:
        made = held.integers("positions", positions, "integers of shape (n,)")
        if made.dim() != 1:
            got = f"shape {checks.shape_text(made.shape)}"
            raise checks.value_error("positions", "integers of shape (n,)", got)
        self._set(positions=made, _shared=isinstance(positions, held.Shared))
        if not (self._shared or torch.compiler.is_compiling()):
            held.fit_lengths("positions", made, len(made))

    def _args(self) -> tuple[Any, ...]:
        return (self.positions,)

    def _fit(self, grid: Grid) -> None:
        held.fit_lengths("positions", self.positions, len(self.positions))

    def _holds(self, at: Coordinates) -> Tensor:
        return torch.isin(at.j, self.positions) | torch.isin(at.p, self.positions)

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        chosen = np.unique(held.numpy(self.positions))
        keys = chosen[chosen < grid.k_len]
        edges = np.flatnonzero(np.diff(keys) != 1) + 1  # neighbours are one span
        starts = keys[np.concatenate(([0], edges))] if len(keys) else keys
        stops = keys[np.concatenate((edges - 1, [len(keys) - 1]))] + 1 if len(keys) else keys
        spans = np.stack((np.append(starts, 0), np.append(stops, grid.k_len)), axis=-1).astype(np.int32)
        spans = spans[spans[:, 0] < spans[:, 1]]
        offsets = np.array([0, len(starts), len(spans)], dtype=np.int64)
        p = grid.positions()
        found = np.isin(p, chosen).astype(np.int64)
        return Rows((1, 1, 2), grid.k_len, spans, offsets).take(found.reshape(-1), (len(p), 1, grid.q_len))


class Blocks(Mask):
    """Whole blocks of a layout are visible: layout[p // size, j // size].

    layout: bool (query blocks, key blocks); size: tokens a block has on a side. The layout must cover the keys and
    the positions asked for. Raises ValueError when it does not, or when size < 1.
    Source: Zaheer et al. 2020, "Big Bird", appendix D.

    >>> from mmha.masks import Blocks
    >>> print(Blocks([[1, 0], [1, 1]], 2).show(4))
    0 ████· ·
    1 ████· ·
    2 ████████
    3 ████████
    """

    layout: Tensor
    size: int

    def __init__(self, layout: Tensor | Sequence[Any], size: int) -> None:
        made = held.bools("layout", layout, "bools of shape (query blocks, key blocks)")
        if made.dim() != 2:
            got = f"shape {checks.shape_text(made.shape)}"
            raise checks.value_error("layout", "bools of shape (query blocks, key blocks)", got)
        size = reach("size", size, 1)
        self._set(layout=made, size=size, _shared=isinstance(layout, held.Shared))

    def _args(self) -> tuple[Any, ...]:
        return (self.layout, self.size)

    def _fit(self, grid: Grid) -> None:
        first, stop = grid.extent()
        queries, keys = (blocks * self.size for blocks in self.layout.shape)
        shape = f"{checks.shape_text(self.layout.shape)} blocks of {self.size}"
        if grid.k_len > keys:
            raise checks.value_error("layout", f"blocks for {grid.k_len} keys", shape)
        if first < 0 or stop > queries:
            raise checks.value_error("layout", f"blocks for query positions {first} to {stop - 1}", shape)

    def _holds(self, at: Coordinates) -> Tensor:
        return self.layout[at.p // self.size, at.j // self.size]

    def _irregular(self) -> bool:
        return True  # a row of the layout may have many spans, of which a window needs few

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        used = -(-grid.k_len // self.size)
        offsets, runs = _kernels.from_bool(np.ascontiguousarray(held.numpy(self.layout)[:, :used]))
        spans = np.minimum(runs.astype(np.int64) * self.size, grid.k_len).astype(np.int32)
        block = grid.positions() // self.size
        table = Rows((1, 1, len(self.layout)), grid.k_len, spans, offsets)
        return take_within(table, block.reshape(-1), (len(block), 1, grid.q_len), within)


class Tree(Mask):
    """Speculative decoding: a tree node sees all keys before the tree, itself and its ancestors.

    The last n keys are tree nodes; parents[i] is the index of node i's parent, which comes before it, and -1 for a
    root. A query before the tree (p < Tk - n) sees j <= p. parents: integers (n,). Raises ValueError when a parent
    does not come before its node, when n > Tk, or when a query stands beyond the last key.
    Source: Miao et al. 2023, "SpecInfer", section 4.2; Cai et al. 2024, "Medusa", section 3.2.

    >>> from mmha.masks import Tree
    >>> print(Tree([-1, 0, 0, 1]).show(4, 6))  # two keys stand before the tree
    0 ██████· · ·
    1 ████████· ·
    2 ██████· ██·
    3 ████████· ██
    """

    parents: Tensor

    def __init__(self, parents: Tensor | Sequence[int]) -> None:
        made = held.integers("parents", parents, "integers of shape (n,)")
        if made.dim() != 1:
            got = f"shape {checks.shape_text(made.shape)}"
            raise checks.value_error("parents", "integers of shape (n,)", got)
        self._set(parents=made, _shared=isinstance(parents, held.Shared))
        if not (self._shared or torch.compiler.is_compiling()):
            self._check_parents()

    def _args(self) -> tuple[Any, ...]:
        return (self.parents,)

    def _check_parents(self) -> None:
        wrong = (self.parents < -1) | (self.parents >= torch.arange(len(self.parents), device="cpu"))
        if bool(wrong.any()):
            node = int(wrong.nonzero()[0])
            expected = f"parents[{node}] between -1 and {node - 1}"
            raise checks.value_error("parents", expected, str(int(self.parents[node])))

    def _fit(self, grid: Grid) -> None:
        self._check_parents()
        if len(self.parents) > grid.k_len:
            raise checks.value_error(
                "parents", f"at most {grid.k_len} nodes, one per key", f"{len(self.parents)} nodes"
            )
        last = grid.extent()[1] - 1
        if last >= grid.k_len:
            raise checks.value_error("q_start", f"query positions below the {grid.k_len} keys", f"position {last}")

    def _holds(self, at: Coordinates) -> Tensor:
        base = at.grid.k_len - len(self.parents)
        seen = at.j <= torch.where(at.p < base, at.p, at.j.new_tensor(base - 1))
        node = torch.where(at.p < base, -1, at.p - base)
        while bool((node >= 0).any()):  # one generation up a turn
            seen = seen | ((node >= 0) & (at.j == node + base))
            node = torch.where(node >= 0, self.parents[node.clamp(min=0)], -1)
        return seen

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        base = grid.k_len - len(self.parents)
        p = grid.positions()
        table = self._nodes(base, grid.k_len)
        node = np.clip(p - base, 0, max(len(self.parents) - 1, 0))
        before = Rows.interval(grid.k_len, 0, np.minimum(p + 1, base))
        if not len(self.parents):
            return before
        nodes = table.take(node.reshape(-1), (len(p), 1, grid.q_len))
        is_node = Rows.interval(grid.k_len, 0, np.where(p >= base, grid.k_len, 0))
        return either(before, both(nodes, is_node))

    def _nodes(self, base: int, k_len: int) -> Rows:
        """The spans of every node: its parent's, then itself, which may lengthen the last one."""
        done: list[tuple[tuple[int, int], ...]] = []
        root = ((0, base),) if base else ()
        for node, parent in enumerate(self.parents.tolist()):
            spans = done[parent] if parent >= 0 else root
            key = base + node
            first, last = spans[-1] if spans else (0, -1)
            done.append((*spans[:-1], (first, key + 1)) if last == key else (*spans, (key, key + 1)))
        flat = np.array([span for spans in done for span in spans], dtype=np.int32).reshape(-1, 2)
        offsets = np.concatenate(([0], np.cumsum([len(spans) for spans in done], dtype=np.int64)))
        return Rows((1, 1, len(done)), k_len, flat, offsets.astype(np.int64))
