"""Where tensors meet the compiled kernels: they go down as addresses, sizes and strides that are checked here.

A tensor that comes here is what its memory says: a negative bit, a zero tensor and the like were resolved by torch's
dispatcher, past which only plain tensors go (`watch.is_direct`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmha import _kernels, checks, masks
from mmha.ops.call import Call
from mmha.ops.extras import DTYPES, NO_EXTRAS, Extras, at_numbers, make_extras

MAX_HEAD_DIM = 512
PAIRS = "avx512bf16"  # the instruction set that multiplies bfloat16 in pairs, and rounds probabilities for it

Results = tuple[Tensor, Tensor | None, Tensor | None]
#: No gradient of the weights.
NOTHING = (0, 0, (0, 0, 0, 0))

TensorArg = tuple[int, tuple[int, int, int, int], tuple[int, int, int]]


class Backward(NamedTuple):
    """What every backward kernel starts from: a problem, and per row of it lse and delta, float32 (B, H, Tq)."""

    plan: masks.Plan
    dtype: int
    saved: _kernels.Saved
    scale: float
    extras: Extras | None
    threads: int
    lse: Tensor
    delta: Tensor


def has_kernel(q: Tensor, v: Tensor) -> bool:
    """Whether the kernels take this problem: not float64, no empty dimension, head sizes up to 512."""
    if q.dtype not in DTYPES:
        if q.dtype != torch.float64:
            raise TypeError(checks.message("q", "dtype float32, bfloat16, float16 or float64", str(q.dtype)))
        return False
    q_shape, v_shape = q.shape, v.shape
    return 0 not in q_shape and 0 not in v_shape and q_shape[3] <= MAX_HEAD_DIM and v_shape[3] <= MAX_HEAD_DIM


def like(x: Tensor, width: int) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Dimensions and strides of (B, H, T, width) where the heads of a token stand side by side if those of x do.

    So models have them before and after attention, and what comes in their order need not be copied into it.
    """
    (batch, heads, length, _), (_, head, token, _) = x.shape, x.stride()
    steps = (width, heads * width) if head < token else (length * width, width)
    return (batch, heads, length, width), (heads * length * width, *steps, 1)


def empty_like(x: Tensor) -> Tensor:
    """Room for what has the shape and dtype of x, in its order of heads and tokens."""
    return x.new_empty_strided(*like(x, x.shape[3]))


def forward(
    plan: masks.Plan, q: Tensor, k: Tensor, v: Tensor, call: Call, want_lse: bool = True, for_backward: bool = True
) -> Results:
    """out (B, H, Tq, Dv) in the dtype of q; lse, float32 (B, H, Tq), when wanted; and what backward needs besides.

    That is, in half precision, the residual: what rounding took away from out, in its dtype and shape. Backward
    multiplies the gradient of out by the two of them; by out alone the product would be too coarse.
    """
    dims, steps = like(q, v.shape[3])
    out = q.new_empty_strided(dims, steps)
    at_out = out.data_ptr(), dims, steps[:3]
    (q, at_q), (k, at_k), (v, at_v) = _rows(q), _rows(k), _rows(v)
    batch, heads, q_len, dim = at_q[1]
    lse = q.new_empty(batch, heads, q_len, dtype=torch.float32) if want_lse else None
    residual = torch.empty_like(out) if for_backward and out.dtype != torch.float32 else None
    scale = 1.0 / math.sqrt(dim) if call.scale is None else call.scale
    extras = make_extras(call, batch)
    _kernels.forward(
        plan.native, DTYPES[q.dtype], at_q, at_k, at_v, at_out, 0 if residual is None else residual.data_ptr(),
        0 if lse is None else lse.data_ptr(), scale, None if extras is None else extras.native,
        torch.get_num_threads(),
    )  # fmt: skip
    return out, lse, residual


def weights(plan: masks.Plan, q: Tensor, k: Tensor, lse: Tensor, call: Call) -> Tensor:
    """The weights (B, H, Tq, Tk), those before dropout, in the dtype of q; lse as `forward` gave it for this call."""
    (q, at_q), (k, at_k) = _rows(q), _rows(k)
    out = q.new_zeros(*q.shape[:3], k.shape[2])
    scale = 1.0 / math.sqrt(q.shape[3]) if call.scale is None else call.scale
    extras = make_extras(call, q.shape[0])
    _kernels.weights(
        plan.native, DTYPES[q.dtype], at_q, at_k, lse.data_ptr(), _rows(out)[1], scale,
        None if extras is None else extras.native, torch.get_num_threads(),
    )  # fmt: skip
    return out


