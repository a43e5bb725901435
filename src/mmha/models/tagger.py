"""A part-of-speech tagger: self-attention over words that are known by sight, by their letters, or by both.

A word comes in as e = [E_word(w) ; Σ E_piece(c)] where the pieces c are its first 1–4 letters, its last 1–5 letters
and its shape, so that a word never seen is read from its ends and its capitals. x = W·e + a·PE(position), then pre-LN
blocks, then a linear layer gives one score for each tag.

Sentences are packed in one row without padding; `Documents` keeps them apart. Within a sentence some heads look at
exactly one neighbour (`Config.taps`), which a mask says better than a position code can; the others look everywhere.
The first word has no neighbour on the left: that head's row is fully hidden and is 0 by promise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmha import checkpoint, masks
from mmha.nn import Block, groups, positions_of, sinusoidal

SHIPPED = Path(__file__).parents[1] / "weights" / "tagger.json"
LONGEST = 256  # words; longer sentences, rarer than one in a million, are tagged in parts

_QUOTES = dict.fromkeys(("``", "''", "“", "”", "„", "«", "»"), '"') | {"‘": "'", "’": "'"}
_NONE = ""  # entry 0 of both vocabularies: an unknown word, no piece


@dataclass(frozen=True)
class Config:
    """Sizes of a tagger. `words`, `pieces` and `tags` are the sizes of the lexicon, entry 0 included."""

    words: int
    pieces: int
    tags: int
    embedding: int
    width: int
    heads: int
    hidden: int
    layers: int
    taps: tuple[int, ...]
    dropout: float
    word_dropout: float


def small(lexicon: Lexicon) -> Config:
    """A tagger for tests and slow machines; seconds to train, less exact."""
    return Config(*lexicon.sizes, 16, 32, 4, 48, 1, (-1, 1), dropout=0.0, word_dropout=0.1)


def base(lexicon: Lexicon) -> Config:
    """The tagger that ships."""
    return Config(*lexicon.sizes, 96, 192, 8, 512, 2, (-1, 1, -2, 2), dropout=0.15, word_dropout=0.1)


BUILDERS = {"small": small, "base": base}


def normal(word: str) -> str:
    """The word as the lexicon counts it: one kind of quotation mark, every digit 0, case kept.

    >>> normal("``"), normal("1961"), normal("I’m")
    ('"', '0000', "I'm")
    """
    word = _QUOTES.get(word, word).replace("’", "'")
    return "".join("0" if c.isdigit() else c for c in word)


def shape(word: str) -> str:
    """The word with each run of upper-case letters, lower-case letters or digits made one X, x or 0.

    >>> shape("McDonald's"), shape("1961-62"), shape("U.S.")
    ("XxXx'x", '0-0', 'X.X.')
    """
    runs: list[str] = []
    for c in word:
        kind = "X" if c.isupper() else "x" if c.islower() else "0" if c.isdigit() else c
        if not runs or runs[-1] != kind:
            runs.append(kind)
    return "".join(runs[:8])


def pieces(word: str) -> list[str]:
    """What is read off a word's letters: beginnings, endings, shape; at most 10.

    >>> pieces("Saw")
    ['^s', '^sa', '^saw', 'w$', 'aw$', 'saw$', '#Xx']
    """
    low = word.lower()
    starts = [f"^{low[:n]}" for n in range(1, min(4, len(low)) + 1)]
    ends = [f"{low[-n:]}$" for n in range(1, min(5, len(low)) + 1)]
    return [*starts, *ends, f"#{shape(word)}"]


MOST_PIECES = 10


class Lexicon:
    """The words, pieces and tags that a tagger knows, and how text becomes numbers.

    >>> lexicon = Lexicon.count([["a", "saw"], ["a", "log"]], ["DET", "NOUN"], least_word=2, least_piece=2)
    >>> lexicon.words, lexicon.pieces
    (('', 'a'), ('', '#x', '^a', 'a$'))
    """

    def __init__(self, words: Sequence[str], pieces: Sequence[str], tags: Sequence[str]) -> None:
        self.words, self.pieces, self.tags = tuple(words), tuple(pieces), tuple(tags)
        self._word = {w: i for i, w in enumerate(self.words)}
        self._piece = {p: i for i, p in enumerate(self.pieces)}
        self._numbers = lru_cache(maxsize=1 << 17)(self._look_up)

    @classmethod
    def count(
        cls, sentences: Iterable[Sequence[str]], tags: Sequence[str], least_word: int = 2, least_piece: int = 5
    ) -> Lexicon:
        """The words and pieces that occur at least so often in the sentences, the most frequent first."""
        counted = Counter(normal(w) for words in sentences for w in words)
        lowered: Counter[str] = Counter()
        parts: Counter[str] = Counter()
        for word, n in counted.items():
            lowered[word.lower()] += n
            for piece in pieces(word):
                parts[piece] += n

        def kept(counter: Counter[str], least: int) -> list[str]:
            return sorted((k for k, n in counter.items() if n >= least), key=lambda k: (-counter[k], k))

        return cls([_NONE, *kept(lowered, least_word)], [_NONE, *kept(parts, least_piece)], tags)

    @property
    def sizes(self) -> tuple[int, int, int]:
        return len(self.words), len(self.pieces), len(self.tags)

    def _look_up(self, word: str) -> tuple[int, list[int]]:
        word = normal(word)
        found = [i for i in map(self._piece.get, pieces(word)) if i]
        return self._word.get(word.lower(), 0), found + [0] * (MOST_PIECES - len(found))

    def encode(self, sentences: Iterable[Sequence[str]]) -> tuple[Tensor, Tensor, list[int]]:
        """The sentences packed: words int64 (N,), pieces int64 (N, 10), the sentences' lengths."""
        lengths: list[int] = []
        words: list[int] = []
        parts: list[list[int]] = []
        for sentence in sentences:
            lengths.append(len(sentence))
            for word in sentence:
                number, piece_numbers = self._numbers(word)
                words.append(number)
                parts.append(piece_numbers)
        return torch.tensor(words), torch.tensor(parts).view(-1, MOST_PIECES), lengths


