"""A mask value in the form in which transformers' models hand masks from layer to layer: a tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mmha.masks import Mask

_CPU = torch.device("cpu")
_SAME = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)


class MaskTensor(Tensor):
    """A float tensor (B, 1, Tq, Tk) without memory that stands for a mask value: 0 = visible, the lowest number = not.

    Models ask a mask for its shape or whether it is a tensor, and pass it on; then it stays a value. One that reads
    its numbers or computes with it gets the dense tensor that transformers' eager attention would have been given;
    one that writes into it writes into that tensor, which from then on is the mask.
    """

    value: Mask
    q_start: int | None
    _dense: Tensor | None
    _version_made: int

    @staticmethod
    def __new__(
        cls: type[MaskTensor], value: Mask, sizes: tuple[int, int, int], q_start: int, dtype: torch.dtype
    ) -> MaskTensor:
        batch, q_len, k_len = sizes
        made: MaskTensor = Tensor._make_wrapper_subclass(cls, (batch, 1, q_len, k_len), dtype=dtype, device=_CPU)
        made.value = value
        made.q_start = None if q_start == k_len - q_len else q_start  # None is what plans are found by soonest
        made._dense = None
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in _SAME and not args[0].is_written:
            return args[0]._twin()
        args, kwargs = pytree.tree_map_only(MaskTensor, MaskTensor.dense, (args, kwargs or {}))
        return func(*args, **kwargs)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"MaskTensor({self.value!r}, shape={tuple(self.shape)})"

    @property
    def is_written(self) -> bool:
        """Whether somebody wrote into the dense tensor, so that the value is no longer the mask."""
        return self._dense is not None and self._dense._version != self._version_made

    def dense(self) -> Tensor:
        """The tensor itself, built when it is first asked for."""
        if self._dense is None:
            batch, _, q_len, k_len = self.shape
            with torch.inference_mode(False), torch.no_grad():  # a tensor made for inference would count no versions
                seen = self.value.dense(batch, 1, q_len, k_len, self.q_start)
                made = torch.zeros(seen.shape, dtype=self.dtype, device="cpu")
                self._dense = made.masked_fill_(~seen, torch.finfo(self.dtype).min)
                self._version_made = self._dense._version
        return self._dense

    def _twin(self) -> MaskTensor:
        batch, _, q_len, k_len = self.shape
        start = k_len - q_len if self.q_start is None else self.q_start
        return MaskTensor(self.value, (batch, q_len, k_len), start, self.dtype)
