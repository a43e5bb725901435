"""`linear` and `project`: torch's products and gradients, whoever computes them, and nothing of a module passed by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mmha.nn import Linear, MultiheadAttention, TransformerEncoderLayer
from mmha.nn import linear as module
from mmha.nn.linear import FEWEST_ARRANGED, FEWEST_PRODUCTS, Arranged, linear, project

ROWS, K, M = 83, 211, 241
assert ROWS * K * M >= FEWEST_PRODUCTS

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not (torch._C.has_mkl and torch._C._has_mkldnn), reason="torch without MKL or oneDNN"),
]


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that tells who made the CPU: AMD, unless the test writes into it."""
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nvendor_id\t: AuthenticAMD\n", encoding="utf-8")
    monkeypatch.setattr(module, "CPU_FACTS", path)
    module._is_slow_on_mkl.cache_clear()
    yield path
    module._is_slow_on_mkl.cache_clear()


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


def derivatives(out: Tensor, leaves: list[Tensor], toward: Tensor) -> list[Tensor]:
    """The gradients, and that of their squares' sum in the first leaf."""
    first = torch.autograd.grad(out, leaves, toward, create_graph=True)
    total = torch.stack([g.square().sum() for g in first]).sum()
    return [out, *first, *torch.autograd.grad(total, leaves[:1])]


@pytest.mark.parametrize("shape", [(ROWS, K), (3, 29, K), (2, 3, 17, K)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_product_and_gradients_are_those_of_float64(vendor: Path, shape: tuple[int, ...], with_bias: bool) -> None:
    leaves = [drawn(*shape), drawn(M, K)] + [drawn(M)] * with_bias
    toward = torch.randn(*shape[:-1], M)
    out = linear(*leaves)
    node = out.grad_fn if out.dim() == 2 else out.grad_fn.next_functions[0][0]
    assert type(node).__name__ == "_LinearBackward"
    exact = [x.detach().double().requires_grad_() for x in leaves]
    wanted = derivatives(F.linear(*exact), exact, toward.double())
    assert all(g.is_contiguous() for g in torch.autograd.grad(out, leaves, toward, retain_graph=True))
    for ours, theirs in zip(derivatives(out, leaves, toward), wanted, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).norm() <= 2e-6 * theirs.norm()


@pytest.mark.parametrize("which", ["x", "weight", "both", "rows", "gradient"])
def test_inputs_that_lie_otherwise_in_memory(vendor: Path, which: str) -> None:
    x = drawn(K, ROWS).t() if which in ("x", "both") else drawn(ROWS * 2, K)[::2] if which == "rows" else drawn(ROWS, K)
    weight = drawn(K, M).t() if which in ("weight", "both") else drawn(M, K)
    toward = torch.randn(1, 1).expand(ROWS, M) if which == "gradient" else torch.randn(M, ROWS).t()
    ours = torch.autograd.grad(linear(x, weight), (x, weight), toward)
    theirs = torch.autograd.grad(F.linear(x.double(), weight.double()), (x, weight), toward.double())
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= 2e-6 * b.norm()


@pytest.mark.parametrize("frozen", range(3))
def test_only_the_gradients_that_are_wanted(vendor: Path, frozen: int) -> None:
    leaves = [drawn(ROWS, K), drawn(M, K), drawn(M)]
    leaves[frozen].requires_grad_(False)
    linear(*leaves).sum().backward()
    assert [x.grad is None for x in leaves] == [n == frozen for n in range(3)]


def test_without_gradients_the_numbers_are_the_same(vendor: Path) -> None:
    x, weight, bias = drawn(ROWS, K), drawn(M, K), drawn(M)
    out = linear(x, weight, bias).detach()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert linear(x, weight, bias).equal(out)
    assert checkpoint(linear, x, weight, bias, use_reentrant=False).equal(out)


def test_torch_computes_what_is_not_for_us(vendor: Path) -> None:
    x, weight, bias = torch.randn(ROWS, K), torch.randn(M, K), torch.randn(M)
    assert linear(x[:7], weight, bias).equal(F.linear(x[:7], weight, bias)), "few rows"
    assert linear(x[:0], weight, bias).shape == (0, M)
    assert linear(x[0], weight, bias).equal(F.linear(x[0], weight, bias)), "a vector"
    half = linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16())
    assert half.equal(F.linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16()))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    with FlopCounterMode(display=False) as counter:
        linear(x, weight)
    assert counter.get_total_flops() == 2 * ROWS * K * M
    assert torch.func.vmap(linear, (0, None))(x[None], weight).equal(F.linear(x, weight)[None])


