"""The README's one table, from what `make bench` and `make bench-decode` wrote: for fill_readme.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A selection of the tables in docs/speed.md, not of the results: a row stays when it turns out badly.
ATTENTION = {
    "masks forward dense 4096 f32 1x8 d64": "forward, no mask, 4096 tokens",
    "masks forward causal 4096 f32 1x8 d64": "forward, causal, 4096 tokens",
    "masks forward causal 4096 bf16 1x8 d64": "the same in bfloat16",
    "masks forward window 4096 f32 1x8 d64": "forward, window of 256, 4096 tokens",
    "masks forward documents 4096 f32 1x8 d64": "forward, 8 packed documents, 4096 tokens",
    "masks backward causal 4096 f32 1x8 d64": "backward, causal, 4096 tokens",
    "masks backward window 4096 f32 1x8 d64": "backward, window of 256, 4096 tokens",
    "features training dropout 2048 f32 1x8 d64": "forward and backward, dropout 0.1, 2048 tokens",
    "irregular forward random 4096 f32 1x8 d64": "forward, a random tenth of the pairs, 4096 tokens",
    "call forward dense 16 f32 1x8 d64": "a call on 16 tokens, one thread",
}
DECODED = (1, 32, 8, 128, 16384)
DECODE = {"float32": "one new token, 16,384 cached in float32", "bfloat16": "one new token, 16,384 cached in bfloat16"}


def section(bench: Mapping[str, Any], peers: Mapping[str, Any]) -> str:
    """Where and when, and one row for each kind of work."""
    rows = {row["name"]: row for row in bench["rows"]}
    machine = bench["machine"]
    torch, isa = machine["torch"]["version"], machine["kernels"]["isa"]
    return "\n".join(
        [
            f"Milliseconds beside `scaled_dot_product_attention` of torch {torch} on "
            f"{machine['cpu']}, 2 threads, {isa} kernels; both in turns within one run, medians. "
            f"8 heads of 64, for new tokens 32 heads of 128 on 8 of the cache. "
            f"`make bench` ({bench['measured'][:10]}) and "
            f"`make bench-decode` ({peers['measured'][:10]}) print all rows; [Speed](docs/speed.md) has more of them, "
            "other peers, whole models, and where we are behind.",
            "",
            "| work | torch | mmha | times as fast |",
            "|---|---:|---:|---:|",
            *(_line(title, rows[name]["torch_ms"], rows[name]["mmha_ms"]) for name, title in ATTENTION.items()),
            *(_line(title, *_decoded(peers, dtype)) for dtype, title in DECODE.items()),
        ]
    )


def _decoded(peers: Mapping[str, Any], dtype: str) -> tuple[float, float]:
    names = ("batch", "heads", "kv_heads", "dim", "k_len")
    shape = next(shape for shape in peers["shapes"] if tuple(shape[name] for name in names) == DECODED)
    times = {side["side"]: side["ms"] for side in shape["sides"]}
    return times[f"torch {dtype}"], times[f"mmha {dtype}"]


def _line(title: str, *ms: float) -> str:
    times = " | ".join(f"{one:.0f}" if one >= 100 else f"{one:.3g}" for one in ms)
    return f"| {title} | {times} | {ms[0] / ms[1]:.2g} |"
