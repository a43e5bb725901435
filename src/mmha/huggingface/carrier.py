"""A mask value in the form in which transformers' models hand masks from layer to layer: a tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mmha.masks import Mask

_CPU = torch.device("cpu")
#: Asks for no number, and gives the tensor itself or a copy, never a part of it that could be written to.
_UNREAD = frozenset({
    "__get__", "__len__", "contiguous", "dim", "is_contiguous", "is_floating_point", "numel", "size", "stride", "to",
})  # fmt: skip


class MaskTensor(Tensor):
    """A float tensor (B, 1, Tq, Tk) without memory that stands for a mask value: 0 = visible, the lowest number = not.

    Models ask a mask for its shape or whether it is a tensor, and pass it on; then it stays a value. One that reads
    its numbers or computes with it gets the dense tensor that transformers' eager attention would have been given;
    one that writes into it writes into that tensor, which from then on is the mask.
    """

    value: Mask
    q_start: int | None
    sizes: tuple[int, int, int, int]
    _dense: Tensor | None
    _version_made: int

    @staticmethod
    def __new__(
        cls: type[MaskTensor], value: Mask, sizes: tuple[int, int, int], q_start: int, dtype: torch.dtype
    ) -> MaskTensor:
        batch, q_len, k_len = sizes
        made: MaskTensor = Tensor._make_wrapper_subclass(cls, (batch, 1, q_len, k_len), dtype=dtype, device=_CPU)
        made.value, made.sizes = value, (batch, 1, q_len, k_len)
        made.q_start = None if q_start == k_len - q_len else q_start  # None is what plans are found by soonest
        made._dense = None
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, first = kwargs or {}, args[0] if args else None
        with torch._C.DisableTorchFunctionSubclass():
            if isinstance(first, MaskTensor) and not first.is_written:
                if func.__name__ in _UNREAD:
                    return func(*args, **kwargs)
                if func.__name__ == "detach" or (func.__name__ == "__getitem__" and first._is_whole(args[1])):
                    return first._twin()
            return cls.__torch_dispatch__(func, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = pytree.tree_map_only(MaskTensor, MaskTensor.dense, (args, kwargs or {}))
        return func(*args, **kwargs)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"MaskTensor({self.value!r}, shape={self.sizes})"

    @property
    def is_written(self) -> bool:
        """Whether somebody wrote into the dense tensor, so that the value is no longer the mask."""
        return self._dense is not None and self._dense._version != self._version_made

    def dense(self) -> Tensor:
        """The tensor itself, built when it is first asked for."""
        if self._dense is None:
            batch, _, q_len, k_len = self.sizes
            with torch.inference_mode(False), torch.no_grad():  # a tensor made for inference would count no versions
                seen = self.value.dense(batch, 1, q_len, k_len, self.q_start)
                made = torch.zeros(seen.shape, dtype=self.dtype, device=_CPU)
                self._dense = made.masked_fill_(~seen, torch.finfo(self.dtype).min)
                self._version_made = self._dense._version
        return self._dense

    def _is_whole(self, index: Any) -> bool:
        """Whether indexing leaves everything: models cut a mask to the length of the keys, which it mostly has."""
        parts = index if isinstance(index, tuple) else (index,)
        if not all(part is Ellipsis or isinstance(part, slice) for part in parts):
            return False
        return torch.empty(self.sizes, device="meta")[index].shape == self.sizes

    def _twin(self) -> MaskTensor:
        batch, _, q_len, k_len = self.sizes
        start = k_len - q_len if self.q_start is None else self.q_start
        return MaskTensor(self.value, (batch, q_len, k_len), start, self.dtype)
