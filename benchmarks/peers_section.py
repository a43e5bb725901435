"""The tables of docs/peers.md, from what attention_peers.py, decode_peers.py and translation.py wrote."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import attention_section
import decode_section
import translation_section
from attention_section import KINDS, ms_text
from words import Words, title

OURS = "mmha"
PEERS = ("torch SDPA", "FlexAttention", "ONNX Runtime", "JAX", "OpenVINO")
FORMATS = {"f16": "float16", "q8_0": "int8"}  # of llama.cpp, and the nearest of ours
NEAR = 1.1  # a peer that takes at most so many times as long as mmha is about as fast

ENGLISH: Words = {
    "section": "Milliseconds; `make bench-peers` on {run[measured]:.10}, {run[machine][cpu]}, {run[threads]} threads, "
    "{run[machine][kernels][isa]} kernels, all sides in turns within one run; medians. One batch of 8 heads of 64, or, "
    "where two numbers of heads stand, of 128. The fastest of a row is bold; the last column is the fastest peer's "
    "time over mmha's.",
    "busy": " **The machine was busy (load {run[load]} on {run[machine][cpus]} CPUs): times are far above those of "
    "a quiet one, ratios uncertain, and those of short rows noise.**",
    "columns": "| work | dtype | H | T | {sides} | × |",
    "facts": "| side | version | rows | its time over mmha's: least | median | most | CPU time over wall time | "
    "float32 from float64, at most |",
    "forward": "forward, {kind}",
    "training": "forward and backward, {kind}",
    "faster": "**Faster than mmha:** {rows}.",
    "none": "**No peer was faster than mmha in any row.**",
    "near": "About as fast: {rows}.",
    "row": "{peer} at {work}, {dtype}, {length} ({ratio:.2f} of mmha's time)",
    "missing": "Not in a row, and why:",
    "absent": "- {name} ({reason})",
    "unable": "- {name}, {direction}, {dtype} ({reason})",
    "all of forward": "forward",
    "all of training": "forward and backward",
    "cache": "{peer} at {shape} ({ratio:.2f} of mmha's time)",
    "formats": "Each stands beside mmha in its own format, llama.cpp's f16 beside float16 and its q8_0 beside int8.",
    "translators": "Sentences a second; `make bench-translation` on {run[measured]:.10}.",
    "ahead": "**Ahead of mmha:** {rows}.",
    "translator": "{peer} in {rows} of {all} rows, {least:.2f} to {most:.2f} times as fast",
    "and": "; ",
}
CHINESE: Words = {
    "section": "单位毫秒；`make bench-peers`，{run[measured]:.10}，{run[machine][cpu]}，{run[threads]} 个线程，"
    "{run[machine][kernels][isa]} 内核，各方在同一次运行中轮流计时，取中位数。一批，8 个头，每头 64 维；"
    "写着两个头数的，每头 128 维。每行最快者用粗体；最后一列是最快的同类系统所用时间与 mmha 之比。",
    "busy": "**机器当时很忙（负载 {run[load]}，{run[machine][cpus]} 个 CPU）：时间远大于空闲时，"
    "比值不可靠，短的行只是噪声。**",
    "columns": "| 工作 | dtype | H | T | {sides} | × |",
    "facts": "| 系统 | 版本 | 行数 | 与 mmha 的时间之比：最小 | 中位 | 最大 | CPU 时间与实际时间之比 | "
    "float32 与 float64 的偏差，至多 |",
    "forward": "前向，{kind}",
    "training": "前向加反向，{kind}",
    "faster": "**比 mmha 快的：**{rows}。",
    "none": "**没有一行里有比 mmha 快的系统。**",
    "near": "大致一样快的：{rows}。",
    "row": "{peer}，{work}，{dtype}，{length}（mmha 时间的 {ratio:.2f}）",
    "missing": "不在某些行里的，以及原因：",
    "absent": "- {name}（{reason}）",
    "unable": "- {name}，{direction}，{dtype}（{reason}）",
    "all of forward": "前向",
    "all of training": "前向加反向",
    "cache": "{peer}，{shape}（mmha 时间的 {ratio:.2f}）",
    "formats": "每个系统与 mmha 的同一格式相比，llama.cpp 的 f16 对 float16，q8_0 对 int8。",
    "translators": "每秒句数；`make bench-translation`，{run[measured]:.10}。",
    "ahead": "**领先于 mmha 的：**{rows}。",
    "translator": "{peer}，{all} 行中的 {rows} 行，快到 {least:.2f} 至 {most:.2f} 倍",
    "and": "；",
}


def section(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """Where it was measured, all rows, who was ahead, and what each side is and cannot do."""
    rows = run["rows"]
    busy = words["busy"].format(run=run) if run["load"] > run["machine"]["cpus"] else ""
    columns = [side for side in (*PEERS, OURS) if any(side in times(row) for row in rows)]
    return "\n".join(
        [
            words["section"].format(run=run) + busy,
            "",
            words["columns"].format(sides=" | ".join(columns)),
            "|---|---|---:|---:|" + "---:|" * (len(columns) + 1),
            *(line(row, columns, words) for row in rows),
            "",
            ahead(rows, words),
            "",
            words["facts"],
            "|---|---|---:|---:|---:|---:|---:|---:|",
            *(facts(run, side) for side in columns),
            *lacking(run, words),
        ]
    )


def times(row: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds of each side that was there."""
    return {side["side"]: side["ms"] for side in row["sides"]}


