"""Masked words: shares within binomial bounds at fixed seeds, and what holds for any sequence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmha.train.masking import Masking

MARKERS = (0, 1, 2, 3, 4)
MASK = 4
WORDS = 97

sequences = st.lists(st.integers(0, WORDS - 1), max_size=67)
seeds = st.integers(0, 2**32)


def make(**options: object) -> Masking:
    return Masking(mask=MASK, markers=MARKERS, vocabulary=WORDS, **options)  # type: ignore[arg-type]


def likely(count: int, total: int, share: float) -> bool:
    """Within 4 standard deviations of a binomial."""
    return abs(count - total * share) <= 4 * math.sqrt(total * share * (1 - share))


def test_shares_are_those_of_the_recipe() -> None:
    generator, masking = np.random.default_rng(11), make()
    chosen = kept = hidden = 0
    stood, became = np.zeros(101), np.zeros(WORDS)
    for _ in range(997):
        tokens = np.concatenate([[2], generator.integers(5, WORDS, 99), [3]])
        found = masking(tokens, generator)
        assert len(found.places) == 15  # round(0.15 · 101)
        chosen += len(found.places)
        stood[found.places] += 1
        now = found.tokens[found.places]
        hidden += int((now == MASK).sum())
        kept += int((now == found.labels).sum())
        np.add.at(became, now, 1)
    assert likely(hidden, chosen, 0.8)
    # A random word is the one that stood there once in 92 times.
    assert likely(kept, chosen, 0.1 + 0.1 / 92)
    assert all(likely(int(count), 997, 15 / 99) for count in stood[1:-1])
    assert became[list(MARKERS)].tolist() == [0, 0, 0, 0, hidden]
    assert all(likely(int(count), chosen, 0.2 / 92) for count in became[5:])


@given(sequences, seeds, st.integers(1, 23))
def test_as_many_are_chosen_as_there_should_be_and_markers_never(tokens: list[int], seed: int, most: int) -> None:
    found = make(most=most)(tokens, np.random.default_rng(seed))
    words = [place for place, token in enumerate(tokens) if token not in MARKERS]
    assert len(found.places) == min(len(words), most, max(1, round(0.15 * len(tokens))))
    assert set(found.places.tolist()) <= set(words)
    assert found.places.tolist() == sorted(set(found.places.tolist()))
    assert found.labels.tolist() == [tokens[place] for place in found.places]
    others = np.delete(np.arange(len(tokens)), found.places)
    assert found.tokens[others].tolist() == [tokens[place] for place in others]
    assert not set(found.tokens[found.places].tolist()) & (set(MARKERS) - {MASK})


@given(sequences, seeds)
def test_it_is_a_function_of_the_generator(tokens: list[int], seed: int) -> None:
    first, second = (make()(tokens, np.random.default_rng(seed)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@given(sequences, seeds)
def test_whole_words_are_chosen_with_all_their_pieces(tokens: list[int], seed: int) -> None:
    continues = frozenset(range(53, WORDS))
    found = make(continues=continues)(tokens, np.random.default_rng(seed))
    chosen = set(found.places.tolist())
    for place in range(1, len(tokens)):
        if tokens[place] in continues and tokens[place - 1] not in MARKERS:
            assert (place in chosen) == (place - 1 in chosen)
    assert len(chosen) <= min(20, max(1, round(0.15 * len(tokens))))
    assert all(tokens[place] not in MARKERS for place in chosen)
    # Words of one piece always fit: then no place stays empty.
    single = [token for token in tokens if token not in continues]
    alone = make(continues=continues)(single, np.random.default_rng(seed))
    assert len(alone.places) == len(make()(single, np.random.default_rng(seed)).places)


def test_whole_words_are_masked_as_often_as_pieces() -> None:
    generator = np.random.default_rng(13)
    masking = make(continues=frozenset(range(53, WORDS)), most=100)
    count = 0
    for _ in range(499):
        tokens = generator.integers(5, WORDS, 101)
        count += len(masking(tokens, generator).places)
    assert 0.97 * 499 * 15 < count <= 499 * 15


def test_all_can_be_hidden_for_a_fair_measure() -> None:
    found = make(hidden=1.0, random=0.0)([2, *range(5, 90), 3], np.random.default_rng(17))
    assert found.tokens[found.places].tolist() == [MASK] * 13


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "`rate`: expected a share > 0 and <= 1, got 0.0"),
        ({"most": 0}, "`most`: expected an integer >= 1, got 0"),
        ({"hidden": 0.8, "random": 0.3}, "`hidden`: expected hidden \\+ random <= 1, got 1.1"),
        ({"random": -0.1}, "`random`: expected a finite number >= 0, got -0.1"),
        ({"vocabulary": 5}, "`vocabulary`: expected words beside the markers, got 5"),
    ],
)
def test_shares_that_are_none_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Masking(**({"mask": MASK, "markers": MARKERS, "vocabulary": WORDS} | options))  # type: ignore[arg-type]
