"""Gradients of several outputs at a time are those taken one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian

import mmha
from mmha.bias import Additive
from mmha.masks import Causal


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("want_weights", [False, True])
def test_jacobian_of_several_rows_at_a_time(dtype: torch.dtype, want_weights: bool) -> None:
    inputs = [torch.randn(shape, dtype=dtype) for shape in ((2, 2, 3, 5), (2, 1, 7, 5), (2, 1, 7, 4), (2, 1, 3, 7))]

    def function(q: Tensor, k: Tensor, v: Tensor, added: Tensor) -> Any:
        return mmha.attention(q, k, v, Causal(), bias=Additive(added), return_lse=True, return_weights=want_weights)

    several = jacobian(function, tuple(inputs), vectorize=True)  # type: ignore[no-untyped-call]
    alone = jacobian(function, tuple(inputs))  # type: ignore[no-untyped-call]
    assert len(several) == len(alone) == 2 + want_weights
    for got, wanted in zip(several, alone, strict=True):
        assert [x.shape for x in got] == [x.shape for x in wanted]
        assert all(torch.equal(x, y) for x, y in zip(got, wanted, strict=True))


def test_a_batch_of_gradients_of_one_output() -> None:
    q = torch.randn(1, 2, 3, 5, requires_grad=True)
    out = mmha.attention(q, q, q)
    grads = torch.randn(7, *out.shape)
    (found,) = torch.autograd.grad(out, q, grads, is_grads_batched=True, retain_graph=True)
    alone = [torch.autograd.grad(out, q, grad, retain_graph=True)[0] for grad in grads]
    assert torch.equal(found, torch.stack(alone))
