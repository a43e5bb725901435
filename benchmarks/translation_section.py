"""The tables of docs/translation.md, from what translation.py wrote: for fill_readme.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from words import Words, title

OURS = "mmha"
TRAINING = ("torch.nn", OURS)
DECODING = ("torch", "CTranslate2 float32", "CTranslate2 int8", OURS)
TITLES = {"torch": "torch, growing cache", "torch.nn": "torch.nn.Transformer", OURS: "**mmha**"}

ENGLISH: Words = {
    "section": "`make bench-translation` on {run[measured]:.10}, {run[machine][cpu]}, torch "
    "{run[machine][torch][version]}, all sides in turns within one run; medians. Losses, gradients and translations "
    "were compared first.",
    "tokens": "target tokens a second",
    "sentences": "sentences a second, 4 beams",
    "1 thread": "{title}, 1 thread",
    "threads": "{title}, {count} threads",
    "without": "Without {name}: {reason}.",
}
CHINESE: Words = {
    "section": "`make bench-translation`，{run[measured]:.10}，{run[machine][cpu]}，torch "
    "{run[machine][torch][version]}，各方在同一次运行中轮流计时，取中位数。损失、梯度和译文先作比较。",
    "tokens": "每秒目标词元数",
    "sentences": "每秒句数，4 束",
    "1 thread": "{title}，1 个线程",
    "threads": "{title}，{count} 个线程",
    "without": "没有 {name}：{reason}。",
    "torch, growing cache": "torch，增长的缓存",
    "training, small": "训练，small",
    "training, base": "训练，base",
    "training, small, lengths as they come": "训练，small，长度任意",
    "decoding, small, one sentence at a time": "解码，small，每次一句",
    "decoding, small, {} sentences at a time": "解码，small，每次 {} 句",
    "decoding, base, {} sentences at a time": "解码，base，每次 {} 句",
    "decoding, the German one, {} help sentences at a time": "解码，德文模型，每次 {} 句手册",
}


def section(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """Both tables, and how to read them."""
    trained = [row for row in run["rows"] if row["unit"] == "tokens"]
    written = [row for row in run["rows"] if row["unit"] == "sentences"]
    return "\n".join(
        [
            words["section"].format(run=run),
            "",
            *table("tokens", trained, TRAINING, words),
            "",
            *table("sentences", written, DECODING, words),
            *without(run["rows"], words),
        ]
    )


def table(unit: str, rows: Sequence[Mapping[str, Any]], sides: Sequence[str], words: Words) -> list[str]:
    """What each side does in a second, and ours over each of theirs."""
    heads = [title(TITLES.get(side, side), words) for side in sides]
    heads += [f"× {head}" for head in heads[:-1]]
    lines = [f"| {words[unit]} | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    return [*lines, *(line(row, sides, words) for row in rows)]


def line(row: Mapping[str, Any], sides: Sequence[str], words: Words) -> str:
    """One row; a dash where a side was not there."""
    found = {side["side"]: side["per_second"] for side in row["sides"]}
    rates = [found.get(side) for side in sides]
    cells = ["–" if rate is None else f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}" for rate in rates]
    cells += ["–" if rate is None else f"{found[OURS] / rate:.2f}" for rate in rates[:-1]]
    form = words["1 thread" if row["threads"] == 1 else "threads"]
    return f"| {form.format(title=title(row['title'], words), count=row['threads'])} | {' | '.join(cells)} |"


def without(rows: Sequence[Mapping[str, Any]], words: Words) -> list[str]:
    """Which sides are missing, and why."""
    reasons = {name: reason for row in rows for name, reason in row["without"].items()}
    said = [words["without"].format(name=name, reason=reason) for name, reason in reasons.items()]
    return ["", *said] if said else []
