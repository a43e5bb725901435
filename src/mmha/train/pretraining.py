"""What is particular to pretraining BERT: its batches, its loss and its scores. Model and data are passed in.

A batch is `rows` pairs of text with words masked, end to end in one row, a function of seed and step alone; several
processes (or several turns of one) divide it between them.

Source: Devlin et al. (2019), section 3.1 and appendix A.2; masks drawn anew in each pass: Liu et al., *RoBERTa* (2019).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmha import checks
from mmha.metrics import Accuracy
from mmha.train.masking import Ints, Masking
from mmha.train.pairs import Pair, Pairs


class Batch(NamedTuple):
    """Pairs packed in one row: tokens int (N,), lengths, segments int (N,) of 0 for [CLS] A [SEP] and 1 for B [SEP].

    places int (M,) in the row were masked, labels int (M,) stood there; next int (B,): 0 = B follows A, 1 = it does
    not.
    """

    tokens: Tensor
    lengths: list[int]
    segments: Tensor
    places: Tensor
    labels: Tensor
    next: Tensor


@dataclass(frozen=True)
class Frame:
    """The markers around a pair: the numbers of [CLS] and [SEP]."""

    cls: int
    sep: int

    def __call__(self, pair: Pair) -> tuple[list[int], list[int]]:
        """The pair's tokens and segments.

        >>> Frame(2, 3)(Pair([5, 6], [7], follows=True, document=0))
        ([2, 5, 6, 3, 7, 3], [0, 0, 0, 0, 1, 1])
        """
        tokens = [self.cls, *pair.first, self.sep, *pair.second, self.sep]
        return tokens, [0] * (len(pair.first) + 2) + [1] * (len(pair.second) + 1)


class Batches:
    """The batches of a run, one a step: all pairs in an order that the seed decides, then all again, paired anew.

    Args:
        pairs, frame, masking: how text becomes sequences; rows: pairs a step; seed >= 0.
        static: each pass shows the same pairs with the same masks, as the original did; else pairs and masks are drawn
            anew for each pass.
    Raises: ValueError when the documents give no pair.

    >>> masking = Masking(mask=4, markers=(0, 1, 2, 3, 4), vocabulary=97)
    >>> pairs = Pairs([[[5, 6], [7, 8], [9]], [[15], [16, 17], [18]]], length=8)
    >>> batch = Batches(pairs, Frame(2, 3), masking, rows=2, seed=1)(0)
    >>> batch.lengths, batch.tokens.shape, batch.labels.shape, batch.next.tolist()
    ([7, 8], torch.Size([15]), torch.Size([2]), [1, 1])
    """

    def __init__(
        self, pairs: Pairs, frame: Frame, masking: Masking, rows: int, seed: int, *, static: bool = False
    ) -> None:
        self.pairs, self.frame, self.masking, self.static = pairs, frame, masking, static
        self.rows = checks.integer("rows", rows, minimum=1)
        self.seed = checks.integer("seed", seed, minimum=0)
        self._drawn: dict[int, tuple[list[Pair], Ints]] = {}
        self.size = len(self._pass(0)[0])
        """How many pairs are a pass: as many as the first one has."""

    def __call__(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """One of so many parts of a step's pairs. Raises: ValueError for more parts than pairs."""
        checks.integer("parts", parts, 1, self.rows)
        return self._batch(range(step * self.rows + part, (step + 1) * self.rows, parts))

    def once(self) -> list[Batch]:
        """Every pair of the first pass, once, in batches of `rows`, the last one perhaps smaller."""
        return [self._batch(range(at, min(at + self.rows, self.size))) for at in range(0, self.size, self.rows)]

    def _batch(self, numbers: Iterable[int]) -> Batch:
        taken = [self._example(number) for number in numbers]
        sequences = [self.frame(pair) for pair, _ in taken]
        masked = [
            self.masking(tokens, self._generator(2, key))
            for (tokens, _), (_, key) in zip(sequences, taken, strict=True)
        ]
        lengths = [len(tokens) for tokens, _ in sequences]
        starts = np.cumsum([0, *lengths[:-1]])
        places = [found.places + start for found, start in zip(masked, starts, strict=True)]
        return Batch(
            torch.from_numpy(np.concatenate([found.tokens for found in masked])),
            lengths,
            torch.tensor([segment for _, segments in sequences for segment in segments]),
            torch.from_numpy(np.concatenate(places)),
            torch.from_numpy(np.concatenate([found.labels for found in masked])),
            torch.tensor([int(not pair.follows) for pair, _ in taken]),
        )

    def _example(self, number: int) -> tuple[Pair, int]:
        """The pair that comes as so-manieth in a run, and what its masks are drawn from."""
        whole, place = divmod(number, self.size)
        pairs, order = self._pass(whole)
        # Passes differ a little in length: a shorter one repeats its first pairs, a longer one leaves out its last.
        at = int(order[place % len(order)])
        return pairs[at], at if self.static else number

    def _pass(self, number: int) -> tuple[list[Pair], Ints]:
        """The pairs of a pass and the order in which they are shown."""
        if number not in self._drawn:
            drawn = 0 if self.static else number
            pairs = self.pairs(self._generator(0, drawn))
            checks.require(len(pairs) > 0, "documents", "enough sentences for a pair", "too few")
            # A batch may end one pass and begin the next.
            self._drawn = {n: kept for n, kept in self._drawn.items() if n >= number - 1}
            self._drawn[number] = pairs, self._generator(1, number).permutation(len(pairs))
        return self._drawn[number]

    def _generator(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, number])


def sums(model: Any, batch: Batch) -> Tensor:
    """The sum of −log p(word) over masked places and that of −log p(B follows A or not) over pairs, in nats: (2,).

    What is trained on is the mean of the one plus the mean of the other; `counts` says of how many each is the sum.
    """
    words, following = logits(model, batch)
    return _lost(words, following, batch)


def counts(batch: Batch) -> list[float]:
    """How many places were masked, and how many pairs there are."""
    return [len(batch.labels), len(batch.next)]


def logits(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Of words (M, vocabulary) at the masked places, and of "follows" and "does not" (B, 2)."""
    hidden = model(batch.tokens, batch.lengths, batch.segments)
    return model.words(hidden[batch.places]), model.next(model.pool(hidden, batch.lengths))


@dataclass(frozen=True)
class Scores:
    """Masked words and next sentences found, and the loss, in nats."""

    words: Accuracy
    next: Accuracy
    loss: float


@torch.no_grad()
def evaluate(model: Any, batches: Iterable[Batch]) -> Scores:
    """What the model scores on these batches, each masked word and each pair counted alike."""
    found = right = 0
    total, lost = torch.zeros(2), torch.zeros(2)
    for batch in batches:
        words, following = (scores.float() for scores in logits(model, batch))
        found += int((words.argmax(-1) == batch.labels).sum())
        right += int((following.argmax(-1) == batch.next).sum())
        lost += _lost(words, following, batch)
        total += torch.tensor(counts(batch))
    places, pairs = map(int, total)
    return Scores(Accuracy(found, places), Accuracy(right, pairs), float((lost / total.clamp(min=1)).sum()))


def _lost(words: Tensor, following: Tensor, batch: Batch) -> Tensor:
    lost = nn.functional.cross_entropy(words, batch.labels, reduction="sum")
    return torch.stack((lost, nn.functional.cross_entropy(following, batch.next, reduction="sum")))
