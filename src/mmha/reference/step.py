"""One step of decoding straight from the formula, in float64, row by row: what the fused step is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mmha.reference.blocks import four
from mmha.reference.formula import attention
from mmha.reference.rule import Rule

Past = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Rotation:
    """Rotary positions: pair i of the first `dims` numbers turns by the angle position * base**(-2i / dims).

    style: "half" pairs numbers (i, i + dims / 2), "interleaved" pairs (2i, 2i + 1).
    Source: Su et al. 2021, "RoFormer", equation 34.
    """

    dims: int
    base: float = 10000.0
    style: str = "half"


@dataclass(frozen=True)
class Output:
    """What becomes of a row's output x: (x + shift) * smooth, then clip(round(high * scale * x)) as int8.

    scale: None or <= 0 = it stays a float.
    shift, smooth: (H * Dv,), None = 0 and 1. round: "even" (ties to even) or "away" (half away from zero).
    bounds: (low, high), what is clipped to.
    """

    shift: Tensor | None = None
    smooth: Tensor | None = None
    scale: float | None = None
    round: str = "even"
    bounds: tuple[float, float] = (-127.0, 127.0)

    @property
    def is_int8(self) -> bool:
        """Whether the result is rounded to int8."""
        return self.scale is not None and self.scale > 0.0


@dataclass(frozen=True)
class Step:
    """Everything that makes a step beside qkv and the past; None = there is no such thing.

    bias: (width of qkv,), added to it. qkv_scale: (width of qkv,), what it is multiplied by before that.
    rotation, positions: how q and k turn, and where: (B,) or (B, 2), None = the row's length.
    lengths: (B,), the steps of its past that each row keeps; negative = the row is skipped; None = all.
    beam: (B, >= max length), the row of the batch whose past step j is read; the new step is always the row's own.
    window, sink_tokens: only the last `window` steps, the new one among them, and the first `sink_tokens` are visible.
    stored: the dtype to which new keys and values are rounded; int8 has a scale max|x| / 127 per step and head.
    rule: visible, additive (a src_mask is one), scale, softcap, sinks, slopes, table, for B rows with one query and
    as many keys as the longest row; a shorter row looks at the first ones.
    output: what becomes of the result.
    """

    bias: Tensor | None = None
    qkv_scale: Tensor | None = None
    rotation: Rotation | None = None
    positions: Tensor | None = None
    lengths: Tensor | None = None
    beam: Tensor | None = None
    window: int | None = None
    sink_tokens: int = 0
    stored: torch.dtype | None = None
    rule: Rule = field(default_factory=Rule)
    output: Output = field(default_factory=Output)


def masked_multihead_attention(
    qkv: Tensor, past: Past, step: Step | None = None
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """The decode step in float64: scale, bias, rotate, append, attend, and what the output is made into.

    x = qkv * qkv_scale + bias;  q, k, v = its columns [H * D | Hk * D | Hk * Dv];  q and k turn by the row's position;
    k and v follow the row's past;  out = attention of q over what of it is visible, as `mmha.reference.attention`.

    qkv: (B, H * D + Hk * D + Hk * Dv), one new step a row, any dtype. past: a row's k (Hk, t, D) and v (Hk, t, Dv).
    Returns out (B, H * Dv), float64, or int8 with an output scale, and the new past, float64. A skipped row gives
    0 and its past as it was.

    Source: FasterTransformer, decoder_masked_multihead_attention, for what the step takes.

    >>> past = [(torch.zeros(1, 1, 2), torch.ones(1, 1, 2))]
    >>> out, past = masked_multihead_attention(torch.tensor([[0.0, 0.0, 0.0, 0.0, 3.0, 3.0]]), past)
    >>> out.tolist(), past[0][1].tolist()
    ([[2.0, 2.0]], [[[1.0, 1.0], [3.0, 3.0]]])
    """
    step = step or Step()
    rows = [(k.double(), v.double()) for k, v in past]
    lengths = [k.shape[1] for k, _ in rows] if step.lengths is None else [int(n) for n in step.lengths]
    q, k, v = _inputs(qkv, rows, step, lengths)
    made = [
        row if n < 0 else _appended(row, n, k[b], v[b]) for b, (row, n) in enumerate(zip(rows, lengths, strict=True))
    ]
    out = q.new_zeros(q.shape[0], q.shape[1] * v.shape[2], dtype=torch.int8 if step.output.is_int8 else torch.float64)
    for b, n in enumerate(lengths):
        if n >= 0:
            keys, values = (_read(b, n, [row[i] for row in made], step.beam) for i in (0, 1))
            x, _, _ = attention(q[b : b + 1, :, None], keys[None], values[None], _rule_of_row(step, b, n))
            out[b] = _outgoing(x.flatten(), step.output)
    return out, made


def rotate(x: Tensor, positions: Tensor, rotation: Rotation) -> Tensor:
    """The first `dims` numbers of the last dimension turned, in float64: y1 = x1 cos - x2 sin, y2 = x2 cos + x1 sin.

    x: (..., D). positions: of x's leading shape; or with one dimension of size 2 more: the first half of the dims then
    turns as a Rotation(dims / 2) by positions[..., 0], the second by positions[..., 1].

    >>> rotate(torch.tensor([1.0, 0.0, 5.0]), torch.tensor(1), Rotation(2)).tolist()
    [0.5403023058681398, 0.8414709848078965, 5.0]
    """
    if positions.dim() == x.dim():
        half = replace(rotation, dims=rotation.dims // 2)
        first = rotate(x[..., : half.dims], positions[..., 0], half)
        return torch.cat([first, rotate(x[..., half.dims :], positions[..., 1], half)], -1)
    y = x.double().clone()
    pairs = rotation.dims // 2
    for i in range(pairs):
        a, b = (i, i + pairs) if rotation.style == "half" else (2 * i, 2 * i + 1)
        angle = positions.double() * rotation.base ** (-2.0 * i / rotation.dims)
        x1, x2 = x[..., a].double(), x[..., b].double()
        y[..., a] = x1 * angle.cos() - x2 * angle.sin()
        y[..., b] = x2 * angle.cos() + x1 * angle.sin()
    return y


def stored_as(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """What is read again after x (..., D) was stored: rounded to the dtype; int8 in steps of max|x| / 127 over D."""
    if dtype is None:
        return x.double()
    if dtype != torch.int8:
        return x.to(dtype).double()
    scale = x.double().abs().amax(-1, keepdim=True) / 127.0
    return torch.where(scale > 0.0, torch.round(x.double() / scale) * scale, 0.0)


def _inputs(qkv: Tensor, rows: Past, step: Step, lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """q (B, H, D), k (B, Hk, D) and v (B, Hk, Dv) of the new step, in float64, k and v as they are stored."""
    kv_heads, dim, value_dim = rows[0][0].shape[0], rows[0][0].shape[2], rows[0][1].shape[2]
    x = qkv.double()
    x = x if step.qkv_scale is None else x * step.qkv_scale.double()
    x = x if step.bias is None else x + step.bias.double()
    first = x.shape[1] - kv_heads * (dim + value_dim)
    q = x[:, :first].reshape(len(x), -1, dim)
    k = x[:, first : first + kv_heads * dim].reshape(len(x), kv_heads, dim)
    v = x[:, first + kv_heads * dim :].reshape(len(x), kv_heads, value_dim)
    if step.rotation is not None:
        places = torch.tensor(lengths) if step.positions is None else step.positions
        q = rotate(q, places[:, None].expand(-1, q.shape[1], *places.shape[1:]), step.rotation)
        k = rotate(k, places[:, None].expand(-1, kv_heads, *places.shape[1:]), step.rotation)
    return q, stored_as(k, step.stored), stored_as(v, step.stored)


def _appended(row: tuple[Tensor, Tensor], n: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The first n steps of a row's past, then the new one, k (Hk, D) and v (Hk, Dv)."""
    return torch.cat([row[0][:, :n], k[:, None]], 1), torch.cat([row[1][:, :n], v[:, None]], 1)


