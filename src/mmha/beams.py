"""Beam search without a model: which texts go on, which are done, and when nothing better can come.

The models that write texts share it: they say what may follow and when a text has come to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

Ended = TypeVar("Ended")


class Hypothesis(NamedTuple):
    """A text as far as it has come: its tokens, the log-probability (nats) of each, and their sum."""

    tokens: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()
    total: float = 0.0


class Candidate(NamedTuple):
    """One token more for the text number `parent` of those that go on; `total` is then the sum of log-probabilities."""

    total: float
    parent: int
    token: int
    log_probability: float


class Search(Generic[Ended]):
    """The search for the `keep` best texts with `width` texts kept at a time, of at most `longest` tokens.

    score(total, length) is what texts are compared by, rising with the total and, for the same total, rising or falling
    with the length; finish(text, full) gives what becomes of a text that has come to its end (full: because it has
    `longest` tokens), or None. `alive` are the texts that go on, the most probable first; `done` holds (score, what
    became of it), the best first.

    Source: Graves (2012), *Sequence Transduction with Recurrent Neural Networks*, algorithm 1.

    >>> search = Search(2, 3, lambda total, length: total / length, lambda h, full: h if h.tokens[-1] == 9 else None)
    >>> search.advance([Candidate(-0.5, 0, 7, -0.5), Candidate(-1.2, 0, 9, -1.2), Candidate(-2.3, 0, 8, -2.3)])
    [(0, 7), (0, 8)]
    >>> search.done[0][0], [text.tokens for text in search.alive]
    (-1.2, [(7,), (8,)])
    """

    def __init__(
        self, width: int, longest: int, score: Callable[[float, int], float],
        finish: Callable[[Hypothesis, bool], Ended | None], keep: int | None = None,
    ) -> None:  # fmt: skip
        self.width, self.longest, self.keep = width, longest, width if keep is None else keep
        self.score, self.finish = score, finish
        self.alive = [Hypothesis()]
        self.done: list[tuple[float, Ended]] = []

    def advance(self, candidates: Iterable[Candidate]) -> list[tuple[int, int]]:
        """Choose among the candidates, the most probable first; (parent, token) of those that go on.

        At most `width` go on. One that ends is set aside when it is among the first `width`, and takes no place of one
        that goes on. Texts that cannot become better than the `keep` best that are done are dropped, all that they
        could have kept out included; the search is over when none is alive.
        """
        length = len(self.alive[0].tokens) + 1
        full = length == self.longest
        ongoing: list[Hypothesis] = []
        chosen: list[tuple[int, int]] = []
        for rank, (total, parent, token, known) in enumerate(candidates):
            if len(ongoing) == self.width or (full and rank >= self.width):
                break
            before = self.alive[parent]
            grown = Hypothesis((*before.tokens, token), (*before.log_probabilities, known), total)
            ended = self.finish(grown, full)
            if ended is None:
                ongoing.append(grown)
                chosen.append((parent, token))
            elif rank < self.width:
                self.done.append((self.score(total, length), ended))
        self.done.sort(key=lambda found: -found[0])
        del self.done[self.keep :]
        if len(self.done) == self.keep:  # totals only fall: what is left to hope for is another length
            least = self.done[-1][0]
            ongoing = [h for h in ongoing if max(self.score(h.total, n) for n in (length, self.longest)) > least]
        self.alive = ongoing
        return chosen[: len(ongoing)]
