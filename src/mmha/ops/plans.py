"""From what an op is handed (a mask's notation and tensors) to a plan: lowered once, then remembered.

A small tensor is remembered by its content, so equal lengths in another tensor find the same plan and writing into
one in any way is noticed. A large one is remembered by its identity and version, through a weak reference that keeps
no memory alive.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

from torch import Tensor

from mmha import masks
from mmha.masks.grid import Coordinates, Grid
from mmha.reference import RowsVisible

#: The notation of a caller's own bool tensor, which is not a frozen value: it may be written between two calls.
PLAIN = "$0"
#: Tensors up to this many bytes are remembered by content; hashing that much takes about 15 microseconds.
CONTENT_BYTES = 1 << 15
MAX_PLANS = 64
MAX_BYTES = 1 << 28


class MaskCall(NamedTuple):
    """A mask as it crosses torch's dispatcher, with the sizes it is used at.

    spec, tensors: what `Mask.flatten` returned, or PLAIN and a bool tensor. sizes: (B, H, Tq, Tk). q_start: None = Tk
    - Tq, or an int tensor, () or (B,).
    """

    spec: str
    tensors: list[Tensor]
    sizes: tuple[int, int, int, int]
    q_start: Tensor | None = None

    def mask(self) -> masks.Mask:
        """The mask value."""
        return masks.as_mask(self.tensors[0]) if self.spec == PLAIN else masks.unflatten(self.spec, self.tensors)

    def lower(self) -> masks.Plan:
        """The plan, from scratch."""
        return self.mask().plan(*self.sizes, self.q_start)

    def rows_visible(self) -> RowsVisible:
        """The mask's definition, a few rows at a time: what the reference takes, independent of the plan."""
        mask, grid = self.mask(), Grid.of(*self.sizes, self.q_start)
        mask._fit(grid)
        keys = slice(0, self.sizes[3])
        return lambda start, stop: mask._holds(Coordinates.of(grid, slice(start, stop), keys))

    def key(self) -> Hashable | None:
        """What the plan depends on; None when a tensor can neither be compared nor watched."""
        start = None
        if self.q_start is not None:
            start = tuple(self.q_start.tolist()) if self.q_start.dim() else int(self.q_start)
        if not self.tensors:
            return self.spec, self.sizes, start
        keys = tuple([_tensor_key(x) for x in self.tensors])
        return None if None in keys else (self.spec, self.sizes, start, keys)

    def watched(self) -> list[Tensor]:
        """The tensors remembered by identity."""
        return [x for x in self.tensors if _is_large(x)]


class PlanCache:
    """The plans of recent calls: least recently used out first, bounded in number and bytes, safe between threads."""

    def __init__(self) -> None:
        self._plans: OrderedDict[Hashable, tuple[masks.Plan, list[weakref.ref[Tensor]]]] = OrderedDict()
        self._lock = threading.RLock()  # a tensor may die, and call back, while this thread holds it
        self._bytes = 0

    def recall(self, spec: str, sizes: tuple[int, int, int, int]) -> masks.Plan | None:
        """The plan of a mask without tensors and q_start, if it is remembered: what `get` would find, sooner."""
        key = (spec, sizes, None)  # `MaskCall.key`
        with self._lock:
            found = self._plans.get(key)
            if found is None:
                return None
            self._plans.move_to_end(key)
            return found[0]

    def get(self, call: MaskCall, *, backward: bool = False) -> masks.Plan:
        """The plan of this call, lowered now unless it is remembered.

        A caller's own large tensor may have been written through numpy, which leaves no trace: a forward call always
        lowers it anew, and only its backward uses what the forward call left here.
        """
        key = call.key()
        if key is None:
            return call.lower()
        watched = call.watched() if call.tensors else call.tensors
        if backward or call.spec != PLAIN or not watched:
            with self._lock:
                plan, refs = self._plans.get(key, (None, []))
                if plan is not None and (not watched or all(r() is x for r, x in zip(refs, watched, strict=True))):
                    self._plans.move_to_end(key)
                    return plan
        plan = call.lower()
        self._keep(key, plan, [weakref.ref(x, lambda _: self._drop(key)) for x in watched])
        return plan

    def _keep(self, key: Hashable, plan: masks.Plan, refs: list[weakref.ref[Tensor]]) -> None:
        with self._lock:
            self._drop(key)
            self._plans[key] = (plan, refs)
            self._bytes += plan.nbytes
            while len(self._plans) > MAX_PLANS or (self._bytes > MAX_BYTES and len(self._plans) > 1):
                self._forget(self._plans.popitem(last=False)[1][0])

    def _drop(self, key: Hashable) -> None:
        with self._lock:
            dropped = self._plans.pop(key, None)
            if dropped is not None:
                self._forget(dropped[0])

    def _forget(self, plan: masks.Plan) -> None:
        size = plan.nbytes  # asked first: whatever it calls may let a tensor die, which calls `_drop` from within
        self._bytes -= size

    def after_fork(self) -> None:
        """In the child: when another thread was inside, it will never leave, and what it left may be half done."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._plans, self._lock, self._bytes = OrderedDict(), threading.RLock(), 0


PLANS = PlanCache()
os.register_at_fork(after_in_child=PLANS.after_fork)


def _is_large(x: Tensor) -> bool:
    return x.numel() * x.element_size() > CONTENT_BYTES


def _tensor_key(x: Tensor) -> Hashable | None:
    if not _is_large(x):
        return x.dtype, x.shape, x.numpy().tobytes()
    return None if x.is_inference() else (id(x), x._version)
