"""Put the figures of a run of `make bench` into the README: python benchmarks/fill_readme.py [RESULTS.json]

Everything between the two `bench` comments is replaced by what the file says, so that no figure is ever typed.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KINDS = {
    "dense": "no mask",
    "causal": "causal",
    "padding": "key padding",
    "window": "window 256",
    "documents": "8 documents",
}
SHOWN = [
    (direction, kind, length)
    for direction in ("forward", "backward")
    for kind in KINDS
    for length in ((512, 4096) if kind == "causal" else (4096,))
]


def section(run: dict[str, Any]) -> str:
    """The sentence that says where, and the table."""
    machine, limits = run["machine"], run["limits"]
    rows = {(row["direction"], row["mask"], row["shape"]["length"]): row for row in run["rows"]}
    lines = [
        f"Attention, float32, batch 1, 8 heads of 64; `make bench` on {run['measured'][:10]}, {machine['cpu']}, "
        f"{limits['threads']} threads, {machine['kernels']['isa']} kernels, torch {machine['torch']['version']}. "
        "Both sides run in turns within one run; medians. GFLOP/s counts visible pairs; *limit* is its share of the "
        f"{limits['fma_gflops']:.0f} GFLOP/s of multiply-adds that the machine reached in the best probe of the run.",
        "",
        "| work | L | torch ms | mmha ms | × torch | GFLOP/s | limit |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for direction, mask, length in SHOWN:
        row = rows[direction, mask, length]
        lines.append(
            f"| {direction}, {KINDS[mask]} | {length} | {row['torch_ms']:.1f} | {row['mmha_ms']:.1f} "
            f"| {row['ratio']:.2f} | {row['gflops']:.0f} | {row['share_of_limit']:.0%} |"
        )
    return "\n".join(lines)


def main(results: Path, readme: Path) -> None:
    """Replace the section of the README."""
    text = readme.read_text(encoding="utf-8")
    run = json.loads(results.read_text(encoding="utf-8"))
    parts = re.fullmatch(r"(.*<!-- bench -->\n).*(\n<!-- /bench -->.*)", text, re.DOTALL)
    if parts is None:
        raise SystemExit(f"{readme}: expected the comments <!-- bench --> and <!-- /bench -->, got none")
    readme.write_text(parts[1] + section(run) + parts[2], encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results" / "bench.json", HERE.parent / "README.md")
