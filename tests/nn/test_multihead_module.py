"""`mmha.nn.MultiheadAttention` as a module: weights, hooks, copies, dtypes, compilers, and what it adds to torch's."""

from __future__ import annotations

import copy
import inspect
import io
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mmha
from mmha import masks
from mmha.nn import MultiheadAttention
from multihead_oracle import by_hand

N, H, L, S, D = 2, 6, 5, 7, 4
E = H * D
OPTIONS = [
    {},
    {"bias": False},
    {"add_bias_kv": True},
    {"kdim": 5, "vdim": 11},
    {"kdim": 5, "add_bias_kv": True, "add_zero_attn": True, "dtype": torch.float64, "dropout": 0.1},
]


@pytest.fixture(autouse=True)
def _one(one_thread: None) -> None:
    """Tiny tensors: a second thread only waits."""


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(N, L, E), torch.randn(N, S, E), torch.randn(N, S, E)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_seed_gives_torchs_weights_and_leaves_torchs_generator(options: dict[str, Any]) -> None:
    made, states = [], []
    for kind in (nn.MultiheadAttention, MultiheadAttention):
        torch.manual_seed(7)
        made.append(kind(E, H, **options))
        states.append(torch.get_rng_state())
    theirs, ours = (module.state_dict() for module in made)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(*states)
    made[0].load_state_dict(ours)
    made[1].load_state_dict(theirs)
    for module in made:
        torch.manual_seed(8)
        module._reset_parameters()
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in made), strict=True))


def test_weights_of_grouped_heads_are_drawn_as_those_of_others() -> None:
    module = MultiheadAttention(E, H, num_kv_heads=2, add_bias_kv=True)
    assert module.in_proj_weight.shape == (E + 2 * 2 * D, E)
    assert module.in_proj_bias.shape == (E + 2 * 2 * D,)
    assert module.bias_k.shape == module.bias_v.shape == (1, 1, 2 * D)
    bound = (6 / (E + module.in_proj_weight.shape[0])) ** 0.5  # Glorot & Bengio 2010, equation 16
    assert 0.95 * bound < module.in_proj_weight.abs().max() <= bound
    torch.manual_seed(9)
    module._reset_parameters()
    before = module.in_proj_weight.clone()
    torch.manual_seed(9)
    module._reset_parameters()
    assert torch.equal(module.in_proj_weight, before)


def test_its_signatures_begin_with_torchs() -> None:
    for ours, theirs in (
        (MultiheadAttention, nn.MultiheadAttention),
        (MultiheadAttention.forward, nn.MultiheadAttention.forward),
    ):
        a, b = (list(inspect.signature(f).parameters.values()) for f in (ours, theirs))
        assert [(p.name, p.default) for p in a[: len(b)]] == [(p.name, p.default) for p in b]
        assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in a[len(b) :])
    assert isinstance(MultiheadAttention(E, H), nn.MultiheadAttention)


def test_hooks_and_what_takes_the_place_of_the_last_projection_are_called() -> None:
    """torch calls neither: it multiplies by out_proj.weight itself."""
    module, x, seen = MultiheadAttention(E, H, batch_first=True), torch.randn(N, L, E), []
    plain = module(x, x, x)[0]
    module.out_proj.register_forward_pre_hook(lambda m, args: seen.append("before"))
    module.out_proj.register_forward_hook(lambda m, args, out: seen.append("after"))
    module.register_forward_pre_hook(lambda m, args: seen.insert(0, "first"))
    module.register_forward_hook(lambda m, args, out: seen.append("last"))
    assert torch.equal(module(x, x, x)[0], plain)
    assert seen == ["first", "before", "after", "last"]
    module.out_proj = nn.Sequential(module.out_proj, nn.Linear(E, 3))
    assert torch.equal(module(x, x, x)[0], module.out_proj[1](plain))


