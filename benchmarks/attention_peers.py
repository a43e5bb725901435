"""Attention under masks: mmha beside torch, FlexAttention, ONNX Runtime, JAX and OpenVINO, in turns within one run.

    python benchmarks/attention_peers.py [--filter WORDS] [--quick] [--seconds N] [--threads N] [--json FILE]
                                         [--plot FILE]

Every side computes the same problem from the same numbers; its results are compared with float64 before it is timed. A
turn begins with a call that is not timed, where calls are short: the sides have thread pools of their own. Each pool is
set to the same number of threads, and CPU time over wall time, which is in the results, says whether it keeps to it. A
peer that is not installed, cannot do a row or takes more CPUs than threads is named, with the reason. --quick: tiny
problems, nothing that compiles for seconds; whether it runs, not how fast.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import peers_chart
import torch
import torch.nn.functional as F
from attention_sides import MAKERS, PACKAGES, THREADS_OF_JAX, Attempt, Maker, Problem
from turns import Side, in_turns

from mmha import checkpoint
from mmha.bench.agree import TOLERANCE
from mmha.bench.cases import TORCH_NAMES, Case, select, sizes
from mmha.bench.contest import Results
from mmha.bench.machine import machine
from mmha.bench.measure import MIN_TURN, thread_count
from mmha.bench.record import rounded
from mmha.bench.table import rows

OURS = "mmha"
SHORT = 1.0  # seconds of a call that every side may take; slower ones, if far behind, are timed in the first round only
WARM = 0.05  # seconds of calls ahead of the first turn; a call that takes as long needs no untimed one before it
CPUS_BEYOND = 0.25  # how far CPU time over wall time may pass the threads: clocks are read one after the other
REASON = 160  # characters
GROUPED = sizes(2048, heads=16, kv_heads=4, dim=128)
CASES: tuple[Case, ...] = (
    *rows("masks", "forward", "f32", [
        (kind, size, 1.0)
        for kind, lengths in {
            "dense": (512, 2048),
            "causal": (512, 2048),
            "padding": (2048,),
            "window": (512, 2048, 8192),
            "documents": (512, 2048, 8192),
        }.items()
        for size in map(sizes, lengths)
    ]),
    *rows("masks", "forward", "f32", [("causal", GROUPED, 1.0)]),
    *rows("masks", "forward", "bf16", [
        ("dense", sizes(2048), 1.0),
        ("causal", sizes(2048), 1.0),
        ("window", sizes(2048), 1.0),
        ("window", sizes(8192), 1.0),
        ("documents", sizes(2048), 1.0),
    ]),
    *rows("masks", "training", "f32", [
        ("dense", sizes(2048), 1.0),
        ("causal", sizes(512), 1.0),
        ("causal", sizes(2048), 1.0),
        ("window", sizes(2048), 1.0),
        ("window", sizes(8192), 1.0),
        ("documents", sizes(512), 1.0),
        ("documents", sizes(2048), 1.0),
        ("causal", GROUPED, 1.0),
    ]),
    *rows("masks", "training", "bf16", [("causal", sizes(2048), 1.0), ("documents", sizes(2048), 1.0)]),
)  # fmt: skip
"""Among them one with 16 query heads of 128 on 4 key/value heads."""


def quick_cases() -> tuple[Case, ...]:
    """Every kind and direction of CASES once, tiny, and bfloat16 once in each direction."""
    found = {}
    for case in CASES:
        if case.dtype != "f32" and case.kind != "documents":
            continue
        size = case.sizes
        shared = size.heads // size.kv_heads
        small = sizes(263, heads=3 * shared, kv_heads=3, dim=16)
        found[case.direction, case.kind, case.dtype, shared] = replace(case, sizes=small)
    return tuple(found.values())


def missing() -> dict[str, str]:
    """The peers that are not installed."""
    reasons = {}
    for name, package in PACKAGES.items():
        try:
            version(package)
        except PackageNotFoundError:
            reasons[name] = f"{package} is not installed"
    return reasons


def exact(problem: Problem) -> Results:
    """The results in float64, from inputs as they are rounded to the row's dtype."""
    size, (*given, grad) = problem.case.sizes, (x.double() for x in problem.tensors)
    inputs = tuple(x.requires_grad_(problem.training) for x in given)
    shared = size.heads != size.kv_heads
    out = F.scaled_dot_product_attention(*inputs, attn_mask=problem.dense, enable_gqa=shared)
    return (out.detach(), *torch.autograd.grad(out, inputs, grad)) if problem.training else (out,)


def compared(problem: Problem, name: str, results: Results, wanted: Results) -> float:
    """The largest difference from float64 among out and the gradients, norm over norm; too large ends the run."""
    allowed, largest = TOLERANCE[problem.case.dtype], 0.0
    for number, (made, right) in enumerate(zip(results, wanted, strict=True)):
        difference = float((made.detach().double() - right).norm() / right.norm())
        limit = allowed[min(number, 1)]
        if not difference <= limit:  # so that NaN is caught, too
            raise SystemExit(
                f"{problem.case.name}: {name} differs from float64 by {difference:.1e} relative, allowed {limit:.0e}"
            )
        largest = max(largest, difference)
    return float(f"{largest:.2g}")


