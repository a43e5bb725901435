"""What `mmha.nn.MultiheadAttention` and its functional refuse: the message, and the type that torch.nn raises there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mmha
from mmha.masks import Keys
from mmha.nn import MultiheadAttention
from mmha.nn.functional import multi_head_attention_forward

N, H, L, S, E = 2, 3, 5, 7, 12
Q, K, V = torch.randn(L, N, E), torch.randn(S, N, E), torch.randn(S, N, E)
BOOL = torch.bool

# arguments beside query, key and value, or in their place: what ours says, and whether torch refuses it too.
CASES: dict[str, tuple[dict[str, Any], str, bool]] = {
    "query 4-D": ({"query": Q[None]}, r"`query`: expected 2 dimensions \(T, E\), or 3 with a batch, got shape", True),
    "key 2-D": ({"key": K[0]}, r"`key`: expected 3 dimensions, as the query has, got shape \(2, 12\)", True),
    "value 2-D": ({"value": V[0]}, "`value`: expected 3 dimensions, as the query has", True),
    "unbatched query": ({"query": Q[:, 0]}, "`key`: expected 2 dimensions, as the query has", True),
    "width": ({"query": Q[..., 1:]}, r"`query`: expected 12 features in the last dimension, got shape", True),
    "key width": ({"key": K[..., 1:]}, r"`key`: expected 12 features in the last dimension", True),
    "value length": ({"value": V[1:]}, r"`value`: expected the batch and length of the key, \(7, 2\), got", True),
    "batch": ({"query": Q[:, :1]}, r"`key`: expected the batch of the query, N = 1, got shape \(7, 2, 12\)", True),
    "padding dims": (
        {"key_padding_mask": torch.zeros(S, dtype=BOOL)},
        r"`key_padding_mask`: expected 2 dimensions \(N, S\) beside batched input, got shape \(7,\)", True,
    ),
    "unbatched padding dims": (
        {"query": Q[:, 0], "key": K[:, 0], "value": V[:, 0], "key_padding_mask": torch.zeros(1, S, dtype=BOOL)},
        r"`key_padding_mask`: expected 1 dimension \(S,\) beside unbatched input, got shape \(1, 7\)", True,
    ),
    "padding shape": (
        {"key_padding_mask": torch.zeros(N, L, dtype=BOOL)},
        r"`key_padding_mask`: expected shape \(N, S\) = \(2, 7\), or \(S,\) for unbatched input, got \(2, 5\)", True,
    ),
    "mask shape": (
        {"attn_mask": torch.zeros(S, L, dtype=BOOL)},
        r"`attn_mask`: expected shape \(L, S\), \(N \* H, L, S\), \(N, L, S\) or \(N, H or 1, L, S\) with "
        r"N = 2, H = 3, L = 5, S = 7, got \(7, 5\)", True,
    ),
    "3-D mask": ({"attn_mask": torch.zeros(H, L, S)}, r"`attn_mask`: expected .*, got \(3, 5, 7\)", True),
    "4-D mask": ({"attn_mask": torch.zeros(3, H, L, S)}, r"`attn_mask`: expected .*, got \(3, 3, 5, 7\)", True),
    "heads of a 4-D mask": ({"attn_mask": torch.zeros(N, 2, L, S)}, r"`attn_mask`: expected .*, got \(2, 2, 5", True),
    "1-D mask": ({"attn_mask": torch.zeros(S)}, r"`attn_mask`: expected shape \(L, S\), .*, got \(7,\)", True),
    "5-D mask": ({"attn_mask": torch.zeros(1, N, H, L, S)}, r"`attn_mask`: expected shape \(L, S\)", True),
    "integers": ({"attn_mask": torch.full((L, S), 2)}, r"`attn_mask`: expected integers 0 and 1 .*, got others", True),
    "complex mask": (
        {"key_padding_mask": torch.zeros(N, S, dtype=torch.complex64)},
        "`key_padding_mask`: expected a bool tensor .True = not visible., a float .* a complex64 tensor", True,
    ),
    "NaN in a mask": (
        {"attn_mask": torch.full((L, S), float("nan")), "key_padding_mask": torch.zeros(N, S)},
        "`mask`: expected a float mask of finite numbers and -inf, got one with nan in it", False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_as_torch_refuses_it(name: str) -> None:
    changes, message, torch_too = CASES[name]
    arguments = {"query": Q, "key": K, "value": V} | changes
    with pytest.raises(ValueError, match=message) as caught:
        MultiheadAttention(E, H)(**arguments)
    assert "\n" not in str(caught.value)
    if torch_too:
        with pytest.raises((AssertionError, RuntimeError)) as theirs:
            nn.MultiheadAttention(E, H)(**arguments)
        assert isinstance(caught.value, type(theirs.value))


def test_what_is_no_tensor_is_a_type_error() -> None:
    module = MultiheadAttention(E, H)
    with pytest.raises(TypeError, match=r"`query`: expected a tensor, got list \[1\]"):
        module([1], K, V)
    with pytest.raises(TypeError, match=r"`attn_mask`: expected a bool tensor .* or a Mask, got str 'causal'"):
        module(Q, K, V, attn_mask="causal")
    with pytest.raises(
        TypeError, match=r"`mask`: expected a Mask or a bool tensor .True = visible., got a float32 tens"
    ):
        module(Q, K, V, mask=torch.zeros(L, S))
    with pytest.raises(TypeError, match=r"`cache`: expected a cache .*, got 3"):
        module(Q, Q, Q, need_weights=False, cache=3)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_refused_as_torch_refuses_them_in_training() -> None:
    nested = torch.nested.nested_tensor([torch.zeros(3, E), torch.zeros(2, E)])
    with pytest.raises(AssertionError, match=r"`query`: expected a dense tensor .with a padding mask., got a nested"):
        MultiheadAttention(E, H, batch_first=True)(nested, nested, nested)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"embed_dim": 0}, ValueError, "greater than 0"),
        ({"num_heads": 5}, AssertionError, "divisible"),
        ({"num_kv_heads": 2}, ValueError, "`num_kv_heads`: expected a divisor of num_heads = 3, got 2"),
        ({"num_kv_heads": 0}, ValueError, "`num_kv_heads`: expected an integer >= 1, got 0"),
        ({"rotary": 4}, TypeError, "`rotary`: expected a mmha.Rotary, got 4"),
        ({"rotary": mmha.Rotary(6)}, ValueError, "`rotary`: expected dims up to the head size 4, got 6"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MultiheadAttention(**{"embed_dim": E, "num_heads": H} | options)


def test_what_a_cache_cannot_do_leaves_it_as_it_was() -> None:
    module, x = MultiheadAttention(E, H, dropout=0.1, batch_first=True), torch.randn(N, L, E)
    cache = mmha.KVCache(N, H, 8, E // H)
    with torch.no_grad(), pytest.raises(ValueError, match="`need_weights`: expected False beside a cache, got True"):
        module(x, x, x, cache=cache)
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match=r"`dropout`: expected 0.0 beside a cache, or eval\(\), got 0.1"),
    ):
        module(x, x, x, need_weights=False, cache=cache)
    module.eval()
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match="`cache`: expected one for the batch of the query, N = 1, got"),
    ):
        module(x[:1], x[:1], x[:1], need_weights=False, cache=cache)
    with pytest.raises(ValueError, match=r"`cache`: expected no gradients beside it .* got a query that requires them"):
        module(x, x, x, need_weights=False, cache=cache)
    with torch.no_grad(), pytest.raises(ValueError, match="`key_padding_mask`: expected shape"):
        module(x, x, x, torch.zeros(N, 1, dtype=BOOL), need_weights=False, cache=cache)
    assert cache.lengths.tolist() == [0, 0]


def functional(which: Any, **changes: Any) -> Any:
    """The functional with arguments that fit, and changes."""
    arguments: dict[str, Any] = {
        "query": Q, "key": K, "value": V, "embed_dim_to_check": E, "num_heads": H,
        "in_proj_weight": torch.zeros(3 * E, E),
        "in_proj_bias": None, "bias_k": None, "bias_v": None, "add_zero_attn": False, "dropout_p": 0.0,
        "out_proj_weight": torch.zeros(E, E), "out_proj_bias": None,
    }  # fmt: skip
    return which(**arguments | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "`num_heads`: expected a divisor of the embedding 12, got 5"),
        ({"embed_dim_to_check": 9}, r"`in_proj_weight`: expected shape \(27, 9\), got \(36, 12\)"),
        (
            {"in_proj_weight": None},
            "`in_proj_weight`: expected a tensor, with use_separate_proj_weight=False, got None",
        ),
        ({"use_separate_proj_weight": True}, "`q_proj_weight`: expected a tensor, with .*=True, got None"),
        (
            {"use_separate_proj_weight": True} | {f"{x}_proj_weight": torch.zeros(E, E + (x == "q")) for x in "qkv"},
            r"`q_proj_weight`: expected shape \(12, 12\), got \(12, 13\)",
        ),
        ({"bias_k": torch.zeros(1, 1, E)}, "`bias_v`: expected both of bias_k and bias_v, or neither, got None"),
        ({"bias_v": torch.zeros(1, 1, E)}, "`bias_k`: expected both of bias_k and bias_v, or neither, got None"),
        (
            {"bias_k": torch.zeros(1, 1, E), "bias_v": torch.zeros(1, 1, E), "static_k": torch.zeros(N * H, S, E // H)},
            "`bias_k`: expected None beside static_k or static_v, got a float32 tensor",
        ),
        (
            {"static_k": torch.zeros(N, S, E)},
            r"`static_k`: expected shape \(N \* H, S, D\) = \(6, S, 4\), got \(2, 7, 12\)",
        ),
        (
            {"static_v": torch.zeros(N, S, E)},
            r"`static_v`: expected shape \(N \* H, S, D\) = \(6, S, 4\), got \(2, 7, 12\)",
        ),
    ],
)
def test_the_functional_refuses_what_torchs_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        functional(multi_head_attention_forward, **changes)
    with pytest.raises((AssertionError, RuntimeError)) as theirs:
        functional(F.multi_head_attention_forward, **changes)
    assert isinstance(caught.value, type(theirs.value))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_scripting_is_refused() -> None:
    with pytest.raises(
        RuntimeError, match=r"mmha.nn.MultiheadAttention cannot be scripted.*use torch.compile or torch"
    ):
        torch.jit.script(MultiheadAttention(E, H))
    with pytest.raises(RuntimeError, match="cannot be scripted"):
        torch.jit.script(nn.Sequential(MultiheadAttention(E, H)))


def test_a_mask_that_does_not_fit_a_cache_leaves_it_as_it_was() -> None:
    attend, x = MultiheadAttention(12, 4, batch_first=True).eval(), torch.randn(2, 5, 12)
    cache = mmha.KVCache(2, 4, 16, 3)
    with torch.no_grad():
        attend(x[:, :3], x[:, :3], x[:, :3], need_weights=False, cache=cache)
        with pytest.raises(ValueError, match=r"expected shape \(B, Tk\) = \(2, 8\), got \(2, 9\)"):
            attend(x, x, x, need_weights=False, cache=cache, mask=Keys(torch.ones(2, 9, dtype=torch.bool)))
    assert cache.lengths.tolist() == [3, 3]