def test_a_parametrized_projection_is_used() -> None:
    class Twice(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    module, x = MultiheadAttention(E, H, batch_first=True), torch.randn(N, L, E)
    other = copy.deepcopy(module)
    nn.utils.parametrize.register_parametrization(module, "in_proj_weight", Twice())
    with torch.no_grad():
        other.in_proj_weight.mul_(2)
    assert torch.equal(module(x, x, x)[0], other(x, x, x)[0])
    parameters = {name: torch.zeros_like(p) for name, p in other.named_parameters()}
    assert not torch.func.functional_call(other, parameters, (x, x, x))[0].any()


def test_copies_and_pickles_compute_the_same() -> None:
    module = MultiheadAttention(E, H, batch_first=True, num_kv_heads=2, rotary=mmha.Rotary(2), qk_norm=True)
    x, file = torch.randn(N, L, E), io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for other in (copy.deepcopy(module), torch.load(file, weights_only=False)):
        assert torch.equal(other(x, x, x)[0], module(x, x, x)[0])
        assert other.in_proj_weight is not module.in_proj_weight


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    module = MultiheadAttention(E, H, batch_first=True, add_zero_attn=True, dtype=dtype, num_kv_heads=2)
    x, padding = torch.randn(N, S, E, dtype=dtype), torch.tensor([[False] * 5 + [True] * 2, [False] * 7])
    out, weights = module(x, x, x, padding, is_causal=True)
    assert out.dtype == weights.dtype == dtype
    wide = copy.deepcopy(module).double()
    wanted = wide(x.double(), x.double(), x.double(), padding, is_causal=True)
    near = {torch.float64: 1e-13, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    for found, exact in zip((out, weights), wanted, strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=near, atol=near)


def test_autocast() -> None:
    module, x = MultiheadAttention(E, H, batch_first=True, add_bias_kv=True), inputs()
    wanted = module(*x, is_causal=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(*x, is_causal=True)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.bfloat16
        torch.testing.assert_close(a.float(), b, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize(("batch", "q_len", "k_len"), [(0, 5, 7), (2, 0, 7), (2, 5, 0), (1, 1, 1)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_empty_and_single_sizes(batch: int, q_len: int, k_len: int, batch_first: bool) -> None:
    module = MultiheadAttention(E, H, batch_first=batch_first)
    nn.init.normal_(module.out_proj.bias)
    shapes = [(batch, n, E) if batch_first else (n, batch, E) for n in (q_len, k_len)]
    q, k = (torch.randn(shape, requires_grad=True) for shape in shapes)
    out, weights = module(q, k, k, torch.zeros(batch, k_len, dtype=torch.bool), is_causal=True)
    assert out.shape == q.shape
    assert weights.shape == (batch, q_len, k_len)
    if not k_len:
        assert torch.equal(out, module.out_proj.bias.expand_as(out))
    out.sum().backward()
    assert k.grad.shape == k.shape


def test_meta_tensors_have_the_shapes() -> None:
    module = MultiheadAttention(
        E, H, device="meta", num_kv_heads=2, add_bias_kv=True, rotary=mmha.Rotary(4), qk_norm=True
    )
    q, k = torch.empty(L, N, E, device="meta"), torch.empty(S, N, E, device="meta")
    out, weights = module(q, k, k, torch.zeros(N, S, device="meta"), is_causal=True)
    assert out.shape == (L, N, E)
    assert weights.shape == (N, L, S + 1)
    out, weights = module(q, k, k, need_weights=False)
    assert out.is_meta
    assert weights is None


PADDING = torch.tensor([[False] * 4 + [True] * 3, [False] * 7])
HIDDEN = torch.rand(S, S, generator=torch.Generator().manual_seed(2)) < 0.5
CALLS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "causal with padding": {"is_causal": True, "key_padding_mask": PADDING},
    "bool mask with padding": {"attn_mask": HIDDEN, "key_padding_mask": PADDING},
    "float masks": {"attn_mask": HIDDEN * -3.0, "key_padding_mask": PADDING * -2.0},
    "values": {"mask": masks.Window(2), "attn_mask": masks.Causal()},
    "integers and weights": {"attn_mask": HIDDEN.int(), "need_weights": True},
}


@pytest.mark.parametrize("name", CALLS)
def test_torch_compile_takes_it_whole(name: str) -> None:
    module = MultiheadAttention(E, H, batch_first=True, num_kv_heads=2, rotary=mmha.Rotary(4), add_zero_attn=True)
    given = {"need_weights": False} | CALLS[name]
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    found = []
    for compute in (module, compiled):
        x = torch.randn(N, S, E, generator=torch.Generator().manual_seed(1), requires_grad=True)
        out, weights = compute(x, x, x, **given)
        (grad,) = torch.autograd.grad(out.square().sum() + (0 if weights is None else weights.square().sum()), x)
        found.append((out, weights, grad))
    torch.testing.assert_close(found[1], found[0])


def test_torch_export_takes_it() -> None:
    module, x = MultiheadAttention(E, H, batch_first=True), torch.randn(N, S, E)
    program = torch.export.export(module, (x, x, x), {"key_padding_mask": PADDING, "is_causal": True})
    other, padding = torch.randn(N, S, E), ~PADDING
    found = program.module()(other, other, other, key_padding_mask=padding, is_causal=True)
    torch.testing.assert_close(found, module(other, other, other, key_padding_mask=padding, is_causal=True))


@pytest.mark.parametrize("kv", [1, 2, 3, 6])
def test_grouped_heads_turned_and_normed_are_the_formula(kv: int) -> None:
    for rotary, qk_norm, dims in itertools.product((None, mmha.Rotary(2, 10.0)), (False, True), (None, 9)):
        module = MultiheadAttention(
            E, H, batch_first=True, num_kv_heads=kv, rotary=rotary, qk_norm=qk_norm, kdim=dims, vdim=dims
        )
        for p in module.parameters():
            nn.init.normal_(p, std=0.3)
        seen, results = masks.Causal().dense(1, 1, L, S), []
        for compute in (
            lambda x, m=module: m(*x, is_causal=True, average_attn_weights=False),
            lambda x, m=module, seen=seen: by_hand(m, x, seen),
        ):
            torch.manual_seed(3)
            x = [torch.randn(N, n, d, requires_grad=True) for n, d in ((L, E), (S, dims or E), (S, dims or E))]
            out, weights = compute(x)
            leaves = [*x, *module.parameters()]
            grads = torch.autograd.grad((out**2).sum() + (weights**2).sum(), leaves)
            results.append([out, weights, *grads])
        for found, wanted in zip(*results, strict=True):
            torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-4, atol=5e-5)
    assert module.k_proj_weight.shape == (kv * D, 9)


def test_torchs_encoder_layer_does_not_compute_past_what_it_does_not_know() -> None:
    """Its eval path multiplies by the weights itself, and would leave the turning out."""
    layer = nn.TransformerEncoderLayer(E, H, 8, batch_first=True).eval()
    layer.self_attn = MultiheadAttention(E, H, batch_first=True, rotary=mmha.Rotary(4)).eval()
    x = torch.randn(N, L, E)
    trained = layer(x)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), trained)


@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("steps", [[1] * 7, [4, 3], [7], [2, 1, 4]])
def test_tokens_through_a_cache_are_those_of_a_full_forward(steps: list[int], extra: bool) -> None:
    module = MultiheadAttention(
        E,
        H,
        batch_first=True,
        num_kv_heads=2,
        rotary=mmha.Rotary(4),
        qk_norm=True,
        add_bias_kv=extra,
        add_zero_attn=extra,
    )
    x, cache, parts = torch.randn(N, S, E), mmha.KVCache(N, 2, 16, D), []
    with torch.no_grad():
        whole, _ = module(x, x, x, is_causal=True, need_weights=False)
        for part in x.split(steps, 1):
            parts.append(module(part, part, part, is_causal=True, need_weights=False, cache=cache)[0])
    assert cache.lengths.tolist() == [S, S]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-5)


def test_a_cache_without_rows() -> None:
    module, x = MultiheadAttention(E, H, batch_first=True), torch.zeros(0, 3, E)
    with torch.no_grad():
        out, _ = module(x, x, x, need_weights=False, cache=mmha.KVCache(0, H, 8, D))
    assert out.shape == x.shape


def test_a_cache_of_rows_of_different_lengths_with_padding_and_length_first() -> None:
    module = MultiheadAttention(E, H, num_kv_heads=3, rotary=mmha.Rotary(4))
    x, cache = torch.randn(S, N, E), mmha.KVCache(N, 3, 16, D)
    with torch.no_grad():
        module(x[:4], x[:4], x[:4], need_weights=False, cache=cache)
        cache.truncate(torch.tensor([4, 2]))
        first = torch.tensor([[True] + [False] * 4, [False] * 5])  # hide key 0 of the first row
        out, _ = module(x[4:5], x[4:5], x[4:5], first, need_weights=False, cache=cache)
        for row, kept in ((0, 4), (1, 2)):
            past = torch.cat((x[:kept, row], x[4:5, row]))
            padding = first[row, : kept + 1]
            alone, _ = module(past[-1:], past, past, padding, need_weights=False)
            torch.testing.assert_close(out[:, row], alone, rtol=1e-4, atol=1e-5)
