"""The table of Pythons and torches that a wheel was seen to work with, from `make wheel-check`: for fill_readme.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from words import Words

ENGLISH: Words = {
    "section": "A wheel, repaired by auditwheel and installed into an empty environment with torch and what the two "
    "require, away from the sources: `make wheel-check`. Each row compared forward, backward, decoding, a call "
    "traced by `torch.compile`, the module and the patch with the reference. The error is the largest of those in "
    "float32, relative; *tests* are those of the folders named, in the same environment.",
    "head": "| Python | torch | machine | wheel | kernels | error | tests |",
    "none": "not run",
}
CHINESE: Words = {
    "section": "一个经 auditwheel 修整的 wheel，连同 torch 以及二者所需，装入空环境，远离源码：`make wheel-check`。"
    "每一行都把前向、反向、解码、由 `torch.compile` 追踪的一次调用、模块和补丁与参考实现作比较。误差是其中 float32 "
    "的最大相对误差；测试是所列文件夹中的测试，在同一环境中运行。",
    "head": "| Python | torch | 机器 | wheel | 内核 | 误差 | 测试 |",
    "none": "未运行",
}


def section(rows: Sequence[Mapping[str, Any]], words: Words) -> str:
    """The sentence that says how, and a row for each pair of a Python and a torch."""
    return "\n".join(
        [words["section"], "", words["head"], "|---|---|---|---|---|---:|---|", *(line(row, words) for row in rows)]
    )


def line(row: Mapping[str, Any], words: Words) -> str:
    """One row of the table."""
    wheel = "-".join(row["wheel"].removesuffix(".whl").split("-")[2:])
    error = max(found for name, found in row["errors"].items() if "float16" not in name)
    tests = f"{row['tests'].replace(' ', ', ')}: {row['passed'].split()[0]}" if row["tests"] else words["none"]
    return f"| {row['python']} | {row['torch']} | {row['machine']} | `{wheel}` | {row['isa']} | {error:.1e} | {tests} |"
