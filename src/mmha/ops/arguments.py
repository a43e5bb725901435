"""What `mmha.attention` accepts: every argument is checked here, before anything is computed."""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch
from torch import Tensor

from mmha import checks
from mmha.bias import Bias, Parts
from mmha.masks import Mask

FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
#: The scale is multiplied by log2(e) before it meets a score; float32 ends at 3.4e38.
MAX_SCALE = 1e38
#: A score is divided by the softcap: float32 holds it and its inverse.
MAX_SOFTCAP = 1e30
#: Row and key numbers are added to positions: this leaves room in 64 bits.
MAX_START = 1 << 60
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


#: (B, H, Tq, Tk).
Sizes = tuple[int, int, int, int]


def check_tensors(q: Any, k: Any, v: Any, direct: bool) -> Sizes:
    """The sizes of the problem, when q (B, H, Tq, D), k (B, Hk, Tk, D) and v (B, Hk, Tk, Dv) fit together.

    direct: `watch.is_direct` of the three, which answers most questions.
    """
    if direct and q.dtype in FLOATING and q.dtype == k.dtype == v.dtype and q.dim() == k.dim() == v.dim() == 4:
        (batch, heads, q_len, dim), (k_batch, k_heads, k_len, k_dim) = q.shape, k.shape
        v_batch, v_heads, v_len, _ = v.shape
        same = batch == k_batch == v_batch and dim == k_dim and k_heads == v_heads and k_len == v_len
        if same and k_heads and heads % k_heads == 0:
            return batch, heads, q_len, k_len
    return _check_tensors(q, k, v)


def _check_tensors(q: Any, k: Any, v: Any) -> Sizes:
    """The same, question by question: for what `check_tensors` has no quick answer to."""
    for name, letters, x in (("q", "(B, H, Tq, D)", q), ("k", "(B, Hk, Tk, D)", k), ("v", "(B, Hk, Tk, Dv)", v)):
        if not isinstance(x, Tensor):
            raise checks.type_error(name, f"a tensor of shape {letters}", x)
        check_storage(name, x)
        if x.dtype not in FLOATING:
            raise TypeError(checks.message(name, "dtype float32, bfloat16, float16 or float64", _name(x.dtype)))
        if x.dim() != 4:
            raise checks.value_error(name, f"4 dimensions {letters}", f"shape {checks.shape_text(x.shape)}")
    (batch, heads, q_len, dim), (_, k_heads, k_len, _) = q.shape, k.shape
    for name, x in (("k", k), ("v", v)):
        if x.dtype != q.dtype:
            raise TypeError(checks.message(name, f"the dtype of q, {_name(q.dtype)}", _name(x.dtype)))
        if x.shape[0] != batch:
            raise checks.value_error(name, f"the batch size of q, {batch}", f"shape {checks.shape_text(x.shape)}")
    if k.shape[3] != dim:
        raise checks.value_error("k", f"the head size of q, {dim}", f"shape {checks.shape_text(k.shape)}")
    if v.shape[1] != k_heads or v.shape[2] != k_len:
        expected = f"the heads and length of k, ({batch}, {k_heads}, {k_len}, Dv)"
        raise checks.value_error("v", expected, f"shape {checks.shape_text(v.shape)}")
    if (k_heads == 0 and heads != 0) or (k_heads != 0 and heads % k_heads != 0):
        raise checks.value_error("q", f"heads H in a multiple of the heads of k, {k_heads}", f"H = {heads}")
    return batch, heads, q_len, k_len


def check_memory(name: str, *tensors: Tensor | None) -> None:
    """Raise for a tensor whose storage was freed (`untyped_storage().resize_(0)`): reading it would end the process."""
    for x in tensors:
        if x is not None and x.data_ptr() == 0 and x.numel():
            raise checks.value_error(name, "a tensor with its numbers in memory", "one whose storage was freed")


def check_mask(mask: Any, sizes: Sizes) -> Mask | Tensor | None:
    """The mask, when it is one: None, a Mask, or a bool or float tensor broadcastable to (B, H, Tq, Tk)."""
    if mask is None or isinstance(mask, Mask):
        return mask
    expected = "None, a Mask, a bool tensor (True = visible) or a float tensor (added to the scores)"
    if not isinstance(mask, Tensor) or (mask.dtype != torch.bool and mask.dtype not in FLOATING):
        raise checks.type_error("mask", expected, mask)
    if causal_bias(mask):
        raise checks.type_error("mask", "mmha.masks.Causal(), or a tensor that holds its numbers", mask)
    check_storage("mask", mask)
    trailing = sizes[max(0, 4 - mask.dim()) :]
    if mask.dim() > 4 or any(have not in (1, want) for have, want in zip(mask.shape, trailing, strict=True)):
        text = f"a shape that broadcasts to (B, H, Tq, Tk) = {checks.shape_text(sizes)}"
        raise checks.value_error("mask", text, checks.shape_text(mask.shape))
    return mask


