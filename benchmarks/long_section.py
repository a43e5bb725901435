"""The table of the long runs, from what long_runs.py wrote: for fill_readme.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from words import Words

ENGLISH: Words = {
    "section": "`make long-runs` on {run[rows][0][measured]:.10}; each run is a process of its own, on one thread. "
    "Memory is what the process holds after 1, 10, 30 and 60 sixtieths of its run; cost, what a unit takes of the CPU "
    "in the last sixtieth over the first.",
    "head": "| run | units | MB at 1 | at 10 | at 30 | at 60 | cost | at the end |",
    "stream": "a stream of the speech network that ships, 16 ms a frame",
    "generation": "a text of the language model that ships, a window of 256 tokens and 4 sinks",
    "pages": "a paged cache: allocate, append, fork, free, at random",
    "stream end": "the last sixtieth is {apart:.0e} of its peak from a run that began shortly before it",
    "generation end": "the logits are {apart:.0e} from the formula in float64 over what they can see",
    "pages end": "every block is free",
    "training": "`mmha train tagger`, killed {row[units]} times (SIGKILL, with a state of step {steps}) and resumed "
    "each time, wrote the bytes of the run that nobody disturbed, and left no other file.",
    "broken": "NOT AS IT MUST BE",
}
CHINESE: Words = {
    "section": "`make long-runs`，{run[rows][0][measured]:.10}；每项是一个单独的进程，一个线程。"
    "内存是进程走完六十分之 1、10、30、60 时占有的；代价是最后六十分之一中每个单位占用 CPU 的时间与最初的之比。",
    "head": "| 运行 | 单位数 | 1 时 MB | 10 时 | 30 时 | 60 时 | 代价 | 结束时 |",
    "stream": "附带的语音网络的流，每帧 16 ms",
    "generation": "附带的语言模型写的文本，256 个词元的窗口和 4 个汇",
    "pages": "分页缓存：随机地分配、追加、分叉、释放",
    "stream end": "最后六十分之一与在它之前不久开始的运行相差其峰值的 {apart:.0e}",
    "generation end": "logits 与 float64 公式在可见范围上的结果相差 {apart:.0e}",
    "pages end": "每个块都空闲",
    "training": "`mmha train tagger` 被杀死 {row[units]} 次（SIGKILL，当时保存的状态在第 {steps} 步），每次都继续，"
    "写出的字节与无人打扰的运行相同，没有留下别的文件。",
    "broken": "不符合要求",
}


def section(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """A line a run, and a sentence on the training."""
    lines = [words["section"].format(run=run), "", words["head"], "|---|" + "---:|" * 6 + "---|"]
    last = []
    for row in run["rows"]:
        right = row["apart"] < 1e-3
        if row["run"] == "training":
            steps = ", ".join(str(mark["step"]) for mark in row["marks"])
            last = ["", words["training" if right else "broken"].format(row=row, steps=steps)]
            continue
        marks = row["marks"]
        cells = [f"{row['units']:,}", *(f"{mark['memory_mb']:.0f}" for mark in marks)]
        cells.append(f"{marks[-1]['ms'] / marks[0]['ms']:.2f}")
        end = words[f"{row['run']} end" if right else "broken"].format(apart=row["apart"])
        lines.append(f"| {words[row['run']]} | {' | '.join(cells)} | {end} |")
    return "\n".join([*lines, *last])
