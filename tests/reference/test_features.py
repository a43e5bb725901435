"""Every feature of a score, alone and together, against autograd of the formula written down as a dense one."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from mmha import reference
from mmha.reference import Derivatives, Dropout, Gradients, Rule, blocks

B, H, HK, TQ, TK, D, DV, RADIUS = 2, 6, 3, 11, 19, 13, 17, 3
EPS = 1e-13
FEATURES = ("softcap", "sinks", "slopes", "table", "additive", "q_start", "dropout")
HELD = ("slopes", "table", "sinks")

Inputs = tuple[Tensor, Tensor, Tensor]


def inputs(batch: int = B, q_len: int = TQ, k_len: int = TK) -> Inputs:
    shapes = ((batch, H, q_len, D), (batch, HK, k_len, D), (batch, HK, k_len, DV))
    q, k, v = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    return q, k, v


def visible_pairs(batch: int = B, q_len: int = TQ, k_len: int = TK) -> Tensor:
    """A random mask in which one row of one head sees nothing and another row nothing in any head."""
    visible = torch.rand(batch, H, q_len, k_len) > 0.3
    visible[0, :, 2], visible[-1, 4, 7] = False, False
    return visible


def whole_rule() -> Rule:
    """Every feature at once."""
    tiny = torch.randn(H, 1, TK, dtype=torch.float64)
    full = torch.randn(B, H, TQ, TK, dtype=torch.float64).masked_fill(torch.rand(B, H, TQ, TK) < 0.1, -math.inf)
    return Rule(
        visible_pairs(), (tiny, full, torch.randn((), dtype=torch.float64)), 0.7,
        softcap=1.3,
        sinks=torch.randn(H, dtype=torch.float64),
        slopes=torch.rand(H, dtype=torch.float64),
        table=torch.randn(H, 2 * RADIUS + 1, dtype=torch.float64),
        q_start=torch.tensor([-3, 11]),
        dropout=Dropout(0.4, seed=5),
    )  # fmt: skip


def only(*names: str) -> Rule:
    return replace(whole_rule(), **{name: None for name in FEATURES if name not in names})


def upstream() -> Gradients:
    out, lse = torch.randn(B, H, TQ, DV, dtype=torch.float64), torch.randn(B, H, TQ, dtype=torch.float64)
    return Gradients(out, lse, torch.randn(B, H, TQ, TK, dtype=torch.float64))


def additives(rule: Rule) -> tuple[Tensor, ...]:
    return (rule.additive,) if isinstance(rule.additive, Tensor) else rule.additive or ()


def mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def noise(seed: int, b: int, h: int, i: int, j: int) -> int:
    """The pattern of dropout in Python's own integers, one pair at a time."""
    row, key = mix(mix(mix(mix(seed % 2**64) ^ b) ^ h) ^ i), mix(mix(~seed % 2**64) ^ j)
    x = (row ^ key) % 2**32
    x = (x ^ x >> 16) * 0x7FEB352D % 2**32
    x = ((x ^ x >> 15) + (row >> 32 ^ key >> 32)) % 2**32
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16


