"""MAMSM, stage 1: every value of a series sees the others, and says what a hidden one was.

x = norm(E(token) + P(position) + S(segment)); then for each layer x ← norm(x + attend(x)), x ← norm(x + W₂·gelu(W₁·x)),
or, faithful to the released code, x ← W₂·gelu(W₁·x). The logits of a value are norm(gelu(W·x))·Eᵀ + b.

Series lie end to end in one row and a mask of documents keeps them apart, as BERT's sequences do. No T × T tensor is
made: the first row of the last layer's attention, which the second stage reads, is computed alone.

Source: He et al., *Multi-head attention-based masked sequence model for mapping functional brain networks*, Frontiers
in Neuroscience 17:1183145 (2023), section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from mmha import checks, masks
from mmha.models.mamsm.config import Config
from mmha.models.mamsm.scale import SPECIAL, frame
from mmha.nn import Dropout, FeedForward, Linear, SelfAttention, packed_positions
from mmha.nn.linear import linear
from mmha.ops import attention

EPS = 1e-12
SMOOTH = 40  # waves over the range of values in the beginning's embedding


class Embedding(nn.Module):
    """norm(E(token) + P(position) + S(segment))."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.segments = nn.Embedding(config.segments, config.width)
        self.norm = nn.LayerNorm(config.width, EPS)
        self.dropout = Dropout(config.dropout)

    def forward(self, tokens: Tensor, positions: Tensor, segments: Tensor | None) -> Tensor:
        segment = self.segments.weight[0] if segments is None else self.segments(segments)
        x: Tensor = self.dropout(self.norm(self.tokens(tokens) + self.positions(positions) + segment))
        return x


class Layer(nn.Module):
    """x ← norm(x + attend(x)), then x ← norm(x + feed_forward(x)), or feed_forward(x) alone when faithful."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = SelfAttention(config.width, config.heads, config.head_dim)
        self.norm_attention = nn.LayerNorm(config.width, EPS)
        self.feed_forward = FeedForward(config.width, config.hidden)
        self.norm_feed_forward = None if config.faithful else nn.LayerNorm(config.width, EPS)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: masks.Mask | None) -> Tensor:
        x = self.norm_attention(x + self.dropout(self.attention(x, mask)))
        made: Tensor = self.dropout(self.feed_forward(x))
        return made if self.norm_feed_forward is None else self.norm_feed_forward(x + made)


class Values(nn.Module):
    """Logits of every token: norm(gelu(W·x))·Eᵀ + b, where E embeds the tokens."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, EPS)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        return linear(self.norm(nn.functional.gelu(self.dense(hidden))), embedding, self.bias)


