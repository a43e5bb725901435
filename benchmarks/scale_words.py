"""The cells of the tables of docs/scale.md in Chinese, for scale_model.py."""

from __future__ import annotations

from words import Words

CHINESE: Words = {
    "assumed or measured": "假设的或测得的",
    "value": "值",
    "tokens a second of one core, float32, sequences of {} (measured)": "一个核每秒的词元数，float32，序列长 "
    "{}（测得）",
    "the same with `--precision bf16-mixed` (measured)": "同上，使用 `--precision bf16-mixed`（测得）",
    "cores, and what they do together of as many times one core": "核数，以及它们合起来达到单核相应倍数的比例",
    "tokens a second of a machine, of these": "由此，一台机器每秒的词元数",
    "bytes a second between cores and memory": "核与内存之间每秒的字节数",
    "what TCP gives of the line, and a message's latency": "TCP 从线路得到的比例，以及一条消息的延迟",
    "part": "部分",
    "parameters": "参数",
    "outside the layers": "层外",
    "a layer": "一层",
    "all": "全部",
    "batch": "批",
    "machines": "机器",
    "tokens each": "每台词元数",
    "parts": "份数",
    "activations": "激活",
    "computed again": "重新计算",
    "compute": "计算",
    "optimizer": "优化器",
    "network": "网络",
    "step, DDP": "一步，DDP",
    "busy": "忙",
    "days": "天",
    "step, FSDP": "一步，FSDP",
}
