"""Where tokens look in the last layer of a BERT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmha.models.bert.model import Bert
from mmha.nn import TransformerEncoderLayer


@torch.no_grad()
def looked_at(model: Bert, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
    """How much each token looked at each other in the last layer, the mean of its heads.

    Args: tokens int (N,) and the lengths of the sequences packed in it, as `Bert` takes them.
    Returns: float32 (N, N); each row sums to 1 and is 0 outside its own sequence.

    >>> from mmha.models.bert import tiny
    >>> looked_at(Bert(tiny(11)).eval(), torch.arange(5), [3, 2]).sum(1).round(decimals=5).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    seen: list[Any] = []
    last = model.layers[-1]
    assert isinstance(last, TransformerEncoderLayer)
    # What the last layer is given, once it is its turn: layers that share weights are called several times.
    handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    try:
        model(tokens, lengths)
    finally:
        handle.remove()
    x, mask = seen[-1]
    weights: Tensor | None = last.self_attn(x, x, x, attn_mask=mask)[1]
    assert weights is not None
    return weights
