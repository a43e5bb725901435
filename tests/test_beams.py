"""The search without a model, against its definition, on made-up languages: which texts win, and what is dropped."""

from __future__ import annotations

import math
import random

import pytest

from mmha.beams import Candidate, Hypothesis, Search

END, TOKENS, LONGEST = 0, 4, 6
Text = tuple[int, ...]


class Language:
    """Probabilities of the next token, drawn for each beginning."""

    def __init__(self, seed: int, sharpness: float) -> None:
        self.seed, self.sharpness = seed, sharpness

    def grown(self, total: float, text: Text) -> list[tuple[float, Text]]:
        draw = random.Random(f"{self.seed} {text}")
        weights = [math.exp(self.sharpness * draw.random()) for _ in range(TOKENS)]
        return [(total + math.log(w / sum(weights)), (*text, token)) for token, w in enumerate(weights)]


def is_ended(text: Text) -> bool:
    return text[-1] == END or len(text) == LONGEST


def defined(language: Language, width: int, alpha: float, keep: int) -> list[Text]:
    """All that the definition looks at, nothing dropped and nothing stopped early."""
    alive: list[tuple[float, Text]] = [(0.0, ())]
    done: list[tuple[float, Text]] = []
    while alive:
        grown = sorted((pair for known in alive for pair in language.grown(*known)), key=lambda pair: -pair[0])
        done += [pair for pair in grown[:width] if is_ended(pair[1])]
        alive = [pair for pair in grown if not is_ended(pair[1])][:width]
    done.sort(key=lambda pair: -pair[0] / len(pair[1]) ** alpha)
    return [text for _, text in done[:keep]]


def found(language: Language, width: int, alpha: float, keep: int) -> tuple[list[Text], int]:
    """What the search finds, and how many texts it has looked at."""

    def finish(text: Hypothesis, full: bool) -> Text | None:
        assert full == (len(text.tokens) == LONGEST)
        assert text.total == pytest.approx(sum(text.log_probabilities))
        return text.tokens if full or text.tokens[-1] == END else None

    search = Search(width, LONGEST, lambda total, length: total / length**alpha, finish, keep)
    looked_at = 0
    while search.alive:
        looked_at += len(search.alive)
        candidates = [
            Candidate(total, parent, text[-1], total - before.total)
            for parent, before in enumerate(search.alive)
            for total, text in language.grown(before.total, before.tokens)
        ]
        before = [text.tokens for text in search.alive]
        chosen = search.advance(sorted(candidates, key=lambda c: -c.total)[: 2 * width])
        assert [text.tokens for text in search.alive] == [(*before[parent], token) for parent, token in chosen]
    assert [score for score, _ in search.done] == sorted((score for score, _ in search.done), reverse=True)
    return [text for _, text in search.done], looked_at


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0, 5.0, -2.0])
@pytest.mark.parametrize(("width", "keep"), [(1, 1), (2, 1), (2, 2), (3, 1), (5, 3)])
def test_it_finds_what_its_definition_finds(width: int, keep: int, alpha: float) -> None:
    saved = 0
    for seed in range(31):
        language = Language(seed, 1.0 + seed % 4)
        texts, looked_at = found(language, width, alpha, keep)
        assert texts == defined(language, width, alpha, keep)
        saved += looked_at < 1 + width * (LONGEST - 1)
    assert saved > 0 or alpha > 1.0  # where length is worth much, the longest texts may always win
