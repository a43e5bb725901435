"""Time and memory as sizes grow: python benchmarks/growth.py --json results/growth.json --plot growth.png

Windows over up to 1,000,000 tokens, up to 100,000 tiny problems in one call, up to 1,000 documents in one row, caches
of up to 1,000,000 tokens; each at four sizes, each size in a process of its own. Times are medians of three calls,
lowering the mask apart. Memory is what the process held at its peak beyond what imports and a small call took, beside
it the bytes of the tensors: what is handed in, what comes out, and the gradients of both; of a cache, its own.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import mmha
from mmha import checkpoint
from mmha.bench.machine import machine
from mmha.bench.record import rounded
from mmha.masks import Causal, Documents, Mask, Prefix, Window

DIM, BLOCK, CHUNK = 64, 16, 512  # of a head; tokens of a page; tokens that are appended at a time
HEADS, KV_HEADS, RING = 8, 2, 1024  # of the caches; what the cyclic one keeps
MILLION = (15_625, 62_500, 250_000, 1_000_000)
THOUSANDS = (1_562, 6_250, 25_000, 100_000)
SMALL = 100  # a size that is measured before memory counts


def timed(calls: int, work: Callable[[], Any]) -> float:
    """Seconds, the median."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)


def megabytes(*tensors: Tensor) -> float:
    return sum(x.numel() * x.element_size() for x in tensors) / 2**20


def both_ways(shape: tuple[int, int, int], dtype: torch.dtype, mask: Mask) -> tuple[dict[str, float], float]:
    """Times of lowering, forward and backward over (B, H, T), and the MB of the tensors."""
    q, k, v = given = tuple(torch.randn(*shape, DIM, dtype=dtype).requires_grad_() for _ in range(3))
    lowering = timed(1, lambda: mask.plan(*shape, shape[2]))
    out: list[Tensor] = []
    forward = timed(3, lambda: out.__setitem__(slice(None), [mmha.attention(q, k, v, mask)]))
    upstream = torch.ones_like(out[0])
    backward = timed(3, lambda: torch.autograd.grad(out[0], given, upstream, retain_graph=True))
    tensors = 2 * megabytes(*given, out[0])
    return {"lowering": lowering, "forward": forward, "backward": backward}, tensors


def window(size: int, dtype: torch.dtype) -> tuple[dict[str, float], float]:
    """256 tokens and 4 sinks, over one head of so many tokens."""
    return both_ways((1, 1, size), dtype, Causal() & (Window(255) | Prefix(4)))


