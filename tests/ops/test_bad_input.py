"""Promise 7: what does not fit is refused by name, with what was expected and what came; a row per way to be wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mmha
from mmha.masks import Causal, Dense, Documents, KeyPadding, Keys, PerHead, Queries

B, H, HK, TQ, TK, D, DV = 2, 6, 3, 5, 7, 11, 13


def inputs() -> dict[str, Any]:
    return {"q": torch.zeros(B, H, TQ, D), "k": torch.zeros(B, HK, TK, D), "v": torch.zeros(B, HK, TK, DV)}


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


MASK_KINDS = "None, a Mask, a bool tensor (True = visible) or a float tensor (added to the scores)"

TABLE: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    # q, k and v
    "q is a list": ({"q": [1.0, 2.0]}, TypeError, "`q`: expected a tensor of shape (B, H, Tq, D), got list [1.0, 2.0]"),
    "k is None": ({"k": None}, TypeError, "`k`: expected a tensor of shape (B, Hk, Tk, D), got None"),
    "q has 3 dimensions": (
        {"q": zeros(H, TQ, D)}, ValueError, "`q`: expected 4 dimensions (B, H, Tq, D), got shape (6, 5, 11)",
    ),
    "v has 5 dimensions": (
        {"v": zeros(1, B, HK, TK, DV)}, ValueError,
        "`v`: expected 4 dimensions (B, Hk, Tk, Dv), got shape (1, 2, 3, 7, 13)",
    ),
    "k of another dtype": (
        {"k": zeros(B, HK, TK, D, dtype=torch.float64)}, TypeError,
        "`k`: expected the dtype of q, float32, got float64",
    ),
    "v of another dtype": (
        {"v": zeros(B, HK, TK, DV, dtype=torch.bfloat16)}, TypeError,
        "`v`: expected the dtype of q, float32, got bfloat16",
    ),
    "integers": (
        {"q": zeros(B, H, TQ, D, dtype=torch.int64)}, TypeError,
        "`q`: expected dtype float32, bfloat16, float16 or float64, got int64",
    ),
    "complex numbers": (
        {"v": zeros(B, HK, TK, DV, dtype=torch.complex64)}, TypeError,
        "`v`: expected dtype float32, bfloat16, float16 or float64, got complex64",
    ),
    "float8": (
        {"k": zeros(B, HK, TK, D).to(torch.float8_e4m3fn)}, TypeError,
        "`k`: expected dtype float32, bfloat16, float16 or float64, got float8_e4m3fn",
    ),
    "a sparse tensor": (
        {"q": zeros(B, H, TQ, D).to_sparse()}, TypeError,
        "`q`: expected a dense (strided) tensor, got layout sparse_coo",
    ),
    "the meta device": (
        {"q": torch.zeros(B, H, TQ, D, device="meta")}, NotImplementedError,
        "`q`: expected a tensor on the device cpu, got device meta",
    ),
    "batch of k": (
        {"k": zeros(B + 1, HK, TK, D)}, ValueError, "`k`: expected the batch size of q, 2, got shape (3, 3, 7, 11)",
    ),
    "batch of v": (
        {"v": zeros(1, HK, TK, DV)}, ValueError, "`v`: expected the batch size of q, 2, got shape (1, 3, 7, 13)",
    ),
    "head size of k": (
        {"k": zeros(B, HK, TK, D + 1)}, ValueError, "`k`: expected the head size of q, 11, got shape (2, 3, 7, 12)",
    ),
    "length of v": (
        {"v": zeros(B, HK, TK + 1, DV)}, ValueError,
        "`v`: expected the heads and length of k, (2, 3, 7, Dv), got shape (2, 3, 8, 13)",
    ),
    "heads of v": (
        {"v": zeros(B, 1, TK, DV)}, ValueError,
        "`v`: expected the heads and length of k, (2, 3, 7, Dv), got shape (2, 1, 7, 13)",
    ),
    "H not a multiple of Hk": (
        {"q": zeros(B, 7, TQ, D)}, ValueError, "`q`: expected heads H in a multiple of the heads of k, 3, got H = 7",
    ),
    "no key heads": (
        {"k": zeros(B, 0, TK, D), "v": zeros(B, 0, TK, DV)}, ValueError,
        "`q`: expected heads H in a multiple of the heads of k, 0, got H = 6",
    ),
    # mask
    "mask is a string": ({"mask": "causal"}, TypeError, f"`mask`: expected {MASK_KINDS}, got str 'causal'"),
    "mask is True": ({"mask": True}, TypeError, f"`mask`: expected {MASK_KINDS}, got True"),
    "an int mask": (
        {"mask": zeros(TQ, TK, dtype=torch.int64)}, TypeError,
        f"`mask`: expected {MASK_KINDS}, got an int64 tensor of shape (5, 7)",
    ),
    "a bool mask of other sizes": (
        {"mask": zeros(TQ, TK + 1, dtype=torch.bool)}, ValueError,
        "`mask`: expected a shape that broadcasts to (B, H, Tq, Tk) = (2, 6, 5, 7), got (5, 8)",
    ),
    "a bool mask of fewer rows": (
        {"mask": zeros(B, 1, 3, TK, dtype=torch.bool)}, ValueError,
        "`mask`: expected a shape that broadcasts to (B, H, Tq, Tk) = (2, 6, 5, 7), got (2, 1, 3, 7)",
    ),
    "a float mask of other sizes": (
        {"mask": zeros(3, 1, TQ, TK)}, ValueError,
        "`mask`: expected a shape that broadcasts to (B, H, Tq, Tk) = (2, 6, 5, 7), got (3, 1, 5, 7)",
    ),
    "a mask of 5 dimensions": (
        {"mask": zeros(1, B, H, TQ, TK)}, ValueError,
        "`mask`: expected a shape that broadcasts to (B, H, Tq, Tk) = (2, 6, 5, 7), got (1, 2, 6, 5, 7)",
    ),
    "NaN in a float mask": (
        {"mask": torch.tensor([0.0] * 6 + [math.nan])}, ValueError,
        "`mask`: expected a float mask of finite numbers and -inf, got one with nan in it",
    ),
    "+inf in a float mask": (
        {"mask": torch.tensor([-math.inf] * 6 + [math.inf])}, ValueError,
        "`mask`: expected a float mask of finite numbers and -inf, got one with inf in it",
    ),
    "a mask on the meta device": (
        {"mask": torch.zeros(TQ, TK, dtype=torch.bool, device="meta")}, NotImplementedError,
        "`mask`: expected a tensor on the device cpu, got device meta",
    ),
    # numbers
    "scale is NaN": ({"scale": math.nan}, ValueError, "`scale`: expected a finite number, got nan"),
    "scale is infinite": ({"scale": -math.inf}, ValueError, "`scale`: expected a finite number, got -inf"),
    "scale is a bool": ({"scale": True}, TypeError, "`scale`: expected a finite number, got True"),
    "scale is text": ({"scale": "auto"}, TypeError, "`scale`: expected a finite number, got str 'auto'"),
    "scale is a tensor": (
        {"scale": torch.tensor([0.1])}, TypeError,
        "`scale`: expected a finite number, got a float32 tensor of shape (1,)",
    ),
    "q_start is a float": (
        {"q_start": 1.5}, TypeError,
        "`q_start`: expected None, an int or an int tensor (B,), got 1.5",
    ),
    "q_start is a bool": (
        {"q_start": True}, TypeError,
        "`q_start`: expected None, an int or an int tensor (B,), got True",
    ),
    "q_start of float dtype": (
        {"q_start": torch.tensor([1.0, 2.0])}, TypeError,
        "`q_start`: expected None, an int or an int tensor (B,), got a float32 tensor of shape (2,)",
    ),
    "q_start of another batch": (
        {"q_start": torch.tensor([1, 2, 3])}, ValueError, "`q_start`: expected shape (B,) = (2,), got (3,)",
    ),
    "q_start out of reach": (
        {"q_start": 1 << 61}, ValueError,
        "`q_start`: expected an integer within 2**60, got 2305843009213693952",
    ),
    "q_start tensor out of reach": (
        {"q_start": torch.tensor([0, -(1 << 62)])}, ValueError,
        "`q_start`: expected an integer within 2**60, got -4611686018427387904",
    ),
    "q_start past 64 bits": (
        {"q_start": 1 << 70}, ValueError,
        "`q_start`: expected an integer within 2**60, got 1180591620717411303424",
    ),
    "scale past float32": (
        {"scale": 1e300}, ValueError, "`scale`: expected a number within ±1e+38, as float32 can hold, got 1e+300",
    ),
    "return_lse is text": ({"return_lse": "no"}, TypeError, "`return_lse`: expected True or False, got str 'no'"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
@pytest.mark.parametrize("weights", [False, True], ids=["out", "weights"])
def test_bad_input(case: str, weights: bool) -> None:
    wrong, kind, message = TABLE[case]
    with pytest.raises(kind) as caught:
        mmha.attention(**{**inputs(), **wrong}, return_weights=weights)
    assert str(caught.value) == message
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "mask",
    [
        KeyPadding([3, 4, 5]),
        Keys(torch.ones(B, TK + 1, dtype=torch.bool)),
        Queries(torch.ones(B, TQ + 1, dtype=torch.bool)),
        Documents(torch.zeros(TK - 1, dtype=torch.int64)),
        PerHead([Causal()] * (H + 1)),
        Dense(torch.ones(B, H, TQ, TK + 1, dtype=torch.bool)),
    ],
    ids=lambda mask: type(mask).__name__,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weights", [False, True], ids=["out", "weights"])
def test_a_mask_value_that_does_not_fit(mask: mmha.masks.Mask, dtype: torch.dtype, weights: bool) -> None:
    q, k, v = (x.to(dtype) for x in inputs().values())
    with pytest.raises(ValueError, match=r"^`\w+`: expected .*, got .*"):
        mmha.attention(q, k, v, mask, return_weights=weights)


def test_a_mask_that_does_not_fit_is_refused_even_where_there_is_nothing_to_compute() -> None:
    with pytest.raises(ValueError, match="lengths"):
        mmha.attention(zeros(B, H, 0, D), zeros(B, HK, TK, D), zeros(B, HK, TK, DV), KeyPadding([3, 4, 5]))


def test_legal_edges_are_not_refused() -> None:
    for extra in (
        {"q_start": -100},
        {"q_start": torch.tensor([-3, 9])},
        {"scale": 0},
        {"scale": -1.5},
        {"dropout_p": 0},
        {"dropout_p": 1},
        {"softcap": 30},
        {"sinks": torch.full((H,), -math.inf)},
    ):
        assert mmha.attention(**inputs(), mask=Causal(), **extra).shape == (B, H, TQ, DV)


@pytest.mark.filterwarnings("ignore")  # of torch about torch: torch.func uses torch.jit, quantization is being retired
def test_forward_mode_vmap_and_quantized_tensors_are_refused_by_name() -> None:
    q, k, v = inputs().values()
    with pytest.raises(NotImplementedError, match=r"mmha\.attention: forward-mode derivatives"):
        torch.func.jvp(lambda x: mmha.attention(x, k, v), (q,), (torch.ones_like(q),))
    with pytest.raises(RuntimeError, match=r"mmha\.attention: torch\.vmap is not available"):
        torch.func.vmap(mmha.attention)(q[None], k[None], v[None])
    with pytest.raises(RuntimeError, match=r"mmha\.attention: torch\.vmap is not available"):
        torch.func.vmap(torch.ops.mmha.float_mask)(torch.zeros(2, TQ, TK))
    quantized = torch.quantize_per_tensor(q, 0.1, 0, torch.qint8)
    with pytest.raises(TypeError, match=r"`q`: expected a tensor that is not quantized, got qint8"):
        mmha.attention(quantized, k, v)


@pytest.mark.filterwarnings("ignore")  # torch warns about its own prototype
def test_a_nested_tensor_is_refused_by_name() -> None:
    q, k, v = inputs().values()
    with pytest.raises(TypeError, match=r"`q`: expected a dense \(strided\) tensor, got a nested tensor"):
        mmha.attention(torch.nested.nested_tensor([q[0], q[0]]), k, v)
