"""The one table of README.md and of README.zh-CN.md, from what `make bench` and `make bench-decode` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# A selection of the tables in docs/speed.md, not of the results: a row stays when it turns out badly.
ATTENTION = (
    "masks forward dense 4096 f32 1x8 d64",
    "masks forward causal 4096 f32 1x8 d64",
    "masks forward causal 4096 bf16 1x8 d64",
    "masks forward window 4096 f32 1x8 d64",
    "masks forward documents 4096 f32 1x8 d64",
    "masks backward causal 4096 f32 1x8 d64",
    "masks backward window 4096 f32 1x8 d64",
    "features training dropout 2048 f32 1x8 d64",
    "irregular forward random 4096 f32 1x8 d64",
    "call forward dense 16 f32 1x8 d64",
)
DECODED = (1, 32, 8, 128, 16384)
DECODE = ("float32", "bfloat16")


class Words(NamedTuple):
    """The section in one language: the sentence, the table's head, and the titles of ATTENTION's and DECODE's rows."""

    sentence: str
    head: str
    attention: tuple[str, ...]
    decode: tuple[str, ...]


ENGLISH = Words(
    "Milliseconds beside `scaled_dot_product_attention` of torch {torch} on {cpu}, {threads} threads, {isa} kernels; "
    "both in turns within one run, medians. 8 heads of 64, for new tokens 32 heads of 128 on 8 of the cache. "
    "`make bench` ({bench}) and `make bench-decode` ({decode}) print all rows; [Speed](docs/speed.md) has more of "
    "them, other peers, whole models, and where we are behind.",
    "| work | torch | mmha | times as fast |",
    (
        "forward, no mask, 4096 tokens",
        "forward, causal, 4096 tokens",
        "the same in bfloat16",
        "forward, window of 256, 4096 tokens",
        "forward, 8 packed documents, 4096 tokens",
        "backward, causal, 4096 tokens",
        "backward, window of 256, 4096 tokens",
        "forward and backward, dropout 0.1, 2048 tokens",
        "forward, a random tenth of the pairs, 4096 tokens",
        "a call on 16 tokens, one thread",
    ),
    ("one new token, 16,384 cached in float32", "one new token, 16,384 cached in bfloat16"),
)
CHINESE = Words(
    "单位毫秒，与 torch {torch} 的 `scaled_dot_product_attention` 并列；{cpu}，{threads} 个线程，{isa} 内核；"
    "双方在同一次运行中轮流计时，取中位数。8 个头，每头 64 维；新词元一栏是 32 个头、每头 128 维，共用缓存的 8 个头。"
    "`make bench`（{bench}）和 `make bench-decode`（{decode}）打印全部各行；"
    "[速度](docs/zh/speed.md)一页有更多的行、其他同类、完整模型，以及我们落后的地方。",
    "| 工作 | torch | mmha | 倍数 |",
    (
        "前向，无掩码，4096 个词元",
        "前向，因果，4096 个词元",
        "同上，bfloat16",
        "前向，宽 256 的窗口，4096 个词元",
        "前向，打包的 8 个文档，4096 个词元",
        "反向，因果，4096 个词元",
        "反向，宽 256 的窗口，4096 个词元",
        "前向与反向，随机失活 0.1，2048 个词元",
        "前向，随机十分之一的词元对，4096 个词元",
        "对 16 个词元的一次调用，单线程",
    ),
    ("一个新词元，float32 缓存 16,384 个", "一个新词元，bfloat16 缓存 16,384 个"),
)


def section(bench: Mapping[str, Any], peers: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """Where and when, and one row for each kind of work."""
    rows = {row["name"]: row for row in bench["rows"]}
    machine = bench["machine"]
    where = {"torch": machine["torch"]["version"], "cpu": machine["cpu"], "isa": machine["kernels"]["isa"]}
    when = {"bench": bench["measured"][:10], "decode": peers["measured"][:10]}
    times = [(rows[name]["torch_ms"], rows[name]["mmha_ms"]) for name in ATTENTION]
    times += [_decoded(peers, dtype) for dtype in DECODE]
    return "\n".join(
        [
            words.sentence.format(threads=bench["limits"]["threads"], **where, **when),
            "",
            words.head,
            "|---|---:|---:|---:|",
            *(_line(title, *ms) for title, ms in zip(words.attention + words.decode, times, strict=True)),
        ]
    )


def _decoded(peers: Mapping[str, Any], dtype: str) -> tuple[float, float]:
    names = ("batch", "heads", "kv_heads", "dim", "k_len")
    shape = next(shape for shape in peers["shapes"] if tuple(shape[name] for name in names) == DECODED)
    times = {side["side"]: side["ms"] for side in shape["sides"]}
    return times[f"torch {dtype}"], times[f"mmha {dtype}"]


def _line(title: str, *ms: float) -> str:
    times = " | ".join(f"{one:.0f}" if one >= 100 else f"{one:.3g}" for one in ms)
    return f"| {title} | {times} | {ms[0] / ms[1]:.2g} |"