@pytest.mark.parametrize("rows", [0, 1, 2, 11, 83, 128])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_an_arranged_matrix_gives_products_of_any_number_of_rows(
    vendor: Path, rows: int, with_bias: bool, relu: bool
) -> None:
    x, weight, bias = torch.randn(rows, K), torch.randn(5 * M, K), torch.randn(5 * M) if with_bias else None
    made = Arranged(weight, bias, rows=11, relu=relu)
    assert made.arranged is not None
    out = made(x)
    wanted = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    wanted = wanted.relu() if relu else wanted
    assert (out - wanted).norm() <= 2e-6 * wanted.norm()
    by_torch = rows * K * 5 * M < FEWEST_ARRANGED * (2 if rows == 1 else 1)
    theirs = F.linear(x, weight, bias)
    assert out.equal(theirs.relu() if relu else theirs) == by_torch


@pytest.mark.parametrize("rows", [1, 2, 67])
def test_a_matrix_read_from_afar_is_arranged_though_it_is_small(vendor: Path, rows: int) -> None:
    x, weight, bias = torch.randn(rows, 257), torch.randn(160, 257), torch.randn(160)
    made = Arranged(weight, bias, rows=4, is_far=True)
    assert made.arranged is not None
    assert Arranged(weight, bias, rows=4).arranged is None
    wanted = F.linear(x.double(), weight.double(), bias.double())
    assert (made(x) - wanted).norm() <= 2e-6 * wanted.norm()


@pytest.mark.parametrize("rows", [0, 1, 83])
@pytest.mark.parametrize("relu", [True, False])
def test_an_arranged_matrix_in_bfloat16_rounds_what_it_takes_and_gives(vendor: Path, rows: int, relu: bool) -> None:
    x, weight, bias = torch.randn(rows, K), torch.randn(5 * M, K), torch.randn(5 * M)
    made = Arranged(weight, bias, rows=11, relu=relu, dtype=torch.bfloat16)
    assert made.arranged is not None
    out = made(x)
    wanted = F.linear(x.bfloat16().double(), weight.bfloat16().double(), bias.bfloat16().double())
    wanted = wanted.relu() if relu else wanted
    assert out.dtype == torch.float32
    assert out.bfloat16().float().equal(out)
    assert (out - wanted).norm() <= 2**-8 * wanted.norm()


def test_an_arranged_matrix_is_that_of_its_time_and_has_no_gradient(vendor: Path) -> None:
    weight, x = drawn(5 * M, K), torch.randn(11, K)
    made = Arranged(weight, rows=11)
    before = made(x)
    assert not before.requires_grad
    asking = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(made(asking).sum(), asking)
    torch.testing.assert_close(gradient, weight.detach().sum(0).expand(11, K), rtol=1e-5, atol=1e-4)
    with torch.no_grad():
        weight.zero_()
    assert made(x).equal(before)
    with torch.autocast("cpu", torch.bfloat16):
        assert made(x).dtype == torch.bfloat16


def test_torch_multiplies_what_cannot_be_arranged(vendor: Path) -> None:
    x, weight = torch.randn(11, K), torch.randn(5 * M, K)
    for one in (weight.double(), weight.bfloat16(), weight[:0]):
        made = Arranged(one, rows=11)
        assert made.arranged is None
        assert made(x.to(one.dtype)).equal(F.linear(x.to(one.dtype), one))
    vendor.write_text("vendor_id\t: GenuineIntel\n", encoding="utf-8")
    module._is_slow_on_mkl.cache_clear()
    assert Arranged(weight, rows=11)(x).equal(F.linear(x, weight))


def test_on_an_intel_cpu_torch_computes_all(vendor: Path) -> None:
    x, weight = drawn(ROWS, K), drawn(M, K)
    vendor.write_text("vendor_id\t: GenuineIntel\n", encoding="utf-8")
    assert linear(x, weight).equal(F.linear(x, weight))
    assert type(linear(x, weight).grad_fn).__name__ == type(F.linear(x, weight).grad_fn).__name__
    vendor.unlink()
    module._is_slow_on_mkl.cache_clear()
    assert linear(x, weight).equal(F.linear(x, weight))


