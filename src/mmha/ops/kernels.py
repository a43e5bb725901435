"""Where tensors meet the compiled kernels: they go down as pointers, sizes and strides that are checked here."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmha import _kernels, checks, masks

MAX_HEAD_DIM = 512

TensorArg = tuple[int, tuple[int, int, int, int], tuple[int, int, int]]


def sizes_of(q: Tensor, k: Tensor) -> tuple[int, int, int, int]:
    """(B, H, Tq, Tk)."""
    return q.shape[0], q.shape[1], q.shape[2], k.shape[2]


def has_kernel(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the kernels take this problem: float32, no empty dimension, head sizes up to 512."""
    if q.dtype not in (torch.float32, torch.float64):
        raise TypeError(checks.message("q", "dtype float32 or float64 for the operator", str(q.dtype)))
    narrow = q.shape[3] <= MAX_HEAD_DIM and v.shape[3] <= MAX_HEAD_DIM
    return q.dtype == torch.float32 and narrow and 0 not in q.shape and 0 not in v.shape


def default_scale(q: Tensor, scale: float | None) -> float:
    """`scale`, or 1 / sqrt(D); with D = 0 every score is 0 and any finite scale is right."""
    return 1.0 / math.sqrt(max(q.shape[3], 1)) if scale is None else scale


def forward(plan: masks.Plan, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """out (B, H, Tq, Dv) and lse (B, H, Tq), float32."""
    q, k, v = _plain_rows(q), _plain_rows(k), _plain_rows(v)
    out = q.new_empty((*q.shape[:3], v.shape[3]))
    lse = q.new_empty(q.shape[:3])
    threads = torch.get_num_threads()
    _kernels.forward(plan.native, 0, _arg(q), _arg(k), _arg(v), _arg(out), 0, lse.data_ptr(), scale, None, threads)
    return out, lse


def backward(
    plan: masks.Plan,
    inputs: tuple[Tensor, ...],
    results: tuple[Tensor, Tensor],
    grads: tuple[Tensor, Tensor | None],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv from (q, k, v), (out, lse) and their gradients."""
    q, k, v = (_plain_rows(x) for x in inputs)
    out, grad_out = _plain_rows(results[0]), _plain_rows(grads[0])
    lse = results[1].contiguous()
    threads = torch.get_num_threads()
    # With lse an output as well: ds = p * (dp - sum(p * dp) + grad_lse), and the kernels subtract one number per row.
    delta = q.new_empty(lse.shape)
    _kernels.row_dot(0, _arg(out), 0, _arg(grad_out), delta.data_ptr(), threads)
    if grads[1] is not None:
        delta -= grads[1]
    made = q.new_empty(q.shape), q.new_empty(k.shape), q.new_empty(v.shape)
    saved = _arg(q), _arg(k), _arg(v), lse.data_ptr(), delta.data_ptr(), _arg(grad_out)
    dq, dk, dv = (_arg(x) for x in made)
    _kernels.backward(plan.native, 0, saved, (dq, dk, dv), scale, None, threads)
    return made


def _plain_rows(x: Tensor) -> Tensor:
    """The tensor as the kernels read it: real numbers in memory, the last dimension contiguous."""
    if x.is_neg() or x._is_zerotensor():  # promises about numbers that are not in memory
        x = x.clone().resolve_neg()
    return x if x.stride(3) == 1 else x.contiguous()


def _arg(x: Tensor) -> TensorArg:
    return x.data_ptr(), x.shape, x.stride()[:3]  # type: ignore[return-value]
