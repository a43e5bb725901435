"""Mutation of the Python of masks, bias, cache and ops: a sample of mutants of each module, each against its tests.

A pytest plugin notes once which tests run which lines. A mutant then meets the tests that run its line, one case of
each test function first, quick ones before slow ones, until one fails or their seconds are over. Every mutant lives in
a fork (exchange.py): quickly, with functions exchanged, and once more from the import on if that lets it live or cannot
judge it. What stays alive has its reason in explained.json, or is printed and ends the run with 1. For Python 3.11 and
later.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from coverage_plugin import PACKAGE as SOURCE
from exchange import Finder, Live, exchange_functions, in_fork, live_functions
from python_mutants import PythonMutant, sample

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("masks", "bias", "cache", "ops")
TESTS = ("tests/masks", "tests/bias", "tests/cache", "tests/ops", "tests/reference", "tests/test_promises.py",
         "tests/test_doctests.py")  # fmt: skip
MARKERS = ["-m", "not slow and not network", "-p", "no:cacheprovider", "-q",
           "-W", "ignore::pytest.PytestAssertRewriteWarning"]  # fmt: skip
EXPLAINED = Path(__file__).with_name("explained.json")
#: Seconds of CPU of the tests that a mutant meets at first, before the others are looked for.
FIRST = 2.0
#: A mutant may make its tests this much slower; then it counts as killed.
SLOWER, START_SECONDS = 3.0, 10.0
NOT_EXCHANGED, UNLIMITED = 98, 1 << 20


def collect(to: Path) -> None:
    """Which tests run which lines: one JSON line a test."""
    to.parent.mkdir(parents=True, exist_ok=True)
    to.unlink(missing_ok=True)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    settings = os.environ | {"MMHA_COVERAGE_TO": str(to), "PYTHONPATH": path}
    subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "coverage_plugin", *MARKERS, *TESTS], cwd=ROOT, env=settings, check=True
    )


def read_coverage(files: Iterable[Path]) -> list[dict[str, Any]]:
    """What `collect` wrote."""
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def tests_of(coverage: Sequence[dict[str, Any]], file: str, lines: range, most: float) -> tuple[list[list[str]], bool]:
    """Tests that run any of the lines, in two lots; those that run any line of the file where none runs these.

    Second: whether any runs these lines (what runs at import alone is not noted).
    """
    reached = [r for r in coverage if file in r["lines"]]
    exact = [r for r in reached if not set(lines).isdisjoint(r["lines"][file])]
    rounds: dict[str, int] = {}
    ordered = []
    for r in sorted(exact or reached, key=lambda r: r["seconds"]):
        function = r["test"].partition("[")[0]
        rounds[function] = rounds.get(function, 0) + 1
        ordered.append((rounds[function], r["seconds"], r["test"]))
    lots: list[list[str]] = [[], []]
    spent = 0.0
    for _, seconds, test in sorted(ordered):
        spent += seconds + 0.01
        if spent < most:
            lots[spent > FIRST].append(test)
    return lots, bool(exact)


def preload() -> None:
    """Imports everything that the package imports, but not the package."""
    code = (
        "import sys, pytest, hypothesis, mmha.ops, mmha.cache, mmha.data.registry, mmha.reference; print(*sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    for name in found.stdout.split():
        if name.partition(".")[0] not in ("mmha", "__main__"):
            try:
                importlib.import_module(name)
            except Exception:  # parts of packages that only import under another name
                continue
    with tempfile.TemporaryDirectory() as empty:  # pytest imports its plugins
        pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", empty, "-c", os.devnull, empty])


class Drawn(NamedTuple):
    """A mutant and what it has to meet."""

    file: Path
    mutant: PythonMutant
    lots: list[list[str]]
    covered: bool

    def key(self) -> tuple[str, str]:
        """File and name."""
        return str(self.file.relative_to(SOURCE)), self.mutant.name()

    def result(self, killed: str) -> dict[str, Any]:
        """As it is written down."""
        m = self.mutant
        return {"file": self.key()[0], "name": m.name(), "line": m.line, "before": m.before, "after": m.after,
                "covered": self.covered, "tests": sum(map(len, self.lots)), "killed": killed}  # fmt: skip


class Quick:
    """A pytest plugin: instead of running what was collected, judges mutants by exchanged functions, a fork each."""

    def __init__(self, drawn: Sequence[Drawn], cost: dict[str, float], write: Callable[[dict[str, Any]], None]) -> None:
        self._drawn, self._cost, self._write = drawn, cost, write
        self._failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes what fails."""
        if report.failed:
            self._failed.append(report.nodeid)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """One fork a mutant; what it cannot judge, or lets live, is left to `whole`."""
        items = {item.nodeid: item for item in session.items}
        live = live_functions(SOURCE)
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            for one in self._drawn:
                tests = [items[t] for lot in one.lots for t in lot if t in items]
                seconds = int(START_SECONDS + SLOWER * sum(self._cost[t.nodeid] + 0.01 for t in tests))
                code = in_fork(functools.partial(self._run, one, tests, live, log), log, seconds)
                if code == 0:
                    self._write(one.result(""))
                elif code != NOT_EXCHANGED:
                    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                    self._write(one.result(next((x for x in lines if x.startswith("KILLED")), f"exit {code}")))
        return True

    def _run(self, one: Drawn, tests: list[pytest.Item], live: Live, log: Path) -> int:
        old = one.file.read_text(encoding="utf-8")
        if not exchange_functions(one.file, old, one.mutant.source, live):
            return NOT_EXCHANGED
        for test, following in zip(tests, [*tests[1:], None], strict=True):
            test.ihook.pytest_runtest_protocol(item=test, nextitem=following)
            if self._failed:
                log.write_text(f"KILLED by {self._failed[0]}", encoding="utf-8")  # pytest holds the standard output
                return 1
        return 0


