"""The tables of docs/speech.md, from what speech.py wrote: for fill_readme.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from words import Words, title

BY_RATIO = ("PESQ-WB", "PESQ-NB", "STOI", "ESTOI", "SI-SDR")
COMPARED = ("PESQ-WB", "STOI", "ESTOI", "SI-SDR")
RATIOS = "-5, 0, 5, 10, 15"
OVERALL = ("CSIG", "CBAK", "COVL", "PESQ-WB", "STOI", "segSNR")
DIGITS = {"STOI": 1, "ESTOI": 1, "SI-SDR": 1, "segSNR": 1}
PUBLISHED = {
    "noisy": (3.35, 2.44, 2.63, 1.97, 92.0),
    "Deep Xi, ResNet-TCN": (4.12, 3.33, 3.48, 2.82, 93.3),
    "MHANet": (4.17, 3.37, 3.53, 2.88, 93.6),
}
"""CSIG, CBAK, COVL, PESQ and STOI on VoiceBank+DEMAND, as Nicolson and Paliwal (2020) give them."""
FRAME = 16  # milliseconds

ENGLISH: Words = {
    "section": "{run[count]} stretches of 2.5 to 8 s of the held-out voice, each with one section of a held-out noise, "
    "at {ratios} dB; `make bench-speech` on {run[measured]:.10}, all sides on one set of mixtures in one run, mmha "
    "as a stream with its window of {run[window]} frames and {run[gain][0]}. Best in bold.{missing}",
    "missing": " Not here: {name} ({why}).",
    "mean": "mean over all",
    "against": "- mmha against {side}: {parts}.",
    "gap": "{measure} {least} to {most}, {where}",
    "behind": "behind at {ratios}",
    "ahead": "ahead at every ratio",
    "between": "; ",
    "costs": "- Milliseconds of one CPU for a second of sound, resampling included: {costs}.",
    "comma": ", ",
    "ablation": "`{command}` on {run[measured]:.10}: {run[steps]} steps of {run[batch]} rows of {run[seconds]:g} s, "
    "the same mixtures for each; the loss is that of the validation set in nats a bin, the measures are means over "
    "{run[count]} stretches of voices that training chose on, at {ratios} dB.",
    "variants": "| | weights | loss | ",
    "streaming": "`make bench-streaming` on {run[measured]:.10}, {run[machine][cpu]}, kernels for "
    "{run[machine][kernels][isa]}, one thread; memory is the most that the process has held so far, one row after the "
    "other:",
    "stream": "| network | weights | minute | ms a frame, median | 99th of 100 | × real time | memory, MB |",
    "published": "published, 4.1 million weights",
    "small": "small, the one that ships",
}
CHINESE: Words = {
    "section": "留出的说话人的 {run[count]} 段，每段 2.5 至 8 秒，各配一段留出的噪声，{ratios} dB；`make "
    "bench-speech`，{run[measured]:.10}，各方在同一次运行中处理同一组混合，mmha 以流的方式运行，窗口 {run[window]} "
    "帧，{run[gain][0]}。最好的为粗体。{missing}",
    "missing": "这里没有 {name}（{why}）。",
    "mean": "全部的平均",
    "noisy": "未处理",
    "noisy, VoiceBank+DEMAND": "未处理，VoiceBank+DEMAND",
    "against": "- mmha 对 {side}：{parts}。",
    "gap": "{measure} {least} 至 {most}，{where}",
    "behind": "在 {ratios} 落后",
    "ahead": "在每个信噪比上领先",
    "between": "；",
    "costs": "- 一秒声音用一个 CPU 的毫秒数，含重采样：{costs}。",
    "comma": "、",
    "ablation": "`{command}`，{run[measured]:.10}：{run[steps]} 步，每步 {run[batch]} 行、每行 {run[seconds]:g} 秒，"
    "各方用同样的混合；损失是验证集上每个频点的 nats，各项指标是训练用来选择的那些声音的 {run[count]} 段在 {ratios} "
    "dB 上的平均。",
    "variants": "| | 权重 | 损失 | ",
    "no mask, hears the future": "无掩码，听得到未来",
    "window {} ({} s)": "窗口 {}（{} 秒）",
    "causal, unbounded": "因果，不设界限",
    "causal TCN": "因果 TCN",
    "streaming": "`make bench-streaming`，{run[measured]:.10}，{run[machine][cpu]}，{run[machine][kernels][isa]} "
    "内核，单线程；内存是进程到此为止占用的最大值，各行依次运行：",
    "stream": "| 网络 | 权重 | 分钟 | 每帧毫秒，中位数 | 100 次中的第 99 | × 实时 | 内存，MB |",
    "published": "published，410 万权重",
    "small": "small，附带的那个",
}


def section(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """What was measured, the tables, and where mmha is ahead of whom."""
    ratios = sorted({row["ratio"] for row in run["rows"]})
    missing = "".join(words["missing"].format(name=name, why=why) for name, why in run["missing"].items())
    return "\n".join(
        [
            words["section"].format(run=run, ratios=words["comma"].join(map(str, ratios)), missing=missing),
            "",
            tables(run, words),
            "",
            *verdict(run, words),
        ]
    )


def tables(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """A measure by ratio in each table, the means over all ratios in the last."""
    rows = run["rows"]
    sides = list(dict.fromkeys(row["side"] for row in rows))
    ratios = sorted({row["ratio"] for row in rows})
    names = [title(side, words) for side in sides]
    lines = []
    for measure in BY_RATIO:
        columns = [[mean(rows, measure, side, ratio) for side in sides] for ratio in ratios]
        head = [f"{ratio} dB" for ratio in ratios]
        lines += [*table(measure, head, names, columns, [DIGITS.get(measure, 2)] * len(head)), ""]
    columns = [[mean(rows, measure, side) for side in sides] for measure in OVERALL]
    lines += table(words["mean"], list(OVERALL), names, columns, [DIGITS.get(measure, 2) for measure in OVERALL])
    if run["part"] == "test":
        empty = ["", "–"]
        for name, figures in PUBLISHED.items():
            cells = [f"{value:.{DIGITS.get(measure, 2)}f}" for measure, value in zip(OVERALL, figures, strict=False)]
            lines.append(f"| *{title(f'{name}, VoiceBank+DEMAND', words)}* | {' | '.join([*cells, *empty[1:]])} |")
    return "\n".join(lines)


def table(title: str, head: list[str], sides: list[str], columns: list[list[float]], digits: list[int]) -> list[str]:
    """Lines of Markdown; the best of each column is bold, as it is printed."""
    lines = [f"| {title} | {' | '.join(head)} |", "|---|" + "---:|" * len(head)]
    best = [round(max(column), places) for column, places in zip(columns, digits, strict=True)]
    for number, side in enumerate(sides):
        cells = []
        for column, places, top in zip(columns, digits, best, strict=True):
            text = f"{column[number]:.{places}f}"
            cells.append(f"**{text}**" if round(column[number], places) == top else text)
        lines.append(f"| {side} | {' | '.join(cells)} |")
    return lines


def verdict(run: Mapping[str, Any], words: Words = ENGLISH) -> list[str]:
    """At which ratios mmha is ahead of each other side in PESQ and in STOI, and at which behind."""
    rows = run["rows"]
    ratios = sorted({row["ratio"] for row in rows})
    others = [side for side in dict.fromkeys(row["side"] for row in rows) if side != "mmha"]
    lines = []
    for side in others:
        parts = []
        for measure in ("PESQ-WB", "STOI"):
            gaps = {r: mean(rows, measure, "mmha", r) - mean(rows, measure, side, r) for r in ratios}
            behind = [f"{r} dB" for r, gap in gaps.items() if gap <= 0]
            places = DIGITS.get(measure, 2)
            least, most = (f"{bound(gaps.values()):+.{places}f}" for bound in (min, max))
            where = words["behind"].format(ratios=words["comma"].join(behind)) if behind else words["ahead"]
            parts.append(words["gap"].format(measure=measure, least=least, most=most, where=where))
        lines.append(words["against"].format(side=title(side, words), parts=words["between"].join(parts)))
    timed = [side for side in (*others, "mmha") if side != "noisy"]
    costs = [f"{side} {1000 * mean(rows, 'seconds', side):.1f}" for side in timed]
    lines.append(words["costs"].format(costs=words["comma"].join(costs)))
    return lines


def ablation(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """What the mask does, from what speech_ablation.py wrote."""
    command = f"python benchmarks/speech_ablation.py --steps {run['steps']} --count {run['count']}"
    return "\n".join(
        [
            words["ablation"].format(run=run, command=command, ratios=RATIOS),
            "",
            ablation_table(run["rows"], words),
        ]
    )


def ablation_table(rows: list[Mapping[str, Any]], words: Words = ENGLISH) -> str:
    """Lines of Markdown, a variant each."""
    lines = [f"{words['variants']}{' | '.join(COMPARED)} |", "|---|" + "---:|" * (2 + len(COMPARED))]
    for row in rows:
        cells = [f"{row['weights']:,}", f"{row['loss']:.4f}", *(f"{row[name]:.2f}" for name in COMPARED)]
        lines.append(f"| {title(row['name'], words)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def streaming(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """What a frame of a stream costs, from what streaming.py wrote."""
    lines = [words["streaming"].format(run=run), "", words["stream"], "|---|---|" + "---:|" * 5]
    for row in run["rows"]:
        cells = [
            row["weights"],
            f"{row['minute']}",
            f"{row['ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{FRAME / row['ms']:.0f}",
        ]
        lines.append(f"| {words[row['size']]} | {' | '.join([*cells, format(row['memory_mb'], '.0f')])} |")
    return "\n".join(lines)


def mean(rows: list[Mapping[str, Any]], measure: str, side: str, ratio: int | None = None) -> float:
    """Over the mixtures of a side, of one ratio or of all."""
    values = [row[measure] for row in rows if row["side"] == side and ratio in (None, row["ratio"])]
    return float(sum(values) / len(values))
