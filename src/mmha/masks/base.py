"""`Mask`: the value every mask is, and the three ways to combine masks."""

from __future__ import annotations

import functools
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import torch
from torch import Tensor

from mmha import checks
from mmha.masks import held, plan
from mmha.masks.algebra import both, either
from mmha.masks.grid import Coordinates, Grid
from mmha.masks.rows import Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Start = int | Tensor | None


class Mask(ABC):
    """Which keys j a query at absolute position p may see: a frozen value that holds no Tq x Tk tensor.

    Key j stands at position j; query row i stands at position p = q_start + i, and `q_start` defaults to Tk - Tq
    (bottom-right alignment, what a KV cache needs). Masks combine with `&`, `|` and `~`, compare by structure
    (tensors by content), hash, and `eval(repr(mask)) == mask` where no large tensor is inside.

    >>> from mmha.masks import *
    >>> (Causal() & Window(4)) | Prefix(2)
    Causal() & Window(4) | Prefix(2)
    >>> ~~Causal() == Causal()
    True
    """

    _name: ClassVar[str] = ""
    _shared: bool = False  # holds a caller's tensor that may still change: such a mask is never cached
    _hash: int | None = None
    _flat: tuple[str, tuple[Tensor, ...]] | None = None

    @abstractmethod
    def _args(self) -> tuple[Any, ...]:
        """The arguments that would construct this mask again."""

    @abstractmethod
    def _holds(self, at: Coordinates) -> Tensor:
        """The definition, elementwise: bool, broadcastable to (B, H, rows, Tk). Must not use `_lower`."""

    @abstractmethod
    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        """The rows a kernel walks. `within` bounds where the answer matters: outside it anything may be said."""

    def _fit(self, grid: Grid) -> None:  # noqa: B027 -- most masks fit every grid
        """Raise ValueError when this mask cannot be asked about the grid."""

    def _irregular(self) -> bool:
        """Whether lowering it, or joining what comes out, gets cheaper once `within` is known (dense, long rows)."""
        return False

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is a frozen value; `{name}` cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is a frozen value; `{name}` cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return type(self) is type(other) and held.same(self._args(), other._args())

    def __hash__(self) -> int:
        if self._hash is None:
            object.__setattr__(self, "_hash", hash((type(self).__name__, held.digest(self._args()))))
        return self._hash  # type: ignore[return-value]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._args()  # a pickle must not carry `_hash`: Python salts it anew in every process

    def __repr__(self) -> str:
        return self._text(None)

    def _text(self, tensors: list[Tensor] | None) -> str:
        """The notation; with a list, tensors are appended to it and written as $0, $1 ..."""
        name = self._name or type(self).__name__
        return f"{name}({', '.join([held.text(value, tensors) for value in self._args()])})"

    def __and__(self, other: Mask) -> Mask:
        return And(self, other) if isinstance(other, Mask) else NotImplemented

    def __or__(self, other: Mask) -> Mask:
        return Or(self, other) if isinstance(other, Mask) else NotImplemented

    def __invert__(self) -> Mask:
        return Not(self)

    def __bool__(self) -> NoReturn:
        raise TypeError("a mask has no truth value: combine masks with `&`, `|` and `~`, not `and`, `or` and `not`")

    def plan(self, batch: int, heads: int, q_len: int, k_len: int, q_start: Start = None) -> plan.Plan:
        """Lower the mask, once, to what kernels understand: spans of visible keys per row, or bits.

        Shapes: q_start int or int tensor (B,). The result is kept in a bounded cache. Span masks cost O(Tq).
        Raises ValueError when the mask does not fit the sizes, MemoryError when its plan could not be held.

        >>> from mmha.masks import Causal
        >>> Causal().plan(batch=2, heads=3, q_len=5, k_len=7).visible  # 2 * 3 * (3 + 4 + 5 + 6 + 7)
        150
        """
        return plan.lookup(self, Grid.of(batch, heads, q_len, k_len, q_start))

    def dense(self, batch: int, heads: int, q_len: int, k_len: int, q_start: Start = None) -> Tensor:
        """Evaluate the definition at every pair: bool (B, H, Tq, Tk), True = visible. Independent of the plan.

        >>> from mmha.masks import Causal
        >>> Causal().dense(1, 1, 2, 3)[0, 0].int()
        tensor([[1, 1, 0],
                [1, 1, 1]], dtype=torch.int32)
        """
        return plan.evaluate(self, Grid.of(batch, heads, q_len, k_len, q_start))

    def flatten(self) -> tuple[str, list[Tensor]]:
        """The notation with every tensor written as $n, and the tensors; `unflatten` reverses it. Traceable.

        >>> from mmha.masks import Causal, KeyPadding
        >>> (Causal() & KeyPadding([3, 5])).flatten()
        ('Causal() & KeyPadding($0)', [tensor([3, 5])])
        """
        if self._flat is None or torch.compiler.is_compiling():
            tensors: list[Tensor] = []
            spec = self._text(tensors)
            if not torch.compiler.is_compiling():  # there, remembering is a side effect that dynamo has to guard
                self._set(_flat=(spec, tuple(tensors)))
            return spec, tensors
        return self._flat[0], list(self._flat[1])

    def show(
        self, q_len: int, k_len: int | None = None, *, q_start: Start = None, batch: int = 1, heads: int = 1,
        item: tuple[int, int] = (0, 0), rows: Sequence[str] | None = None, columns: Sequence[str] | None = None,
        width: int = 80,
    ) -> str:  # fmt: skip
        """A text picture for a terminal: one line per query, one cell per key.

        A mask too large for `width` characters is scaled down: then a cell says whether all, some or none of its
        pairs are visible. Token strings may label the rows and columns (a sequence of length q_len, of k_len);
        `item` picks (batch, head). Raises ValueError when labels do not match the sizes or the mask does not fit.

        >>> from mmha.masks import Causal, Window
        >>> print((Causal() & Window(1)).show(4))
        0 ██· · ·
        1 ████· ·
        2 · ████·
        3 · · ████
        """
        from mmha.masks import picture

        k_len = q_len if k_len is None else k_len
        made = self.plan(batch, heads, q_len, k_len, q_start)
        return picture.draw(made, item, rows, columns, width)

    def plot(
        self, q_len: int, k_len: int | None = None, *, q_start: Start = None, batch: int = 1, heads: int = 1,
        item: tuple[int, int] = (0, 0), rows: Sequence[str] | None = None, columns: Sequence[str] | None = None,
        ax: Axes | None = None,
    ) -> Axes:  # fmt: skip
        """Draw the mask with matplotlib and return the Axes; the arguments are those of `show`.

        Raises ImportError naming the extra to install when matplotlib is missing.

        >>> from mmha.masks import Causal
        >>> Causal().plot(8).get_xlabel()
        'key'
        """
        from mmha.masks import figure

        k_len = q_len if k_len is None else k_len
        made = self.plan(batch, heads, q_len, k_len, q_start)
        return figure.draw(made, item, rows, columns, ax, title=repr(self))


