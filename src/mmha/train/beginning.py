"""Where a masked language model begins: with what a short run would spend itself on finding out.

From small random weights attention is even over the whole sequence: a masked place sees the mean of 100 tokens, and has
to tell from that what its neighbours are. Until attention has found places, which takes thousands of steps, a model
does no better than the most frequent word. So two things are given to it:

- The bias of a word is the logarithm of its share of the text. Learned from 0 at a rate of 0.001 a step, the biases of
  rare words alone would take thousands of steps.
- Positions are sinusoids, and four heads of the first layer look one and two tokens to the left and to the right.
  Position j is p_j = (sin jω, cos jω), and p_{j−o} = R p_j with the same rotation R for every j. The scores of a head
  with keys K = Q·R are largest where (Q x_i)·(K x_j) ~ (Q p_i)·(Q p_{j−o}) is, at j = i + o, whatever Q: a random one.

All of this is learned further; the architecture is untouched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mmha.train.pairs import Document

OFFSETS = (-1, 1, -2, 2)
FASTEST, SLOWEST = 3.0, 0.15
"""Radians a token: fast enough to tell neighbours apart, and slow enough to tell apart what is 40 tokens away."""
POSITION = 0.04  # twice the deviation of an embedded token, so that places count for more than which words they hold
PEAK = 19.0  # what the score of the token looked at exceeds an average one by


@torch.no_grad()
def share_words(model: Any, documents: Iterable[Document]) -> None:
    """Set the bias of each word to the logarithm of its share of the documents; half a token for one they lack.

    Args: model, a Bert with a head for words; documents, their sentences, the tokens of each.
    """
    words = [token for document in documents for sentence in document for token in sentence]
    counts = torch.tensor(words, dtype=torch.int64).bincount(minlength=model.config.vocabulary) + 0.5
    model.heads["words"].bias.copy_((counts / counts.sum()).log())


@torch.no_grad()
def look_beside(model: Any) -> None:
    """Set positions to sinusoids and let the first heads of the first layer look beside them, as described above.

    The first layer's values pass at full size, or what is seen would drown in what is there. A model with fewer than
    four heads looks at as many places as it has heads, one with narrow embeddings (ALBERT) gets the positions alone.
    Weights are drawn from torch's generator.

    Args: model, a Bert.
    """
    width, heads = model.config.embedding or model.config.width, model.config.heads
    half = width // 2
    turns = FASTEST * (SLOWEST / FASTEST) ** (torch.arange(half) / half)
    positions = model.embedding.positions.weight
    angles = torch.arange(len(positions))[:, None] * turns
    positions[:, : 2 * half] = POSITION * 2**0.5 * torch.cat([angles.sin(), angles.cos()], 1)
    if model.config.embedding is not None:
        return  # what reaches the layers is a projection of the positions
    attention = model.layers[0].self_attn
    size = width // heads
    query, key, value = attention.in_proj_weight.chunk(3)
    deviation = (PEAK / size**0.5 / width) ** 0.5
    for head, offset in zip(range(heads), OFFSETS, strict=False):
        rows = slice(head * size, (head + 1) * size)
        query[rows].normal_(0.0, deviation)
        key[rows] = query[rows]
        key[rows, : 2 * half] = query[rows, : 2 * half] @ _rotation(offset * turns)
    for weight in (value, attention.out_proj.weight):
        weight.normal_(0.0, width**-0.5)


def _rotation(angles: Tensor) -> Tensor:
    """R with R (sin a, cos a) = (sin(a − angle), cos(a − angle))."""
    cos, sin = angles.cos().diag(), angles.sin().diag()
    return torch.cat([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)])
