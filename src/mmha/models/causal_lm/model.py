"""A causal language model: each token sees those before it and itself, and says what the next one may be.

x = E(token); then for each layer x ← x + attend(norm(x)), x ← x + swiglu(norm(x)); logits = norm(x)·Eᵀ. Norms are
RMSNorm, positions are rotary, several query heads share a key/value head, and there are no biases: the usual block of
today's decoders (Touvron et al., *LLaMA* (2023), section 2.2; Ainslie et al., *GQA* (2023)).

With caches the same forward continues what they hold: a whole prompt, a chunk of it or one token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmha import checkpoint, checks, masks, subwords
from mmha.cache import KVCache, masked_multihead_attention
from mmha.models.causal_lm.config import SHIPPED, Config, read_config
from mmha.nn import Dropout, Linear, Rotary, SwiGLU, packed_positions
from mmha.nn.linear import linear
from mmha.ops import attention
from mmha.ops.caches import Cache
from mmha.subwords import Tokenizer

Turn = Callable[[Tensor], Tensor]


class Past(NamedTuple):
    """What tokens follow: a layer's cache, of how many tokens of each row (None = all), and where these stand."""

    cache: Cache
    counts: Tensor | None
    start: Tensor


class Attention(nn.Module):
    """Grouped-query attention under a mask: query head h reads the key/value head h // (heads / kv_heads).

    Shapes: x float32 (B, T, width) → (B, T, width); `turn` rotates q and k to where they stand. Without it, x is one
    token a row that follows a cache: all between the two projections is then one call.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.rotary = Rotary(config.head_dim, config.rotary_base)
        self.project_in = Linear(config.width, (config.heads + 2 * config.kv_heads) * config.head_dim, bias=False)
        self.project_out = Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, turn: Turn | None, mask: masks.Mask, past: Past | None = None) -> Tensor:
        if turn is None:
            assert past is not None
            lengths = None if past.counts is None else past.start.masked_fill(past.counts == 0, -1)  # -1 skips the row
            qkv = self.project_in(x[:, 0])
            seen = masked_multihead_attention(qkv, past.cache, rotary=self.rotary, lengths=lengths)[:, None]
        elif past is None:
            seen = attention(*self.split(x, turn), mask).transpose(1, 2).flatten(2)
        else:
            q, k, v = self.split(x, turn)
            past.cache.append(k, v, past.counts)
            seen = attention(q, past.cache, mask=mask, q_start=past.start).transpose(1, 2).flatten(2)
        out: Tensor = self.project_out(seen)
        return out

    def split(self, x: Tensor, turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
        """q (B, H, T, D), k and v (B, Hk, T, D) of the tokens, q and k rotated."""
        heads = self.project_in(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        return turn(q), turn(k), v


class Layer(nn.Module):
    """One block of the decoder: attention, then the feed-forward half, each on what its norm gives."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm_attention = nn.RMSNorm(config.width, eps=1e-6)
        self.attention = Attention(config)
        self.norm_feed_forward = nn.RMSNorm(config.width, eps=1e-6)
        self.feed_forward = SwiGLU(config.width, config.hidden)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, turn: Turn | None, mask: masks.Mask, past: Past | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.norm_attention(x), turn, mask, past))
        out: Tensor = x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))
        return out


