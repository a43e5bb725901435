"""What a frame of a stream costs, in its first minute and an hour later: python benchmarks/streaming.py

Sound comes in 16 ms at a time, as from a microphone, through `Enhancer.stream()` on one thread; between the first
minute and the last it comes in pieces of a second, which move the same caches on by as many frames. A frame's cost is
the thread's own CPU time, so that neighbours count only by what they take of memory and caches; `x real time` is 16 ms
over it. The weights are as drawn: what a frame costs does not depend on them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import time
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mmha import checkpoint
from mmha.bench.machine import machine
from mmha.models import mhanet
from mmha.models.mhanet.frames import RATE, SHIFT
from mmha.models.mhanet.stream import WEIGHTS

MINUTE = 60 * RATE // SHIFT  # frames


def measure(size: str, weights: str, minutes: int) -> list[dict[str, Any]]:
    """Milliseconds a frame, median and 99th of 100, and memory in MB: in the first minute and in the last."""
    torch.manual_seed(0)
    net = mhanet.MHANet(mhanet.BUILDERS[size]())
    net.deviation.fill_(25.0)
    stream = mhanet.Enhancer(net, weights=weights).stream()
    sound = 0.1 * torch.randn(MINUTE * SHIFT)
    rows = []
    for minute in range(1, minutes + 1):
        costs = []
        for piece in sound.split(SHIFT if minute in (1, minutes) else RATE):
            start = time.thread_time_ns()
            stream.push(piece)
            costs.append((time.thread_time_ns() - start) / 1e6)
        if minute in (1, minutes):
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            slowest = sorted(costs)[99 * len(costs) // 100]
            figures = {"ms": median(costs), "p99_ms": slowest, "memory_mb": memory}
            rows.append({"size": size, "weights": weights, "minute": minute, **figures})
    return rows


def line(row: dict[str, Any]) -> str:
    speed = 1000 * SHIFT / RATE / row["ms"]
    cells = (f"{row['ms']:.2f}", f"{row['p99_ms']:.2f}", f"{speed:.0f}", f"{row['memory_mb']:.0f}")
    return f"| {row['size']} | {row['weights']} | {row['minute']} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["published", "small"], choices=sorted(mhanet.BUILDERS))
    parser.add_argument("--minutes", type=int, default=60, help="of sound; 60 take a minute or two a size")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | weights | minute | ms a frame, median | 99th of 100 | x real time | memory, MB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    rows = []
    for size, weights in itertools.product(options.sizes, WEIGHTS):
        found = measure(size, weights, options.minutes)
        print("\n".join(map(line, found)), flush=True)
        rows += found
    if options.json:
        measured = datetime.now(timezone.utc).isoformat(timespec="seconds")
        document = {"measured": measured, "machine": machine(), "rows": rows}
        checkpoint.write(options.json, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
