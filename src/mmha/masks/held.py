"""The tensors a mask holds: taken in as frozen copies, compared and hashed by content, written as lists when small."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmha import checks
from mmha.masks.grid import INTEGERS, reach

INLINE = 32  # a tensor with at most this many elements is written out in a repr


@dataclass(frozen=True, slots=True)
class Shared:
    """Marks a tensor to be held without copying it; the mask that holds it is then never cached."""

    tensor: Tensor


def integers(argument: str, value: Any, expected: str) -> Tensor:
    """The value as an int64 tensor on the CPU that nobody else can change: from a tensor, an array, an int or lists.

    While torch.compile traces, a tensor is taken as it is: nothing is copied and no value is looked at.
    """
    if isinstance(value, Shared):
        return value.tensor
    if not isinstance(value, Tensor):
        value = _from_python(argument, value, expected)
    if value.dtype not in INTEGERS:
        raise checks.type_error(argument, expected, value)
    return _frozen(value, torch.int64)


def bools(argument: str, value: Any, expected: str) -> Tensor:
    """The value as a bool tensor on the CPU that nobody else can change; lists may hold 0 and 1 for False and True."""
    if isinstance(value, Shared):
        return value.tensor
    if not isinstance(value, Tensor):
        value = _from_python(argument, value, expected)
        if value.dtype == torch.int64 and bool(((value == 0) | (value == 1)).all()):
            value = value != 0
    if value.dtype != torch.bool:
        raise checks.type_error(argument, expected, value)
    return _frozen(value, torch.bool)


def lengths(argument: str, value: Any) -> int | Tensor:
    """One count >= 0 for all rows of the batch, or an int64 tensor (B,) of them."""
    if isinstance(value, (int, np.integer)):
        return reach(argument, value, 0)
    made = integers(argument, value, "an int or integers of shape (B,)")
    if made.dim() != 1:
        raise checks.value_error(argument, "an int or integers of shape (B,)", f"shape {checks.shape_text(made.shape)}")
    if not (isinstance(value, Shared) or torch.compiler.is_compiling()):
        fit_lengths(argument, made, len(made))
    return made


def fit_lengths(argument: str, value: int | Tensor, batch: int) -> None:
    """Raise ValueError when lengths do not match the batch or one is negative."""
    if isinstance(value, int):
        return
    checks.shape_is(argument, value, (batch,), "(B,)")
    least = numpy(value).min(initial=0)
    if least < 0:
        raise checks.value_error(argument, "integers >= 0", str(least))


def per_row(value: int | Tensor) -> int | npt.NDArray[np.int64]:
    """Lengths as an operand that broadcasts to (b, h, t)."""
    return value if isinstance(value, int) else numpy(value).reshape(-1, 1, 1)


def _from_python(argument: str, value: Any, expected: str) -> Tensor:
    if not isinstance(value, (int, Sequence, np.ndarray)) or isinstance(value, str):
        raise checks.type_error(argument, expected, value)
    try:
        made = torch.tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, strings inside
        raise checks.type_error(argument, expected, value) from error
    return made.to(torch.int64) if made.numel() == 0 else made  # torch takes an empty list for floats


def _frozen(value: Tensor, dtype: torch.dtype) -> Tensor:
    value = value.detach()
    if torch.compiler.is_compiling():
        return value.to("cpu", dtype)
    if not torch.is_inference_mode_enabled():
        return value.to("cpu", dtype, copy=True).contiguous()
    with torch.inference_mode(False):  # a copy made for inference has no version by which a cache could know it
        return value.to("cpu", dtype, copy=True).contiguous()


def numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """The tensor's memory as an array; nothing is copied."""
    array: npt.NDArray[Any] = tensor.numpy()
    return array


def same(a: Any, b: Any) -> bool:
    """Equality of constructor arguments: tensors by dtype, shape and content."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        both = isinstance(a, Tensor) and isinstance(b, Tensor)
        return both and (a is b or (a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)))
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(type(a) is type(b) and a == b)


def digest(value: Any) -> int:
    """A hash that agrees with `same`; a tensor's is taken over its bytes."""
    if isinstance(value, Tensor):
        array = np.ascontiguousarray(numpy(value))
        return hash((str(value.dtype), tuple(value.shape), zlib.crc32(array.reshape(-1).view(np.uint8).data)))
    if isinstance(value, tuple):
        return hash(tuple(digest(item) for item in value))
    return hash(value)


def text(value: Any, tensors: list[Tensor] | None) -> str:
    """An argument in the notation: tensors as $n when they are collected, else as a list if small, else as a shape."""
    if isinstance(value, Tensor):
        if tensors is not None:
            tensors.append(value)
            return f"${len(tensors) - 1}"
        if value.numel() <= INLINE and 0 not in value.shape[:-1]:
            return repr(value.tolist())
        return f"<{str(value.dtype).removeprefix('torch.')} {checks.shape_text(value.shape)}>"
    if isinstance(value, tuple):
        return "[" + ", ".join([text(item, tensors) for item in value]) + "]"
    return value._text(tensors) if hasattr(value, "_text") else repr(value)
