"""Where tensors meet the compiled kernels: they go down as addresses, sizes and strides that are checked here.

A tensor that comes here is what its memory says: a negative bit, a zero tensor and the like were resolved by torch's
dispatcher, past which only plain tensors go (`watch.is_plain`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmha import _kernels, checks, masks
from mmha.ops.call import Call
from mmha.ops.extras import DTYPES, Extras, make_extras

MAX_HEAD_DIM = 512

TensorArg = tuple[int, tuple[int, int, int, int], tuple[int, int, int]]

# ---- Until the kernels take every dtype and extras ---------------------------------------------------------------
# The binding of today knows plain float32 alone; all else goes through the reference. To remove: this block, its
# mention in `has_kernel`, and the branches on COMPLETE.
COMPLETE = "extras" in (_kernels.forward.__doc__ or "")


def _is_bare(q: Tensor, call: Call) -> bool:
    return q.dtype == torch.float32 and not (
        any(x is not None for x in call.differentiable()) or call.softcap is not None or call.dropout_p
    )


# -------------------------------------------------------------------------------------------------------------------


def has_kernel(q: Tensor, v: Tensor, call: Call) -> bool:
    """Whether the kernels take this problem: not float64, no empty dimension, head sizes up to 512."""
    if q.dtype not in DTYPES:
        if q.dtype != torch.float64:
            raise TypeError(checks.message("q", "dtype float32, bfloat16, float16 or float64", str(q.dtype)))
        return False
    if not (COMPLETE or _is_bare(q, call)):
        return False
    q_shape, v_shape = q.shape, v.shape
    return 0 not in q_shape and 0 not in v_shape and q_shape[3] <= MAX_HEAD_DIM and v_shape[3] <= MAX_HEAD_DIM


def forward(
    plan: masks.Plan, q: Tensor, k: Tensor, v: Tensor, call: Call, want_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """out (B, H, Tq, Dv) in the dtype of q, and lse (B, H, Tq), float32, when it is wanted."""
    q, k, v = _rows(q), _rows(k), _rows(v)
    at_q, at_k, at_v = _arg(q), _arg(k), _arg(v)
    batch, heads, q_len, dim = at_q[1]
    out = q.new_empty(batch, heads, q_len, at_v[1][3])
    lse = q.new_empty(batch, heads, q_len, dtype=torch.float32) if want_lse else None
    scale = 1.0 / math.sqrt(dim) if call.scale is None else call.scale
    at_lse = 0 if lse is None else lse.data_ptr()
    if COMPLETE:
        extras = make_extras(call, batch, heads)
        native = None if extras is None else extras.native
        _kernels.forward(
            plan.native, DTYPES[q.dtype], at_q, at_k, at_v, _arg(out), at_lse, scale, native, torch.get_num_threads()
        )
    else:
        _kernels.forward(plan.native, at_q, at_k, at_v, _arg(out), at_lse, scale, torch.get_num_threads())  # type: ignore[call-arg, arg-type]
    return out, lse


def backward(
    plan: masks.Plan, saved: Sequence[Tensor], grads: tuple[Tensor, Tensor | None], wanted: Sequence[bool], call: Call
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """dq, dk, dv from (q, k, v, out, lse) and the gradients of out and lse; and of `call.differentiable()` the wanted."""
    q, k, v, out, grad_out = (_rows(x) for x in (*saved[:4], grads[0]))
    lse, dtype, threads = saved[4].contiguous(), DTYPES[q.dtype], torch.get_num_threads()
    # With lse an output as well: ds = p * (dp - sum(p * dp) + grad_lse), and the kernels subtract one number per row.
    delta = torch.empty_like(lse)
    _row_dot(dtype, out, grad_out, delta, threads)
    if grads[1] is not None:
        delta -= grads[1]
    made = q.new_empty(q.shape), q.new_empty(k.shape), q.new_empty(v.shape)
    extras = make_extras(call, *q.shape[:2])
    scale = 1.0 / math.sqrt(q.shape[3]) if call.scale is None else call.scale
    problem: Any = (_arg(q), _arg(k), _arg(v), lse.data_ptr(), delta.data_ptr(), _arg(grad_out))
    outputs = _arg(made[0]), _arg(made[1]), _arg(made[2])
    if not COMPLETE:
        _kernels.backward(plan.native, *problem, outputs, scale, threads)
        return *made, []
    problem = plan.native, dtype, *problem
    _kernels.backward(*problem, outputs, scale, None if extras is None else extras.native, threads)
    if extras is None or not any(wanted):
        return *made, []
    return *made, _extra_gradients(extras, wanted, call, (lse, delta), (*problem, scale, extras.native), threads)


def _extra_gradients(
    extras: Extras, wanted: Sequence[bool], call: Call, rows: tuple[Tensor, Tensor], problem: Any, threads: int
) -> list[Tensor]:
    """The wanted gradients of `call.differentiable()`, each in the dtype and shape of its tensor."""
    slopes, table, sinks, *additives = (
        None if not want or x is None else x.new_zeros(shape, dtype=torch.float32)
        for want, x, shape in zip(wanted, call.differentiable(), extras.gradient_shapes(call), strict=True)
    )
    if slopes is not None or table is not None:
        addresses = (0 if x is None else x.data_ptr() for x in (table, slopes))
        _kernels.table_gradient(*problem, *addresses, threads)
    if sinks is not None and extras.sinks is not None:
        lse, delta = rows
        dims: Any = tuple(lse.shape)
        _kernels.sink_gradient(
            lse.data_ptr(), delta.data_ptr(), extras.sinks.data_ptr(), dims, sinks.data_ptr(), threads
        )
    for index, made in enumerate(additives):
        if made is not None:
            shape: Any = tuple(made.shape)
            _kernels.additive_gradient(*problem, index, (made.data_ptr(), shape), threads)
    if table is not None and call.table is not None and call.table.shape[0] == 1:
        table = table.sum(0, keepdim=True)
    return [
        made.view(x.shape).to(x.dtype)
        for made, x in zip((slopes, table, sinks, *additives), call.differentiable(), strict=True)
        if made is not None and x is not None
    ]


def _row_dot(dtype: int, a: Tensor, b: Tensor, out: Tensor, threads: int) -> None:
    if COMPLETE:
        _kernels.row_dot(dtype, _arg(a), _arg(b), out.data_ptr(), threads)
    else:
        _kernels.row_dot(_arg(a), _arg(b), out.data_ptr(), threads)  # type: ignore[call-arg, arg-type]


def _rows(x: Tensor) -> Tensor:
    """The tensor as the kernels read it: its last dimension contiguous."""
    return x if x.stride(3) == 1 else x.contiguous()


def _arg(x: Tensor) -> TensorArg:
    return x.data_ptr(), x.shape, x.stride()[:3]  # type: ignore[return-value]
