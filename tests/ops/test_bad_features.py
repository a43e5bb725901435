"""Promise 7 for bias, softcap, sinks and dropout, and for tensors whose memory is gone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import mmha
from mmha.bias import Additive, ALiBi, Bias, Relative
from mmha.masks import Causal

B, H, HK, TQ, TK, D, DV = 2, 6, 3, 5, 7, 11, 13


def inputs() -> dict[str, Any]:
    return {"q": torch.zeros(B, H, TQ, D), "k": torch.zeros(B, HK, TK, D), "v": torch.zeros(B, HK, TK, DV)}


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def written(kind: Callable[[Tensor], Bias], x: Tensor, value: float) -> Bias:
    """A bias whose tensor was written after it was made and checked."""
    bias = kind(x)
    x[0] = value
    return bias


TABLE: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a tensor as bias": (
        {"bias": zeros(TQ, TK)}, TypeError,
        "`bias`: expected None or a Bias (mmha.bias; Additive(x) makes one of a tensor), "
        "got a float32 tensor of shape (5, 7)",
    ),
    "a mask as bias": (
        {"bias": Causal()}, TypeError,
        "`bias`: expected None or a Bias (mmha.bias; Additive(x) makes one of a tensor), got Causal Causal()",
    ),
    "a bias of other heads": (
        {"bias": ALiBi(zeros(HK))}, ValueError, "`bias`: expected ALiBi with H = 6 slopes, got 3",
    ),
    "a bias of other sizes": (
        {"bias": Relative(zeros(1, 3)) + Additive(zeros(B, H, TQ, 3))}, ValueError,
        "`bias`: expected Additive of a shape that broadcasts to (B, H, Tq, Tk) = (2, 6, 5, 7), got (2, 6, 5, 3)",
    ),
    "a bias on the meta device": (
        {"bias": Additive(torch.zeros(TQ, TK, device="meta"))}, NotImplementedError,
        "`bias`: expected a tensor on the device cpu, got device meta",
    ),
    "a sparse bias": (
        {"bias": Additive(zeros(TQ, TK).to_sparse())}, TypeError,
        "`bias`: expected a dense (strided) tensor, got layout sparse_coo",
    ),
    "NaN in slopes": (
        {"bias": written(ALiBi, zeros(H), math.nan)}, ValueError,
        "`bias`: expected slopes and a table of finite numbers, got one with nan in it",
    ),
    "-inf in a table": (
        {"bias": written(Relative, zeros(H, 3), -math.inf)}, ValueError,
        "`bias`: expected slopes and a table of finite numbers, got one with inf in it",
    ),
    "softcap is text": (
        {"softcap": "30"}, TypeError, "`softcap`: expected None or a number from 1e-30 to 1e+30, got str '30'",
    ),
    "softcap is a bool": (
        {"softcap": True}, TypeError, "`softcap`: expected None or a number from 1e-30 to 1e+30, got True",
    ),
    "softcap is a tensor": (
        {"softcap": torch.tensor(30.0)}, TypeError,
        "`softcap`: expected None or a number from 1e-30 to 1e+30, got a float32 tensor of shape ()",
    ),
    "softcap is 0": ({"softcap": 0}, ValueError, "`softcap`: expected None or a number from 1e-30 to 1e+30, got 0.0"),
    "softcap is negative": (
        {"softcap": -30.0}, ValueError, "`softcap`: expected None or a number from 1e-30 to 1e+30, got -30.0",
    ),
    "softcap is NaN": (
        {"softcap": math.nan}, ValueError, "`softcap`: expected None or a number from 1e-30 to 1e+30, got nan",
    ),
    "softcap is infinite": (
        {"softcap": math.inf}, ValueError, "`softcap`: expected None or a number from 1e-30 to 1e+30, got inf",
    ),
    "softcap past float32": (
        {"softcap": 1e-39}, ValueError, "`softcap`: expected None or a number from 1e-30 to 1e+30, got 1e-39",
    ),
    "sinks is a list": (
        {"sinks": [0.0] * H}, TypeError,
        "`sinks`: expected None or a float tensor (H,), got list [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]",
    ),
    "integer sinks": (
        {"sinks": zeros(H, dtype=torch.int64)}, TypeError,
        "`sinks`: expected None or a float tensor (H,), got an int64 tensor of shape (6,)",
    ),
    "sinks of other heads": ({"sinks": zeros(HK)}, ValueError, "`sinks`: expected shape (H,) = (6,), got (3,)"),
    "sinks with a batch": ({"sinks": zeros(B, H)}, ValueError, "`sinks`: expected shape (H,) = (6,), got (2, 6)"),
    "sinks on the meta device": (
        {"sinks": torch.zeros(H, device="meta")}, NotImplementedError,
        "`sinks`: expected a tensor on the device cpu, got device meta",
    ),
    "NaN in sinks": (
        {"sinks": torch.tensor([0.0] * 5 + [math.nan])}, ValueError,
        "`sinks`: expected a tensor of finite numbers and -inf, got one with nan in it",
    ),
    "+inf in sinks": (
        {"sinks": torch.tensor([-math.inf] * 5 + [math.inf])}, ValueError,
        "`sinks`: expected a tensor of finite numbers and -inf, got one with inf in it",
    ),
    "dropout_p is a bool": ({"dropout_p": True}, TypeError, "`dropout_p`: expected a number from 0 to 1, got True"),
    "dropout_p is text": ({"dropout_p": "0.1"}, TypeError, "`dropout_p`: expected a number from 0 to 1, got str '0.1'"),
    "dropout_p is None": ({"dropout_p": None}, TypeError, "`dropout_p`: expected a number from 0 to 1, got None"),
    "dropout_p is a tensor": (
        {"dropout_p": torch.tensor(0.1)}, TypeError,
        "`dropout_p`: expected a number from 0 to 1, got a float32 tensor of shape ()",
    ),
    "dropout_p is a tensor of two": (
        {"dropout_p": torch.tensor([0.1, 0.2])}, TypeError,
        "`dropout_p`: expected a number from 0 to 1, got a float32 tensor of shape (2,)",
    ),
    "dropout_p is negative": (
        {"dropout_p": -0.1}, ValueError, "`dropout_p`: expected a number from 0 to 1, got -0.1",
    ),
    "dropout_p above 1": ({"dropout_p": 2}, ValueError, "`dropout_p`: expected a number from 0 to 1, got 2.0"),
    "dropout_p is NaN": ({"dropout_p": math.nan}, ValueError, "`dropout_p`: expected a number from 0 to 1, got nan"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
@pytest.mark.parametrize("weights", [False, True], ids=["out", "weights"])
def test_bad_input(case: str, weights: bool) -> None:
    wrong, kind, message = TABLE[case]
    with pytest.raises(kind) as caught:
        mmha.attention(**{**inputs(), **wrong}, return_weights=weights)
    assert str(caught.value) == message
    assert type(caught.value) is kind


@pytest.mark.filterwarnings("ignore")  # of torch about torch: torch.func uses torch.jit
@pytest.mark.parametrize("name", ["q", "mask", "bias", "sinks", "dropout_p"])
def test_vmap_and_forward_mode_are_refused_by_name(name: str) -> None:
    x: dict[str, Tensor] = {"q": inputs()["q"], "mask": zeros(TQ, TK), "bias": zeros(TQ, TK), "sinks": zeros(H)}

    def function(value: Tensor) -> Any:
        given = {"q": value, "dropout_p": 0.5} if name == "dropout_p" else {name: value}
        return mmha.attention(**{**inputs(), **({"bias": Additive(value)} if name == "bias" else given)})

    value = x.get(name, x["q"])
    with pytest.raises(RuntimeError, match=r"^mmha\.attention: torch\.vmap is not available"):
        torch.func.vmap(function)(value[None])
    with pytest.raises(NotImplementedError, match=r"^mmha\.attention: forward-mode derivatives"):
        torch.func.jvp(function, (value,), (torch.ones_like(value),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("weights", [False, True], ids=["out", "weights"])
@pytest.mark.parametrize("name", ["k", "mask", "float mask", "additive", "slopes", "table", "sinks"])
def test_a_freed_tensor_is_refused_by_name(name: str, dtype: torch.dtype, weights: bool) -> None:
    q, k, v = (x.to(dtype) for x in inputs().values())
    freed: dict[str, Tensor] = {
        "k": k, "mask": torch.ones(TQ, TK, dtype=torch.bool), "float mask": zeros(TQ, TK), "additive": zeros(TQ, TK),
        "slopes": zeros(H), "table": zeros(H, 3), "sinks": zeros(H),
    }  # fmt: skip
    makers: dict[str, Callable[[Tensor], Bias]] = {"additive": Additive, "slopes": ALiBi, "table": Relative}
    x = freed[name]
    argument = "bias" if name in makers else name.split()[-1]
    given = {} if name == "k" else {argument: makers[name](x) if name in makers else x}
    x.untyped_storage().resize_(0)
    message = f"`{argument}`: expected a tensor with its numbers in memory, got one whose storage was freed"
    with pytest.raises(ValueError, match=message):
        mmha.attention(q, k, v, **given, return_weights=weights)


@pytest.mark.parametrize("weights", [False, True], ids=["out", "weights"])
@pytest.mark.parametrize("name", ["q", "bias", "sinks"])
def test_memory_that_is_gone_before_backward_is_refused_by_name(name: str, weights: bool) -> None:
    q, k, v = (x.requires_grad_() for x in inputs().values())
    additive, sinks = zeros(TQ, TK), zeros(H)
    results = mmha.attention(q, k, v, bias=Additive(additive), sinks=sinks, return_weights=weights)
    {"q": q, "bias": additive, "sinks": sinks}[name].untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=f"`{name}`: expected a tensor with its numbers in memory, got one whose"):
        torch.autograd.grad((results[0] if weights else results).sum(), k)
