"""Beam search: the most probable texts, several kept at a time, which share their past in the caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmha import checks
from mmha.models.causal_lm.generation import (
    Completion,
    Limits,
    log_probabilities,
    new_caches,
    prefill,
    start_tokens,
    step,
)  # fmt: skip
from mmha.models.causal_lm.stopping import TextStream

if TYPE_CHECKING:
    from mmha.models.causal_lm.model import CausalLM
    from mmha.subwords import Tokenizer


@dataclass(frozen=True)
class Beams:
    """How wide the search is, and how the length of a text counts: score = Σ log p / length ** length_penalty.

    0 compares sums, which favours short texts; 1 compares means; more favours long texts. Texts differ in length only
    where a stop string or the end-of-text token ends some of them.

    Raises: ValueError or TypeError when a value is out of its range.

    >>> Beams(width=0)
    Traceback (most recent call last):
    ...
    ValueError: `width`: expected an integer >= 1, got 0
    """

    width: int = 4
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        checks.integer("width", self.width, 1)
        checks.number("length_penalty", self.length_penalty)

    def score(self, log_probability: float, length: int) -> float:
        """Σ log p / length ** length_penalty.

        >>> Beams(length_penalty=2.0).score(-8.0, 2)
        -2.0
        """
        return float(log_probability / length**self.length_penalty)


@dataclass(frozen=True)
class _Hypothesis:
    """A text as far as it has come."""

    tokens: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()
    total: float = 0.0

    def add(self, token: int, log_probability: float, total: float) -> _Hypothesis:
        return _Hypothesis((*self.tokens, token), (*self.log_probabilities, log_probability), total)


class _Search:
    """The search for the continuations of one prompt."""

    def __init__(self, prompt: str, prompt_tokens: int, tokenizer: Tokenizer, beams: Beams, limits: Limits) -> None:
        self.prompt, self.prompt_tokens, self.tokenizer = prompt, prompt_tokens, tokenizer
        self.beams, self.limits = beams, limits
        self.alive = [_Hypothesis()]
        self.done: list[tuple[float, Completion]] = []

    def advance(self, known: Tensor) -> list[tuple[int, int]]:
        """Choose among all continuations; (hypothesis before, token) of each that goes on, at most `width`.

        The continuations are taken from the most probable on, equals in the order of hypothesis and token. One that
        ends is set aside when it is among the first `width`, and takes no place of one that goes on.
        Shapes: known float64 (hypotheses, V), log-probabilities of the next token.
        """
        totals = (torch.tensor([h.total for h in self.alive], dtype=torch.float64)[:, None] + known).flatten()
        full = len(self.alive[0].tokens) + 1 == self.limits.max_new_tokens
        ongoing: list[_Hypothesis] = []
        chosen: list[tuple[int, int]] = []
        for rank, place in enumerate(totals.sort(descending=True, stable=True).indices.tolist()):
            if len(ongoing) == self.beams.width or (full and rank >= self.beams.width):
                break
            parent, token = divmod(place, known.shape[1])
            grown = self.alive[parent].add(token, float(known[parent, token]), float(totals[place]))
            completion = self.completion(grown, full)
            if completion is None:
                ongoing.append(grown)
                chosen.append((parent, token))
            elif rank < self.beams.width:
                self.done.append((self.beams.score(grown.total, len(grown.tokens)), completion))
        self.done.sort(key=lambda found: -found[0])
        self.done = self.done[: self.beams.width]
        self.alive = [] if self.settled(ongoing) else ongoing
        return chosen if self.alive else []

    def completion(self, grown: _Hypothesis, full: bool) -> Completion | None:
        """The hypothesis as a completion when it has come to its end."""
        at_end = grown.tokens[-1] == self.tokenizer.end
        if not (self.limits.stop or at_end or full):
            return None
        stream = TextStream(self.limits.stop)
        text = stream.feed(self.tokenizer.decode_bytes(grown.tokens), final=at_end or full)
        reason = "stop" if stream.stopped else "end" if at_end else "length" if full else None
        if reason is None:
            return None
        return Completion(self.prompt, text, self.prompt_tokens, grown.tokens, grown.log_probabilities, reason)

    def settled(self, ongoing: Sequence[_Hypothesis]) -> bool:
        """Whether no text that goes on can still be better than those that are done: Σ log p only falls."""
        if not ongoing or len(self.done) < self.beams.width:
            return not ongoing
        best = ongoing[0]
        lengths = (len(best.tokens), self.limits.max_new_tokens)
        return self.done[-1][0] >= max(self.beams.score(best.total, length) for length in lengths)


@torch.no_grad()
def beam_search(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    beams: Beams = Beams(),
    limits: Limits = Limits(),  # noqa: B008 (frozen)
) -> list[list[Completion]]:
    """The best continuations of each prompt, best first, at most `width` of them.

    Every prompt has `width` rows in the caches. A hypothesis that goes on in two ways is not copied: `cache.branch`
    makes both rows read their past where it stands.

    Raises: ValueError or TypeError when an argument does not fit, before anything is computed.
    Source: Graves (2012), *Sequence Transduction with Recurrent Neural Networks*, algorithm 1; dividing by a power of
        the length: Wu et al. (2016), section 7.
    """
    starts = start_tokens(tokenizer, prompts)
    width = beams.width
    searches = [
        _Search(prompt, len(start), tokenizer, beams, limits) for prompt, start in zip(prompts, starts, strict=True)
    ]
    model.eval()
    caches = new_caches(model, [len(start) for start in starts for _ in range(width)], limits)
    first = [start if not beam else [] for start in starts for beam in range(width)]
    logits = prefill(model, caches, first, limits.chunk)
    while True:
        sources = list(range(len(first)))
        tokens: dict[int, int] = {}
        for number, search in enumerate(searches):
            if search.alive:
                row = number * width
                chosen = search.advance(log_probabilities(logits[row : row + len(search.alive)]))
                for place, (parent, token) in enumerate(chosen, row):
                    sources[place], tokens[place] = row + parent, token
        if not tokens:
            return [[completion for _, completion in search.done] for search in searches]
        for cache in caches:
            cache.branch(torch.tensor(sources))
        logits = step(model, caches, tokens)
