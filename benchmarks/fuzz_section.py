"""The table of random cases and the count of damaged files, from what tests/fuzz/ wrote: for fill_readme.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from words import Words

ENGLISH: Words = {
    "section": "`make fuzz-attention`, {run[measured]:.10}: {run[cases]:,} cases of {run[problems]:,} problems, "
    "{run[backward]:,} of them with a backward pass, {failed} beyond their bound; mmha {run[machine][mmha]}, torch "
    "{run[machine][torch]}, Python {run[machine][python]}. By instruction set: {isas}.",
    "head": "| dtype | cases | worst error, of its bound | in which result | kernels | problem |",
    "in pairs": "{name} in pairs",
    "readers": "`make fuzz-readers`, {run[measured]:.10}: {cases:,} damaged files, {each} for each of {count} readers "
    "({names}); {findings} of them ended otherwise than by success or by one line that names the file, took more than "
    "5 seconds or more than 3 GB. mmha {run[mmha]}, Python {run[python]}.",
    "none": "none",
    "listed": ", ",
}
CHINESE: Words = {
    "section": "`make fuzz-attention`，{run[measured]:.10}：{run[problems]:,} 个问题的 {run[cases]:,} 个情形，其中 "
    "{run[backward]:,} 个有反向，{failed} 个超出界限；mmha {run[machine][mmha]}，torch {run[machine][torch]}，Python "
    "{run[machine][python]}。按指令集：{isas}。",
    "head": "| dtype | 情形 | 最大误差占界限的比例 | 在哪个结果 | 内核 | 问题 |",
    "in pairs": "{name}，成对相乘",
    "readers": "`make fuzz-readers`，{run[measured]:.10}：{cases:,} 个损坏的文件，{count} 个读取函数各 {each} 个"
    "（{names}）；既未成功、又未以一行指明文件的错误结束，或用时超过 5 秒、占用超过 3 GB 的：{findings}。"
    "mmha {run[mmha]}，Python {run[python]}。",
    "none": "无",
    "listed": "、",
}


def section(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """How many cases there were, and the worst error of each dtype as a share of its bound."""
    isas = ", ".join(f"{name} {count:,}" for name, count in run["isas"].items())
    return "\n".join(
        [
            words["section"].format(run=run, isas=isas, failed=len(run["failures"])),
            "",
            words["head"],
            "|---|---:|---:|---|---|---:|",
            *(_line(name, row, words) for name, row in sorted(run["dtypes"].items())),
        ]
    )


def _line(name: str, row: Mapping[str, Any], words: Words) -> str:
    plain = name.removesuffix(" in pairs")
    title = plain if plain == name else words["in pairs"].format(name=plain)
    worst = f"{row['worst']:.0%} | `{row['result']}` | {row['isa']} | {row['problem']:,}"
    return f"| {title} | {row['cases']:,} | {worst} |"


def readers(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """How many damaged files each reader was given, and how many it neither read nor refused."""
    cases = {part["cases"] for part in run["readers"].values()}
    found = sum(len(part["findings"]) for part in run["readers"].values())
    return words["readers"].format(
        run=run,
        cases=sum(part["cases"] for part in run["readers"].values()),
        each=" / ".join(f"{number:,}" for number in sorted(cases)),
        count=len(run["readers"]),
        names=words["listed"].join(run["readers"]),
        findings=found or words["none"],
    )