def _read(b: int, n: int, rows: list[Tensor], beam: Tensor | None) -> Tensor:
    """What row b reads, step by step: (Hk, n + 1, .)."""
    if beam is None:
        return rows[b]
    return torch.stack([*(rows[int(beam[b, j])][:, j] for j in range(n)), rows[b][:, n]], 1)


def _rule_of_row(step: Step, b: int, n: int) -> Rule:
    """The rule of one row alone, which stands at position n and has n + 1 keys."""
    rule = step.rule

    def of_row(x: Tensor) -> Tensor:
        x = four(x)
        return x[b : b + 1, ..., : n + 1] if x.shape[0] > 1 else x[..., : n + 1]

    visible = torch.ones(1, 1, 1, n + 1, dtype=torch.bool)
    if step.window is not None:
        at = torch.arange(n + 1)
        visible = visible & ((at > n - step.window) | (at < step.sink_tokens))
    if rule.visible is not None:
        whole = rule.visible if isinstance(rule.visible, Tensor) else rule.visible(0, 1)
        visible = visible & of_row(whole)
    given = (rule.additive,) if isinstance(rule.additive, Tensor) else rule.additive or ()
    return replace(rule, visible=visible, additive=tuple(of_row(x) for x in given), q_start=torch.tensor(n))


def _outgoing(x: Tensor, output: Output) -> Tensor:
    x = x if output.shift is None else x + output.shift.double()
    x = x if output.smooth is None else x * output.smooth.double()
    if output.scale is None or not output.is_int8:
        return x
    low, high = output.bounds
    x = high * output.scale * x
    whole = torch.round(x) if output.round == "even" else torch.copysign(torch.floor(x.abs() + 0.5), x)
    return whole.clamp(low, high).to(torch.int8)
