"""The bits of a result depend on its own head alone: not on the number of threads, the batch, or the place in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmha import reference
from mmha.reference import Dropout, Gradients, Rule

D, DV, RADIUS = 17, 13, 5


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def problem(batch: int, heads: int, kv_heads: int, q_len: int, k_len: int) -> tuple[list[Tensor], Rule]:
    """q, k, v, the gradients of out, lse and weights; and a rule with everything that is not dropout."""
    pairs = (batch, heads, q_len, k_len)
    shapes = ((batch, heads, q_len, D), (batch, kv_heads, k_len, D), (batch, kv_heads, k_len, DV))
    rule = Rule(
        torch.rand(pairs) > 0.3,
        tuple(torch.randn(shape) for shape in ((), (k_len,), (heads, q_len, 1))),
        softcap=2.0,
        sinks=torch.randn(heads),
        slopes=torch.rand(heads) / k_len,
        table=torch.randn(heads, 2 * RADIUS + 1),
    )
    return [torch.randn(shape) for shape in (*shapes, (*pairs[:3], DV), pairs[:3], pairs)], rule


def run(x: list[Tensor], rule: Rule) -> list[Tensor]:
    """out, lse, weights, dq, dk, dv, then what flows back into the rule."""
    *made, added, slopes, table, sinks = reference.gradients(*x[:3], Gradients(*x[3:]), rule)
    results: tuple[Any, ...] = (*reference.attention(*x[:3], rule, return_weights=True), *made)
    return [*results, *(added or ()), slopes, table, sinks]


# One row of many keys (sums that make one number), many rows of one key, and sizes at which BLAS shares out a product.
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1, 1, 70001), (1, 1, 1, 40009, 1), (3, 4, 2, 37, 1031), (1, 4, 4, 257, 509)], ids=str
)
def test_any_number_of_threads(sizes: tuple[int, ...], threads: Callable[[int], None]) -> None:
    x, rule = problem(*sizes)
    rule = replace(rule, dropout=Dropout(0.1, seed=3))
    threads(1)
    wanted = run(x, rule)
    for count in (2, 3, 7):
        threads(count)
        got = run(x, rule)
        assert torch.get_num_threads() == count
        assert [torch.equal(have, want) for have, want in zip(got, wanted, strict=True)] == [True] * len(wanted)


def test_any_place_in_any_batch() -> None:
    x, rule = problem(5, 6, 3, 31, 37)
    visible, starts = rule.visible, torch.tensor([3, -7, 0, 100, 6])
    assert isinstance(visible, Tensor)

    def rows(index: list[int]) -> list[Tensor]:
        return run([t[index] for t in x], replace(rule, visible=visible[index], q_start=starts[index]))[:6]

    whole = rows([0, 1, 2, 3, 4])
    for index in ([0], [3], [4], [2, 2], [4, 0, 3, 1, 2]):
        for have, want in zip(rows(index), whole, strict=True):
            assert torch.equal(have, want[index])
