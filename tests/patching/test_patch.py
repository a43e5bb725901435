"""`mmha.patch`: torch's functions give torch's results, computed here; who is reached, who is not, what is put back."""

from __future__ import annotations

import asyncio
import contextlib
import doctest
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right, causal_upper_left
from torch.utils._python_dispatch import TorchDispatchMode

import mmha

TORCH = F.scaled_dot_product_attention
PLACES: list[tuple[Any, str]] = [
    (F, "scaled_dot_product_attention"),
    (F, "multi_head_attention_forward"),
    (torch.backends.mha, "get_fastpath_enabled"),
]
BEFORE = [getattr(module, name) for module, name in PLACES]
SEEN = (torch.arange(11) < 8).expand(5, 11)


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    """Whatever a test does, torch's own functions stand in their places after it."""
    yield
    mmha.patch.uninstall()
    assert [getattr(module, name) for module, name in PLACES] == BEFORE


def three(*leading: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(*leading, length, 7, dtype=dtype, requires_grad=True) for length in (5, 11, 11)]


class Recorder(TorchDispatchMode):
    """Notes the names of the operators that torch dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def operators(call: Callable[[], Any]) -> set[str]:
    """The operators that torch dispatches in a call."""
    with Recorder() as seen:
        call()
    return seen.names


def is_ours() -> bool:
    """Whether attention is computed here and now: NaN behind a mask reaches torch's results, and not ours."""
    q, k, v = torch.ones(2, 3, 5, 7), torch.ones(2, 3, 11, 7), torch.ones(2, 3, 11, 7)
    v[:, :, 9] = torch.nan
    return bool(F.scaled_dot_product_attention(q, k, v, SEEN).isfinite().all())


def both(call: Callable[[], Any]) -> tuple[Any, Any]:
    """What a call gives with the patch and without; with it, by our operator."""
    with mmha.patch():
        mine = call()
        assert any(name.startswith("mmha::attention") for name in operators(call))
    return mine, call()


CASES: list[tuple[Any, dict[str, Any]]] = [
    (None, {}),
    (SEEN, {}),
    (torch.zeros(5, 11).masked_fill(~SEEN, -torch.inf), {}),
    (torch.zeros(5, 11).masked_fill(~SEEN, torch.finfo(torch.float32).min), {}),
    (torch.linspace(-3, 2, 55).reshape(5, 11), {"scale": 0.3}),
    (None, {"is_causal": True}),
    (torch.ones(3, 5, 11, dtype=torch.bool).tril(), {"enable_gqa": True}),
]


@pytest.mark.parametrize(("mask", "kwargs"), CASES)
@pytest.mark.parametrize("leading", [(2, 3), (3,), (2, 2, 3)], ids=str)
def test_values_and_gradients(mask: Any, kwargs: dict[str, Any], leading: tuple[int, ...]) -> None:
    tensors = three(*leading)
    mine, theirs = both(lambda: F.scaled_dot_product_attention(*tensors, mask, **kwargs))
    torch.testing.assert_close(mine, theirs)
    towards = torch.randn_like(theirs)
    torch.testing.assert_close(*(torch.autograd.grad(x, tensors, towards) for x in (mine, theirs)))


