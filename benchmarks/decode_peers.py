"""One token against a cache: mmha beside torch, ONNX Runtime and llama.cpp, in turns within one run.

    python benchmarks/decode_peers.py [--seconds N] [--threads N] [--json FILE]

Every side computes the same problem from the same numbers, rounded to what its cache holds; results are compared with
torch's float32 first. Each turn begins with a call that is not timed: the sides have thread pools of their own. GB/s
are the bytes of a side's keys, values and scales over its time. Reading from memory takes its turn, too: the limit of a
problem is the median of its probes, for on a shared machine what can be read changes from minute to minute.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import peers
import torch
import torch.nn.functional as F
from peers import Contender
from torch import Tensor

import mmha
from mmha import checkpoint
from mmha.bench import measure
from mmha.bench.cases import TORCH_NAMES, Case, DType, Sizes
from mmha.bench.contest import Work, tensors
from mmha.bench.decode import filled, folded, read_bytes
from mmha.bench.machine import machine
from mmha.bench.record import rounded
from mmha.bench.table import IN_CACHE, IN_MEMORY

Maker = Callable[[Sizes, Tensor, Tensor, Tensor, int], list[Contender]]

# How far a side may stand from float32, norm over norm, by what its cache holds: see mmha.bench.agree. Peers have their
# own: llama.cpp sums in float16, and ONNX Runtime's int8 has a scale for a whole channel where ours has one a token.
ALLOWED = {"float32": 2e-5, "bfloat16": 6e-3, "float16": 1e-3, "int8": 1.2e-2}
ALLOWED_PEERS = {"f16": 3e-2, "q8_0": 3e-2, "int8": 2e-2}
FEWEST, MOST = 5, 31


def ours(size: Sizes, q: Tensor, k: Tensor, v: Tensor, threads: int) -> list[Contender]:
    """mmha.attention over a cache in each of the four formats, q in float32."""

    def contender(dtype: DType) -> Contender:
        case = Case("decode", "forward", "token", size, aim=1.0, dtype=dtype)
        cache, out = filled(case, k, v), torch.empty(0)

        def work() -> None:
            nonlocal out
            out = mmha.attention(q, cache, mask=None)

        return Contender(f"mmha {TORCH_NAMES[dtype]}", work, lambda: out.squeeze(2), read_bytes(case))

    return [contender(dtype) for dtype in ("f32", "bf16", "f16", "i8")]


def torch_sides(size: Sizes, q: Tensor, k: Tensor, v: Tensor, threads: int) -> list[Contender]:
    """torch's attention in float32 and bfloat16: with enable_gqa, and with the heads of a group as rows of one head."""

    def contender(dtype: torch.dtype, gqa: bool) -> Contender:
        keys, values, out = k.to(dtype), v.to(dtype), torch.empty(0)
        queries = q.to(dtype) if gqa else folded(q.to(dtype), size.kv_heads)

        def work() -> None:
            nonlocal out
            out = F.scaled_dot_product_attention(queries, keys, values, enable_gqa=gqa)

        name = f"torch{' enable_gqa' if gqa else ''} {str(dtype).removeprefix('torch.')}"
        return Contender(name, work, lambda: out.reshape(q.squeeze(2).shape).float(), keys.nbytes + values.nbytes)

    ways = (False, True) if size.heads != size.kv_heads else (False,)
    return [contender(dtype, gqa) for dtype in (torch.float32, torch.bfloat16) for gqa in ways]


MAKERS: dict[str, Maker] = {
    "mmha": ours,
    "torch": torch_sides,
    "onnxruntime": peers.onnxruntime,
    "llama.cpp": peers.llama_cpp,
}


def missing() -> dict[str, str]:
    """The makers that cannot be had here, and why, found out on a small problem."""
    size, reasons = Sizes(1, 2, 1, 1, 32, 32), {}
    for name, make in MAKERS.items():
        try:
            make(size, *problem(size), 1)
        except (ImportError, OSError, AttributeError) as error:
            reasons[name] = str(error)
    return reasons


