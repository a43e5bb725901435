"""From sources to targets: greedy, or by beam search over all sentences of a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmha import checks
from mmha.beams import Candidate, Hypothesis, Search
from mmha.models.seq2seq.decoding import Decoder, Steps
from mmha.models.seq2seq.model import Seq2Seq


@dataclass(frozen=True)
class Beams:
    """How wide the search is, how the length of a target counts, and how many targets are wanted.

    score = Σ log p / ((5 + |Y|) / 6)^alpha, |Y| the tokens of the target with its end: 0 compares sums, which favours
    short targets. Of each source the `n_best` targets with the highest score are given, at most `width`; a width of 1
    is the greedy choice. A target has at most |X| + `extra` tokens, |X| those of the source with its end.

    Raises: ValueError or TypeError when a value is out of its range.
    Source: Vaswani et al. (2017), section 6.1; Wu et al. (2016), equation 14.

    >>> Beams(width=4, n_best=5)
    Traceback (most recent call last):
    ...
    ValueError: `n_best`: expected an integer >= 1 and <= 4, got 5
    """

    width: int = 4
    alpha: float = 0.6
    n_best: int = 1
    extra: int = 50

    def __post_init__(self) -> None:
        checks.integer("width", self.width, 1)
        checks.number("alpha", self.alpha)
        checks.integer("n_best", self.n_best, 1, self.width)
        checks.integer("extra", self.extra, 0)

    def score(self, log_probability: float, length: int) -> float:
        """Σ log p / ((5 + |Y|) / 6)^alpha.

        >>> Beams(alpha=1.0).score(-8.0, 7)
        -4.0
        """
        return float(log_probability / ((5 + length) / 6) ** self.alpha)


@dataclass(frozen=True)
class Translation:
    """A target: its tokens, without the end; what they were compared by; and the log-probability (nats) of each token.

    `ended` is False when the target was cut at the most tokens it may have; otherwise the last of the
    `log_probabilities` is that of the end.
    """

    tokens: tuple[int, ...]
    score: float
    log_probabilities: tuple[float, ...]
    ended: bool


@torch.no_grad()
def translate(
    model: Seq2Seq,
    sources: Sequence[Sequence[int]],
    beams: Beams = Beams(),
    batch: int = 32,
    steps: Steps | None = None,
) -> list[list[Translation]]:
    """The best targets of each source, best first, in the order of the sources.

    Sources of about the same length are written for together, `batch` at a time; a sentence that is done leaves. Beside
    which others a sentence stands changes its scores by rounding alone. Targets that cannot become better than those
    that are done are not followed, which changes nothing either: n_best are the same as if all had been.

    Args: sources, tokens without the end, which is added; steps, the decoder as it is now, which calls may share.
    Raises: ValueError or TypeError when an argument does not fit, before anything is computed.
    Source: Graves (2012), algorithm 1 (`mmha.beams`).

    >>> from mmha.models.seq2seq import tiny
    >>> [len(found) for found in translate(Seq2Seq(tiny(31)), [[5, 6, 7], [8]], Beams(3, n_best=2))]
    [2, 2]
    """
    checks.integer("batch", batch, 1)
    whole = [[*(checks.integer("sources", t, 0, model.end) for t in source), model.end] for source in sources]
    model.eval()
    order = sorted(range(len(whole)), key=lambda number: -len(whole[number]))
    found: list[list[Translation]] = [[] for _ in whole]
    steps = Steps(model, min(batch, len(order)) * beams.width) if steps is None else steps
    for at in range(0, len(order), batch):
        numbers = order[at : at + batch]
        for number, best in zip(numbers, _translate([whole[n] for n in numbers], model, beams, steps), strict=True):
            found[number] = best
    return found


Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Found = tuple[tuple[int, ...], tuple[float, ...], bool]


def _translate(sources: Sequence[Sequence[int]], model: Seq2Seq, beams: Beams, steps: Steps) -> list[list[Translation]]:
    """The same for one batch of sources, their ends included."""
    end = model.end

    def finish(text: Hypothesis, full: bool) -> Found | None:
        ended = text.tokens[-1] == end
        kept = text.tokens[:-1] if ended else text.tokens
        return (kept, text.log_probabilities, ended) if ended or full else None

    lengths = [len(source) + beams.extra for source in sources]
    searches = [Search(beams.width, n, beams.score, finish, beams.n_best) for n in lengths]
    decoder = Decoder(model, sources, beams.width, max(lengths), steps)
    tokens = [end] * len(sources)
    alive = searches
    while alive:
        values, names = _likeliest(decoder.step(torch.tensor(tokens)), beams.width)
        row, parents, tokens = 0, [], []
        for one, candidates in zip(alive, _candidates(alive, values, names), strict=True):
            count = len(one.alive)
            chosen = one.advance(candidates)
            if beams.width == 1 and one.done:
                one.alive, chosen = [], []
            for parent, token in chosen:
                parents.append(row + parent)
                tokens.append(token)
            row += count
        alive = [one for one in alive if one.alive]
        if alive:
            decoder.follow(parents)
    return [[Translation(kept, score, known, ended) for score, (kept, known, ended) in one.done] for one in searches]


def _candidates(alive: Sequence[Search[Found]], values: Floats, names: Integers) -> Iterator[Iterator[Candidate]]:
    """For each search what may follow its texts, the most probable first, equals in the order of the texts.

    Shapes: values, names (texts of all searches, k): log-probabilities of the likeliest tokens after each text, and
    these tokens.
    """
    count, kinds = len(alive[0].alive), values.shape[1]
    if any(len(one.alive) != count for one in alive):
        row = 0
        for one in alive:
            stop = row + len(one.alive)
            yield from _candidates([one], values[row:stop], names[row:stop])
            row = stop
        return
    totals = (values + np.array([[text.total] for one in alive for text in one.alive])).reshape(len(alive), -1)
    order = np.argsort(-totals, axis=1, kind="stable")[:, : 2 * alive[0].width]
    places = order + np.arange(0, totals.size, count * kinds)[:, None]
    found = totals.ravel()[places], order // kinds, names.ravel()[places], values.ravel()[places]
    for row_of_each in zip(*(column.tolist() for column in found), strict=True):
        yield map(Candidate, *row_of_each)


def _likeliest(logits: Tensor, width: int) -> tuple[Floats, Integers]:
    """Of each row the log-probabilities and names of as many tokens as a search of this width can use: 2 · width.

    At most `width` of a search's candidates end, one a row, so among the 2 · width most probable `width` go on.

    Raises: ValueError when the model has computed NaN.
    """
    best = logits.log_softmax(-1).topk(min(2 * width, logits.shape[1]), -1)
    finite = not bool(best.values[:, :1].isnan().any())  # a single NaN among the logits makes all of them NaN
    checks.require(finite, "model", "finite logits", "NaN: its weights are damaged")
    return best.values.numpy().astype(np.float64), best.indices.numpy()
