"""BERT: every token sees all tokens of its sequence, both ways, and says which word it may be.

x = norm(E(token) + P(position) + S(segment)); then for each layer x ← norm(x + attend(x)),
x ← norm(x + W₂·gelu(W₁·x)): post-LN blocks of multi-head self-attention and feed-forward. Three heads may stand on it:
the pooler, tanh(W·first token); masked words, norm(gelu(W·x))·Eᵀ + b; next sentence, W·pooled.

Sequences lie end to end in one row and a mask of documents keeps them apart: no padded token is ever computed.

Source: Devlin et al., *BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding* (2019),
section 3; factorised embeddings and shared layers: Lan et al., *ALBERT* (2020), section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn

from mmha import checks, masks
from mmha.masks import held
from mmha.models.bert.config import PARTS, Config
from mmha.nn import Dropout, Linear, TransformerEncoderLayer, packed_positions
from mmha.nn.linear import linear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": nn.functional.gelu,
    "gelu_new": partial(nn.functional.gelu, approximate="tanh"),
    "relu": nn.functional.relu,
}
NAMES = {"pooler": "a pooler", "words": "a head for masked words", "next": "a head for the next sentence"}


class Embedding(nn.Module):
    """norm(E(token) + P(position) + S(segment)), projected to the width of the layers where it is narrower (ALBERT)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.embedding or config.width
        self.tokens = nn.Embedding(config.vocabulary, width)
        self.positions = nn.Embedding(config.positions, width)
        self.segments = nn.Embedding(config.segments, width)
        self.norm = nn.LayerNorm(width, config.norm_eps)
        self.dropout = Dropout(config.dropout)
        self.project = None if config.embedding is None else Linear(width, config.width)

    def forward(self, tokens: Tensor, positions: Tensor, segments: Tensor | None) -> Tensor:
        segment = self.segments.weight[0] if segments is None else self.segments(segments)
        x: Tensor = self.dropout(self.norm(self.tokens(tokens) + self.positions(positions) + segment))
        return x if self.project is None else self.project(x)


