"""Kneser-Ney: probabilities sum to 1 after any history, and are those of the definition, computed n-gram by n-gram."""

from __future__ import annotations

import numpy as np
import pytest

from mmha.bench.kneser_ney import KneserNey, discounts

VOCABULARY = 7
#: Skewed, so that counts of 1, 2, 3 and 4 all occur at every order.
STREAM = (np.random.default_rng(3).beta(0.7, 2.0, 701) * VOCABULARY).astype(int).tolist()


def by_definition(stream: list[int], history: tuple[int, ...], token: int, highest: bool = True) -> float:
    """p(token | history) by the formula, with counts from scans of the whole stream."""
    length = len(history) + 1
    places = [tuple(stream[i : i + length]) for i in range(len(stream) - length + 1)]
    if highest:
        counts = {gram: places.count(gram) for gram in set(places)}
    else:
        longer = {tuple(stream[i - 1 : i + length]) for i in range(1, len(stream) - length + 1)}
        counts = {gram: sum(gram == other[1:] for other in longer) for gram in {g[1:] for g in longer}}
    below = 1 / VOCABULARY if not history else by_definition(stream, history[1:], token, False)
    followers = {gram[-1]: n for gram, n in counts.items() if gram[:-1] == history}
    if not followers:
        return below
    n1, n2, n3, n4 = (sum(n == k for n in counts.values()) for k in (1, 2, 3, 4))
    take = [0.0, 0.5, 1.0, 1.5]
    if n1 and n2 and n3 and n4:
        y = n1 / (n1 + 2 * n2)
        raw = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        take = [0.0, *(min(max(d, 0.0), i) for i, d in enumerate(raw, start=1))]
    total = sum(followers.values())
    free = sum(take[min(n, 3)] for n in followers.values())
    here = followers.get(token, 0)
    return (here - take[min(here, 3)] + free * below) / total


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_are_those_of_the_definition(order: int) -> None:
    model = KneserNey(STREAM, VOCABULARY, order)
    tokens = [3, *STREAM[100:113], 6, 6, 5, 6, 6]
    found = model.probabilities(tokens)
    for at, token in enumerate(tokens):
        history = tuple(tokens[max(0, at - order + 1) : at])
        exact = by_definition(STREAM, history, token, highest=len(history) == order - 1)
        assert found[at] == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("order", [1, 2, 4, 5])
def test_probabilities_sum_to_one_after_any_history(order: int) -> None:
    model = KneserNey(STREAM, VOCABULARY, order)
    draw = np.random.default_rng(5)
    for length in [0, 1, 2, 3, 4] * 23:
        history = draw.integers(0, VOCABULARY, length).tolist()
        total = sum(model.probabilities([*history, token])[-1] for token in range(VOCABULARY))
        assert total == pytest.approx(1.0, abs=1e-12)


def test_a_token_never_seen_has_what_the_discounts_set_free() -> None:
    model = KneserNey([0, 1, 0, 1, 1, 0, 1], 11, 3)
    assert 0 < model.probabilities([0, 1, 10])[-1] < model.probabilities([0, 1, 0])[-1]


def test_discounts_are_estimated_or_a_half() -> None:
    assert discounts(np.array([1, 1, 2])).tolist() == [0.0, 0.5, 1.0, 1.5]
    assert discounts(np.array([1, 1, 1, 1, 2, 2, 3, 4, 9])).tolist() == [0.0, 0.5, 1.25, 1.0]


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"`order`: expected vocabulary \*\* order < 2\^63, got 7000 \*\* 5"):
        KneserNey([1] * 9, 7000, 5)
    with pytest.raises(ValueError, match="`stream`: expected at least order = 5 tokens, got 4"):
        KneserNey([1] * 4, 7, 5)
    with pytest.raises(ValueError, match="`tokens`: expected numbers from 0 to 6, got others"):
        KneserNey([1] * 9, 7, 2).probabilities([7])