class CausalLM(nn.Module):
    """Logits of the token that follows each token.

    Args: tokens int (B, T); caches from `new_caches`: the tokens follow what they hold and are appended, and nothing
        is differentiated; counts int (B,): row b takes its first counts[b] tokens only (prompts padded on the right),
        and logits beyond them mean nothing; documents: the lengths of the documents that are packed in one row.
    Returns: float32 (B, T, vocabulary).
    Raises: ValueError or TypeError naming the argument, what was expected and what came.

    >>> from mmha.models.causal_lm import small
    >>> CausalLM(small(259))(torch.zeros(2, 5, dtype=torch.int64)).shape
    torch.Size([2, 5, 259])
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.rotary = Rotary(config.head_dim, config.rotary_base)
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.dropout = Dropout(config.dropout)
        # What is added to the residual stream starts smaller the more layers add to it (Radford et al. 2019).
        for name, weight in self.named_parameters():
            if weight.ndim > 1:
                added = name.endswith(("project_out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * config.layers) if added else 0.02)

    def forward(
        self,
        tokens: Tensor,
        caches: Sequence[Cache] | None = None,
        counts: Tensor | Sequence[int] | None = None,
        *,
        documents: Sequence[int] | None = None,
    ) -> Tensor:
        self._check(tokens, caches, documents)
        counts = None if counts is None else _counts(counts, tokens)
        turn, mask, past = self._surroundings(tokens, caches, counts, documents)
        with torch.set_grad_enabled(torch.is_grad_enabled() and caches is None):
            x = self.dropout(self.embedding(tokens))
            for layer, one in zip(self.layers, past, strict=True):
                x = layer(x, turn, mask, one)
            return linear(self.norm(x), self.embedding.weight)

    def _surroundings(
        self, tokens: Tensor, caches: Sequence[Cache] | None, counts: Tensor | None, documents: Sequence[int] | None
    ) -> tuple[Turn | None, masks.Mask, list[Past | None]]:
        """Where the tokens stand, what they may see, and what each layer has seen before them."""
        mask: masks.Mask = masks.Causal()
        positions = torch.arange(tokens.shape[1])
        past: list[Past | None] = [None] * len(self.layers)
        if documents is not None:
            mask = mask & masks.Documents.from_lengths(documents)
            positions = packed_positions(documents)
        elif caches is not None:
            start = caches[0].lengths
            past = [Past(cache, counts, start) for cache in caches]
            if len(positions) == 1:
                return None, mask, past
            positions = positions + start[:, None]
        cos, sin = self.rotary.angles(positions)
        return partial(self.rotary.turn, cos=cos, sin=sin), mask, past

    def new_caches(
        self, batch: int, max_len: int, *, window: int | None = None, sinks: int = 0, dtype: torch.dtype = torch.float32
    ) -> list[KVCache]:
        """Empty caches, one a layer, for `batch` rows of at most `max_len` tokens; the arguments of `mmha.KVCache`."""
        sizes = (batch, self.config.kv_heads, max_len, self.config.head_dim)
        return [KVCache(*sizes, dtype=dtype, window=window, sinks=sinks) for _ in self.layers]

    def _check(self, tokens: Tensor, caches: Sequence[Cache] | None, documents: Sequence[int] | None) -> None:
        checks.dtype_in("tokens", tokens, ("int64", "int32"))
        checks.require(tokens.ndim == 2, "tokens", "2 dimensions (B, T)", checks.shape_text(tokens.shape))
        if tokens.numel():
            low, high = (int(t) for t in tokens.aminmax())
            fits = low >= 0 and high < self.config.vocabulary
            checks.require(fits, "tokens", f"numbers from 0 to {self.config.vocabulary - 1}", f"{low} to {high}")
        if caches is not None:
            layers = len(self.layers)
            checks.require(len(caches) == layers, "caches", f"one a layer = {layers}", str(len(caches)))
        if documents is not None:
            checks.require(caches is None, "documents", "no caches beside them", "caches")
            checks.require(
                tokens.shape[0] == 1, "tokens", "B = 1 for packed documents", checks.shape_text(tokens.shape)
            )
            total = sum(documents)
            checks.require(total == tokens.shape[1], "documents", f"lengths of sum T = {tokens.shape[1]}", total)


def _counts(counts: Tensor | Sequence[int], tokens: Tensor) -> Tensor:
    batch, length = tokens.shape
    found = torch.as_tensor(counts)
    checks.dtype_in("counts", found, ("int64", "int32"))
    checks.shape_is("counts", found, (batch,), "(B,)")
    fits = not batch or (int(found.min()) >= 0 and int(found.max()) <= length)
    checks.require(fits, "counts", f"numbers from 0 to T = {length}", str(found.tolist()))
    return found.to(torch.int64)


def save(model: CausalLM, tokenizer: Tokenizer, path: Path, about: dict[str, Any], name: str | None = None) -> None:
    """Write the model to `path` (.json), tokenizer included, and its weights beside it in 16 bits.

    Raises: OSError when the folder cannot be written.
    """
    document = {
        "model": "causal_lm",
        "about": about,
        "config": asdict(model.config),
        "merges": subwords.stored(tokenizer),
    }
    checkpoint.save(path, {k: v.half() for k, v in model.state_dict().items()}, document, name)


def load(place: Path | str = SHIPPED) -> tuple[CausalLM, Tokenizer]:
    """The model and its tokenizer from a checkpoint or the folder that holds it, by default those that ship with mmha.

    Raises: FileNotFoundError when it is not there, ValueError when it is damaged or of another model.
    """
    path = Path(place)
    path = path / SHIPPED.name if path.is_dir() else path
    document, data = checkpoint.read(path)
    config = read_config(document, path)
    tokenizer = subwords.restored(document, config.vocabulary, path)
    weights = {k: v.float() for k, v in checkpoint.tensors(data, path).items()}
    return checkpoint.fill(lambda: CausalLM(config), weights, config.parameters, path), tokenizer
