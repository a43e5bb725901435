"""The decoder a token at a time: what it has written and what it reads of the sources stands in caches.

Several rows may write for one source, the beams of a search. Each layer has two caches: one of the rows' own tokens,
which grows by a token a step, and one of the sources, filled once, whose keys and values all rows of a source read
where they are: to attention the rows of a source are so many queries of one sequence. Nothing is copied when rows go
on from others, multiply or leave.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from mmha.cache import KVCache, masked_multihead_attention
from mmha.models.seq2seq.model import DecoderLayer, Seq2Seq
from mmha.nn import MultiheadAttention, unpack
from mmha.nn.linear import Arranged, linear
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


class LayerStep:
    """A layer of the decoder for one token a row, with its matrices arranged for few rows.

    Shapes: x (R, width) → (R, width); own, a cache of R rows that grows by a token; source, a row for each source.
    """

    def __init__(self, layer: DecoderLayer, rows: int) -> None:
        arrange = functools.partial(Arranged, rows=rows)
        self.norms: list[nn.LayerNorm] = [residual.norm for residual in layer.residuals]  # type: ignore[misc]
        self.norm_first, self.heads = layer.residuals[0].norm_first, layer.own.num_heads
        width, own, cross = layer.own.embed_dim, layer.own, layer.cross
        up, _, down = layer.feed_forward.children()
        assert isinstance(up, nn.Linear)
        assert isinstance(down, nn.Linear)
        self.qkv = arrange(own.in_proj_weight, own.in_proj_bias)
        self.own_out = arrange(own.out_proj.weight, own.out_proj.bias)
        self.query = arrange(cross.in_proj_weight[:width], cross.in_proj_bias[:width])
        self.cross_out = arrange(cross.out_proj.weight, cross.out_proj.bias)
        self.up, self.down = arrange(up.weight, up.bias, relu=True), arrange(down.weight, down.bias)

    def __call__(self, x: Tensor, own: KVCache, source: KVCache, groups: Groups) -> Tensor:
        x = self._residual(0, x, lambda x: self.own_out(masked_multihead_attention(self.qkv(x), own)))
        x = self._residual(1, x, lambda x: self._look(x, source, groups))
        return self._residual(2, x, lambda x: self.down(self.up(x)))

    def _look(self, x: Tensor, source: KVCache, groups: Groups) -> Tensor:
        """Each row looks at its source."""
        q = groups.side_by_side(self.query(x))
        heads = q.view(*q.shape[:2], self.heads, -1).transpose(1, 2)
        return self.cross_out(groups.rows(attention(heads, source).transpose(1, 2).flatten(2)))

    def _residual(self, number: int, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        """As `Residual`, of whose dropout nothing is left."""
        norm = self.norms[number]
        if self.norm_first:
            return x + f(layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
        return layer_norm(x + f(x), norm.normalized_shape, norm.weight, norm.bias, norm.eps)


class Steps:
    """The decoder as it is now, for one token each of about so many rows."""

    def __init__(self, model: Seq2Seq, rows: int) -> None:
        self.layers = [LayerStep(layer, rows) for layer in model.decoder]  # type: ignore[arg-type]
        self.words = Arranged(model.embedding.weight, rows=rows)


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

    Args: sources, the tokens of each, its end included; width, the most rows that a source will have; length, the most
        tokens that will be written; steps, the model's `Steps`, which decoders may share.
    """

    @torch.no_grad()
    def __init__(
        self, model: Seq2Seq, sources: Sequence[Sequence[int]], width: int, length: int, steps: Steps | None = None
    ) -> None:
        self.model, self.written = model, 0
        lengths = [len(source) for source in sources]
        hidden = model.encode(torch.tensor(list(chain(*sources)), dtype=torch.int64), lengths)
        rows = len(sources) * width
        self.steps = Steps(model, rows) if steps is None else steps
        layers: list[DecoderLayer] = list(model.decoder)  # type: ignore[arg-type]
        self.source = [remember(layer.cross, hidden, lengths) for layer in layers]
        self.own = [KVCache(rows, model.config.heads, length, model.config.head_dim) for _ in layers]
        self.of_row = list(range(len(sources)))
        self.groups = Groups(self.of_row)
        self._branch(self.own, self.of_row)

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """One token more for each row, int64 (R,): the logits of what follows it, (R, vocabulary)."""
        x = self.model.embed(tokens, self.written)
        for layer, own, source in zip(self.steps.layers, self.own, self.source, strict=True):
            x = layer(x, own, source, self.groups)
        self.written += 1
        return self.steps.words(self.model.decoder_norm(x))

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
