"""The judge is judged: by loops over Python numbers, by autograd of the naive formula, by poison in hidden places."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmha import reference
from mmha.reference import Gradients, Rule, blocks

B, H, HK, TQ, TK, D, DV = 2, 6, 3, 5, 7, 11, 13
EPS = 1e-14


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """q, k, v, a mask with one fully hidden row, and an additive tensor (H, 1, Tk)."""
    torch.manual_seed(seed)
    q, k, v = (torch.randn(shape, dtype=torch.float64) for shape in ((B, H, TQ, D), (B, HK, TK, D), (B, HK, TK, DV)))
    visible = torch.rand(B, 1, TQ, TK) > 0.4
    visible[0, 0, 2] = False
    return q, k, v, visible, torch.randn(H, 1, TK, dtype=torch.float64)


def by_hand(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, additive: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The formula for every number, with `math` and exact sums only."""
    out, lse = torch.zeros(B, H, TQ, DV, dtype=torch.float64), torch.full((B, H, TQ), -math.inf, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            for i in range(TQ):
                keys = [j for j in range(TK) if visible[b, 0, i, j]]
                rows = {j: k[b, h // (H // HK), j].tolist() for j in keys}
                s = {
                    j: scale * math.fsum(x * y for x, y in zip(q[b, h, i].tolist(), rows[j], strict=True))
                    + additive[h, 0, j].item()
                    for j in keys
                }
                if not keys:
                    continue
                total = math.fsum(math.exp(x) for x in s.values())
                lse[b, h, i] = math.log(total)
                for d in range(DV):
                    out[b, h, i, d] = math.fsum(
                        math.exp(s[j]) / total * v[b, h // (H // HK), j, d].item() for j in keys
                    )
    return out, lse


def naive(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, additive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The formula in torch, for autograd: grouped heads repeated, hidden rows cut out of the graph."""
    s = q @ k.repeat_interleave(H // HK, 1).mT / math.sqrt(D) + additive
    alive = visible.any(-1, keepdim=True)
    s = s.masked_fill(~visible & alive, -math.inf)
    w = torch.softmax(s, -1) * alive
    lse = torch.logsumexp(s, -1).masked_fill(~alive[..., 0], 0.0)
    return w @ v.repeat_interleave(H // HK, 1), lse, w


def test_forward_against_loops() -> None:
    q, k, v, visible, additive = problem()
    out, lse, _ = reference.attention(q, k, v, Rule(visible, additive, scale=0.3))
    expected_out, expected_lse = by_hand(q, k, v, visible, additive, 0.3)
    torch.testing.assert_close(out, expected_out, atol=EPS, rtol=EPS)
    torch.testing.assert_close(lse, expected_lse, atol=EPS, rtol=EPS)


def test_default_scale_and_weights() -> None:
    q, k, v, visible, additive = problem()
    _, lse, weights = reference.attention(q, k, v, Rule(visible, additive), return_weights=True)
    expected = naive(q, k, v, visible, additive)
    assert weights is not None
    torch.testing.assert_close(weights, expected[2], atol=EPS, rtol=EPS)
    torch.testing.assert_close(weights.sum(-1), visible.any(-1).expand(B, H, TQ).double(), atol=EPS, rtol=EPS)
    assert (lse[0, :, 2] == -math.inf).all()
    assert not weights[0, :, 2].any()


def test_gradients_against_autograd() -> None:
    q, k, v, visible, additive = problem()
    inputs = [x.clone().requires_grad_() for x in (q, k, v, additive)]
    results = naive(*inputs[:3], visible, inputs[3])
    grads = [torch.randn_like(x) for x in results]
    wanted = torch.autograd.grad(results, inputs, grads)
    got = reference.gradients(q, k, v, Gradients(*grads), Rule(visible, additive))
    assert got[4:] == (None, None, None)
    for have, want in zip(got[:4], wanted, strict=True):
        assert have is not None
        torch.testing.assert_close(have, want, atol=EPS, rtol=EPS)


@pytest.mark.parametrize("which", [("out",), ("lse",), ("weights",), ("out", "weights")])
def test_absent_gradients_count_as_zero(which: tuple[str, ...]) -> None:
    q, k, v, visible, additive = problem()
    shapes = {"out": (B, H, TQ, DV), "lse": (B, H, TQ), "weights": (B, H, TQ, TK)}
    some = {name: torch.randn(shapes[name], dtype=torch.float64) for name in which}
    zeros = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    rule = Rule(visible, additive)
    short = reference.gradients(q, k, v, Gradients(**some), rule)
    full = reference.gradients(q, k, v, Gradients(**{**zeros, **some}), rule)
    for have, want in zip(short, full, strict=True):
        torch.testing.assert_close(have, want, atol=EPS, rtol=EPS)


def test_row_chunks_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, visible, additive = problem()
    grads = Gradients(torch.randn(B, H, TQ, DV), torch.randn(B, H, TQ), torch.randn(B, H, TQ, TK))
    whole = reference.attention(q, k, v, Rule(visible, additive), return_weights=True)
    whole_grads = reference.gradients(q, k, v, grads, Rule(visible, additive))
    monkeypatch.setattr(blocks, "ROW_ELEMENTS", 2 * TK)
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 5 * TK)  # two key heads at a time
    asked: list[tuple[int, int]] = []

    def rows(start: int, stop: int) -> Tensor:
        asked.append((start, stop))
        return visible[:, :, start:stop]

    for rule in (Rule(visible, additive), Rule(rows, additive)):
        parts = reference.attention(q, k, v, rule, return_weights=True)
        part_grads = reference.gradients(q, k, v, grads, rule)
        for have, want in zip((*parts, *part_grads), (*whole, *whole_grads), strict=True):
            torch.testing.assert_close(have, want, atol=EPS, rtol=EPS)
    assert asked == [(0, 2), (2, 4), (4, 5)] * 2


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_hidden_numbers_have_no_influence(poison: float) -> None:
    q, k, v, visible, additive = problem()
    visible[:, :, :, 3] = False  # nobody sees key 3; row 2 of batch 0 sees nothing
    visible[:, :, 4, 1], visible[:, :, 0, 1] = False, True  # key 1 is visible to some rows only
    grads = [torch.randn(B, H, TQ, DV), torch.randn(B, H, TQ), torch.randn(B, H, TQ, TK)]
    rule = Rule(visible, additive)
    clean = reference.attention(q, k, v, rule, return_weights=True)
    clean_grads = reference.gradients(q, k, v, Gradients(*grads), rule)
    for x in (k, v):
        x[:, :, 3] = poison
    additive[:, :, 3] = poison
    for x in (q, *grads):
        x[0, :, 2] = poison
    grads[2][..., 3] = poison
    for have, want in zip(reference.attention(q, k, v, rule, return_weights=True), clean, strict=True):
        assert torch.equal(have, want)  # type: ignore[arg-type]
    for have, want in zip(reference.gradients(q, k, v, Gradients(*grads), rule)[:4], clean_grads[:4], strict=True):
        assert torch.equal(have, want)  # type: ignore[arg-type]
    v[:, :, 1] = poison
    out = reference.attention(q, k, v, rule)[0]
    sees = visible[..., 1].expand(B, H, TQ)
    assert not out[sees].isfinite().any()
    assert out[~sees].isfinite().all()


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_poisoned_row_poisons_only_what_it_sees(poison: float) -> None:
    q, k, v, visible, additive = problem()
    visible[:, :, 4, 1] = False
    grads = [torch.randn(B, H, TQ, DV), torch.randn(B, H, TQ), torch.randn(B, H, TQ, TK)]
    clean = reference.gradients(q, k, v, Gradients(*grads), Rule(visible, additive))
    for x in (q, *grads):
        x[:, :, 4] = poison
    weights = reference.attention(q, k, v, Rule(visible, additive), return_weights=True)[2]
    assert weights is not None
    assert not weights.masked_fill(visible, 0.0).any()
    dirty = reference.gradients(q, k, v, Gradients(*grads), Rule(visible, additive))
    assert dirty[2].isnan().any()
    for have, want in zip(dirty[1:3], clean[1:3], strict=True):
        assert torch.equal(have[:, :, 1], want[:, :, 1])
    assert torch.equal(dirty[0][:, :, :4], clean[0][:, :, :4])


def test_an_additive_minus_infinity_hides() -> None:
    q, k, v, visible, additive = problem()
    k[:, :, 2], v[:, :, 2] = math.nan, math.inf
    additive = additive.expand(B, H, TQ, TK).masked_fill(~visible, -math.inf)
    additive[..., 2] = -math.inf
    visible[..., 2] = False
    finite = additive.masked_fill(additive == -math.inf, 0.0)
    grad = Gradients(torch.randn(B, H, TQ, DV))
    for have, want in zip(
        (
            *reference.attention(q, k, v, Rule(None, additive))[:2],
            *reference.gradients(q, k, v, grad, Rule(None, additive)),
        ),
        (
            *reference.attention(q, k, v, Rule(visible, finite))[:2],
            *reference.gradients(q, k, v, grad, Rule(visible, finite)),
        ),
        strict=True,
    ):
        torch.testing.assert_close(have, want, atol=EPS, rtol=EPS)


@pytest.mark.parametrize(
    "shape",
    [(0, 6, 5, 7, 11, 13), (2, 0, 5, 7, 11, 13), (2, 6, 0, 7, 11, 13), (2, 6, 5, 0, 11, 13), (2, 6, 5, 7, 0, 0)],
)
def test_empty_dimensions(shape: tuple[int, ...]) -> None:
    batch, heads, q_len, k_len, dim, value_dim = shape
    q, k, v = (
        torch.randn(batch, heads, q_len, dim),
        torch.randn(batch, heads // 2, k_len, dim),
        torch.randn(batch, heads // 2, k_len, value_dim),
    )
    out, lse, weights = reference.attention(q, k, v, return_weights=True)
    assert out.shape == (batch, heads, q_len, value_dim)
    assert weights is not None
    assert weights.shape == (batch, heads, q_len, k_len)
    torch.testing.assert_close(
        lse, torch.full((batch, heads, q_len), math.log(k_len) if k_len else -math.inf).double(), atol=9.0, rtol=0.0
    )
    dq, dk, dv, added, *_ = reference.gradients(q, k, v, Gradients(out, lse, weights))
    assert (dq.shape, dk.shape, dv.shape, added) == (q.shape, k.shape, v.shape, None)
    assert not out.isnan().any()
    assert not dq.isnan().any()


def test_no_query_head_for_some_key_heads() -> None:
    q, k, v = torch.randn(B, 0, TQ, D), torch.randn(B, HK, TK, D), torch.randn(B, HK, TK, DV)
    out, lse, _ = reference.attention(q, k, v)
    assert (out.shape, lse.shape) == ((B, 0, TQ, DV), (B, 0, TQ))
    dq, dk, dv, *_ = reference.gradients(q, k, v, Gradients(out, lse))
    assert dq.shape == q.shape
    assert not dk.any()
    assert not dv.any()
