"""Sampling: each step against a closed form or a definition written out, draws against exact probabilities."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from mmha.models.causal_lm.sampling import (
    Sampling,
    draw,
    greedy,
    min_p,
    repetition_penalty,
    temperature,
    top_k,
    top_p,
)  # fmt: skip

INF = float("inf")


def logits_of(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def kept(logits: Tensor) -> list[int]:
    return (logits[0] > -INF).nonzero()[:, 0].tolist()


def unseen(logits: Tensor) -> Tensor:
    return torch.zeros(logits.shape, dtype=torch.bool)


def generators(count: int, seed: int = 7) -> list[Generator]:
    return [Generator().manual_seed(seed + b) for b in range(count)]


def test_greedy_takes_the_lowest_of_equals() -> None:
    assert greedy(torch.tensor([[0.0, 2.0, 2.0], [3.0, 3.0, -INF], [-INF, -INF, -1.0]])).tolist() == [1, 0, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_greedy_takes_any_float(dtype: torch.dtype) -> None:
    assert greedy(torch.tensor([[0.0, 2.0, 1.0]], dtype=dtype)).tolist() == [1]


def test_temperature_is_a_power_of_the_probabilities() -> None:
    p = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
    for value in (0.5, 1.0, 3.0):
        wanted = p ** (1 / value) / (p ** (1 / value)).sum()
        torch.testing.assert_close(temperature(p.log(), value).softmax(-1), wanted)


@pytest.mark.parametrize("value", [1e-3, 1e-30, 5e-324])
def test_the_coldest_temperature_is_greedy_and_finite(value: float) -> None:
    x = torch.tensor([[80.0, 79.0, -80.0]])
    assert temperature(x, value).softmax(-1).tolist() == [[1.0, 0.0, 0.0]]


def test_top_k_keeps_exactly_k_and_the_lower_number_of_equals() -> None:
    x = torch.tensor([[2.0, 3.0, 2.0, 1.0, 2.0]])
    assert [kept(top_k(x, k)) for k in (1, 2, 3, 4, 5, 9)] == [
        [1], [0, 1], [0, 1, 2], [0, 1, 2, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4],
    ]  # fmt: skip


def test_of_many_equals_the_lowest_numbers_stay() -> None:
    x = torch.randint(3, (1, 5003), generator=Generator().manual_seed(1)).double()
    order = sorted(range(5003), key=lambda i: (-x[0, i].item(), i))
    for count in (700, 2500, 4001):
        assert kept(top_k(x, count)) == sorted(order[:count])


def test_top_p_keeps_the_smallest_nucleus() -> None:
    x = logits_of(0.125, 0.5, 0.125, 0.25)
    wanted = {0.01: [1], 0.5: [1], 0.51: [1, 3], 0.75: [1, 3], 0.76: [0, 1, 3], 0.9: [0, 1, 2, 3], 1.0: [0, 1, 2, 3]}
    assert {mass: kept(top_p(x, mass)) for mass in wanted} == wanted


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=11),
    st.floats(0.01, 1.0),
)
def test_top_p_is_its_definition(counts: list[int], mass: float) -> None:
    total = sum(counts)
    order = sorted(range(len(counts)), key=lambda i: (-counts[i], i))
    wanted, before = set(), 0
    for i in order:
        if before / total < mass - 1e-9:
            wanted.add(i)
        elif before / total < mass + 1e-9:
            return  # on the edge, where rounding decides
        before += counts[i]
    assert set(kept(top_p(logits_of(*(n / total for n in counts)), mass))) == wanted


def test_min_p_keeps_what_is_near_the_best() -> None:
    x = logits_of(0.5, 0.3, 0.15, 0.05)
    wanted = {0.0: [0, 1, 2, 3], 0.09: [0, 1, 2, 3], 0.11: [0, 1, 2], 0.31: [0, 1], 0.61: [0], 1.0: [0]}
    assert {share: kept(min_p(x, share)) for share in wanted} == wanted
    assert kept(min_p(torch.tensor([[1.0, 2.0, 2.0]]), 1.0)) == [1, 2]


def test_cuts_leave_what_they_keep_as_it_was() -> None:
    x = torch.randn(3, 17)
    for cut in (top_k(x, 5), top_p(x, 0.6), min_p(x, 0.2)):
        stay = cut > -INF
        assert torch.equal(cut[stay], x[stay])
        assert 1 <= int(stay.sum(-1).min()) < 17


def test_the_repetition_penalty_makes_seen_tokens_less_probable() -> None:
    x = torch.tensor([[3.0, -3.0, 0.0, 3.0, -3.0]])
    seen = torch.tensor([[True, True, True, False, False]])
    assert repetition_penalty(x, seen, 2.0).tolist() == [[1.5, -6.0, 0.0, 3.0, -3.0]]
    assert repetition_penalty(x, seen, 0.5).tolist() == [[6.0, -1.5, 0.0, 3.0, -3.0]]


def test_the_steps_come_in_their_order() -> None:
    x = torch.randn(3, 19)
    seen = torch.rand(3, 19) < 0.3
    sampling = Sampling(temperature=0.7, top_k=11, top_p=0.8, min_p=0.05, repetition_penalty=1.3)
    wanted = min_p(top_p(top_k(temperature(repetition_penalty(x.double(), seen, 1.3), 0.7), 11), 0.8), 0.05)
    assert torch.equal(sampling.logits(x, seen), wanted)
    assert torch.equal(Sampling().logits(x, seen), x.double())


def test_greedy_still_minds_the_penalty() -> None:
    x = torch.tensor([[3.0, 2.0]])
    seen = torch.tensor([[True, False]])
    assert Sampling(temperature=0, repetition_penalty=2.0).choose(x, seen, []).tolist() == [1]
    assert Sampling(temperature=0).choose(x, seen, []).tolist() == [0]


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.6), Sampling(top_k=3), Sampling(top_p=0.7), Sampling(min_p=0.4)]
)
def test_draws_have_the_exact_frequencies(sampling: Sampling) -> None:
    count, x = 20011, logits_of(0.05, 0.4, 0.25, 0.0, 0.3)
    rows = x.expand(count, -1)
    exact = sampling.logits(x, unseen(x)).softmax(-1)[0]
    generator = Generator().manual_seed(11)
    found = sampling.choose(rows, unseen(rows), [generator] * count)
    frequencies = torch.bincount(found, minlength=5) / count
    # Five standard deviations of a binomial share.
    assert bool(((frequencies - exact).abs() <= 5 * (exact * (1 - exact) / count).sqrt()).all())
    assert frequencies[3] == 0


def test_a_draw_is_the_inverse_of_the_cumulative_distribution() -> None:
    x = logits_of(0.2, 0.0, 0.5, 0.3).expand(97, -1)
    drawn = draw(x, generators(97))
    numbers = [torch.rand((), generator=g, dtype=torch.float64).item() for g in generators(97)]
    assert drawn.tolist() == [0 if u < 0.2 else 2 if u < 0.7 else 3 for u in numbers]


def test_a_row_draws_the_same_alone_and_in_company() -> None:
    x = torch.randn(5, 23)
    together = draw(x, generators(5))
    alone = [draw(x[b : b + 1], [generators(5)[b]]).item() for b in range(5)]
    assert together.tolist() == alone


def test_extreme_logits_are_drawn_from() -> None:
    x = torch.tensor([[1e30, -1e30, 0.0], [-INF, -INF, -5.0]])
    for sampling in (Sampling(), Sampling(temperature=1e-9), Sampling(top_k=2, top_p=0.5, min_p=0.5)):
        assert sampling.choose(x, unseen(x), generators(2)).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "`temperature`: expected a finite number >= 0.0, got -0.1"),
        ({"temperature": float("nan")}, "`temperature`: expected a finite number >= 0.0, got nan"),
        ({"temperature": "hot"}, "`temperature`: expected a finite number >= 0.0, got str 'hot'"),
        ({"top_k": 0}, "`top_k`: expected an integer >= 1, got 0"),
        ({"top_k": 2.5}, "`top_k`: expected an integer >= 1, got 2.5"),
        ({"top_p": 0.0}, "`top_p`: expected a number above 0 and at most 1, got 0.0"),
        ({"top_p": 1.1}, "`top_p`: expected a number above 0 and at most 1, got 1.1"),
        ({"min_p": -0.1}, "`min_p`: expected a number from 0 to 1, got -0.1"),
        ({"min_p": 1.1}, "`min_p`: expected a number from 0 to 1, got 1.1"),
        ({"repetition_penalty": 0.0}, "`repetition_penalty`: expected a number from 0.001 to 1000, got 0.0"),
    ],
)
def test_what_cannot_be_meant_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}$"):
        Sampling(**values)  # type: ignore[arg-type]
