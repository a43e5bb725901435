"""Products with a weight matrix, x·Wᵀ + b, by the library that is fastest at them on this CPU.

torch hands float32 products to MKL, which leaves AVX-512 unused on CPUs that Intel did not make. oneDNN, which torch
brings as well, uses it wherever it is: on a Zen 5 it reaches 85 % of the multiply-adds that the machine can do, MKL
39 %. (In bfloat16 and float16 torch takes oneDNN itself.)
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmha.ops.watch import is_plain

#: Rows and multiply-adds from which a product is worth oneDNN's dearer call: 10 microseconds forward, 60 both ways.
FEWEST_ROWS, FEWEST_PRODUCTS = 8, 1 << 22
#: Multiply-adds from which a matrix that was arranged for oneDNN is worth the call; with one row, twice as many.
FEWEST_ARRANGED = 1 << 19
#: The same where the matrix is read from afar, and reading it takes longest.
FEWEST_FAR = 1 << 14
CPU_FACTS = Path("/proc/cpuinfo")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """torch.nn.functional.linear, x·Wᵀ + b: the same to rounding, forward and backward.

    Shapes: x (..., K), weight (M, K), bias (M,) → (..., M); what torch takes.
    Raises: what torch raises.

    >>> linear(torch.ones(2, 3), torch.ones(5, 3), torch.ones(5)).shape
    torch.Size([2, 5])
    """
    if not _is_for_onednn(x, weight, bias):
        return F.linear(x, weight, bias)
    # A gradient that is a view cannot take in a second one in place: a tied weight of 94 MB would be copied.
    rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    if torch.is_grad_enabled():
        out: Tensor = _Linear.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
    else:
        out = _product(rows, weight, bias)
    return out if x.dim() == 2 else out.view(*x.shape[:-1], weight.shape[0])


class Linear(nn.Linear):
    """torch.nn.Linear, computed by `linear`: constructor, initial weights and state-dict keys are torch's.

    >>> Linear(3, 5)(torch.zeros(2, 3)).shape
    torch.Size([2, 5])
    """

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def project(layer: nn.Module, x: Tensor) -> Tensor:
    """layer(x); by `linear` where that is all there is to it: torch's own nn.Linear, no hooks, nothing replaced.

    For modules whose parts are torch's own classes, so that tools that look for these (quantization, adapters) work.

    >>> project(nn.Linear(3, 5), torch.zeros(2, 3)).shape
    torch.Size([2, 5])
    """
    if isinstance(layer, nn.Linear) and _is_plain(layer):
        return linear(x, layer.weight, layer.bias)
    out: Tensor = layer(x)
    return out


class Arranged:
    """x·Wᵀ + b, at will relu of it, for many x of few rows, as in decoding: W is arranged once as oneDNN reads it best.

    With 4 rows a call takes a quarter to two thirds of the time of torch's. The weights are those of now: what is made
    of them later changes nothing, and they have no gradient.

    Args: weight float32 (M, K); bias (M,); rows, about as many as x will have; is_far, whether a call finds the weights
        outside the core's own cache each time, because others are used in between: then arranging pays for small ones;
        dtype, bfloat16 to read half the bytes: x, W and b are then rounded to it, and so is the result.
    Shapes: x float32 (N, K), or of dtype → (N, M) of the dtype of x.

    >>> Arranged(torch.ones(5, 3), -torch.arange(5.0), rows=2, relu=True)(torch.ones(2, 3))[0]
    tensor([3., 2., 1., 0., 0.])
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        rows: int,
        relu: bool = False,
        is_far: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        fits = weight.dtype == torch.float32
        self.narrow = dtype if fits and dtype != torch.float32 else None
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        if self.narrow is not None:
            self.weight, self.bias = self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)
        self.relu, self.arranged = relu, None
        self.fewest = FEWEST_FAR if is_far else FEWEST_ARRANGED
        pays = rows * weight.numel() >= self.fewest
        if pays and fits and is_plain(self.weight) and _is_slow_on_mkl():
            self.arranged = torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous(), rows)

    def __call__(self, x: Tensor) -> Tensor:
        if self.narrow is None or x.dtype is self.narrow:
            return self._made(x)
        return self._made(x.to(self.narrow)).to(x.dtype)

    def _made(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[0], self.weight.shape[0]
        is_small = x.numel() * columns < (self.fewest if rows > 1 else 2 * self.fewest)
        if self.arranged is None or is_small or x.requires_grad or torch.is_autocast_enabled("cpu"):
            out = F.linear(x, self.weight, self.bias)
            return out.relu_() if self.relu else out
        kind = "relu" if self.relu else "none"
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.arranged, self.bias, kind, [], "")
        return made


def _is_plain(layer: nn.Linear) -> bool:
    """Whether a call of the layer is a call of nn.Linear.forward and no more."""
    shared = nn.modules.module
    hooks = (
        *(layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks),
        *(shared._global_forward_hooks, shared._global_forward_pre_hooks),
        *(shared._global_backward_hooks, shared._global_backward_pre_hooks),
    )
    return type(layer).forward is nn.Linear.forward and "forward" not in vars(layer) and not any(hooks)


def _is_for_onednn(x: Any, weight: Any, bias: Any) -> bool:
    """Whether it is float32, fits together, is large enough, and nobody but us has a say in it."""
    given = (x, weight) if bias is None else (x, weight, bias)
    if not all(isinstance(t, Tensor) and t.dtype == torch.float32 for t in given):
        return False
    if weight.dim() != 2 or x.dim() < 2 or x.shape[-1] != weight.shape[1]:
        return False
    if x.numel() < FEWEST_ROWS * weight.shape[1] or x.numel() * weight.shape[0] < FEWEST_PRODUCTS:
        return False
    if bias is not None and bias.shape != weight.shape[:1]:
        return False
    return _is_slow_on_mkl() and is_plain(*given) and not torch.is_autocast_enabled("cpu")


@functools.cache
def _is_slow_on_mkl() -> bool:
    """Whether torch computes with MKL on a CPU that is not Intel's, and has oneDNN beside it."""
    if not (torch._C.has_mkl and torch._C._has_mkldnn):
        return False
    try:
        facts = CPU_FACTS.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux: nobody has measured
        return False
    return "GenuineIntel" not in facts and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a·bᵀ + bias of a (N, K) and b (M, K)."""
    made: Tensor = torch.ops.mkldnn._linear_pointwise(a, _dense(b), bias, "none", [], "")
    return made


def _dense(x: Tensor) -> Tensor:
    """The matrix with its rows or its columns side by side in memory: others take oneDNN a thousand times as long."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()


class _Linear(torch.autograd.Function):
    """a·bᵀ + bias. Its gradients are such products again, and so can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(a, b)
        return _product(a, b, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,), (a, b), wanted = grads, ctx.saved_tensors, ctx.needs_input_grad
        return (
            linear(grad, b.t()) if wanted[0] else None,
            linear(grad.t(), a.t()) if wanted[1] else None,
            grad.sum(0) if wanted[2] else None,
        )
