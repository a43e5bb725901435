"""Products with a weight matrix that is held in int8: a quarter of the bytes of float32."""

from __future__ import annotations

import platform

import torch
import torch.nn.functional as F
from torch import Tensor

from mmha.nn.linear import Arranged

LARGEST = 127
#: torch's kernel reads so many numbers at a time, whether or not a row has them, and x from such an address alone.
STEP, ALIGNED = 16, 64


class Quantized:
    """x·Wᵀ + b, at will relu of it, for x of few rows, as in decoding: W is rounded to int8, with a scale per output.

    W[m] ≈ s[m]·q[m],  q[m] = round(W[m] / s[m]),  s[m] = max |W[m]| / 127, rounded to bfloat16 before it divides

    So s·q is within s/2 of W, and no row is off by a factor. x, s, b and the result are bfloat16, the sums are float32,
    and a row of the result depends on its row of x alone, bit by bit. From about eight rows on, `Arranged` in bfloat16
    is faster. On a CPU of x86 without AVX2, where torch has no fast kernel, it is float32 products with s·q. What is
    made of the weights later changes nothing, and nothing has a gradient.

    Args: weight float (M, K), finite; bias (M,).
    Shapes: x float32 or bfloat16 (N, K) → (N, M) in the dtype of x.

    >>> Quantized(torch.ones(5, 3), -torch.arange(5.0), relu=True)(torch.ones(2, 3))[0]
    tensor([3., 2., 1., 0., 0.])
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> None:
        weight = weight.detach()
        scale = (weight.abs().amax(1) / LARGEST).to(torch.bfloat16)
        scale = torch.where(scale == 0, 1, scale)
        numbers = (weight / scale.to(weight.dtype)[:, None]).round()
        self.bias = None if bias is None else bias.detach().to(torch.bfloat16)
        self.missing, self.relu, self.slow = -weight.shape[1] % STEP, relu, None
        self.weight, self.scale = F.pad(numbers, (0, self.missing)).to(torch.int8), scale
        if not _has_kernel():
            rounded = None if self.bias is None else self.bias.float()
            self.slow = Arranged(numbers.float() * scale.float()[:, None], rounded, rows=1, relu=relu, is_far=True)

    def __call__(self, x: Tensor) -> Tensor:
        rows = x if x.dtype is torch.bfloat16 else x.to(torch.bfloat16)
        if self.slow is not None:
            return self.slow(rows.float()).to(x.dtype)
        if self.missing:
            rows = F.pad(rows, (0, self.missing))
        elif not rows.is_contiguous() or rows.data_ptr() % ALIGNED:
            rows = rows.clone(memory_format=torch.contiguous_format)
        out: Tensor = torch._weight_int8pack_mm(rows, self.weight, self.scale)
        if self.bias is not None:
            out.add_(self.bias)
        if self.relu:
            out.relu_()
        return out if x.dtype is torch.bfloat16 else out.to(x.dtype)


def _has_kernel() -> bool:
    """Whether torch multiplies int8 many at a time here; else it takes fifteen times as long."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not is_x86 or torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