def test_gradient_of_a_float_mask() -> None:
    tensors, mask = three(2, 3), torch.randn(3, 5, 11, requires_grad=True)
    mine, theirs = both(lambda: F.scaled_dot_product_attention(*tensors, mask))
    torch.testing.assert_close(*(torch.autograd.grad(x.square().sum(), mask) for x in (mine, theirs)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_and_autocast(dtype: torch.dtype) -> None:
    tensors = three(2, 3, dtype=dtype)
    mine, theirs = both(lambda: F.scaled_dot_product_attention(*tensors, SEEN))
    torch.testing.assert_close(mine, theirs, atol=2e-2, rtol=2e-2)
    tensors = three(2, 3)
    with torch.autocast("cpu", dtype):
        mine, theirs = both(lambda: F.scaled_dot_product_attention(*tensors, SEEN))
    torch.testing.assert_close(mine, theirs, atol=2e-2, rtol=2e-2)
    assert mine.dtype == dtype


def test_dropout_drops() -> None:
    q, k, v = torch.zeros(1, 2, 5, 7), torch.zeros(1, 2, 1000, 7), torch.ones(1, 2, 1000, 1)
    with mmha.patch():
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=0.25)
    assert 0.9 < float(out.mean()) < 1.1
    assert float(out.std()) > 0.001


PADDING = torch.arange(7) >= torch.tensor([7, 4, 5])[:, None]
UPPER = torch.ones(7, 7, dtype=torch.bool).triu(1)
MASKS: list[dict[str, Any]] = [
    {},
    {"key_padding_mask": PADDING},
    {"attn_mask": UPPER},
    {"attn_mask": UPPER, "is_causal": True},
    {"attn_mask": UPPER, "is_causal": True, "key_padding_mask": PADDING},
    {"attn_mask": torch.zeros(7, 7).masked_fill(UPPER, -torch.inf)},
    {"attn_mask": torch.linspace(-2, 1, 49).reshape(7, 7)},
    {"attn_mask": torch.stack([UPPER | (torch.arange(7) == 2 + i % 5) for i in range(12)])},
]


@pytest.mark.parametrize("masks", MASKS, ids=lambda masks: "-".join(masks) or "none")
@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_multihead_attention_of_torch(masks: dict[str, Any], weights: bool, training: bool) -> None:
    module, x = nn.MultiheadAttention(8, 4, batch_first=True).train(training), torch.randn(3, 7, 8)
    (mine, shares), (theirs, their_shares) = both(lambda: module(x, x, x, need_weights=weights, **masks))
    torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(shares, their_shares)
    towards = torch.randn_like(theirs)
    parameters = tuple(module.parameters())
    torch.testing.assert_close(*(torch.autograd.grad(out, parameters, towards) for out in (mine, theirs)))


@pytest.mark.parametrize("options", [{"kdim": 5, "vdim": 3}, {"add_bias_kv": True, "add_zero_attn": True}], ids=str)
def test_more_options_of_multihead_attention(options: dict[str, Any]) -> None:
    module = nn.MultiheadAttention(8, 2, **options)
    query, key, value = torch.randn(5, 3, 8), torch.randn(7, 3, module.kdim), torch.randn(7, 3, module.vdim)
    mine, theirs = both(lambda: module(query, key, value, key_padding_mask=PADDING))
    torch.testing.assert_close(mine, theirs)
    mine, theirs = both(lambda: module(query[:, 0], key[:, 0], value[:, 0]))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_transformer_encoder_of_torch(training: bool, causal: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    encoder, x = nn.TransformerEncoder(layer, 2).train(training), torch.randn(3, 7, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(7) if causal else None
    with torch.set_grad_enabled(training):
        mine, theirs = both(lambda: encoder(x, mask, is_causal=causal))
        torch.testing.assert_close(mine, theirs)
        padding = PADDING if not causal else PADDING.float().masked_fill(PADDING, -torch.inf)
        mine, theirs = both(lambda: encoder(x, mask, src_key_padding_mask=padding))
    torch.testing.assert_close(mine[~PADDING], theirs[~PADDING])


def test_weights_after_dropout_are_left_to_torch() -> None:
    module, x = nn.MultiheadAttention(8, 2, dropout=0.5), torch.randn(7, 3, 8)
    with mmha.patch():
        seen = operators(lambda: module(x, x, x))
        assert "mmha::attention_forward" in operators(lambda: module(x, x, x, need_weights=False))
    assert not any(name.startswith("mmha::") for name in seen)


def test_a_wrong_hint_means_what_torch_makes_of_it() -> None:
    """is_causal without padding and weights: torch takes a causal mask from the top left, whatever attn_mask says."""
    module, x, memory = nn.MultiheadAttention(8, 2), torch.randn(5, 3, 8), torch.randn(7, 3, 8)
    for weights in (True, False):
        hint = {"attn_mask": torch.zeros(5, 7, dtype=torch.bool), "is_causal": True, "need_weights": weights}
        mine, theirs = both(lambda hint=hint: module(x, memory, memory, **hint))  # type: ignore[misc]
        torch.testing.assert_close(mine, theirs)
    with mmha.patch(), pytest.raises(RuntimeError, match="Need attn_mask if specifying the is_causal hint"):
        module(x, x, x, is_causal=True)


def passed_on() -> list[tuple[str, Callable[[], Any]]]:
    q, k, v = (x.detach() for x in three(2, 3))
    jagged = torch.nested.nested_tensor([q[0].transpose(0, 1)], layout=torch.jagged).transpose(1, 2)
    odd = torch.zeros(5, 11)
    odd[2, 3] = torch.nan
    attend = F.scaled_dot_product_attention

    def by_the_formula(*args: Tensor) -> Tensor:  # torch's CPU kernel knows no forward mode
        with sdpa_kernel(SDPBackend.MATH):
            return attend(*args)

    return [
        ("float64", lambda: attend(q.double(), k.double(), v.double())),
        ("meta", lambda: attend(q.to("meta"), k.to("meta"), v.to("meta"))),
        ("nested", lambda: attend(jagged, jagged, jagged).unbind()[0]),
        ("vmap", lambda: torch.vmap(attend)(q, k, v)),
        ("grad", lambda: torch.func.grad(lambda x: attend(x, k, v).sum())(q)),
        ("jvp", lambda: torch.func.jvp(by_the_formula, (q, k, v), (q, k, v))[1]),
        ("jit", lambda: torch.jit.trace(attend, (q, k, v), check_trace=False)(q, k, v)),  # type: ignore[no-untyped-call]
        ("nan", lambda: attend(q, k, v, odd)),
        ("scale", lambda: attend(q, k, v, scale=torch.inf)),
        ("both", lambda: attend(q, q, q, SEEN[:, :5], is_causal=True)),
    ]


@pytest.mark.parametrize("name", [name for name, _ in passed_on()])
@pytest.mark.filterwarnings("ignore")
def test_what_is_passed_on_to_torch(name: str) -> None:
    torch.manual_seed(0)
    theirs = dict(passed_on())[name]()
    torch.manual_seed(0)
    with mmha.patch():
        call = dict(passed_on())[name]
        mine, seen = call(), operators(call)
    assert mine.device.type == "meta" or torch.equal(mine.nan_to_num(), theirs.nan_to_num())
    assert not any(name.startswith("mmha::attention") for name in seen)


@pytest.mark.filterwarnings("ignore")
def test_modules_that_are_not_taken_keep_their_fast_path() -> None:
    module = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(3, 7, 8)
    jagged = torch.nested.nested_tensor([x[0], x[1, :5]])
    with mmha.patch(), torch.no_grad():
        assert "aten::_native_multi_head_attention" not in operators(lambda: module(x, x, x))
        assert "aten::_native_multi_head_attention" in operators(lambda: module(jagged, jagged, jagged))
        module.double()
        assert "aten::_native_multi_head_attention" in operators(lambda: module(*[x.double()] * 3))


@pytest.mark.parametrize("bias", [causal_upper_left, causal_lower_right])
def test_causal_bias_of_torch(bias: Any) -> None:
    tensors, mask = three(2, 3), bias(5, 11)
    mine, theirs = both(lambda: F.scaled_dot_product_attention(*tensors, mask))
    torch.testing.assert_close(mine, theirs)


def test_errors_are_those_of_torch() -> None:
    q, k, v = three(2, 3)
    for args in ((q, k, v, 3), (q, k, v, None, "a"), (q, k, v, torch.ones(4, 11)), (q, k[..., :3], v)):
        with pytest.raises((RuntimeError, TypeError)) as theirs:
            F.scaled_dot_product_attention(*args)
        with mmha.patch(), pytest.raises(theirs.type, match="^" + re.escape(str(theirs.value).splitlines()[0])):
            F.scaled_dot_product_attention(*args)


def test_nesting_and_exceptions() -> None:
    patch = mmha.patch()
    found = []
    with contextlib.suppress(KeyError), patch, patch:
        found.append(is_ours())
        raise KeyError
    assert found == [True]
    assert not is_ours()
    assert F.scaled_dot_product_attention is TORCH
    with mmha.patch():
        with mmha.patch():
            pass
        assert is_ours()


def test_install() -> None:
    mmha.patch.install()
    mmha.patch.install()
    with mmha.patch():
        assert is_ours()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(is_ours).result()
    mmha.patch.uninstall()
    assert not is_ours()
    assert F.scaled_dot_product_attention is TORCH
    mmha.patch.uninstall()


def test_a_block_holds_in_its_own_thread_alone() -> None:
    inside, checked = threading.Event(), threading.Event()

    def other() -> bool:
        inside.wait(10)
        found = is_ours()
        checked.set()
        return found

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(other)
        with mmha.patch():
            inside.set()
            checked.wait(10)
            assert is_ours()
        assert found.result() is False


def test_threads_that_come_and_go() -> None:
    def work(number: int) -> list[bool]:
        found = []
        for _ in range(30):
            if number % 2:
                with mmha.patch():
                    found.append(is_ours())
            else:
                found.append(is_ours())
        return found

    with ThreadPoolExecutor(6) as pool:
        for number, found in enumerate(pool.map(work, range(6))):
            assert set(found) == {bool(number % 2)}


@pytest.mark.filterwarnings("ignore:.*use of fork")
def test_a_child_may_be_forked_while_another_thread_comes_and_goes() -> None:
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            with mmha.patch():
                pass

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(30):
            child = os.fork()
            if not child:
                signal.alarm(20)  # a child that waits for a lock for ever ends, and fails
                with mmha.patch():
                    pass
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        thread.join()


def test_a_block_holds_in_its_own_task_alone() -> None:
    async def task(patched: bool) -> list[bool]:
        found = []
        for _ in range(3):
            if patched:
                with mmha.patch():
                    await asyncio.sleep(0)
                    found.append(is_ours())
            else:
                found.append(is_ours())
            await asyncio.sleep(0)
        return found

    async def main() -> list[list[bool]]:
        return await asyncio.gather(task(True), task(False), task(True))

    assert asyncio.run(main()) == [[True] * 3, [False] * 3, [True] * 3]


def test_somebody_else_patches_too() -> None:
    calls = []

    def over(previous: Any) -> Callable[..., Any]:
        def theirs(*args: Any, **kwargs: Any) -> Any:
            calls.append(previous)
            return previous(*args, **kwargs)

        return theirs

    F.scaled_dot_product_attention = before = over(TORCH)
    with mmha.patch():
        assert is_ours()
        assert not calls
        F.scaled_dot_product_attention = within = over(F.scaled_dot_product_attention)
        assert is_ours()
        assert len(calls) == 1
        with mmha.patch():  # over theirs again
            assert is_ours()
            assert len(calls) == 1
        assert F.scaled_dot_product_attention is within
    assert F.scaled_dot_product_attention is within  # what they put there is theirs to take away
    assert not is_ours()
    F.scaled_dot_product_attention = before
    with mmha.patch():
        assert is_ours()
    assert F.scaled_dot_product_attention is before
    F.scaled_dot_product_attention = TORCH


def test_a_name_bound_before_is_not_reached_and_one_bound_within_is_harmless_after() -> None:
    q, k, v = three(2, 3)
    with mmha.patch():
        bound = F.scaled_dot_product_attention
        assert not any(name.startswith("mmha::") for name in operators(lambda: TORCH(q, k, v)))
        assert "mmha::attention_forward" in operators(lambda: bound(q, k, v))
    assert not any(name.startswith("mmha::") for name in operators(lambda: bound(q, k, v)))


def test_compiled_functions_follow_install_alone() -> None:
    compiled = torch.compile(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, SEEN), fullgraph=True, backend="eager"
    )
    q, k, v = (x.detach() for x in three(2, 3))
    v[:, :, 9] = torch.nan

    def finite() -> bool:
        return bool(compiled(q, k, v).isfinite().all())

    for _ in range(2):
        assert not finite()
        with mmha.patch():
            assert not finite()
            assert is_ours()
        mmha.patch.install()
        assert finite()
        mmha.patch.uninstall()


def test_compiled_modules_and_transforms_under_install() -> None:
    module, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(3, 7, 8)
    theirs = module(x, x, x, key_padding_mask=PADDING)
    q = torch.randn(3, 2, 5, 7)
    mmha.patch.install()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, x, x, key_padding_mask=PADDING), theirs)
    gradient = torch.func.grad(lambda q: F.scaled_dot_product_attention(q, q, q).sum())
    torch.testing.assert_close(torch.compile(gradient, fullgraph=True, backend="eager")(q), gradient(q))


def test_second_derivatives_are_refused() -> None:
    q, k, v = three(2, 3)
    with mmha.patch():
        out = F.scaled_dot_product_attention(q, k, v)
    (gradient,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="the gradient of its gradient is not available"):
        torch.autograd.grad(gradient.sum(), q)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_the_page_of_the_docs() -> None:
    page = Path(__file__).parents[2] / "docs" / "patch.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert (failed, tried) == (0, 9)
