"""`Bias`: the value that every bias is, and the sum of biases."""

from __future__ import annotations

import functools
import operator
from abc import ABC, abstractmethod
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from mmha import checks

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
INLINE = 32  # a tensor with at most this many elements is written out in a repr


class Parts(NamedTuple):
    """A bias as kernels take it: slopes (H,), one table (1 or H, 2R + 1), tensors broadcastable to (B, H, Tq, Tk).

    bias[b, h, i, j] = table[h, R + clip(j - p, -R, R)] - slopes[h] * |p - j| + sum of additives[b, h, i, j]
    """

    slopes: Tensor | None = None
    table: Tensor | None = None
    additives: tuple[Tensor, ...] = ()


class Bias(ABC):
    """A number for every pair that is added to its score: score[b, h, i, j] + bias[b, h, i, j].

    Key j stands at position j; query row i stands at position p = q_start + i, and `q_start` defaults to Tk - Tq. A
    bias is a frozen value, but it holds the very tensors it was given: gradients reach them, and what is written into
    them counts. Biases are equal, and hash alike, when they are built alike from the same tensors, not from equal ones.

    >>> from mmha.bias import ALiBi
    >>> one = ALiBi([1.0])
    >>> one + one == one + one, one == ALiBi([1.0])
    (True, False)
    """

    @abstractmethod
    def parts(self) -> Parts:
        """The bias as kernels take it, a sum folded: slopes added, tables widened by their end values and added.

        Differentiable, and traceable by torch.compile.
        """

    @abstractmethod
    def fit(self, batch: int, heads: int, q_len: int, k_len: int) -> None:
        """Raise ValueError naming `bias` when it cannot be added to scores of shape (B, H, Tq, Tk)."""

    @abstractmethod
    def _args(self) -> tuple[Any, ...]:
        """The arguments that would construct this bias again."""

    @abstractmethod
    def _heads(self) -> int | None:
        """How many heads the bias is for; None = any."""

    @abstractmethod
    def _at(self, away: Tensor) -> Tensor:
        """The definition, elementwise: broadcastable to (B, H, Tq, Tk). away: int64 (1 or B, 1, Tq, Tk), j - p."""

    def dense(self, batch: int, heads: int, q_len: int, k_len: int, q_start: int | Tensor | None = None) -> Tensor:
        """The number at every pair, to look at and to test with: (B, H, Tq, Tk), differentiable.

        q_start: an int, or an int tensor () or (B,); None = Tk - Tq. Raises ValueError when the bias does not fit.

        >>> from mmha.bias import ALiBi
        >>> ALiBi([1.0]).dense(1, 1, 2, 3)[0, 0]
        tensor([[-1.,  0., -1.],
                [-2., -1.,  0.]])
        """
        self.fit(batch, heads, q_len, k_len)
        p = _starts(q_start, batch, k_len - q_len) + torch.arange(q_len, device="cpu")[:, None]
        values = self._at(torch.arange(k_len, device="cpu") - p)
        return values.expand(batch, heads, q_len, k_len).contiguous()

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is a frozen value; `{name}` cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is a frozen value; `{name}` cannot be deleted")

    def __add__(self, other: Bias) -> Bias:
        return Sum(self, other)

    def __radd__(self, other: Any) -> Bias:
        return self if type(other) is int and other == 0 else Sum(other, self)  # sum() of biases begins with 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bias) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return type(self), *(id(x) if isinstance(x, Tensor) else x for x in self._args())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._args()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join([_text(x) for x in self._args()])})"


class Sum(Bias):
    """The sum of two or more biases: bias1[b, h, i, j] + bias2[b, h, i, j] + ... The class behind `+`.

    Raises TypeError for what is no bias, ValueError for terms of different numbers of heads.

    >>> from mmha.bias import ALiBi, Relative
    >>> (ALiBi([1.0]) + ALiBi([0.5]) + Relative([[0.0]])).parts()
    Parts(slopes=tensor([1.5000]), table=tensor([[0.]]), additives=())
    """

    terms: tuple[Bias, ...]

    def __init__(self, *terms: Bias) -> None:
        flat: tuple[Bias, ...] = ()
        for term in terms:
            if not isinstance(term, Bias):
                raise checks.type_error("bias", "a Bias as a term of a sum (Additive(x) makes one of a tensor)", term)
            flat += term.terms if isinstance(term, Sum) else (term,)
        if len(flat) < 2:
            raise checks.value_error("bias", "two or more terms of a sum", str(len(flat)))
        heads = sorted({n for n in [term._heads() for term in flat] if n is not None})
        if len(heads) > 1:
            raise checks.value_error(
                "bias", "terms for the same number of heads", " and ".join([str(n) for n in heads])
            )
        self._set(terms=flat)

    def _args(self) -> tuple[Any, ...]:
        return self.terms

    def _heads(self) -> int | None:
        return next((n for n in [term._heads() for term in self.terms] if n is not None), None)

    def parts(self) -> Parts:
        return functools.reduce(_joined, [term.parts() for term in self.terms])

    def fit(self, batch: int, heads: int, q_len: int, k_len: int) -> None:
        for term in self.terms:
            term.fit(batch, heads, q_len, k_len)

    def _at(self, away: Tensor) -> Tensor:
        return functools.reduce(operator.add, [term._at(away) for term in self.terms])

    def __repr__(self) -> str:
        return " + ".join([repr(term) for term in self.terms])


def _joined(a: Parts, b: Parts) -> Parts:
    slopes, table = b.slopes if a.slopes is None else a.slopes, b.table if a.table is None else a.table
    if a.slopes is not None and b.slopes is not None:
        slopes = a.slopes + b.slopes
    if a.table is not None and b.table is not None:
        width = max(a.table.shape[1], b.table.shape[1])
        table = _widened(a.table, width) + _widened(b.table, width)
    return Parts(slopes, table, a.additives + b.additives)


def _widened(table: Tensor, width: int) -> Tensor:
    """The same table with its end values repeated."""
    more = (width - table.shape[1]) // 2
    return torch.cat([table[:, :1].expand(-1, more), table, table[:, -1:].expand(-1, more)], 1) if more else table


def _starts(q_start: Any, batch: int, default: int) -> Tensor:
    """`q_start` as int64 (1 or B, 1, 1, 1)."""
    expected = f"None, an int or an int tensor of shape ({batch},)"
    if not isinstance(q_start, Tensor):
        if q_start is not None and (checks.is_tensor(q_start) or not hasattr(q_start, "__index__")):
            raise checks.type_error("q_start", expected, q_start)
        start = default if q_start is None else checks.integer("q_start", q_start)
        return torch.full((1, 1, 1, 1), start, dtype=torch.int64, device="cpu")
    if q_start.dtype not in INTEGERS:
        raise checks.type_error("q_start", expected, q_start)
    if q_start.dim() != 0:
        checks.shape_is("q_start", q_start, (batch,), "(B,)")
    return q_start.to(torch.int64).reshape(-1, 1, 1, 1)


def _text(value: Any) -> str:
    """An argument in a repr: a small float32 tensor without a gradient as a list, any other as dtype and shape."""
    if not isinstance(value, Tensor):
        return repr(value)
    if value.numel() <= INLINE and value.dim() and value.dtype == torch.float32 and not value.requires_grad:
        return repr(value.tolist())
    learned = ", learned" if value.requires_grad else ""
    return f"<{str(value.dtype).removeprefix('torch.')} {checks.shape_text(value.shape)}{learned}>"
