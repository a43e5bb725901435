"""A part-of-speech tagger: self-attention over words that are known by sight, by their letters, or by both.

A word comes in as e = [E_word(w) ; Σ E_piece(c)] where the pieces c are its first 1–4 letters, its last 1–5 letters
and its shape, so that a word never seen is read from its ends and its capitals. x = W·e + a·PE(position), then pre-LN
blocks, then a linear layer gives one score for each tag.

Sentences are packed in one row without padding; `Documents` keeps them apart. Within a sentence some heads look at
exactly one neighbour (`Config.taps`), which a mask says better than a position code can; the others look everywhere.
The first word has no neighbour on the left: that head's row is fully hidden and is 0 by promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmha import checkpoint, masks
from mmha.models.tagger.config import LONGEST, SHIPPED, TABLES, Config, check_weights, read_document
from mmha.models.tagger.lexicon import Lexicon, parts_of
from mmha.nn import Block, groups, packed_positions, sinusoidal


def only(offset: int) -> masks.Mask:
    """The mask that shows each token one other: the one `offset` places on (negative: back).

    >>> print(only(-1).show(4))
    0 · · · ·
    1 ██· · ·
    2 · ██· ·
    3 · · ██·
    """
    if offset < 0:
        return masks.Window(-offset, 0) & ~masks.Window(-offset - 1, 0)
    return masks.Window(0, offset) & ~masks.Window(0, offset - 1)


def sight(config: Config, lengths: Sequence[int]) -> masks.Mask:
    """Who sees whom: everybody in the same sentence, and through the first heads only the neighbour at `taps`."""
    everywhere = config.heads - len(config.taps)
    heads = [*map(only, config.taps), *[masks.Full()] * everywhere]
    return masks.Documents.from_lengths(lengths) & masks.PerHead(heads)


class Tagger(nn.Module):
    """Scores of every tag for every word; `tag` for words in and tags out.

    Shapes: words int64 (N,), pieces int64 (N, 10), the lengths of the sentences packed in N → float32 (N, tags).
    """

    lexicon: Lexicon

    def __init__(self, config: Config, lexicon: Lexicon) -> None:
        super().__init__()
        self.config, self.lexicon = config, lexicon
        self.word = nn.Embedding(config.words, config.embedding)
        self.piece = nn.EmbeddingBag(config.pieces, config.embedding, mode="sum", padding_idx=0)
        self.mix = nn.Linear(2 * config.embedding, config.width)
        self.position_scale = nn.Parameter(torch.tensor(0.1))
        layers = (Block(config.width, config.heads, config.hidden, config.dropout) for _ in range(config.layers))
        self.blocks = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.tags)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.word.weight, std=0.3)
        nn.init.normal_(self.piece.weight, std=0.1)

    def encode(self, sentences: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor, list[int]]:
        """What `forward` takes, of words."""
        words, pieces, lengths = self.lexicon.encode(sentences)
        return torch.from_numpy(words), torch.from_numpy(pieces), lengths

    def embed(self, words: Tensor, pieces: Tensor, lengths: list[int]) -> Tensor:
        """The words before they have looked at each other, (1, N, width)."""
        if self.training:
            words = words.masked_fill(torch.rand(words.shape) < self.config.word_dropout, 0)
        seen = torch.cat((self.word(words), self.piece(pieces)), dim=-1)
        places = sinusoidal(packed_positions(lengths), self.config.width)
        x: Tensor = self.mix(self.dropout(seen)) + self.position_scale * places
        return x[None]

    def forward(self, words: Tensor, pieces: Tensor, lengths: list[int]) -> Tensor:
        x = self.embed(words, pieces, lengths)
        mask = sight(self.config, lengths)
        for block in self.blocks:
            x = block(x, mask)
        scores: Tensor = self.head(self.dropout(self.norm(x)))[0]
        return scores

    @torch.no_grad()
    def tag(self, sentences: Sequence[Sequence[str]], tokens: int = 4096) -> list[list[str]]:
        """The best tag of every word of every sentence; `tokens` words go through the model at a time."""
        self.eval()
        parts = parts_of(sentences, LONGEST)
        result: list[list[str]] = [[] for _ in sentences]
        for group in groups([len(words) for _, words in parts], range(len(parts)), tokens):
            words, pieces, lengths = self.encode([parts[k][1] for k in group])
            best = self(words, pieces, lengths).argmax(-1).split(lengths)
            for k, found in zip(group, best, strict=True):
                result[parts[k][0]] += [self.lexicon.tags[t] for t in found.tolist()]
        return result

    @torch.no_grad()
    def attention(self, sentence: Sequence[str]) -> Tensor:
        """How much each word looked at each other, in every layer and head.

        Returns: float32 (layers, heads, T, T) for the first 256 words; a row sums to 1, or to 0 where a head that looks
            at one neighbour has none.
        """
        self.eval()
        words, pieces, lengths = self.encode([sentence[:LONGEST]])
        x = self.embed(words, pieces, lengths)
        mask = sight(self.config, lengths)
        seen = []
        for block in self.blocks:
            assert isinstance(block, Block)
            seen.append(block.attention.weights(block.norm_attention(x), mask))
            x = block(x, mask)
        return torch.cat(seen)

    def looked_at(self, sentence: Sequence[str]) -> Tensor:
        """How much each word looked at each other in the last layer, mean of the heads that see everything.

        Returns: float32 (T, T) for the first 256 words, each row sums to 1.
        """
        mean: Tensor = self.attention(sentence)[-1, len(self.config.taps) :].mean(0)
        return mean


def save(model: Tagger, path: Path, about: dict[str, Any], name: str | None = None) -> None:
    """Write the tagger to `path` (.json) and its weights beside it, the tables in 8 bits and the rest in 16."""
    lexicon = {k: "\n".join(getattr(model.lexicon, k)) for k in ("words", "pieces", "tags")}
    document = {"model": "tagger", "about": about, "config": asdict(model.config), "lexicon": lexicon}
    checkpoint.save(path, checkpoint.narrow(model.state_dict(), TABLES), document, name)


def load(path: Path = SHIPPED) -> Tagger:
    """The tagger of a checkpoint, by default the one that ships with mmha.

    Raises: FileNotFoundError when it is not there, ValueError when it is damaged or of another model.
    """
    document, data = checkpoint.read(path)
    config, lexicon = read_document(document, path)
    tensors = checkpoint.tensors(data, path)
    check_weights(config, tensors, path)  # before memory is taken for sizes that a document only claims
    # Not on the meta device: filling tensors there imports torch's compiler, which takes longer than everything else.
    with torch.random.fork_rng(devices=[]):
        model = Tagger(config, lexicon)
    model.load_state_dict(checkpoint.widen(tensors, path), assign=True)
    return model.eval()
