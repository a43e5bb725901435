"""What is particular to training on series of values: which are hidden, the batches, the loss. Models are passed in.

A sentence is a series between [CLS] and [SEP]. Hidden as BERT hides words: 15 % of it, of which 80 % become [MASK],
10 % any value and 10 % stay, anew in each pass. Faithful to the released code of MAMSM: min(30, ⌊0.15·T⌋) values, of
which 80 % become [MASK], 2 % any value (the code draws again after the first draw) and 18 % stay, once for all passes;
and every sentence asks for 30 values, where those that it has not are [PAD] at the place of [CLS], and count.

Source: Devlin et al. (2019), section 3.1; He et al. (2023), section 2.3, and the code released with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmha import checks
from mmha.train.masking import Ints, Masked, Masking

SLOTS = 30  # values that a sentence asks for, in the released code
RATE = 0.15
REST = -1


class Batch(NamedTuple):
    """Sentences end to end: tokens int64 (N,), lengths; places int64 (M,) in the row, labels int64 (M,) stood there."""

    tokens: Tensor
    lengths: list[int]
    places: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Hiding:
    """Chooses values of a sentence and hides them.

    Args:
        scale: how values are tokens: its vocabulary and markers.
        faithful: as the released code; else as BERT.
        all_hidden: every chosen value becomes [MASK], to score on: one that stays can be read off.

    >>> from mmha.models.mamsm import Scale
    >>> hiding = Hiding(Scale(0.0, 1.0, 0.25), all_hidden=True)
    >>> found = hiding([1, 4, 5, 6, 7, 8, 7, 6, 2], np.random.default_rng(3))
    >>> found.tokens.tolist(), found.places.tolist(), found.labels.tolist()
    ([1, 4, 5, 6, 7, 8, 3, 6, 2], [6], [7])
    """

    scale: Any
    faithful: bool = False
    all_hidden: bool = False

    def __call__(
        self, sentence: Sequence[int] | Ints, generator: np.random.Generator, blocks: Ints | None = None
    ) -> Masked:
        """The sentence with its chosen values hidden.

        Args: sentence int (T + 2,), with markers; blocks int (T,): the task's block of each value, `REST` = none; then
            whole blocks are chosen, in an order that is drawn, and of the last one a stretch. None = values anywhere.
        """
        count = self.count(len(sentence) - 2)
        if blocks is not None:
            places = _stretches(blocks, count, generator) + 1
        else:
            places = np.sort(generator.permutation(len(sentence) - 2)[:count]) + 1
        return self._masking(sentence, generator, places)

    def count(self, length: int) -> int:
        """How many of so many values are chosen.

        >>> from mmha.models.mamsm import Scale
        >>> scale = Scale(0.0, 1.0)
        >>> [Hiding(scale).count(n) for n in (1, 121, 1452)], [Hiding(scale, True).count(n) for n in (1, 121, 1452)]
        ([1, 18, 218], [0, 18, 30])
        """
        if self.faithful:
            return min(SLOTS, int(RATE * length))
        return min(length, max(1, round(RATE * length)))

    @cached_property
    def _masking(self) -> Masking:
        s = self.scale
        shares = (1.0, 0.0) if self.all_hidden else (0.8, 0.02) if self.faithful else (0.8, 0.1)
        return Masking(s.mask, (s.pad, s.cls, s.sep, s.mask), s.vocabulary, hidden=shares[0], random=shares[1])


def _stretches(blocks: Ints, count: int, generator: np.random.Generator) -> Ints:
    """So many places inside blocks, or all there are: whole blocks, and the beginning or end of one more."""
    chosen: list[Ints] = []
    for block in generator.permutation(np.setdiff1d(blocks, [REST])):
        places = np.flatnonzero(blocks == block)
        if len(places) >= count:
            places = places[:count] if generator.random() < 0.5 else places[len(places) - count :]
        chosen.append(places)
        count -= len(places)
        if not count:
            break
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)


class Batches:
    """The batches of a run, one a step: all sentences in an order that the seed decides, then all again.

    Args:
        parts: of the data, each int (voxels, T_r + 2): sentences of one length, as runs give them. hiding: what is
            hidden. rows: sentences a step. seed >= 0. blocks: for each part int (T_r,), to hide blocks of the task.
    Raises: ValueError without sentences.

    >>> from mmha.models.mamsm import Scale, frame
    >>> scale = Scale(0.0, 1.0, 0.01)
    >>> runs = [frame(scale.encode(np.random.default_rng(1).random((3, n)))).numpy() for n in (11, 7)]
    >>> batch = Batches(runs, Hiding(scale), rows=4, seed=1)(0)
    >>> batch.lengths, batch.labels.shape
    ([13, 13, 13, 9], torch.Size([7]))
    """

    def __init__(
        self, parts: Sequence[Any], hiding: Hiding, rows: int, seed: int, blocks: Sequence[Ints] | None = None
    ) -> None:
        self.parts, self.hiding, self.blocks = list(parts), hiding, blocks
        self.rows = checks.integer("rows", rows, minimum=1)
        self.seed = checks.integer("seed", seed, minimum=0)
        self.voxels = len(parts[0]) if parts else 0
        self.size = self.voxels * len(parts)
        checks.require(self.size > 0, "values", "series to train on", "none")

    def __call__(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """One of so many parts of a step's sentences. Raises: ValueError for more parts than sentences."""
        checks.integer("parts", parts, 1, self.rows)
        return self._batch(range(step * self.rows + part, (step + 1) * self.rows, parts))

    def once(self) -> list[Batch]:
        """Every sentence of the first pass, once, in batches of `rows`, the last one perhaps smaller."""
        return [self._batch(range(at, min(at + self.rows, self.size))) for at in range(0, self.size, self.rows)]

    def _batch(self, numbers: Iterable[int]) -> Batch:
        scale, slots = self.hiding.scale, SLOTS if self.hiding.faithful else 0
        tokens, places, labels, start, lengths = [], [], [], 0, []
        for number in numbers:
            found = self._sentence(number)
            missing = max(0, slots - len(found.places))
            tokens.append(found.tokens)
            places += [found.places + start, np.full(missing, start)]
            labels += [found.labels, np.full(missing, scale.pad)]
            lengths.append(len(found.tokens))
            start += lengths[-1]
        return Batch(
            torch.from_numpy(np.concatenate(tokens)),
            lengths,
            torch.from_numpy(np.concatenate(places)),
            torch.from_numpy(np.concatenate(labels)),
        )

    def _sentence(self, number: int) -> Masked:
        """The sentence that comes as so-manieth in a run, with values hidden."""
        whole, place = divmod(number, self.size)
        at = int(self._order(whole)[place])
        run, voxel = at % len(self.parts), at // len(self.parts)
        generator = np.random.default_rng([self.seed, 1, at if self.hiding.faithful else number])
        return self.hiding(self.parts[run][voxel], generator, None if self.blocks is None else self.blocks[run])

    def _order(self, number: int) -> Ints:
        """The order of the sentences in a pass."""
        if self._kept[0] != number:
            self._kept = number, np.random.default_rng([self.seed, 0, number]).permutation(self.size)
        return self._kept[1]

    _kept: tuple[int, Ints] = (-1, np.zeros(0, np.int64))


def frequencies(parts: Iterable[Any], count: int) -> Ints:
    """How often each of so many tokens stands between the markers of sentences: int64 (count,).

    >>> frequencies([np.array([[1, 4, 5, 2], [1, 4, 4, 2]], np.int16)], 6).tolist()
    [0, 0, 0, 0, 3, 1]
    """
    found = np.zeros(count, np.int64)
    for part in parts:
        for row in part:  # numpy counts in int64: a voxel at a time, or it would make another eight bytes a value
            found += np.bincount(row[1:-1], minlength=count)
    return found


def sums(model: Any, batch: Batch) -> Tensor:
    """The sum of −log p(value) over the chosen values, in nats: a scalar. `counts` says of how many."""
    return nn.functional.cross_entropy(logits(model, batch), batch.labels, reduction="sum")


def counts(batch: Batch) -> list[float]:
    """How many values were chosen, empty slots among them."""
    return [float(len(batch.labels))]


def logits(model: Any, batch: Batch) -> Tensor:
    """Of the tokens at the chosen places: (M, vocabulary)."""
    found: Tensor = model.values(model(batch.tokens, batch.lengths)[batch.places])
    return found