def causal_bias(mask: Any) -> str:
    """The name of the variant of torch's CausalBias, a tensor whose memory nobody has written to; "" for all else."""
    # Importing its class takes longer than importing torch.
    return str(mask.variant.name) if type(mask).__module__ == "torch.nn.attention.bias" else ""


def check_scale(scale: Any, dtype: torch.dtype) -> float | None:
    """The scale: None, or a number that is finite where scores are computed (float32, or float64 for float64)."""
    if scale is None:
        return None
    number = scale if type(scale) is float and math.isfinite(scale) else checks.number("scale", scale)
    if dtype != torch.float64 and abs(number) > MAX_SCALE:
        raise checks.value_error("scale", f"a number within ±{MAX_SCALE:.0e}, as float32 can hold", str(number))
    return number


def check_flags(return_lse: Any, return_weights: Any) -> None:
    """Raise unless both are True or False: any other value may not mean what it looks like ("no" is true)."""
    for name, flag in (("return_lse", return_lse), ("return_weights", return_weights)):
        if flag is not True and flag is not False:
            raise checks.type_error(name, "True or False", flag)


def check_start(q_start: Any, batch: int) -> Tensor | None:
    """`q_start` as an int tensor, () for one position or (B,) for one per batch row; None stays None."""
    if q_start is None:
        return None
    if not isinstance(q_start, Tensor):
        start = q_start if type(q_start) in (int, torch.SymInt) else _integer(q_start)
        if type(start) is int and abs(start) > MAX_START:
            raise checks.value_error("q_start", "an integer within 2**60", str(start))
        return torch.full((), start, dtype=torch.int64, device="cpu")
    check_storage("q_start", q_start)
    if q_start.dtype not in INTEGERS:
        raise checks.type_error("q_start", "None, an int or an int tensor (B,)", q_start)
    checks.shape_is("q_start", q_start, (batch,), "(B,)")
    return q_start


def check_bias(bias: Any, sizes: Sizes) -> Parts | None:
    """The parts of the bias, when it is one and fits; None stays None."""
    if bias is None:
        return None
    if not isinstance(bias, Bias):
        raise checks.type_error("bias", "None or a Bias (mmha.bias; Additive(x) makes one of a tensor)", bias)
    bias.fit(*sizes)
    parts = bias.parts()
    for x in (parts.slopes, parts.table, *parts.additives):
        if x is not None:
            check_storage("bias", x)
    return parts


def check_softcap(softcap: Any) -> float | None:
    """The softcap: None, or a number > 0 whose inverse float32 can hold too."""
    if softcap is None:
        return None
    expected = f"None or a number from {1 / MAX_SOFTCAP:.0e} to {MAX_SOFTCAP:.0e}"
    number = _number("softcap", softcap, expected)
    if not 1 / MAX_SOFTCAP <= number <= MAX_SOFTCAP:
        raise checks.value_error("softcap", expected, str(number))
    return number


def check_sinks(sinks: Any, heads: int) -> Tensor | None:
    """The sinks: None, or a float tensor (H,). What is in it is looked at where attention is computed."""
    if sinks is None:
        return None
    if not isinstance(sinks, Tensor) or sinks.dtype not in FLOATING:
        raise checks.type_error("sinks", "None or a float tensor (H,)", sinks)
    check_storage("sinks", sinks)
    checks.shape_is("sinks", sinks, (heads,), "(H,)")
    return sinks


def check_dropout(dropout_p: Any) -> float:
    """The share of weights to drop: a number from 0 to 1."""
    expected = "a number from 0 to 1"
    number = _number("dropout_p", dropout_p, expected)
    if not 0.0 <= number <= 1.0:
        raise checks.value_error("dropout_p", expected, str(number))
    return number


def _number(name: str, value: Any, expected: str) -> float:
    """The value as a float, NaN and infinities included; a bool or a tensor is refused."""
    if type(value) is float:
        return value
    if isinstance(value, bool) or checks.is_tensor(value) or not isinstance(value, numbers.Real):
        raise checks.type_error(name, expected, value)
    return float(value)


def check_storage(name: str, x: Tensor) -> None:
    """Raise unless the tensor is an ordinary strided one in this machine's memory."""
    if x.is_nested or x.layout != torch.strided:
        kind = "a nested tensor" if x.is_nested else f"layout {_name(x.layout)}"
        raise TypeError(checks.message(name, "a dense (strided) tensor", kind))
    if x.is_quantized:
        raise TypeError(checks.message(name, "a tensor that is not quantized", _name(x.dtype)))
    if not x.is_cpu:
        raise NotImplementedError(checks.message(name, "a tensor on the device cpu", f"device {x.device}"))


def _integer(q_start: Any) -> int:
    try:
        return checks.integer("q_start", q_start)
    except TypeError:
        raise checks.type_error("q_start", "None, an int or an int tensor (B,)", q_start) from None


def _name(thing: object) -> str:
    return str(thing).removeprefix("torch.")