def whole(one: Drawn, cost: dict[str, float], log: Path) -> dict[str, Any]:
    """What became of a mutant that is in force from the import of its module on."""

    def work(lot: Sequence[str]) -> int:
        os.chdir(ROOT)
        sys.meta_path.insert(0, Finder(SOURCE, one.file, one.mutant.source))  # type: ignore[arg-type]
        return int(pytest.main(["-x", *MARKERS, *lot]))

    for lot in filter(None, one.lots):
        code = in_fork(
            functools.partial(work, lot), log, int(START_SECONDS + SLOWER * sum(cost[t] + 0.01 for t in lot))
        )
        if code != 0:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            return one.result(next((x[:200] for x in lines if x.startswith(("FAILED", "ERROR"))), f"exit {code}"))
    return one.result("")


def report(results: Sequence[dict[str, Any]]) -> bool:
    """Prints the table and what is alive without an explanation; whether there is nothing of the kind."""
    explained = json.loads(EXPLAINED.read_text(encoding="utf-8"))
    lost = []
    print("| room | mutants | killed | explained | alive |\n|---|---|---|---|---|")
    for room in ROOMS:
        own = [r for r in results if r["file"].startswith(room + "/")]
        alive = [r for r in own if not r["killed"]]
        told = [r for r in alive if r["name"] in explained.get(r["file"], {})]
        lost += [r for r in alive if r not in told]
        print(f"| {room} | {len(own)} | {len(own) - len(alive)} | {len(told)} | {len(alive) - len(told)} |")
    for r in lost:
        print(f"{r['file']}:{r['line']} {r['name']} ({r['tests']} tests)\n  - {r['before']}\n  + {r['after']}")
    return not lost


def draw(args: argparse.Namespace, coverage: Sequence[dict[str, Any]]) -> list[Drawn]:
    """The sample: so many mutants of each module, with their tests."""
    drawn = []
    for file in [file for room in ROOMS for file in sorted((SOURCE / room).glob("*.py"))]:
        name = str(file.relative_to(SOURCE))
        if args.only and name not in args.only:
            continue
        mutants, _ = sample(file.read_text(encoding="utf-8"), args.sample, random.Random(f"{args.seed} {name}"))
        drawn += [
            Drawn(file, m, *tests_of(coverage, name, range(m.line, m.last_line + 1), args.seconds)) for m in mutants
        ]
    return drawn


def read_results(file: Path) -> list[dict[str, Any]]:
    """The last word on each mutant."""
    found = {}
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            r = json.loads(line)
            found[r["file"], r["name"]] = r
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=ROOT / "build/mutation", help="folder of coverage and results")
    parser.add_argument("--sample", type=int, default=12, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the tests that a mutant may meet")
    parser.add_argument("--only", nargs="+", default=[], help="files, as in masks/rows.py")
    parser.add_argument("--coverage", type=Path, nargs="+", help="collected before")
    parser.add_argument("--keep", action="store_true", help="do not repeat what was killed before")
    args = parser.parse_args()
    args.build.mkdir(parents=True, exist_ok=True)
    if not args.coverage:
        args.coverage = [args.build / "coverage.jsonl"]
        collect(args.coverage[0])
    coverage, out = read_coverage(args.coverage), args.build / "python.jsonl"
    cost = {r["test"]: r["seconds"] for r in coverage}
    if not args.keep:
        out.unlink(missing_ok=True)
    drawn = draw(args, coverage)

    def write(result: dict[str, Any]) -> None:
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result, ensure_ascii=False) + "\n")

    preload()
    known = {(r["file"], r["name"]) for r in read_results(out)}
    left = [one for one in drawn if one.key() not in known]
    files = sorted({str(ROOT / t.partition("::")[0]) for one in left for lot in one.lots for t in lot})
    quick = Quick(left, cost, write)
    in_fork(lambda: int(pytest.main([*MARKERS, *files], plugins=[quick])), args.build / "quick.log", UNLIMITED)
    killed = {(r["file"], r["name"]) for r in read_results(out) if r["killed"]}
    for one in drawn:
        if one.key() not in killed:
            write(whole(one, cost, args.build / "child.log"))
    keys = {one.key() for one in drawn}
    sys.exit(0 if report([r for r in read_results(out) if (r["file"], r["name"]) in keys]) else 1)


if __name__ == "__main__":
    main()
