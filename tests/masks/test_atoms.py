"""Every atom against its definition, written here once more for one pair at a time in plain Python."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mmha.masks import (
    Blocks,
    Causal,
    Chunked,
    Dense,
    Dilated,
    Documents,
    Full,
    Global,
    KeyPadding,
    Keys,
    Mask,
    PerHead,
    Predicate,
    Prefix,
    Queries,
    QueryPadding,
    Spans,
    StrictCausal,
    Tree,
    Window,
)

B, H, TQ, TK = 3, 2, 7, 71  # distinct primes; 71 keys are more than a word of bits
generator = torch.Generator().manual_seed(0)
key_flags = torch.rand(B, TK, generator=generator) < 0.5
query_flags = torch.rand(B, TQ, generator=generator) < 0.5
table = torch.rand(B, H, TQ, TK, generator=generator) < 0.5
ids = torch.randint(0, 4, (B, 89), generator=generator)
layout = torch.rand(9, 8, generator=generator) < 0.5
parents = [-1, 0, 1, 0, -1, 4, 2]

Definition = Callable[[int, int, int, int, int], bool]  # (b, h, i, p, j)


def in_tree(b: int, h: int, i: int, p: int, j: int) -> bool:
    base = TK - len(parents)
    if p < base:
        return j <= p
    chain, node = set(), p - base
    while node >= 0:
        chain.add(node + base)
        node = parents[node]
    return j < base or j in chain


ATOMS: list[tuple[Mask, Definition]] = [
    (Full(), lambda b, h, i, p, j: True),
    (Causal(), lambda b, h, i, p, j: j <= p),
    (StrictCausal(), lambda b, h, i, p, j: j < p),
    (Window(3), lambda b, h, i, p, j: p - 3 <= j <= p),
    (Window(3, 2), lambda b, h, i, p, j: p - 3 <= j <= p + 2),
    (Window(None, 2), lambda b, h, i, p, j: j <= p + 2),
    (Window(3, None), lambda b, h, i, p, j: p - 3 <= j),
    (Window(None, None), lambda b, h, i, p, j: True),
    (Dilated(1), lambda b, h, i, p, j: True),
    (Dilated(3), lambda b, h, i, p, j: (p - j) % 3 == 0),
    (Dilated(1000), lambda b, h, i, p, j: (p - j) % 1000 == 0),
    (Chunked(5), lambda b, h, i, p, j: p // 5 == j // 5),
    (Prefix(4), lambda b, h, i, p, j: j < 4),
    (Prefix([0, 4, 99]), lambda b, h, i, p, j: j < (0, 4, 99)[b]),
    (KeyPadding([0, 4, 99]), lambda b, h, i, p, j: j < (0, 4, 99)[b]),
    (KeyPadding(5), lambda b, h, i, p, j: j < 5),
    (KeyPadding.left([0, 4, 99]), lambda b, h, i, p, j: j >= (0, 4, 99)[b]),
    (Keys(key_flags), lambda b, h, i, p, j: bool(key_flags[b, j])),
    (Keys(key_flags[0]), lambda b, h, i, p, j: bool(key_flags[0, j])),
    (Queries(query_flags), lambda b, h, i, p, j: bool(query_flags[b, i])),
    (Queries(query_flags[1]), lambda b, h, i, p, j: bool(query_flags[1, i])),
    (QueryPadding([3, 66, 99]), lambda b, h, i, p, j: p < (3, 66, 99)[b]),
    (Global([2, 3, 65, 88]), lambda b, h, i, p, j: p in (2, 3, 65, 88) or j in (2, 3, 65, 88)),
    (Global([]), lambda b, h, i, p, j: False),
    (PerHead([Causal(), Window(2)]), lambda b, h, i, p, j: j <= p and (h == 0 or p - 2 <= j)),
    (PerHead([Dense(table), ~Dense(table)]), lambda b, h, i, p, j: bool(table[b, h, i, j]) != (h == 1)),
    (Dense(table), lambda b, h, i, p, j: bool(table[b, h, i, j])),
    (Dense(table[:, :1, :, :1]), lambda b, h, i, p, j: bool(table[b, 0, i, 0])),
    (Dense(table[0, 0]), lambda b, h, i, p, j: bool(table[0, 0, i, j])),
    (Dense(table[0, 0, 0]), lambda b, h, i, p, j: bool(table[0, 0, 0, j])),
    (Predicate(lambda b, h, p, j: (b + 2 * h + p * j) % 3 == 0), lambda b, h, i, p, j: (b + 2 * h + p * j) % 3 == 0),
    (Predicate(lambda b, h, p, j: True), lambda b, h, i, p, j: True),
    (Spans([1, 1, TQ, TK], range(8), [[3, 5]] * TQ), lambda b, h, i, p, j: 3 <= j < 5),
]
COVERED: list[tuple[Mask, Definition]] = [  # these must know every position asked for
    (Documents(ids), lambda b, h, i, p, j: bool(ids[b, p] == ids[b, j])),
    (Documents(ids[0]), lambda b, h, i, p, j: bool(ids[0, p] == ids[0, j])),
    (Documents.from_lengths([10, 0, 50, 29]), lambda b, h, i, p, j: (p < 10, p < 60) == (j < 10, j < 60)),
    (Blocks(layout, 9), lambda b, h, i, p, j: bool(layout[p // 9, j // 9])),
]
TREES: list[tuple[Mask, Definition]] = [
    (Tree(parents), in_tree),
    (Tree([]), lambda b, h, i, p, j: j <= p),
    (Tree(list(range(-1, TK - 1))), lambda b, h, i, p, j: j <= p),
]
ANYWHERE = [None, 0, 60, -4, 100, (0, 64, 31), (-9, 68, 200)]
KNOWN = [None, 0, 31, (0, 64, 31)]
INSIDE = [None, 0, 31, -4, (0, 64, -31)]


def cases() -> list[tuple[Mask, Definition, object]]:
    groups = ((ATOMS, ANYWHERE), (COVERED, KNOWN), (TREES, INSIDE))
    return [(*atom, start) for atoms, starts in groups for atom in atoms for start in starts]


def name(value: object) -> str:
    return "" if callable(value) else str(value)[:30]


@pytest.mark.parametrize(("mask", "holds", "start"), cases(), ids=name)
def test_atom_is_its_definition(mask: Mask, holds: Definition, start: int | tuple[int, ...] | None) -> None:
    starts = start if isinstance(start, tuple) else (TK - TQ if start is None else start,) * B
    wanted = torch.zeros((B, H, TQ, TK), dtype=torch.bool)
    for b, h, i, j in np.ndindex(*wanted.shape):
        wanted[b, h, i, j] = holds(b, h, i, starts[b] + i, j)
    given = torch.tensor(start, dtype=torch.int32) if isinstance(start, tuple) else start
    assert torch.equal(mask.dense(B, H, TQ, TK, given), wanted)
    plan = mask.plan(B, H, TQ, TK, given)
    assert torch.equal(torch.from_numpy(plan.tiles(1, 1) == 2).expand(B, H, TQ, TK), wanted)
    assert plan.visible == int(wanted.sum())


def test_plans_stay_as_small_as_what_they_depend_on() -> None:
    for mask, batch, heads in [
        (Causal() & Documents(ids[0]), 1, 1),
        (KeyPadding([1, 2, 3]), B, 1),
        (PerHead([Causal(), Full()]), 1, H),
        (PerHead([Causal(), Full()]) & KeyPadding([1, 2, 3]), B, H),
        (Predicate(lambda b, h, p, j: p > j), 1, 1),
        (Predicate(lambda b, h, p, j: p > j + h), 1, H),
        (Dense(table[:, :1]), B, 1),
    ]:
        native = mask.plan(B, H, TQ, TK).native
        assert (native.batch, native.heads) == (batch, heads), mask
    assert Causal().plan(B, H, TQ, TK, torch.tensor([4, 4, 4])).native.batch == 1
    assert Causal().plan(B, H, TQ, TK, torch.tensor([4, 4, 5])).native.batch == B


def test_the_smaller_form_is_chosen() -> None:
    assert (Causal() & Window(4)).plan(1, 1, 512, 512).kind == "spans"
    assert Dense(torch.rand(512, 512) < 0.5).plan(1, 1, 512, 512).kind == "bits"
    assert Dilated(2).plan(1, 1, 512, 512).kind == "bits"
    assert Dilated(128).plan(1, 1, 512, 512).kind == "spans"
    assert (Dilated(2) & Window(8)).plan(1, 1, 512, 512).kind == "spans"
    assert (Dense(torch.rand(512, 512) < 0.5) & Window(8)).plan(1, 1, 512, 512).kind == "spans"
    assert Blocks(torch.eye(4, dtype=torch.bool), 128).plan(1, 1, 512, 512).kind == "spans"
    assert Blocks(torch.rand(512, 512) < 0.5, 1).plan(1, 1, 512, 512).kind == "bits"


def test_documents_from_lengths_of_a_batch() -> None:
    assert Documents.from_lengths([[1, 2], [3, 0]]) == Documents([[0, 1, 1], [0, 0, 0]])
    assert Documents.from_lengths(torch.tensor([[1, 2], [3, 0]])) == Documents([[0, 1, 1], [0, 0, 0]])
    assert Documents.from_lengths([]) == Documents([])


def test_a_mask_keeps_its_own_copy() -> None:
    lengths = torch.tensor([1, 2, 3])
    mask = KeyPadding(lengths)
    before = mask.plan(B, H, TQ, TK).visible
    lengths += 5
    assert mask == KeyPadding([1, 2, 3])
    assert mask.plan(B, H, TQ, TK).visible == before == H * TQ * 6


def test_queries_of_a_document_without_keys_see_nothing() -> None:
    mask = Documents([0, 2, 1, 5, 0])
    plan = mask.plan(1, 1, 5, 2, 0)
    assert [plan.row(i) for i in range(5)] == [[(0, 1)], [(1, 2)], [], [], [(0, 1)]]
    assert plan.visible == int(mask.dense(1, 1, 5, 2, 0).sum())


def test_neighbouring_global_positions_are_one_span() -> None:
    plan = Global([5, 2, 3, 2, 9]).plan(1, 1, 7, 7)
    assert plan.row(0) == [(2, 4), (5, 6)]
    assert plan.row(3) == [(0, 7)]
