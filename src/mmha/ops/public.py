"""`mmha.attention`: the public door. It checks every argument, settles dtypes, and calls the operators."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from mmha import checks
from mmha.bias import Bias
from mmha.masks import Mask
from mmha.ops import arguments, autograd, cached, library
from mmha.ops.caches import Cache
from mmha.ops.call import FLOAT, FULL, Call
from mmha.ops.plans import PLAIN
from mmha.ops.watch import is_direct, is_forward_mode, is_transformed


def attention(
    q: Tensor,
    k: Tensor | Cache,
    v: Tensor | None = None,
    mask: Mask | Tensor | None = None,
    *,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    dropout_p: float = 0.0,
    q_start: int | Tensor | None = None,
    return_lse: bool = False,
    return_weights: bool = False,
) -> Any:
    """Scaled dot-product attention over the visible keys of each query, without a Tq x Tk tensor.

    x[i, j] = scale * q[i] . k[j], with softcap: softcap * tanh(x[i, j] / softcap);  s[i, j] = x[i, j] + bias[i, j];
    lse[i] = log(sum_j exp(s[i, j]) + exp(sinks));  w[i, j] = exp(s[i, j] - lse[i]);  out[i] = sum_j drop(w[i, j]) v[j];
    all sums are over the keys j visible to row i only, and drop(w) is 0 or w / (1 - dropout_p).

    Args:
        q: (B, H, Tq, D). float32; bfloat16 and float16, whose sums are kept in float32; float64, the slow reference.
        k: (B, Hk, Tk, D), the dtype of q; H a multiple of Hk, query head h reads key head h // (H / Hk). Or a cache
            (`KVCache`, `PagedKVCache`), which takes the place of k and v: Tk is the length of its longest row, and the
            queries, float32, bfloat16 or float16 and without gradient, are by default the last Tq tokens of each row.
        v: (B, Hk, Tk, Dv), the dtype of q; None beside a cache.
        mask: a `mmha.masks.Mask`; or a bool tensor, True = visible, or a float tensor added to the scores (-inf hides),
            broadcastable to (B, H, Tq, Tk). None = everything is visible.
        bias: a `mmha.bias.Bias`, added to the scores: `ALiBi`, `Relative`, `Additive` and sums of them. It keeps its
            own dtype (float64 is rounded to float32 unless q is float64). A pair whose additive is -inf is hidden.
        scale: a finite number; None = 1 / sqrt(D).
        softcap: a number from 1e-30 to 1e30 that bounds the scores before the bias is added; None = none.
        sinks: float (H,), a score without a value in the softmax of every row of a head; -inf = none there.
        dropout_p: the share of weights to drop, 0 to 1, whenever it is given: there is no training mode here. What is
            dropped follows from a seed, drawn from torch's CPU generator, and the place (b, h, i, j).
        q_start: position of the first query: an int, or an int tensor (B,); None = Tk - Tq, so that the last query
            stands at the last key. Negative positions are legal. Only masks and biases that speak of positions depend
            on it.
        return_lse: also return the natural logarithm of the softmax's denominator.
        return_weights: also return the weights, those before dropout, in O(Tq * Tk) memory and the dtype of q.

    Returns:
        out (B, H, Tq, Dv) in the dtype of q; or the tuple of out, lse (B, H, Tq; float32, float64 for float64) and
        weights (B, H, Tq, Tk), as asked for, in this order. All are differentiable, once, in q, k, v, a float mask, the
        tensors of the bias and sinks. A row that sees nothing gives out 0, weights 0, lse -inf and gradients 0, with
        sinks too. NaN or Inf at a hidden pair has no effect. Under autocast q, k and v are cast to its dtype, as
        torch's own attention does; the bias and sinks are not.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came, before anything is computed.
        NotImplementedError: for a tensor that is not on the CPU, and for forward-mode derivatives.
        RuntimeError: for a derivative of a derivative, and for torch.vmap.

    Source: Vaswani et al. 2017, equation 1; computed as in Dao et al. 2022 (FlashAttention), algorithms 1 and 4.
    softcap: Gemma Team 2024 (Gemma 2), section 2; sinks: OpenAI 2025, gpt-oss model card; dropout: Srivastava et al.
    2014.

    >>> import torch, mmha
    >>> from mmha.masks import Causal, Window
    >>> q, k, v = torch.randn(2, 6, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 4)
    >>> out, lse = mmha.attention(q, k, v, Causal() & Window(3), return_lse=True)
    >>> tuple(out.shape), tuple(lse.shape)
    ((2, 6, 5, 4), (2, 6, 5))
    >>> out = mmha.attention(q, k, v, Causal(), bias=mmha.bias.ALiBi.standard(6), softcap=30.0, sinks=torch.zeros(6))
    """
    if isinstance(k, Cache):
        if v is not None or dropout_p or return_weights:
            raise _beside_cache(v, dropout_p)
        arguments.check_flags(return_lse, False)
        return cached.attention(q, k, mask, bias, scale, softcap, sinks, q_start, return_lse)
    keys, values = k, cast(Tensor, v)  # None and whatever else came is refused now
    if torch.is_autocast_enabled("cpu"):
        q, keys, values = (_autocast(x) for x in (q, keys, values))
    direct = is_direct(q, keys, values)
    sizes = arguments.check_tensors(q, keys, values, direct)
    if mask is not None:
        mask = arguments.check_mask(mask, sizes)
    parts = None if bias is None else arguments.check_bias(bias, sizes)
    if scale is not None:
        scale = arguments.check_scale(scale, q.dtype)
    if softcap is not None:
        softcap = arguments.check_softcap(softcap)
    if sinks is not None:
        sinks = arguments.check_sinks(sinks, sizes[1])
    if type(dropout_p) is not float or dropout_p:
        dropout_p = arguments.check_dropout(dropout_p)
    arguments.check_flags(return_lse, return_weights)
    start = None if q_start is None else arguments.check_start(q_start, sizes[0])
    if not direct and is_forward_mode():
        raise NotImplementedError("mmha.attention: forward-mode derivatives (jvp) are not available")
    spec, tensors, additives = (FULL, [], []) if mask is None else _flatten(mask)
    slopes = table = None
    if parts is not None:
        slopes, table, additives = parts.slopes, parts.table, [*additives, *parts.additives]
    seed = _seed() if dropout_p else None
    call = Call(tensors, spec, start, scale, slopes, table, additives, sinks, softcap, dropout_p, seed)
    results = autograd.attention(
        autograd.WEIGHTS if return_weights else autograd.KERNELS, q, keys, values, call, direct, return_lse
    )
    if return_lse:
        return tuple(results[: 3 if return_weights else 2])
    return (results[0], results[2]) if return_weights else results[0]


def _beside_cache(v: Any, dropout_p: Any) -> Exception:
    """What to raise for an argument that has no meaning beside a cache."""
    if v is not None:
        return checks.type_error("v", "None beside a cache, which holds the values (name the mask: mask=...)", v)
    if dropout_p:
        return checks.value_error("dropout_p", "0.0 beside a cache", str(dropout_p))
    return checks.value_error("return_weights", "False beside a cache", "True")


def _flatten(mask: Mask | Tensor) -> tuple[str, list[Tensor], list[Tensor]]:
    """The mask as an operator takes it: notation, tensors, and what it adds to the scores."""
    if isinstance(mask, Tensor):
        return (PLAIN, [mask], []) if mask.dtype == torch.bool else (FLOAT, autograd.float_mask(mask), [mask])
    return *mask.flatten(), []


def _seed() -> Tensor:
    """The seed of one call's dropout, from torch's generator: `torch.manual_seed` settles it, checkpoints replay it."""
    try:
        return torch.randint((1 << 63) - 1, (1,), dtype=torch.int64, device="cpu")
    except RuntimeError:
        if is_transformed():  # torch.vmap refuses to draw, and says how to allow it; but the operator could not follow
            raise RuntimeError(library.NO_VMAP) from None
        raise


def _autocast(x: Any) -> Any:
    """What torch's autocast does to the arguments of its own attention: every floating dtype but float64 is cast."""
    castable = isinstance(x, Tensor) and x.is_floating_point() and x.dtype != torch.float64 and x.device.type == "cpu"
    return x.to(torch.get_autocast_dtype("cpu")) if castable else x
