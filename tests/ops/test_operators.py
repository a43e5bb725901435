"""The operators as torch knows them: their registration under torch's own checks, and who sees them being called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import mmha
from feature_zoo import FEATURES, additives_of
from mmha.masks import Causal, KeyPadding, Window
from mmha.ops.additive import split
from mmha.ops.autograd import KERNELS, WEIGHTS, Way
from mmha.ops.call import FLOAT, Call

B, H, HK, TQ, TK, D, DV = 2, 6, 3, 5, 7, 11, 13

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch about itself while it compiles


def inputs(dtype: torch.dtype = torch.float32, grad: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = ((B, H, TQ, D), (B, HK, TK, D), (B, HK, TK, DV))
    return tuple(torch.randn(shape).to(dtype).requires_grad_(grad) for shape in shapes)  # type: ignore[return-value]


def plain(mask: str = "Full()", tensors: tuple[Tensor, ...] = (), **more: Any) -> Call:
    return Call(list(tensors), mask, **more)


def rich(**more: Any) -> Call:
    """A call with everything in it."""
    leaves = FEATURES["everything"].make((B, H, TQ, TK))
    found = {name: leaves[name] for name in ("slopes", "table", "sinks")}
    additives = [leaves[name] for name in additives_of(leaves)]
    tensors = [x.detach() for x in split(leaves["mask"].detach())]
    return Call(
        tensors, FLOAT, additives=additives, softcap=2.5, dropout_p=0.2, seed=torch.tensor([7]), **found, **more
    )


CALLS: dict[str, Call] = {
    "full": plain(scale=0.3),
    "padding": plain("Causal() & KeyPadding($0)", (torch.tensor([3, 7]),)),
    "q_start": plain("Causal() & Window(3)", q_start=torch.tensor([1, -1])),
    "bool tensor": plain("$0", (torch.rand(B, 1, TQ, TK) > 0.4,), q_start=torch.tensor(2)),
    "everything": rich(),
    "everything, q_start": rich(q_start=torch.tensor([4, 1])),
    "zeros as a float mask": plain(FLOAT, split(torch.zeros(TQ, 1)), additives=[torch.zeros(TQ, 1)]),
}


@pytest.mark.parametrize(
    ("way", "dtype", "name"),
    [
        *((KERNELS, torch.float32, name) for name in CALLS),
        *((KERNELS, dtype, name) for dtype in (torch.float64, torch.bfloat16) for name in ("padding", "everything")),
        *((WEIGHTS, torch.float32, name) for name in ("bool tensor", "everything")),
        (WEIGHTS, torch.float16, "everything, q_start"),
    ],
    ids=lambda value: "kernels" if value is KERNELS else "weights" if value is WEIGHTS else str(value),
)
def test_opcheck(way: Way, dtype: torch.dtype, name: str) -> None:
    call, x = CALLS[name], inputs(dtype)
    torch.library.opcheck(way.forward, (*x, True, *call))
    with torch.no_grad():
        out, lse, *rest = way.forward(*x, True, *call)
        saved = [*x, out, lse, *rest] if rest[-1].numel() else [*x, out, lse, *rest[:-1]]
        weights_grad = torch.randn_like(rest[0]) if way is WEIGHTS else None
        grads = (torch.randn_like(out), None if way is WEIGHTS else torch.randn_like(lse), weights_grad)
        wanted = [part is not None for part in call.parts()]
        torch.library.opcheck(way.backward, (saved, *grads, wanted, *call))


def test_opcheck_of_float_mask() -> None:
    for mask in (torch.randn(TQ, TK), torch.zeros(H, 1, TK).permute(2, 0, 1), torch.tensor(-torch.inf)):
        torch.library.opcheck(torch.ops.mmha.float_mask.default, (mask,))


def _masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return mmha.attention(q, k, v, Causal() & Window(3) & KeyPadding([3, 7]))


def test_the_profiler_sees_the_operator() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        mmha.attention(*inputs(), Causal())
    assert any("mmha::attention_forward" in event.key for event in profile.key_averages())


def test_jit_trace_records_the_operator() -> None:
    x, other = inputs(grad=False), tuple(t.cos() for t in inputs(grad=False))
    traced = torch.jit.trace(_masked, x, check_trace=False)
    assert torch.equal(traced(*other), _masked(*other))


def test_a_dispatch_mode_sees_the_operators() -> None:
    class Log(torch.utils._python_dispatch.TorchDispatchMode):
        seen: tuple[str, ...] = ()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen += (str(func),)
            return func(*args, **(kwargs or {}))

    q, k, v = inputs()
    with Log() as log:
        torch.autograd.grad(mmha.attention(q, k, v, Causal()).sum(), q)
    assert "mmha.attention_forward.default" in log.seen
    assert "mmha.attention_backward.default" in log.seen


def test_a_fake_tensor_has_the_right_sizes() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        out, lse = mmha.attention(*inputs(), Causal(), return_lse=True)
    assert out.shape == (B, H, TQ, DV)
    assert lse.shape == (B, H, TQ)
