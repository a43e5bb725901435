"""How well hidden values are found: by a model, by the commonest value, by the last one seen, by both neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmha.metrics import Accuracy
from mmha.train.series import Batch, frequencies, logits

NEAR = 25  # steps to either side that count as near: 1/40 of the range, of 0.001 steps


@dataclass(frozen=True)
class Scores:
    """Hidden values found exactly, and within `NEAR` steps; the root of the mean squared error, in units of the values;
    and the loss in nats, NaN for what gives no probabilities."""

    exact: Accuracy
    near: Accuracy
    rms: float
    loss: float = float("nan")


@torch.no_grad()
def evaluate(model: Any, scale: Any, batches: Iterable[Batch]) -> Scores:
    """What the model scores: exactly by its likeliest token; near by the one that has most probability within `NEAR`
    steps; the error by the mean of its probabilities, which makes it least."""
    exact = near = total = 0
    lost = squares = 0.0
    values = torch.arange(scale.vocabulary, dtype=torch.float32)
    for batch in batches:
        p = logits(model, batch).float().log_softmax(-1)
        lost -= float(p.gather(1, batch.labels[:, None]).sum())
        p[:, : scale.vocabulary - scale.steps - 1] = -torch.inf  # a marker is no value
        p = p.softmax(-1)
        exact += int((p.argmax(-1) == batch.labels).sum())
        near += int(((_windows(p).argmax(-1) - batch.labels).abs() <= NEAR).sum())
        squares += float((p @ values - batch.labels).square().sum())
        total += len(batch.labels)
    rms = _unit(scale) * (squares / max(1, total)) ** 0.5
    return Scores(Accuracy(exact, total), Accuracy(near, total), rms, lost / max(1, total))


def baselines(scale: Any, parts: Sequence[Any], batches: Sequence[Batch]) -> dict[str, Scores]:
    """What needs no model scores on the same values.

    "commonest": the token most frequent in the sentences trained on (near: the one with most of them around it; error:
    their mean). "last": the value before, or after where there is none. "neighbours": the mean of the two around it, or
    the one there is. Hidden values are passed over.
    """
    seen = frequencies(parts, scale.vocabulary)
    mean = float(seen @ np.arange(len(seen)) / seen.sum())
    counted = torch.from_numpy(seen.astype(np.float32))
    labels = np.concatenate([batch.labels.numpy() for batch in batches])
    around = [pair for batch in batches for pair in _around(batch, scale)]
    both = np.array([pair or (mean, mean) for pair in around]).reshape(-1, 2)
    common = np.full(len(labels), int(counted.argmax()))
    dense = np.full(len(labels), int(_windows(counted[None])[0].argmax()))
    return {
        "commonest": _scores(scale, labels, common, dense, np.full(len(labels), mean)),
        "last": _scores(scale, labels, both[:, 0], both[:, 0], both[:, 0]),
        "neighbours": _scores(scale, labels, both.mean(1), both.mean(1), both.mean(1)),
    }


def _scores(scale: Any, labels: Any, exact: Any, near: Any, mean: Any) -> Scores:
    total = len(labels)
    right = int((np.rint(exact) == labels).sum())
    close = int((np.abs(np.rint(near) - labels) <= NEAR).sum())
    rms = _unit(scale) * float(np.sqrt(np.square(mean - labels).mean())) if total else 0.0
    return Scores(Accuracy(right, total), Accuracy(close, total), rms)


def _unit(scale: Any) -> float:
    return float(scale.high - scale.low) / int(scale.steps)


def _windows(p: Tensor) -> Tensor:
    """The sum within `NEAR` steps of each token: (M, vocabulary)."""
    kernel = p.new_ones(1, 1, 2 * NEAR + 1)
    return torch.nn.functional.conv1d(p[:, None], kernel, padding=NEAR)[:, 0]


def _around(batch: Batch, scale: Any) -> Iterator[tuple[float, float] | None]:
    """For each chosen place the values seen before and after it; where one is missing the other; None without any."""
    tokens = batch.tokens.numpy()
    seen = tokens > scale.mask
    ends = np.cumsum(batch.lengths)
    for place in batch.places.tolist():
        end = int(ends[np.searchsorted(ends, place, "right")])
        start = end - batch.lengths[int(np.searchsorted(ends, place, "right"))]
        before = np.flatnonzero(seen[start:place])
        after = np.flatnonzero(seen[place + 1 : end])
        first = float(tokens[start + before[-1]]) if len(before) else None
        second = float(tokens[place + 1 + after[0]]) if len(after) else None
        if first is None and second is None:
            yield None
        else:
            yield (
                first if first is not None else second,  # type: ignore[misc]
                second if second is not None else first,
            )
