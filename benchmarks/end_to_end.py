"""Whole models on mmha beside the other attentions they can have: transformers' eager, sdpa and flex, and torch.nn's.

    python benchmarks/end_to_end.py [--rows WORDS] [--quick] [--seconds N] [--threads N] [--json FILE]

All sides of a row have the same weights and inputs and are compared before they are timed; then they take turns, every
other round in reversed order. A side's first call, in which flex compiles, is the one that is compared, and not among
the samples. A side that takes over PATIENCE times as long as the fastest is timed in the first round only: its ratio
needs no second digit. One that cannot run here is left out and the results say why.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from end_to_end_rows import ROWS, Row
from torch import Tensor
from turns import PATIENCE, Side, in_turns

import mmha
from mmha import checkpoint
from mmha.bench.machine import machine
from mmha.bench.measure import thread_count
from mmha.bench.record import rounded

MAY_FAIL = ("flex",)  # not every version of torch compiles it for every CPU


def measure(row: Row, quick: bool, seconds: float, patience: float = PATIENCE) -> dict[str, Any]:
    """All sides of a row: compared, then timed in turns."""
    sides, found, without = [], {}, {}
    exact: Tensor | None = None
    for side in row.sides(quick):
        if quick and side.name in MAY_FAIL:
            without[side.name] = "--quick does not wait for a compiler"
            continue
        side.before()
        start = time.perf_counter()
        try:
            result = side.result()
        except Exception as error:
            if side.name not in MAY_FAIL:
                raise
            without[side.name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        exact = result if exact is None else exact
        found[side.name] = {
            "first_s": rounded(time.perf_counter() - start),
            "difference": compared(row, side, result, exact),
        }
        sides.append(side)
    times = in_turns(sides, seconds, patience)
    return {
        "row": row.name,
        "title": row.title,
        "sides": [
            {"side": side.name, "s": rounded(statistics.median(times[side.name])), **found[side.name],
             "samples_s": [rounded(x) for x in times[side.name]]}
            for side in sides
        ],
        "without": without,
    }  # fmt: skip


def compared(row: Row, side: Side, result: Tensor, exact: Tensor) -> float:
    """How far the result stands from that of the first side, norm over norm; it ends the run where that is too far."""
    difference = float((result - exact).norm() / exact.norm())
    if not difference <= row.allowed:  # so that NaN is caught, too
        raise SystemExit(f"{row.name}: {side.name} differs by {difference:.1e} relative, allowed {row.allowed:.0e}")
    return float(f"{difference:.2g}")


def print_row(found: dict[str, Any]) -> None:
    """One line a side; the last column is its time over that of mmha."""
    print(f"\n{found['title']}")
    ours = found["sides"][-1]["s"]
    for side in found["sides"]:
        print(f"  {side['side']:<14}{side['s']:>10.4g} s{side['s'] / ours:>8.2f} ×"
              f"   first call {side['first_s']:.3g} s, differs by {side['difference']:.1e}")  # fmt: skip
    for name, reason in found["without"].items():
        print(f"  without {name}: {reason}")


def run(
    table: Sequence[Row], description: str | None, arguments: Sequence[str] | None = None, patience: float = PATIENCE
) -> None:
    """Run the rows of a table that the command line asks for, print as they come, and write what was measured."""
    names = [row.name for row in table]
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=names, default=names)
    parser.add_argument("--quick", action="store_true", help="tiny models and no flex: whether it runs, not how fast")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for a row, 3 rounds or more")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    mmha.huggingface.register()
    rows = []
    with thread_count(options.threads):
        for row in table:
            if row.name in options.rows:
                rows.append(measure(row, options.quick, options.seconds, patience))
                print_row(rows[-1])
    if options.json:
        made = {
            "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine(),
            "threads": options.threads,
            "rows": rows,
        }
        checkpoint.write(options.json, (json.dumps(made, indent=1) + "\n").encode())
        print(f"wrote {options.json}")


if __name__ == "__main__":
    run(ROWS, __doc__)
