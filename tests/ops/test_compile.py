"""The operators under torch's own checks, torch.compile, torch.export and torch.func."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor

import mmha.ops
from mmha.masks import Causal, Dense, Documents, KeyPadding, Keys, Prefix, Window

B, H, HK, TQ, TK, D, DV = 2, 6, 3, 5, 7, 11, 13

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch about itself while it compiles


def inputs(dtype: torch.dtype = torch.float32, grad: bool = True, length: int = TK) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = ((B, H, TQ, D), (B, HK, length, D), (B, HK, length, DV))
    return tuple(torch.randn(shape).to(dtype).requires_grad_(grad) for shape in shapes)  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


MASK_CALLS = {
    "full": ("Full()", [], None),
    "padding": ("Causal() & KeyPadding($0)", [torch.tensor([3, 7])], None),
    "q_start": ("Causal() & Window(3)", [], torch.tensor([1, -1])),
    "bool tensor": ("$0", [torch.rand(B, 1, TQ, TK) > 0.4], torch.tensor(2)),
}


@pytest.mark.parametrize("call", MASK_CALLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_opcheck_of_the_kernel_operators(call: str, dtype: torch.dtype) -> None:
    spec, tensors, q_start = MASK_CALLS[call]
    q, k, v = inputs(dtype)
    torch.library.opcheck(torch.ops.mmha.attention_forward.default, (q, k, v, tensors, spec, q_start, 0.3))
    with torch.no_grad():
        saved = [q, k, v, *torch.ops.mmha.attention_forward(q, k, v, tensors, spec, q_start, None)]
        args = (saved, torch.randn_like(saved[3]), torch.randn_like(saved[4]), tensors, spec, q_start, None)
        torch.library.opcheck(torch.ops.mmha.attention_backward.default, args)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize(
    "additive", [None, torch.randn(H, TQ, TK), torch.zeros(TQ, 1)], ids=["none", "numbers", "zeros"]
)
def test_opcheck_of_the_reference_operators(additive: Tensor | None, weights: bool) -> None:
    q, k, v = inputs()
    additive = None if additive is None else additive.clone().requires_grad_()
    mask = ([torch.tensor([3, 7])], "KeyPadding($0)", None, None)
    if additive is not None:
        mask = ([], "Full()", None, None)
    torch.library.opcheck(torch.ops.mmha.attention_reference_forward.default, (q, k, v, additive, weights, *mask))
    with torch.no_grad():
        *saved, made = [q, k, v, *torch.ops.mmha.attention_reference_forward(q, k, v, additive, weights, *mask)]
        grads = [torch.randn_like(saved[3]), None, torch.randn_like(made) if weights else None]
        args = (saved, additive, grads, additive is not None, *mask)
        torch.library.opcheck(torch.ops.mmha.attention_reference_backward.default, args)


OUTSIDE = Causal() & Window(3) & KeyPadding([3, 7])
LENGTHS = torch.tensor([3, 7])
REAL = torch.rand(B, TK) > 0.3
VISIBLE = torch.rand(TQ, TK) > 0.3

COMPILED: dict[str, Callable[..., Any]] = {
    "no mask": lambda q, k, v: mmha.attention(q, k, v),
    "mask outside": lambda q, k, v: mmha.attention(q, k, v, OUTSIDE),
    "mask inside": lambda q, k, v: mmha.attention(q, k, v, (Causal() & Window(3)) | Prefix(2)),
    "tensor inside": lambda q, k, v: mmha.attention(q, k, v, Causal() & KeyPadding(LENGTHS) & Keys(REAL)),
    "documents inside": lambda q, k, v: mmha.attention(q, k, v, Documents((torch.arange(TK) // 3).expand(B, TK))),
    "dense inside": lambda q, k, v: mmha.attention(q, k, v, Dense(VISIBLE) | Causal()),
    "bool tensor": lambda q, k, v: mmha.attention(q, k, v, VISIBLE),
    "float tensor": lambda q, k, v: mmha.attention(q, k, v, torch.arange(TK) * 0.1),
    "lse, scale, q_start": lambda q, k, v: mmha.attention(q, k, v, Causal(), scale=0.3, q_start=1, return_lse=True),
    "weights": lambda q, k, v: mmha.attention(q, k, v, Causal(), return_lse=True, return_weights=True),
    "among other things": lambda q, k, v: mmha.attention(q.sin(), k * 2, v + k.mean(), Causal()).cos(),
}


def results(function: Callable[..., Any], *x: Tensor) -> list[Tensor]:
    """What comes out, and the gradients of q, k and v."""
    out = function(*x)
    out = out if isinstance(out, tuple) else (out,)
    loss = sum((o.float().nan_to_num(0.0, 0.0, 0.0) * torch.linspace(1, 2, o.shape[-1])).sum() for o in out)
    return [*out, *torch.autograd.grad(loss, x)]


@pytest.mark.parametrize("case", COMPILED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compile_fullgraph(case: str, dtype: torch.dtype) -> None:
    function, x = COMPILED[case], inputs(dtype)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for have, want in zip(results(compiled, *x), results(function, *x), strict=True):
        assert have.dtype == want.dtype
        torch.testing.assert_close(have, want)


@pytest.mark.parametrize("case", ["mask outside", "tensor inside", "weights"])
def test_compile_with_inductor(case: str) -> None:
    function, x = COMPILED[case], inputs()
    for have, want in zip(results(torch.compile(function, fullgraph=True), *x), results(function, *x), strict=True):
        torch.testing.assert_close(have, want)


def test_lengths_as_an_input_of_the_graph() -> None:
    def function(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
        return mmha.attention(q, k, v, Causal() & KeyPadding(lengths))

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    q, k, v = inputs()
    for lengths in ([3, 7], [1, 2], [0, 7]):
        made = torch.tensor(lengths)
        assert torch.equal(compiled(q, k, v, made), function(q, k, v, made))
    made = torch.tensor([3, 7])
    for _ in range(2):  # the same tensor, written between two calls
        assert torch.equal(compiled(q, k, v, made), mmha.attention(q, k, v, Causal() & KeyPadding(made)))
        made -= 1


def test_dynamic_lengths_compile_once() -> None:
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(COMPILED["mask inside"], fullgraph=True, dynamic=True, backend=counter)
    frames = []
    for length in (7, 9, 13):
        x = inputs(length=length)
        assert torch.equal(compiled(*x), COMPILED["mask inside"](*x))
        frames.append(counter.frame_count)
    assert frames == frames[:1] * 3


def test_autocast_inside_a_compiled_function() -> None:
    def function(*x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return mmha.attention(*x, Causal())

    x = inputs()
    have, want = torch.compile(function, fullgraph=True, backend="aot_eager")(*x), function(*x)
    assert have.dtype == want.dtype == torch.bfloat16
    assert torch.equal(have, want)


def test_bad_input_is_refused_while_compiling() -> None:
    compiled = torch.compile(COMPILED["no mask"], fullgraph=True, backend="aot_eager")
    q, k, v = inputs()
    with pytest.raises(Exception, match="expected the batch size of q, 2"):
        compiled(q, k[:1], v)


class Module(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mask = Causal() & KeyPadding([3, 7])

    def forward(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
        return mmha.attention(q, k, v, self.mask) + mmha.attention(q, k, v, KeyPadding(lengths) | Causal())


@pytest.mark.parametrize("strict", [False, True])
def test_export_saves_and_loads(strict: bool) -> None:
    x = (*inputs(grad=False), torch.tensor([5, 2]))
    program = torch.export.export(Module(), x, strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    assert torch.equal(loaded(*x), Module()(*x))
    other = (*x[:3], torch.tensor([1, 7]))
    assert torch.equal(loaded(*other), Module()(*other))


def test_torch_func_grad() -> None:
    x = inputs(grad=False)
    got = torch.func.grad(lambda *t: mmha.attention(*t, Causal()).cos().sum(), argnums=(0, 1, 2))(*x)
    leaves = inputs()
    want = torch.autograd.grad(mmha.attention(*leaves, Causal()).cos().sum(), leaves)
    for have, expected in zip(got, want, strict=True):
        assert torch.equal(have, expected)


def test_the_profiler_sees_the_operator() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        mmha.attention(*inputs(), Causal())
    assert any("mmha::attention_forward" in event.key for event in profile.key_averages())


def test_jit_trace_records_the_operator() -> None:
    x, other = inputs(grad=False), tuple(t.cos() for t in inputs(grad=False))
    traced = torch.jit.trace(COMPILED["mask outside"], x, check_trace=False)
    assert torch.equal(traced(*other), COMPILED["mask outside"](*other))


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
