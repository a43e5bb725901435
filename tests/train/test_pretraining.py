"""Pretraining: batches as functions of seed and step, the loss and the scores, against loops over single sequences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmha.models.bert import Bert, Config
from mmha.train import pretraining
from mmha.train.masking import Masking
from mmha.train.pairs import Pairs
from mmha.train.pretraining import Batch, Batches, Frame

CONFIG = Config(vocabulary=101, width=14, layers=2, heads=2, hidden=23, positions=31, dropout=0.0)
MARKERS = (0, 1, 2, 3, 4)


def documents(count: int = 7, seed: int = 1) -> list[list[list[int]]]:
    draw = np.random.default_rng(seed)
    return [[draw.integers(5, 101, draw.integers(2, 13)).tolist() for _ in range(29)] for _ in range(count)]


def make(rows: int = 5, seed: int = 3, static: bool = False, count: int = 7) -> Batches:
    masking = Masking(mask=4, markers=MARKERS, vocabulary=101)
    return Batches(Pairs(documents(count), 31), Frame(2, 3), masking, rows, seed, static=static)


def unmasked(batch: Batch) -> list[tuple[int, ...]]:
    """The sequences as they were."""
    tokens = batch.tokens.clone()
    tokens[batch.places] = batch.labels
    return [tuple(part.tolist()) for part in tokens.split(batch.lengths)]


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(torch.as_tensor(x), torch.as_tensor(y)) for x, y in zip(a, b, strict=True))


def test_a_batch_is_pairs_between_markers() -> None:
    for step in range(11):
        batch = make()(step)
        assert len(batch.lengths) == len(batch.next) == 5
        assert sum(batch.lengths) == len(batch.tokens) == len(batch.segments)
        for sequence, segments in zip(unmasked(batch), batch.segments.split(batch.lengths), strict=True):
            assert sequence[0] == 2
            assert [t for t in sequence if t < 5] == [2, 3, 3]
            cut = sequence.index(3) + 1
            assert segments.tolist() == [0] * cut + [1] * (len(sequence) - cut)
        assert (batch.labels > 4).all()


def test_the_answers_are_those_of_the_documents() -> None:
    text = [tuple(token for sentence in document for token in sentence) for document in documents()]

    def homes(part: tuple[int, ...]) -> set[int]:
        return {n for n, d in enumerate(text) for i in range(len(d)) if d[i : i + len(part)] == part}

    for batch in make().once():
        for sequence, label in zip(unmasked(batch), batch.next.tolist(), strict=True):
            cut = sequence.index(3)
            first, second = sequence[1:cut], sequence[cut + 1 : -1]
            if len(first) > 3 and len(second) > 3:  # else it stands in several by chance
                assert bool(homes(first) & homes(second)) == (label == 0)


def test_batches_are_functions_of_seed_and_step() -> None:
    first = make()
    steps = [*range(40), 3, 17, 0]  # back and forth over the ends of passes
    assert all(same(first(step), make()(step)) for step in steps)
    assert not same(make(seed=4)(0), first(0))


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_the_parts_of_a_step_are_its_pairs(parts: int) -> None:
    whole = make()(7)
    found = [make()(7, part, parts) for part in range(parts)]
    assert sorted(s for batch in found for s in unmasked(batch)) == sorted(unmasked(whole))
    assert sorted(torch.cat([batch.labels for batch in found]).tolist()) == sorted(whole.labels.tolist())
    assert sum(sum(batch.next.tolist()) for batch in found) == sum(whole.next.tolist())


def test_more_parts_than_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="`parts`: expected an integer >= 1 and <= 5, got 7"):
        make()(0, 0, 7)


def test_a_pass_shows_each_pair_once_and_the_next_one_pairs_anew() -> None:
    batches = make(rows=1)
    passes = [sorted(unmasked(batches(n * batches.size + i))[0] for i in range(batches.size)) for n in range(2)]
    assert passes[0] == sorted(s for batch in make(rows=1).once() for s in unmasked(batch))
    assert len(set(passes[0]) & set(passes[1])) < len(passes[0]) / 2


def test_static_masks_come_again_with_each_pass_and_dynamic_ones_do_not() -> None:
    def seen(static: bool, number: int) -> dict[tuple[int, ...], tuple[int, ...]]:
        batches = make(rows=1, static=static)
        found = [batches(number * batches.size + i) for i in range(batches.size)]
        return {unmasked(batch)[0]: tuple(batch.tokens.tolist()) for batch in found}

    first, second = seen(True, 0), seen(True, 1)
    assert first == second
    assert list(first) != list(second)  # in another order
    first, second = seen(False, 0), seen(False, 1)
    both = set(first) & set(second)
    assert not both or sum(first[s] == second[s] for s in both) < len(both)


def model() -> Bert:
    bert = Bert(CONFIG).eval()
    for weight in bert.parameters():
        torch.nn.init.normal_(weight, 1.0 if weight.ndim == 1 else 0.0, 0.3)
    return bert


def one_by_one(bert: Bert, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    """Log-probabilities of words at the masked places and of the two answers, each sequence in a forward of its own."""
    words, following, start = [], [], 0
    for length in batch.lengths:
        part = slice(start, start + length)
        hidden = bert(batch.tokens[part], [length], batch.segments[part])
        here = [int(place) - start for place in batch.places if start <= place < start + length]
        words += list(bert.words(hidden).double().log_softmax(-1)[here])
        following.append(bert.next(bert.pool(hidden, [length]))[0].double().log_softmax(-1))
        start += length
    return words, following


@torch.no_grad()
def test_the_loss_and_the_scores_are_those_of_single_sequences() -> None:
    bert, batches = model(), make(count=2).once()
    words = following = found = right = 0.0
    for batch in batches:
        chances, answers = one_by_one(bert, batch)
        lost = [-sum(float(p[t]) for p, t in zip(chances, batch.labels, strict=True))]
        lost += [-sum(float(p[t]) for p, t in zip(answers, batch.next, strict=True))]
        assert pretraining.sums(bert, batch).tolist() == pytest.approx(lost, rel=1e-5)
        assert pretraining.counts(batch) == [len(chances), len(answers)]
        words, following = words + lost[0], following + lost[1]
        found += sum(int(p.argmax()) == int(t) for p, t in zip(chances, batch.labels, strict=True))
        right += sum(int(p.argmax()) == int(t) for p, t in zip(answers, batch.next, strict=True))
    scores = pretraining.evaluate(bert, batches)
    assert (scores.words.correct, scores.next.correct) == (found, right)
    assert scores.next.total == make(count=2).size
    assert scores.loss == pytest.approx(words / scores.words.total + following / scores.next.total, rel=1e-5)


def test_what_is_hidden_cannot_be_read_off() -> None:
    """A model that repeats what it sees finds a word in ten and its random double, and none once all are [MASK]."""

    class Repeats:
        def __call__(self, tokens: Tensor, lengths: Any, segments: Any) -> Tensor:
            return torch.nn.functional.one_hot(tokens, 101).float()

        def words(self, hidden: Tensor) -> Tensor:
            return hidden

        def pool(self, hidden: Tensor, lengths: list[int]) -> Tensor:
            return torch.zeros(len(lengths), 2)

        def next(self, pooled: Tensor) -> Tensor:
            return pooled

    batches = make(rows=50)
    trained = pretraining.evaluate(Repeats(), [batches(step) for step in range(20)]).words
    assert abs(trained.value - 0.1 - 0.1 / 96) < 4 * math.sqrt(0.09 / trained.total)
    all_hidden = Masking(mask=4, markers=MARKERS, vocabulary=101, hidden=1.0, random=0.0)
    measured = Batches(Pairs(documents(), 31), Frame(2, 3), all_hidden, 5, 3).once()
    assert pretraining.evaluate(Repeats(), measured).words.correct == 0


def test_documents_without_a_pair_are_refused() -> None:
    masking = Masking(mask=4, markers=MARKERS, vocabulary=101)
    lonely = Pairs([[[7]], [[8]]], 31)
    seeds = (s for s in range(99) if not lonely(np.random.default_rng([s, 0, 0])))
    with pytest.raises(ValueError, match="`documents`: expected enough sentences for a pair, got too few"):
        Batches(lonely, Frame(2, 3), masking, 5, next(seeds))
