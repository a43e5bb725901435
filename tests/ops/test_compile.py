"""Attention under torch.compile, torch.export and torch.func."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor

import mmha
from feature_zoo import FEATURES, arguments_of
from mmha.bias import Additive, ALiBi, Relative
from mmha.masks import Causal, Dense, Documents, KeyPadding, Keys, Prefix, Window

B, H, HK, TQ, TK, D, DV = 2, 6, 3, 5, 7, 11, 13
SIZES = (B, H, TQ, TK)

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch about itself while it compiles


def inputs(dtype: torch.dtype = torch.float32, grad: bool = True, length: int = TK) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = ((B, H, TQ, D), (B, HK, length, D), (B, HK, length, DV))
    return tuple(torch.randn(shape).to(dtype).requires_grad_(grad) for shape in shapes)  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Nothing compiled before counts: torch keeps backward graphs on disk and does not see that an operator changed."""
    torch._dynamo.reset()
    with torch._functorch.config.patch(enable_autograd_cache=False):
        yield
    torch._dynamo.reset()


OUTSIDE = Causal() & Window(3) & KeyPadding([3, 7])
LENGTHS = torch.tensor([3, 7])
REAL = torch.rand(B, TK) > 0.3
VISIBLE = torch.rand(TQ, TK) > 0.3
ALIBI, TABLE, SINKS = ALiBi(torch.rand(H)), torch.randn(H, 5), torch.randn(H)
BIASED = ALIBI + Relative(TABLE)

