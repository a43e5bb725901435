"""The notation of masks: read by the command line (`parse`), written by `repr`, carried by graphs (`unflatten`).

    mask     = and { "|" and }
    and      = not { "&" not }
    not      = { "~" } ( "(" mask ")" | atom )
    atom     = name [ "(" [ argument { "," argument } ] ")" ]
    argument = [ word "=" ] value
    value    = integer | "none" | "true" | "false" | "[" [ value { "," value } ] "]" | "$" integer | "@" integer | mask

Names are those of the classes in any case, underscores optional: causal, Causal(), strict_causal, key_padding.left(2).
`~` binds closer than `&`, and `&` closer than `|`. documents(3, 4) takes lengths, documents([0, 0, 1]) ids; keys,
queries, paddings, global, tree and per_head take their list without brackets too. $n is the n-th tensor and @n a
predicate: in specs only.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from torch import Tensor

from mmha import checks
from mmha.masks.base import Mask
from mmha.masks.general import Dense, PerHead, Spans
from mmha.masks.held import Shared
from mmha.masks.positions import Causal, Chunked, Dilated, Full, Prefix, StrictCausal, Window
from mmha.masks.predicate import Predicate, function_of
from mmha.masks.tables import Blocks, Global, Tree
from mmha.masks.tokens import Documents, KeyPadding, Keys, Queries, QueryPadding

_ATOMS: dict[str, Callable[..., Mask]] = {
    atom.__name__.lower(): atom
    for atom in (
        Full, Causal, StrictCausal, Window, Dilated, Chunked, Prefix, KeyPadding, Keys, Queries, QueryPadding,
        Documents, Global, Blocks, Tree, PerHead, Dense, Spans, Predicate,
    )
} | {"keypadding.left": KeyPadding.left, "documents.fromlengths": Documents.from_lengths}  # fmt: skip
_SPELLED = (
    "full", "causal", "strict_causal", "window", "dilated", "chunked", "prefix", "key_padding", "key_padding.left",
    "keys", "queries", "query_padding", "documents", "global", "blocks", "tree", "per_head", "dense", "spans",
)  # fmt: skip
_LISTED = ("keypadding", "keypadding.left", "querypadding", "keys", "queries", "global", "tree", "perhead")
DEEPEST = 100
_signature = functools.cache(inspect.signature)
_TOKEN = re.compile(r"\s*(?:(-?\d+)|([A-Za-z_][\w.]*)|([$@]\d+)|([&|~()\[\],=]))")
_WORDS: dict[str, Any] = {"none": None, "true": True, "false": False}


def parse(notation: str) -> Mask:
    """The mask written in the notation that the command line uses; the grammar heads this module. Nothing is evaluated.

    `parse(repr(mask)) == mask` where no large tensor is inside. Raises ValueError naming the word, its column and the
    nearest name.

    >>> from mmha.masks import parse
    >>> parse("causal & window(4) | prefix(2)")
    Causal() & Window(4) | Prefix(2)
    >>> parse("casual & window(4)")
    Traceback (most recent call last):
    ...
    ValueError: `mask`: expected the name of a mask at column 1, got 'casual'; did you mean 'causal'?
    """
    if not isinstance(notation, str):
        raise checks.type_error("mask", "the notation of a mask such as 'causal & window(4)'", notation)
    return _Reader(notation, None).whole()


def unflatten(spec: str, tensors: Sequence[Tensor]) -> Mask:
    """The mask that `flatten` wrote: $n stands for tensors[n], which is held without a copy.

    Raises ValueError when the spec does not read or names a tensor that is not there.

    >>> from mmha.masks import KeyPadding, unflatten
    >>> unflatten(*KeyPadding([3, 5]).flatten()) == KeyPadding([3, 5])
    True
    """
    return _Reader(spec, tensors).whole()


class _Reader:
    """Recursive descent over the tokens of one notation."""

    def __init__(self, notation: str, tensors: Sequence[Tensor] | None) -> None:
        self.notation, self.tensors, self.at, self.depth = notation, tensors, 0, 0
        self.tokens: list[tuple[str, int]] = []
        place = 0
        while notation[place:].strip():
            found = _TOKEN.match(notation, place)
            if found is None:
                place += len(notation[place:]) - len(notation[place:].lstrip())
                self.tokens.append((notation[place], place))
                self.at = len(self.tokens) - 1
                self._fail("a mask such as 'causal & window(4)'")
            self.tokens.append((found[0].strip(), found.end() - len(found[0].strip())))
            place = found.end()

    def whole(self) -> Mask:
        mask = self._mask()
        if self.at < len(self.tokens):
            self._fail("'&', '|' or the end")
        return mask

    def _peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def _take(self, wanted: str) -> bool:
        if self._peek() == wanted:
            self.at += 1
            return True
        return False

    def _need(self, *wanted: str) -> None:
        """Take the first of what may stand here; any other was looked for before."""
        if not self._take(wanted[0]):
            self._fail(checks.listed(map(repr, wanted)))

    def _fail(self, expected: str, hint: str = "") -> NoReturn:
        if self.at < len(self.tokens):
            word, place = self.tokens[self.at]
            raise checks.value_error("mask", f"{expected} at column {place + 1}", repr(word) + hint)
        raise checks.value_error("mask", f"{expected} at column {len(self.notation) + 1}", "the end" + hint)

    def _mask(self) -> Mask:
        mask = self._and()
        while self._take("|"):
            mask = mask | self._and()
        return mask

    def _and(self) -> Mask:
        mask = self._not()
        while self._take("&"):
            mask = mask & self._not()
        return mask

    def _not(self) -> Mask:
        negated = False
        while self._take("~"):
            negated = not negated
        if self._peek() == "(":
            self._enter()
            mask = self._mask()
            self._need(")")
            self.depth -= 1
        else:
            mask = self._atom()
        return ~mask if negated else mask

    def _enter(self) -> None:
        """Past a bracket that opens; a limit of our own, because that of Python has no column to name."""
        if self.depth == DEEPEST:
            self._fail(f"at most {DEEPEST} levels of brackets")
        self.depth += 1
        self.at += 1

    def _atom(self) -> Mask:
        start, word = self.at, self._peek()
        name = word.lower().replace("_", "")
        if name not in _ATOMS:
            self._fail("the name of a mask", checks.nearest(word, _SPELLED) if word else "")
        self.at += 1
        values: list[Any] = []
        named: dict[str, Any] = {}
        if self._peek() == "(":
            self._enter()
            while not self._take(")"):
                if values or named:
                    self._need(",", ")")
                self._argument(values, named)
            self.depth -= 1
        return self._build(start, name, values, named)

    def _argument(self, values: list[Any], named: dict[str, Any]) -> None:
        word = self._peek()
        if word.isidentifier() and self.at + 1 < len(self.tokens) and self.tokens[self.at + 1][0] == "=":
            self.at += 2
            named[word] = self._value()
        elif named:
            self._fail("a named argument")
        else:
            values.append(self._value())

    def _value(self) -> Any:
        word = self._peek()
        if word.lower() in _WORDS:
            self.at += 1
            return _WORDS[word.lower()]
        if word.lstrip("-").isdigit():
            self.at += 1
            return int(word)
        if word[:1] in ("$", "@"):
            return self._carried(word)
        if word != "[":
            return self._mask()
        self._enter()
        values: list[Any] = []
        while not self._take("]"):
            if values:
                self._need(",", "]")
            values.append(self._value())
        self.depth -= 1
        return values

    def _carried(self, word: str) -> Any:
        """A tensor or a function that a spec carries beside its text."""
        if self.tensors is None:
            self._fail("a value")
        number = int(word[1:])
        if word[0] == "$" and number >= len(self.tensors):
            self._fail(f"one of {len(self.tensors)} tensors")
        self.at += 1
        return Shared(self.tensors[number]) if word[0] == "$" else function_of(number)

    def _build(self, start: int, name: str, values: list[Any], named: dict[str, Any]) -> Mask:
        make = _ATOMS[name]
        plain = all(isinstance(value, (int, Mask)) for value in values)
        if name == "documents" and values and plain:
            make, values = Documents.from_lengths, [values]
        elif (
            name in _LISTED
            and plain
            and (len(values) > 1 or (values and name in ("keys", "queries", "global", "tree")))
        ):
            values = [values]
        signature = _signature(make)
        try:
            signature.bind(*values, **named)
        except TypeError:
            wanted = signature.parameters.values()
            shown = ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default}" for p in wanted)
            word, place = self.tokens[start]
            got = f"{len(values) + len(named)} argument{'s' if len(values) + len(named) != 1 else ''}"
            raise checks.value_error("mask", f"{word}({shown}) at column {place + 1}", got) from None
        return make(*values, **named)
