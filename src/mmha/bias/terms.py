"""The kinds of bias: by a slope a head, by a table of distances, by any tensor."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmha import checks
from mmha.bias.base import Bias, Parts

FLOATING = ("float32", "bfloat16", "float16", "float64")


class ALiBi(Bias):
    """Farther keys count less, in each head at its own rate: bias[h, i, j] = -slopes[h] * |p - j|.

    slopes: float (H,), or a list. Raises TypeError for another dtype, ValueError for another shape, NaN and Inf.
    Source: Press et al. 2022, "Train Short, Test Long", section 3.

    >>> from mmha.bias import ALiBi
    >>> ALiBi([0.5]).dense(1, 1, 1, 4)
    tensor([[[[-1.5000, -1.0000, -0.5000,  0.0000]]]])
    """

    slopes: Tensor

    def __init__(self, slopes: Tensor | Sequence[float]) -> None:
        self._set(slopes=_numbers("slopes", slopes, "(H,)"))

    @staticmethod
    def standard(heads: int) -> ALiBi:
        """The slopes of the paper: 2**(-8 * 1 / H), 2**(-8 * 2 / H) ... 2**-8, float32.

        Where H is no power of two: those of the largest power of two n below it, then every other one of those of 2n.
        Raises ValueError unless heads >= 1. Source: the paper's code, `get_slopes`.

        >>> from mmha.bias import ALiBi
        >>> ALiBi.standard(3)
        ALiBi([0.0625, 0.00390625, 0.25])
        """
        heads = checks.integer("heads", heads, 1)
        power = 1 << (heads.bit_length() - 1)
        slopes = [2.0 ** (-8.0 * i / power) for i in range(1, power + 1)]
        slopes += [2.0 ** (-4.0 * i / power) for i in range(1, 2 * (heads - power), 2)]
        return ALiBi(slopes)

    def _args(self) -> tuple[Any, ...]:
        return (self.slopes,)

    def _heads(self) -> int | None:
        return len(self.slopes)

    def parts(self) -> Parts:
        return Parts(slopes=self.slopes)

    def fit(self, batch: int, heads: int, q_len: int, k_len: int) -> None:
        if len(self.slopes) != heads:
            raise checks.value_error("bias", f"ALiBi with H = {heads} slopes", str(len(self.slopes)))

    def _at(self, away: Tensor) -> Tensor:
        return self.slopes[:, None, None] * -away.abs()


class Relative(Bias):
    """A number for each distance up to R, the end values beyond: bias[h, i, j] = table[h, R + clip(j - p, -R, R)].

    table: float (H, 2R + 1), or lists; (1, 2R + 1) serves all heads. Raises TypeError for another dtype, ValueError
    for another shape, an even width, NaN and Inf (to hide pairs, use a mask).
    Source: Shaw et al. 2018, "Self-Attention with Relative Position Representations", equation 4, for a number a head.

    >>> from mmha.bias import Relative
    >>> Relative([[-1.0, 0.0, 1.0]]).dense(1, 1, 1, 4, q_start=1)
    tensor([[[[-1.,  0.,  1.,  1.]]]])
    """

    table: Tensor

    def __init__(self, table: Tensor | Sequence[Sequence[float]]) -> None:
        table = _numbers("table", table, "(H, 2R + 1)")
        checks.require(table.shape[1] % 2 == 1, "table", "an odd width 2R + 1", table.shape[1])
        self._set(table=table)

    @staticmethod
    def t5(weight: Tensor | Sequence[Sequence[float]], *, bidirectional: bool, max_distance: int = 128) -> Relative:
        """T5's buckets: table[h, R + d] = weight[bucket(d), h], one bucket a distance at first, then wider ones.

        weight: float (num_buckets, H), `relative_attention_bias.weight` of a checkpoint; differentiable in it.
        bidirectional: True in an encoder, where half of the buckets are for keys behind the query; False in a decoder.
        max_distance: all keys this far or farther share the last bucket.
        R is the least distance from which on the bucket stays the same.
        Raises TypeError and ValueError naming the argument. Source: Raffel et al. 2020, section 2.1, and its code.

        >>> from mmha.bias import Relative
        >>> Relative.t5([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]], bidirectional=False, max_distance=10)
        Relative([[5.0, 4.0, 4.0, 3.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
        """
        weight = _numbers("weight", weight, "(num_buckets, H)")
        if not isinstance(bidirectional, bool):
            raise checks.type_error("bidirectional", "True or False", bidirectional)
        sides = 2 if bidirectional else 1
        least = f"at least {2 * sides} buckets (rows)"
        checks.require(weight.shape[0] >= 2 * sides, "weight", least, weight.shape[0])
        one_each = weight.shape[0] // sides // 2
        max_distance = checks.integer("max_distance", max_distance, one_each + 1)
        find = _t5_buckets if torch.compiler.is_compiling() else _known_t5_buckets
        buckets = find(weight.shape[0] // sides, bidirectional, max_distance)
        return Relative(weight.index_select(0, torch.tensor(buckets, device=weight.device)).mT)

    @staticmethod
    def gaussian(sigma: Tensor | Sequence[float], radius: int) -> Relative:
        """A bell around the query: table[h, R + d] = -d**2 / (2 * sigma[h]**2) up to |d| = radius, then level.

        sigma: float (H,) > 0, in positions; differentiable in it. Beyond the radius the end value -radius**2 / (2 *
        sigma[h]**2) repeats: a key there is unlikely, not hidden (for that, use a mask).
        Raises TypeError and ValueError naming the argument.
        Source: Yang et al. 2018, "Modeling Localness for Self-Attention Networks", with the window at the query.

        >>> from mmha.bias import Relative
        >>> Relative.gaussian([1.0], radius=2)
        Relative([[-2.0, -0.5, 0.0, -0.5, -2.0]])
        """
        sigma = _numbers("sigma", sigma, "(H,)")
        if not torch.compiler.is_compiling() and not bool((sigma > 0).all()):
            raise checks.value_error("sigma", "numbers > 0", str(sigma.min().item()))
        radius = checks.integer("radius", radius, 0)
        away = torch.arange(-radius, radius + 1, device=sigma.device)
        return Relative(-(away**2) / (2.0 * sigma[:, None] ** 2))

    def _args(self) -> tuple[Any, ...]:
        return (self.table,)

    def _heads(self) -> int | None:
        return None if self.table.shape[0] == 1 else self.table.shape[0]

    def parts(self) -> Parts:
        return Parts(table=self.table)

    def fit(self, batch: int, heads: int, q_len: int, k_len: int) -> None:
        if self._heads() not in (None, heads):
            raise checks.value_error("bias", f"Relative with a table of 1 or H = {heads} rows", str(len(self.table)))

    def _at(self, away: Tensor) -> Tensor:
        radius = self.table.shape[1] // 2
        return self.table[:, radius + away[:, 0].clamp(-radius, radius)].transpose(0, 1)


class Additive(Bias):
    """Any tensor: bias[b, h, i, j] = tensor[b, h, i, j]; -inf hides the pair, whatever is added to it.

    tensor: float, broadcastable to (B, H, Tq, Tk). Raises TypeError for another dtype, ValueError for more dimensions.

    >>> from mmha.bias import Additive
    >>> Additive(torch.tensor([0.0, 1.0])).dense(1, 1, 2, 2)
    tensor([[[[0., 1.],
              [0., 1.]]]])
    """

    tensor: Tensor

    def __init__(self, tensor: Tensor) -> None:
        checks.dtype_in("tensor", tensor, FLOATING)
        if tensor.dim() > 4:
            shape = checks.shape_text(tensor.shape)
            raise checks.value_error("tensor", "at most 4 dimensions (B, H, Tq, Tk)", f"shape {shape}")
        self._set(tensor=tensor)

    def _args(self) -> tuple[Any, ...]:
        return (self.tensor,)

    def _heads(self) -> int | None:
        return None if self.tensor.dim() < 3 or self.tensor.shape[-3] == 1 else self.tensor.shape[-3]

    def parts(self) -> Parts:
        return Parts(additives=(self.tensor,))

    def fit(self, batch: int, heads: int, q_len: int, k_len: int) -> None:
        sizes, shape = (batch, heads, q_len, k_len), tuple(self.tensor.shape)
        if any(have not in (1, want) for have, want in zip(shape, sizes[4 - len(shape) :], strict=True)):
            expected = f"Additive of a shape that broadcasts to (B, H, Tq, Tk) = {checks.shape_text(sizes)}"
            raise checks.value_error("bias", expected, checks.shape_text(shape))

    def _at(self, away: Tensor) -> Tensor:
        return self.tensor


def _numbers(argument: str, value: Any, letters: str) -> Tensor:
    """The value as a float tensor of the dimensions that the letters name; a tensor is held as it is.

    While torch.compile traces, no value is looked at.
    """
    expected = f"a float tensor of shape {letters}, or lists of numbers"
    if isinstance(value, Sequence) and not isinstance(value, str):
        try:
            value = torch.tensor(value, dtype=torch.float32, device="cpu")
        except (TypeError, ValueError) as error:  # ragged lists, strings inside
            raise checks.type_error(argument, expected, value) from error
    if not isinstance(value, Tensor) or str(value.dtype).removeprefix("torch.") not in FLOATING:
        raise checks.type_error(argument, expected, value)
    if value.dim() != len(letters.replace(",)", ")").split(",")):
        raise checks.value_error(argument, f"shape {letters}", checks.shape_text(value.shape))
    if not torch.compiler.is_compiling() and not math.isfinite(value.detach().sum().item()):  # one quick look first
        strange = value.detach()[~value.isfinite()].tolist()
        if strange:
            raise checks.value_error(argument, "finite numbers", f"{strange[0]} among them")
    return value


def _t5_buckets(count: int, bidirectional: bool, max_distance: int) -> list[int]:
    """The bucket of every distance from -R to R; count buckets are for one side."""
    one_each = count // 2

    def bucket(away: int) -> int:
        side, far = (count if away > 0 else 0, abs(away)) if bidirectional else (0, max(-away, 0))
        if far < one_each:
            return side + far
        wider = int(math.log(far / one_each) / math.log(max_distance / one_each) * (count - one_each))
        return side + min(one_each + wider, count - 1)

    radius = max_distance  # the last bucket begins here or nearer
    while bucket(1 - radius) == bucket(-radius):
        radius -= 1
    return [bucket(away) for away in range(-radius, radius + 1)]


_known_t5_buckets = functools.cache(_t5_buckets)  # a model asks at every step; torch.compile does not like a cache