def warmed(work: Callable[[], object]) -> tuple[int, float, float]:
    """How many calls make a turn, the seconds of a call, and CPU time over wall time while they ran."""
    calls = 1
    while True:
        cpu, start = time.process_time(), time.perf_counter()
        for _ in range(calls):
            work()
        wall = time.perf_counter() - start
        if wall >= WARM:
            return max(1, round(calls * MIN_TURN / wall)), wall / calls, (time.process_time() - cpu) / wall
        calls *= 2


def measure(case: Case, makers: Mapping[str, Maker], threads: int, seconds: float) -> dict[str, Any]:
    """All sides of a row: compared, then timed in turns."""
    problem = Problem(case, threads)
    wanted, sides, found = exact(problem), [], {}
    without: dict[str, str] = {}
    for name, make in makers.items():
        start = time.perf_counter()
        try:
            attempt = make(problem)
            results = attempt.view(attempt.work())
            first = time.perf_counter() - start
            difference = compared(problem, name, results, wanted)
            side, facts = prepared(name, attempt, threads)
        except Exception as error:  # whatever a peer raises where it cannot
            if name == OURS:
                raise
            without[name] = f"{type(error).__name__}: {error}".splitlines()[0][:REASON]
            continue
        sides.append(side)
        found[name] = {"error": difference, "first_s": rounded(first), **facts}
    del wanted
    times = in_turns(sides, seconds, short=SHORT)
    for name, taken in times.items():
        samples = [1e3 * s / found[name]["calls"] for s in taken]
        found[name] |= {"ms": rounded(statistics.median(samples)), "samples_ms": [rounded(ms) for ms in samples]}
    return {
        "name": case.name,
        "direction": case.direction,
        "kind": case.kind,
        "dtype": TORCH_NAMES[case.dtype],
        "sizes": vars(case.sizes),
        "density": round(problem.contest.pairs / case.sizes.pairs, 4),
        "sides": [{"side": name, **facts} for name, facts in found.items()],
        "without": without,
    }


def prepared(name: str, attempt: Attempt, threads: int) -> tuple[Side, dict[str, Any]]:
    """The side as it takes its turns, and what is known of it by then.

    Raises:
        RuntimeError: it uses more CPUs than it was given threads.
    """
    calls, lasts, cpus = warmed(attempt.work)
    if cpus > threads + CPUS_BEYOND:
        raise RuntimeError(f"{name} uses {cpus:.2f} CPUs where it was given {threads} threads")

    def turn() -> None:
        for _ in range(calls):
            attempt.work()

    before = attempt.work if lasts < WARM else lambda: None
    return Side(name, turn, lambda: torch.empty(0), before), {"calls": calls, "cpus": round(cpus, 2)}


def print_row(row: Mapping[str, Any]) -> None:
    """One line a side; the last column is its time over that of mmha."""
    print(f"\n{row['name']}, {row['density']:.1%} visible", flush=True)
    ms = {side["side"]: side["ms"] for side in row["sides"]}
    for side in row["sides"]:
        print(f"  {side['side']:<14}{side['ms']:>10.4g} ms{side['ms'] / ms[OURS]:>8.2f} ×   {side['cpus']:.2f} CPUs, "
              f"first call {side['first_s']:.2g} s, differs by {side['error']:.1e}")  # fmt: skip
    for name, reason in row["without"].items():
        print(f"  without {name}: {reason}")


def run(cases: Sequence[Case], threads: int, seconds: float, leave_out: Mapping[str, str]) -> dict[str, Any]:
    """All rows, printed as they come, and where they were measured."""
    load = round(os.getloadavg()[0], 1)
    os.environ[THREADS_OF_JAX] = str(threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    for name, reason in leave_out.items():
        print(f"without {name}: {reason}")
    makers = {name: make for name, make in MAKERS.items() if name not in leave_out}
    measured = []
    with thread_count(threads):
        for case in cases:
            measured.append(measure(case, makers, threads, seconds))
            print_row(measured[-1])
            gc.collect()  # gigabytes of masks and graphs, some of them in cycles
    return {
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "threads": threads,
        "load": load,
        "versions": {name: version(package) for name, package in PACKAGES.items() if name not in leave_out},
        "without": dict(leave_out),
        "rows": measured,
    }


def main() -> None:
    """Run the rows that the command line asks for, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filter", default="", help="words of a row's name, as for mmha bench")
    parser.add_argument("--quick", action="store_true", help="tiny problems, without FlexAttention")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for a row's turns, 3 rounds or more")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    leave_out = missing()
    if options.quick:
        leave_out["FlexAttention"] = "--quick does not wait for a compiler"
    cases = select(options.filter, quick_cases() if options.quick else CASES)
    made = run(cases, options.threads, 0.0 if options.quick else options.seconds, leave_out)
    if options.json:
        checkpoint.write(options.json, (json.dumps(made, indent=1) + "\n").encode())
        print(f"wrote {options.json}")
    if options.plot:
        peers_chart.draw(made, options.plot)
        print(f"wrote {options.plot}")


if __name__ == "__main__":
    main()
