"""Where a token stands, as a rotation of its queries and keys: a score then depends on how far apart the two stand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmha import checks

STYLES = ("half", "interleaved")


@dataclass(frozen=True)
class Rotary:
    """Rotates pairs of numbers of a head by angles that grow with the token's position.

    y1 = x1·cos(p·f_i) − x2·sin(p·f_i), y2 = x2·cos(p·f_i) + x1·sin(p·f_i), f_i = base^(−2i / dims), for the pairs
    (x1, x2) = (x[i], x[i + dims/2]) in the style "half" and (x[2i], x[2i + 1]) in the style "interleaved", i from 0
    to dims/2 − 1. With two position ids a token, the dims are two halves: the first is rotated as by Rotary(dims/2)
    at the first id, the second at the second. What lies beyond `dims` passes unchanged.

    Args: dims, how many numbers of a head are rotated: even, and a multiple of 4 for two position ids; base > 0.
    Shapes: rotary(x, positions): x (B, H, T, D) with D >= dims; positions int (T,), (B, T) or (B, T, 2).
    Returns: (B, H, T, D) in the dtype of x. Angles are taken in float64; the products in float32, for x float64 in
        float64.
    Raises: ValueError or TypeError naming the argument, what was expected and what came.
    Source: Su et al., *RoFormer* (2021), equation 34 ("interleaved"); Black et al., *GPT-NeoX-20B* (2022), section
        2.1.1 ("half", partial dims); Du et al., *GLM* (2022), section 2.2 (two position ids).

    >>> x = torch.tensor([1.0, 0.0]).expand(1, 1, 3, 2)
    >>> [[round(v, 3) for v in row] for row in Rotary(2)(x, torch.arange(3))[0, 0].tolist()]
    [[1.0, 0.0], [0.54, 0.841], [-0.416, 0.909]]
    """

    dims: int
    base: float = 10000.0
    style: str = "half"

    def __post_init__(self) -> None:
        checks.integer("dims", self.dims, minimum=2)
        checks.require(self.dims % 2 == 0, "dims", "an even number", self.dims)
        checks.require(checks.number("base", self.base) > 0, "base", "a number > 0", self.base)
        checks.one_of("style", self.style, STYLES)

    def __call__(self, x: Tensor, positions: Tensor) -> Tensor:
        checks.dtype_in("x", x, ("float32", "bfloat16", "float16", "float64"))
        checks.require(x.ndim == 4, "x", "4 dimensions (B, H, T, D)", checks.shape_text(x.shape))
        checks.require(x.shape[-1] >= self.dims, "x", f"D >= dims = {self.dims}", checks.shape_text(x.shape))
        cos, sin = self.angles(positions)
        batch, _, length, _ = x.shape
        wanted = (length,) if positions.ndim == 1 else (batch, length, *positions.shape[2:])
        checks.shape_is("positions", positions, wanted, ("(T,)", "(B, T)", "(B, T, 2)")[positions.ndim - 1])
        return self.turn(x, cos, sin)

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the angles at the positions, for `turn`: computed once for all layers.

        Args: positions int (T,), (B, T) or (B, T, 2).
        Returns: two of float64 (T, S, dims/2S) or (B, 1, T, S, dims/2S) for S position ids a token, in the order of
            the pairs.
        Raises: ValueError or TypeError when positions are not that.

        >>> Rotary(6).angles(torch.arange(5))[0].shape
        torch.Size([5, 1, 3])
        """
        checks.dtype_in("positions", positions, ("int64", "int32", "int16", "int8", "uint8"))
        fits = positions.ndim in (1, 2) or (positions.ndim == 3 and positions.shape[-1] == 2)
        checks.require(fits, "positions", "shape (T,), (B, T) or (B, T, 2)", checks.shape_text(positions.shape))
        parts = 2 if positions.ndim == 3 else 1
        checks.require(self.dims % (2 * parts) == 0, "dims", "a multiple of 4 for two position ids", self.dims)
        each = self.dims // parts
        rates = torch.tensor([self.base ** (-2 * i / each) for i in range(each // 2)], dtype=torch.float64)
        ids = positions if parts == 2 else positions[..., None]
        found = ids[..., None] * rates
        if positions.ndim > 1:
            found = found[:, None]  # the heads
        return found.cos(), found.sin()

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (B, H, T, D) rotated by what `angles` gave for its positions.

        >>> rotary, x, p = Rotary(4), torch.randn(2, 3, 5, 7), torch.arange(5)
        >>> torch.equal(rotary.turn(x, *rotary.angles(p)), rotary(x, p))
        True
        """
        kind = torch.promote_types(x.dtype, torch.float32)
        cos, sin = cos.to(kind), sin.to(kind)
        parts, pairs = cos.shape[-2:]
        axis = -2 if self.style == "half" else -1
        sizes = (parts, 2, pairs) if self.style == "half" else (parts, pairs, 2)
        first, second = x[..., : self.dims].to(kind).reshape(*x.shape[:-1], *sizes).unbind(axis)
        turned = torch.stack((first * cos - second * sin, second * cos + first * sin), axis).flatten(-3).to(x.dtype)
        return turned if x.shape[-1] == self.dims else torch.cat((turned, x[..., self.dims :]), -1)
