"""Mutation of the kernels: every fault of kernel_mutants.py, against the native tests and then the Python ones.

One copy of the sources holds all mutants, each behind a number, so there are two builds in all: the native tests and
the Python module. A mutant that the native tests let live meets the Python tests.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kernel_mutants import KERNEL_MUTANTS, KernelMutant

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ("plain", "plain-cache", "plain-steps")
#: The native test that a file's mutants meet first, where it is another than `plain`.
NEAREST = {"cache.h": "plain-cache", "cached.h": "plain-cache", "step.cpp": "plain-steps"}
#: Tests of everything that reaches a kernel, those that fail soonest first.
PYTHON_TESTS = ("tests/bias", "tests/ops", "tests/test_promises.py", "tests/cache", "tests/masks", "tests/reference")
HEADER = """#pragma once
#include <cstdlib>
inline const int mmha_mutant = [] {
  const char* chosen = std::getenv("MMHA_MUTANT");
  return chosen ? std::atoi(chosen) : 0;
}();
"""


def place(mutant: KernelMutant, source: str) -> tuple[int, int]:
    """Where the part of the source that the mutant replaces begins and ends; ValueError unless there is one place."""
    before, rest = mutant.text.split("«")
    old, after = rest.split("»")
    if source.count(before + old + after) != 1:
        raise ValueError(f"{mutant.name}: expected its text once in csrc/{mutant.file}, got it elsewhere or not at all")
    start = source.index(before + old + after) + len(before)
    return start, start + len(old)


def mutate(source: str, mutants: Sequence[tuple[int, KernelMutant]]) -> str:
    """The source of one file with all of its mutants, each in force where `mmha_mutant` is its number."""
    for start, stop, number, new in sorted(((*place(m, source), n, m.new) for n, m in mutants), reverse=True):
        old = source[start:stop]
        if old.endswith((";", "}")):
            both = f"if (mmha_mutant == {number}) {{ {new} }} else {{ {old} }}"
        else:
            both = f"(mmha_mutant == {number} ? ({new}) : ({old}))"
        source = source[:start] + both + source[stop:]
    return source


def write_copy(to: Path) -> None:
    """A copy of what the builds read, with all mutants in it."""
    shutil.rmtree(to, ignore_errors=True)
    for part in ("csrc", "tests/native", "src/mmha"):
        shutil.copytree(ROOT / part, to / part, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copy(ROOT / "CMakeLists.txt", to)
    (to / "csrc/mutant.h").write_text(HEADER)
    numbered = list(enumerate(KERNEL_MUTANTS, start=1))
    for file in sorted({m.file for m in KERNEL_MUTANTS}):
        path = to / "csrc" / file
        path.write_text(mutate(path.read_text(), [(n, m) for n, m in numbered if m.file == file]))


def build_native(to: Path) -> None:
    """The native tests, which must pass while no mutant is in force."""
    compiler = f"{os.environ.get('CXX', 'g++')} -include {to}/csrc/mutant.h"
    subprocess.run(
        ["bash", "tests/native/run.sh", "plain"], cwd=to, check=True, env=os.environ | {"CXX": compiler}, text=True
    )


def build_module(to: Path) -> None:
    """The Python module, beside a copy of the package."""
    nanobind = subprocess.run([sys.executable, "-m", "nanobind", "--cmake_dir"], check=True, capture_output=True)
    subprocess.run(
        ["cmake", "-S", ".", "-B", "build/module", "-DCMAKE_BUILD_TYPE=None", f"-DPython_EXECUTABLE={sys.executable}",
         f"-Dnanobind_DIR={nanobind.stdout.decode().strip()}", f"-DCMAKE_CXX_FLAGS=-O1 -include {to}/csrc/mutant.h"],
        cwd=to, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    subprocess.run(["cmake", "--build", "build/module", "--parallel", "2"], cwd=to, check=True)
    for module in (to / "build/module").glob("_kernels*.so"):
        shutil.copy(module, to / "src/mmha")


def native_kills(to: Path, number: int) -> bool:
    """Whether a native test fails, crashes or takes ten times too long; it is ended at its first failure."""
    nearest = NEAREST.get(KERNEL_MUTANTS[number - 1].file, NATIVE[0])
    for name in sorted(NATIVE, key=lambda name: name != nearest):
        process = subprocess.Popen(
            ["timeout", "600", "stdbuf", "-oL", str(to / "build/native" / name), "brief"], stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=os.environ | {"MMHA_MUTANT": str(number)}, text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        failed = any("FAILED" in line for line in process.stdout)
        if failed:
            os.killpg(process.pid, signal.SIGKILL)
        if process.wait() != 0:
            return True
    return False


def python_kills(to: Path, number: int, tests: Sequence[str]) -> str:
    """The first Python test that fails; empty where none does."""
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not network",
         *tests], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"MMHA_MUTANT": str(number), "PYTHONPATH": str(to / "src")},
    )  # fmt: skip
    if found.returncode == 0:
        return ""
    lines = [line for line in found.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return lines[0] if lines else f"ended with {found.returncode}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=ROOT / "build/mutation", help="folder of the mutated copy")
    parser.add_argument("--check", action="store_true", help="only check that every mutant applies")
    parser.add_argument("--built", action="store_true", help="use what stands in the folder")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of mutants, from 1")
    args = parser.parse_args()
    if args.check or not args.built:
        write_copy(args.build.resolve())
    if args.check:
        return
    to = args.build.resolve()
    if not args.built:
        build_native(to)
    numbers = args.only or range(1, len(KERNEL_MUTANTS) + 1)
    left = [n for n in numbers if not native_kills(to, n)]
    print(f"{len(numbers)} mutants, {len(numbers) - len(left)} killed by the native tests", flush=True)
    if left and not args.built:
        build_module(to)
    alive = []
    for n in left:
        killer = python_kills(to, n, PYTHON_TESTS)
        print(f"{n} {KERNEL_MUTANTS[n - 1].name}: {killer or 'ALIVE'}", flush=True)
        alive += [] if killer else [n]
    sys.exit(1 if alive else 0)


if __name__ == "__main__":
    main()