@pytest.mark.parametrize(
    ("x", "weight", "bias"), [((ROWS, K + 2), (M, K), (M,)), ((ROWS, K), (M, K), (M + 2,)), ((ROWS, K), (M, K, 1), ())]
)
def test_what_does_not_fit_is_refused_as_torch_does(
    vendor: Path, x: tuple[int, ...], weight: tuple[int, ...], bias: tuple[int, ...]
) -> None:
    with pytest.raises(RuntimeError) as theirs:
        F.linear(torch.zeros(x), torch.zeros(weight), torch.zeros(bias))
    with pytest.raises(RuntimeError) as ours:
        linear(torch.zeros(x), torch.zeros(weight), torch.zeros(bias))
    assert str(ours.value) == str(theirs.value)


def test_the_gradients_of_a_weight_used_twice_are_added_in_place(vendor: Path) -> None:
    x, weight = torch.randn(ROWS, K), drawn(M, K)
    loss = linear(x, weight).sum() + linear(x, weight).square().sum()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        loss.backward()
    added = {event.key for event in seen.key_averages(group_by_input_shape=True) if event.input_shapes[:1] == [[M, K]]}
    assert "aten::add_" in added
    assert "aten::add" not in added


def test_a_linear_layer_is_torch_s(vendor: Path) -> None:
    torch.manual_seed(3)
    theirs = nn.Linear(K, M)
    torch.manual_seed(3)
    ours = Linear(K, M)
    assert {n: x.tolist() for n, x in ours.state_dict().items()} == {
        n: x.tolist() for n, x in theirs.named_parameters()
    }
    x = torch.randn(ROWS, K)
    torch.testing.assert_close(ours(x), theirs(x))
    assert not ours(x).equal(theirs(x)), "oneDNN adds in another order than MKL"


@pytest.mark.parametrize("hook", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_hooks_of_a_layer_are_called(vendor: Path, hook: str) -> None:
    layer, called = nn.Linear(K, M), []
    getattr(layer, f"register_{hook}_hook")(lambda *_: called.append(hook))
    project(layer, drawn(ROWS, K)).sum().backward()
    assert called == [hook]


def test_hooks_of_all_modules_are_called(vendor: Path) -> None:
    called: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(lambda layer, *_: called.append(layer))
    layer = nn.Linear(K, M)
    try:
        project(layer, torch.zeros(ROWS, K))
    finally:
        handle.remove()
    assert called == [layer]


def test_onednn_gets_no_matrix_in_the_order_that_it_is_slow_with() -> None:
    x = torch.randn(7, 22)
    for given in (x[::2], x[:, ::2], x[:, :11], x[:1].expand(7, 22), x[:, :1].expand(7, 22), x.t()[::2]):
        made = module._dense(given)
        assert made.equal(given)
        assert made.is_contiguous() or made.t().is_contiguous()
    assert module._dense(x) is x
    assert (column := x.t()) is module._dense(column)


def test_what_took_a_layer_s_place_computes(vendor: Path) -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    x, layer = torch.randn(ROWS, K), nn.Linear(K, M)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(K, M))
    for changed in (Doubled(K, M), nn.Sequential(layer), normed):
        torch.testing.assert_close(project(changed, x), changed(x))
    layer.forward = lambda input: input[:, :1]  # type: ignore[method-assign]
    assert project(layer, x).equal(x[:, :1])


def test_a_whole_layer_gives_what_torch_s_gives(vendor: Path) -> None:
    theirs = nn.TransformerEncoderLayer(K, 1, M, dropout=0.0, batch_first=True)
    ours = TransformerEncoderLayer(K, 1, M, dropout=0.0, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    x, toward = drawn(3, 31, K), torch.randn(3, 31, K)
    found = [torch.autograd.grad(layer(x), (x, *layer.parameters()), toward) for layer in (ours, theirs)]
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() <= 2e-5 * b.norm()


def test_layers_of_drop_in_modules_stay_torch_s_own_for_tools_that_look_for_them() -> None:
    layer = TransformerEncoderLayer(6, 2, 10)
    assert type(layer.linear1) is type(layer.linear2) is nn.Linear
    assert type(MultiheadAttention(6, 2).out_proj) is type(nn.MultiheadAttention(6, 2).out_proj)
