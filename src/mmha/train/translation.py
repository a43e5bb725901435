"""What is particular to training a translator: batches of so many tokens, the smoothed loss, the score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmha import checks
from mmha.nn import groups

Tokens = Sequence[Sequence[int]]
SMOOTHING = 0.1


class Batch(NamedTuple):
    """Sentences laid end to end: source (N,), target (M,) int64, their lengths, and the token after each of target."""

    source: Tensor
    source_lengths: list[int]
    target: Tensor
    target_lengths: list[int]
    following: Tensor


def batch(sources: Tokens, targets: Tokens, end: int) -> Batch:
    """The end token goes after each source, before each target, and after its last token in `following`.

    >>> batch([[5, 6]], [[7]], end=9)[0].tolist(), batch([[5, 6]], [[7]], end=9)[2:]
    ([5, 6, 9], (tensor([9, 7]), [2], tensor([7, 9])))
    """

    stop: tuple[int, ...] = (end,)
    nothing: tuple[int, ...] = ()

    def row(sentences: Tokens, before: tuple[int, ...], after: tuple[int, ...]) -> Tensor:
        flat = [token for sentence in sentences for token in (*before, *sentence, *after)]
        return torch.tensor(flat, dtype=torch.int64)

    lengths = [[len(sentence) + 1 for sentence in side] for side in (sources, targets)]
    return Batch(
        row(sources, nothing, stop), lengths[0], row(targets, stop, nothing), lengths[1], row(targets, nothing, stop)
    )


class Batches:
    """Batches of at most `tokens` tokens, source and target together, of sentences of like length.

    An epoch sorts the pairs by length, those of equal length in an order drawn from the seed and the epoch, cuts them,
    and draws the order of the batches. A step's batch is shared out pair by pair among its parts.

    Raises: ValueError when there are no pairs.

    >>> batches = Batches([[5, 6], [5], [6, 6, 6]], [[7], [7, 8], [8, 8]], end=9, tokens=12, seed=1)
    >>> sorted(batches(step, 0, 1).source.tolist() for step in range(2))
    [[5, 9, 5, 6, 9], [6, 6, 6, 9]]
    """

    def __init__(self, sources: Tokens, targets: Tokens, end: int, tokens: int, seed: int) -> None:
        checks.require(len(sources) > 0, "data", "pairs of sentences to train on", "none")
        self.sources, self.targets, self.end, self.tokens, self.seed = sources, targets, end, tokens, seed
        self.sizes = [len(s) + len(t) + 2 for s, t in zip(sources, targets, strict=True)]
        self.steps: list[list[int]] = []
        self.coming = self._epochs()

    def __call__(self, step: int, part: int, parts: int) -> Batch:
        while len(self.steps) <= step:
            self.steps += next(self.coming)
        mine = self.steps[step][part::parts]
        return batch([self.sources[i] for i in mine], [self.targets[i] for i in mine], self.end)

    def _epochs(self) -> Iterator[list[list[int]]]:
        epoch = 0
        while True:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            shuffled = torch.randperm(len(self.sizes), generator=generator).tolist()
            cut = groups(self.sizes, sorted(shuffled, key=self.sizes.__getitem__), self.tokens)
            yield [cut[i] for i in torch.randperm(len(cut), generator=generator).tolist()]
            epoch += 1


def loss(model: Any, batch: Batch) -> Tensor:
    """Σ over target tokens of −(0.9·log p(token) + 0.1·mean_v log p(v)), p given the source and the tokens before it.

    Source: Vaswani et al. (2017), section 5.4; Szegedy et al. (2016), section 7.
    """
    logits = model(*batch[:4])
    return nn.functional.cross_entropy(logits, batch.following, label_smoothing=SMOOTHING, reduction="sum")


def counts(batch: Batch) -> list[float]:
    """The target tokens, ends of sentences among them."""
    return [float(len(batch.following))]


@torch.no_grad()
def score(model: Any, sources: Tokens, targets: Tokens, end: int, tokens: int = 4096) -> float:
    """The mean log p of a target token, in nats, without smoothing: higher is better."""
    sizes = [len(s) + len(t) + 2 for s, t in zip(sources, targets, strict=True)]
    total = count = 0.0
    for group in groups(sizes, sorted(range(len(sizes)), key=sizes.__getitem__), tokens):
        one = batch([sources[i] for i in group], [targets[i] for i in group], end)
        total -= float(nn.functional.cross_entropy(model(*one[:4]), one.following, reduction="sum"))
        count += len(one.following)
    return total / max(1.0, count)
