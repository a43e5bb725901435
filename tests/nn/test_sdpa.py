"""`mmha.nn.functional.scaled_dot_product_attention` against torch's own: its samples, shapes, masks and refusals."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import mmha
from mmha.masks import Causal, KeyPadding, PerHead, StrictCausal
from mmha.nn.functional import scaled_dot_product_attention as sdpa
from tolerances import assert_near

HALVES = [torch.bfloat16, torch.float16]
FLOATS = [torch.float32, torch.float64, *HALVES]


def three(
    q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in (q, k, v)]


def results(
    function: Any, tensors: list[Tensor], mask: Tensor | None, dtype: torch.dtype, **kwargs: Any
) -> list[Tensor]:
    """The output and all gradients, computed in the dtype."""
    inputs = [x.detach().to(dtype).requires_grad_() for x in tensors]
    if mask is not None:
        own = dtype if mask.is_floating_point() and dtype == torch.float64 else mask.dtype
        mask = mask.detach().to(own).requires_grad_(mask.requires_grad)
    out = function(*inputs, mask, **kwargs)
    wanted = [*inputs, *([mask] if mask is not None and mask.requires_grad else [])]
    towards = torch.linspace(-1.0, 2.0, out.numel(), dtype=torch.float64).reshape(out.shape).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, wanted, towards)]


def equal(tensors: list[Tensor], mask: Tensor | None = None, **kwargs: Any) -> None:
    """Output and gradients have torch's shapes and dtypes, and are as close to torch's in float64 as torch's are."""
    dtype = tensors[0].dtype
    exact = results(F.scaled_dot_product_attention, tensors, mask, torch.float64, **kwargs)
    theirs = results(F.scaled_dot_product_attention, tensors, mask, dtype, **kwargs)
    mine = results(sdpa, tensors, mask, dtype, **kwargs)
    assert [(x.shape, x.dtype) for x in mine] == [(x.shape, x.dtype) for x in theirs]
    size = max([1.0, *(float(x.detach().abs().max()) for x in tensors if x.numel())]) ** 2
    for a, b, c in zip(mine, theirs, exact, strict=True):
        if c.numel():
            off, allowed = ((x.double() - c).abs().max() for x in (a, b))
            assert off <= 4 * allowed + 32 * torch.finfo(a.dtype).eps * max(size, float(c.abs().max()))


@pytest.mark.parametrize("dtype", FLOATS)
def test_samples_of_torch(dtype: torch.dtype) -> None:
    from torch.testing._internal.common_methods_invocations import op_db  # takes seconds to import

    (operator,) = (op for op in op_db if op.name == "nn.functional.scaled_dot_product_attention")
    count = 0
    for sample in operator.sample_inputs("cpu", dtype, requires_grad=True):
        if sample.kwargs.get("dropout_p"):
            mine = sdpa(sample.input, *sample.args, **sample.kwargs)
            assert mine.shape == F.scaled_dot_product_attention(sample.input, *sample.args, **sample.kwargs).shape
            continue
        kwargs = dict(sample.kwargs)
        equal([sample.input, *sample.args], kwargs.pop("attn_mask", None), **kwargs)
        count += 1
    assert count == 13


LEADING: list[Any] = [
    ((), (), ()), ((3,), (3,), (3,)), ((1,), (3,), (3,)), ((2, 3), (2, 3), (2, 3)), ((2, 3), (3,), (2, 1)),
    ((2, 1), (2, 3), (1, 3)), ((2, 3), (2, 1), (2, 1)), ((1, 3), (2, 3), (2, 3)), ((3,), (2, 3), (2, 3)),
    ((5, 2, 3), (5, 2, 3), (5, 2, 3)), ((5, 1, 3), (2, 3), (5, 2, 1)), ((0, 3), (0, 3), (0, 3)),
    ((5, 0, 3), (5, 0, 3), (0, 3)), ((2, 0), (2, 0), (2, 0)), ((1, 5, 2, 3), (2, 3), (2, 3)),
]  # fmt: skip


