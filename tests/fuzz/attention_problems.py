"""Attention problems drawn at random: sizes with 0, 1 and primes, masks of the algebra, biases, and numbers that every
dtype holds exactly, so that one exact result serves them all."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mask_notations import Case as Sizes
from mask_notations import Writer
from mmha import masks, reference
from mmha.masks import Mask
from mmha.reference import Gradients, Rule

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "sliced": lambda x: torch.cat([x, x, x], -1)[..., x.shape[3] : 2 * x.shape[3]],
    "cut": lambda x: torch.cat([x, x], 2)[:, :, x.shape[2] :],
    "stepped": lambda x: x.repeat_interleave(3, 2)[:, :, 1::3],
    "reversed strides": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "negative bit": lambda x: torch._neg_view(-x),
    "offset": lambda x: torch.cat([x.new_zeros(3), x.flatten()])[3:].view(x.shape),
    "width stride": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda x: x,
}


@dataclass
class Problem:
    """What a number draws. Tensors are float32; `same` are the dimensions along which v repeats; q and k, all but 3."""

    number: int
    sizes: Sizes
    kv_heads: int
    q: Tensor
    k: Tensor
    v: Tensor
    grads: list[Tensor]
    mask: Mask | None = None
    notation: str = ""
    leaves: dict[str, Tensor] = field(default_factory=dict)
    scale: float | None = None
    softcap: float | None = None
    weights: bool = False
    backward: bool = True
    same: tuple[int, ...] = ()
    fine: bool = False

    def __str__(self) -> str:
        s = self.sizes
        shape = f"B{s.batch} H{s.heads}/{self.kv_heads} T{s.q_len}x{s.k_len} D{self.q.shape[3]}/{self.v.shape[3]}"
        more = [f"{name} {tuple(x.shape)} {x.dtype}" for name, x in self.leaves.items()]
        more += [f"{name}={getattr(self, name)}" for name in ("scale", "softcap") if getattr(self, name) is not None]
        return f"{shape} q_start {s.q_start} mask {self.notation!r} {', '.join(more)}"


def draw(number: int) -> Problem:
    """Problem `number`, the same every time and whatever was drawn before."""
    pick, generator = random.Random(number), torch.Generator().manual_seed(number)
    tiny = pick.random() < 0.97
    kv_heads = _size(pick, (1, 2, 3))
    sizes = Sizes(
        "",
        _size(pick, (1, 1, 2, 3)),
        kv_heads * pick.choice((1, 1, 2, 3, 5)),
        _size(pick, (1, 1, 2, 3, 5, 7, 13, 17) if tiny else (23, 31, 33, 37, 67)),
        _size(pick, (1, 2, 3, 5, 7, 11, 19) if tiny else (37, 61, 131, 257, 283)),
        pick.choice((None, None, None, 0, 2, -3, 41)),
    )
    dim, value_dim = (_size(pick, (1, 2, 3, 5, 7, 8, 11, 16, 17, 31, 64) if tiny else (67, 80, 128)) for _ in "qv")
    fine = pick.random() < 0.25
    # Equal terms of a sum round alike, all up or all down: keys repeat in tiny problems alone, widths in v alone.
    same = pick.choice(((), (), (), (0,), (1,), (3,), (0, 1), *(((2,), (0, 1, 2, 3)) if tiny else ())))

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) if fine else _coarse(torch.randn(shape, generator=generator))

    shape_q = (sizes.batch, sizes.heads, sizes.q_len, dim)
    shape_k, shape_v = ((sizes.batch, kv_heads, sizes.k_len, width) for width in (dim, value_dim))
    along = {"q": same[: same.index(3)] if 3 in same else same, "v": same}
    q, k, v = (_repeated(numbers(*shape), along[x]) for shape, x in ((shape_q, "q"), (shape_k, "q"), (shape_v, "v")))
    pairs = (*shape_q[:3], sizes.k_len)
    grads = [numbers(*shape_q[:3], value_dim), numbers(*shape_q[:3]), numbers(*pairs)]
    made = Problem(number, sizes, kv_heads, q, k, v, grads, fine=fine, same=same)
    _add_mask(made, pick)
    _add_rest(made, pick, numbers, pairs)
    made.weights, made.backward = pick.random() < 0.3, pick.random() < 0.8
    if made.mask is not None and not made.leaves and pick.random() < 0.4:
        poison(made, pick.choice((math.nan, math.inf, -math.inf)))
    return made


def _size(pick: random.Random, sizes: tuple[int, ...]) -> int:
    return 0 if pick.random() < 0.015 else pick.choice(sizes)


def _coarse(x: Tensor) -> Tensor:
    """Numbers that bfloat16 and float16 both hold."""
    x = x.bfloat16().float()
    return torch.where(x.abs() < 2.0**-10, 0.0, x)


def _repeated(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    for dim in dims:
        x = x.narrow(dim, 0, min(1, x.shape[dim])).expand(x.shape).contiguous()
    return x


def _add_mask(made: Problem, pick: random.Random) -> None:
    """A random expression, or none; those that a start below 0 or an empty side forbids are drawn again."""
    for _ in range(0 if pick.random() < 0.1 else 20):
        notation = Writer(pick, made.sizes).mask(2)
        s = made.sizes
        try:
            mask = masks.parse(notation)
            mask.dense(s.batch, s.heads, s.q_len, s.k_len, s.q_start)
        except ValueError:
            continue
        made.mask, made.notation = mask, notation
        return


def _add_rest(made: Problem, pick: random.Random, numbers: Callable[..., Tensor], pairs: tuple[int, ...]) -> None:
    """Biases, sinks, a cap and a scale: about half of the problems have none."""
    heads, dim = pairs[1], max(made.q.shape[3], 1)
    if pick.random() < 0.3:
        made.scale = dim**-0.5 * pick.choice((0.0, -1.0, -0.5, 0.3))
    if pick.random() < 0.55:
        return
    wanted = {name for name in ("slopes", "table", "additive", "more", "sinks", "softcap") if pick.random() < 0.3}
    if "slopes" in wanted:
        made.leaves["slopes"] = numbers(heads).abs() / 8.0
    if "table" in wanted:
        made.leaves["table"] = numbers(pick.choice((1, heads)), 2 * pick.choice((0, 1, 3, 8)) + 1)
    for name in ("additive", "more"):
        if name in wanted:
            made.leaves[name] = _additive(pick, numbers, pairs)
    if "sinks" in wanted:
        made.leaves["sinks"] = numbers(heads).to(pick.choice((torch.float32, torch.bfloat16)))
    if "softcap" in wanted:
        made.softcap = pick.choice((0.5, 1.5, 30.0))


def _additive(pick: random.Random, numbers: Callable[..., Tensor], pairs: tuple[int, ...]) -> Tensor:
    """Numbers for all pairs or for a share of the dimensions, in any dtype, some with pairs that they hide."""
    shape = [size if pick.random() < 0.6 else 1 for size in pairs][pick.choice((0, 0, 1, 2)) :]
    x = numbers(*shape)
    if pick.random() < 0.4:
        x = x.masked_fill(numbers(*shape) < -0.5, -math.inf)
    if pick.random() < 0.3:
        x = x.mT.contiguous().mT
    return x.to(pick.choice((torch.float32, torch.float32, torch.bfloat16, torch.float16)))


def poison(made: Problem, value: float) -> None:
    """Numbers that no visible pair touches: keys that nobody sees, and rows that see nothing."""
    s = made.sizes
    assert made.mask is not None
    visible = made.mask.dense(s.batch, s.heads, s.q_len, s.k_len, s.q_start)
    rows = ~visible.any(-1)
    made.q[rows], made.grads[0][rows] = value, value
    if visible.numel():
        keys = ~visible.any(2).reshape(s.batch, made.kv_heads, -1, s.k_len).any(2)
        made.k[keys], made.v[keys] = value, value
    made.same = ()


def exact(made: Problem) -> dict[str, Tensor]:
    """All results and derivatives in float64."""
    s, leaves = made.sizes, made.leaves
    visible = None if made.mask is None else made.mask.dense(s.batch, s.heads, s.q_len, s.k_len, s.q_start)
    added = [name for name in ("additive", "more") if name in leaves]
    rule = Rule(
        visible,
        tuple(leaves[name] for name in added) or None,
        made.scale,
        made.softcap,
        leaves.get("sinks"),
        leaves.get("slopes"),
        leaves["table"].expand(s.heads, -1) if "table" in leaves else None,
        None if s.q_start is None else torch.tensor(s.q_start),
    )
    out, lse, weights = reference.attention(made.q, made.k, made.v, rule, return_weights=made.weights)
    found = {"out": out, "lse": lse} | ({} if weights is None else {"weights": weights})
    if made.backward:
        grads = Gradients(*made.grads[:2], made.grads[2] if made.weights else None)
        slopes = reference.gradients(made.q, made.k, made.v, grads, rule)
        found |= {"dq": slopes.q, "dk": slopes.k, "dv": slopes.v}
        for name in leaves:
            part = slopes.additive[added.index(name)] if name in added else getattr(slopes, name)  # type: ignore[index]
            found[f"d{name}"] = part.sum_to_size(leaves[name].shape)
    return found
