"""The decoder a token at a time: what it has written and what it reads of the sources stands in caches.

Several rows may write for one source, the beams of a search. Each layer has two caches: one of the rows' own tokens,
which grows by a token a step, and one of the sources, filled once, whose keys and values all rows of a source read
where they are: to attention the rows of a source are so many queries of one sequence. Nothing is copied when rows go
on from others, multiply or leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import linear

from mmha.cache import KVCache, masked_multihead_attention
from mmha.models.seq2seq.model import DecoderLayer, Seq2Seq
from mmha.nn import MultiheadAttention, unpack
from mmha.ops import attention


def remember(layer: MultiheadAttention, hidden: Tensor, lengths: Sequence[int]) -> KVCache:
    """The keys and values of encoded sources, hidden (N, width) laid end to end: a row of the cache each."""
    width = layer.embed_dim
    both = linear(hidden, layer.in_proj_weight[width:], layer.in_proj_bias[width:])
    rows = unpack(both[None], lengths)
    k, v = rows.view(*rows.shape[:2], 2, layer.num_heads, layer.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
    cache = KVCache(len(lengths), layer.num_heads, max(1, k.shape[2]), layer.head_dim)
    cache.append(k, v, torch.tensor(lengths, dtype=torch.int64))
    return cache


def attend_own(layer: MultiheadAttention, x: Tensor, cache: KVCache) -> Tensor:
    """Each row looks at what it has written, its new token included. Shapes: (R, width) → (R, width)."""
    qkv = linear(x, layer.in_proj_weight, layer.in_proj_bias)
    out: Tensor = layer.out_proj(masked_multihead_attention(qkv, cache))
    return out


def attend_source(layer: MultiheadAttention, x: Tensor, cache: KVCache, groups: Groups) -> Tensor:
    """Each row looks at its source. Shapes: (R, width) → (R, width)."""
    width = layer.embed_dim
    q = groups.side_by_side(linear(x, layer.in_proj_weight[:width], layer.in_proj_bias[:width]))
    heads = q.view(*q.shape[:2], layer.num_heads, layer.head_dim).transpose(1, 2)
    seen = attention(heads, cache).transpose(1, 2).flatten(2)
    out: Tensor = layer.out_proj(groups.rows(seen))
    return out


class Groups:
    """Rows that write for the same source, side by side: R rows as (sources, most rows a source has).

    >>> groups = Groups([0, 0, 1])
    >>> groups.side_by_side(torch.tensor([[5], [6], [7]])).tolist()
    [[[5], [6]], [[7], [0]]]
    """

    def __init__(self, sources: Sequence[int]) -> None:
        counts = [0] * (max(sources, default=-1) + 1)
        place: list[tuple[int, int]] = []
        for source in sources:
            place.append((source, counts[source]))
            counts[source] += 1
        self.sources, self.most = len(counts), max(counts, default=0)
        self.full = len(place) == self.sources * self.most
        self.place = torch.tensor([source * self.most + beam for source, beam in place], dtype=torch.int64)

    def side_by_side(self, x: Tensor) -> Tensor:
        """(R, width) → (sources, most, width), 0 where a source has fewer rows."""
        if not self.full:
            x = x.new_zeros(self.sources * self.most, x.shape[1]).index_copy_(0, self.place, x)
        return x.view(self.sources, self.most, x.shape[1])

    def rows(self, x: Tensor) -> Tensor:
        """The way back."""
        flat = x.flatten(0, 1)
        return flat if self.full else flat[self.place]


class Decoder:
    """Writes the targets of a batch of sources, one token a row and step; at first each source has one row.

    Args: sources, the tokens of each, its end included; width, the most rows that a source will have; steps, the most
        tokens that will be written.
    """

    @torch.no_grad()
    def __init__(self, model: Seq2Seq, sources: Sequence[Sequence[int]], width: int, steps: int) -> None:
        self.model, self.written = model, 0
        lengths = [len(source) for source in sources]
        hidden = model.encode(torch.tensor(list(chain(*sources)), dtype=torch.int64), lengths)
        sizes = (len(sources) * width, model.config.heads, steps, model.config.head_dim)
        self.layers: list[DecoderLayer] = list(model.decoder)  # type: ignore[arg-type]
        self.source = [remember(layer.cross, hidden, lengths) for layer in self.layers]
        self.own = [KVCache(*sizes) for _ in self.layers]
        self.of_row = list(range(len(sources)))
        self.groups = Groups(self.of_row)
        self._branch(self.own, self.of_row)

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """One token more for each row, int64 (R,): the logits of what follows it, (R, vocabulary)."""
        x = self.model.embed(tokens, torch.full_like(tokens, self.written))
        for layer, own, source in zip(self.layers, self.own, self.source, strict=True):
            x = self._layer(layer, x, own, source)
        self.written += 1
        return self.model.words(self.model.decoder_norm(x))

    def _layer(self, layer: DecoderLayer, x: Tensor, own: KVCache, source: KVCache) -> Tensor:
        x = layer.residuals[0](x, lambda x: attend_own(layer.own, x, own))
        x = layer.residuals[1](x, lambda x: attend_source(layer.cross, x, source, self.groups))
        out: Tensor = layer.residuals[2](x, layer.feed_forward)
        return out

    def follow(self, parents: Sequence[int]) -> None:
        """Row r goes on from what row parents[r] has written; rows, and sources, that are not named leave.

        Rows of a source stay beside each other, sources in their order.
        """
        self._branch(self.own, parents)
        of_row = [self.of_row[parent] for parent in parents]
        if of_row == self.of_row:
            return
        staying = sorted(set(of_row))
        if len(staying) < self.groups.sources:
            self._branch(self.source, staying)
        number = {source: place for place, source in enumerate(staying)}
        self.of_row = [number[source] for source in of_row]
        self.groups = Groups(self.of_row)

    @staticmethod
    def _branch(caches: list[KVCache], rows: Sequence[int]) -> None:
        """The caches of all layers go on with these rows."""
        caches[0].branch(torch.tensor(rows, dtype=torch.int64), caches[1:])
