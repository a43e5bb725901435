"""What is particular to training a tagger: its batches, its loss and its score. Model and data are passed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmha.metrics import Accuracy, tag_accuracy
from mmha.nn import groups

Encode = Callable[[Sequence[Sequence[str]]], tuple[Tensor, Tensor, list[int]]]


class Batch(NamedTuple):
    """Sentences packed in one row: words (N,), pieces (N, P), the lengths, gold tags (N,)."""

    words: Tensor
    pieces: Tensor
    lengths: list[int]
    tags: Tensor


class Shuffled:
    """The training set, packed anew for each epoch in an order that seed and epoch decide."""

    def __init__(self, sentences: Sequence[Any], encode: Encode, tags: Sequence[str], tokens: int, seed: int) -> None:
        self.tokens, self.seed = tokens, seed
        self.words, self.pieces, self.lengths = encode([s.words for s in sentences])
        number = {tag: i for i, tag in enumerate(tags)}
        self.tags = torch.tensor([number[t] for s in sentences for t in s.tags])
        sizes = torch.tensor(self.lengths)
        self.starts = (sizes.cumsum(0) - sizes).tolist()
        self.count = max(1, int(sizes.sum()) // tokens)

    def __call__(self, epoch: int) -> list[Batch]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        # The last, smaller groups are left out, so that every epoch has the same number of steps.
        return [self._batch(group) for group in groups(self.lengths, order, self.tokens)[: self.count]]

    def _batch(self, group: list[int]) -> Batch:
        lengths = [self.lengths[i] for i in group]
        at = torch.cat([torch.arange(self.starts[i], self.starts[i] + self.lengths[i]) for i in group])
        return Batch(self.words[at], self.pieces[at], lengths, self.tags[at])


def share(sentences: Sequence[Any], part: float, seed: int) -> list[Any]:
    """So much of the sentences, drawn by the seed, in their order; for one seed a smaller part lies within a larger.

    At least one sentence, as long as there are any; part 1 gives all.

    >>> share("abcdefghij", 0.2, seed=1), share("abcdefghij", 0.5, seed=1)
    (['f', 'g'], ['a', 'b', 'c', 'f', 'g'])
    """
    generator = torch.Generator().manual_seed(seed)
    count = max(1, round(part * len(sentences)))
    chosen = torch.randperm(len(sentences), generator=generator)[:count].tolist()
    return [sentences[i] for i in sorted(chosen)]


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """The mean of −log p(gold tag) over the words of the batch."""
    scores = model(batch.words, batch.pieces, batch.lengths)
    return nn.functional.cross_entropy(scores, batch.tags)


def accuracy(model: Any, sentences: Sequence[Any]) -> Accuracy:
    """The share of words that the model tags as the sentences do."""
    return tag_accuracy([s.tags for s in sentences], model.tag([s.words for s in sentences]))
