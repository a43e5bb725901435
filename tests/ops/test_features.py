"""Bias, softcap, sinks and dropout against the float64 reference, alone and together, forward and backward."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mmha
from feature_zoo import FEATURES, Feature, additives_of, arguments_of, rule_of, seed_drawn_after
from mmha import reference
from mmha.bias import Additive, ALiBi, Relative
from mmha.masks import Causal, Full, KeyPadding, Mask, Queries, Window
from mmha.reference import Gradients, Rule
from tolerances import assert_near

B, H, HK, TQ, TK, D, DV = 2, 6, 3, 37, 67, 17, 13
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def inputs(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    torch.manual_seed(5)
    shapes = ((B, H, TQ, D), (B, HK, TK, D), (B, HK, TK, DV))
    return [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]


def compare(feature: Feature, mask: Mask | None, dtype: torch.dtype, **arguments: Any) -> None:
    """out, lse and the gradient of everything, against the reference with the same seed."""
    q, k, v = inputs(dtype)
    leaves = feature.make((B, H, TQ, TK))
    seed = seed_drawn_after(23)
    taken = arguments_of(leaves, feature.numbers)
    visible = None if mask is None else mask.dense(B, H, TQ, TK, arguments.get("q_start"))
    results = mmha.attention(q, k, v, **({"mask": mask} | taken), return_lse=True, **arguments)
    visible = None if "mask" in leaves else visible
    rule = Rule(visible, q_start=_start(arguments), **rule_of(leaves, feature.numbers, H, seed))
    wanted = reference.attention(q, k, v, rule)
    assert results[0].dtype == dtype
    assert_near(results[0], wanted[0], dtype)
    assert_near(results[1], wanted[1], results[1].dtype)

    grads = [torch.randn(x.shape).to(x.dtype) for x in results]
    got = torch.autograd.grad(results, (q, k, v, *leaves.values()), grads)
    exact = reference.gradients(q, k, v, Gradients(*grads), rule)
    for have, want in zip(got[:3], exact[:3], strict=True):
        assert have.dtype == dtype
        assert_near(have, want, dtype, factor=2.0)
    for (name, leaf), have in zip(leaves.items(), got[3:], strict=True):
        assert have.dtype == leaf.dtype
        want = _derivative(exact, name, leaves)
        # What flows into a score sums to 0 over a row: what a sum over keys leaves is measured by its terms.
        scale = torch.cat([want.flatten(), torch.tensor([3.0])])
        assert_near(have, want, _coarser(dtype, leaf.dtype), factor=3.0, scale=scale)


def _coarser(dtype: torch.dtype, of_leaf: torch.dtype) -> torch.dtype:
    """The dtype that settles how near a gradient is: a float64 leaf of a float32 call is computed in float32."""
    return max(dtype, of_leaf, key=lambda t: torch.finfo(t).eps if t != torch.float64 else 0.0)


def _start(arguments: dict[str, Any]) -> Tensor | None:
    start = arguments.get("q_start")
    return start if start is None or isinstance(start, Tensor) else torch.tensor(start)


def _derivative(exact: reference.Derivatives, name: str, leaves: dict[str, Tensor]) -> Tensor:
    if name in ("slopes", "table", "sinks"):
        made = getattr(exact, name)
    else:
        assert isinstance(exact.additive, tuple)
        made = exact.additive[additives_of(leaves).index(name)]
    return made.sum_to_size(leaves[name].shape)


HIDING = Causal() & KeyPadding([TK - 5, TK - TQ - 2])


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_feature(name: str, dtype: torch.dtype) -> None:
    compare(FEATURES[name], HIDING, dtype)


@pytest.mark.parametrize("name", ["softcap, sinks", "dropout", "alibi, relative, additive", "everything"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_every_instruction_set(name: str, dtype: torch.dtype, isa: str) -> None:
    compare(FEATURES[name], HIDING, dtype)


@pytest.mark.parametrize("name", ["alibi", "relative", "softcap, sinks", "dropout", "additive with -inf", "everything"])
@pytest.mark.parametrize(
    "mask", [None, Full(), Window(7, 2), Queries(torch.arange(B * TQ).view(B, TQ) % 3 > 0)], ids=repr
)
def test_under_other_masks(name: str, mask: Mask | None) -> None:
    compare(FEATURES[name], mask, torch.float32)


@pytest.mark.parametrize("q_start", [0, -9, 100, [31, -4]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_positions_start_where_they_are_told_to(q_start: Any, dtype: torch.dtype) -> None:
    start = torch.tensor(q_start) if isinstance(q_start, list) else q_start
    compare(FEATURES["alibi, relative, additive"], Window(50, 50), dtype, q_start=start)
    if isinstance(start, Tensor) and dtype == torch.float32:
        compare(FEATURES["alibi, relative, additive"], Window(50, 50), dtype, q_start=start.int())


@pytest.mark.parametrize("scale", [0.0, -0.4, 2])
def test_the_cap_comes_after_the_scale(scale: float) -> None:
    q, k, v = inputs()
    rule = Rule(softcap=0.5, scale=float(scale))
    assert_near(mmha.attention(q, k, v, softcap=0.5, scale=scale), reference.attention(q, k, v, rule)[0], torch.float32)


def test_the_cap_is_a_tanh(isa: str) -> None:
    """A row that sees one key has that key's score as its lse: here scores from -3 to 3, and small ones."""
    x = torch.cat([torch.linspace(-3, 3, 1009), torch.linspace(-0.01, 0.01, 101)]).view(1, 1, -1, 1)
    ones = torch.ones_like(x)
    for cap in (1.0, 0.37):
        _, lse = mmha.attention(x, ones, ones, Window(0, 0), scale=1.0, softcap=cap, return_lse=True)
        exact = cap * torch.tanh(x.double().flatten() / cap)
        torch.testing.assert_close(lse.double().flatten(), exact, rtol=5e-7, atol=1e-9)


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_with_every_feature(name: str, dtype: torch.dtype, isa: str) -> None:
    """Weights are those before dropout; with sinks a row sums to less than 1. Their gradient reaches every leaf."""
    q, k, v = inputs(dtype)
    feature = FEATURES[name]
    leaves = feature.make((B, H, TQ, TK))
    taken = arguments_of(leaves, feature.numbers)
    seed = seed_drawn_after(29)
    results = mmha.attention(q, k, v, **taken, return_lse=True, return_weights=True)
    rule = Rule(**rule_of(leaves, feature.numbers, H, seed))
    for have, want in zip(results, reference.attention(q, k, v, rule, return_weights=True), strict=True):
        assert want is not None
        assert_near(have, want, have.dtype)
    share = torch.exp(leaves["sinks"][:, None] - results[1]) if "sinks" in leaves else torch.zeros(())
    torch.testing.assert_close(
        results[2].sum(-1),
        (1.0 - share).to(dtype).expand(B, H, TQ),
        rtol=0.0,
        atol=1e-5 if dtype == torch.float32 else 0.02,
    )
    torch.manual_seed(29)
    assert torch.equal(results[0], mmha.attention(q, k, v, **taken, return_weights=True)[0])
    grads = [torch.randn(x.shape).to(x.dtype) for x in results]
    got = torch.autograd.grad(results, (q, k, v, *leaves.values()), grads)
    exact = reference.gradients(q, k, v, Gradients(*grads), rule)
    for have, want in zip(got, (*exact[:3], *(_derivative(exact, n, leaves) for n in leaves)), strict=True):
        scale = torch.cat([want.flatten(), torch.tensor([3.0])])
        assert_near(have, want, _coarser(dtype, have.dtype), factor=3.0, scale=scale)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_that_see_nothing_stay_empty_with_a_sink(dtype: torch.dtype) -> None:
    q, k, v = inputs(dtype)
    sinks = torch.full((H,), 3.0, requires_grad=True)
    slopes = torch.ones(H, requires_grad=True)
    rows = torch.arange(TQ) % 4 > 0
    out, lse = mmha.attention(q, k, v, Queries(rows.expand(B, TQ)), sinks=sinks, bias=ALiBi(slopes), return_lse=True)
    assert not out[:, :, ~rows].any()
    assert (lse[:, :, ~rows] == -math.inf).all()
    assert lse[:, :, rows].isfinite().all()
    grads = torch.autograd.grad((out, lse), (q, sinks, slopes), (torch.ones_like(out), torch.ones_like(lse)))
    assert not grads[0][:, :, ~rows].any()
    assert all(g.isfinite().all() for g in grads)
    nothing = mmha.attention(q, k, v, ~Full(), sinks=sinks, bias=ALiBi(slopes))
    assert not any(g.any() for g in torch.autograd.grad(nothing.sum(), (q, k, v, sinks, slopes)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sink_of_minus_infinity_is_none(dtype: torch.dtype) -> None:
    q, k, v = inputs(dtype)
    sinks = torch.full((H,), -math.inf, requires_grad=True)
    have = mmha.attention(q, k, v, HIDING, sinks=sinks, return_lse=True)
    want = mmha.attention(q, k, v, HIDING, return_lse=True)
    for a, b in zip(have, want, strict=True):
        assert_near(a, b, a.dtype)
    assert not torch.autograd.grad(have[0].sum(), sinks)[0].any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_an_additive_hides_has_no_influence(dtype: torch.dtype, isa: str) -> None:
    """Where an additive is -inf the pair is hidden: q, k, v and other additives may hold NaN there."""
    q, k, v = inputs(dtype)
    rows, keys = torch.arange(TQ) % 5 == 2, torch.arange(TK) % 7 == 3
    hidden = rows[:, None] | keys
    free = torch.randn(H, TQ, TK)
    hiding = free.masked_fill(hidden, -math.inf)
    grad = torch.randn(B, H, TQ, DV).to(dtype)
    results = []
    for poison in (0.0, math.nan, math.inf):
        x = [t.detach().clone() for t in (q, k, v)]
        x[0][:, :, rows], x[1][:, :, keys], x[2][:, :, keys] = poison, poison, poison
        g = grad.clone()
        g[:, :, rows] = poison
        leaves = [t.requires_grad_() for t in (*x, free.masked_fill(hidden, poison), hiding.clone())]
        out, lse = mmha.attention(*leaves[:3], bias=Additive(leaves[3]) + Additive(leaves[4]), return_lse=True)
        results.append((out, lse, *torch.autograd.grad(out, leaves, g)))
        assert not out[:, :, rows].any()
        assert not results[-1][5][:, hidden].any()
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_a_mask_and_a_bias_hide_together() -> None:
    q, k, v = inputs()
    visible, allowed = torch.rand(TQ, TK) > 0.3, torch.rand(B, 1, TQ, TK) > 0.3
    hiding = torch.zeros(B, 1, TQ, TK).masked_fill(~allowed, -math.inf)
    have = mmha.attention(q, k, v, visible, bias=Additive(hiding))
    assert_near(have, reference.attention(q, k, v, Rule(visible & allowed))[0], torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("empty", ["B", "H", "Tq", "Tk", "D", "Dv"])
def test_empty_dimensions_with_every_feature(empty: str, dtype: torch.dtype) -> None:
    sizes = dict(zip(("B", "H", "Hk", "Tq", "Tk", "D", "Dv"), (2, 6, 3, 5, 7, 11, 13), strict=True)) | {empty: 0}
    b, h, hk, tq, tk, d, dv = (sizes | ({"Hk": 0} if empty == "H" else {})).values()
    shapes = ((b, h, tq, d), (b, hk, tk, d), (b, hk, tk, dv))
    q, k, v = (torch.randn(shape).to(dtype).requires_grad_() for shape in shapes)
    feature = FEATURES["everything"]
    leaves = feature.make((b, h, tq, tk))
    out, lse = mmha.attention(q, k, v, **arguments_of(leaves, feature.numbers), return_lse=True)
    assert out.shape == (b, h, tq, dv)
    assert empty != "Tk" or ((lse == -math.inf).all() and not out.any())
    grads = torch.autograd.grad((out, lse), (q, k, v, *leaves.values()), (torch.ones_like(out), torch.ones_like(lse)))
    for x, g in zip((q, k, v, *leaves.values()), grads, strict=True):
        assert g.shape == x.shape
        assert not g.isnan().any()


def test_only_what_wants_a_gradient_gets_one() -> None:
    feature = FEATURES["everything"]
    q, k, v = (x.detach() for x in inputs())

    def gradients(wanted: set[str]) -> dict[str, Tensor]:
        leaves = {name: x.detach().requires_grad_(name in wanted) for name, x in feature.make((B, H, TQ, TK)).items()}
        torch.manual_seed(31)
        out = mmha.attention(q, k, v, **arguments_of(leaves, feature.numbers))
        assert out.requires_grad == bool(wanted)
        if wanted:
            out.square().sum().backward()
        return {name: x.grad for name, x in leaves.items() if x.grad is not None}

    names = set(feature.make((B, H, TQ, TK)))
    whole = gradients(names)
    assert set(whole) == names
    for wanted in ({"slopes"}, {"table"}, {"mask"}, {"more", "sinks"}, {"additive", "mask"}, set()):
        found = gradients(wanted)
        assert set(found) == wanted
        assert all(torch.equal(found[name], whole[name]) for name in wanted)


def test_an_expanded_or_negative_additive_is_read_in_place() -> None:
    q, k, v = inputs()
    narrow = torch.randn(TK, requires_grad=True)
    for view in (narrow.expand(B, H, TQ, TK), torch._neg_view(-narrow.detach()), narrow.detach().flip(0).flip(0)):
        have = mmha.attention(q, k, v, HIDING, bias=Additive(view))
        assert torch.equal(have, mmha.attention(q, k, v, HIDING, bias=Additive(narrow.detach().clone())))
    (got,) = torch.autograd.grad(
        mmha.attention(q, k, v, bias=Additive(narrow.expand(B, H, TQ, TK))).cos().sum(), narrow
    )
    (want,) = torch.autograd.grad(mmha.attention(q, k, v, bias=Additive(narrow)).cos().sum(), narrow)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_autocast_leaves_bias_and_sinks_alone() -> None:
    q, k, v = inputs()
    table, sinks = torch.randn(H, 5, requires_grad=True), torch.randn(H, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        have = mmha.attention(q, k, v, Causal(), bias=Relative(table), sinks=sinks)
    want = mmha.attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), Causal(), bias=Relative(table), sinks=sinks)
    assert have.dtype == torch.bfloat16
    assert torch.equal(have, want)
    for g in torch.autograd.grad(have.float().sum(), (q, table, sinks)):
        assert g.dtype == torch.float32


@pytest.mark.parametrize("number", [-1e300, 1e300, torch.finfo(torch.float64).min], ids=str)
@pytest.mark.parametrize("kind", ["mask", "additive", "slopes", "table", "sinks"])
def test_numbers_beyond_float32_are_numbers(kind: str, number: float) -> None:
    q, k, v = (x.detach() for x in inputs())
    dense = torch.zeros(TQ, TK, dtype=torch.float64)
    dense[1], dense[2, 1:] = number, number
    given: dict[str, Any] = {
        "mask": {"mask": dense},
        "additive": {"bias": Additive(dense)},
        "slopes": {"bias": ALiBi(torch.full((H,), abs(number), dtype=torch.float64))},
        "table": {"bias": Relative(torch.full((H, 1), number, dtype=torch.float64))},
        "sinks": {"sinks": torch.full((H,), number, dtype=torch.float64)},
    }[kind]
    exact = mmha.attention(q.double(), k.double(), v.double(), **given)
    assert exact.isfinite().all()
    assert_near(mmha.attention(q, k, v, **given), exact, torch.float32)
