"""What counting says about a masked word: the measure beside which a masked language model is put.

The word t between l and r is guessed from how often they stood so in a text: the t with the largest

    c(l t r) + k·q(t),   q(t) ∝ p(t | l) · p(r | t),   p(b | a) = (c(a b) + j·p(b)) / (c(a) + j),

where q sums to 1. So it backs off from both neighbours together to each alone, and to the most frequent word. A
neighbour that the text does not have, a mask for one, says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mmha import checks
from mmha.metrics import Accuracy

Numbers = np.ndarray[Any, Any]


class Neighbours:
    """Counts of words and of what stands beside them.

    Args:
        documents: their sentences, the tokens of each; a sentence also counts as standing between cls and sep.
        vocabulary: how many tokens there are, < 2^20; cls, sep: the markers at the ends of a sequence.
        k, j: how much the shorter contexts weigh, > 0. The defaults are the best of a few on held-out files of the
            Brown corpus.
    Raises: ValueError when the documents have no word.

    >>> counts = Neighbours([[[5, 6, 7], [5, 6, 7, 5, 8]]], vocabulary=9, cls=2, sep=3)
    >>> counts.frequent, counts.guess(left=5, right=7), counts.guess(left=4, right=4), counts.guess(left=4, right=3)
    (5, 6, 5, 5)
    """

    def __init__(
        self,
        documents: Iterable[Sequence[Sequence[int]]],
        vocabulary: int,
        cls: int,
        sep: int,
        k: float = 0.5,
        j: float = 32.0,
    ) -> None:
        self.vocabulary = checks.integer("vocabulary", vocabulary, 1, 2**20 - 1)
        self.k, self.j = k, j
        gap = vocabulary  # stands between what is not beside one another
        text, ends = [gap], [gap]
        for document in documents:
            text += [token for sentence in document for token in sentence] + [gap]
            ends += [t for s in document if s for t in (cls, s[0], gap, s[-1], sep, gap)]
        running = np.array(text)
        self._words = np.bincount(running[running != gap], minlength=vocabulary).astype(float)
        checks.require(len(running) > text.count(gap), "documents", "at least one word", "none")
        self._share = self._words / self._words.sum()
        self.frequent = int(self._words.argmax())
        pairs = np.concatenate([_grams(running, 2, gap), _grams(np.array(ends), 2, gap)])
        self._after, self._before = _Counts(pairs, gap + 1), _Counts(pairs[:, ::-1], gap + 1)
        self._between = _Counts(_grams(running, 3, gap)[:, [0, 2, 1]], gap + 1)

    def guess(self, left: int, right: int) -> int:
        """The word between these two; the smallest number where several are as likely."""
        after = self._after.row(self.vocabulary, left)
        chance = (after + self.j * self._share) / (after.sum() + self.j)
        before = self._before.row(self.vocabulary, right)
        if before.any():
            # c(t): how often t stood before anything, in the same counts.
            share = before.sum() / self._words.sum()
            chance = chance * (before + self.j * share) / (self._words + self.j)
        return int((self._between.row(self.vocabulary, left, right) + self.k * chance / chance.sum()).argmax())

    def evaluate(self, batches: Iterable[Any]) -> tuple[Accuracy, Accuracy]:
        """(the most frequent word everywhere, the guess from what stands left and right) on masked batches.

        Args: batches as of `pretraining`; no first or last token of a batch is masked.
        """
        total = frequent = guessed = 0
        known: dict[tuple[int, int], int] = {}
        for batch in batches:
            left, right = batch.tokens[batch.places - 1].tolist(), batch.tokens[batch.places + 1].tolist()
            for between, label in zip(zip(left, right, strict=True), batch.labels.tolist(), strict=True):
                if between not in known:
                    known[between] = self.guess(*between)
                total, frequent = total + 1, frequent + (label == self.frequent)
                guessed += label == known[between]
        return Accuracy(frequent, total), Accuracy(guessed, total)


class _Counts:
    """How often each last word followed the words before it in the rows of `grams` int (T, n), words below `base`."""

    def __init__(self, grams: Numbers, base: int) -> None:
        self.base = base
        codes = np.zeros(len(grams), np.int64)
        for column in grams.T:
            codes = codes * base + column
        self.codes, self.counts = np.unique(codes, return_counts=True)

    def row(self, vocabulary: int, *context: int) -> Numbers:
        """The counts of all words after this context: float64 (vocabulary,)."""
        code = 0
        for word in context:
            code = code * self.base + word
        first, last = np.searchsorted(self.codes, [code * self.base, (code + 1) * self.base])
        counts = np.zeros(vocabulary)
        counts[self.codes[first:last] - code * self.base] = self.counts[first:last]
        return counts


def _grams(stream: Numbers, length: int, gap: int) -> Numbers:
    """All runs of so many words without a gap: int (T, length)."""
    if len(stream) < length:
        return np.zeros((0, length), np.int64)
    runs = np.lib.stride_tricks.sliding_window_view(stream, length)
    kept: Numbers = runs[(runs != gap).all(1)]
    return kept
