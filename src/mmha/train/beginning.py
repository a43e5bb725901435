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
from mmha.train.series import frequencies

OFFSETS = (-1, 1, -2, 2)
FASTEST, SLOWEST = 3.0, 0.15
"""Radians a token: fast enough to tell neighbours apart, and slow enough to tell apart what is 40 tokens away."""
POSITION = 0.04  # twice the deviation of an embedded token, so that places count for more than which words they hold
BLUR = 12  # values to either side, over which their shares are counted
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
    config, positions = model.config, model.embedding.positions.weight
    turns = _place(positions)
    if config.embedding is None:  # else what reaches the layers is a projection of the positions
        attention = model.layers[0].self_attn
        _turn_heads(attention.in_proj_weight, attention.out_proj.weight, config.heads, turns)


@torch.no_grad()
def know_values(model: Any, parts: Iterable[Any], first: int) -> None:
    """What a model of values begins with: values have the bias of their share, and heads look beside their place as
    `look_beside` has it.

    A share is counted within `BLUR` values to either side: of 1001 values each is seen seldom.

    Args: model, a MAMSM; parts, of the data, int (voxels, T + 2) with markers at both ends, the lowest value `first`.
        Weights are drawn from torch's generator.
    """
    bias = model.head.bias
    counts = torch.from_numpy(frequencies(parts, len(bias)))[first:].float() + 0.5
    blurred = torch.nn.functional.avg_pool1d(counts[None], 2 * BLUR + 1, 1, BLUR, count_include_pad=False)[0]
    bias[first:] = (blurred / blurred.sum()).log()
    bias[:first] = float(bias[first:].min())
    attention = model.layers[0].attention
    turns = _place(model.embedding.positions.weight)
    _turn_heads(attention.project_in.weight, attention.project_out.weight, attention.heads, turns)


def _place(positions: Tensor) -> Tensor:
    """Make the table of positions sinusoids; returns by how many radians each turns from one position to the next."""
    half = positions.shape[1] // 2
    turns = FASTEST * (SLOWEST / FASTEST) ** (torch.arange(half) / half)
    angles = torch.arange(len(positions))[:, None] * turns
    positions[:, : 2 * half] = POSITION * 2**0.5 * torch.cat([angles.sin(), angles.cos()], 1)
    return turns


def _turn_heads(inner: Tensor, outer: Tensor, heads: int, turns: Tensor) -> None:
    """Let the first heads look beside their place, given the weights (3 · heads · size, width) and (width, heads ·
    size) of a layer's attention."""
    query, key, value = inner.chunk(3)
    (rows, width), span = query.shape, 2 * len(turns)
    size = rows // heads
    deviation = (PEAK / size**0.5 / width) ** 0.5
    for head, offset in zip(range(heads), OFFSETS, strict=False):
        own = slice(head * size, (head + 1) * size)
        query[own].normal_(0.0, deviation)
        key[own] = query[own]
        key[own, :span] = query[own, :span] @ _rotation(offset * turns)
    for weight in (value, outer):
        weight.normal_(0.0, width**-0.5)


def _rotation(angles: Tensor) -> Tensor:
    """R with R (sin a, cos a) = (sin(a − angle), cos(a − angle))."""
    cos, sin = angles.cos().diag(), angles.sin().diag()
    return torch.cat([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)])
