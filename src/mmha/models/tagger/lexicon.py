"""What a tagger knows of words, and how text becomes numbers. No torch here: it is not needed for that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MOST_PIECES = 10
_QUOTES = dict.fromkeys(("``", "''", "“", "”", "„", "«", "»"), '"') | {"‘": "'", "’": "'"}
_NONE = ""  # entry 0 of both vocabularies: an unknown word, no piece


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

    def encode(self, sentences: Iterable[Sequence[str]]) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int]]:
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
        shaped = np.array(parts, dtype=np.int64).reshape(-1, MOST_PIECES)
        return np.array(words, dtype=np.int64), shaped, lengths


def parts_of(sentences: Sequence[Sequence[str]], longest: int) -> list[tuple[int, Sequence[str]]]:
    """(sentence number, words) with no more than `longest` words each; empty sentences have no part.

    >>> parts_of([["a", "b", "c"], [], ["d"]], longest=2)
    [(0, ['a', 'b']), (0, ['c']), (2, ['d'])]
    """
    cut = ((i, words[at : at + longest]) for i, words in enumerate(sentences) for at in range(0, len(words), longest))
    return list(cut)
