"""The mask function of transformers' interface: sizes, offsets and a rule in, a mask value out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import masking_utils as library

from mmha.huggingface.carrier import MaskTensor
from mmha.huggingface.rules import Frame, translate
from mmha.masks import Full


def attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Any = library.causal_mask_function,
    attention_mask: Tensor | None = None,
    **options: Any,
) -> Tensor | None:
    """The mask (B, 1, Tq, Tk) that transformers' own function of these arguments describes, as a `MaskTensor`.

    A query stands at q_offset + its row, a key at kv_offset + its column. None where everything is visible and the
    caller takes None for that. While a compiler traces, the dense tensor: no value can pass through its graph.
    """
    if library.is_tracing(attention_mask):
        sizes = (batch_size, q_length, kv_length, q_offset, kv_offset)
        dense: Tensor | None = library.eager_mask(*sizes, mask_function, attention_mask, **options)
        return dense
    start = int(q_offset)  # a static cache keeps its length in a tensor
    frame = Frame(batch_size, q_length, kv_length, start, kv_offset, vmap=options.get("use_vmap", False))
    value = translate(mask_function, frame)
    padding = library.prepare_padding_mask(attention_mask, kv_length, kv_offset)
    if padding is not None:
        value = frame.join([value, frame.keys(padding)])
    if isinstance(value, Full) and options.get("allow_is_bidirectional_skip", False):
        return None
    dtype = options.get("dtype", torch.float32)
    return MaskTensor(value, (batch_size, q_length, kv_length), start - kv_offset, dtype)
