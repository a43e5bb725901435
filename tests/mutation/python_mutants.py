"""What is broken in the Python of masks, bias, cache and ops: mutmut's operators on one node of the syntax at a time.

Left out by rule, for no test could or should tell the mutant: annotations, docstrings and other strings in triple
quotes; the words of messages (arguments of `raise`, of `checks.message` and of the tables of names); `cast`, `TypeVar`,
`__all__` and `assert`; a `strict=True`, which only guards; and what differs from another mutant in nothing but how it
stops the module from being imported (an argument of a decorator).
"""

from __future__ import annotations

import hashlib
import random
from typing import NamedTuple

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

_SILENT_CALLS = {"message", "cast", "TypeVar", "NewType", "len", "isinstance", "getLogger"}


class PythonMutant(NamedTuple):
    """One change of one file: the lines it stands in, before and after, and the whole source after."""

    line: int
    last_line: int
    before: str
    after: str
    source: str

    def name(self) -> str:
        """What identifies it as long as its line stands: eight digits of a hash."""
        return hashlib.sha256(f"{self.before}>{self.after}".encode()).hexdigest()[:8]


class _Visitor(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_silent(node):
            return False
        if isinstance(node, cst.Arg) and node.keyword is not None and node.keyword.value == "strict":
            return False
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                self.found += [(node, new) for new in operator(node) if not _is_trivial(node, new)]
        return True


def _is_silent(node: cst.CSTNode) -> bool:
    if isinstance(node, (cst.Annotation, cst.Decorator, cst.Raise, cst.Assert, cst.Import, cst.ImportFrom)):
        return True
    if isinstance(node, cst.Expr):  # a docstring
        return isinstance(node.value, cst.SimpleString)
    if isinstance(node, cst.Call):
        name = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
        return isinstance(name, cst.Name) and name.value in _SILENT_CALLS
    if isinstance(node, cst.Assign):
        target = node.targets[0].target
        return isinstance(target, cst.Name) and target.value in {"__all__", "__slots__"}
    return False


def _is_trivial(node: cst.CSTNode, new: cst.CSTNode) -> bool:
    """Whether the mutant only removes a guard: the argument `strict` of a call."""
    if isinstance(node, cst.Call) and isinstance(new, cst.Call):
        kept = [arg.keyword.value for arg in new.args if arg.keyword is not None]
        had = [arg for arg in node.args if arg.keyword is not None and arg.keyword.value == "strict"]
        if had and ("strict" not in kept or not any(arg.deep_equals(had[0]) for arg in new.args)):
            return True
    return False


def sample(source: str, count: int, generator: random.Random) -> tuple[list[PythonMutant], int]:
    """So many mutants of a source file that compile, in the order of the draw, and how many places there are in all.

    A larger count draws the same first, then others.
    """
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = _Visitor()
    wrapper.visit(visitor)
    places, lines, seen = wrapper.resolve(PositionProvider), source.splitlines(), {source}
    drawn: list[PythonMutant] = []
    for node, new in generator.sample(visitor.found, len(visitor.found)):
        if len(drawn) == count:
            break
        changed = wrapper.module.deep_replace(node, new).code  # type: ignore[arg-type]
        if changed in seen or node not in places or not _compiles(changed):
            continue
        seen.add(changed)
        first, last = places[node].start.line, places[node].end.line
        after = changed.splitlines()[first - 1 : last + changed.count("\n") - source.count("\n")]
        drawn.append(PythonMutant(first, last, _text(lines[first - 1 : last]), _text(after), changed))
    return drawn, len(visitor.found)


def _text(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines)


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True