class MAMSM(nn.Module):
    """The last layer's numbers of every token; `values` says what they may have been.

    Args: tokens int (N,), series with their markers (`frame`) end to end; lengths, of sum N, none above
        config.positions; segments int (N,), None = all 0.
    Returns: float32 (N, width).
    Raises: ValueError or TypeError naming the argument, what was expected and what came.

    >>> from mmha.models.mamsm import Scale, frame, small
    >>> scale = Scale(-1.0, 1.0)
    >>> model = MAMSM(small(scale.vocabulary)).eval()
    >>> series = scale.encode(torch.linspace(-1, 1, 14).view(2, 7))
    >>> hidden = model(frame(series).flatten(), [9, 9])
    >>> hidden.shape, model.values(hidden[[3, 12]]).shape, model.attention_of_cls(series).shape
    (torch.Size([18, 96]), torch.Size([2, 1005]), torch.Size([2, 6, 7]))
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.head = Values(config)
        self.apply(_draw)
        if not config.faithful:
            begin_smooth(self)

    def forward(self, tokens: Tensor, lengths: Sequence[int], segments: Tensor | None = None) -> Tensor:
        self._check(tokens, lengths)
        x: Tensor = self.embedding(tokens, packed_positions(lengths).to(tokens.device), segments)[None]
        mask: masks.Mask = masks.Documents.from_lengths(lengths)
        if self.config.window is not None:
            starts = [end - length for end, length in zip(accumulate(lengths), lengths, strict=True)]
            mask = mask & self._near(starts)
        for layer in self.layers:
            x = layer(x, mask)
        return x[0]

    def values(self, hidden: Tensor) -> Tensor:
        """Logits of the tokens: hidden (M, width), chosen from the packed row → (M, vocabulary)."""
        logits: Tensor = self.head(hidden, self.embedding.tokens.weight)
        return logits

    @torch.no_grad()
    def attention_of_cls(self, tokens: Tensor, segments: Tensor | None = None) -> Tensor:
        """How much the last layer's [CLS] looks at each value, head by head.

        w[b, h, t] = softmax over all tokens of (q_cls·kᵀ/√D), at the T values: a row's sum is 1 less the weight of the
        markers. One row of attention is computed, and no T × T tensor.

        Args: tokens int64 (B, T), values without markers; segments int (B, T + 2), None = all 0.
        Returns: float32 (B, heads, T), without gradient.
        Raises: as the model's call.
        """
        checks.require(tokens.ndim == 2, "tokens", "2 dimensions (B, T)", checks.shape_text(tokens.shape))
        framed = frame(tokens)
        batch, length = framed.shape
        self._check(framed.flatten(), [length] * batch)
        x: Tensor = self.embedding(framed, torch.arange(length), segments)
        mask = None if self.config.window is None else self._near([0])
        for layer in list(self.layers)[:-1]:
            x = layer(x, mask)
        q, k, v = self.layers[-1].attention.split(x)  # type: ignore[operator]
        weights: Tensor = attention(q[:, :, :1], k, v, return_weights=True)[1]
        return weights[:, :, 0, 1:-1].float()

    def _near(self, starts: list[int]) -> masks.Mask:
        """A token sees its neighbours and the first token of its series, which sees all of it."""
        assert self.config.window is not None
        return masks.Window(self.config.window, self.config.window) | masks.Global(starts)

    def _check(self, tokens: Tensor, lengths: Sequence[int]) -> None:
        checks.dtype_in("tokens", tokens, ("int64", "int32"))
        checks.require(tokens.ndim == 1, "tokens", "1 dimension (N,)", checks.shape_text(tokens.shape))
        if tokens.numel():
            low, high, count = *(int(t) for t in tokens.aminmax()), self.config.vocabulary
            checks.require(low >= 0 and high < count, "tokens", f"numbers from 0 to {count - 1}", f"{low} to {high}")
        wanted = f"series of at most {self.config.positions} tokens, markers included"
        longest = max(lengths, default=0)
        checks.require(longest <= self.config.positions, "lengths", wanted, longest)
        total = f"lengths of sum N = {len(tokens)}"
        checks.require(sum(lengths) == len(tokens), "lengths", total, f"sum {sum(lengths)}")


def begin_smooth(model: MAMSM) -> None:
    """Draw the embedding of values so that near values have near vectors: what a model not faithful begins with.

    E[4 + i] = Σ_w (a_w·cos(π·w·i/n) + b_w·sin(π·w·i/n)) / (1 + w), w < 40, a and b normal, scaled to deviation 0.02.
    With 1001 values a model sees each of them seldom; begun like this it knows that 500 and 501 are nearly one.
    """
    weight = model.embedding.tokens.weight
    count = len(weight) - SPECIAL
    waves = torch.arange(SMOOTH)[None]
    angle = torch.pi * waves * torch.arange(count)[:, None] / max(1, count - 1)
    basis = torch.cat((angle.cos(), angle.sin()), 1) / (1 + waves.repeat(1, 2))
    with torch.no_grad():
        drawn = basis @ torch.randn(2 * SMOOTH, weight.shape[1])
        weight[SPECIAL:] = drawn * (0.02 / drawn.std())


def _draw(module: nn.Module) -> None:
    """Initial weights as BERT's: normal, of deviation 0.02, cut off at 0.04; biases 0."""
    for name, weight in module.named_parameters(recurse=False):
        if weight.ndim > 1:
            nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04)
        elif name.endswith("bias"):
            nn.init.zeros_(weight)
