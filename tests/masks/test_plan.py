"""Plans: what lowering costs in memory, the cache, and the form the kernels get."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

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
    KeyPadding,
    Keys,
    Mask,
    Predicate,
    Prefix,
    QueryPadding,
    StrictCausal,
    Window,
    as_mask,
    unflatten,
)
from mmha.masks.grid import Grid
from mmha.masks.plan import CACHE, _Cache, lower

MILLION = 1_000_000
documents = Documents.from_lengths([997] * 1003 + [9])  # 1,000,000 tokens


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    CACHE.clear()
    yield
    CACHE.clear()


def test_spans_that_touch_are_one() -> None:
    """Also where another row keeps two."""
    plan = (Prefix(3) | Window(2)).plan(1, 1, 7, 601, q_start=0)
    assert [plan.row(i) for i in range(3, 7)] == [[(0, 4)], [(0, 5)], [(0, 6)], [(0, 3), (4, 7)]]


@pytest.mark.parametrize(
    ("mask", "visible"),
    [
        (Full(), MILLION**2),
        (Causal(), MILLION * (MILLION + 1) // 2),
        (StrictCausal(), MILLION * (MILLION - 1) // 2),
        (Causal() & Window(255), MILLION * 256 - 255 * 256 // 2),
        (documents, 1003 * 997**2 + 9**2),
        (Causal() & documents, 1003 * 997 * 998 // 2 + 9 * 10 // 2),
        (Causal() | Prefix(1000), MILLION * (MILLION + 1) // 2 + 1000 * 999 // 2),
        (Causal() & KeyPadding([500_000]), 500_000 * 500_001 // 2 + 500_000**2),
        (Causal() & QueryPadding([500_000]), 500_000 * 500_001 // 2),
        (Chunked(1000) & Causal(), 1000 * 1000 * 1001 // 2),
        (~Causal(), MILLION * (MILLION - 1) // 2),
    ],
    ids=str,
)
def test_a_million_tokens_lower_in_linear_memory(mask: Mask, visible: int) -> None:
    tracemalloc.start()
    plan = mask.plan(1, 1, MILLION, MILLION)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.visible == visible
    assert plan.kind == "spans"
    assert plan.nbytes <= 12 * MILLION  # one span of 8 bytes a row and what the kernels note beside it
    assert peak + plan.nbytes < 100e6


def test_a_sink_beside_a_window_takes_two_spans_a_row() -> None:
    plan = (Causal() & (Window(1023) | Prefix(4))).plan(1, 1, MILLION, MILLION)
    assert plan.row(MILLION - 1) == [(0, 4), (MILLION - 1024, MILLION)]
    assert plan.nbytes <= 28 * MILLION


HOLES = torch.arange(30_011) * 7919 % 30_011  # the numbers below a prime, in disorder
LAYOUT = (HOLES[:307] + HOLES[:307, None]) % 3 == 0


@pytest.mark.parametrize("bound", [Causal() & Window(255), Window(100, 20) | Prefix(4)], ids=str)
@pytest.mark.parametrize(
    ("mask", "seen"),
    [
        (Keys(HOLES > 3000), lambda p, j: HOLES[j] > 3000),
        (Keys(HOLES > 30), lambda p, j: HOLES[j] > 30),
        (Documents(HOLES % 31), lambda p, j: HOLES[j] % 31 == HOLES[p] % 31),
        (Blocks(LAYOUT, 100), lambda p, j: LAYOUT[p // 100, j // 100]),
    ],
    ids=["many holes", "few holes", "documents that are no neighbours", "blocks"],
)
def test_a_window_over_long_rows_costs_the_window(mask: Mask, seen: Callable[..., torch.Tensor], bound: Mask) -> None:
    size = len(HOLES)
    tracemalloc.start()
    plan = (mask & bound).plan(1, 1, size, size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    keys = torch.arange(size)
    assert peak + plan.nbytes < 40e6  # rows of bits would be 113 MB
    for p in (0, 150, 9973, size - 1):
        wanted = seen(p, keys) & bound.dense(1, 1, 1, size, q_start=p)[0, 0, 0]
        again = torch.zeros(size, dtype=torch.bool)
        for start, stop in plan.row(p):
            again[start:stop] = True
        assert torch.equal(again, wanted)


def test_a_bounded_irregular_mask_never_stands_as_a_whole() -> None:
    looked_at = []

    def fn(b: torch.Tensor, h: torch.Tensor, p: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        looked_at.append(p.numel() * j.numel())
        return (p - j) % 7 == 0

    plan = (Predicate(fn) & Causal() & Window(63)).plan(1, 1, 16_411, 16_411)
    assert sum(looked_at) < 16_411 * (256 + 64) + 1  # 256 rows at a time, each 64 keys wide; 1 pair to see the axes
    assert plan.visible == (Dilated(7) & Causal() & Window(63)).plan(1, 1, 16_411, 16_411).visible


def test_a_random_tensor_of_16k_lowers_to_bits() -> None:
    size = 16_384
    seen = torch.randint(0, 2, (size, size), dtype=torch.uint8).view(torch.bool)
    tracemalloc.start()
    plan = as_mask(seen).plan(1, 1, size, size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.kind == "bits"
    assert plan.visible == int(seen.sum())
    assert plan.nbytes < 1.02 * size * size / 8
    assert peak < 200e6  # the tensor itself has 268 MB
    for row in (0, 31, size - 1):
        again = torch.zeros(size, dtype=torch.bool)
        for start, stop in plan.row(row):
            again[start:stop] = True
        assert torch.equal(again, seen[row])


def test_plans_are_cached_by_value() -> None:
    first = (Causal() & KeyPadding([3, 5])).plan(2, 3, 7, 11)
    assert (Causal() & KeyPadding(torch.tensor([3, 5]))).plan(2, 3, 7, 11) is first
    assert (Causal() & KeyPadding([3, 5])).plan(2, 3, 7, 11, 4) is first  # 4 = 11 - 7 is the default
    assert (Causal() & KeyPadding([3, 6])).plan(2, 3, 7, 11) is not first
    assert (Causal() & KeyPadding([3, 5])).plan(2, 3, 7, 11, 3) is not first


def test_a_shared_tensor_is_never_cached() -> None:
    seen = torch.zeros(5, 7, dtype=torch.bool)
    masks = [as_mask(seen), as_mask(seen) & Causal() | ~as_mask(seen), unflatten("Dense($0)", [seen])]
    assert [mask.plan(1, 1, 5, 7).visible for mask in masks] == [0, 35, 0]
    seen[0, 0] = True
    assert [mask.plan(1, 1, 5, 7).visible for mask in masks] == [1, 35, 1]
    assert len(CACHE) == 0
    assert as_mask(Dense(seen)).plan(1, 1, 5, 7) is Dense(seen).plan(1, 1, 5, 7)


def test_the_cache_is_bounded_by_count_and_bytes() -> None:
    def made(size: int) -> tuple[tuple[Mask, Grid], object]:
        grid = Grid.of(1, 1, size, size)
        return (Causal(), grid), lower(Causal(), grid)

    cache = _Cache(count=3, nbytes=10_000)
    for size in (2, 3, 5, 7):
        cache.put(*made(size))
    assert len(cache) == 3
    assert cache.get(made(2)[0]) is None
    assert cache.get(made(3)[0]) is not None  # used now: 5 is the oldest
    cache.put(*made(11))
    assert cache.get(made(5)[0]) is None
    assert cache.get(made(3)[0]) is not None
    cache.put(*made(1000))  # 8000 bytes and more
    assert cache.nbytes <= 10_000
    cache.put(*made(5000))  # larger than the cache: nothing is kept
    assert (len(cache), cache.nbytes) == (0, 0)


def test_rows_outside_are_refused() -> None:
    plan = Causal().plan(2, 3, 5, 7)
    assert plan.row(4, batch=1, head=2) == [(0, 7)]
    for place in ((5, 0, 0), (0, 2, 0), (0, 0, 3), (-1, 0, 0)):
        with pytest.raises(IndexError, match="outside"):
            plan.row(*place)


def test_a_plan_describes_itself() -> None:
    text = repr(Window(0).plan(2, 3, 5, 5))
    assert text.startswith("<Plan batch=2, heads=3, q_len=5, k_len=5: 20.0% visible, ")
    assert text.endswith(" bytes of spans>")


def test_a_mask_of_a_large_tensor_does_not_stay_in_the_cache() -> None:
    cache = _Cache(count=9, nbytes=10_000)
    mask, grid = Dense(torch.ones(7, 2000, dtype=torch.bool)), Grid.of(1, 1, 7, 2000)
    cache.put((mask, grid), lower(mask, grid))  # the plan is small, the tensor has 14,000 bytes
    assert (len(cache), cache.nbytes) == (0, 0)


def test_sizes_of_zero() -> None:
    for mask in (Full(), ~Causal(), Dilated(2), KeyPadding(3), Dense([[True]]), Predicate(lambda b, h, p, j: p > j)):
        for sizes in ((0, 3, 5, 7), (2, 0, 5, 7), (2, 3, 0, 7), (2, 3, 5, 0), (0, 0, 0, 0)):
            plan = mask.plan(*sizes)
            assert (plan.visible, plan.density) == (0, 0.0)
            assert mask.dense(*sizes).shape == sizes


def test_the_default_device_does_not_matter() -> None:
    mask = Causal() & Documents.from_lengths([2, 3]) | Prefix([1, 2]) & Dense([[True]])
    wanted = mask.dense(2, 3, 5, 5)
    torch.set_default_device("meta")
    try:
        assert torch.equal(mask.dense(2, 3, 5, 5), wanted)
        assert (Documents.from_lengths([2, 3]) & KeyPadding([4, 5])).plan(2, 3, 5, 5).visible == 3 * (4 + 6 + 13)
    finally:
        torch.set_default_device(None)


def test_masks_made_in_inference_mode_work_outside() -> None:
    with torch.inference_mode():
        mask = KeyPadding(torch.tensor([1, 2]))
    assert not mask.lengths.is_inference()  # type: ignore[union-attr]


@pytest.mark.parametrize("share", [0.5, 0.002])
@pytest.mark.parametrize("bound", [Window(300, 400), Causal(), Full(), Window(2000) & QueryPadding(1500), ~Full()])
def test_large_tensors_are_lowered_in_blocks(share: float, bound: Mask) -> None:
    size = 2503  # more pairs than one block takes
    seen = torch.rand(size, size) < share
    for mask in (Dense(seen), Predicate(lambda b, h, p, j: seen[p, j])):
        wanted = (mask & bound).dense(1, 1, size, size)
        plan = (mask & bound).plan(1, 1, size, size)
        assert torch.equal(torch.from_numpy(plan.tiles(1, 1) == 2), wanted)
        assert plan.kind == ("bits" if plan.visible > size * 60 else "spans")


def test_one_row_of_documents_under_bounds_that_differ_in_the_batch() -> None:
    mask = KeyPadding([1, 3, 5]) & Documents([2, 1, 1, 1, 1])
    plan = mask.plan(3, 1, 3, 5)
    dense = mask.dense(3, 1, 3, 5)
    for batch in range(3):
        for query in range(3):
            keys = [key for start, stop in plan.row(query, batch) for key in range(start, stop)]
            assert keys == dense[batch, 0, query].nonzero().flatten().tolist()
