"""The one format of every message about bad input: ``argument``: expected X, got Y.

Every room raises through these helpers, so that a message always names the argument, what was expected and what came.
Nothing here imports torch: a tensor is recognised by its attributes, so the command line can use this room and
stay light.
"""

from __future__ import annotations

import contextlib
import difflib
import numbers
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


def message(argument: str, expected: str, got: str) -> str:
    """One line that names the argument, what was expected and what came.

    >>> message("scale", "a finite number", "nan")
    '`scale`: expected a finite number, got nan'
    """
    return f"`{argument}`: expected {expected}, got {got}"


def value_error(argument: str, expected: str, got: str) -> ValueError:
    """The ValueError to raise for a value of the right type that does not fit.

    >>> raise value_error("q", "4 dimensions (B, H, Tq, D)", "(3, 5)")
    Traceback (most recent call last):
    ...
    ValueError: `q`: expected 4 dimensions (B, H, Tq, D), got (3, 5)
    """
    return ValueError(message(argument, expected, got))


def type_error(argument: str, expected: str, value: object) -> TypeError:
    """The TypeError to raise for a value of the wrong type; the value itself is described.

    >>> raise type_error("mask", "a Mask or a bool tensor", "causal")
    Traceback (most recent call last):
    ...
    TypeError: `mask`: expected a Mask or a bool tensor, got str 'causal'
    """
    return TypeError(message(argument, expected, describe(value)))


@contextlib.contextmanager
def renamed(**names: str) -> Iterator[None]:
    """Within it, messages name arguments as the caller's own function does: renamed(bias="score_bias").

    >>> with renamed(mask="src_mask"):
    ...     raise value_error("mask", "a tensor", "3")
    Traceback (most recent call last):
    ...
    ValueError: `src_mask`: expected a tensor, got 3
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        for inner, outer in names.items():
            if str(error).startswith(f"`{inner}`"):
                raise type(error)(str(error).replace(inner, outer, 1)) from None
        raise


def require(condition: bool, argument: str, expected: str, got: object) -> None:
    """Raise the ValueError unless the condition holds. `got` is only turned to text when it does not.

    >>> require(7 % 2 == 0, "heads", "a multiple of 2", 7)
    Traceback (most recent call last):
    ...
    ValueError: `heads`: expected a multiple of 2, got 7
    """
    if not condition:
        raise value_error(argument, expected, got if isinstance(got, str) else describe(got))


def is_tensor(value: object) -> bool:
    """Whether the value is a torch tensor (or looks like one), found without importing torch.

    By attributes that torch's compiler knows of a tensor that it traces; torch 2.9 knows no methods in this way.
    """
    return hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "requires_grad")


def shape_text(shape: Iterable[object]) -> str:
    """A shape as people write it.

    >>> shape_text([2, 3]), shape_text([7]), shape_text([])
    ('(2, 3)', '(7,)', '()')
    """
    return str(tuple(shape))


def describe(value: object) -> str:
    """A short description of any value for the `got` half of a message; never more than a line.

    >>> describe(3), describe(None), describe("abc"), describe([1, 2]), describe(2.5)
    ('3', 'None', "str 'abc'", 'list [1, 2]', '2.5')
    """
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = "tensor" if is_tensor(value) else "array"
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{'an' if dtype[0] == 'i' else 'a'} {dtype} {kind} of shape {shape_text(value.shape)}"
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def integer(argument: str, value: Any, minimum: int | None = None, maximum: int | None = None) -> int:
    """The value as a Python int. A bool, a float or a string is refused; any integer type (numpy's too) is taken.

    >>> integer("size", 4, minimum=1)
    4
    >>> integer("size", 0, minimum=1)
    Traceback (most recent call last):
    ...
    ValueError: `size`: expected an integer >= 1, got 0
    """
    if type(value) is int and (minimum is None or minimum <= value) and (maximum is None or value <= maximum):
        return value  # what nearly always comes: no text is made
    expected = "an integer"
    if minimum is not None:
        expected += f" >= {minimum}"
    if maximum is not None:
        expected += f"{' and' if minimum is not None else ''} <= {maximum}"
    if isinstance(value, bool) or is_tensor(value) or not hasattr(value, "__index__"):
        raise type_error(argument, expected, value)
    number = operator.index(value)
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        raise value_error(argument, expected, str(number))
    return number


def number(argument: str, value: Any, minimum: float | None = None) -> float:
    """The value as a finite float.

    >>> number("scale", 2)
    2.0
    >>> number("scale", float("nan"))
    Traceback (most recent call last):
    ...
    ValueError: `scale`: expected a finite number, got nan
    """
    expected = "a finite number" if minimum is None else f"a finite number >= {minimum}"
    if isinstance(value, bool) or is_tensor(value) or not isinstance(value, numbers.Real):
        raise type_error(argument, expected, value)
    try:
        result = float(value)
    except OverflowError:
        raise value_error(argument, expected, "an integer beyond all floats") from None
    finite = result - result == 0.0
    if not finite or (minimum is not None and result < minimum):
        raise value_error(argument, expected, repr(result))
    return result


def dtype_in(argument: str, value: Any, names: Sequence[str]) -> None:
    """Raise TypeError unless the value is a tensor whose dtype is one of the names ("float32", "bool", ...)."""
    expected = f"a tensor of {listed(names)}"
    if not is_tensor(value):
        raise type_error(argument, expected, value)
    if str(value.dtype).removeprefix("torch.") not in names:
        raise TypeError(message(argument, expected, str(value.dtype).removeprefix("torch.")))


def shape_is(argument: str, value: Any, wanted: Sequence[object], names: str = "") -> None:
    """Raise ValueError unless the tensor's shape equals `wanted`, where a string or None stands for any size.

    `names` is the shape in the glossary's letters, put beside the numbers: "(B, H, Tq, D) = (2, 3, 5, 7)".
    """
    shape = tuple(value.shape)
    fits = len(shape) == len(wanted) and all(
        not isinstance(want, int) or want == have for want, have in zip(wanted, shape, strict=True)
    )
    if not fits:
        text = "(" + ", ".join("*" if w is None else str(w) for w in wanted) + ("," if len(wanted) == 1 else "") + ")"
        raise value_error(argument, f"shape {names} = {text}" if names else f"shape {text}", shape_text(shape))


def listed(options: Iterable[str]) -> str:
    """Options as a phrase.

    >>> listed(["float32"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('float32', 'a or b', 'a, b or c')
    """
    names = list(options)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def nearest(word: str, options: Iterable[str]) -> str:
    """The hint that ends a message about an unknown word, empty when nothing is near.

    >>> nearest("casual", ["causal", "window"])
    "; did you mean 'causal'?"
    """
    found = difflib.get_close_matches(word.lower(), list(options), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def one_of(argument: str, value: Any, options: Sequence[str]) -> str:
    """The value, when it is one of the options; otherwise a ValueError with the near match.

    >>> one_of("style", "halv", ["half", "interleaved"])
    Traceback (most recent call last):
    ...
    ValueError: `style`: expected 'half' or 'interleaved', got 'halv'; did you mean 'half'?
    """
    expected = listed([repr(option) for option in options])
    if not isinstance(value, str):
        raise type_error(argument, expected, value)
    if value not in options:
        raise value_error(argument, expected, repr(value) + nearest(value, options))
    return value
