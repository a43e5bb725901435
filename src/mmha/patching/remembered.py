"""A caller's mask tensors as mask values, made once for as long as the tensor lives and is not written into.

A model hands the same mask to each of its layers. A tensor is known by its identity, or by that of the tensor it is a
view of, and by torch's count of writes. A write past torch, through `tensor.numpy()`, is not counted and not seen.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from mmha.masks import Mask, as_mask
from mmha.ops.plans import CONTENT_BYTES

MAX_MASKS = 32
#: A float mask hides at -inf and, in effect, at numbers near the lowest of float32: beside any 0 in its row
#: their weight is exactly 0, unless the scores themselves come near to overflow. float16 has no such numbers.
LOWEST = torch.finfo(torch.float32).min / 2


def visible_as_mask(mask: Tensor) -> Mask | Tensor:
    """A mask of scaled_dot_product_attention: bool (True = visible), or float that only hides. Others stay tensors."""
    if torch.compiler.is_compiling() or mask.requires_grad:
        return mask
    if mask.dtype == torch.bool and mask.numel() <= CONTENT_BYTES:
        return mask  # `mmha.attention` knows small ones by their content, which is safer
    made = _REMEMBERED.get(mask, as_mask if mask.dtype == torch.bool else float_as_mask)
    return mask if made is None else made


def hidden_as_mask(mask: Tensor) -> Mask | Tensor:
    """A mask of multi_head_attention_forward, where True in a bool tensor hides."""
    if mask.dtype != torch.bool or torch.compiler.is_compiling():
        return visible_as_mask(mask)
    made = _REMEMBERED.get(mask, _inverted)
    return mask if made is None else made


def _inverted(mask: Tensor) -> Mask:
    return as_mask(mask.logical_not())


def float_as_mask(mask: Tensor) -> Mask | None:
    """The visible pairs of a float mask that adds 0 or hides; None for another.

    A row whose keys are all near the lowest number, and not all at -inf, is not hidden: the softmax is that of equal
    scores. Such a mask is left to be added.
    """
    visible = mask == 0.0
    hidden = mask <= (-torch.inf if mask.dtype == torch.float16 else LOWEST)
    if not bool((visible | hidden).all()):
        return None
    empty = ~visible.any(-1)
    if bool(empty.any()) and not bool((mask[empty] == -torch.inf).all()):
        return None
    return as_mask(visible)


class Remembered:
    """What was made of recent tensors: the least recently used goes first, and each with its tensor."""

    def __init__(self) -> None:
        self._made: OrderedDict[Hashable, tuple[weakref.ref[Tensor], Mask | None]] = OrderedDict()
        self._lock = threading.RLock()  # a tensor may die, and call back, while this thread holds it

    def get(self, mask: Tensor, make: Callable[[Tensor], Mask | None]) -> Mask | None:
        """What make makes of the mask, made now unless it is remembered."""
        if mask.is_inference():
            return make(mask)  # torch does not count the writes into it
        owner = mask if mask._base is None else mask._base
        key = id(owner), mask._version, mask.storage_offset(), mask.shape, mask.stride(), mask.dtype, make
        with self._lock:
            ref, made = self._made.get(key, (None, None))
            if ref is not None and ref() is owner:
                self._made.move_to_end(key)
                return made
        with torch.inference_mode(False):  # what is made in inference mode is not remembered further down
            made = make(mask)
        with self._lock:
            self._made[key] = weakref.ref(owner, lambda _: self._drop(key)), made
            while len(self._made) > MAX_MASKS:
                self._made.popitem(last=False)
        return made

    def _drop(self, key: Hashable) -> None:
        with self._lock:
            self._made.pop(key, None)


_REMEMBERED = Remembered()
os.register_at_fork(
    before=_REMEMBERED._lock.acquire,
    after_in_parent=_REMEMBERED._lock.release,
    after_in_child=_REMEMBERED._lock.release,
)