COMPILED: dict[str, Callable[..., Any]] = {
    "no mask": lambda q, k, v: mmha.attention(q, k, v),
    "mask outside": lambda q, k, v: mmha.attention(q, k, v, OUTSIDE),
    "mask inside": lambda q, k, v: mmha.attention(q, k, v, (Causal() & Window(3)) | Prefix(2)),
    "tensor inside": lambda q, k, v: mmha.attention(q, k, v, Causal() & KeyPadding(LENGTHS) & Keys(REAL)),
    "documents inside": lambda q, k, v: mmha.attention(q, k, v, Documents((torch.arange(TK) // 3).expand(B, TK))),
    "dense inside": lambda q, k, v: mmha.attention(q, k, v, Dense(VISIBLE) | Causal()),
    "bool tensor": lambda q, k, v: mmha.attention(q, k, v, VISIBLE),
    "float tensor": lambda q, k, v: mmha.attention(q, k, v, torch.arange(TK) * 0.1),
    "float tensor that hides": lambda q, k, v: mmha.attention(q, k, v, torch.arange(TK).sub(2.0).clamp_min(0.0).log()),
    "float tensor of 0 and -inf": lambda q, k, v: mmha.attention(q, k, v, torch.where(VISIBLE, 0.0, -torch.inf)),
    "bias outside": lambda q, k, v: mmha.attention(q, k, v, Causal(), bias=BIASED),
    "bias inside": lambda q, k, v: mmha.attention(q, k, v, bias=ALiBi(SINKS.abs()) + Additive(torch.arange(TK) * 0.1)),
    "bias of the inputs": lambda q, k, v: mmha.attention(q, k, v, bias=Additive(q.mean(-1, keepdim=True).float())),
    "softcap, sinks": lambda q, k, v: mmha.attention(q, k, v, Causal(), softcap=2.0, sinks=SINKS),
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_weights_in_16_bits_compile_to_the_same_gradients(dtype: torch.dtype) -> None:
    """To the bit: what rounding took away from the output goes to the backward here as well."""
    x = inputs(dtype)
    compiled = torch.compile(COMPILED["weights"], fullgraph=True, backend="aot_eager")
    for have, want in zip(results(compiled, *x), results(COMPILED["weights"], *x), strict=True):
        assert torch.equal(have, want)


def test_the_operators_say_that_they_compile() -> None:
    with torch._dynamo.config.patch(only_allow_pt2_compliant_ops=True):
        compiled = torch.compile(COMPILED["weights"], fullgraph=True, backend="aot_eager")
        assert len(results(compiled, *inputs())) == 6


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


def test_biases_of_dynamic_sizes() -> None:
    def function(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, table: Tensor) -> Tensor:
        bias = ALiBi(slopes) + Relative(table) + Additive(k[:, :1, :, 0][:, None])
        return mmha.attention(q, k, v, Causal(), bias=bias)

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for length in (7, 11):
        x = (*inputs(length=length), torch.rand(H).requires_grad_(), torch.randn(1, length).requires_grad_())
        for have, want in zip(results(compiled, *x), results(function, *x), strict=True):
            torch.testing.assert_close(have, want)


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
        self.table = torch.nn.Parameter(torch.randn(H, 5))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
        one = mmha.attention(q, k, v, self.mask, bias=Relative(self.table), sinks=self.table[:, 0], softcap=3.0)
        two = mmha.attention(q, k, v, KeyPadding(lengths) | Causal(), bias=ALIBI)
        return one + two + mmha.attention(q, k, v, self.table[:1, :1].expand(TQ, TK) * lengths[0])


@pytest.mark.parametrize("strict", [False, True])
def test_export_saves_and_loads(strict: bool) -> None:
    if strict and torch.__version__.startswith("2.9."):
        pytest.skip("torch 2.9 exports no program that holds a tensor outside its module")
    x, module = (*inputs(grad=False), torch.tensor([5, 2])), Module()
    program = torch.export.export(module, x, strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    assert torch.equal(loaded(*x), module(*x))
    other = (*x[:3], torch.tensor([1, 7]))
    assert torch.equal(loaded(*other), module(*other))


def leaves_of(name: str) -> list[Tensor]:
    return list(FEATURES[name].make(SIZES).values())


def featured(name: str) -> Callable[..., Any]:
    """Attention with a feature, as a function of q, k, v and the feature's leaves."""
    names, numbers = tuple(FEATURES[name].make(SIZES)), FEATURES[name].numbers
    return lambda q, k, v, *leaves: mmha.attention(
        q, k, v, **arguments_of(dict(zip(names, leaves, strict=True)), numbers)
    )


FEATURED = {name: featured(name) for name in ("float mask", "everything")}


@pytest.mark.parametrize("name", FEATURED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_of_everything_through_a_compiled_function(name: str, dtype: torch.dtype) -> None:
    x = (*inputs(dtype), *leaves_of(name))
    compiled = torch.compile(FEATURED[name], fullgraph=True, backend="aot_eager")
    both = []
    for function in (compiled, FEATURED[name]):
        torch.manual_seed(37)
        both.append(results(function, *x))
    for have, want in zip(*both, strict=True):
        assert have.dtype == want.dtype
        torch.testing.assert_close(have, want)


@pytest.mark.parametrize("name", FEATURED)
def test_torch_func_grad_of_everything(name: str) -> None:
    x = (*inputs(), *leaves_of(name))
    torch.manual_seed(41)
    want = torch.autograd.grad(FEATURED[name](*x).cos().sum(), x)
    torch.manual_seed(41)
    free = [t.detach() for t in x]
    got = torch.func.grad(lambda *t: FEATURED[name](*t).cos().sum(), argnums=tuple(range(len(x))))(*free)
    for have, expected in zip(got, want, strict=True):
        assert torch.equal(have, expected)


def test_torch_func_grad() -> None:
    x = inputs(grad=False)
    got = torch.func.grad(lambda *t: mmha.attention(*t, Causal()).cos().sum(), argnums=(0, 1, 2))(*x)
    leaves = inputs()
    want = torch.autograd.grad(mmha.attention(*leaves, Causal()).cos().sum(), leaves)
    for have, expected in zip(got, want, strict=True):
        assert torch.equal(have, expected)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_function_draws_anew_and_goes_back_the_same_way(backend: str) -> None:
    """With a seed the output is linear in v: <out, g> = <v, dv> says that backward dropped what forward did."""
    x = [t.detach().double().requires_grad_() for t in inputs()]
    compiled = torch.compile(lambda *t: mmha.attention(*t, OUTSIDE, dropout_p=0.5), fullgraph=True, backend=backend)
    torch.manual_seed(19)
    first, second = compiled(*x), compiled(*x)
    assert not torch.equal(first, second)
    for out in (first, second):
        g = torch.randn(out.shape, dtype=out.dtype)
        (dv,) = torch.autograd.grad(out, x[2], g)
        torch.testing.assert_close((out * g).sum(), (x[2] * dv).sum())
    torch.manual_seed(19)
    assert torch.equal(compiled(*x), first)
    if backend == "aot_eager":
        torch.manual_seed(19)
        assert torch.equal(mmha.attention(*x, OUTSIDE, dropout_p=0.5), first)


def test_an_exported_program_draws_its_seed() -> None:
    class Module(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return mmha.attention(q, k, v, OUTSIDE, dropout_p=0.5)

    x = tuple(t.detach() for t in inputs())
    program = torch.export.export(Module(), x).module()
    torch.manual_seed(2)
    have = program(*x)
    torch.manual_seed(2)
    assert torch.equal(have, Module()(*x))
    assert not torch.equal(have, program(*x))
