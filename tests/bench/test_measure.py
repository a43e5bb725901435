"""Measuring: turns are taken, short ones hold several calls, results are compared first, threads are put back."""

from __future__ import annotations

import statistics
from typing import Literal

import pytest
import torch

from mmha.bench import measure
from mmha.bench.cases import Case, sizes

SMALL = Case("masks", "forward", "causal", sizes(7, dim=5), aim=1.0)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_row_is_compared_and_timed(direction: Literal["forward", "backward"]) -> None:
    case = Case("masks", direction, "window", sizes(263, dim=29), aim=1.0)
    row = measure.measure(case, threads=2, seconds=0.0)
    assert row.difference < 2e-6
    assert row.threads == 2
    assert row.rounds == len(row.torch_ms) == measure.FEWEST_ROUNDS
    assert row.pairs == 8 * (256 * 263 - 256 * 255 // 2)
    assert row.limit > 0


def test_a_case_may_have_its_own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def look(*works: object, seconds: float, calls: int) -> tuple[list[float], list[float]]:
        seen.append(torch.get_num_threads())
        return [1.0], [1.0]

    monkeypatch.setattr(measure, "interleave", look)
    case = Case("call", "forward", "causal", sizes(7, dim=5), aim=1.0, threads=1)
    assert measure.measure(case, threads=2, seconds=0.0).threads == 1
    assert measure.measure(SMALL, threads=2, seconds=0.0).threads == 2
    assert seen == [1, 2]


def test_the_best_limit_so_far_counts() -> None:
    assert measure.measure(SMALL, threads=1, seconds=0.0, limit=1e9).limit == 1e9


def test_figures_follow_from_medians() -> None:
    row = measure.Row(
        SMALL, 2, pairs=1_000_000, limit=40.0, torch_ms=[9.0, 3.0, 5.0], mmha_ms=[1.0, 4.0, 2.0], difference=0.0
    )
    assert (row.torch_median, row.mmha_median, row.ratio) == (5.0, 2.0, 2.5)
    assert row.gflops == pytest.approx(4 * 5 * 1e6 / 2e-3 / 1e9)
    assert row.share == pytest.approx(row.gflops / 40.0)


def test_what_is_bound_by_reading_is_held_against_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "probe_read", lambda threads: 1e6)
    case = Case("decode", "forward", "token", sizes(263, q_len=1, kv_heads=2, dim=32), aim=1.0, dtype="i8")
    row = measure.measure(case, threads=1, seconds=0.0)
    assert row.limit == 1e6
    assert row.read == 2 * 2 * 263 * (32 + 4)
    assert row.rate == pytest.approx(row.read / (row.mmha_median / 1e3) / 1e9)
    assert row.share == pytest.approx(row.rate / 1e6)
    assert row.beyond_part is None


def test_a_step_is_timed_beside_the_attention_in_it() -> None:
    row = measure.measure(Case("decode", "forward", "step", sizes(31, q_len=1, dim=32), aim=1.0), 1, seconds=0.0)
    assert len(row.part_ms) == row.rounds
    assert row.beyond_part == pytest.approx(row.mmha_median - statistics.median(row.part_ms))


def test_interleave_swaps_the_order_each_round() -> None:
    calls: list[str] = []
    first, second = measure.interleave(lambda: call(calls, "a"), lambda: call(calls, "b"), seconds=0.0)
    assert "".join(calls) == "abbaab"
    calls.clear()
    assert len(measure.interleave(*(lambda name=name: call(calls, name) for name in "abc"), seconds=0.0)) == 3
    assert "".join(calls) == "abccbaabc"
    assert len(first) == len(second) == measure.FEWEST_ROUNDS


def test_a_turn_may_be_several_calls_and_tells_the_time_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(measure, "seconds_of", lambda work, count: [work() for _ in range(count)] and 0.006)
    first, second = measure.interleave(lambda: call(calls, "a"), lambda: call(calls, "b"), seconds=0.0, calls=3)
    assert "".join(calls) == "aaabbbbbbaaaaaabbb"
    assert first == second == [pytest.approx(2.0)] * measure.FEWEST_ROUNDS


def test_a_turn_is_long_enough_for_the_clock() -> None:
    calls: list[str] = []
    count = measure.calls_a_turn(lambda: call(calls, "a"))
    assert count > 1
    assert len(calls) == 2 * count - 1  # 1, 2, 4 ... calls were tried
    assert measure.calls_a_turn(lambda: tuple(torch.randn(701, 701) @ torch.randn(701, 701))) == 1


def test_interleave_is_bounded() -> None:
    first, second = measure.interleave(tuple, tuple, seconds=60.0)
    assert len(first) == len(second) == measure.MAX_ROUNDS


def test_a_row_has_some_rounds_more_when_they_are_short() -> None:
    # (rounds, seconds passed) when a row has 2 seconds: 3 rounds whatever they take, 5 within 10 s, more within 2 s.
    due = {(2, 99.0): True, (3, 9.9): True, (3, 10.1): False, (4, 9.9): True, (5, 2.1): False, (5, 1.9): True}
    assert {at: measure.goes_on(*at, seconds=2.0) for at in due} == due


def call(calls: list[str], name: str) -> tuple[torch.Tensor, ...]:
    calls.append(name)
    return ()


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
