"""Bad input to biases: every message names the argument, what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mmha.bias import Additive, ALiBi, Bias, Relative, Sum

VECTOR = "a float tensor of shape (H,), or lists of numbers"
TABLE = "a float tensor of shape (H, 2R + 1), or lists of numbers"
WEIGHT = "a float tensor of shape (num_buckets, H), or lists of numbers"
TERM = "a Bias as a term of a sum (Additive(x) makes one of a tensor)"
one = ALiBi([1.0])


def t5(weight: Any, bidirectional: Any = True, max_distance: Any = 128) -> Relative:
    return Relative.t5(weight, bidirectional=bidirectional, max_distance=max_distance)


CONSTRUCTING: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: ALiBi(0.5), TypeError, f"`slopes`: expected {VECTOR}, got 0.5"),
    (lambda: ALiBi("steep"), TypeError, f"`slopes`: expected {VECTOR}, got str 'steep'"),
    (lambda: ALiBi(["a"]), TypeError, f"`slopes`: expected {VECTOR}, got list ['a']"),
    (lambda: ALiBi(torch.arange(3)), TypeError, f"`slopes`: expected {VECTOR}, got an int64 tensor of shape (3,)"),
    (lambda: ALiBi(torch.ones(3, 1)), ValueError, "`slopes`: expected shape (H,), got (3, 1)"),
    (lambda: ALiBi([1.0, math.nan]), ValueError, "`slopes`: expected finite numbers, got nan among them"),
    (
        lambda: ALiBi(torch.nn.Parameter(torch.ones(2) / 0)),
        ValueError,
        "`slopes`: expected finite numbers, got inf among them",
    ),
    (lambda: ALiBi.standard(0), ValueError, "`heads`: expected an integer >= 1, got 0"),
    (lambda: ALiBi.standard(2.0), TypeError, "`heads`: expected an integer >= 1, got 2.0"),
    (lambda: Relative([[1.0], [1.0, 2.0]]), TypeError, f"`table`: expected {TABLE}, got list [[1.0], [1.0, 2.0]]"),
    (lambda: Relative(None), TypeError, f"`table`: expected {TABLE}, got None"),
    (lambda: Relative(torch.ones(5)), ValueError, "`table`: expected shape (H, 2R + 1), got (5,)"),
    (lambda: Relative(torch.ones(2, 6)), ValueError, "`table`: expected an odd width 2R + 1, got 6"),
    (lambda: Relative([[-math.inf]]), ValueError, "`table`: expected finite numbers, got -inf among them"),
    (lambda: t5(torch.ones(32)), ValueError, "`weight`: expected shape (num_buckets, H), got (32,)"),
    (
        lambda: t5(torch.ones(4, 2).int()),
        TypeError,
        f"`weight`: expected {WEIGHT}, got an int32 tensor of shape (4, 2)",
    ),
    (lambda: t5(torch.ones(3, 2)), ValueError, "`weight`: expected at least 4 buckets (rows), got 3"),
    (lambda: t5(torch.ones(1, 2), False), ValueError, "`weight`: expected at least 2 buckets (rows), got 1"),
    (lambda: t5(torch.ones(8, 2), 1), TypeError, "`bidirectional`: expected True or False, got 1"),
    (lambda: t5(torch.ones(8, 2), True, 2), ValueError, "`max_distance`: expected an integer >= 3, got 2"),
    (
        lambda: Relative.gaussian(torch.nn.Parameter(torch.tensor([1.0, 0.0])), 3),
        ValueError,
        "`sigma`: expected numbers > 0, got 0.0",
    ),
    (lambda: Relative.gaussian(torch.ones(2, 1), 3), ValueError, "`sigma`: expected shape (H,), got (2, 1)"),
    (lambda: Relative.gaussian([1.0], -1), ValueError, "`radius`: expected an integer >= 0, got -1"),
    (
        lambda: Additive(torch.ones(3).bool()),
        TypeError,
        "`tensor`: expected a tensor of float32, bfloat16, float16 or float64, got bool",
    ),
    (
        lambda: Additive(0.5),
        TypeError,
        "`tensor`: expected a tensor of float32, bfloat16, float16 or float64, got 0.5",
    ),
    (
        lambda: Additive(torch.ones(1, 1, 1, 2, 3)),
        ValueError,
        "`tensor`: expected at most 4 dimensions (B, H, Tq, Tk), got shape (1, 1, 1, 2, 3)",
    ),
    (lambda: one + torch.ones(2), TypeError, f"`bias`: expected {TERM}, got a float32 tensor of shape (2,)"),
    (lambda: torch.ones(2) + one, TypeError, f"`bias`: expected {TERM}, got a float32 tensor of shape (2,)"),
    (lambda: one + 1, TypeError, f"`bias`: expected {TERM}, got 1"),
    (lambda: 0.0 + one, TypeError, f"`bias`: expected {TERM}, got 0.0"),
    (lambda: Sum(one), ValueError, "`bias`: expected two or more terms of a sum, got 1"),
    (lambda: one + ALiBi([1.0, 2.0]), ValueError, "`bias`: expected terms for the same number of heads, got 1 and 2"),
    (
        lambda: Relative(torch.ones(3, 1)) + (Relative([[1.0]]) + Additive(torch.ones(5, 1, 1))),
        ValueError,
        "`bias`: expected terms for the same number of heads, got 3 and 5",
    ),
]


@pytest.mark.parametrize(("make", "error", "text"), CONSTRUCTING, ids=[text[:60] for _, _, text in CONSTRUCTING])
def test_constructing(make: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == text


SIZES = (2, 3, 5, 7)
SHAPE = "`bias`: expected Additive of a shape that broadcasts to (B, H, Tq, Tk) = (2, 3, 5, 7), got"


@pytest.mark.parametrize(("bias", "text"), [
    (ALiBi.standard(4), "`bias`: expected ALiBi with H = 3 slopes, got 4"),
    (ALiBi([1.0]), "`bias`: expected ALiBi with H = 3 slopes, got 1"),
    (Relative(torch.ones(2, 3)), "`bias`: expected Relative with a table of 1 or H = 3 rows, got 2"),
    (Additive(torch.ones(5)), f"{SHAPE} (5,)"),
    (Additive(torch.ones(3, 5, 7, 1)), f"{SHAPE} (3, 5, 7, 1)"),
    (Relative([[0.0]]) + Additive(torch.ones(4, 1, 1)), f"{SHAPE} (4, 1, 1)"),
], ids=str)  # fmt: skip
def test_a_bias_that_does_not_fit(bias: Bias, text: str) -> None:
    for ask in (bias.fit, bias.dense):
        with pytest.raises(ValueError, match=r"^`bias`") as caught:
            ask(*SIZES)
        assert str(caught.value) == text


@pytest.mark.parametrize(("start", "error", "text"), [
    (1.5, TypeError, "`q_start`: expected None, an int or an int tensor of shape (2,), got 1.5"),
    (torch.ones(2), TypeError,
     "`q_start`: expected None, an int or an int tensor of shape (2,), got a float32 tensor of shape (2,)"),
    (torch.arange(3), ValueError, "`q_start`: expected shape (B,) = (2,), got (3,)"),
], ids=["float", "floats", "shape"])  # fmt: skip
def test_a_bad_start(start: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        ALiBi.standard(3).dense(*SIZES, start)
    assert str(caught.value) == text
