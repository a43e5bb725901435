"""The model's decoder as one first writes it well in plain torch: growing caches, torch's attention, beams reordered.

Keys and values of the target grow by `torch.cat`; those of the source are projected once and not repeated: the beams
of a sentence are rows of one query. After each step `index_select` puts every surviving beam behind its own past, and
leaves out sentences that are done.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmha.models.seq2seq import Seq2Seq
from mmha.nn import sinusoidal

Pair = tuple[Tensor, Tensor]
Score = Callable[[float, int], float]  # of a sum of log-probabilities and how many tokens it is of


@dataclass
class Sentence:
    """One sentence of the batch: the most tokens of a translation, its beams as far as they have come, and its
    translations with their scores."""

    longest: int
    beams: list[list[int]] = field(default_factory=lambda: [[]])
    done: list[tuple[float, list[int]]] = field(default_factory=list)


@dataclass
class State:
    """The sentences that go on, their encoded sources (a pair a layer), which of their tokens are real, and the past
    of their beams (a pair a layer)."""

    sentences: list[Sentence]
    cross: list[Pair]
    real: Tensor
    past: list[Pair | None]
    beam: int

    def advance(self, best: Tensor, parents: Tensor, words: Tensor, end: int, score: Score) -> tuple[Tensor, Tensor]:
        """Choose the beams that go on, put them behind their pasts; tokens (N,) and totals (B, beam) of what is left.

        Candidates (B, 2 beam) come best first. One that ends is a translation when it is among the first `beam`. A
        sentence is done when no beam can still become better than its best translation: totals only fall.
        """
        kept: list[int] = []
        rows: list[int] = []
        tokens: list[int] = []
        totals: list[list[float]] = []
        candidates = zip(best.tolist(), parents.tolist(), words.tolist(), strict=True)
        for number, (sentence, found) in enumerate(zip(self.sentences, candidates, strict=True)):
            ongoing = []
            length = len(sentence.beams[0]) + 1
            for rank, (total, parent, word) in enumerate(zip(*found, strict=True)):
                text = [*sentence.beams[parent], word]
                if word == end or length == sentence.longest:
                    if rank < self.beam:
                        sentence.done.append((score(total, length), text[:-1] if word == end else text))
                elif len(ongoing) < self.beam:
                    ongoing.append((total, parent, word, text))
            hope = max(score(ongoing[0][0], n) for n in (length, sentence.longest)) if ongoing else None
            if hope is None or (sentence.done and max(sentence.done)[0] >= hope):
                continue
            kept.append(number)
            rows += [number * self.beam + parent for _, parent, _, _ in ongoing]
            tokens += [word for _, _, word, _ in ongoing]
            totals.append([total for total, *_ in ongoing])
            sentence.beams = [text for *_, text in ongoing]
        self.select(torch.tensor(rows, dtype=torch.int64), torch.tensor(kept, dtype=torch.int64))
        return torch.tensor(tokens, dtype=torch.int64), torch.tensor(totals)

    def select(self, rows: Tensor, kept: Tensor) -> None:
        """Leave the rows of all beams, and the sentences that are kept."""
        self.past = [tuple(x.index_select(0, rows) for x in pair) for pair in self.past]
        if len(kept) < len(self.sentences):
            self.sentences = [self.sentences[number] for number in kept.tolist()]
            self.cross = [tuple(x.index_select(0, kept) for x in pair) for pair in self.cross]
            self.real = self.real.index_select(0, kept)


class Plain:
    """Beam search over the weights of `model`."""

    def __init__(self, model: Seq2Seq, positions: int = 1024) -> None:
        self.model, self.heads = model, model.config.heads
        self.codes = sinusoidal(torch.arange(positions), model.config.width)

    @torch.inference_mode()
    def __call__(self, sources: Sequence[Sequence[int]], beam: int, extra: int, score: Score) -> list[list[int]]:
        """The best translation of each source by score(total, length), without its end.

        It has at most as many tokens as the source, the end included, and `extra` more.
        """
        lengths = torch.tensor([len(source) + 1 for source in sources])
        rows = [torch.tensor([*source, self.model.end]) for source in sources]
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        real = torch.arange(padded.shape[1]) < lengths[:, None]
        hidden = self.encode(padded, real)
        cross = [tuple(self.heads_of(F.linear(hidden, *parts(layer.cross, i))) for i in (1, 2))
                 for layer in self.model.decoder]  # fmt: skip
        state = State(
            [Sentence(len(row) + extra) for row in rows], cross, real[:, None, None], [None] * len(cross), beam
        )
        return self.search(state, score)

    def search(self, state: State, score: Score) -> list[list[int]]:
        """Step after step until every sentence is done."""
        everyone, beam = list(state.sentences), state.beam
        tokens = torch.full((len(everyone) * beam,), self.model.end)
        totals = torch.full((len(everyone), beam), -math.inf)
        totals[:, 0] = 0
        for step in itertools.count():
            known = self.step(tokens, step, state).log_softmax(-1).view(len(state.sentences), beam, -1)
            best, places = (totals[..., None] + known).flatten(1).topk(2 * beam)
            parents, words = places // known.shape[-1], places % known.shape[-1]
            tokens, totals = state.advance(best, parents, words, self.model.end, score)
            if not len(tokens):
                return [max(sentence.done)[1] for sentence in everyone]
        raise AssertionError

    def encode(self, tokens: Tensor, real: Tensor) -> Tensor:
        """What the encoder makes of padded sources (B, S)."""
        x = self.embed(tokens, slice(0, tokens.shape[1]))
        for layer in self.model.encoder:
            x = layer.residuals[0](x, lambda x, layer=layer: self.own(layer.own, x, None, real[:, None, None])[0])
            x = layer.residuals[1](x, layer.feed_forward)
        return self.model.encoder_norm(x)

    def step(self, tokens: Tensor, position: int, state: State) -> Tensor:
        """The logits (N, V) after one more token of every row (N,)."""
        x = self.embed(tokens[:, None], slice(position, position + 1))
        for number, layer in enumerate(self.model.decoder):

            def own(x: Tensor, number: int = number, layer: nn.Module = layer) -> Tensor:
                out, state.past[number] = self.own(layer.own, x, state.past[number], None)
                return out

            def cross(x: Tensor, number: int = number, layer: nn.Module = layer) -> Tensor:
                q = self.heads_of(F.linear(x, *parts(layer.cross, 0)).view(-1, state.beam, x.shape[-1]))
                seen = F.scaled_dot_product_attention(q, *state.cross[number], attn_mask=state.real)
                return layer.cross.out_proj(seen.transpose(1, 2).reshape(x.shape))

            x = layer.residuals[0](x, own)
            x = layer.residuals[1](x, cross)
            x = layer.residuals[2](x, layer.feed_forward)
        return F.linear(self.model.decoder_norm(x[:, 0]), self.model.embedding.weight)

    def own(self, attention: nn.Module, x: Tensor, past: Pair | None, mask: Tensor | None) -> tuple[Tensor, Pair]:
        """Self-attention of x (N, T, width) behind its past, and the past with x."""
        q, k, v = map(self.heads_of, F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1))
        if past is not None:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return attention.out_proj(seen.transpose(1, 2).flatten(2)), (k, v)

    def embed(self, tokens: Tensor, positions: slice) -> Tensor:
        """Scaled embeddings and the codes of the positions."""
        return self.model.embedding(tokens) * math.sqrt(self.model.config.width) + self.codes[positions]

    def heads_of(self, x: Tensor) -> Tensor:
        """(N, T, width) as (N, H, T, D)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def parts(attention: nn.MultiheadAttention, number: int) -> Pair:
    """Weight and bias that make q (0), k (1) or v (2)."""
    rows = slice(number * attention.embed_dim, (number + 1) * attention.embed_dim)
    return attention.in_proj_weight[rows], attention.in_proj_bias[rows]
