"""The Transformer of *Attention Is All You Need*: an encoder reads the source, a decoder writes the target.

There is one kind of attention, softmax(q·kᵀ/√D)·v in several heads, and it is used in three places:

    where                      q from    k, v from       a token sees
    encoder, own sentence      source    source          all tokens of its sentence
    decoder, own sentence      target    target          those of its sentence up to itself
    decoder, to the source     target    encoder's out   all source tokens of its sentence

Sentences lie end to end in one row, without padding; the masks keep them apart. In decoding (`decoding`) the keys and
values of the last two rows come from caches: one that grows by a token a step, one filled once per sentence.

Source: Vaswani et al. (2017).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmha import checks
from mmha.masks import Causal, Documents, Mask, Spans
from mmha.models.seq2seq.config import Config
from mmha.nn import Dropout, Linear, MultiheadAttention, pack, packed_positions, sinusoidal, unpack
from mmha.nn.linear import linear

Lengths = Sequence[int]


def attend(attention: nn.Module, x: Tensor, seen: Tensor, mask: Mask) -> Tensor:
    """Queries from x (1, M, width), keys and values from `seen` (1, N, width), under the mask → (1, M, width)."""
    out: Tensor = attention(x, seen, seen, need_weights=False, mask=mask)[0]
    return out


class Residual(nn.Module):
    """norm(x + dropout(f(x))), as published; with norm_first x + dropout(f(norm(x))) (Xiong et al. 2020)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.dropout = Dropout(config.dropout)
        self.norm_first = config.norm_first

    def forward(self, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        out: Tensor = x + self.dropout(f(self.norm(x))) if self.norm_first else self.norm(x + self.dropout(f(x)))
        return out


def new_attention(config: Config) -> MultiheadAttention:
    """The attention of all three places."""
    return MultiheadAttention(config.width, config.heads, config.attention_dropout, batch_first=True)


def new_feed_forward(config: Config) -> nn.Module:
    """W₂·relu(W₁·x + b₁) + b₂, each token alone."""
    return nn.Sequential(Linear(config.width, config.hidden), nn.ReLU(), Linear(config.hidden, config.width))


class EncoderLayer(nn.Module):
    """Attention within the source sentence, then the feed-forward part. Shapes: (1, N, width) → the same."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.own = new_attention(config)
        self.feed_forward = new_feed_forward(config)
        self.residuals = nn.ModuleList(Residual(config) for _ in range(2))

    def forward(self, x: Tensor, own: Mask) -> Tensor:
        x = self.residuals[0](x, lambda x: attend(self.own, x, x, own))
        out: Tensor = self.residuals[1](x, self.feed_forward)
        return out


class DecoderLayer(nn.Module):
    """Attention within the target, attention to the source, then the feed-forward part.

    Shapes: x (1, M, width), source (1, N, width), what the encoder made of the source → (1, M, width).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.own = new_attention(config)
        self.cross = new_attention(config)
        self.feed_forward = new_feed_forward(config)
        self.residuals = nn.ModuleList(Residual(config) for _ in range(3))

    def forward(self, x: Tensor, source: Tensor, own: Mask, cross: Mask) -> Tensor:
        x = self.residuals[0](x, lambda x: attend(self.own, x, x, own))
        x = self.residuals[1](x, lambda x: attend(self.cross, x, source, cross))
        out: Tensor = self.residuals[2](x, self.feed_forward)
        return out


class Seq2Seq(nn.Module):
    """Logits of the token that follows each token of the target, given the source.

    x = E(token)·√width + PE(position); logits = decoder(x_target, encoder(x_source))·Eᵀ, one E for both languages and
    for the output. The last token of the vocabulary, `end`, ends every source and target and stands before the first
    token of a target: a model is trained with source = tokens + [end], target = [end] + tokens, followed by tokens +
    [end].

    Args: source and target, int: sentences laid end to end, (N,) and (M,); or side by side, padded on the right with
        any tokens, (B, S) and (B, T). source_lengths, target_lengths: B integers, the tokens of each sentence.
    Returns: float32 (M, vocabulary); or (B, T, vocabulary), 0 at padding.
    Raises: ValueError or TypeError naming the argument, what was expected and what came.
    Source: Vaswani et al. (2017), section 3.

    >>> from mmha.models.seq2seq import tiny
    >>> model, source, target = Seq2Seq(tiny(31)), torch.tensor([5, 6, 7, 30, 5, 30]), torch.tensor([30, 8, 30, 9, 9])
    >>> model(source, [4, 2], target, [2, 3]).shape
    torch.Size([5, 31])
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.encoder_norm = nn.LayerNorm(config.width) if config.norm_first else nn.Identity()
        self.decoder_norm = nn.LayerNorm(config.width) if config.norm_first else nn.Identity()
        self.dropout = Dropout(config.dropout)
        for name, weight in self.named_parameters():
            if weight.ndim > 1 and not name.endswith("in_proj_weight"):  # which torch draws as its three matrices are
                nn.init.xavier_uniform_(weight)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)  # 1 once multiplied by √width

    @property
    def end(self) -> int:
        """The token that ends a sentence and stands before a target."""
        return self.config.vocabulary - 1

    def forward(self, source: Tensor, source_lengths: Lengths, target: Tensor, target_lengths: Lengths) -> Tensor:
        seen, read = self._row("source", source, source_lengths)
        words, written = self._row("target", target, target_lengths)
        checks.require(len(written) == len(read), "target_lengths", f"B = {len(read)} integers", f"{len(written)}")
        hidden = self.decode(words, written, self.encode(seen, read), read)
        logits = self.words(hidden)
        return logits if target.ndim == 1 else unpack(logits[None], written, target.shape[1])

    def encode(self, source: Tensor, lengths: Lengths) -> Tensor:
        """What the encoder makes of sources laid end to end, (N,) → (N, width)."""
        x = self.embed(source, packed_positions(lengths))[None]
        own = Documents.from_lengths(lengths)
        for layer in self.encoder:
            x = layer(x, own)
        out: Tensor = self.encoder_norm(x)[0]
        return out

    def decode(self, target: Tensor, lengths: Lengths, source: Tensor, source_lengths: Lengths) -> Tensor:
        """What the decoder makes of targets laid end to end, (M,), and of encoded sources (N, width) → (M, width)."""
        x = self.embed(target, packed_positions(lengths))[None]
        own, cross = Causal() & Documents.from_lengths(lengths), cross_mask(lengths, source_lengths)
        for layer in self.decoder:
            x = layer(x, source[None], own, cross)
        out: Tensor = self.decoder_norm(x)[0]
        return out

    def embed(self, tokens: Tensor, positions: Tensor | int) -> Tensor:
        """E(token)·√width + PE(position), int (...) and int (...), or one for all → (..., width)."""
        last = positions if isinstance(positions, int) else int(positions.max()) if positions.numel() else 0
        codes = _codes(1 << max(6, (last + 1).bit_length()), self.config.width)
        x: Tensor = self.dropout(self.embedding(tokens) * math.sqrt(self.config.width) + codes[positions])
        return x

    def words(self, hidden: Tensor) -> Tensor:
        """The logits of the next token, (..., width) → (..., vocabulary)."""
        return linear(hidden, self.embedding.weight)

    def _row(self, name: str, tokens: Tensor, lengths: Lengths) -> tuple[Tensor, list[int]]:
        """The tokens of all sentences laid end to end, (N,), and how many each has; both checked."""
        checks.dtype_in(name, tokens, ("int64", "int32"))
        checks.require(tokens.ndim in (1, 2), name, "shape (N,) or (B, T)", checks.shape_text(tokens.shape))
        sizes = [checks.integer(f"{name}_lengths", n, 0) for n in lengths]
        if tokens.ndim == 2:
            with checks.renamed(x=name, lengths=f"{name}_lengths"):
                tokens = pack(tokens, sizes)[0][0]
        fits = sum(sizes) == len(tokens)
        checks.require(fits, f"{name}_lengths", f"lengths of sum N = {len(tokens)}", f"{sum(sizes)}")
        if tokens.numel():
            low, high = (int(t) for t in tokens.aminmax())
            fits = low >= 0 and high < self.config.vocabulary
            checks.require(fits, name, f"numbers from 0 to {self.config.vocabulary - 1}", f"{low} to {high}")
        return tokens, sizes


def cross_mask(lengths: Lengths, source_lengths: Lengths) -> Mask:
    """Each target token sees the source of its own sentence, where both lie end to end.

    >>> print(cross_mask([1, 2], [2, 3]).show(3, 5))
    0 ████· · ·
    1 · · ██████
    2 · · ██████
    """
    targets, sources = torch.tensor(lengths, dtype=torch.int64), torch.tensor(source_lengths, dtype=torch.int64)
    stop = sources.cumsum(0)
    spans = torch.stack((stop - sources, stop), 1).repeat_interleave(targets, 0)
    seen = spans[:, 0] < spans[:, 1]
    offsets = torch.nn.functional.pad(seen.cumsum(0), (1, 0))
    return Spans([1, 1, len(spans), int(sources.sum())], offsets, spans[seen])


@functools.lru_cache(maxsize=4)
def _codes(count: int, width: int) -> Tensor:
    """The codes of the positions below `count`, computed once: float32 (count, width)."""
    return sinusoidal(torch.arange(count), width)
