"""The rows of `mmha bench`: told apart, in groups, and those that issue 3 and the design speak of."""

from __future__ import annotations

from itertools import groupby
from typing import get_args

import pytest

from mmha.bench import measure, patterns, table
from mmha.bench.cases import DType, Family, Kind, Sizes, select
from mmha.bench.decode import read_bytes
from mmha.bench.table import CASES


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_rows_of_a_group_stand_together() -> None:
    groups = [group for group, _ in groupby(CASES, lambda case: case.group)]
    assert len(groups) == len(set(groups))
    assert [family for family, _ in groupby(groups, lambda group: group[0])] == list(get_args(Family))


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_has_a_row_and_a_way_to_be_built(kind: Kind) -> None:
    assert any(case.kind == kind for case in CASES)
    assert kind in measure.BUILDERS or kind in patterns.PATTERNS


@pytest.mark.parametrize(
    ("words", "aim"),
    [
        ("forward dense 4096 f32", 1.4),
        ("forward causal 512 f32", 2.4),
        ("forward dense 2048 bf16", 2.6),
        ("forward causal 4096 bf16", 2.65),
        ("forward documents 2048 bf16", 16.0),
        ("backward causal 4096 bf16", 1.8),
        ("training dropout 2048", 10.0),
        ("call forward dense 16", 0.5),
    ],
)
def test_aims_are_those_of_the_design(words: str, aim: float) -> None:
    assert [case.aim for case in select(words, CASES)] == [aim]


def test_a_small_call_has_one_thread_and_other_rows_those_of_the_run() -> None:
    assert {(case.family == "call", case.threads) for case in CASES} == {(True, 1), (False, 0)}


def test_quick_rows_are_a_part_that_costs_little() -> None:
    chosen = table.quick()
    assert set(chosen) < set(CASES)
    assert {case.family for case in chosen} == set(get_args(Family))
    assert max(case.flop(case.sizes.pairs) for case in chosen) <= table.QUICK_FLOP
    assert {case.dtype for case in chosen} == set(get_args(DType))


def test_a_cache_meets_torch_in_every_format() -> None:
    shapes: dict[DType, list[Sizes]] = {dtype: [] for dtype in get_args(DType)}
    for case in select("decode token", CASES):
        shapes[case.dtype].append(case.sizes)
    assert shapes["f32"] == shapes["bf16"] == shapes["f16"] == shapes["i8"]
    assert {size.q_len for size in shapes["f32"]} == {1}


def test_a_share_of_the_read_bandwidth_is_asked_of_what_no_cache_holds() -> None:
    asked = [case for case in CASES if case.least_share]
    assert {case.least_share for case in asked} == {0.8}
    assert {(case.kind, case.unit) for case in asked} == {("token", "GB/s")}
    assert {case.dtype for case in asked} == {"f32", "bf16"}
    assert min(read_bytes(case) for case in asked) >= 2**24
