"""Run torch.nn's own tests of its attention classes against ours, and list every difference.

    python tests/torch_suite/run.py TORCH_SOURCE [--match REGEX] [--json FILE]

TORCH_SOURCE is a source tree of torch (a checkout, an unpacked archive, a distribution's source package) or its folder
test/; without it, the environment variable of that name, or the tree that the installed torch was built in. The tests
run on the CPU, once with torch's classes and once with ours in their places (worker.py). The exit code is 0 when what
differs is exactly what differences.py lists, with reasons; 1 for an unexpected failure or an unexpected pass; 2 when
there are no tests. Nothing is fetched. Needs the packages expecttest and hypothesis, which torch's tests import.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from differences import DIFFERENCES

HERE = Path(__file__).parent
FILES = {
    "nn.test_multihead_attention": ".",
    # Of the 3072 sizes of one test, the smallest: the others differ in nothing but time.
    "test_transformers": "TestTransformers|TestSDPACPU|TestSDPACpuOnly(?!.*mask_vs_math)|TestAttnBias"
    "|mask_vs_math.*batch_size_2_q_seq_len_11_kv_seq_len_17_n_head_3",
    "test_nn": "[Tt]ransformer|[Mm]ulti_?head",
    "test_modules": "nn_MultiheadAttention|nn_Transformer",
    "nn.test_module_hooks": "test_register_state_dict_post_hook",
    "test_native_mha": "multihead_attention|transformer",
    "test_jit": "multi_head_attn|transformer",
}
ENVIRONMENT = {
    "PYTORCH_TESTING_DEVICE_ONLY_FOR": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTORCH_DISABLE_RUNNING_SCRIPT_CHK": "1",  # the tests are imported, and are not the program
    "OMP_NUM_THREADS": "1",  # both sides run at a time, on problems too small for two threads
}


@dataclass(frozen=True)
class Outcome:
    state: str  # "passes", "fails", "skipped", "crashes", "absent"
    why: str = ""


@dataclass(frozen=True)
class Pair:
    """One test with torch's classes and with ours."""

    test: str
    torch: Outcome
    ours: Outcome

    @property
    def differs(self) -> bool:
        return self.torch.state != self.ours.state


def tests_folder(given: str | None) -> Path | None:
    """The folder test/ of the tree that was given, or of the one that the installed torch was built in."""
    spec = find_spec("torch")
    built_in = Path(spec.origin).parent.parent if spec and spec.origin else None
    tree = Path(given).resolve() if given else built_in
    for folder in () if tree is None else (tree, tree / "test"):
        if (folder / "nn" / "test_multihead_attention.py").exists():
            return folder
    return None


def outcomes(tests: Path, module: str, pattern: str, ours: bool) -> dict[str, Outcome]:
    """What became of each test of a file. A test that ends the process is noted, and the others run after it."""
    environment = os.environ | ENVIRONMENT
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events"
        events.touch()
        command = [sys.executable, str(HERE / "worker.py"), str(tests), module, pattern, str(events)]
        while True:
            before = events.stat().st_size
            run = subprocess.run(
                command + ["--ours"] * ours, cwd=folder, env=environment, capture_output=True, text=True
            )
            found: dict[str, Outcome] = {}
            for line in events.read_text(encoding="utf-8").splitlines():
                test, state, why = json.loads(line)
                if state == "started":
                    found[test] = Outcome("crashes", "ends the process")
                elif found[test].state != "fails":  # a failed subtest stands
                    found[test] = Outcome(state, why)
            if run.returncode == 0:
                return found
            if events.stat().st_size == before:
                raise RuntimeError(f"{module} could not be loaded:\n{run.stderr[-2000:]}")


def run_file(tests: Path, module: str, pattern: str) -> list[Pair]:
    with ThreadPoolExecutor(2) as pool:
        theirs, ours = pool.map(lambda side: outcomes(tests, module, pattern, side), (False, True))
    none = Outcome("absent")
    return [Pair(test, theirs.get(test, none), ours.get(test, none)) for test in sorted(theirs | ours)]


def report(pairs: list[Pair]) -> int:
    """Print every test, then every difference with its reason; how many were not expected."""
    unexpected, listed = [], dict.fromkeys(DIFFERENCES, 0)
    for pair in pairs:
        print(f"{pair.torch.state:8} {pair.ours.state:8} {pair.test}")
        pattern = next((p for p in DIFFERENCES if re.search(p, pair.test)), None)
        if pair.differs and pattern is not None:
            listed[pattern] += 1
        elif pair.differs or (pattern is not None and pair.ours.state == "passes"):
            unexpected.append(pair)
    print("\nDifferences that differences.py lists:")
    for pattern, count in listed.items():
        if count:
            print(f"{count:4}  {pattern}\n      {DIFFERENCES[pattern]}")
    for pair in unexpected:
        kind = "failure" if pair.differs else "pass"
        print(f"\nUNEXPECTED {kind}: {pair.test}\n  torch: {pair.torch}\n  ours: {pair.ours}")
    print()
    for side in ("torch", "ours"):
        states = [getattr(pair, side).state for pair in pairs]
        print(f"{side:5}", *(f"{states.count(state)} {state}" for state in sorted(set(states))), sep="  ")
    print(f"{len(pairs)} tests, {sum(pair.differs for pair in pairs)} differences, {len(unexpected)} not expected")
    return len(unexpected)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default=os.environ.get("TORCH_SOURCE"))
    parser.add_argument("--match", default=".", help="only test files whose name holds this regular expression")
    parser.add_argument("--json", type=Path, help="also write the outcomes there")
    options = parser.parse_args()
    tests = tests_folder(options.source)
    if tests is None:
        print("no tests of torch found: give a source tree of torch, or set TORCH_SOURCE", file=sys.stderr)
        return 2
    pairs: list[Pair] = []
    for module, pattern in FILES.items():
        if re.search(options.match, module) and (tests / f"{module.replace('.', '/')}.py").exists():
            print(f"running {module}", file=sys.stderr, flush=True)
            pairs += run_file(tests, module, pattern)
    if options.json:
        options.json.write_text(json.dumps([[p.test, vars(p.torch), vars(p.ours)] for p in pairs], indent=1) + "\n")
    if not pairs:
        print("none of the files of tests is there", file=sys.stderr)
        return 2
    return min(1, report(pairs))


if __name__ == "__main__":
    sys.exit(main())
