"""The rows of the table: their masks, counted in closed form, and their selection."""

from __future__ import annotations

import pytest

from mmha.bench import cases
from mmha.bench.cases import CASES, Case

L = 599


@pytest.mark.parametrize(
    ("kind", "visible"),
    [
        ("causal", L * (L + 1) // 2),
        ("padding", L * (L * 3 // 4)),
        ("window", 256 * L - 256 * 255 // 2),
        ("documents", sum(n * (n + 1) // 2 for n in cases.document_lengths(L))),
    ],
)
def test_masks_show_what_they_are_named_for(kind: cases.Kind, visible: int) -> None:
    mask = cases.build_mask(kind, L)
    assert mask is not None
    assert mask.plan(1, 1, L, L).visible == visible


def test_no_mask_is_none() -> None:
    assert Case("forward", "dense", L, aim=1.0).mask() is None


@pytest.mark.parametrize("length", [29, 2048])
def test_documents_are_uneven_and_fill_the_row(length: int) -> None:
    lengths = cases.document_lengths(length)
    assert sum(lengths) == length
    assert len(lengths) == cases.DOCUMENTS
    assert min(lengths) > 0
    assert len(set(lengths)) > 1
    assert lengths == cases.document_lengths(length)


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_select_keeps_the_order_and_needs_every_word() -> None:
    chosen = cases.select("4096 forward")
    assert chosen == tuple(case for case in CASES if case.direction == "forward" and case.length == 4096)
    assert cases.select("") == CASES


def test_select_says_what_can_be_asked_for() -> None:
    line = r"`filter`: expected words out of: forward backward dense .*got 'widnow'; did you mean 'window'\?"
    with pytest.raises(ValueError, match=line):
        cases.select("widnow 4096")


def test_backward_counts_five_products_and_forward_two() -> None:
    assert Case("forward", "causal", L, aim=1.0, head_dim=17).flop(pairs=11) == 2 * 2 * 17 * 11
    assert Case("backward", "causal", L, aim=1.0, head_dim=17).flop(pairs=11) == 5 * 2 * 17 * 11
