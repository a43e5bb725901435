"""Pairs of sentences: shares within binomial bounds at fixed seeds, and what holds for any documents."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmha.train.pairs import Pair, Pairs, cut_to


def numbered(sizes: list[list[int]]) -> list[list[list[int]]]:
    """Documents of sentences of these lengths, every token another number: it says where it is from."""
    count = iter(range(10**9))
    return [[[next(count) for _ in range(size)] for size in document] for document in sizes]


shapes = st.lists(st.lists(st.integers(1, 29), min_size=1, max_size=13), min_size=2, max_size=7)


def pairs_of(documents: list[list[list[int]]], length: int, seed: int, short: float = 0.1) -> list[Pair]:
    return Pairs(documents, length, short)(np.random.default_rng(seed))


@given(shapes, st.integers(5, 61), st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 1.0]))
def test_what_holds_for_any_documents(sizes: list[list[int]], length: int, seed: int, short: float) -> None:
    documents = numbered(sizes)
    home = {token: n for n, document in enumerate(documents) for sentence in document for token in sentence}
    pairs = pairs_of(documents, length, seed, short)
    for first, second, follows, document in pairs:
        assert first
        assert second
        assert len(first) + len(second) <= length - 3
        for half in (first, second):
            assert half == list(range(half[0], half[-1] + 1))  # tokens in a row, as they stood
            assert len({home[token] for token in half}) == 1
        assert home[first[0]] == document
        assert (home[second[0]] == document) == follows
        if follows:
            assert second[0] > first[-1]
    # What one pair has used in its own document no other pair has, and they come in order.
    used = [token for p in pairs for token in (p.first + p.second if p.follows else p.first)]
    assert used == sorted(set(used))
    assert pairs == pairs_of(documents, length, seed, short)


def test_sentences_that_fit_are_never_cut_and_none_is_lost() -> None:
    documents = numbered([[5] * 40] * 7)
    pairs = pairs_of(documents, 33, seed=3, short=0.0)  # 30 tokens are 6 sentences
    for pair in pairs:
        if pair.follows:
            assert pair.second[0] == pair.first[-1] + 1
            last = pair.second[-1] % 200 == 199
            assert last or len(pair.first) + len(pair.second) == 30
        assert len(pair.first) % 5 == len(pair.second) % 5 == 0
    used = {token for p in pairs for token in (p.first + p.second if p.follows else p.first)}
    lost = set(range(7 * 200)) - used
    assert len(lost) <= 7 * 5  # at most the last sentence of each


def test_shares_are_those_of_the_recipe() -> None:
    generator = np.random.default_rng(19)
    documents = numbered([generator.integers(3, 40, 211).tolist() for _ in range(31)])
    first_of = np.cumsum([0, *[sum(map(len, document)) for document in documents]])
    pairs = [pair for seed in range(5) for pair in pairs_of(documents, 128, seed)]
    count = len(pairs)
    spread = math.sqrt(count) / 2
    assert abs(sum(pair.follows for pair in pairs) - count / 2) < 4 * spread
    # Nine in ten are filled; the tenth has any length from 2 to 125, cut nowhere, so a sentence may run over.
    full = sum(len(pair.first) + len(pair.second) > 110 for pair in pairs) / count
    assert 0.86 < full < 0.96
    others = [int(np.searchsorted(first_of, p.second[0], "right")) - 1 for p in pairs if not p.follows]
    seen = np.bincount(others, minlength=31)
    assert (abs(seen - len(others) / 31) < 5 * math.sqrt(len(others) / 31)).all()
    starts = {tuple(s[:1]) for document in documents for s in document}
    begun = sum(tuple(p.second[:1]) in starts for p in pairs if not p.follows) / len(others)
    assert begun > 0.5  # from the beginning of a sentence, unless its front was cut


def test_a_tenth_is_short() -> None:
    documents = numbered([[1] * 9973, [1] * 9967])
    pairs = pairs_of(documents, 103, seed=23)
    short = sum(len(p.first) + len(p.second) < 100 for p in pairs[:-1])
    assert abs(short - 0.1 * len(pairs)) < 4 * math.sqrt(0.09 * len(pairs))
    lengths = [len(p.first) + len(p.second) for p in pairs_of(documents, 103, seed=23, short=1.0)]
    assert min(lengths) <= 6
    assert abs(np.mean(lengths) - 51) < 4 * 29 / math.sqrt(len(lengths))


def test_the_longer_half_is_cut_at_both_ends_alike() -> None:
    generator = np.random.default_rng(29)
    front = back = 0
    for _ in range(97):
        first, second = list(range(53)), list(range(100, 107))
        cut_to(first, second, 31, generator)
        assert len(first) + len(second) == 31
        assert second == list(range(100, 107))
        front, back = front + first[0], back + 52 - first[-1]
    assert abs(front - back) < 4 * math.sqrt(front + back)
    first, second = [1, 2, 3], [4, 5]
    cut_to(first, second, 2, generator)
    assert len(first) == len(second) == 1


@pytest.mark.parametrize(
    ("documents", "length", "short", "message"),
    [
        ([[[1]]], 8, 0.1, "`documents`: expected at least 2, got 1"),
        ([[[1]], []], 8, 0.1, "`documents`: expected sentences of at least one token in each, got an empty one"),
        ([[[1]], [[2], []]], 8, 0.1, "`documents`: expected sentences of at least one token in each, got an empty one"),
        ([[[1]], [[2]]], 4, 0.1, "`length`: expected an integer >= 5, got 4"),
        ([[[1]], [[2]]], 8, 1.5, "`short`: expected a probability from 0 to 1, got 1.5"),
    ],
)
def test_bad_input_is_refused(documents: list[list[list[int]]], length: int, short: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pairs(documents, length, short)
