"""One file of torch's tests in one process: torch's classes, or ours in their places. Started by run.py."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import traceback
import unittest
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

CLASSES = (
    "MultiheadAttention",
    "TransformerEncoderLayer",
    "TransformerEncoder",
    "TransformerDecoderLayer",
    "TransformerDecoder",
    "Transformer",
)
FUNCTIONS = ("multi_head_attention_forward", "scaled_dot_product_attention")


class Absent(list[Any]):
    """In the place of a name that an older test imports and this torch no longer has: a flag that is off, an empty
    table, a decorator that does nothing, or the maker of one."""

    def __call__(self, *arguments: Any, **_: Any) -> Any:
        return arguments[0] if len(arguments) == 1 and callable(arguments[0]) else Absent()


def use_ours() -> None:
    """Put our classes and functions where users of torch find torch's.

    The modules that define torch's classes keep them: ours must not be completed by what they would find there.
    """
    import torch

    import mmha.nn

    for name in CLASSES:
        for place in (torch.nn, torch.nn.modules):
            setattr(place, name, getattr(mmha.nn, name))
    for name in FUNCTIONS:
        setattr(torch.nn.functional, name, getattr(mmha.nn.functional, name))


def load(name: str) -> ModuleType:
    """The test module, with the names that this torch has dropped since put back or stood in for."""
    while True:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            missing = re.match(r"cannot import name '(\w+)' from", str(error))
            if missing is None or error.name is None or not error.name.startswith("torch"):
                raise
            place = sys.modules[error.name]
            maker = getattr(place, f"get_{missing[1]}", None)
            setattr(place, missing[1], Absent() if maker is None else maker())


class Recorder(unittest.TestResult):
    """Writes each event as a line at once, so that a crash costs one test and not what went before it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    def record(self, test: unittest.TestCase, outcome: str, why: str = "") -> None:
        self.stream.write(json.dumps([short_name(test), outcome, why]) + "\n")
        self.stream.flush()

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.record(test, "started")

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.record(test, "passes")

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self.record(test, "fails", last_line(err))

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.record(test, "fails", last_line(err))

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self.record(test, "fails", last_line(err))

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.record(test, "skipped", reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.record(test, "passes", "an expected failure")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self.record(test, "fails", "an unexpected success")


def last_line(error: Any) -> str:
    """The type and the first line of the message, and the line of the test where it arose."""
    kind, value, trace = error
    frames = [f for f in traceback.extract_tb(trace) if "/test/" in f.filename]
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{kind.__name__}: {' '.join(str(value).split())[:300]}{place}"


def short_name(test: unittest.TestCase) -> str:
    return ".".join(test.id().split(".")[-3:])


def cases(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    found: list[unittest.TestCase] = []
    for item in suite:
        found += cases(item) if isinstance(item, unittest.TestSuite) else [item]
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tests", type=Path, help="the folder test/ of a torch source tree")
    parser.add_argument("module")
    parser.add_argument("pattern", help="a regular expression that a test's name must hold")
    parser.add_argument("events", type=Path, help="where the outcomes go; what stands there already is not run again")
    parser.add_argument("--ours", action="store_true")
    options = parser.parse_args()
    done = {json.loads(line)[0] for line in options.events.read_text(encoding="utf-8").splitlines()}
    sys.path[:0] = [str(options.tests), str(options.tests.parent)]
    warnings.simplefilter("ignore")
    if options.ours:
        use_ours()
    loader = unittest.TestLoader()
    found = cases(loader.loadTestsFromModule(load(options.module)))
    if loader.errors:
        raise ImportError("\n".join(loader.errors))
    wanted = [case for case in found if re.search(options.pattern, short_name(case)) and short_name(case) not in done]
    with options.events.open("a", encoding="utf-8") as stream:
        unittest.TestSuite(wanted).run(Recorder(stream))


if __name__ == "__main__":
    main()
