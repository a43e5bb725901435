"""The table of attention on docs/speed.md, from what `mmha bench` wrote: for fill_readme.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from words import Words, title

KINDS = {
    "dense": "no mask",
    "causal": "causal",
    "window": "window 256",
    "documents": "8 documents",
    "padding": "a quarter padding",
    "dropout": "dropout 0.1",
    "alibi": "causal + ALiBi",
    "relative": "learned table of distances",
    "softcap": "causal, softcap",
    "random": "random 10 %",
    "bigbird": "BigBird",
    "longformer": "Longformer",
    "tree": "tree of 64 guesses",
    "packed": "half-empty batch, packed",
}
# A selection of the table, not of the results: it stays when a row turns out badly.
SHOWN = (
    "masks forward dense 4096 f32 1x8 d64",
    "masks forward causal 512 f32 1x8 d64",
    "masks forward causal 4096 f32 1x8 d64",
    "masks forward window 4096 f32 1x8 d64",
    "masks forward documents 4096 f32 1x8 d64",
    "masks forward causal 4096 bf16 1x8 d64",
    "masks forward window 4096 bf16 1x8 d64",
    "masks backward causal 4096 f32 1x8 d64",
    "masks backward window 4096 f32 1x8 d64",
    "masks backward causal 4096 bf16 1x8 d64",
    "features forward alibi 2048 f32 1x8 d64",
    "features forward dropout 2048 f32 1x8 d64",
    "features training dropout 2048 f32 1x8 d64",
    "features training relative 2048 f32 1x8 d64",
    "irregular forward random 4096 f32 1x8 d64",
    "irregular forward bigbird 4096 f32 1x8 d64",
    "irregular backward longformer 4096 f32 1x8 d64",
    "irregular forward tree 64x4096 f32 1x8 d64",
    "shapes forward causal 32 f32 64x8 d64",
    "shapes forward causal 1x8192 f32 1x8/2 d64",
    "shapes backward packed 512 f32 16x8 d64",
    "call forward dense 16 f32 1x8 d64",
)


ENGLISH: Words = {
    "section": "Attention, heads of 64; `make bench` on {run[measured]:.10}, {run[machine][cpu]}, "
    "{run[limits][threads]} threads (the last row: 1), {run[machine][kernels][isa]} kernels, torch "
    "{run[machine][torch][version]}. Both sides run in turns within one run; medians. GFLOP/s counts visible pairs; "
    "*limit* is its share of the {run[limits][fma_gflops]:.0f} GFLOP/s of float32 multiply-adds that the machine "
    "reached in the best probe of the run. {shown} of the {all} rows of that run:",
    "columns": "| work | dtype | B × H | L | torch ms | mmha ms | × torch | GFLOP/s | limit |",
    "work": "{direction}, {kind}",
}
CHINESE: Words = {
    "section": "注意力，每头 64 维；`make bench`，{run[measured]:.10}，{run[machine][cpu]}，{run[limits][threads]} "
    "个线程（最后一行：1 个），{run[machine][kernels][isa]} 内核，torch {run[machine][torch][version]}。"
    "双方在同一次运行中轮流计时，取中位数。GFLOP/s 只计可见的对；*极限*是它占本机 float32 乘加 "
    "{run[limits][fma_gflops]:.0f} GFLOP/s 的比例，后者是同一次运行中最好的一次探测。该次运行 {all} 行中的 {shown} "
    "行：",
    "columns": "| 工作 | dtype | B × H | L | torch，毫秒 | mmha，毫秒 | × torch | GFLOP/s | 极限 |",
    "work": "{direction}，{kind}",
    "forward": "前向",
    "backward": "反向",
    "training": "训练",
    "no mask": "无掩码",
    "causal": "因果",
    "window {}": "窗口 {}",
    "{} documents": "{} 个文档",
    "a quarter padding": "四分之一是填充",
    "dropout {}": "随机失活 {}",
    "causal + ALiBi": "因果 + ALiBi",
    "learned table of distances": "学习得到的距离表",
    "causal, softcap": "因果，软上限",
    "random {} %": "随机 {} %",
    "tree of {} guesses": "{} 个猜测的树",
    "half-empty batch, packed": "半空的批，打包",
}


def section(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """The sentence that says where, the table, and how to read it."""
    rows = {row["name"]: row for row in run["rows"]}
    lines = [
        words["section"].format(run=run, shown=len(SHOWN), all=len(rows)),
        "",
        words["columns"],
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        *(line(rows[name], words) for name in SHOWN),
    ]
    return "\n".join(lines)


def line(row: Mapping[str, Any], words: Words) -> str:
    """One row of the table."""
    size = row["sizes"]
    heads = f"{size['batch']} × {size['heads']}" + (f"/{size['kv_heads']}" if size["kv_heads"] != size["heads"] else "")
    length = f"{size['q_len']} × {size['k_len']}" if size["q_len"] != size["k_len"] else str(size["k_len"])
    work = words["work"].format(direction=title(row["direction"], words), kind=title(KINDS[row["kind"]], words))
    return (
        f"| {work} | {row['dtype']} | {heads} | {length} "
        f"| {ms_text(row['torch_ms'])} | {ms_text(row['mmha_ms'])} "
        f"| {row['ratio']:.2f} | {row['gflops']:.0f} | {row['share_of_limit']:.0%} |"
    )


def ms_text(ms: float) -> str:
    """Three significant digits, and all of those before the point: 0.0264, 16.2, 1471."""
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"
