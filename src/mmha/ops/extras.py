"""What a call adds to plain attention, as the compiled kernels take it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmha import _kernels
from mmha.ops.call import Call

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
LARGEST = 2.0**127  # the kernels' scores are in base 2, and as such below float32's largest


class Extras(NamedTuple):
    """The native form, and the tensors whose memory it points into: they must live as long as it is used."""

    native: _kernels.Extras
    tensors: tuple[Tensor | None, ...]
    sinks: Tensor | None


def make_extras(call: Call, batch: int) -> Extras | None:
    """All of the call but its mask and scale; None when there is nothing of it."""
    if call.softcap is None and not call.dropout_p and not call.parts():
        return None
    slopes, table, sinks = (_single(x) for x in (call.slopes, call.table, call.sinks))
    start = None
    if call.q_start is not None and (slopes is not None or table is not None):
        start = call.q_start.expand(batch).to(torch.int64).contiguous()
    additives = [x if x.dtype in DTYPES else narrowed(x) for x in call.additives]
    dropout_p, seed = (0.0, 0) if call.seed is None else (call.dropout_p, int(call.seed))
    native = (
        call.softcap or 0.0, _address(start), _address(slopes), _table(table), [at_numbers(x) for x in additives],
        _address(sinks), dropout_p, seed,
    )  # fmt: skip
    return Extras(native, (start, slopes, table, *additives), sinks)


#: Extras that change nothing, for a kernel that takes its way through them.
NO_EXTRAS = Extras((0.0, 0, 0, (0, 0, 0), [], 0, 0.0, 0), (), None)


def narrowed(x: Tensor) -> Tensor:
    """The numbers in float32, where a finite one stays finite: float64's least, say, which hides nothing."""
    if x.dtype != torch.float64:
        return x.float()
    return torch.where(x.isinf(), x, x.clamp(-LARGEST, LARGEST)).float()


def _single(x: Tensor | None) -> Tensor | None:
    return None if x is None else narrowed(x).contiguous()


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _table(x: Tensor | None) -> tuple[int, int, int]:
    return (0, 0, 0) if x is None else (x.data_ptr(), x.shape[1], 0 if x.shape[0] == 1 else x.shape[1])


def at_numbers(x: Tensor) -> _kernels.Additive:
    """A tensor broadcastable to (B, H, Tq, Tk) as the kernels read it, good while it lives."""
    steps = [0 if size == 1 else step for size, step in zip(x.shape, x.stride(), strict=True)]
    b, h, t, j = [0] * (4 - x.dim()) + steps
    return x.data_ptr(), DTYPES[x.dtype], (b, h, t, j)
