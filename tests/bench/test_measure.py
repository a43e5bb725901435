"""Measuring: turns are taken, results are compared first, threads are put back."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from mmha.bench import measure
from mmha.bench.cases import Case, Direction, Kind


@pytest.mark.parametrize("direction", get_args(Direction))
@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_of_row_agrees_with_torch(direction: Direction, kind: Kind, isa: str) -> None:
    case = Case(direction, kind, 263, aim=1.0, head_dim=29)
    row = measure.measure(case, threads=2, seconds=0.0)
    assert row.difference < 2e-6
    assert row.rounds == len(row.torch_ms) == measure.MIN_ROUNDS
    mask = case.mask()
    assert row.pairs == 8 * (263 * 263 if mask is None else int(mask.dense(1, 1, 263, 263).sum()))
    assert row.limit > 0


def test_the_best_limit_so_far_counts() -> None:
    case = Case("forward", "causal", 7, aim=1.0, head_dim=5)
    assert measure.measure(case, threads=1, seconds=0.0, limit=1e9).limit == 1e9


def test_figures_follow_from_medians() -> None:
    case = Case("forward", "causal", 7, aim=1.0, head_dim=5)
    row = measure.Row(
        case, pairs=1_000_000, limit=40.0, torch_ms=[9.0, 3.0, 5.0], mmha_ms=[1.0, 4.0, 2.0], difference=0.0
    )
    assert (row.torch_median, row.mmha_median, row.ratio) == (5.0, 2.0, 2.5)
    assert row.gflops == pytest.approx(4 * 5 * 1e6 / 2e-3 / 1e9)
    assert row.share == pytest.approx(row.gflops / 40.0)


def test_interleave_swaps_the_order_each_round() -> None:
    calls: list[str] = []
    first, second = measure.interleave(lambda: call(calls, "a"), lambda: call(calls, "b"), seconds=0.0)
    assert "".join(calls) == "abbaabbaab"
    assert len(first) == len(second) == measure.MIN_ROUNDS


def test_interleave_is_bounded() -> None:
    first, second = measure.interleave(tuple, tuple, seconds=60.0)
    assert len(first) == len(second) == measure.MAX_ROUNDS


def call(calls: list[str], name: str) -> tuple[torch.Tensor, ...]:
    calls.append(name)
    return ()


@pytest.mark.parametrize("wrong", [1.0 + 1e-4, float("nan")])
def test_results_that_differ_are_no_figure(wrong: float) -> None:
    right = torch.randn(3, 5)
    case = Case("forward", "causal", 7, aim=1.0)
    with pytest.raises(
        RuntimeError, match=r"forward causal 7 d64: mmha and torch differ by .* relative, allowed 2e-05"
    ):
        measure.compare(case, (right, right * wrong), (right, right))
    assert measure.compare(case, (right,), (right,)) == 0.0


def test_threads_are_put_back_even_after_an_error() -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        with measure.thread_count(before + 1):
            assert torch.get_num_threads() == before + 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before


def test_limits_are_above_what_is_measured_on_memory_and_arithmetic() -> None:
    limits = measure.probe(threads=1)
    assert limits.threads == 1
    assert limits.fma_gflops > 0.5
    assert limits.read_gbs > 0.2
