"""`mmha.attention`: the public door. It checks every argument, settles dtypes, and calls the operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from mmha.masks import Mask
from mmha.ops import arguments, autograd
from mmha.ops.plans import PLAIN

_FULL = "Full()"


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Mask | Tensor | None = None,
    *,
    bias: None = None,
    scale: float | None = None,
    softcap: None = None,
    sinks: None = None,
    dropout_p: float = 0.0,
    q_start: int | Tensor | None = None,
    return_lse: bool = False,
    return_weights: bool = False,
) -> Any:
    """Scaled dot-product attention over the visible keys of each query, without a Tq x Tk tensor.

    s[i, j] = scale * q[i] . k[j];  out[i] = sum_j softmax_j(s[i, j]) v[j], both over the keys j visible to row i only.

    Args:
        q: (B, H, Tq, D). float32, bfloat16 and float16 are computed in float32, float64 in float64.
        k: (B, Hk, Tk, D), the dtype of q; H a multiple of Hk, query head h reads key head h // (H / Hk).
        v: (B, Hk, Tk, Dv), the dtype of q.
        mask: a `mmha.masks.Mask`; or a bool tensor, True = visible, or a float tensor added to the scores (-inf hides),
            broadcastable to (B, H, Tq, Tk). None = everything is visible.
        scale: a finite number; None = 1 / sqrt(D).
        q_start: position of the first query: an int, or an int tensor (B,); None = Tk - Tq, so that the last query
            stands at the last key. Negative positions are legal. Only masks that speak of positions depend on it.
        return_lse: also return the natural logarithm of the softmax's denominator.
        return_weights: also return the weights; this alone takes O(Tq * Tk) memory; through the slow reference.
        bias, softcap, sinks, dropout_p: not built yet.

    Returns:
        out (B, H, Tq, Dv) in the dtype of q; or the tuple of out, lse (B, H, Tq; float32, float64 for float64) and
        weights (B, H, Tq, Tk), as asked for, in this order. All are differentiable, once, in q, k, v and a float
        mask. A row that sees nothing gives out 0, weights 0, lse -inf and gradients 0. NaN or Inf at a hidden pair
        has no effect. Under autocast q, k and v are cast to its dtype, as torch's own attention does.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came, before anything is computed.
        NotImplementedError: for an argument that is not built yet, a tensor that is not on the CPU, and for
            forward-mode derivatives.
        RuntimeError: for a derivative of a derivative, and for torch.vmap.

    Source: Vaswani et al. 2017, equation 1; computed as in Dao et al. 2022 (FlashAttention), algorithms 1 and 4.

    >>> import torch, mmha
    >>> from mmha.masks import Causal, Window
    >>> q, k, v = torch.randn(2, 6, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 4)
    >>> out, lse = mmha.attention(q, k, v, Causal() & Window(3), return_lse=True)
    >>> tuple(out.shape), tuple(lse.shape)
    ((2, 6, 5, 4), (2, 6, 5))
    """
    arguments.refuse_unbuilt(bias, softcap, sinks, dropout_p)
    if torch.is_autocast_enabled("cpu"):
        q, k, v = (_autocast(x) for x in (q, k, v))
    sizes = arguments.check_tensors(q, k, v)
    mask = arguments.check_mask(mask, sizes)
    scale = arguments.check_scale(scale, q.dtype)
    arguments.check_flag("return_lse", return_lse)
    arguments.check_flag("return_weights", return_weights)
    start = arguments.check_start(q_start, sizes.batch)
    if not torch.compiler.is_compiling() and forward_ad._current_level >= 0:
        raise NotImplementedError("mmha.attention: forward-mode derivatives (jvp) are not available")
    dtype = q.dtype
    if dtype in (torch.bfloat16, torch.float16):
        q, k, v = q.float(), k.float(), v.float()
    spec, tensors, additive = _flatten(mask)
    weights = None
    if additive is None and not return_weights:
        out, lse = autograd.attention(q, k, v, tensors, spec, start, scale)
    else:
        out, lse, weights = autograd.reference_attention(q, k, v, additive, return_weights, tensors, spec, start, scale)
    results = [out if out.dtype == dtype else out.to(dtype)]
    if return_lse:
        results.append(lse)
    if weights is not None and return_weights:
        results.append(weights.to(dtype))
    return results[0] if len(results) == 1 else tuple(results)


def _flatten(mask: Mask | Tensor | None) -> tuple[str, list[Tensor], Tensor | None]:
    """The mask as an operator takes it: notation, tensors, and an additive tensor."""
    if mask is None:
        return _FULL, [], None
    if isinstance(mask, Tensor):
        return (PLAIN, [mask], None) if mask.dtype == torch.bool else (_FULL, [], mask)
    spec, tensors = mask.flatten()
    return spec, tensors, None


def _autocast(x: Any) -> Any:
    """What torch's autocast does to the arguments of its own attention: every floating dtype but float64 is cast."""
    castable = isinstance(x, Tensor) and x.is_floating_point() and x.dtype != torch.float64 and x.device.type == "cpu"
    return x.to(torch.get_autocast_dtype("cpu")) if castable else x
