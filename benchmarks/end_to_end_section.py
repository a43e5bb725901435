"""The README's table of whole models, from what end_to_end.py wrote: for fill_readme.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from words import Words, title

INFERENCE = ("eager", "sdpa", "flex", "mmha")
TRAINING = ("torch", "mmha.patch()", "mmha.nn")

ENGLISH: Words = {
    "section": "Whole models, seconds; `make bench-end-to-end` on {run[measured]:.10}, {run[machine][cpu]}, "
    "{run[threads]} threads, float32, all sides in turns within one run; medians. Sides share weights and inputs, and "
    "their results were compared first. Models are transformers', and but for MiniLM their weights are random; the "
    "sides are its attentions. {flex}",
    "used": "| work | eager | sdpa | flex | **mmha** | × eager | × sdpa | × flex |",
    "trained": "| work | torch.nn | **mmha.patch()** | **mmha.nn** | × torch, patched | × torch, mmha.nn |",
    "first": "flex compiles in its first call, which took {least:.0f} to {most:.0f} s and is not counted; on a CPU it "
    "has no backward.",
    "without": "Where flex is missing: {reasons}.",
}
CHINESE: Words = {
    "section": "完整模型，单位为秒；`make bench-end-to-end`，{run[measured]:.10}，{run[machine][cpu]}，"
    "{run[threads]} 个线程，float32，各方在同一次运行中轮流计时，取中位数。各方共用权重和输入，结果先作比较。"
    "模型来自 transformers，除 MiniLM 外权重是随机的；各方是它的几种注意力。{flex}",
    "used": "| 工作 | eager | sdpa | flex | **mmha** | × eager | × sdpa | × flex |",
    "trained": "| 工作 | torch.nn | **mmha.patch()** | **mmha.nn** | × torch，patch | × torch，mmha.nn |",
    "MiniLM, embedding {} sentences of the Brown corpus in batches of {}": "MiniLM，嵌入 Brown 语料库的 {} 个句子，"
    "每批 {} 个",
    "BERT-base, {} × {} tokens, {} % of them padding": "BERT-base，{} × {} 个词元，其中 {} % 是填充",
    "Llama-like, 0.1B weights, a prompt of {} tokens": "类 Llama，1 亿权重，{} 个词元的提示",
    "the same, {} tokens after a context of {}": "同一模型，在 {1} 个词元的上下文之后写 {0} 个词元",
    "Mistral-like, {} layers, window of {}, a prompt of {} tokens": "类 Mistral，{} 层，宽 {} 的窗口，{} 个词元的提示",
    "training step, `nn.TransformerEncoder` of {} layers of {}, {} × {} tokens, {} % padding, dropout": "训练一步，"
    "`nn.TransformerEncoder`，{} 层，宽 {}，{} × {} 个词元，{} % 是填充，随机失活",
    "first": "flex 在第一次调用时编译，用了 {least:.0f} 至 {most:.0f} 秒，不计在内；它在 CPU 上没有反向。",
    "without": "没有 flex 之处：{reasons}。",
}


def section(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """Both tables, and how to read them."""
    trained = [row for row in run["rows"] if seconds(row, "torch") is not None]
    used = [row for row in run["rows"] if row not in trained]
    return "\n".join(
        [
            words["section"].format(run=run, flex=flex(used, words)),
            "",
            words["used"],
            "|---|" + "---:|" * 7,
            *(line(row, INFERENCE, [("mmha", peer) for peer in INFERENCE[:-1]], words) for row in used),
            "",
            words["trained"],
            "|---|" + "---:|" * 5,
            *(line(row, TRAINING, [(ours, "torch") for ours in TRAINING[1:]], words) for row in trained),
        ]
    )


def seconds(row: Mapping[str, Any], name: str) -> float | None:
    """The median of a side, None where it was not there."""
    return next((side["s"] for side in row["sides"] if side["side"] == name), None)


def flex(rows: Sequence[Mapping[str, Any]], words: Words) -> str:
    """What the first call of flex took, and where and why it is missing."""
    first = [side["first_s"] for row in rows for side in row["sides"] if side["side"] == "flex"]
    reasons = dict.fromkeys(row["without"]["flex"] for row in rows if "flex" in row["without"])
    parts = []
    if first:
        parts.append(words["first"].format(least=min(first), most=max(first)))
    if reasons:
        parts.append(words["without"].format(reasons="; ".join(reasons)))
    return " ".join(parts)


def line(
    row: Mapping[str, Any], sides: Sequence[str], ratios: Sequence[tuple[str, str]], words: Words = ENGLISH
) -> str:
    """One row: the seconds of all sides, then for each pair how many times faster the first is than the second."""
    taken = {name: seconds(row, name) for name in sides}
    cells = [cell(s, "{:.0f}" if s is not None and s >= 100 else "{:.3g}") for s in taken.values()]
    for ours, theirs in ratios:
        a, b = taken[ours], taken[theirs]
        cells.append(cell(None if a is None or b is None else b / a, "{:.2f}"))
    return f"| {title(row['title'], words)} | " + " | ".join(cells) + " |"


def cell(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else form.format(value)