def work(row: Mapping[str, Any], words: Words) -> str:
    """What the row does."""
    in_language = attention_section.CHINESE if words is CHINESE else attention_section.ENGLISH
    return words[row["direction"]].format(kind=title(KINDS[row["kind"]], in_language))


def heads(row: Mapping[str, Any]) -> str:
    """The heads, and those of keys and values where they are fewer."""
    size = row["sizes"]
    return str(size["heads"]) + (f"/{size['kv_heads']}" if size["kv_heads"] != size["heads"] else "")


def line(row: Mapping[str, Any], columns: Sequence[str], words: Words) -> str:
    """One row; a dash where a side was not there."""
    ms = times(row)
    best = min(ms.values())
    cells = ["–" if name not in ms else marked(ms[name], best) for name in columns]
    rivals = [taken for name, taken in ms.items() if name != OURS]
    ratio = f"{min(rivals) / ms[OURS]:.2f}" if rivals else "–"
    start = f"{work(row, words)} | {row['dtype']} | {heads(row)} | {row['sizes']['k_len']}"
    return f"| {start} | {' | '.join(cells)} | {ratio} |"


def marked(ms: float, best: float) -> str:
    """Bold where nothing is faster."""
    return f"**{ms_text(ms)}**" if ms == best else ms_text(ms)


def ahead(rows: Sequence[Mapping[str, Any]], words: Words) -> str:
    """The rows where a peer is faster than mmha, and those where one is about as fast."""

    def said(least: float, most: float) -> str:
        return words["and"].join(
            words["row"].format(peer=peer, work=work(row, words), dtype=row["dtype"], ratio=ms / times(row)[OURS],
                                length=row["sizes"]["k_len"])
            for row in rows
            for peer, ms in times(row).items()
            if peer != OURS and least <= ms / times(row)[OURS] < most
        )  # fmt: skip

    faster, near = said(0, 1), said(1, NEAR)
    first = words["faster"].format(rows=faster) if faster else words["none"]
    return f"{first} {words['near'].format(rows=near)}" if near else first


def facts(run: Mapping[str, Any], name: str) -> str:
    """One side: its version, how it stands to mmha over its rows, its threads and its accuracy."""
    found = [(row, side) for row in run["rows"] for side in row["sides"] if side["side"] == name]
    ratios = [side["ms"] / times(row)[OURS] for row, side in found]
    error = max((side["error"] for row, side in found if row["dtype"] == "float32"), default=float("nan"))
    version = run["machine"]["mmha"] if name == OURS else run["versions"][name]
    spread = ["", "", ""] if name == OURS else [f"{f(ratios):.2f}" for f in (min, statistics.median, max)]
    cpus = statistics.median(side["cpus"] for _, side in found)
    return f"| {name} | {version} | {len(found)} | {' | '.join(spread)} | {cpus:.2f} | {error:.1e} |"


def lacking(run: Mapping[str, Any], words: Words) -> list[str]:
    """Who was not there at all, and who in some rows, each with its reason as it gave it."""
    said = [words["absent"].format(name=name, reason=reason) for name, reason in run["without"].items()]
    first: dict[tuple[str, str, str], str] = {}
    for row in run["rows"]:
        for name, reason in row["without"].items():
            first.setdefault((name, row["direction"], row["dtype"]), reason.rstrip("."))
    for (name, direction, dtype), reason in first.items():
        in_words = words[f"all of {direction}"]
        said.append(words["unable"].format(name=name, direction=in_words, dtype=dtype, reason=reason))
    return ["", words["missing"], "", *said] if said else []


def decoding(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """One token against a cache: the table of docs/speed.md, and where a peer was ahead."""
    said = []
    for shape in run["shapes"]:
        name = f"{shape['batch']} × {shape['heads']}/{shape['kv_heads']}, {shape['dim']}, {shape['k_len']}"
        ms = times(shape)
        for side, taken in ms.items():
            kind = side.split()[-1]
            ratio = taken / ms[f"{OURS} {FORMATS.get(kind, kind)}"]
            if ratio < 1:
                said.append(words["cache"].format(peer=side, shape=name, ratio=ratio))
    in_language = decode_section.CHINESE if words is CHINESE else decode_section.ENGLISH
    first = words["faster"].format(rows=words["and"].join(said)) if said else words["none"]
    gone = [words["absent"].format(name=name, reason=reason) for name, reason in run["without"].items()]
    gone = ["", words["missing"], "", *gone] if gone else []
    return "\n".join([*decode_section.attention(run, in_language), "", f"{first} {words['formats']}", *gone])


def translating(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """Translators with beam search: the table of docs/translation.md, and where one was ahead."""
    in_language = translation_section.CHINESE if words is CHINESE else translation_section.ENGLISH
    rows, said = [row for row in run["rows"] if row["unit"] == "sentences"], []
    rates = [{side["side"]: side["per_second"] for side in row["sides"]} for row in rows]
    for peer in dict.fromkeys(name for row in rates for name in row):
        won = [row[peer] / row[OURS] for row in rates if row.get(peer, 0) > row[OURS]]
        if won:
            said.append(
                words["translator"].format(peer=peer, rows=len(won), all=len(rows), least=min(won), most=max(won))
            )
    table = translation_section.table("sentences", rows, translation_section.DECODING, in_language)
    first = words["ahead"].format(rows=words["and"].join(said)) if said else words["none"]
    without = translation_section.without(rows, in_language)
    return "\n".join([words["translators"].format(run=run), "", *table, "", first, *without])
