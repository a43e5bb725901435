"""What is particular to training a language model: its windows, its loss, its score. Model and data are passed in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmha import checks


class Windows:
    """Windows of a stream of tokens, in an order that the seed decides.

    A pass cuts the stream into windows of `context` tokens from a random place on and shuffles them; a batch is the
    next `rows` of them, with the token that follows each. `steps` batches are one round of the training loop.

    Raises: ValueError when the stream is shorter than one window and the token after it.

    >>> windows = Windows(torch.arange(100), context=7, rows=2, steps=3, seed=1)
    >>> [batch.shape for batch in windows(0)]
    [torch.Size([2, 8]), torch.Size([2, 8]), torch.Size([2, 8])]
    """

    def __init__(self, stream: Tensor, context: int, rows: int, steps: int, seed: int) -> None:
        self.stream, self.context, self.rows, self.steps, self.seed = stream, context, rows, steps, seed
        room = len(stream) - 1
        checks.require(room >= context, "text", f"at least {context + 1} tokens", f"{len(stream)}")
        # One window fewer than fit leaves room for the passes to begin at different places.
        self.windows = max(1, room // context - 1)
        self.places = room - self.windows * context + 1

    def __call__(self, round: int) -> list[Tensor]:
        first, last = (self.rows * self.steps * r for r in (round, round + 1))
        whole = range(first // self.windows, (last - 1) // self.windows + 1)
        starts = torch.cat([self._starts(number) for number in whole])
        chosen = starts[first - whole[0] * self.windows :][: last - first]
        taken = self.stream[chosen[:, None] + torch.arange(self.context + 1)]
        return [taken[at : at + self.rows] for at in range(0, len(taken), self.rows)]

    def _starts(self, number: int) -> Tensor:
        """Where the windows of a pass begin, in the order in which they come."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        place = torch.randint(self.places, (1,), generator=generator)
        return place + self.context * torch.randperm(self.windows, generator=generator)


def stream(documents: Sequence[Sequence[int]], end: int) -> Tensor:
    """The documents one after the other, the end token before each.

    >>> stream([[5, 6], [7]], end=9).tolist()
    [9, 5, 6, 9, 7]
    """
    return torch.tensor([token for document in documents for token in (end, *document)], dtype=torch.int64)


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    """The mean of −log p(token | those before it in the window), in nats a token; batch int64 (B, context + 1)."""
    logits = model(batch[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def bits(model: Any, documents: Sequence[Sequence[int]], end: int, context: int, stride: int, rows: int = 16) -> float:
    """−Σ log₂ p(token) over all tokens of the documents, each document alone, the end token before it.

    A window of `context` tokens moves on by `stride`: a token is predicted from all before it while they fit in a
    window, and from then on from at least context − stride + 1 of them.

    Raises: ValueError when stride is not from 1 to context.
    """
    checks.integer("stride", stride, 1, context)
    windows = [window for tokens in documents for window in _windows([end, *tokens], context, stride)]
    windows.sort(key=lambda window: len(window[0]), reverse=True)
    total = 0.0
    for at in range(0, len(windows), rows):
        group = windows[at : at + rows]
        length = len(group[0][0])
        tokens = torch.tensor([w + [end] * (length - len(w)) for w, _ in group])
        logits = model(tokens[:, :-1])
        lost = nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").double()
        total += sum(float(row[len(w) - 1 - new : len(w) - 1].sum()) for row, (w, new) in zip(lost, group, strict=True))
    return total / math.log(2.0)


def _windows(tokens: list[int], context: int, stride: int) -> list[tuple[list[int], int]]:
    """Windows of at most context + 1 tokens, each with how many of its last tokens no window before it predicted."""
    found, done = [], 1
    while done < len(tokens):
        stop = min(len(tokens), context + 1 if done == 1 else done + stride)
        found.append((tokens[max(0, stop - context - 1) : stop], stop - done))
        done = stop
    return found
