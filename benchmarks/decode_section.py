"""The README's tables of decoding, from what decode_peers.py and generation.py wrote: for fill_readme.py."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from words import Words, title

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

ENGLISH: Words = {
    "attention": "One new token against a cache, milliseconds; `make bench-decode` on {run[measured]:.10}, "
    "{run[machine][cpu]}, kernels for {run[machine][kernels][isa]}, {run[threads]} threads, all sides in turns within "
    "one run; medians. In brackets the bytes of keys, values and scales over the time, as a share of the GB/s that the "
    "machine read from memory in the same turns, a median of {least:.0f} to {most:.0f} (above 100 %: they stay in the "
    "CPU's own cache). torch gets the query heads of a group as rows of one head; its `enable_gqa` takes "
    "{repeated:.1f} times as long. ORT is ONNX Runtime's GroupQueryAttention, llama.cpp its `flash_attn_ext`.",
    "tokens": "Tokens per second on {run[measured]:.10}, kernels for {run[machine][kernels][isa]}, all rows of the "
    "batch together, of a causal language model on mmha's caches, and of the same model and weights on torch's "
    "attention: *growing* is `torch.cat` and `enable_gqa`, as one first writes it, *careful* writes into room set "
    "aside and folds the heads. In float32 all say the same tokens.",
    "columns": "| model | batch | context | ",
}
CHINESE: Words = {
    "attention": "一个新词元面对缓存，单位毫秒；`make bench-decode`，{run[measured]:.10}，{run[machine][cpu]}，"
    "{run[machine][kernels][isa]} 内核，{run[threads]} 个线程，各方在同一次运行中轮流计时，取中位数。括号里是键、"
    "值和尺度的字节数除以时间，占本机在同样的轮次中从内存读取的 GB/s 的比例，后者的中位数为 {least:.0f} 至 "
    "{most:.0f}（超过 100 % 表示数据留在 CPU 自己的缓存里）。torch 得到的一组查询头是一个头的各行；它的 `enable_gqa` "
    "要用 {repeated:.1f} 倍的时间。ORT 是 ONNX Runtime 的 GroupQueryAttention，llama.cpp 是它的 `flash_attn_ext`。",
    "tokens": "每秒词元数，{run[measured]:.10}，{run[machine][kernels][isa]} 内核，批中各行合计：一个因果语言模型用 "
    "mmha 的缓存，以及同样的模型和权重用 torch 的注意力。*逐次拼接*用 `torch.cat` 和 `enable_gqa`，"
    "是通常最先写出的做法；*预留空间*写入事先留出的空间，并把头折叠起来。在 float32 下各方说出同样的词元。",
    "columns": "| 模型 | 批 | 上下文 | ",
    "torch, growing": "torch，逐次拼接",
    "torch, careful": "torch，预留空间",
    "the one that ships": "附带的模型",
    "{} M weights": "{}M 权重",
}


def section(peers: Mapping[str, Any], generation: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """Both tables, and how to read them."""
    return "\n".join([*attention(peers, words), "", *tokens(generation, words)])


def attention(run: Mapping[str, Any], words: Words) -> list[str]:
    """One token against a cache, ms, beside every system that was there."""
    there = {side["side"] for shape in run["shapes"] for side in shape["sides"]}
    columns = {side: title for side, title in SIDES.items() if side in there}
    repeated = [side_of(shape, SHARED)["ms"] / side_of(shape, "torch float32")["ms"]
                for shape in run["shapes"] if shape["heads"] != shape["kv_heads"]]  # fmt: skip
    reads = [shape["read_gbs"] for shape in run["shapes"]]
    return [
        words["attention"].format(run=run, least=min(reads), most=max(reads), repeated=statistics.median(repeated)),
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


def tokens(run: Mapping[str, Any], words: Words) -> list[str]:
    """Tokens per second of generation."""
    return [
        words["tokens"].format(run=run),
        "",
        words["columns"] + " | ".join(title(name, words) for name in GENERATION.values()) + " |",
        "|---|---:|---:|" + "---:|" * len(GENERATION),
        *(tokens_row(row, words) for row in run["rows"]),
    ]


def tokens_row(row: Mapping[str, Any], words: Words) -> str:
    """One size."""
    speeds = [side_of(row, side)["tokens_per_second"] for side in GENERATION]
    cells = [f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}" for speed in speeds]
    return f"| {title(MODELS[row['model']], words)} | {row['batch']} | {row['context']} | " + " | ".join(cells) + " |"


def side_of(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What this side did in this row."""
    return next(side for side in row["sides"] if side["side"] == name)
