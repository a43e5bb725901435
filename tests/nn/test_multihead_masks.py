"""Masks of `mmha.nn.MultiheadAttention`: every form, together, and where torch.nn is wrong; against the formula."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmha import masks
from mmha.nn import MultiheadAttention
from multihead_oracle import by_hand

N, H, L, S, D = 2, 3, 5, 7, 4
E = H * D
CAUSAL = torch.ones(L, S, dtype=torch.bool).tril(S - L)  # visible: the last query stands at the last key
DTYPES = ("bool", "uint8", "int64", "float32", "float64", "bfloat16")


@pytest.fixture(autouse=True)
def _one(one_thread: None) -> None:
    """Tiny tensors: a second thread only waits."""


@pytest.fixture
def module() -> MultiheadAttention:
    made = MultiheadAttention(E, H, batch_first=True)
    for p in made.parameters():
        nn.init.normal_(p, std=0.3)
    return made


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(N, L, E), torch.randn(N, S, E), torch.randn(N, S, E)


def check(module: MultiheadAttention, visible: Tensor, added: Any = 0.0, **given: Any) -> None:
    """Values, weights and gradients are the formula's."""
    results = []
    for compute in (
        lambda x: module(*x, average_attn_weights=False, **given),
        lambda x: by_hand(module, x, visible, added),
    ):
        module.zero_grad()
        torch.manual_seed(3)
        x = tuple(y.requires_grad_() for y in inputs())
        out, weights = compute(x)
        loss = (out * torch.randn(N, L, E)).sum() + (weights * torch.randn(N, H, L, S)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        results.append([out, weights, *(y.grad for y in x), *(p.grad.clone() for p in module.parameters())])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-4, atol=2e-5)
    torch.manual_seed(3)
    torch.testing.assert_close(module(*inputs(), need_weights=False, **given)[0], results[0][0], rtol=1e-5, atol=1e-5)


def as_dtype(hidden: Tensor, dtype: str) -> Tensor:
    """The same mask in any dtype: bool and integers True = not visible, floats -inf = not visible."""
    kind = getattr(torch, dtype)
    return (
        torch.zeros(hidden.shape, dtype=kind).masked_fill(hidden, -torch.inf)
        if kind.is_floating_point
        else hidden.to(kind)
    )


def some(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(5)) < 0.5


@pytest.mark.parametrize("padding", DTYPES)
@pytest.mark.parametrize("pairs", DTYPES)
def test_masks_of_any_two_dtypes_go_together(module: MultiheadAttention, pairs: str, padding: str) -> None:
    hidden, pad = some(L, S), some(N, S)
    visible = ~(hidden | pad[:, None, None])
    check(module, visible, attn_mask=as_dtype(hidden, pairs), key_padding_mask=as_dtype(pad, padding))


@pytest.mark.parametrize("dtype", ["bool", "float32"])
@pytest.mark.parametrize("shape", [(L, S), (N * H, L, S), (N, L, S), (N, 1, L, S), (1, H, L, S), (N, H, L, S)])
def test_a_mask_of_every_shape(module: MultiheadAttention, shape: tuple[int, ...], dtype: str) -> None:
    hidden = some(*shape)
    whole = {2: lambda x: x, 3: lambda x: x.view(N, -1, L, S), 4: lambda x: x}[len(shape)](hidden)
    check(module, ~whole, attn_mask=as_dtype(hidden, dtype))
    check(module, ~whole & CAUSAL, attn_mask=as_dtype(hidden, dtype), is_causal=True)


def test_a_float_mask_and_float_padding_are_added_and_get_their_gradient(module: MultiheadAttention) -> None:
    pairs, padding = torch.randn(N, L, S).masked_fill(some(N, L, S), -torch.inf), torch.randn(N, S)
    visible, added = (pairs > -torch.inf)[:, None], (pairs[:, None] + padding[:, None, None]).nan_to_num(neginf=0.0)
    check(module, visible, added, attn_mask=pairs, key_padding_mask=padding)
    x, grads = inputs(), []
    for compute in (
        lambda a, b: module(*x, attn_mask=a, key_padding_mask=b, need_weights=False)[0],
        lambda a, b: by_hand(module, x, visible, a.nan_to_num(neginf=0.0)[:, None] + b[:, None, None])[0],
    ):
        leaves = pairs.clone().requires_grad_(), padding.clone().requires_grad_()
        grads.append(torch.autograd.grad(compute(*leaves).square().sum(), leaves))
    for found, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_float_mask_of_0_and_inf_gets_its_gradient_too(module: MultiheadAttention) -> None:
    hidden, x = some(L, S), inputs()
    padding = torch.tensor([[False] * S, [True] * 3 + [False] * 4])
    grads = []
    for compute in (
        lambda a: module(*x, attn_mask=a, key_padding_mask=padding, need_weights=False)[0],
        lambda a: by_hand(module, x, ~hidden & ~padding[:, None, None], a.nan_to_num(neginf=0.0))[0],
    ):
        leaf = as_dtype(hidden, "float32").requires_grad_()
        grads.append(torch.autograd.grad(compute(leaf).square().sum(), leaf)[0])
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


def test_is_causal_needs_no_mask_and_ends_at_the_last_key(module: MultiheadAttention) -> None:
    """torch: RuntimeError without a mask; with one and need_weights=False the mask is ignored, and L != S top-left."""
    hidden = some(L, S)
    check(module, CAUSAL, is_causal=True)
    check(module, CAUSAL & ~hidden, is_causal=True, attn_mask=hidden)
    check(module, CAUSAL & masks.Window(2).dense(1, 1, L, S), is_causal=True, attn_mask=masks.Window(2))


