"""The README's tables of decoding, from what decode_peers.py and generation.py wrote: for fill_readme.py."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

# Columns of the first table: those that keep as many bits stand together, ours last.
SIDES = {
    "torch float32": "torch f32",
    "onnxruntime float32": "ORT f32",
    "mmha float32": "**mmha f32**",
    "torch bfloat16": "torch bf16",
    "mmha bfloat16": "**mmha bf16**",
    "llama.cpp f16": "llama.cpp f16",
    "mmha float16": "**mmha f16**",
    "onnxruntime int8": "ORT int8",
    "llama.cpp q8_0": "llama.cpp q8_0",
    "mmha int8": "**mmha int8**",
}
SHARED = "torch enable_gqa float32"
GENERATION = {
    "torch growing": "torch, growing",
    "torch careful": "torch, careful",
    "mmha float32": "**mmha f32**",
    "mmha bfloat16": "**mmha bf16**",
    "mmha int8": "**mmha int8**",
}
MODELS = {"shipped": "the one that ships", "100M": "100 M weights"}


def section(peers: Mapping[str, Any], generation: Mapping[str, Any]) -> str:
    """Both tables, and how to read them."""
    return "\n".join([*attention(peers), "", *tokens(generation)])


def attention(run: Mapping[str, Any]) -> list[str]:
    """One token against a cache, ms, beside every system that was there."""
    there = {side["side"] for shape in run["shapes"] for side in shape["sides"]}
    columns = {side: title for side, title in SIDES.items() if side in there}
    repeated = [side_of(shape, SHARED)["ms"] / side_of(shape, "torch float32")["ms"]
                for shape in run["shapes"] if shape["heads"] != shape["kv_heads"]]  # fmt: skip
    reads = [shape["read_gbs"] for shape in run["shapes"]]
    return [
        f"One new token against a cache, milliseconds; `make bench-decode` on {run['measured'][:10]}, "
        f"{run['machine']['cpu']}, kernels for {run['machine']['kernels']['isa']}, {run['threads']} threads, all sides "
        "in turns within one run; medians. In brackets the bytes of keys, values and scales over the time, as a share "
        "of the GB/s that the machine read from memory in the same turns, a median of "
        f"{min(reads):.0f} to {max(reads):.0f} (above 100 %: they stay in the CPU's own cache). torch gets "
        "the query heads of a group as rows of one head; its `enable_gqa` takes "
        f"{statistics.median(repeated):.1f} times as long. ORT is ONNX Runtime's GroupQueryAttention, llama.cpp its "
        "`flash_attn_ext`.",
        "",
        "| B × H/Hk, D, Tk | " + " | ".join(columns.values()) + " |",
        "|---|" + "---:|" * len(columns),
        *(attention_row(shape, columns) for shape in run["shapes"]),
    ]


def attention_row(shape: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """One shape."""
    name = f"{shape['batch']} × {shape['heads']}/{shape['kv_heads']}, {shape['dim']}, {shape['k_len']}"
    cells = [cell(side_of(shape, column), shape["read_gbs"]) for column in columns]
    return f"| {name} | " + " | ".join(cells) + " |"


def cell(side: Mapping[str, Any], limit: float) -> str:
    """The time, and for ours the share of the read bandwidth."""
    share = f" ({side['gbs'] / limit:.0%})" if side["side"].startswith("mmha") else ""
    return f"{side['ms']:.3g}{share}"


def tokens(run: Mapping[str, Any]) -> list[str]:
    """Tokens per second of generation."""
    return [
        f"Tokens per second on {run['measured'][:10]}, kernels for {run['machine']['kernels']['isa']}, all rows of the "
        "batch together, of a causal language model on mmha's caches, and of the "
        "same model and weights on torch's attention: *growing* is `torch.cat` and `enable_gqa`, as one first writes "
        "it, *careful* writes into room set aside and folds the heads. In float32 all say the same tokens.",
        "",
        "| model | batch | context | " + " | ".join(GENERATION.values()) + " |",
        "|---|---:|---:|" + "---:|" * len(GENERATION),
        *(tokens_row(row) for row in run["rows"]),
    ]


def tokens_row(row: Mapping[str, Any]) -> str:
    """One size."""
    speeds = [side_of(row, side)["tokens_per_second"] for side in GENERATION]
    cells = [f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}" for speed in speeds]
    return f"| {MODELS[row['model']]} | {row['batch']} | {row['context']} | " + " | ".join(cells) + " |"


def side_of(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What this side did in this row."""
    return next(side for side in row["sides"] if side["side"] == name)
