"""Predicate: a mask given as a vectorised function, as FlexAttention's mask_mod; and how one travels in a spec."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmha import checks
from mmha.masks.base import Mask
from mmha.masks.grid import Coordinates, Grid
from mmha.masks.lowering import Block, from_blocks
from mmha.masks.rows import Rows

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Any]
KEPT = 1024  # functions that a spec may still name; bounded, because a training loop may make a new one every step
_functions: dict[int, MaskMod] = {}
_numbers: dict[MaskMod, int] = {}
_last = [0]
_locks = [threading.Lock()]


def _after_fork() -> None:
    _locks[0] = threading.Lock()  # the thread that held the old one, if any, is not in the child


os.register_at_fork(after_in_child=_after_fork)


def number_of(fn: MaskMod) -> int:
    """The number under which a spec names the function, the same for as long as it is remembered."""
    with _locks[0]:
        if fn in _numbers:
            _functions[_numbers[fn]] = _functions.pop(_numbers[fn])  # used last, forgotten last
        else:
            _last[0] += 1
            _numbers[fn] = _last[0]
            _functions[_last[0]] = fn
            if len(_functions) > KEPT:
                oldest = next(iter(_functions))
                del _numbers[_functions.pop(oldest)]
        return _numbers[fn]


# What torch.compiler.assume_constant_result does; that imports the whole compiler, which doubles the time of an import.
number_of._dynamo_marked_constant = True  # type: ignore[attr-defined]


def function_of(number: int) -> MaskMod:
    """The function a spec names. Raises ValueError when it is not (or no longer) known in this process."""
    if number not in _functions:
        expected = f"one of the last {KEPT} predicates of this process (define the function once, outside the loop)"
        raise checks.value_error("spec", expected, f"Predicate(@{number})")
    return _functions[number]


class Predicate(Mask):
    """Any mask, given as a function: visible where fn(b, h, p, j) is True. Vectorised, as FlexAttention's mask_mod.

    fn is called with int64 tensors b (B, 1, 1, 1), h (1, H, 1, 1), p (1 or B, 1, rows, 1), j (1, 1, 1, keys) for a
    block of rows at a time and returns bools that broadcast to (B, H, rows, keys), whichever block it is asked for.
    Joined by `&` with a mask that bounds each row, as a window does, it is asked about that range only.
    Raises TypeError when fn is not callable or does not return bools, ValueError when the shape is wrong.

    >>> from mmha.masks import Predicate
    >>> print(Predicate(lambda b, h, p, j: (p + j) % 3 == 0).show(3))
    0 ██· ·
    1 · · ██
    2 · ██·
    """

    fn: MaskMod

    def __init__(self, fn: MaskMod) -> None:
        if not callable(fn) or getattr(type(fn), "__hash__", None) is None:
            raise checks.type_error("fn", "a hashable function of (b, h, p, j)", fn)
        self._set(fn=fn)

    def _args(self) -> tuple[Any, ...]:
        return (self.fn,)

    def _text(self, tensors: list[Tensor] | None) -> str:
        if tensors is not None:
            return f"Predicate(@{number_of(self.fn)})"
        return f"Predicate(<{getattr(self.fn, '__qualname__', type(self.fn).__name__)}>)"

    def _irregular(self) -> bool:
        return True

    def _holds(self, at: Coordinates) -> Tensor:
        return self._call(at.b, at.h, at.p, at.j)

    def _call(self, b: Tensor, h: Tensor, p: Tensor, j: Tensor) -> Tensor:
        seen = self.fn(b, h, p, j)
        seen = seen if isinstance(seen, Tensor) else torch.as_tensor(seen)
        if seen.dtype != torch.bool:
            raise checks.type_error("fn", "bools from fn(b, h, p, j)", seen)
        wanted = (len(b), h.shape[1], p.shape[2], j.shape[3])
        fits = seen.dim() <= 4 and all(
            have in (1, size) for have, size in zip(reversed(seen.shape), reversed(wanted), strict=False)
        )
        if not fits:
            expected = f"a shape from fn that broadcasts to (B, H, rows, keys) = {checks.shape_text(wanted)}"
            raise checks.value_error("fn", expected, checks.shape_text(seen.shape))
        return seen.reshape((1,) * (4 - seen.dim()) + tuple(seen.shape))

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        at = Coordinates.of(grid, slice(0, grid.q_len), slice(0, grid.k_len))
        b, h, _, _ = self._call(at.b, at.h, at.p[:, :, :1], at.j[..., :1]).shape  # 1 where fn does not look

        def evaluate(block: Block) -> npt.NDArray[np.bool_]:
            p = at.p[:, :, block.rows] if len(at.p) == 1 else at.p[block.batch][:, :, block.rows]
            seen = self._call(at.b[block.batch], at.h[:, block.heads], p, at.j[..., block.keys])
            return np.broadcast_to(seen.numpy(), block.shape)

        return from_blocks((b, h, grid.q_len), grid.k_len, evaluate, within)
