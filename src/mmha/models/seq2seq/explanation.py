"""What a translation looks at: the weights of the attention from the target to the source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmha.models.seq2seq.model import DecoderLayer, Seq2Seq


@torch.no_grad()
def attention(model: Seq2Seq, source: Sequence[int], target: Sequence[int]) -> Tensor:
    """How much each token of a target looked at each token of its source when it was about to be written.

    weights[l, h, t] = softmax(q_t·kᵀ/√D) of head h in the decoder's layer l, where row t is what chose the target's
    token t; the last row chose the end. Each row has the sum 1.

    Args: source and target, tokens without their ends, which are added.
    Returns: float32 (layers, heads, T, S), T = len(target) + 1, S = len(source) + 1.
    Raises: ValueError when a token is not of the vocabulary.

    >>> from mmha.models.seq2seq import tiny
    >>> attention(Seq2Seq(tiny(31)), [5, 6, 7], [8, 9]).shape
    torch.Size([2, 4, 3, 4])
    """
    model.eval()
    layers: list[DecoderLayer] = list(model.decoder)  # type: ignore[arg-type]
    inputs: list[tuple[Any, ...]] = []
    hooks = [layer.cross.register_forward_pre_hook(lambda _, given: inputs.append(given)) for layer in layers]
    seen, words = torch.tensor([*source, model.end]), torch.tensor([model.end, *target])
    try:
        model(seen, [len(seen)], words, [len(words)])
    finally:
        for hook in hooks:
            hook.remove()
    found = [
        layer.cross(*given, need_weights=True, average_attn_weights=False)[1]
        for layer, given in zip(layers, inputs, strict=True)
    ]
    return torch.cat(found)
