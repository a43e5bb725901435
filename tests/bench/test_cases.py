"""What a row is: its name, its sizes, its work, and how rows are picked by words."""

from __future__ import annotations

import pytest

from mmha.bench import cases
from mmha.bench.cases import Case, sizes
from mmha.bench.table import CASES


def case(direction: cases.Direction, dim: int = 17) -> Case:
    return Case("masks", direction, "causal", sizes(599, dim=dim), aim=1.0)


def test_sizes_are_those_of_most_rows_unless_said() -> None:
    assert sizes(599) == cases.Sizes(batch=1, heads=8, kv_heads=8, q_len=599, k_len=599, dim=64)
    said = sizes(599, q_len=7, batch=3, heads=10, kv_heads=5, dim=29)
    assert said == cases.Sizes(batch=3, heads=10, kv_heads=5, q_len=7, k_len=599, dim=29)
    assert said.pairs == 3 * 10 * 7 * 599


def test_a_name_says_everything_that_tells_rows_apart() -> None:
    row = Case("shapes", "recorded", "tree", sizes(599, q_len=7, heads=10, kv_heads=5), aim=1.0, dtype="bf16")
    assert row.name == "shapes recorded tree 7x599 bf16 1x10/5 d64"
    assert row.heading == "short, few and odd shapes: recorded"
    assert row.group == ("shapes", "recorded", "GFLOP/s")


def test_what_reads_more_than_it_computes_is_counted_in_bytes() -> None:
    token, prefill = (Case("decode", "forward", kind, sizes(599, q_len=7), aim=1.0) for kind in ("token", "prefill"))
    assert (token.unit, prefill.unit) == ("GB/s", "GFLOP/s")
    assert (token.heading, prefill.heading) == ("decode from a cache: forward, GB/s", "decode from a cache: forward")
    assert token.group != prefill.group


@pytest.mark.parametrize(("direction", "products"), [("forward", 2), ("recorded", 2), ("backward", 5), ("training", 7)])
def test_work_is_counted_in_products(direction: cases.Direction, products: int) -> None:
    assert case(direction).flop(pairs=11) == products * 2 * 17 * 11


def test_select_keeps_the_order_and_needs_every_word() -> None:
    chosen = cases.select("4096 forward", CASES)
    assert chosen == tuple(row for row in CASES if row.direction == "forward" and row.sizes.length_text == "4096")
    assert cases.select("", CASES) == CASES


def test_a_word_may_be_the_beginning_of_one_but_not_its_middle() -> None:
    assert {row.kind for row in cases.select("DOC", CASES)} == {"documents"}
    assert {row.dtype for row in cases.select("f16", CASES)} == {"f16"}
    assert {row.kind for row in cases.select("b forward f32", CASES)} == {"bigbird", "blocks"}


def test_a_word_that_is_there_means_itself_alone() -> None:
    assert {row.sizes.heads_text for row in cases.select("1x8", CASES)} == {"1x8"}  # not 1x8/2 as well
    assert {row.sizes.length_text for row in cases.select("16", CASES)} == {"16"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("widnow 4096", r"`filter`: expected words out of: masks features .*got 'widnow'; did you mean 'window'\?"),
        ("bfloat16", r"`filter`: expected words out of: .*got 'bfloat16'; did you mean 'bf16'\?"),
        ("dropout bf16", r"`filter`: expected words that stand together in a row of mmha bench, got 'dropout bf16'"),
    ],
)
def test_select_says_what_can_be_asked_for(words: str, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        cases.select(words, CASES)
