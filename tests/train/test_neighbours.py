"""The guess from left and right neighbours, against counting in loops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch

from mmha.train.neighbours import Neighbours

CLS, SEP, MASK, WORDS = 2, 3, 4, 23


def text(seed: int = 5) -> list[list[list[int]]]:
    draw = np.random.default_rng(seed)
    return [[(5 + draw.zipf(1.5, draw.integers(1, 11)) % 18).tolist() for _ in range(13)] for _ in range(3)]


def by_hand(documents: list[list[list[int]]], left: int, right: int, k: float, j: float) -> list[float]:
    """What the module's formula gives every word, counted one by one."""
    runs = [[token for sentence in document for token in sentence] for document in documents]
    ends = [[CLS, s[0]] for d in documents for s in d] + [[s[-1], SEP] for d in documents for s in d]
    words = [sum(run.count(t) for run in runs) for t in range(WORDS)]

    def two(a: int, b: int) -> int:
        return sum(run[i : i + 2] == [a, b] for run in runs + ends for i in range(len(run)))

    after = [two(left, t) for t in range(WORDS)]
    before = [two(t, right) for t in range(WORDS)]
    share = [count / sum(words) for count in words]
    q = [(after[t] + j * share[t]) / (sum(after) + j) for t in range(WORDS)]
    if sum(before):
        q = [q[t] * (before[t] + j * sum(before) / sum(words)) / (words[t] + j) for t in range(WORDS)]
    three = [sum(run[i : i + 3] == [left, t, right] for run in runs for i in range(len(run))) for t in range(WORDS)]
    return [three[t] + k * q[t] / sum(q) for t in range(WORDS)]


@pytest.mark.parametrize(("k", "j"), [(2.0, 2.0), (0.5, 11.0)])
def test_it_guesses_as_counted_by_hand(k: float, j: float) -> None:
    counts = Neighbours(text(), WORDS, CLS, SEP, k, j)
    for left in (CLS, MASK, *range(5, WORDS, 5)):
        for right in (SEP, MASK, *range(5, WORDS, 3)):
            scores = by_hand(text(), left, right, k, j)
            assert scores[counts.guess(left, right)] == pytest.approx(max(scores), rel=1e-12)


def test_between_masks_it_is_the_most_frequent_word() -> None:
    counts = Neighbours(text(), WORDS, CLS, SEP)
    words = [token for document in text() for sentence in document for token in sentence]
    assert counts.guess(MASK, MASK) == counts.frequent == max(range(WORDS), key=words.count)


def test_it_is_scored_at_the_masked_places() -> None:
    class Batch(NamedTuple):
        tokens: torch.Tensor
        places: torch.Tensor
        labels: torch.Tensor

    counts = Neighbours([[[5, 6, 7], [5, 6, 7, 5, 8, 5]]], WORDS, CLS, SEP)
    batch = Batch(torch.tensor([2, 5, 4, 7, 5, 4, 3]), torch.tensor([2, 5]), torch.tensor([6, 5]))
    frequent, guessed = counts.evaluate([batch, batch])
    assert (frequent.correct, frequent.total) == (2, 4)  # 5, the second label
    expected = (counts.guess(5, 7) == 6) + (counts.guess(5, 3) == 5)
    assert (guessed.correct, guessed.total) == (2 * expected, 4)


def test_empty_sentences_count_for_nothing_and_no_text_is_refused() -> None:
    assert Neighbours([[[]], [[7]], []], WORDS, CLS, SEP).guess(5, 6) == 7
    with pytest.raises(ValueError, match="`documents`: expected at least one word, got none"):
        Neighbours([[[]]], WORDS, CLS, SEP)