class Words(nn.Module):
    """Logits of every word for each token: norm(activation(W·x))·Eᵀ + b, where E embeds the tokens."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.embedding or config.width
        self.dense = Linear(config.width, width)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = nn.LayerNorm(width, config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        return linear(self.norm(self.activation(self.dense(hidden))), embedding, self.bias)


class Bert(nn.Module):
    """The last layer's numbers of every token; `pool`, `words` and `next` make predictions of them.

    Args: tokens int (N,), sequences end to end; lengths of the sequences, of sum N, none above config.positions;
        segments int (N,), None = all 0.
    Returns: float32 (N, width).
    Raises: ValueError or TypeError naming the argument, what was expected and what came.

    >>> from mmha.models.bert import tiny
    >>> model = Bert(tiny(97)).eval()
    >>> hidden = model(torch.arange(8), [5, 3])
    >>> hidden.shape, model.words(hidden[[2, 6]]).shape, model.next(model.pool(hidden, [5, 3])).shape
    (torch.Size([8, 128]), torch.Size([2, 97]), torch.Size([2, 2]))
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.layers = nn.ModuleList(_layer(config) for _ in range(config.groups or config.layers))
        self.heads = nn.ModuleDict({part: _part(config, part) for part in config.parts})
        self.apply(_draw)

    def forward(self, tokens: Tensor, lengths: Sequence[int], segments: Tensor | None = None) -> Tensor:
        self._check(tokens, lengths, segments)
        x: Tensor = self.embedding(tokens, packed_positions(lengths).to(tokens.device), segments)
        mask = masks.Documents.from_lengths(lengths)
        for n in range(self.config.layers):
            x = self.layers[n * len(self.layers) // self.config.layers](x, mask)
        return x

    def pool(self, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
        """tanh(W·h + b), h the first token of each sequence: hidden (N, width), packed as lengths say → (B, width).

        Raises: ValueError for a sequence without tokens, lengths of another sum than N, or without a pooler.
        """
        head = self._head("pooler")
        checks.require(min(lengths, default=1) > 0, "lengths", "sequences of at least one token", list(lengths))
        _check_rows("hidden", hidden, "N", self.config)
        _check_sum(lengths, len(hidden))
        first = [end - length for end, length in zip(accumulate(lengths), lengths, strict=True)]
        return torch.tanh(head(hidden[first]))

    def words(self, hidden: Tensor) -> Tensor:
        """Logits of the words that tokens may be: hidden (M, width), chosen from the packed row → (M, vocabulary).

        Raises: ValueError without that head, or for another shape.
        """
        head = self._head("words")
        _check_rows("hidden", hidden, "M", self.config)
        logits: Tensor = head(hidden, self.embedding.tokens.weight)
        return logits

    def next(self, pooled: Tensor) -> Tensor:
        """Logits of "B follows A" and "B does not": pooled (B, width) → (B, 2). For an ALBERT: of their order.

        Raises: ValueError without that head, or for another shape.
        """
        head = self._head("next")
        _check_rows("pooled", pooled, "B", self.config)
        logits: Tensor = head(pooled)
        return logits

    def add(self, *parts: str) -> None:
        """Put the heads among these that the model lacks on it, with initial weights, to be trained."""
        for part in parts:
            checks.one_of("parts", part, PARTS)
            if part not in self.heads:
                self.heads[part] = _part(self.config, part).apply(_draw).train(self.training)
        self.config = replace(self.config, parts=tuple(self.heads))

    def _head(self, part: str) -> nn.Module:
        checks.require(part in self.heads, part, f"a model with {NAMES[part]}", f"one with {_listed(self.config)}")
        return self.heads[part]

    def _check(self, tokens: Tensor, lengths: Sequence[int], segments: Tensor | None) -> None:
        _check_ids("tokens", tokens, self.config.vocabulary)
        sizes = held.integers("lengths", lengths, "integers of shape (B,)")
        checks.require(sizes.ndim == 1, "lengths", "integers of shape (B,)", f"shape {checks.shape_text(sizes.shape)}")
        longest = int(sizes.max()) if len(sizes) else 0
        wanted = f"sequences of at most {self.config.positions} tokens"
        checks.require(longest <= self.config.positions, "lengths", wanted, longest)
        _check_sum(lengths, len(tokens))
        if segments is not None:
            _check_ids("segments", segments, self.config.segments)
            checks.shape_is("segments", segments, tuple(tokens.shape), "(N,)")


def _check_sum(lengths: Sequence[int], count: int) -> None:
    checks.require(sum(lengths) == count, "lengths", f"lengths of sum N = {count}", f"sum {sum(lengths)}")


def _check_rows(name: str, rows: Tensor, letter: str, config: Config) -> None:
    if not checks.is_tensor(rows):
        raise checks.type_error(name, f"a tensor ({letter}, width)", rows)
    checks.shape_is(name, rows, (letter, config.width), f"({letter}, width)")


def _check_ids(name: str, ids: Tensor, count: int) -> None:
    checks.dtype_in(name, ids, ("int64", "int32"))
    checks.require(ids.ndim == 1, name, "1 dimension (N,)", checks.shape_text(ids.shape))
    if ids.numel():
        low, high = (int(t) for t in ids.aminmax())
        checks.require(low >= 0 and high < count, name, f"numbers from 0 to {count - 1}", f"{low} to {high}")


def _listed(config: Config) -> str:
    return "none of its heads" if not config.parts else f"only {' and '.join(NAMES[part] for part in config.parts)}"


def _layer(config: Config) -> TransformerEncoderLayer:
    layer = TransformerEncoderLayer(
        config.width, config.heads, config.hidden, config.dropout, ACTIVATIONS[config.activation], config.norm_eps
    )
    layer.dropout.p = 0.0  # BERT drops nothing inside the feed-forward half
    layer.self_attn.dropout = config.dropout if config.attention_dropout is None else config.attention_dropout
    return layer


def _part(config: Config, part: str) -> nn.Module:
    if part == "words":
        return Words(config)
    return nn.Linear(config.width, config.width if part == "pooler" else 2)


def _draw(module: nn.Module) -> None:
    """Initial weights as the original draws them: normal, of deviation 0.02, cut off at 0.04; biases 0."""
    for name, weight in module.named_parameters(recurse=False):
        if weight.ndim > 1:
            nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04)
        elif name.endswith("bias"):
            nn.init.zeros_(weight)
