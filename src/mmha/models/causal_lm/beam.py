"""Beam search: the most probable texts, several kept at a time, which share their past in the caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmha import checks
from mmha.beams import Candidate, Hypothesis, Search
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

Finish = Callable[[Hypothesis, bool], "Completion | None"]


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


def _finish(prompt: str, prompt_tokens: int, tokenizer: Tokenizer, limits: Limits) -> Finish:
    """What makes a completion of a continuation of the prompt that has come to its end."""

    def finish(grown: Hypothesis, full: bool) -> Completion | None:
        at_end = grown.tokens[-1] == tokenizer.end
        if not (limits.stop or at_end or full):
            return None
        stream = TextStream(limits.stop)
        text = stream.feed(tokenizer.decode_bytes(grown.tokens), final=at_end or full)
        reason = "stop" if stream.stopped else "end" if at_end else "length" if full else None
        if reason is None:
            return None
        return Completion(prompt, text, prompt_tokens, grown.tokens, grown.log_probabilities, reason)

    return finish


def _candidates(search: Search[Completion], known: Tensor) -> Iterator[Candidate]:
    """All continuations, the most probable first, equals in the order of hypothesis and token.

    Shapes: known float64 (hypotheses, V), log-probabilities of the next token.
    """
    totals = (torch.tensor([h.total for h in search.alive], dtype=torch.float64)[:, None] + known).flatten()
    for place in totals.sort(descending=True, stable=True).indices.tolist():
        parent, token = divmod(place, known.shape[1])
        yield Candidate(float(totals[place]), parent, token, float(known[parent, token]))


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
    Source: Graves (2012), *Sequence Transduction with Recurrent Neural Networks*, algorithm 1 (`mmha.beams`); dividing
        by a power of the length: Wu et al. (2016), section 7.
    """
    starts = start_tokens(tokenizer, prompts)
    width = beams.width
    searches = [
        Search(width, limits.max_new_tokens, beams.score, _finish(prompt, len(start), tokenizer, limits))
        for prompt, start in zip(prompts, starts, strict=True)
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
                known = log_probabilities(logits[row : row + len(search.alive)])
                chosen = search.advance(_candidates(search, known))
                for place, (parent, token) in enumerate(chosen, row):
                    sources[place], tokens[place] = row + parent, token
        if not tokens:
            return [[completion for _, completion in search.done] for search in searches]
        for cache in caches:
            cache.branch(torch.tensor(sources))
        logits = step(model, caches, tokens)
