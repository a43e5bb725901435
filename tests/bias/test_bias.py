"""Biases: their values against closed forms, their sums against the sum of values, their gradients, their manners."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mmha
from mmha import reference
from mmha.bias import Additive, ALiBi, Bias, Parts, Relative

B, H, TQ, TK = 2, 3, 5, 7
SIZES = (B, H, TQ, TK)
STARTS = [None, 0, -3, 11, torch.tensor(4), torch.tensor([6, -2], dtype=torch.int32)]
START_NAMES = ["default", "0", "-3", "11", "tensor", "per row"]


def loops(value: Callable[[int, int], float], start: Any) -> Tensor:
    """A number of the head and of the distance j - p, at every pair."""
    made = torch.zeros(SIZES, dtype=torch.float64)
    for b, h, i, j in product(*(range(size) for size in SIZES)):
        first = TK - TQ if start is None else int(start) if isinstance(start, int) or not start.dim() else int(start[b])
        made[b, h, i, j] = value(h, j - (first + i))
    return made


def by_parts(parts: Parts, start: int = TK - TQ) -> Tensor:
    """What kernels make of the parts."""
    away = torch.arange(TK) - (start + torch.arange(TQ))[:, None]
    made = torch.zeros(SIZES, dtype=torch.float64)
    if parts.slopes is not None:
        made = made - parts.slopes[:, None, None] * away.abs()
    if parts.table is not None:
        radius = parts.table.shape[1] // 2
        made = made + parts.table[:, (away.clamp(-radius, radius) + radius).flatten()].reshape(-1, TQ, TK)
    return sum(parts.additives, made)


# Values ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("start", STARTS, ids=START_NAMES)
def test_alibi(start: Any) -> None:
    slopes = torch.randn(H)
    wanted = loops(lambda h, away: -slopes[h].item() * abs(away), start)
    torch.testing.assert_close(ALiBi(slopes).dense(*SIZES, start), wanted.float())


def test_finite_numbers_whose_sum_is_not() -> None:
    assert ALiBi([3e38, 3e38, 3e38]).dense(*SIZES).min() == -math.inf
    assert Relative([[3e38, 3e38, 3e38]]).dense(*SIZES).isfinite().all()


def slopes_of_the_paper(n: int) -> list[float]:
    """`get_slopes` of github.com/ofirpress/attention_with_linear_biases, restated."""
    if math.log2(n).is_integer():
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]
    closest = 2 ** math.floor(math.log2(n))
    return slopes_of_the_paper(closest) + slopes_of_the_paper(2 * closest)[0::2][: n - closest]


@pytest.mark.parametrize("heads", [*range(1, 41), 96, 113, 128])
def test_standard_slopes(heads: int) -> None:
    slopes = ALiBi.standard(heads).slopes
    assert slopes.dtype == torch.float32
    torch.testing.assert_close(slopes, torch.tensor(slopes_of_the_paper(heads)))


@pytest.mark.parametrize("start", STARTS, ids=START_NAMES)
@pytest.mark.parametrize(("rows", "radius"), [(H, 2), (1, 3), (H, 0), (H, 40)])
def test_relative(rows: int, radius: int, start: Any) -> None:
    table = torch.randn(rows, 2 * radius + 1)
    wanted = loops(lambda h, away: table[h % rows, radius + max(-radius, min(radius, away))].item(), start)
    assert torch.equal(Relative(table).dense(*SIZES, start), wanted.float())


def t5_bucket(away: Tensor, bidirectional: bool, buckets: int, max_distance: int) -> Tensor:
    """`T5Attention._relative_position_bucket` of transformers, in its own float32."""
    base = torch.zeros_like(away)
    if bidirectional:
        buckets //= 2
        base, away = (away > 0).long() * buckets, away.abs()
    else:
        away = -torch.min(away, torch.zeros_like(away))
    exact = buckets // 2
    large = torch.log(away.float() / exact) / math.log(max_distance / exact) * (buckets - exact)
    large = torch.min(exact + large.to(torch.long), torch.full_like(away, buckets - 1))
    return base + torch.where(away < exact, away, large)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (32, 256), (16, 64), (64, 800), (4, 3), (37, 101)])
def test_t5(buckets: int, max_distance: int, bidirectional: bool) -> None:
    weight = torch.randn(buckets, H)
    table = Relative.t5(weight, bidirectional=bidirectional, max_distance=max_distance).table
    radius = table.shape[1] // 2
    away = torch.arange(-2 * max_distance, 2 * max_distance + 1)
    wanted = t5_bucket(away, bidirectional, buckets, max_distance)
    assert torch.equal(table[:, radius + away.clamp(-radius, radius)], weight[wanted].T)
    assert t5_bucket(torch.tensor(1 - radius), bidirectional, buckets, max_distance) != wanted[0]  # R is the least


def test_t5_buckets_of_the_usual_size() -> None:
    """Where the 32 buckets of the published models begin."""
    table = Relative.t5(torch.arange(32.0)[:, None], bidirectional=True).table[0]
    begin = [*range(8), 8, 12, 16, 23, 32, 46, 64, 91]
    assert len(table) == 2 * 91 + 1
    for bucket, (first, after) in enumerate(zip(begin, [*begin[1:], 92], strict=True)):
        for away in range(first, after):
            assert table[91 - away] == bucket
            assert table[91 + away] == (16 + bucket if away else 0)


def test_gaussian() -> None:
    sigmas, radius = [0.5, 1.0, 3.0], 2
    sigma = torch.tensor(sigmas, dtype=torch.float64, requires_grad=True)
    bias = Relative.gaussian(sigma, radius)
    wanted = loops(lambda h, away: -(min(abs(away), radius) ** 2) / (2 * sigmas[h] ** 2), None)
    torch.testing.assert_close(bias.dense(*SIZES), wanted)
    (got,) = torch.autograd.grad(bias.table.sum(), sigma)
    torch.testing.assert_close(got, 2 * (1.0 + 4.0) / sigma.detach() ** 3)  # the sum of d**2 / sigma**3


@pytest.mark.parametrize("shape", [(), (TK,), (TQ, 1), (H, 1, 1), (B, 1, TQ, TK), SIZES], ids=str)
def test_additive(shape: tuple[int, ...]) -> None:
    tensor = torch.randn(shape).masked_fill(torch.rand(shape) < 0.2, -math.inf)
    assert torch.equal(Additive(tensor).dense(*SIZES), tensor.expand(SIZES))


# Sums ------------------------------------------------------------------------------------------------------------
def some_bias(kind: int) -> Bias:
    made: Bias = (
        ALiBi(torch.randn(H).double()),
        Relative(torch.randn(H, 5).double()),
        Relative(torch.randn(1, 9).double()),
        Relative(torch.randn(H, 1).double()),
        Additive(torch.randn(H, 1, TK).double()),
        Additive(torch.randn(TQ, TK).double().masked_fill(torch.rand(TQ, TK) < 0.2, -math.inf)),
    )[kind]
    return made


KINDS = st.lists(st.integers(0, 5), min_size=2, max_size=6)


@settings(max_examples=60, deadline=None)
@given(KINDS)
def test_a_sum_has_the_sum_of_the_values(kinds: list[int]) -> None:
    terms = [some_bias(kind) for kind in kinds]
    whole = sum(terms[1:], terms[0])
    wanted = sum(term.dense(*SIZES) for term in terms)
    torch.testing.assert_close(whole.dense(*SIZES), wanted)
    torch.testing.assert_close(by_parts(whole.parts()), wanted)
    assert len(whole.parts().additives) == sum(kind >= 4 for kind in kinds)


@settings(max_examples=40, deadline=None)
@given(KINDS, KINDS, KINDS)
def test_addition_commutes_and_associates(one: list[int], two: list[int], three: list[int]) -> None:
    a, b, c = (sum(some_bias(kind) for kind in kinds) for kinds in (one, two, three))
    assert isinstance(a, Bias)
    torch.testing.assert_close((a + b).dense(*SIZES), (b + a).dense(*SIZES))
    assert (a + b) + c == a + (b + c)
    torch.testing.assert_close(by_parts((a + b).parts()), by_parts((b + a).parts()))


def test_a_table_is_widened_by_its_end_values() -> None:
    parts = (Relative([[1.0, 2.0, 3.0]]) + Relative([[10.0, 20.0, 30.0, 40.0, 50.0]])).parts()
    assert parts.table is not None
    assert parts.table.tolist() == [[11.0, 21.0, 32.0, 43.0, 53.0]]
    assert (parts.slopes, parts.additives) == (None, ())


def test_the_reference_means_the_same() -> None:
    bias = some_bias(0) + some_bias(1) + some_bias(2) + some_bias(4) + some_bias(5)
    q, k, v = (torch.randn(B, H, length, 11).double() for length in (TQ, TK, TK))
    start, parts = torch.tensor([6, -2]), bias.parts()
    rule = reference.Rule(None, parts.additives, slopes=parts.slopes, table=parts.table, q_start=start)
    dense = reference.Rule(None, bias.dense(*SIZES, start))
    for have, want in zip(reference.attention(q, k, v, rule)[:2], reference.attention(q, k, v, dense)[:2], strict=True):
        torch.testing.assert_close(have, want)


# Gradients -------------------------------------------------------------------------------------------------------
def everything(slopes: Tensor, table: Tensor, weight: Tensor, sigma: Tensor, tensor: Tensor) -> Bias:
    learned = Relative(table) + Relative.t5(weight, bidirectional=True, max_distance=5) + Relative.gaussian(sigma, 3)
    return learned + ALiBi(slopes) + ALiBi(sigma) + Additive(tensor)


def leaves(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    shapes = ((H,), (1, 3), (8, H), (H,), (H, 1, TK))
    return [(torch.rand(shape, dtype=dtype) + 0.5).requires_grad_() for shape in shapes]


def test_gradients_reach_the_tensors() -> None:
    assert torch.autograd.gradcheck(lambda *x: everything(*x).dense(*SIZES), leaves())
    assert torch.autograd.gradcheck(lambda *x: by_parts(everything(*x).parts()), leaves())


def test_parameters_are_held_not_copied() -> None:
    slopes, table = torch.nn.Parameter(torch.ones(H)), torch.nn.Parameter(torch.zeros(H, 3))
    bias = ALiBi(slopes) + Relative(table)
    assert bias.parts().slopes is slopes
    assert bias.parts().table is table
    with torch.no_grad():
        slopes.mul_(2.0)
    assert bias.dense(*SIZES)[0, 0, 0, 6] == -8.0


# torch.compile and torch.export ----------------------------------------------------------------------------------
class Module(torch.nn.Module):
    def forward(self, *x: Tensor) -> tuple[Tensor, ...]:
        bias = everything(*x) + ALiBi.standard(H)
        bias.fit(*SIZES)
        slopes, table, additives = bias.parts()
        assert slopes is not None
        assert table is not None
        return slopes, table, *additives


def test_compiling() -> None:
    x = leaves()
    compiled = torch.compile(Module(), fullgraph=True, backend="aot_eager")
    got, wanted = compiled(*x), Module()(*x)
    for have, want in zip(got, wanted, strict=True):
        torch.testing.assert_close(have, want)
    for have, want in zip(*(torch.autograd.grad([y.sum() for y in made], x) for made in (got, wanted)), strict=True):
        torch.testing.assert_close(have, want)


@pytest.mark.parametrize("strict", [True, False])
def test_exporting(strict: bool) -> None:
    x = tuple(t.detach() for t in leaves())
    for have, want in zip(torch.export.export(Module(), x, strict=strict).module()(*x), Module()(*x), strict=True):
        torch.testing.assert_close(have, want)


# Manners ---------------------------------------------------------------------------------------------------------
def test_equality_and_hashes_go_by_structure_and_tensor() -> None:
    slopes, table = torch.ones(H), torch.zeros(H, 3)
    assert ALiBi(slopes) == ALiBi(slopes)
    assert ALiBi(slopes) + Relative(table) == ALiBi(slopes) + Relative(table)
    assert ALiBi(slopes) + Relative(table) != Relative(table) + ALiBi(slopes)
    assert ALiBi(slopes) != ALiBi(slopes.clone())
    assert ALiBi(slopes) != Additive(slopes)
    assert Additive(slopes) != 1
    assert len({ALiBi(slopes), ALiBi(slopes), Additive(slopes), ALiBi(slopes) + Relative(table)}) == 3


def test_a_bias_is_frozen() -> None:
    bias = ALiBi([1.0])
    with pytest.raises(AttributeError, match="ALiBi is a frozen value; `slopes` cannot be set"):
        bias.slopes = torch.ones(2)
    with pytest.raises(AttributeError, match="ALiBi is a frozen value; `slopes` cannot be deleted"):
        del bias.slopes


def test_copies_and_pickles() -> None:
    for bias in (some_bias(0), some_bias(1) + some_bias(4)):
        for other in (copy.deepcopy(bias), pickle.loads(pickle.dumps(bias))):
            assert torch.equal(other.dense(*SIZES), bias.dense(*SIZES))


def test_reprs() -> None:
    bias = ALiBi([0.5, 0.25]) + Relative([[1.0], [2.0]])
    assert repr(bias) == "ALiBi([0.5, 0.25]) + Relative([[1.0], [2.0]])"
    again = eval(repr(bias))
    assert torch.equal(again.dense(1, 2, 3, 4), bias.dense(1, 2, 3, 4))
    assert repr(Additive(torch.zeros(TQ, TK))) == "Additive(<float32 (5, 7)>)"
    assert repr(Additive(torch.tensor(1.0))) == "Additive(<float32 ()>)"
    assert repr(ALiBi(torch.ones(2).double())) == "ALiBi(<float64 (2,)>)"
    assert repr(Relative(torch.ones(1, 3, requires_grad=True))) == "Relative(<float32 (1, 3), learned>)"


def test_the_default_dtype_and_device_of_the_user_do_not_matter() -> None:
    wanted = ALiBi.standard(H).dense(*SIZES)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            got = ALiBi.standard(H).dense(*SIZES)
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.dtype == torch.float32
    assert torch.equal(got, wanted)


def test_the_door() -> None:
    assert mmha.bias.ALiBi is ALiBi
