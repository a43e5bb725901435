"""Which tokens a masked language model has to find, and what stands in their place.

n = min(most, max(1, round(0.15 · length))) tokens of a sequence are chosen, markers never. A chosen token becomes
[MASK] with probability 0.8, any word with 0.1, and stays with 0.1; the model has to say what it was in all three.

Source: Devlin et al. (2019), section 3.1 and appendix A; whole words: the authors' note of May 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from mmha import checks

Ints = np.ndarray[Any, np.dtype[np.int64]]


class Masked(NamedTuple):
    """A sequence as the model sees it, int (length,); ascending, the places that were chosen; what stood there."""

    tokens: Ints
    places: Ints
    labels: Ints


@dataclass(frozen=True)
class Masking:
    """Chooses tokens and hides them.

    Args:
        mask: the number of [MASK].
        markers: the numbers that no text encodes to ([CLS], [SEP], [PAD], [MASK], [UNK]): never chosen, and never put
            in the place of a word.
        vocabulary: how many tokens there are.
        continues: the tokens that continue a word ("##ing"); given, whole words are chosen, all pieces of a word or
            none.
        rate: the share of a sequence that is chosen; most: how many tokens at most.
        hidden: the share of the chosen that becomes [MASK]; random: that becomes any word. The rest stays.

    Raises: ValueError for shares that are none, and for a vocabulary of markers alone.

    >>> masking = Masking(mask=4, markers=(0, 1, 2, 3, 4), vocabulary=97)
    >>> found = masking([2, 50, 51, 52, 53, 54, 55, 3], np.random.default_rng(7))
    >>> found.tokens.tolist(), found.places.tolist(), found.labels.tolist()
    ([2, 50, 51, 52, 53, 54, 4, 3], [6], [55])
    """

    mask: int
    markers: tuple[int, ...]
    vocabulary: int
    continues: frozenset[int] | None = None
    rate: float = 0.15
    most: int = 20
    hidden: float = 0.8
    random: float = 0.1

    def __post_init__(self) -> None:
        checks.integer("most", self.most, minimum=1)
        fits = 0 < checks.number("rate", self.rate) <= 1
        checks.require(fits, "rate", "a share > 0 and <= 1", self.rate)
        shares = [checks.number(name, getattr(self, name), 0) for name in ("hidden", "random")]
        checks.require(sum(shares) <= 1 + 1e-9, "hidden", "hidden + random <= 1", f"{sum(shares)}")
        checks.integer("vocabulary", self.vocabulary, minimum=1)
        checks.require(len(self._words) > 0, "vocabulary", "words beside the markers", self.vocabulary)

    def __call__(
        self, tokens: Sequence[int] | Ints, generator: np.random.Generator, places: Ints | None = None
    ) -> Masked:
        """The sequence with its chosen tokens hidden, as the generator has it; none of no words.

        Args: tokens int (length,), markers included: they count for the length, as in the original. places, ascending:
            those that somebody has chosen; None = chosen here.
        """
        seen = np.array(tokens, np.int64)
        places = self._places(seen, generator) if places is None else places
        labels = seen[places]
        fate = generator.random(len(places))
        any_word = self._words[generator.integers(len(self._words), size=len(places))]
        replaced = np.where(fate < self.hidden + self.random, any_word, labels)
        seen[places] = np.where(fate < self.hidden, self.mask, replaced)
        return Masked(seen, places, labels)

    def count(self, length: int) -> int:
        """How many tokens of a sequence of so many are chosen, if it has as many words.

        >>> masking = Masking(mask=4, markers=(4,), vocabulary=97)
        >>> [masking.count(length) for length in (1, 9, 10, 11, 128, 512)]
        [1, 1, 2, 2, 19, 20]
        """
        return min(self.most, max(1, round(self.rate * length)))

    @cached_property
    def _words(self) -> Ints:
        return np.setdiff1d(np.arange(self.vocabulary), self.markers)

    def _places(self, tokens: Ints, generator: np.random.Generator) -> Ints:
        words = np.flatnonzero(~np.isin(tokens, self.markers))
        count = self.count(len(tokens))
        if self.continues is None:
            return np.sort(generator.permutation(words)[:count])
        chosen: list[int] = []
        groups = _whole_words(tokens, words, self.continues)
        for number in generator.permutation(len(groups)):
            # A word that does not fit is passed over, a shorter one may come after it.
            if len(chosen) + len(groups[number]) <= count:
                chosen += groups[number]
        return np.array(sorted(chosen), np.int64)


def _whole_words(tokens: Ints, places: Ints, continues: frozenset[int]) -> list[list[int]]:
    """The places of each word's pieces; a piece that continues nothing (its word was cut off) is a word of its own."""
    groups: list[list[int]] = []
    for place in places.tolist():
        if groups and groups[-1][-1] == place - 1 and int(tokens[place]) in continues:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups
