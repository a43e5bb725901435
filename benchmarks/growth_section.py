"""The table of how time and memory grow, from what growth.py wrote: for fill_readme.py."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import growth
from words import Words, title

ENGLISH: Words = {
    "section": "`make bench-growth` on {run[measured]:.10}, {run[machine][cpu]}, {run[machine][torch][threads]} "
    "threads, {run[machine][kernels][isa]} kernels. Heads of 64, each size in a process of its own: milliseconds at "
    "the largest size, the process' peak of memory beyond its imports, and the bytes of the tensors (with their "
    "gradients) or of the cache. *Grows as* is the power of the size between the last quarter and the "
    "whole: 1 is linear, 0 not at all.",
    "plot": "![Time and memory over size, both axes logarithmic](images/growth.png)",
    "head": "| work | size | lowering or filling | forward or token | backward | memory, MB | tensors, MB "
    "| time grows as | memory grows as |",
}
CHINESE: Words = {
    "section": "`make bench-growth`，{run[measured]:.10}，{run[machine][cpu]}，{run[machine][torch][threads]} 个线程，"
    "{run[machine][kernels][isa]} 内核。头宽 64，每个尺寸一个单独的进程：最大尺寸的毫秒数，"
    "进程在导入之外的内存峰值，以及张量（连同梯度）或缓存的字节数。"
    "“增长”是从四分之一到全部尺寸之间的幂次：1 是线性，0 是不增长。",
    "plot": "![时间和内存随尺寸的变化，双对数坐标](../images/growth.png)",
    "head": "| 工作 | 尺寸 | 降级或填入 | 前向或一个词元 | 反向 | 内存，MB | 张量，MB | 时间增长 | 内存增长 |",
    "window of {}, float32": "宽 {} 的窗口，float32",
    "window of {}, bfloat16": "宽 {} 的窗口，bfloat16",
    "problems of {} tokens": "{} 个词元的小问题",
    "documents": "文档",
    "a token, KVCache": "一个词元，KVCache",
    "a token, PagedKVCache": "一个词元，PagedKVCache",
    "a token, cyclic KVCache": "一个词元，环形 KVCache",
}


def section(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """The largest size of each case, and how it came about."""
    lines = [words["section"].format(run=run), "", words["head"], "|---|" + "---:|" * 8]
    for case, rows in groupby(run["rows"], lambda row: row["case"]):
        own = list(rows)
        last = own[-1]
        times = [f"{1000 * value:,.3g}" if value < 1 else f"{1000 * value:,.0f}" for value in last["s"].values()]
        cells = [f"{last['size']:,}", *times, *["–"] * (3 - len(times)), f"{last['peak_mb']:,.0f}"]
        cells += [f"{last['tensors_mb']:,.0f}", f"{growth.slope(own, growth.work_s):.2f}"]
        cells.append(f"{growth.slope(own, lambda row: max(row['peak_mb'], 0.1)):.2f}")
        lines.append(f"| {title(case, words)} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", words["plot"]])