def problem(size: Sizes) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v in float32, unit-normal."""
    return tensors(Case("decode", "forward", "token", size, aim=1.0))[:3]


def shape_rows(
    size: Sizes, makers: Sequence[Maker], threads: int, seconds: float
) -> tuple[list[dict[str, Any]], list[float]]:
    """All contenders over one problem, compared and timed in turns, and the GB/s of reading in each round."""
    q, k, v = problem(size)
    sides = [side for make in makers for side in make(size, q, k, v, threads)]
    exact = F.scaled_dot_product_attention(folded(q, size.kv_heads), k, v).view(q.squeeze(2).shape)
    errors = [compared(side, exact) for side in sides]
    times, reads = in_turns([side.work for side in sides], threads, seconds)
    rows = [
        {
            "side": side.name,
            "ms": rounded(statistics.median(taken)),
            "read_bytes": side.read,
            "gbs": round(side.read / statistics.median(taken) / 1e6, 2),
            "error": error,
            "samples_ms": [rounded(x) for x in taken],
        }
        for side, error, taken in zip(sides, errors, times, strict=True)
    ]
    return rows, reads


def compared(side: Contender, exact: Tensor) -> float:
    """The side's relative difference from float32, norm over norm; it ends the run where that is too large."""
    side.work()
    error = float((side.out() - exact).norm() / exact.norm())
    kind = side.name.split()[-1]
    allowed = ALLOWED[kind] if side.name.startswith(("mmha", "torch")) else (ALLOWED | ALLOWED_PEERS)[kind]
    if not error <= allowed:
        raise SystemExit(f"{side.name} differs from float32 by {error:.1e} relative, allowed {allowed:.0e}")
    return float(f"{error:.2g}")


def in_turns(
    works: Sequence[Work | Callable[[], object]], threads: int, seconds: float
) -> tuple[list[list[float]], list[float]]:
    """Times of a call in ms of each, and GB/s of reading, once a round.

    Every other round goes in reversed order; a call that is not timed comes before each turn.
    """
    calls = [measure.calls_a_turn(work) for work in works]
    times: list[list[float]] = [[] for _ in works]
    reads: list[float] = []
    spent = 0.0
    while len(reads) < FEWEST or (spent < seconds and len(reads) < MOST):
        turns = list(zip(works, calls, times, strict=True))
        for work, count, taken in turns if len(reads) % 2 == 0 else reversed(turns):
            work()
            lasted = measure.seconds_of(work, count)
            spent += lasted
            taken.append(lasted / count * 1e3)
        reads.append(measure.probe_read(threads))
    return times, reads


def print_rows(size: Sizes, rows: Sequence[dict[str, Any]], limit: float) -> None:
    """A table of one problem; the last column is the side's time over that of mmha in the nearest format."""
    base = {row["side"].split()[-1]: row["ms"] for row in rows if row["side"].startswith("mmha ")}
    near = {"f16": "float16", "q8_0": "int8"}
    print(f"\n({size.batch}, {size.heads}, {size.kv_heads}, {size.dim}) Tk = {size.k_len}; reading: {limit:.1f} GB/s")
    for row in rows:
        kind = row["side"].split()[-1]
        ratio = row["ms"] / base[near.get(kind, kind)]
        print(f"  {row['side']:<28}{row['ms']:>10.4g} ms{row['gbs']:>8.1f} GB/s{row['gbs'] / limit:>7.0%}{ratio:>8.2f}")


def main() -> None:
    """Run every shape, print as they come, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="time for a shape, 5 rounds or more")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    without = missing()
    for name, reason in without.items():
        print(f"without {name}: {reason}")
    makers = [make for name, make in MAKERS.items() if name not in without]
    shapes = []
    with measure.thread_count(options.threads), torch.inference_mode():
        for size in (*IN_CACHE, *IN_MEMORY):
            rows, reads = shape_rows(size, makers, options.threads, options.seconds)
            limit = statistics.median(reads)
            print_rows(size, rows, limit)
            shapes.append({"batch": size.batch, "heads": size.heads, "kv_heads": size.kv_heads, "dim": size.dim,
                           "k_len": size.k_len, "read_gbs": round(limit, 2),
                           "reads_gbs": [round(x, 1) for x in reads], "sides": rows})  # fmt: skip
    print(f"\n{options.threads} threads; last column: time over mmha's, same format")
    if options.json:
        run = {
            "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine(),
            "threads": options.threads,
            "without": without,
            "shapes": shapes,
        }
        checkpoint.write(options.json, (json.dumps(run, indent=1) + "\n").encode())
        print(f"wrote {options.json}")


if __name__ == "__main__":
    main()