def test_mask_says_what_is_visible(module: MultiheadAttention) -> None:
    seen, pad = some(N, 1, L, S), some(N, S)
    check(module, seen, mask=seen)
    check(module, masks.Window(3).dense(1, 1, L, S), mask=masks.Window(3))
    check(module, seen & ~pad[:, None, None], mask=seen, key_padding_mask=pad)
    check(module, masks.Window(3).dense(1, 1, L, S), attn_mask=masks.Window(3))
    check(module, masks.KeyPadding([3, 7]).dense(N, 1, L, S), key_padding_mask=masks.KeyPadding([3, 7]))


def test_a_row_a_head_and_a_whole_sequence_that_see_nothing(module: MultiheadAttention) -> None:
    """torch: NaN with weights, 0 without; NaN in eval where everything is padding."""
    row = torch.zeros(L, S, dtype=torch.bool)
    row[1] = True
    head = torch.zeros(N, H, L, S, dtype=torch.bool)
    head[:, 2] = True
    padding = torch.tensor([[True] * S, [False] * S])
    check(module, ~row, attn_mask=row)
    check(module, ~head, attn_mask=head)
    check(module, (~padding)[:, None, None].expand(N, 1, L, S), key_padding_mask=padding)
    for mode in (True, False):
        out, weights = module.train(mode)(*inputs(), key_padding_mask=padding)
        assert torch.equal(out[0], module.out_proj.bias.expand(L, E))
        assert torch.equal(weights[0], torch.zeros(L, S))


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("need_weights", [False, True])
def test_what_is_hidden_has_no_influence(module: MultiheadAttention, poison: float, need_weights: bool) -> None:
    """torch: NaN everywhere, because 0 times NaN is NaN."""
    q, k, v = inputs()
    padding = torch.tensor([[False] * 5 + [True] * 2, [True] + [False] * 6])
    clean = module(q, k, v, key_padding_mask=padding, need_weights=need_weights)
    leaves = [x.masked_fill(padding[..., None], poison).requires_grad_() for x in (k, v)]
    out, weights = module(q, *leaves, key_padding_mask=padding, need_weights=need_weights)
    assert torch.equal(out, clean[0])
    assert weights is None or torch.equal(weights, clean[1])
    out.square().sum().backward()
    for x in leaves:
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert not x.grad[padding].any()


def test_eval_computes_what_train_does(module: MultiheadAttention) -> None:
    """torch: its eval path truncates or zeroes padded rows, or rounds differently."""
    x, padding = torch.randn(N, S, E), torch.tensor([[False] * 5 + [True] * 2, [False] * 7])
    trained = module(x, x, x, key_padding_mask=padding)
    with torch.no_grad():
        evaluated = module.eval()(x, x, x, key_padding_mask=padding)
    assert torch.equal(trained[0], evaluated[0])
    assert torch.equal(trained[1], evaluated[1])


def test_weights_are_those_before_dropout() -> None:
    """torch: after dropout, so that rows do not add up to 1."""
    x, module = torch.randn(N, L, E), MultiheadAttention(E, H, dropout=0.5, batch_first=True)
    out, weights = module(x, x, x)
    plain, expected = module.eval()(x, x, x)
    torch.testing.assert_close(weights, expected)
    assert not torch.allclose(out, plain)
    first, second = (module.train()(x, x, x, need_weights=False)[0] for _ in range(2) if torch.manual_seed(4))
    assert torch.equal(first, second)


@pytest.mark.parametrize("extra", ["add_bias_kv", "add_zero_attn"])
def test_added_keys_are_visible_to_every_row_under_any_mask(extra: str) -> None:
    """A mask that speaks of positions or of the last keys means the input's keys: the added ones come on top."""
    x = inputs()
    module = MultiheadAttention(E, H, batch_first=True, **{extra: True})
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    for given, hidden in (
        ({"is_causal": True}, ~CAUSAL),
        (
            {"mask": masks.Documents([0, 0, 0, 1, 1, 1, 1])},
            ~masks.Documents([0, 0, 0, 1, 1, 1, 1]).dense(1, 1, L, S)[0, 0],
        ),
        ({"mask": ~masks.Full()}, torch.ones(L, S, dtype=torch.bool)),
    ):
        found, wanted = module(*x, **given), nn.MultiheadAttention.forward(module, *x, attn_mask=hidden)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_dropout_takes_the_added_keys_too() -> None:
    """Their share of the values is 0 or w / (1 - p), each key of each row by itself."""
    module = MultiheadAttention(H, H, dropout=0.5, bias=False, add_bias_kv=True, batch_first=True)
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
        module.bias_v.fill_(1.0)
        module.out_proj.weight.copy_(torch.eye(H))
    x = torch.zeros(N, 999, H)
    out, _ = module(x, x, x, mask=~masks.Full())  # only the added key is visible: its weight is 1
    assert set(out.flatten().tolist()) == {0.0, 2.0}
    assert abs(out.mean().item() - 1.0) < 0.1


MEMORY = """
import torch
from mmha.nn import MultiheadAttention
def peak(reset=False):
    if reset:
        open("/proc/self/clear_refs", "w").write("5")
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
torch.set_num_threads(1)
module = MultiheadAttention(8, 1, batch_first=True)
def run(length):
    x, padding = torch.randn(1, length, 8, requires_grad=True), torch.arange(length)[None] >= length - 100
    module(x, x, x, key_padding_mask=padding, is_causal=True, need_weights=False)[0].sum().backward()
run(512)
before = peak(reset=True)
run(4001)
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_padding_and_causal_take_no_memory_of_pairs() -> None:
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 4001 * 4001 / 2  # less than a byte for every other pair
