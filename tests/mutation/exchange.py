"""Two ways to put a mutant in force in a forked process, without a new interpreter.

quick   the package and the tests are imported: the code of the live functions that differ is exchanged. It does not
        reach what a module does when it is imported.
whole   nothing of the package is imported: one of its modules will be, from another source.
"""

from __future__ import annotations

import gc
import importlib.machinery
import importlib.util
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

#: Functions by file, qualified name and first line.
Live = dict[tuple[str, str, int], list[FunctionType]]


def live_functions(package: Path) -> Live:
    """All functions of the package that exist, by file, qualified name and first line."""
    found: Live = {}
    for x in gc.get_objects():
        if type(x) is FunctionType and x.__code__.co_filename.startswith(str(package)):
            found.setdefault(_key(x.__code__), []).append(x)
    return found


def _key(code: CodeType) -> tuple[str, str, int]:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _pairs(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    yield old, new
    parts = [[x for x in code.co_consts if isinstance(x, CodeType)] for code in (old, new)]
    if len(parts[0]) != len(parts[1]):
        raise LookupError("a function more or less")
    for a, b in zip(*parts, strict=True):
        yield from _pairs(a, b)


def _own(code: CodeType) -> tuple[Any, ...]:
    consts = [(type(x), repr(x)) for x in code.co_consts if not isinstance(x, CodeType)]
    return code.co_code, consts, code.co_names, code.co_varnames, code.co_freevars


def exchange_functions(file: Path, old: str, new: str, live: Live) -> bool:
    """Puts the new source in force; False, and nothing done, where functions are not all that differs."""
    try:
        pairs = list(_pairs(compile(old, str(file), "exec"), compile(new, str(file), "exec")))
    except LookupError:
        return False
    exchanges = []
    for a, b in pairs:
        functions = live.get(_key(a), [])
        if _own(a) != _own(b) and not functions and "<locals>" not in a.co_qualname:
            return False  # a module's or a class' own code
        if functions and a.co_freevars != b.co_freevars:
            return False
        if a != b:
            exchanges += [(f, b) for f in functions]
    for function, code in exchanges:
        function.__code__ = code
    return bool(exchanges)


class _Loader(importlib.machinery.SourceFileLoader):
    source = ""

    def get_code(self, fullname: str) -> Any:
        return compile(self.source, self.path, "exec")


class Finder:
    """For sys.meta_path: finds the module of one file of the package, with another source."""

    def __init__(self, package: Path, file: Path, source: str) -> None:
        self._file, self._source = file, source
        parts = [package.name, *file.relative_to(package).with_suffix("").parts]
        self._name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """As importlib asks."""
        if name != self._name:
            return None
        loader = _Loader(name, str(self._file))
        loader.source = self._source
        places = [str(self._file.parent)] if self._file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            name, self._file, loader=loader, submodule_search_locations=places
        )


def in_fork(work: Callable[[], int], log: Path, seconds: int) -> int:
    """The work's result, which is the exit code of the fork that does it; negative: the signal that ended it.

    It may use so many seconds of CPU, and fifteen times as many on the clock: a deadlock uses none.
    """
    child = os.fork()
    if child == 0:
        code = 99
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(out, 1)
            os.dup2(out, 2)
            used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
            resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, used + seconds))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    deadline = time.monotonic() + 15 * seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