def dense(q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> tuple[Tensor, Tensor, Tensor]:
    """out, lse (0 where nothing is visible) and weights, with a graph, through tensors of all pairs."""
    s = rule.scale * q @ k.repeat_interleave(H // HK, 1).mT  # type: ignore[operator]
    if rule.softcap is not None:
        s = rule.softcap * torch.tanh(s / rule.softcap)
    start = torch.tensor(TK - TQ) if rule.q_start is None else rule.q_start
    away = torch.arange(TK) - (start.expand(B)[:, None] + torch.arange(TQ))[..., None]
    if rule.table is not None:
        s = s + rule.table[:, RADIUS + away.clamp(-RADIUS, RADIUS)].transpose(0, 1)
    if rule.slopes is not None:
        s = s - rule.slopes[:, None, None] * away.abs()[:, None]
    visible = rule.visible
    for x in additives(rule):
        visible, s = visible & (x != -math.inf), s + x.masked_fill(x == -math.inf, 0.0)  # type: ignore[operator]
    alive = visible.any(-1, keepdim=True)  # type: ignore[union-attr]
    s = s.masked_fill(~visible & alive, -math.inf)  # type: ignore[operator]
    if rule.sinks is not None:
        s = torch.cat([s, rule.sinks[:, None, None].expand(B, H, TQ, 1)], -1)
    w = torch.softmax(s, -1)[..., :TK] * alive
    lse = torch.logsumexp(s, -1).masked_fill(~alive[..., 0], 0.0)
    return dropped(w, rule) @ v.repeat_interleave(H // HK, 1), lse, w


def dropped(w: Tensor, rule: Rule) -> Tensor:
    if rule.dropout is None:
        return w
    p, seed = rule.dropout.p, rule.dropout.seed
    places = product(range(B), range(H), range(TQ), range(TK))
    keep = torch.tensor([noise(seed, *place) >= round(p * 2**32) for place in places]).reshape(w.shape)
    return w * keep / (1 - p)


def by_autograd(x: Inputs, grad: Gradients, rule: Rule) -> Derivatives:
    leaves = [t.clone().requires_grad_() for t in x]
    added = tuple(t.clone().requires_grad_() for t in additives(rule))
    held: dict[str, Any] = {
        name: getattr(rule, name).clone().requires_grad_() for name in HELD if getattr(rule, name) is not None
    }
    results = dense(*leaves, replace(rule, additive=added, **held))  # type: ignore[arg-type]
    wanted = torch.autograd.grad(results, (*leaves, *added, *held.values()), (grad.out, grad.lse, grad.weights))
    made = dict(zip(held, wanted[3 + len(added) :], strict=True))
    of_added = wanted[3 : 3 + len(added)] if rule.additive is not None else None
    return Derivatives(*wanted[:3], of_added, *(made.get(name) for name in HELD))  # type: ignore[arg-type]


def flat(results: Any) -> list[Tensor | None]:
    """All tensors of a result, those in tuples too."""
    return [y for x in results for y in (x if isinstance(x, tuple) else (x,))]


def assert_close(got: Any, wanted: Any) -> None:
    for have, want in zip(flat(got), flat(wanted), strict=True):
        torch.testing.assert_close(have, want, atol=EPS, rtol=EPS)


def assert_same(got: Any, wanted: Any) -> None:
    for have, want in zip(flat(got), flat(wanted), strict=True):
        assert (have is None) == (want is None)
        assert have is None or torch.equal(have, want)  # type: ignore[arg-type]


def run(x: Inputs, grad: Gradients, rule: Rule) -> tuple[Any, ...]:
    return *reference.attention(*x, rule, return_weights=True), *reference.gradients(*x, grad, rule)


ALL_BUT_ONE = [tuple(n for n in FEATURES if n != name) for name in FEATURES]
CHOICES: list[tuple[str, ...]] = [(), *((name,) for name in FEATURES), *ALL_BUT_ONE, FEATURES]


@pytest.mark.parametrize("names", CHOICES, ids="+".join)
def test_features_alone_and_together(names: tuple[str, ...]) -> None:
    x, rule, grad = inputs(), only(*names), upstream()
    out, lse, w = dense(*x, rule)
    hidden = (w == 0.0).all(-1)
    assert hidden[0, :, 2].all()
    assert hidden[1, 4, 7]
    got = reference.attention(*x, rule, return_weights=True)
    assert_close(got, (out, lse.masked_fill(hidden, -math.inf), w))
    assert not got[0][hidden].any()
    derivatives = reference.gradients(*x, grad, rule)
    assert_close(derivatives, by_autograd(x, grad, rule))
    assert [name for name in ("additive", *HELD) if getattr(derivatives, name) is not None] == [
        name for name in ("additive", *HELD) if name in names
    ]


def test_features_without_positions_given() -> None:
    x, grad = inputs(), upstream()
    rule = only("slopes", "table")
    for start in (torch.tensor(TK - TQ), torch.tensor([TK - TQ] * B)):
        assert_same(run(x, grad, rule), run(x, grad, replace(rule, q_start=start)))
    moved = replace(rule, q_start=torch.tensor(2))
    assert_close(reference.gradients(*x, grad, moved), by_autograd(x, grad, moved))


@pytest.mark.parametrize("width", [1, 3, 101])
def test_tables_of_any_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "RADIUS", width // 2)
    x, grad = inputs(), upstream()
    rule = replace(only("q_start"), table=torch.randn(H, width, dtype=torch.float64))
    assert_close(reference.attention(*x, rule)[0], dense(*x, rule)[0])
    assert_close(reference.gradients(*x, grad, rule), by_autograd(x, grad, rule))


def test_an_additive_comes_back_as_it_was_given() -> None:
    x, grad, rule = inputs(), upstream(), only("additive")
    first = additives(rule)[0]
    lone = reference.gradients(*x, grad, replace(rule, additive=first)).additive
    assert isinstance(lone, Tensor)
    assert lone.shape == first.shape
    in_tuple = reference.gradients(*x, grad, replace(rule, additive=(first,))).additive
    assert isinstance(in_tuple, tuple)
    assert torch.equal(in_tuple[0], lone)
    assert reference.gradients(*x, grad, replace(rule, additive=())).additive == ()


@pytest.mark.parametrize("shape", [(), (TK,), (TQ, 1), (H, 1, 1), (B, 1, TQ, TK), (1, H, 1, TK), (B, 1, 1, 1)], ids=str)
def test_additives_of_any_shape(shape: tuple[int, ...]) -> None:
    x, grad = inputs(), upstream()
    rule = replace(only("sinks"), additive=(torch.randn(shape, dtype=torch.float64),))
    assert_close(reference.gradients(*x, grad, rule), by_autograd(x, grad, rule))


def test_a_sink_that_is_minus_infinity_is_none() -> None:
    x, grad, rule = inputs(), upstream(), only("softcap", "table")
    *got, dsinks = run(x, grad, replace(rule, sinks=torch.full((H,), -math.inf)))
    assert_same(got, run(x, grad, rule)[:-1])
    assert not dsinks.any()


def test_large_scores_and_sinks_do_not_overflow() -> None:
    x, grad = inputs(), upstream()
    for sinks in (torch.full((H,), 2000.0), torch.full((H,), -2000.0)):
        rule = replace(only(), scale=100.0, sinks=sinks.double())
        assert_close(reference.attention(*x, rule)[0], dense(*x, rule)[0])
        assert_close(reference.gradients(*x, grad, rule)[6], by_autograd(x, grad, rule)[6])


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_hidden_numbers_have_no_influence(poison: float) -> None:
    (q, k, v), rule, grad = inputs(), whole_rule(), upstream()
    visible = rule.visible
    assert isinstance(visible, Tensor)
    visible[..., 5] = False
    clean = run((q, k, v), grad, rule)
    first, full, last = (t.clone() for t in additives(rule))
    k[:, :, 5], v[:, :, 5], first[..., 5] = poison, poison, poison
    full[~visible] = poison
    given = [t.clone() for t in (q, grad.out, grad.lse, grad.weights) if t is not None]
    for t in given:
        t[0, :, 2], t[1, 4, 7] = poison, poison
    given[3][~visible] = poison
    dirty = replace(rule, additive=(first, full, last))
    assert_same(run((given[0], k, v), Gradients(*given[1:]), dirty), clean)


def test_row_chunks_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    x, rule, grad = inputs(), whole_rule(), upstream()
    whole = run(x, grad, rule)
    monkeypatch.setattr(blocks, "ROW_ELEMENTS", 2 * TK)
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 5 * TK)
    assert_close(run(x, grad, rule), whole)
