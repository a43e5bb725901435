"""How `mmha.nn` refuses what `torch.nn` refuses: with an exception that is caught by whoever catches torch's."""

from __future__ import annotations

from mmha import checks


class Refused(ValueError, AssertionError, RuntimeError):
    """Input that does not fit: a ValueError, as everywhere in mmha, and what torch.nn raises in its place.

    torch.nn asserts some of its conditions and raises RuntimeError for others; code that catches either catches this.

    >>> issubclass(Refused, ValueError), issubclass(Refused, AssertionError), issubclass(Refused, RuntimeError)
    (True, True, True)
    """


def refused(argument: str, expected: str, got: object) -> Refused:
    """The exception to raise: its message is that of `mmha.checks`.

    >>> raise refused("key", "3 dimensions", "2")
    Traceback (most recent call last):
    ...
    mmha.nn.refusals.Refused: `key`: expected 3 dimensions, got 2
    """
    return Refused(checks.message(argument, expected, got if isinstance(got, str) else checks.describe(got)))


def require(condition: bool, argument: str, expected: str, got: object) -> None:
    """Raise `Refused` unless the condition holds. `got` is only turned to text when it does not.

    >>> require(True, "key", "3 dimensions", 3)
    """
    if not condition:
        raise refused(argument, expected, got)
