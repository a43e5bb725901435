"""Bad input to masks: every message names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

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
    Not,
    PerHead,
    Predicate,
    Prefix,
    Queries,
    QueryPadding,
    Spans,
    Tree,
    Window,
    as_mask,
    from_dense,
    unflatten,
)

CONSTRUCTING: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: Window(-1), ValueError, "`left`: expected an integer >= 0, or None for no bound, got -1"),
    (lambda: Window(2, -3), ValueError, "`right`: expected an integer >= 0, or None for no bound, got -3"),
    (lambda: Window(1.5), TypeError, "`left`: expected an integer >= 0, or None for no bound, got 1.5"),
    (lambda: Window(True), TypeError, "`left`: expected an integer >= 0, or None for no bound, got True"),
    (lambda: Dilated(0), ValueError, "`step`: expected an integer >= 1, got 0"),
    (lambda: Chunked(0), ValueError, "`size`: expected an integer >= 1, got 0"),
    (lambda: Chunked(2**61), ValueError, "`size`: expected an integer within 2**60, got 2305843009213693952"),
    (lambda: Window(2**61), ValueError, "`left`: expected an integer within 2**60, got 2305843009213693952"),
    (lambda: Prefix(-2), ValueError, "`length`: expected an integer >= 0, got -2"),
    (lambda: Prefix(2**61), ValueError, "`length`: expected an integer within 2**60, got 2305843009213693952"),
    (lambda: Prefix([3, -2]), ValueError, "`length`: expected integers >= 0, got -2"),
    (lambda: Prefix(2.0), TypeError, "`length`: expected an int or integers of shape (B,), got 2.0"),
    (
        lambda: KeyPadding(torch.tensor([1.0])),
        TypeError,
        "`lengths`: expected an int or integers of shape (B,), got a float32 tensor of shape (1,)",
    ),
    (
        lambda: KeyPadding(torch.ones(2, 3, dtype=torch.int64)),
        ValueError,
        "`lengths`: expected an int or integers of shape (B,), got shape (2, 3)",
    ),
    (lambda: KeyPadding([4, -1]), ValueError, "`lengths`: expected integers >= 0, got -1"),
    (lambda: KeyPadding.left([-1]), ValueError, "`starts`: expected integers >= 0, got -1"),
    (lambda: QueryPadding("5"), TypeError, "`lengths`: expected an int or integers of shape (B,), got str '5'"),
    (
        lambda: Keys(torch.tensor([1, 0])),
        TypeError,
        "`real`: expected bools of shape (B, T) or (T,), True = real, got an int64 tensor of shape (2,)",
    ),
    (
        lambda: Keys([0, 2]),
        TypeError,
        "`real`: expected bools of shape (B, T) or (T,), True = real, got an int64 tensor of shape (2,)",
    ),
    (
        lambda: Queries(torch.ones(1, 2, 3, dtype=torch.bool)),
        ValueError,
        "`real`: expected bools of shape (B, T) or (T,), got shape (1, 2, 3)",
    ),
    (
        lambda: Documents([[1, 2], [3]]),
        TypeError,
        "`ids`: expected integers of shape (B, T) or (T,), got list [[1, 2], [3]]",
    ),
    (lambda: Documents(7), ValueError, "`ids`: expected integers of shape (B, T) or (T,), got shape ()"),
    (
        lambda: Documents.from_lengths([[2, 2], [3, 2]]),
        ValueError,
        "`lengths`: expected rows of the batch with the same sum, got sums 4, 5",
    ),
    (lambda: Documents.from_lengths([2, -2]), ValueError, "`lengths`: expected integers >= 0, got -2"),
    (
        lambda: Documents.from_lengths(4),
        TypeError,
        "`lengths`: expected a list of integers, or of lists of them, got 4",
    ),
    (
        lambda: Documents.from_lengths([[1, 2], 3]),
        TypeError,
        "`lengths`: expected a list of integers, or of lists of them, got list [[1, 2], 3]",
    ),
    (lambda: Global([3, -1]), ValueError, "`positions`: expected integers >= 0, got -1"),
    (lambda: Global([[1]]), ValueError, "`positions`: expected integers of shape (n,), got shape (1, 1)"),
    (
        lambda: Blocks([1, 0], 2),
        ValueError,
        "`layout`: expected bools of shape (query blocks, key blocks), got shape (2,)",
    ),
    (lambda: Blocks([[1]], 0), ValueError, "`size`: expected an integer >= 1, got 0"),
    (lambda: Tree([0.5]), TypeError, "`parents`: expected integers of shape (n,), got a float32 tensor of shape (1,)"),
    (lambda: Tree([-1, 1]), ValueError, "`parents`: expected parents[1] between -1 and 0, got 1"),
    (lambda: Tree([-1, 0, -2]), ValueError, "`parents`: expected parents[2] between -1 and 1, got -2"),
    (lambda: PerHead([]), ValueError, "`masks`: expected one mask per head, got none"),
    (
        lambda: PerHead([Causal(), 3]),
        TypeError,
        "`masks`: expected a list of masks, one per head, got list [Causal(), 3]",
    ),
    (lambda: PerHead(Causal()), TypeError, "`masks`: expected a list of masks, one per head, got Causal Causal()"),
    (
        lambda: Dense(torch.zeros(2, 2)),
        TypeError,
        "`tensor`: expected a bool tensor broadcastable to (B, H, Tq, Tk), got a float32 tensor of shape (2, 2)",
    ),
    (
        lambda: Dense(torch.ones(1, 1, 1, 2, 2, dtype=torch.bool)),
        ValueError,
        "`tensor`: expected a bool tensor broadcastable to (B, H, Tq, Tk), got shape (1, 1, 1, 2, 2)",
    ),
    (lambda: Predicate(3), TypeError, "`fn`: expected a hashable function of (b, h, p, j), got 3"),
    (lambda: Not(3), TypeError, "`mask`: expected a mask, got 3"),
    (lambda: masks.And(Causal()), ValueError, "`masks`: expected two or more masks for And, got 1"),
    (lambda: masks.Or(Causal(), 3), TypeError, "`masks`: expected masks only, got 3"),
    (
        lambda: Spans([1, 1], [0], []),
        TypeError,
        "`shape`: expected four integers (B or 1, H or 1, Tq, Tk), got list [1, 1]",
    ),
    (lambda: Spans([1, 1, 2, 4], [0, 1], [[0, 1]]), ValueError, "`offsets`: expected shape (R + 1,) = (3,), got (2,)"),
    (
        lambda: Spans([1, 1, 1, 4], [0, 1], [[0, 1, 2]]),
        ValueError,
        "`spans`: expected shape (n, 2) = (1, 2), got (1, 3)",
    ),
    (
        lambda: Spans([1, 1, 1, 4], [0, 2], [[0, 1]]),
        ValueError,
        "`offsets`: expected a rise from 0 to the number of spans, 1, got [0, 2]",
    ),
    (
        lambda: Spans([1, 1, 1, 4], [0, 2], [[0, 2], [2, 3]]),
        ValueError,
        "`spans`: expected runs within 4 keys, sorted and apart in each row, got [[0, 2], [2, 3]]",
    ),
    (
        lambda: Spans([1, 1, 1, 4], [0, 1], [[0, 5]]),
        ValueError,
        "`spans`: expected runs within 4 keys, sorted and apart in each row, got [[0, 5]]",
    ),
    (lambda: from_dense(torch.zeros(2, 2)), TypeError, "`dense`: expected a tensor of bool, got float32"),
    (
        lambda: from_dense(torch.ones(2, dtype=torch.bool)),
        ValueError,
        "`dense`: expected 2 to 4 dimensions, got shape (2,)",
    ),
    (
        lambda: as_mask(torch.zeros(2, 2)),
        TypeError,
        "`mask`: expected a Mask or a bool tensor, got a float32 tensor of shape (2, 2)",
    ),
    (lambda: as_mask("causal"), TypeError, "`mask`: expected a Mask or a bool tensor, got str 'causal'"),
    (lambda: unflatten("Keys($1)", []), ValueError, "`mask`: expected one of 0 tensors at column 6, got '$1'"),
    (
        lambda: unflatten("Predicate(@999999)", []),
        ValueError,
        "`spec`: expected one of the last 1024 predicates of this process (define the function once, outside the "
        "loop), got Predicate(@999999)",
    ),
]


@pytest.mark.parametrize(("make", "kind", "message"), CONSTRUCTING, ids=[case[2][:50] for case in CONSTRUCTING])
def test_message_when_constructing(make: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert str(caught.value) == message


flags = torch.ones(2, 5, dtype=torch.bool)
SIZES = (2, 3, 5, 7)  # B, H, Tq, Tk
FITTING: list[tuple[Mask, object, str]] = [
    (KeyPadding([1, 2, 3]), None, "`lengths`: expected shape (B,) = (2,), got (3,)"),
    (KeyPadding.left([1]), None, "`starts`: expected shape (B,) = (2,), got (1,)"),
    (QueryPadding([1]), None, "`lengths`: expected shape (B,) = (2,), got (1,)"),
    (Prefix([1, 2, 3]), None, "`length`: expected shape (B,) = (2,), got (3,)"),
    (Keys(flags), None, "`real`: expected shape (B, Tk) = (2, 7), got (2, 5)"),
    (Keys(flags[0]), None, "`real`: expected shape (Tk,) = (7,), got (5,)"),
    (Queries(flags[:1]), None, "`real`: expected shape (B, Tq) = (2, 5), got (1, 5)"),
    (Queries(flags[0, :4]), None, "`real`: expected shape (Tq,) = (5,), got (4,)"),
    (Documents([0] * 6), None, "`ids`: expected an id for each of the 7 keys, got 6 ids"),
    (Documents([[0] * 7]), None, "`ids`: expected shape (B, T) = (2, *), got (1, 7)"),
    (Documents([0] * 7), 3, "`ids`: expected an id for each query position 3 to 7, got 7 ids"),
    (Documents([0] * 7), -1, "`ids`: expected an id for each query position -1 to 3, got 7 ids"),
    (Blocks([[1, 1]], 3), None, "`layout`: expected blocks for 7 keys, got (1, 2) blocks of 3"),
    (Blocks([[1, 1, 1]], 3), 0, "`layout`: expected blocks for query positions 0 to 4, got (1, 3) blocks of 3"),
    (Tree([-1] * 8), None, "`parents`: expected at most 7 nodes, one per key, got 8 nodes"),
    (Tree([-1]), 3, "`q_start`: expected query positions below the 7 keys, got position 7"),
    (PerHead([Causal()]), None, "`masks`: expected one mask for each of the 3 heads, got 1"),
    (
        Dense(flags),
        None,
        "`tensor`: expected a shape that broadcasts to (B, H, Tq, Tk) = (2, 3, 5, 7), got (2, 5)",
    ),
    (
        from_dense(flags),
        None,
        "`shape`: expected a shape that broadcasts to (B, H, Tq, Tk) = (2, 3, 5, 7), got (1, 1, 2, 5)",
    ),
    (from_dense(flags[:1, :1]), None, "`shape`: expected (Tq, Tk) = (5, 7), got (1, 1)"),
    (
        Predicate(lambda b, h, p, j: p - j),
        None,
        "`fn`: expected bools from fn(b, h, p, j), got an int64 tensor of shape",
    ),
    (
        Predicate(lambda b, h, p, j: flags),
        None,
        "`fn`: expected a shape from fn that broadcasts to (B, H, rows, keys) =",
    ),
    (Full(), 1.5, "`q_start`: expected None, an int or an int tensor of shape (2,), got 1.5"),
    (Full(), True, "`q_start`: expected an integer, got True"),
    (
        Full(),
        torch.tensor([1.0, 2.0]),
        "`q_start`: expected None, an int or an int tensor of shape (2,), got a float32",
    ),
    (Full(), torch.tensor([1, 2, 3]), "`q_start`: expected shape (B,) = (2,), got (3,)"),
    (Full(), 2**61, "`q_start`: expected an integer within 2**60, got 2305843009213693952"),
]


@pytest.mark.parametrize(("mask", "start", "message"), FITTING, ids=[case[2][:50] for case in FITTING])
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: ~(m | Causal()), lambda m: PerHead([m] * 3)])
def test_message_when_it_does_not_fit(mask: Mask, start: object, message: str, wrap: Callable[[Mask], Mask]) -> None:
    if isinstance(mask, PerHead) and isinstance(wrap(mask), PerHead):
        mask = PerHead([Full(), PerHead([Causal()]), Full()])
    for ask in (wrap(mask).plan, wrap(mask).dense):
        with pytest.raises((ValueError, TypeError)) as caught:
            ask(*SIZES, start)
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((-1, 1, 1, 1), "`batch`: expected an integer >= 0, got -1"),
        ((1, 2.0, 1, 1), "`heads`: expected an integer >= 0, got 2.0"),
        ((1, 1, "3", 1), "`q_len`: expected an integer >= 0, got str '3'"),
        ((1, 1, 1, 2**31), "`k_len`: expected an integer >= 0 and <= 2147483647, got 2147483648"),
    ],
)
def test_message_about_sizes(sizes: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        Causal().plan(*sizes)
    assert str(caught.value) == message


def test_a_plan_larger_than_the_machine_is_refused() -> None:
    with pytest.raises(MemoryError, match=r"`mask`: expected a plan that fits in memory \(.* GB\), got one of .* GB"):
        Dilated(2).plan(1, 1, 4_000_000, 4_000_000)


def test_masks_are_frozen_and_have_no_truth_value() -> None:
    mask = Window(4)
    with pytest.raises(AttributeError, match="Window is a frozen value; `left` cannot be set"):
        mask.left = 5  # type: ignore[misc]
    with pytest.raises(AttributeError, match="Window is a frozen value; `left` cannot be deleted"):
        del mask.left
    with pytest.raises(TypeError, match="a mask has no truth value"):
        _ = Causal() and Window(4)
    with pytest.raises(TypeError, match="unsupported operand"):
        _ = Causal() & 3  # type: ignore[operator]
