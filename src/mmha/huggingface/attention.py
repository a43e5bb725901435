"""The attention function of transformers' interface."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.utils import output_capturing

from mmha import checks
from mmha.bias import Additive
from mmha.huggingface.carrier import MaskTensor
from mmha.masks import Causal, Mask
from mmha.ops import attention

#: What the name means, of arguments that change the result and that nothing here computes.
REFUSED = {"indices": "a choice of keys per query", "block_indices": "a choice of blocks per query", "sinks": "a sink"}


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """What a layer of a transformers model calls: out (B, Tq, H, Dv), and the weights (B, H, Tq, Tk) if asked for.

    query (B, H, Tq, D), key and value (B, Hk, Tk, D and Dv); attention_mask: what `attention_mask` of this package
    made, or a bool (True = visible) or float (added) tensor that broadcasts to (B, H, Tq, Tk); None is causal where
    the layer is and Tq > 1. Weights are those before dropout.
    Raises NotImplementedError for arguments that it cannot honour.
    """
    for name, meaning in REFUSED.items():
        if options.get(name) is not None:
            raise NotImplementedError(
                checks.message(name, "None with attn_implementation='mmha' (use 'eager')", meaning)
            )
    if query.shape[0] != key.shape[0]:  # queries that are learned come once for the whole batch
        batch = max(query.shape[0], key.shape[0])
        query, key, value = (x.expand(batch, -1, -1, -1) for x in (query, key, value))
    mask, q_start = _mask(module, query, key, attention_mask, options.get("is_causal"))
    position_bias, wanted = options.get("position_bias"), _wants_weights(module, options)
    result = attention(
        query,
        key,
        value,
        mask,
        bias=None if position_bias is None else Additive(_lowest_hides(position_bias)),
        scale=scaling,
        softcap=options.get("softcap"),
        sinks=options.get("s_aux"),
        dropout_p=dropout if module.training else 0.0,
        q_start=q_start,
        return_weights=wanted,
    )
    out, weights = result if wanted else (result, None)
    return out.transpose(1, 2).contiguous(), weights


def _mask(
    module: torch.nn.Module, query: Tensor, key: Tensor, given: Tensor | None, is_causal: bool | None
) -> tuple[Mask | Tensor | None, int | None]:
    """The mask and the position of the first query, of what the model handed on."""
    if isinstance(given, MaskTensor):
        sizes = (query.shape[0], 1, query.shape[2], key.shape[2])
        if given.sizes == sizes and not given.is_written:
            return given.value, given.q_start
        given = given.dense()
    if given is not None:
        return (given if given.dtype == torch.bool else _lowest_hides(given)), None
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if causal and query.shape[2] > 1:
        return Causal(), 0  # as transformers' sdpa: keys beyond the queries are those that a static cache still lacks
    return None, None


def _lowest_hides(added: Tensor) -> Tensor:
    """The tensor with -inf where it holds its dtype's lowest number, by which transformers means hidden."""
    return added.masked_fill(added <= torch.finfo(added.dtype).min, -torch.inf)


def _wants_weights(module: torch.nn.Module, options: dict[str, Any]) -> bool:
    """Whether the caller asked for attention weights: told by an argument, the config, or whoever records outputs."""
    if options.get("output_attentions") or getattr(getattr(module, "config", None), "output_attentions", False):
        return True
    if torch.compiler.is_compiling():
        return False
    return any("attentions" in name for name in output_capturing._active_collector.get() or ())