@pytest.mark.parametrize("leading", LEADING, ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_leading_dimensions(leading: Any, causal: bool) -> None:
    q, k, v = leading
    equal(three((*q, 5, 7), (*k, 11, 7), (*v, 11, 13)), is_causal=causal)


@pytest.mark.parametrize("q_len", [0, 1, 5, 17])
@pytest.mark.parametrize("k_len", [0, 1, 11])
@pytest.mark.parametrize("causal", [False, True])
def test_lengths(q_len: int, k_len: int, causal: bool) -> None:
    equal(three((2, 3, q_len, 7), (2, 3, k_len, 7), (2, 3, k_len, 5)), is_causal=causal)


@pytest.mark.parametrize(("dim", "value_dim"), [(1, 1), (0, 3), (3, 0)])
def test_head_sizes(dim: int, value_dim: int) -> None:
    equal(three((2, 3, 5, dim), (2, 3, 7, dim), (2, 3, 7, value_dim)))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize(
    "shape",
    [(5, 11), (1, 11), (5, 1), (1, 1), (3, 5, 11), (3, 1, 1), (2, 1, 1, 11), (1, 3, 5, 11), (2, 3, 5, 11)],
    ids=str,
)
def test_masks(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensors = three((2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 13), dtype)
    equal(tensors, torch.rand(shape) > 0.4)
    equal(tensors, torch.randn(shape).to(dtype).requires_grad_())
    equal(tensors, torch.randn(shape).masked_fill(torch.rand(shape) > 0.6, -torch.inf))


@pytest.mark.parametrize(
    "shape",
    [(5, 11), (2, 5, 11), (2, 1, 1, 11), (3, 1, 1, 5, 11), (1, 1, 2, 1, 11), (1, 2, 2, 5, 11), (3, 2, 1, 1, 1)],
    ids=str,
)
def test_masks_of_five_dimensions(shape: tuple[int, ...]) -> None:
    tensors = three((3, 2, 2, 5, 7), (3, 2, 2, 11, 7), (3, 1, 2, 11, 7))
    equal(tensors, torch.rand(shape) > 0.4)
    equal(tensors, torch.randn(shape, requires_grad=True))


@pytest.mark.parametrize("shape", [(5, 11), (1, 11), (3, 1, 11), (3, 5, 11)], ids=str)
def test_masks_of_three_dimensions(shape: tuple[int, ...]) -> None:
    equal(three((3, 5, 7), (3, 11, 7), (3, 11, 7)), torch.rand(shape) > 0.4)
    equal(three((5, 7), (11, 7), (11, 7)), torch.rand(shape[-2:]) > 0.4)


def test_masks_of_few_dimensions() -> None:
    tensors, keys = three((2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 7)), torch.rand(11) > 0.4
    torch.testing.assert_close(sdpa(*tensors, keys), sdpa(*tensors, keys[None]))  # torch raises IndexError
    torch.testing.assert_close(sdpa(*tensors, torch.tensor(True)), sdpa(*tensors))


@pytest.mark.parametrize("leading", [(), (2,), (5, 2)], ids=str)
@pytest.mark.parametrize(("k_heads", "v_heads"), [(2, 2), (1, 1), (6, 6), (2, 3), (1, 6)])
def test_grouped_heads(leading: tuple[int, ...], k_heads: int, v_heads: int) -> None:
    tensors = three((*leading, 6, 5, 7), (*leading, k_heads, 11, 7), (*leading, v_heads, 11, 13))
    equal(tensors, torch.rand(6, 5, 11) > 0.4, enable_gqa=True)
    equal(tensors, is_causal=True, enable_gqa=True)


@pytest.mark.parametrize("scale", [None, 1, 0.3, 0.0, -0.7])
def test_scale(scale: float | None) -> None:
    equal(three((2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 7)), scale=scale)


def test_row_that_sees_nothing_is_zero() -> None:
    tensors, mask = three((2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 7)), torch.rand(5, 11) > 0.4
    mask[2] = False
    out = sdpa(*tensors, mask)
    assert torch.count_nonzero(out[:, :, 2]) == 0
    equal(tensors, mask)
    equal(tensors, torch.zeros(5, 11).masked_fill(~mask, -torch.inf))


def test_nan_behind_a_mask_has_no_influence() -> None:
    q, k, v = three((2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 7))
    mask = torch.arange(11) < 8
    spoiled_k, spoiled_v = (x.detach().masked_fill(~mask[:, None], torch.nan) for x in (k, v))
    torch.testing.assert_close(sdpa(q, spoiled_k, spoiled_v, mask), sdpa(q, k, v, mask), atol=0, rtol=0)


def test_dropout() -> None:
    q, k, v = torch.zeros(2, 3, 5, 7), torch.zeros(2, 3, 1000, 7), torch.ones(2, 3, 1000, 1)
    kept = sdpa(q, k, v, dropout_p=0.25)
    assert 0.9 < float(kept.mean()) < 1.1
    assert float(kept.std()) > 0.001
    assert torch.count_nonzero(sdpa(q, k, v, dropout_p=1)) == 0


def test_masks_as_values() -> None:
    q, k, v = three((2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 13))
    for mask in (Causal(), KeyPadding([4, 9]), PerHead([Causal(), StrictCausal(), Causal()])):
        torch.testing.assert_close(sdpa(q, k, v, mask), sdpa(q, k, v, mask.dense(2, 3, 5, 11)))
    rows = [x.flatten(0, 1) for x in (q, k, v)]
    padding = KeyPadding([1, 2, 3, 4, 5, 6])
    torch.testing.assert_close(sdpa(*rows, padding), sdpa(*rows, padding.dense(6, 1, 5, 11)[:, 0]))
    heads = q[0], k[0, :1], v[0, :1]
    mask = PerHead([Causal(), StrictCausal(), Causal()])
    torch.testing.assert_close(
        sdpa(*heads, mask, enable_gqa=True), sdpa(*heads, mask.dense(1, 3, 5, 11)[0], enable_gqa=True)
    )
    five = q.expand(5, 2, 3, 5, 7), k, v
    padding = KeyPadding(list(range(1, 11)))
    torch.testing.assert_close(sdpa(*five, padding), sdpa(*five, padding.dense(10, 1, 5, 11).reshape(5, 2, 1, 5, 11)))


def test_causal_is_aligned_top_left_and_the_mask_bottom_right() -> None:
    q, k, v = three((1, 1, 2, 3), (1, 1, 5, 3), (1, 1, 5, 3))
    torch.testing.assert_close(sdpa(q, k, v, is_causal=True)[0, 0, 0], v[0, 0, 0])
    torch.testing.assert_close(sdpa(q, k, v, Causal())[..., 1:, :], sdpa(q, k, v)[..., 1:, :])


def test_autocast_and_compile() -> None:
    tensors, mask = three((2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 7)), torch.rand(5, 11) > 0.4
    with torch.autocast("cpu"):
        assert sdpa(*tensors, mask).dtype == torch.bfloat16
    compiled, tensors = torch.compile(sdpa, fullgraph=True, backend="eager"), [x.detach() for x in tensors]
    torch.testing.assert_close(
        compiled(*(x[:, 0] for x in tensors), is_causal=True), sdpa(*tensors, is_causal=True)[:, 0]
    )


def shaped(*shape: int) -> Tensor:
    return torch.zeros(shape)


Q, K, V = shaped(2, 3, 5, 7), shaped(2, 3, 11, 7), shaped(2, 3, 11, 13)
GQA = {"enable_gqa": True}
#: Arguments, the error, and its words, which begin with the argument's name.
REFUSALS: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    (([1.0], K, V), {}, TypeError, "query`: expected a tensor (..., H, L, E), got list [1.0]"),
    ((Q, shaped(7), V), {}, RuntimeError, "key`: expected 2 dimensions or more, (..., Hk, S, E), got shape (7,)"),
    ((Q.int(), K.int(), V.int()), {}, RuntimeError,
     "query`: expected dtype float32, bfloat16, float16 or float64, got int32"),
    ((Q, K, V.double()), {}, RuntimeError, "value`: expected the dtype of query, float32, got float64"),
    ((Q, shaped(2, 3, 11, 8), V), {}, RuntimeError,
     "key`: expected the head size of query, 7, got shape (2, 3, 11, 8)"),
    ((Q, K[:, :2], V[:, :2]), {}, RuntimeError,
     "query, key, value`: expected heads H that broadcast, or enable_gqa=True, "
     "got shapes (2, 3, 5, 7), (2, 2, 11, 7), (2, 2, 11, 13)"),
    ((Q, K[:, :2], V), {}, RuntimeError,
     "query, key, value`: expected heads Hk that broadcast, or enable_gqa=True, got"),
    ((Q, shaped(5, 3, 11, 7), V), {}, RuntimeError,
     "query, key, value`: expected leading dimensions that broadcast, got"),
    ((Q, K[:, :2], V), GQA, RuntimeError, "key`: expected heads that divide those of query, 3, got 2"),
    ((Q, K, V[:, :2]), GQA, RuntimeError, "value`: expected heads that divide those of query, 3, got 2"),
    ((Q, K, V, 3), {}, TypeError, "attn_mask`: expected None, a bool or float tensor, or a Mask, got 3"),
    ((Q, K, V, torch.ones(5, 11).int()), {}, RuntimeError,
     "attn_mask`: expected dtype bool, float32 or that of query, float32, got int32"),
    ((Q, K, V, torch.ones(4, 11)), {}, RuntimeError,
     "attn_mask`: expected a shape that broadcasts to (..., H, L, S) = (2, 3, 5, 11), got (4, 11)"),
    ((Q, K, V, torch.ones(1, 2, 3, 5, 11)), {}, RuntimeError, "attn_mask`: expected a shape that broadcasts to"),
    ((Q, K, V, None, 1.5), {}, RuntimeError, "dropout_p`: expected a number from 0 to 1, got 1.5"),
    ((Q, K, V, None, "a"), {}, TypeError, "dropout_p`: expected a number from 0 to 1, got str 'a'"),
    ((Q, K, V, None, 0.0, 1), {}, TypeError, "is_causal`: expected True or False, got 1"),
    ((Q, K, V), {"enable_gqa": None}, TypeError, "enable_gqa`: expected True or False, got None"),
]  # fmt: skip
#: What torch does not refuse: it computes, but not what anybody means.
MORE_REFUSALS = [
    ((Q, K, shaped(2, 3, 12, 13)), {}, RuntimeError,
     "value`: expected the length of key, 11, got shape (2, 3, 12, 13)"),
    ((Q, K, V, torch.ones(5, 11), 0.0, True), {}, RuntimeError,
     "attn_mask`: expected None beside is_causal=True (join masks: Causal() & mask), "
     "got a float32 tensor of shape (5, 11)"),
    ((Q, K, V), {"scale": torch.nan}, ValueError, "scale`: expected a finite number, got nan"),
    ((Q, K, V, torch.full((5, 11), torch.nan)), {}, ValueError,
     "attn_mask`: expected a float mask of finite numbers and -inf, got one with nan in it"),
    ((Q.to("meta"), K.to("meta"), V.to("meta")), {}, NotImplementedError,
     "q`: expected a tensor on the device cpu, got device meta"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "kwargs", "error", "words"), REFUSALS + MORE_REFUSALS)
def test_refusals(args: Any, kwargs: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match="^`" + re.escape(words)):
        sdpa(*args, **kwargs)


@pytest.mark.parametrize(("args", "kwargs", "error", "words"), REFUSALS)
def test_torch_refuses_with_the_same_types(args: Any, kwargs: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error):
        F.scaled_dot_product_attention(*args, **kwargs)


def test_public_name() -> None:
    assert mmha.nn.functional.scaled_dot_product_attention is sdpa


@pytest.mark.parametrize(("length", "keys"), [(3, 5), (5, 3), (5, 5)])
def test_causal_bias_of_torch(length: int, keys: int) -> None:
    """A tensor of torch's whose memory holds nothing: a meaning here, and refused where there is no such meaning."""
    from torch.nn.attention.bias import causal_lower_right, causal_upper_left

    q, k, v = torch.randn(2, 3, length, 7), torch.randn(2, 3, keys, 7), torch.randn(2, 3, keys, 7)
    assert torch.equal(sdpa(q, k, v, causal_upper_left(length, keys)), sdpa(q, k, v, is_causal=True))
    assert torch.equal(sdpa(q, k, v, Causal()), mmha.attention(q, k, v, Causal()))
    if length <= keys:
        bias = causal_lower_right(length, keys)
        assert_near(sdpa(q, k, v, bias), F.scaled_dot_product_attention(q, k, v, bias), torch.float32, factor=5)
        with pytest.raises(
            TypeError, match=r"`mask`: expected mmha.masks.Causal\(\), or a tensor that holds its numbers"
        ):
            mmha.attention(q, k, v, bias)
        x = torch.randn(length, 6)
        with pytest.raises(TypeError, match="`attn_mask`: expected a bool tensor"):
            mmha.nn.MultiheadAttention(6, 2)(x, x, x, attn_mask=causal_lower_right(length, length))