def only(offset: int) -> masks.Mask:
    """The mask that shows each token one other: the one `offset` places on (negative: back).

    >>> print(only(-1).show(1, 1, 3, 3))  # doctest: +SKIP
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

    def embed(self, words: Tensor, pieces: Tensor, lengths: list[int]) -> Tensor:
        """The words before they have looked at each other, (1, N, width)."""
        if self.training:
            words = words.masked_fill(torch.rand(words.shape) < self.config.word_dropout, 0)
        seen = torch.cat((self.word(words), self.piece(pieces)), dim=-1)
        places = sinusoidal(positions_of(lengths), self.config.width)
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
        parts = [
            (i, words[at : at + LONGEST]) for i, words in enumerate(sentences) for at in range(0, len(words), LONGEST)
        ]
        result: list[list[str]] = [[] for _ in sentences]
        for group in groups([len(words) for _, words in parts], range(len(parts)), tokens):
            encoded = self.lexicon.encode([parts[k][1] for k in group])
            best = self(*encoded).argmax(-1).split(encoded[2])
            for k, found in zip(group, best, strict=True):
                result[parts[k][0]] += [self.lexicon.tags[t] for t in found.tolist()]
        return result

    @torch.no_grad()
    def looked_at(self, sentence: Sequence[str]) -> Tensor:
        """How much each word looked at each other in the last layer, mean of the heads that see everything.

        Returns: float32 (T, T) for the first 256 words, each row sums to 1.
        """
        self.eval()
        words, pieces, lengths = self.lexicon.encode([sentence[:LONGEST]])
        x = self.embed(words, pieces, lengths)
        mask = sight(self.config, lengths)
        for block in self.blocks[:-1]:
            x = block(x, mask)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        weights = last.attention.weights(last.norm_attention(x), mask)
        mean: Tensor = weights[0, len(self.config.taps) :].mean(0)
        return mean


def save(model: Tagger, path: Path, about: dict[str, Any], name: str | None = None) -> None:
    """Write the tagger to `path` (.json) and its weights beside it, in half precision."""
    lexicon = {k: "\n".join(getattr(model.lexicon, k)) for k in ("words", "pieces", "tags")}
    document = {"model": "tagger", "about": about, "config": asdict(model.config), "lexicon": lexicon}
    checkpoint.save(path, {k: v.half() for k, v in model.state_dict().items()}, document, name)


def load(path: Path = SHIPPED) -> Tagger:
    """The tagger of a checkpoint, by default the one that ships with mmha.

    Raises: FileNotFoundError when it is not there, ValueError when it is damaged or of another model.
    """
    document, tensors = checkpoint.load(path)
    if document.get("model") != "tagger":
        raise ValueError(f"{path}: expected a tagger, got {document.get('model')!r}")
    try:
        config = Config(**document["config"] | {"taps": tuple(document["config"]["taps"])})
        lexicon = Lexicon(*(document["lexicon"][k].split("\n") for k in ("words", "pieces", "tags")))
        with torch.device("meta"):
            model = Tagger(config, lexicon)
        model.load_state_dict({k: v.float() for k, v in tensors.items()}, assign=True)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path}: expected a tagger, got a checkpoint that does not fit ({error})") from None
    return model.eval()
