"""Properties of all masks and their algebra, drawn at random and judged by dense evaluation of the definitions."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmha import masks
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
    Plan,
    Predicate,
    Prefix,
    Queries,
    QueryPadding,
    StrictCausal,
    Tree,
    Window,
)

quiet = [HealthCheck.too_slow, HealthCheck.data_too_large]
checked = partial(settings, deadline=None, derandomize=True, database=None, suppress_health_check=quiet)


@dataclass(frozen=True)
class Sizes:
    batch: int
    heads: int
    q_len: int
    k_len: int
    start: int | tuple[int, ...] | None

    def args(self) -> tuple[int, int, int, int, int | torch.Tensor | None]:
        start = torch.tensor(self.start) if isinstance(self.start, tuple) else self.start
        return self.batch, self.heads, self.q_len, self.k_len, start

    def positions(self) -> list[int]:
        first = self.start if self.start is not None else self.k_len - self.q_len
        starts = first if isinstance(first, tuple) else (first,)
        return [start + i for start in starts for i in range(self.q_len)]


def lists(values: st.SearchStrategy, length: int) -> st.SearchStrategy:
    return st.lists(values, min_size=length, max_size=length)


@st.composite
def sizes(draw: st.DrawFn) -> Sizes:
    batch, heads = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2, 5]))
    q_len, k_len = draw(st.sampled_from([0, 1, 2, 7, 11])), draw(st.sampled_from([0, 1, 3, 13, 67, 131]))
    one = st.integers(-5, k_len + 3)
    start = draw(st.none() | one | st.tuples(*[one] * batch))
    return Sizes(batch, heads, q_len, k_len, start)


@st.composite
def trees(draw: st.DrawFn, most: int) -> Tree:
    count = draw(st.integers(0, min(most, 9)))
    return Tree([draw(st.integers(-1, node - 1)) for node in range(count)])


def table_masks(size: Sizes) -> list[st.SearchStrategy[Mask]]:
    """Masks that need positions within what they know."""
    places = size.positions() or [0]
    found: list[st.SearchStrategy[Mask]] = []
    reach = max(max(places) + 1, size.k_len, 1)
    if min(places) >= 0:
        ids = lists(st.integers(-1, 3), reach)
        ids = ids | ids.map(sorted)  # packings that never fall are lowered another way
        found.append(st.builds(Documents, ids) | st.builds(Documents, lists(ids, size.batch)))
        for side in (1, 3, 64):
            blocks = -(-reach // side)
            layout = lists(lists(st.booleans(), blocks), blocks)
            found.append(st.builds(Blocks, layout, st.just(side)) if blocks < 30 else st.just(Full()))
    if max(places) < size.k_len:
        found.append(trees(size.k_len))
    return found


def atoms(size: Sizes) -> st.SearchStrategy[Mask]:
    near, flags = st.none() | st.integers(0, 9), st.booleans()
    lengths = st.integers(0, size.k_len + 2) | lists(st.integers(0, size.k_len + 2), size.batch)
    shape = st.tuples(*[st.sampled_from([1, n]) for n in (size.batch, size.heads, size.q_len, size.k_len)])
    return st.one_of(
        st.just(Full()), st.just(Causal()), st.just(StrictCausal()), st.builds(Window, near, near),
        st.builds(Dilated, st.integers(1, 5) | st.just(80)), st.builds(Chunked, st.integers(1, 70)),
        st.builds(Prefix, lengths), st.builds(KeyPadding, lengths), st.builds(KeyPadding.left, lengths),
        st.builds(QueryPadding, lengths), st.builds(Keys, lists(flags, size.k_len)),
        st.builds(Keys, lists(lists(flags, size.k_len), size.batch)),
        st.builds(Queries, lists(lists(flags, size.q_len), size.batch)),
        st.builds(Global, st.lists(st.integers(0, size.k_len + 3), max_size=5)),
        st.builds(dense, shape, st.integers(0, 99), st.sampled_from([0.1, 0.5, 0.95])),
        st.builds(predicate, st.integers(2, 5), st.sampled_from("bhpj")), *table_masks(size),
    )  # fmt: skip


def dense(shape: tuple[int, ...], seed: int, share: float) -> Dense:
    return Dense(torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share)


def predicate(step: int, axes: str) -> Predicate:
    return Predicate(lambda b, h, p, j: (dict(zip("bhpj", (b, h, p, j), strict=True))[axes] + 2 * j) % step == 0)


@st.composite
def cases(draw: st.DrawFn, count: int = 1) -> tuple[Sizes, list[Mask]]:
    size = draw(sizes())
    base = atoms(size)
    heads = lists(base, size.heads).map(PerHead)
    any_mask = st.recursive(
        base | heads,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
            st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
            inner.map(lambda one: ~one),
        ),
        max_leaves=5,
    )
    return size, draw(lists(any_mask, count))


def seen(plan: Plan) -> torch.Tensor:
    """The plan written out, pair by pair, from the spans of its rows."""
    out = torch.zeros((plan.batch, plan.heads, plan.q_len, plan.k_len), dtype=torch.bool)
    for b, h, i in np.ndindex(*out.shape[:3]):
        for start, stop in plan.row(i, b, h):
            assert 0 <= start < stop <= plan.k_len
            assert not out[b, h, i, max(start - 1, 0) : stop].any(), "spans are sorted, apart and disjoint"
            out[b, h, i, start:stop] = True
    return out


@given(cases())
@checked(max_examples=200)
def test_plan_agrees_with_the_definition(case: tuple[Sizes, list[Mask]]) -> None:
    size, (mask,) = case
    plan, wanted = mask.plan(*size.args()), mask.dense(*size.args())
    assert torch.equal(seen(plan), wanted)
    assert plan.visible == int(wanted.sum())
    assert plan.density == pytest.approx(wanted.float().mean().item() if wanted.numel() else 0.0)
    assert (plan.batch, plan.heads, plan.q_len, plan.k_len) == wanted.shape


@given(cases())
@checked(max_examples=60)
def test_tiles_say_empty_mixed_and_full(case: tuple[Sizes, list[Mask]]) -> None:
    size, (mask,) = case
    wanted = mask.dense(*size.args())
    tiles = torch.from_numpy(mask.plan(*size.args()).tiles(3, 5)).expand(size.batch, size.heads, -1, -1)
    assert tiles.shape[2:] == (-(-size.q_len // 3), -(-size.k_len // 5))
    for b, h, q, k in np.ndindex(*tiles.shape):
        part = wanted[b, h, 3 * q : 3 * q + 3, 5 * k : 5 * k + 5]
        assert tiles[b, h, q, k] == (2 if part.all() else 1 if part.any() else 0)


def same(size: Sizes, a: Mask, b: Mask) -> None:
    wanted = a.dense(*size.args())
    assert torch.equal(b.dense(*size.args()), wanted)
    for mask in (a, b):
        tiles = torch.from_numpy(mask.plan(*size.args()).tiles(1, 1))
        assert torch.equal((tiles == 2).expand(wanted.shape), wanted)


@given(cases(3))
@checked(max_examples=40)
def test_laws_of_the_algebra(case: tuple[Sizes, list[Mask]]) -> None:
    size, (a, b, c) = case
    x, y, z = (mask.dense(*size.args()) for mask in (a, b, c))
    assert torch.equal((a & b).dense(*size.args()), x & y)
    assert torch.equal((a | b).dense(*size.args()), x | y)
    assert torch.equal((~a).dense(*size.args()), ~x)
    assert torch.equal(((a | b) & ~c).dense(*size.args()), (x | y) & ~z)
    same(size, a & b, b & a)
    same(size, a | b, b | a)
    same(size, (a & b) & c, a & (b & c))
    same(size, (a | b) | c, a | (b | c))
    same(size, a & (b | c), (a & b) | (a & c))
    same(size, a | (b & c), (a | b) & (a | c))
    same(size, ~(a & b), ~a | ~b)
    same(size, ~(a | b), ~a & ~b)
    same(size, ~~a, a)
    same(size, a & Full(), a)
    same(size, a | ~a, Full())


@given(cases(2))
@checked(max_examples=40)
def test_equality_hash_and_text(case: tuple[Sizes, list[Mask]]) -> None:
    _, (a, b) = case
    again = masks.unflatten(*a.flatten())
    assert again == a
    assert hash(again) == hash(a)
    assert again.flatten()[0] == a.flatten()[0]
    assert (a == b) == (a.flatten()[0] == b.flatten()[0] and all(map(torch.equal, a.flatten()[1], b.flatten()[1])))
    if "<" not in repr(a):
        assert eval(repr(a), vars(masks).copy()) == a
        assert masks.parse(repr(a)) == a
    if "Predicate" not in repr(a):
        assert pickle.loads(pickle.dumps(a)) == a


@given(cases())
@checked(max_examples=60)
def test_from_dense_is_the_same_mask(case: tuple[Sizes, list[Mask]]) -> None:
    size, (mask,) = case
    wanted = mask.dense(*size.args())
    again = masks.from_dense(wanted)
    assert torch.equal(again.dense(*size.args()), wanted)
    assert torch.equal(seen(again.plan(*size.args())), wanted)
