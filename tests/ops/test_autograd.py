"""Gradients: finite differences, what is refused, and what a graph holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import mmha
from mmha.bias import Additive, ALiBi, Relative
from mmha.masks import Causal, KeyPadding, Queries, Window

B, H, HK, TQ, TK, D, DV = 2, 4, 2, 3, 5, 3, 2


def inputs() -> list[Tensor]:
    torch.manual_seed(0)
    shapes = ((B, H, TQ, D), (B, HK, TK, D), (B, HK, TK, DV))
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


MASKS = {
    "none": None,
    "causal": Causal(),
    "padding": Causal() & KeyPadding([2, 5]),
    "hidden rows": Queries([[True, False, True], [False, True, True]]) & Window(2),
    "bool": torch.rand(B, 1, TQ, TK) > 0.3,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("weights", [False, True], ids=["out", "weights"])
def test_gradcheck(mask: str, weights: bool) -> None:
    def function(*x: Tensor) -> tuple[Tensor, ...]:
        out, lse, *more = mmha.attention(*x, MASKS[mask], return_lse=True, return_weights=weights, scale=0.7)
        return out, lse.masked_fill(lse == -torch.inf, 0.0), *more

    assert torch.autograd.gradcheck(function, inputs())


def test_gradcheck_with_a_float_mask() -> None:
    mask = torch.randn(H, 1, TK, dtype=torch.float64)
    mask[1, 0, 2] = -torch.inf
    free = torch.randn(TQ, TK, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *x: mmha.attention(*x[:3], x[3] + mask), [*inputs(), free])


@pytest.mark.parametrize("weights", [False, True], ids=["kernel", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_gradient_of_a_gradient_is_refused_by_name(weights: bool, dtype: torch.dtype) -> None:
    x = [t.detach().to(dtype).requires_grad_() for t in inputs()]
    results = mmha.attention(*x, Causal(), return_lse=True, return_weights=weights)
    (dq,) = torch.autograd.grad(results[0].square().sum(), x[0], create_graph=True)
    assert dq.requires_grad
    with pytest.raises(RuntimeError, match=r"^mmha\.attention: the gradient of its gradient is not available"):
        dq.sum().backward()


def test_gradgradcheck_is_refused_by_name() -> None:
    with pytest.raises(RuntimeError, match=r"mmha\.attention: the gradient of its gradient is not available"):
        torch.autograd.gradgradcheck(lambda *x: mmha.attention(*x, Causal()), inputs())


def test_create_graph_gives_the_same_first_gradients() -> None:
    x = [t.detach().float().requires_grad_() for t in inputs()]
    plain = torch.autograd.grad(mmha.attention(*x, Causal()).sum(), x)
    watched = torch.autograd.grad(mmha.attention(*x, Causal()).sum(), x, create_graph=True)
    for a, b in zip(plain, watched, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("results", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_each_result_alone_can_be_differentiated(results: tuple[int, ...]) -> None:
    x = inputs()
    made = mmha.attention(*x, Causal(), return_lse=True, return_weights=True)
    parts = [torch.autograd.grad(made[i].sum(), x, retain_graph=True, allow_unused=True) for i in results]
    whole = torch.autograd.grad([made[i].sum() for i in results], x)
    for i, total in enumerate(whole):
        torch.testing.assert_close(total, sum(p[i] for p in parts))
    if 2 not in results:
        kernel = mmha.attention(*x, Causal(), return_lse=True)
        for have, want in zip(torch.autograd.grad([kernel[i].sum() for i in results], x), whole, strict=True):
            torch.testing.assert_close(have, want)


def test_a_shared_tensor_gets_the_sum() -> None:
    x = torch.randn(1, 2, 5, 8, requires_grad=True)
    (once,) = torch.autograd.grad(mmha.attention(x, x, x, Causal()).sum(), x)
    q, k, v = (x.detach().clone().requires_grad_() for _ in range(3))
    parts = torch.autograd.grad(mmha.attention(q, k, v, Causal()).sum(), (q, k, v))
    torch.testing.assert_close(once, parts[0] + parts[1] + parts[2])


def test_writing_into_what_the_graph_saved_is_noticed() -> None:
    q, k, v = (t.detach().float() for t in inputs())
    out = mmha.attention(q.requires_grad_(), k, v, Causal())
    k.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("part", ["sinks", "slopes", "table", "additive"])
def test_writing_into_a_part_that_the_graph_saved_is_noticed(part: str) -> None:
    q, k, v = inputs()
    x = torch.rand({"sinks": (H,), "slopes": (H,), "table": (H, 5), "additive": (TQ, TK)}[part]).requires_grad_()
    bias = {"slopes": ALiBi, "table": Relative, "additive": Additive}
    more = {"sinks": x} if part == "sinks" else {"bias": bias[part](x)}
    out = mmha.attention(q, k, v, **more)
    with torch.no_grad():
        x += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.filterwarnings("ignore")
def test_checkpointing() -> None:
    x = [t.detach().float().requires_grad_() for t in inputs()]
    out = torch.utils.checkpoint.checkpoint(lambda *t: mmha.attention(*t, Causal()), *x, use_reentrant=False)
    for have, want in zip(
        torch.autograd.grad(out.sum(), x), torch.autograd.grad(mmha.attention(*x, Causal()).sum(), x), strict=True
    ):
        assert torch.equal(have, want)
