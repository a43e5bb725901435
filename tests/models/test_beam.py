"""Beam search against every text there is, scored by whole forward passes; and against a search without caches."""

from __future__ import annotations

import pytest
import torch

from mmha.models.causal_lm import CausalLM
from mmha.models.causal_lm.beam import Beams, beam_search
from mmha.models.causal_lm.generation import Completion, Limits, generate
from mmha.models.causal_lm.sampling import Sampling
from small_lm import Letters, build, next_logits

pytestmark = pytest.mark.usefixtures("one_thread")
LETTERS = Letters()
PROMPTS = ["abca", "d", "bcbcbcb"]
Text = tuple[int, ...]


@pytest.fixture(scope="module")
def model() -> CausalLM:
    return build(5)


class Oracle:
    """Log-probabilities of texts, one forward pass over the whole text a token."""

    def __init__(self, model: CausalLM, prompt: str) -> None:
        self.model, self.prompt = model, LETTERS.encode(prompt)

    def grown(self, text: Text) -> list[tuple[Text, float]]:
        known = next_logits(self.model, [*self.prompt, *text]).log_softmax(-1)
        return [((*text, token), float(known[token])) for token in range(5)]


def ended(text: Text, longest: int, stop: str | None = None) -> bool:
    at_stop = stop is not None and stop in LETTERS.decode(text)
    return len(text) == longest or text[-1] == LETTERS.end or at_stop


def every_text(oracle: Oracle, longest: int, stop: str | None) -> list[tuple[float, Text]]:
    """All texts with their log-probabilities."""
    found: list[tuple[float, Text]] = []
    growing: list[tuple[float, Text]] = [(0.0, ())]
    while growing:
        total, text = growing.pop()
        for longer, known in oracle.grown(text):
            (found if ended(longer, longest, stop) else growing).append((total + known, longer))
    return found


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, -0.5])
@pytest.mark.parametrize("stop", [None, "ba"])
def test_beams_for_all_texts_find_the_best_of_all_texts(model: CausalLM, penalty: float, stop: str | None) -> None:
    limits = Limits(3, stop=(stop,) if stop else (), chunk=3)
    found = beam_search(model, LETTERS, PROMPTS, Beams(25, penalty), limits)
    for prompt, own in zip(PROMPTS, found, strict=True):
        texts = every_text(Oracle(model, prompt), 3, stop)
        assert sum(torch.tensor([total for total, _ in texts]).exp()) == pytest.approx(1.0, abs=1e-5)
        texts.sort(key=lambda pair: -pair[0] / len(pair[1]) ** penalty)
        assert [completion.tokens for completion in own] == [text for _, text in texts[:25]]
        assert [sum(completion.log_probabilities) for completion in own] == pytest.approx(
            [total for total, _ in texts[:25]], abs=1e-4
        )


def plain_search(oracle: Oracle, width: int, penalty: float, longest: int, stop: str | None = None) -> list[Text]:
    """Beam search as it is defined, without caches and without ending early."""
    alive: list[tuple[float, Text]] = [(0.0, ())]
    done: list[tuple[float, Text]] = []
    while alive:
        grown = [(total + known, longer) for total, text in alive for longer, known in oracle.grown(text)]
        grown.sort(key=lambda pair: -pair[0])
        done += [pair for pair in grown[:width] if ended(pair[1], longest, stop)]
        alive = [pair for pair in grown if not ended(pair[1], longest, stop)][:width]
    done.sort(key=lambda pair: -pair[0] / len(pair[1]) ** penalty)
    return [text for _, text in done[:width]]


@pytest.mark.parametrize("width", [1, 2, 3, 7])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_few_beams_keep_what_the_definition_keeps(model: CausalLM, width: int, penalty: float) -> None:
    found = beam_search(model, LETTERS, PROMPTS, Beams(width, penalty), Limits(11))
    for prompt, own in zip(PROMPTS, found, strict=True):
        assert [completion.tokens for completion in own] == plain_search(Oracle(model, prompt), width, penalty, 11)


@pytest.mark.parametrize("width", [2, 3, 5])
@pytest.mark.parametrize("stop", ["b", "d"])
def test_texts_that_end_are_kept_while_they_are_among_the_best(width: int, stop: str) -> None:
    undecided = build(5)
    undecided.embedding.weight.data.mul_(0.2)  # probabilities near each other: an early end is often among the best
    limits = Limits(6, stop=(stop,))
    for prompt, own in zip(PROMPTS, beam_search(undecided, LETTERS, PROMPTS, Beams(width, 0.0), limits), strict=True):
        wanted = plain_search(Oracle(undecided, prompt), width, 0.0, 6, stop)
        assert [completion.tokens for completion in own] == wanted


def test_one_beam_is_greedy_but_for_the_end() -> None:
    model = build(4)  # without the end token
    greedy = generate(model, LETTERS, PROMPTS, Sampling(temperature=0), Limits(17))
    found = beam_search(model, LETTERS, PROMPTS, Beams(1), Limits(17))
    assert [own[0].tokens for own in found] == [completion.tokens for completion in greedy]


def test_rows_of_the_batch_do_not_mix(model: CausalLM) -> None:
    together = beam_search(model, LETTERS, PROMPTS, Beams(3), Limits(13))
    for prompt, own in zip(PROMPTS, together, strict=True):
        alone = beam_search(model, LETTERS, [prompt], Beams(3), Limits(13))[0]
        assert [completion.tokens for completion in alone] == [completion.tokens for completion in own]


def test_beams_work_beyond_a_window() -> None:
    model = build(4)
    limits = Limits(37, window=6, sinks=2)
    greedy = generate(model, LETTERS, PROMPTS, Sampling(temperature=0), limits)
    narrow = beam_search(model, LETTERS, PROMPTS, Beams(1), limits)
    wide = beam_search(model, LETTERS, PROMPTS, Beams(5), limits)
    for one, own, best in zip(greedy, narrow, wide, strict=True):
        assert own[0].tokens == one.tokens
        assert total(best[0]) >= total(one) - 1e-4
        assert total(best[0]) == pytest.approx(windowed_total(model, best[0], limits), abs=1e-3)


def total(completion: Completion) -> float:
    return sum(completion.log_probabilities)


def windowed_total(model: CausalLM, completion: Completion, limits: Limits) -> float:
    """What the model says of the text when it is forced to write it, alone in its cache."""
    text = [*LETTERS.encode(completion.prompt), *completion.tokens]
    caches = model.new_caches(1, len(text), window=limits.window, sinks=limits.sinks)
    logits = torch.cat([model(torch.tensor([[token]]), caches)[0] for token in text[:-1]])
    known = logits.double().log_softmax(-1)[torch.arange(len(text) - 1), text[1:]]
    return float(known[-len(completion.tokens) :].sum())


def test_a_width_that_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^`width`: expected an integer >= 1, got 0$"):
        Beams(0)
    with pytest.raises(ValueError, match=r"^`length_penalty`: expected a finite number, got nan$"):
        Beams(2, float("nan"))