def backward(
    plan: masks.Plan,
    saved: Sequence[Tensor],
    grads: tuple[Tensor, Tensor | None, Tensor | None],
    wanted: Sequence[bool],
    call: Call,
    own_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """dq, dk, dv, and of `call.differentiable()` the gradients that are wanted.

    saved: q, k, v, and out, lse and residual of `forward` (the last only if there was one); grads: of out, of lse and
    of the weights, which are then given.
    """
    (q, at_q), (k, at_k), (_v, at_v), grad_out = *map(_rows, saved[:3]), _rows(grads[0])
    lse, dtype, threads = saved[4].contiguous(), DTYPES[q.dtype], torch.get_num_threads()
    (out, at_out), residual = _rows(saved[3]), saved[5] if len(saved) > 5 else None
    if residual is not None and residual.stride() != out.stride():  # a compiler may have moved one of them
        residual = torch.empty_strided(out.shape, out.stride(), dtype=out.dtype).copy_(residual)
    # With lse and the weights p outputs as well: ds = p * (dp - sum(p * dp) + grad_lse), where dp is what comes by way
    # of the values and directly, and the kernels subtract one number per row.
    delta = torch.empty_like(lse)
    if any(wanted) and q.dtype == torch.bfloat16 and _kernels.isa() == PAIRS:
        _dot_exactly(plan, saved, grads[0], call, delta)
    else:
        _kernels.row_dot(dtype, at_out, _address(residual), grad_out[1], delta.data_ptr(), threads)
    if grads[1] is not None:
        delta -= grads[1]
    extras, grad_weights = make_extras(call, q.shape[0]), None
    if own_weights is not None and grads[2] is not None:
        # Hidden pairs hold anything, and 0 times NaN is NaN.
        grad_weights, extras = grads[2].masked_fill(own_weights == 0, 0), extras or NO_EXTRAS
        delta += _dot_rows(plan, q, k, lse, call, (own_weights, grad_weights))
    made = empty_like(saved[0]), empty_like(saved[1]), empty_like(saved[2])
    scale = 1.0 / math.sqrt(q.shape[3]) if call.scale is None else call.scale
    at_grad = NOTHING if grad_weights is None else at_numbers(grad_weights)
    native: _kernels.Saved = (at_q, at_k, at_v, lse.data_ptr(), delta.data_ptr(), grad_out[1], at_grad)
    outputs = _rows(made[0])[1], _rows(made[1])[1], _rows(made[2])[1]
    _kernels.backward(plan.native, dtype, native, outputs, scale, None if extras is None else extras.native, threads)
    if not any(wanted):
        return *made, []
    return *made, _more(Backward(plan, dtype, native, scale, extras, threads, lse, delta), wanted, call)


def _dot_exactly(plan: masks.Plan, saved: Sequence[Tensor], grad_out: Tensor, call: Call, delta: Tensor) -> None:
    """delta = rowsum(out * grad_out) with out of probabilities that were not rounded: one forward pass in float32.

    Where bfloat16 comes in pairs, those that made the saved out were rounded, and sums of the scores' gradients over a
    row, which is what the gradients of biases are, would not cancel.
    """
    q, k, v = (x.float() for x in saved[:3])
    (out, at_out), (_grad, at_grad) = _rows(forward(plan, q, k, v, call, False, False)[0]), _rows(grad_out.float())
    _kernels.row_dot(DTYPES[out.dtype], at_out, 0, at_grad, delta.data_ptr(), torch.get_num_threads())


def _dot_rows(plan: masks.Plan, q: Tensor, k: Tensor, lse: Tensor, call: Call, pair: tuple[Tensor, Tensor]) -> Tensor:
    """Per row the product of the weights, before they were rounded to 16 bits, with their gradient: as lse."""
    own, grad = (x.contiguous() for x in pair)
    if own.dtype != torch.float32:
        own, grad = weights(plan, q.float(), k.float(), lse, call), grad.float()
    out = torch.empty_like(lse)
    at = _rows(own)[1], _rows(grad)[1]
    _kernels.row_dot(DTYPES[torch.float32], at[0], 0, at[1], out.data_ptr(), torch.get_num_threads())
    return out


def _more(of: Backward, wanted: Sequence[bool], call: Call) -> list[Tensor]:
    """The wanted gradients of `call.differentiable()`, each in the dtype and shape of its tensor."""
    assert of.extras is not None
    parts, heads = call.differentiable(), of.lse.shape[1]
    slopes, table, sinks, *additives = (
        of.lse.new_zeros(_layout(n, x, heads)) if want and x is not None else None
        for n, (want, x) in enumerate(zip(wanted, parts, strict=True))
    )
    before = of.plan.native, of.dtype, of.saved, of.scale, of.extras.native
    if slopes is not None or table is not None:
        _kernels.table_gradient(*before, _address(table), _address(slopes), of.threads)
    if sinks is not None:
        dims = of.lse.shape[0], heads, of.lse.shape[2]
        lse, delta, given = of.lse.data_ptr(), of.delta.data_ptr(), _address(of.extras.sinks)
        _kernels.sink_gradient(lse, delta, given, dims, sinks.data_ptr())
    for made in additives:
        if made is not None:
            b, h, t, j = made.shape
            _kernels.additive_gradient(*before, made.data_ptr(), (b, h, t, j), of.threads)
    if table is not None and call.table is not None and call.table.shape[0] == 1:
        table = table.sum(0, keepdim=True)
    found = zip((slopes, table, sinks, *additives), parts, strict=True)
    return [made.view(x.shape).to(x.dtype) for made, x in found if made is not None and x is not None]


def _layout(n: int, x: Tensor, heads: int) -> tuple[int, ...]:
    """How the kernels lay out the gradient of the n-th of `Call.differentiable()`: slopes, table, sinks, additives."""
    if n == 1:
        return heads, x.shape[1]
    return tuple(x.shape) if n < 3 else (1,) * (4 - x.dim()) + tuple(x.shape)


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _rows(x: Tensor) -> tuple[Tensor, TensorArg]:
    """The tensor as the kernels read it, its last dimension contiguous; and what they are told, good while it lives."""
    b, h, t, step = x.stride()
    if step != 1:
        x = x.contiguous()
        b, h, t, _ = x.stride()
    return x, (x.data_ptr(), x.shape, (b, h, t))  # type: ignore[return-value]
