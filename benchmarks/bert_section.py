"""The tables of docs/bert.md, from what bert.py, bert_twin.py and tagging_transfer.py wrote: for fill_readme.py."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from end_to_end_section import line
from words import Words

PADDED, SORTED = "transformers", "transformers, sorted"
SIDES = (PADDED, "torch", "mmha")
EMBEDDING = (PADDED, SORTED, "mmha")

ENGLISH: Words = {
    "section": "Seconds, medians; `make bench-bert` on {run[measured]:.10}, {run[machine][cpu]}, {run[threads]} "
    "threads, torch {run[machine][torch][version]}, all sides in turns within one run.",
    "models": "| BERT-base | transformers, sdpa | torch.nn | **mmha** | × transformers | × torch.nn |",
    "vectors": "| MiniLM | transformers, as they come | sorted by length | **mmha** | × as they come | × sorted |",
    "twin": "{run[steps]} steps of {run[rows]} pairs of up to {run[config][positions]} tokens, {run[config][layers]} "
    "layers of {run[config][width]}, from the same weights on the same batches; `make bench-bert-twin` on "
    "{run[measured]:.10}, {run[machine][cpu]}, {run[threads]} threads, both sides in turns. Without dropout the losses "
    "of the first 10 steps differ by {first:.0e} at most, those of all steps by {all:.0e}. *Loss* is the mean over the "
    "last 50 steps, ± the deviation between seeds; words and next sentences are those found in held-out files.",
    "twins": "| | loss | masked words | next sentences | seconds | × |",
    "dropout": "{name}, dropout {dropout:g}",
    "seeds": ", {count} seeds",
    "transfer": "Of {words:,} test words; `make bench-tagging-transfer` on {run[measured]:.10}, {run[machine][cpu]}, "
    "{threads}. *Fewer errors* is what pretraining takes off those of the network from scratch{drawn}.",
    "1 thread": "1 thread",
    "threads": "{count} threads",
    "drawn": "; ± is the deviation between draws of the share",
    "shares": "| share | words | steps | CRF | from scratch | **pretrained** | fewer errors |",
    "draws": ", {count} draws",
}
CHINESE: Words = {
    "section": "单位为秒，取中位数；`make bench-bert`，{run[measured]:.10}，{run[machine][cpu]}，{run[threads]} "
    "个线程，torch {run[machine][torch][version]}，各方在同一次运行中轮流计时。",
    "models": "| BERT-base | transformers，sdpa | torch.nn | **mmha** | × transformers | × torch.nn |",
    "vectors": "| MiniLM | transformers，原有顺序 | 按长度排序 | **mmha** | × 原有顺序 | × 排序后 |",
    "forward, {} sentences, float32": "前向，{} 个句子，float32",
    "forward, {} sentences, bfloat16": "前向，{} 个句子，bfloat16",
    "forward, {} texts of {} to {} tokens, float32": "前向，{} 个文本，每个 {} 至 {} 个词元，float32",
    "training step, {} sentences, float32": "训练一步，{} 个句子，float32",
    "training step, {} sentences, bfloat16 autocast": "训练一步，{} 个句子，bfloat16 autocast",
    "MiniLM, {} sentences to vectors, float32": "MiniLM，把 {} 个句子变成向量，float32",
    "twin": "{run[steps]} 步，每步 {run[rows]} 个句对，每对至多 {run[config][positions]} 个词元；"
    "{run[config][layers]} 层，宽 {run[config][width]}；双方从同样的权重开始，用同样的批。`make bench-bert-twin`，"
    "{run[measured]:.10}，{run[machine][cpu]}，{run[threads]} 个线程，双方轮流。没有随机失活时，前 10 "
    "步的损失至多相差 {first:.0e}，全部各步至多相差 {all:.0e}。*损失*是最后 50 步的平均，± 是各种子之间的标准差；"
    "被遮住的词和下一句是在留出的文件中判对的比例。",
    "twins": "| | 损失 | 被遮住的词 | 下一句 | 秒 | 倍数 |",
    "dropout": "{name}，随机失活 {dropout:g}",
    "seeds": "，{count} 个种子",
    "transfer": "{words:,} 个测试词；`make bench-tagging-transfer`，{run[measured]:.10}，{run[machine][cpu]}，"
    "{threads}。*错误减少*是预训练从那个从头开始的网络的错误中去掉的比例{drawn}。",
    "1 thread": "1 个线程",
    "threads": "{count} 个线程",
    "drawn": "；± 是各次抽取份额之间的标准差",
    "shares": "| 份额 | 词 | 步 | CRF | 从头开始 | **预训练** | 错误减少 |",
    "draws": "，抽取 {count} 次",
}


def section(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """Both tables, and how to read them."""
    vectors = [row for row in run["rows"] if any(side["side"] == SORTED for side in row["sides"])]
    models = [row for row in run["rows"] if row not in vectors]
    return "\n".join(
        [
            words["section"].format(run=run),
            "",
            words["models"],
            "|---|" + "---:|" * 5,
            *(line(row, SIDES, _against("mmha", SIDES), words) for row in models),
            "",
            words["vectors"],
            "|---|" + "---:|" * 5,
            *(line(row, EMBEDDING, _against("mmha", EMBEDDING), words) for row in vectors),
        ]
    )


def _against(ours: str, sides: Sequence[str]) -> list[tuple[str, str]]:
    return [(ours, side) for side in sides if side != ours]


def twin(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """How two trainings from the same weights end, and what they took."""
    exact = [one for one in run["runs"] if one["dropout"] == 0]
    apart = [abs(a - b) for one in exact for a, b in zip(*(side["losses"] for side in _both(one)), strict=True)]
    groups: dict[float, list[Mapping[str, Any]]] = {}
    for one in run["runs"]:
        groups.setdefault(one["dropout"], []).append(one)
    return "\n".join(
        [
            words["twin"].format(run=run, first=max(apart[:10]), all=max(apart)),
            "",
            words["twins"],
            "|---|---:|---:|---:|---:|---:|",
            *(row for dropout, runs in groups.items() for row in _rows(dropout, runs, words)),
        ]
    )


def transfer(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """How many test words each tagger gets right, by the share of the data that it learned from."""
    groups: dict[float, dict[str, list[Mapping[str, Any]]]] = {}
    for row in run["rows"]:
        groups.setdefault(row["share"], {}).setdefault(row["side"], []).append(row)
    rows = [_transferred(share, sides, words) for share, sides in groups.items()]
    drawn = words["drawn"] if any("±" in row for row in rows) else ""
    threads = words["1 thread" if run["threads"] == 1 else "threads"].format(count=run["threads"])
    return "\n".join(
        [
            words["transfer"].format(run=run, words=run["rows"][0]["test_words"], threads=threads, drawn=drawn),
            "",
            words["shares"],
            "|---|" + "---:|" * 6,
            *rows,
        ]
    )


def _transferred(share: float, sides: Mapping[str, Sequence[Mapping[str, Any]]], words: Words) -> str:
    """The row of a share; a dash for what was not measured."""
    first = sides["pretrained"][0]
    count = len(sides["pretrained"])
    draws = words["draws"].format(count=count) if count > 1 else ""
    wrong = {side: 1 - statistics.mean(row["test"] for row in rows) for side, rows in sides.items()}
    cells = [f"{first['words']:,}", f"{first['steps']:,}"]
    columns = ("CRF", "from scratch", "pretrained")
    cells += [_spread(sides[side], "test", ".2%") if side in sides else "–" for side in columns]
    return f"| {share:.0%}{draws} | {' | '.join(cells)} | {1 - wrong['pretrained'] / wrong['from scratch']:.0%} |"


def _both(one: Mapping[str, Any]) -> tuple[Any, Any]:
    return one["sides"]["mmha"], one["sides"]["transformers"]


def _rows(dropout: float, runs: Sequence[Mapping[str, Any]], words: Words) -> list[str]:
    """A row for each of the two, means over the seeds."""
    seeds = words["seeds"].format(count=len(runs)) if len(runs) > 1 else ""
    sides = [list(pair) for pair in zip(*map(_both, runs), strict=True)]
    times = [statistics.mean(side["seconds"] for side in one) for one in sides]
    made = []
    for name, one, time in zip(("**mmha**", "transformers"), sides, times, strict=True):
        cells = [_spread(one, "loss", ".3f"), _spread(one, "words", ".1%"), _spread(one, "next", ".1%")]
        cells += [f"{time:.1f}", f"{times[1] / time:.2f}"]
        made.append(f"| {words['dropout'].format(name=name, dropout=dropout)}{seeds} | {' | '.join(cells)} |")
    return made


def _spread(sides: Sequence[Mapping[str, Any]], key: str, form: str) -> str:
    """A mean, and the deviation where there are several."""
    values = [side[key] for side in sides]
    mean = format(statistics.mean(values), form)
    return mean if len(values) < 2 else f"{mean} ± {format(statistics.stdev(values), form)}"
