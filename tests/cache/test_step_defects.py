"""What decode operators in use get wrong, each as a test of our own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmha import KVCache, Rotary, masked_multihead_attention, reference
from step_zoo import PLAIN, check_step, make
from tolerances import RELATIVE, relative_error


@pytest.mark.parametrize("style", ["half", "interleaved"])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dim", [64, 128, 192, 256])
def test_every_pair_turns_by_its_own_angle(dim: int, given: torch.dtype, style: str) -> None:
    """Wrong elsewhere at D = 128, float16, interleaved: the sine of another pair. Judged by complex numbers."""
    cache = KVCache(1, 1, 4, dim)
    qkv = torch.randn(1, 3 * dim).to(given)
    masked_multihead_attention(qkv, cache, rotary=Rotary(dim, style=style), positions=torch.tensor([977]))
    k, kept = qkv[0, dim : 2 * dim].double(), cache.to_dense()[0][0, 0, 0].double()
    order = torch.arange(dim).view(2, -1).T.flatten() if style == "half" else torch.arange(dim)
    angles = 977.0 * 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    turned = torch.view_as_complex(k[order].view(-1, 2)) * torch.polar(torch.ones(dim // 2).double(), angles)
    have = torch.view_as_complex(kept[order].view(-1, 2))
    error = (have - turned).abs() / turned.abs()
    assert error.max() <= max(RELATIVE[given] * 2, 1e-6)
    # The neighbour's sine would be seen: for most pairs it is far off.
    wrong = torch.view_as_complex(k[order].view(-1, 2)) * torch.polar(torch.ones(dim // 2).double(), angles.roll(1))
    assert ((wrong - turned).abs() / turned.abs()).median() > 50 * error.max()


@pytest.mark.parametrize("heads", [(8, 8), (8, 2), (8, 1)], ids=str)
def test_beams_follow_the_key_heads(heads: tuple[int, int]) -> None:
    """Wrong elsewhere under GQA: the offsets of a beam were counted in query heads."""
    case = PLAIN | {"heads": heads, "past": (17, 17, 17), "beam": True, "dim": 64}
    twins = make(case)
    out = check_step(twins)
    straight = make(case | {"beam": False})
    assert relative_error(check_step(straight), out) > 0.05


@pytest.mark.parametrize("heads", [(8, 8), (8, 2), (8, 1)], ids=str)
def test_scales_and_bias_belong_to_their_columns(heads: tuple[int, int]) -> None:
    """Wrong elsewhere under GQA: the columns of k and v took the scales of columns of q."""
    twins = make(PLAIN | {"heads": heads, "given": "int32", "bias": True, "past": (0, 0, 0), "dim": 16})
    masked_multihead_attention(twins.qkv, twins.cache, **twins.arguments)
    kv_heads, dim = heads[1], 16
    x = twins.qkv * twins.arguments["qkv_scale"] + twins.arguments["bias"]
    k, v = x[:, heads[0] * dim :].view(3, 2, kv_heads, 1, dim).unbind(1)
    for have, want in zip(twins.cache.to_dense(), (k, v), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-6, atol=1e-6)


def layouts(x: Tensor, heads: int, kv_heads: int, dim: int) -> dict[str, Tensor]:
    """The same numbers as some other operator may understand them."""
    q, k, v = x.split([heads * dim, kv_heads * dim, kv_heads * dim], 1)
    batch, group = len(x), heads // kv_heads
    mixed = torch.cat([q.view(batch, kv_heads, -1), k.view(batch, kv_heads, -1), v.view(batch, kv_heads, -1)], 2)
    return {
        "k and v exchanged": torch.cat([q, v, k], 1),
        "numbers before heads": torch.cat([t.view(batch, dim, -1).mT.flatten(1) for t in (q, k, v)], 1),
        "heads interleaved": torch.cat([q.view(batch, group, kv_heads, dim).transpose(1, 2).flatten(1), k, v], 1),
        "by key head": mixed.flatten(1),
        "packed keys": torch.cat([q, k.view(batch, kv_heads, 4, -1).mT.flatten(1), v], 1),
    }


def test_these_tests_see_a_wrong_layout() -> None:
    """Elsewhere a test with keys of 0.05 and a tolerance of 1e-3 sees none. Unit-normal numbers show each of them."""
    heads, kv_heads, dim = 6, 2, 16
    x = torch.randn(3, (heads + 2 * kv_heads) * dim)
    past = [(torch.randn(kv_heads, 5, dim), torch.randn(kv_heads, 5, dim)) for _ in range(3)]
    want, _ = reference.masked_multihead_attention(x, past)
    for name, other in layouts(x, heads, kv_heads, dim).items():
        got, _ = reference.masked_multihead_attention(other, past)
        assert relative_error(got, want) > 0.05, name