def tiny(size: int, length: int) -> tuple[dict[str, float], float]:
    """So many causal problems of a few tokens, as rows of 4 heads."""
    return both_ways((max(1, size // 4), 4, length), torch.float32, Causal())


def documents(size: int) -> tuple[dict[str, float], float]:
    """So many of 1 to 255 tokens, one after the other."""
    lengths = torch.randint(1, 256, (size,), generator=torch.Generator().manual_seed(1)).tolist()
    return both_ways((1, 1, sum(lengths)), torch.float32, Causal() & Documents.from_lengths(lengths))


def cached(size: int, kind: str) -> tuple[dict[str, float], float]:
    """A cache filled with so many tokens; the time of one more, rotated, appended and attending to all."""
    if kind == "paged":
        pool = mmha.PagedKVCache(size // BLOCK + 4, BLOCK, KV_HEADS, DIM)
        cache: Any = pool.select(pool.allocate())
    elif kind == "cyclic":
        cache = mmha.KVCache(1, KV_HEADS, RING + CHUNK, DIM, window=RING, sinks=4)
    else:
        cache = mmha.KVCache(1, KV_HEADS, size + 32, DIM)

    def fill() -> None:
        for first in range(0, size, CHUNK):
            tokens = torch.randn(2, 1, KV_HEADS, min(CHUNK, size - first), DIM)
            cache.append(*tokens)

    filling = timed(1, fill)
    qkv, rotary = torch.randn(1, (HEADS + 2 * KV_HEADS) * DIM), mmha.Rotary(DIM)
    token = timed(20, lambda: mmha.masked_multihead_attention(qkv, cache, rotary=rotary))
    return {"filling": filling, "token": token}, cache.nbytes / 2**20


CASES: dict[str, tuple[Sequence[int], Callable[[int], tuple[dict[str, float], float]]]] = {
    "window of 256, float32": (MILLION, lambda size: window(size, torch.float32)),
    "window of 256, bfloat16": (MILLION, lambda size: window(size, torch.bfloat16)),
    "problems of 16 tokens": (THOUSANDS, lambda size: tiny(size, 16)),
    "problems of 32 tokens": (THOUSANDS, lambda size: tiny(size, 32)),
    "documents": ((16, 62, 250, 1_000), documents),
    "a token, KVCache": (MILLION, lambda size: cached(size, "plain")),
    "a token, PagedKVCache": (MILLION, lambda size: cached(size, "paged")),
    "a token, cyclic KVCache": (MILLION, lambda size: cached(size, "cyclic")),
}


def peak() -> float:
    """The most memory that this process has held, in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def row(case: str, size: int) -> dict[str, Any]:
    """One size of one case, in this process."""
    work = CASES[case][1]
    work(min(SMALL, size))
    before = peak()
    times, tensors = work(size)
    seconds = {name: rounded(value) for name, value in times.items()}
    return {
        "case": case,
        "size": size,
        "s": seconds,
        "tensors_mb": round(tensors, 1),
        "peak_mb": round(peak() - before, 1),
    }


def work_s(found: dict[str, Any]) -> float:
    """The seconds that count: forward and backward, or the token."""
    return float(sum(value for name, value in found["s"].items() if name not in ("lowering", "filling")))


def slope(rows: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> float:
    """The power of the size with which it grows between the last two sizes: 1 is linear, 0 is not at all."""
    first, last = rows[-2:]
    return math.log(value(last) / value(first)) / math.log(last["size"] / first["size"])


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Time and memory over size, both axes logarithmic, with the slopes; on grey, which is readable on any page."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.6), layout="constrained", facecolor="#f4f4f4")
    values: dict[str, Callable[[dict[str, Any]], float]] = {
        "seconds, forward and backward, or a token": work_s,
        "memory beyond the imports, MB": lambda found: max(found["peak_mb"], 0.1),
    }
    for axes, (name, value) in zip(figure.subplots(1, 2), values.items(), strict=True):
        for number, case in enumerate(CASES):
            own = [found for found in rows if found["case"] == case]
            label = f"{case}: size^{slope(own, value):.2f}"
            axes.loglog([found["size"] for found in own], list(map(value, own)), "osD^v<>p"[number] + "-", label=label)
        axes.set(title=name, xlabel="tokens, problems or documents", facecolor="white")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:], dpi=110)
    checkpoint.write(path, picture.getvalue())


def main(arguments: Sequence[str] | None = None) -> None:
    """Each size of each case in a process of its own; print as they end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--up-to", type=float, default=1.0, help="leave out sizes beyond this share of the largest")
    parser.add_argument("--here", nargs=2, metavar=("CASE", "SIZE"), help="one row, in this process, as JSON")
    options = parser.parse_args(arguments)
    if options.here:
        print(json.dumps(row(options.here[0], int(options.here[1]))))
        return
    rows = []
    for case, (sizes, _) in CASES.items():
        for size in (size for size in sizes if size <= options.up_to * sizes[-1]):
            own = [sys.executable, __file__, "--here", case, str(size)]
            rows.append(json.loads(subprocess.run(own, check=True, stdout=subprocess.PIPE).stdout))
            print(f"{case:26}{size:>10,}  {work_s(rows[-1]):10.5f} s  {rows[-1]['peak_mb']:8.1f} MB", flush=True)
    if options.json:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        made = {"measured": now, "machine": machine(), "rows": rows}
        checkpoint.write(options.json, (json.dumps(made, indent=1) + "\n").encode())
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
