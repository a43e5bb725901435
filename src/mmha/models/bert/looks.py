"""Where tokens look in the layers of a BERT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmha.masks import Mask
from mmha.models.bert.model import Bert
from mmha.nn import TransformerEncoderLayer


@torch.no_grad()
def attention(model: Bert, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
    """How much each token looked at each other, in every layer and head.

    Args: tokens int (N,) and the lengths of the sequences packed in it, as `Bert` takes them.
    Returns: float32 (layers, heads, N, N); each row sums to 1 and is 0 outside its own sequence.

    >>> from mmha.models.bert import tiny
    >>> attention(Bert(tiny(11)).eval(), torch.arange(5), [3, 2]).shape
    torch.Size([2, 2, 5, 5])
    """
    turns: list[tuple[TransformerEncoderLayer, Any]] = []

    def note(layer: Any, inputs: Any) -> None:
        turns.append((layer, inputs))

    # What each layer is given when it is its turn: layers that share weights are called several times.
    handles = [layer.register_forward_pre_hook(note) for layer in model.layers]
    try:
        model(tokens, lengths)
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat([_weights(layer, *inputs) for layer, inputs in turns])


def _weights(layer: TransformerEncoderLayer, x: Tensor, mask: Mask) -> Tensor:
    """Of each head: float32 (1, heads, N, N)."""
    weights: Tensor | None = layer.self_attn(x, x, x, attn_mask=mask, average_attn_weights=False)[1]
    assert weights is not None
    return weights.reshape(1, *weights.shape[-3:])


def looked_at(model: Bert, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
    """How much each token looked at each other in the last layer, the mean of its heads.

    Args: tokens int (N,) and the lengths of the sequences packed in it, as `Bert` takes them.
    Returns: float32 (N, N); each row sums to 1 and is 0 outside its own sequence.

    >>> from mmha.models.bert import tiny
    >>> looked_at(Bert(tiny(11)).eval(), torch.arange(5), [3, 2]).sum(1).round(decimals=5).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    return attention(model, tokens, lengths)[-1].mean(0)
