"""Pairs of text, [CLS] A [SEP] B [SEP], of which the model says whether B goes on where A ends.

A document is cut into runs of sentences of about `length` tokens; a run is cut in two at random, A and B. With
probability 0.5 B is put back and a part of another document takes its place, from a random sentence on, as long as
there is room. With probability `short` a run is of a random shorter length. What is still too long is cut token by
token, from the front or the back, at random, of the longer half.

Source: Devlin et al. (2019), section 3.1 and appendix A.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmha import checks

Tokens = list[int]
Document = Sequence[Sequence[int]]
"""Its sentences, the tokens of each."""


class Pair(NamedTuple):
    """Two texts and whether the second follows the first; `document` is where the first is from."""

    first: Tokens
    second: Tokens
    follows: bool
    document: int


@dataclass(frozen=True)
class Pairs:
    """All pairs of some documents.

    Args: documents, at least 2, each of at least one sentence, none empty; length, of a pair with its 3 markers, at
        least 5; short, the probability of a shorter pair.
    Raises: ValueError naming the argument.

    >>> pairs = Pairs([[[5, 6], [7, 8], [9]], [[15], [16, 17], [18]]], length=8)
    >>> for pair in pairs(np.random.default_rng(1)):
    ...     print(pair.first, pair.second, pair.follows)
    [5, 6] [15, 16, 17] False
    [7, 8] [9] True
    [15] [7, 8, 9] False
    [16, 17] [18] True
    """

    documents: Sequence[Document]
    length: int
    short: float = 0.1

    def __post_init__(self) -> None:
        checks.integer("length", self.length, minimum=5)
        fits = 0 <= checks.number("short", self.short) <= 1
        checks.require(fits, "short", "a probability from 0 to 1", self.short)
        checks.require(len(self.documents) > 1, "documents", "at least 2", len(self.documents))
        whole = all(document and all(len(s) for s in document) for document in self.documents)
        checks.require(whole, "documents", "sentences of at least one token in each", "an empty one")

    def __call__(self, generator: np.random.Generator) -> list[Pair]:
        """One pass over the documents, in their order, cut and paired as the generator has it."""
        return [pair for number in range(len(self.documents)) for pair in self._of(number, generator)]

    def _of(self, number: int, generator: np.random.Generator) -> list[Pair]:
        """The pairs whose first half is from one document."""
        document, at, pairs = self.documents[number], 0, []
        while at < len(document):
            target = room = self.length - 3
            if generator.random() < self.short:
                target = int(generator.integers(2, room + 1))
            follows = bool(generator.random() < 0.5)
            stop = _stop(document, at, target, 2 if follows else 1)
            if follows and stop - at < 2:
                break  # the last sentence of a document has nothing after it
            cut = at + (int(generator.integers(1, stop - at)) if stop - at > 1 else 1)
            first = _joined(document[at:cut])
            if follows:
                second = _joined(document[cut:stop])
            else:
                second = self._elsewhere(number, target - len(first), generator)
                stop = cut  # what B would have been begins the next pair
            cut_to(first, second, room, generator)
            pairs.append(Pair(first, second, follows, number))
            at = stop
        return pairs

    def _elsewhere(self, number: int, target: int, generator: np.random.Generator) -> Tokens:
        """A part of another document, all others alike, of about so many tokens."""
        other = int(generator.integers(len(self.documents) - 1))
        document = self.documents[other + (other >= number)]
        at = int(generator.integers(len(document)))
        return _joined(document[at : _stop(document, at, target, 1)])


def cut_to(first: Tokens, second: Tokens, room: int, generator: np.random.Generator) -> None:
    """Take tokens off the longer of the two, the front or the back at random, until both have room together.

    >>> first, second = [1, 2, 3, 4, 5, 6], [7, 8]
    >>> cut_to(first, second, 5, np.random.default_rng(0)); print(first, second)
    [3, 4, 5] [7, 8]
    """
    while len(first) + len(second) > room:
        longer = first if len(first) > len(second) else second
        del longer[0 if generator.random() < 0.5 else -1]


def _stop(document: Document, at: int, target: int, least: int) -> int:
    """Where a run from sentence `at` on ends: with `target` tokens or more, and so many sentences, if there are."""
    stop, tokens = at, 0
    while stop < len(document) and (tokens < target or stop - at < least):
        tokens += len(document[stop])
        stop += 1
    return stop


def _joined(sentences: Sequence[Sequence[int]]) -> Tokens:
    return [token for sentence in sentences for token in sentence]