class _Joined(Mask):
    """Two or more masks joined by one operator; nested joins of the same kind are flattened, so `&` associates."""

    masks: tuple[Mask, ...]

    def __init__(self, *masks: Mask) -> None:
        flat: tuple[Mask, ...] = ()
        shared = False
        for mask in masks:
            if not isinstance(mask, Mask):
                raise checks.type_error("masks", "masks only", mask)
            flat += mask.masks if type(mask) is type(self) else (mask,)
            shared = shared or mask._shared
        if len(flat) < 2:
            raise checks.value_error("masks", f"two or more masks for {type(self).__name__}", str(len(flat)))
        self._set(masks=flat, _shared=shared)

    def _args(self) -> tuple[Any, ...]:
        return self.masks

    def _fit(self, grid: Grid) -> None:
        for mask in self.masks:
            mask._fit(grid)

    def _irregular(self) -> bool:
        return any(mask._irregular() for mask in self.masks)


class And(_Joined):
    """Visible when every mask says so: m1(b, h, p, j) and m2(b, h, p, j) and ... The class behind `&`.

    >>> from mmha.masks import And, Causal, Window
    >>> And(Causal(), Window(4)) == Causal() & Window(4)
    True
    """

    def _text(self, tensors: list[Tensor] | None) -> str:
        return " & ".join([f"({m._text(tensors)})" if isinstance(m, Or) else m._text(tensors) for m in self.masks])

    def _holds(self, at: Coordinates) -> Tensor:
        return functools.reduce(operator.and_, (mask._holds(at) for mask in self.masks))

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        result: Rows | None = None
        for mask in sorted(self.masks, key=lambda m: m._irregular()):  # the regular ones bound the others
            if mask._irregular() and result is not None:
                within = result if within is None else both(result, within)
            rows = mask._lower(grid, within)
            result = rows if result is None else both(result, rows)
        assert result is not None
        return result


class Or(_Joined):
    """Visible when any mask says so: m1(b, h, p, j) or m2(b, h, p, j) or ... The class behind `|`.

    >>> from mmha.masks import Causal, Or, Prefix
    >>> Or(Causal(), Prefix(4)) == Causal() | Prefix(4)
    True
    """

    def _text(self, tensors: list[Tensor] | None) -> str:
        return " | ".join([m._text(tensors) for m in self.masks])

    def _holds(self, at: Coordinates) -> Tensor:
        return functools.reduce(operator.or_, (mask._holds(at) for mask in self.masks))

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        return functools.reduce(either, (mask._lower(grid, within) for mask in self.masks))


class Not(Mask):
    """Visible where the mask hides: not m(b, h, p, j). The class behind `~`; `~~m` is `m` itself.

    torch.compile (2.13) cannot trace `~` on an object: inside a compiled function write Not(m).

    >>> from mmha.masks import Causal, Not
    >>> Not(Causal()) == ~Causal()
    True
    """

    def __init__(self, mask: Mask) -> None:
        if not isinstance(mask, Mask):
            raise checks.type_error("mask", "a mask", mask)
        self._set(mask=mask, _shared=mask._shared)

    mask: Mask

    def __invert__(self) -> Mask:
        return self.mask

    def _args(self) -> tuple[Any, ...]:
        return (self.mask,)

    def _text(self, tensors: list[Tensor] | None) -> str:
        inner = self.mask._text(tensors)
        return f"~({inner})" if isinstance(self.mask, _Joined) else f"~{inner}"

    def _fit(self, grid: Grid) -> None:
        self.mask._fit(grid)

    def _irregular(self) -> bool:
        return self.mask._irregular()

    def _holds(self, at: Coordinates) -> Tensor:
        return ~self.mask._holds(at)

    def _lower(self, grid: Grid, within: Rows | None) -> Rows:
        return self.mask._lower(grid, within).complement()
