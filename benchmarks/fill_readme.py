"""Put the figures of the `make bench` family into the READMEs and the docs: python benchmarks/fill_readme.py

Everything between the two comments of a name in `PAGES` is replaced by what the files in results/ say, so that no
figure is ever typed. What has no results yet stays as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bert_section
import decode_section
import end_to_end_section
import headline_section
import speech_section
import translation_section

HERE = Path(__file__).parent
PAGES = {
    "headline": "README.md",
    "headline_zh": "README.zh-CN.md",
    "bench": "docs/speed.md",
    "decode": "docs/speed.md",
    "end_to_end": "docs/speed.md",
    "bert": "docs/bert.md",
    "bert_twin": "docs/bert.md",
    "speech": "docs/speech.md",
    "speech_ablation": "docs/speech.md",
    "tagging_transfer": "docs/bert.md",
    "translation": "docs/translation.md",
}
"""The page of each section; a twin in docs/zh/ has the same, in English."""
KINDS = {
    "dense": "no mask",
    "causal": "causal",
    "window": "window 256",
    "documents": "8 documents",
    "dropout": "dropout 0.1",
    "alibi": "causal + ALiBi",
    "relative": "learned table of distances",
    "softcap": "causal, softcap",
    "random": "random 10 %",
    "bigbird": "BigBird",
    "longformer": "Longformer",
    "tree": "tree of 64 guesses",
    "packed": "half-empty batch, packed",
}
# A selection of the table, not of the results: it stays when a row turns out badly.
SHOWN = (
    "masks forward dense 4096 f32 1x8 d64",
    "masks forward causal 512 f32 1x8 d64",
    "masks forward causal 4096 f32 1x8 d64",
    "masks forward window 4096 f32 1x8 d64",
    "masks forward documents 4096 f32 1x8 d64",
    "masks forward causal 4096 bf16 1x8 d64",
    "masks forward window 4096 bf16 1x8 d64",
    "masks backward causal 4096 f32 1x8 d64",
    "masks backward window 4096 f32 1x8 d64",
    "masks backward causal 4096 bf16 1x8 d64",
    "features forward alibi 2048 f32 1x8 d64",
    "features forward dropout 2048 f32 1x8 d64",
    "features training dropout 2048 f32 1x8 d64",
    "features training relative 2048 f32 1x8 d64",
    "irregular forward random 4096 f32 1x8 d64",
    "irregular forward bigbird 4096 f32 1x8 d64",
    "irregular backward longformer 4096 f32 1x8 d64",
    "irregular forward tree 64x4096 f32 1x8 d64",
    "shapes forward causal 32 f32 64x8 d64",
    "shapes forward causal 1x8192 f32 1x8/2 d64",
    "shapes backward packed 512 f32 16x8 d64",
    "call forward dense 16 f32 1x8 d64",
)


def section(run: Mapping[str, Any]) -> str:
    """The sentence that says where, the table, and how to read it."""
    machine, limits = run["machine"], run["limits"]
    rows = {row["name"]: row for row in run["rows"]}
    lines = [
        f"Attention, heads of 64; `make bench` on {run['measured'][:10]}, {machine['cpu']}, "
        f"{limits['threads']} threads (the last row: 1), {machine['kernels']['isa']} kernels, "
        f"torch {machine['torch']['version']}. Both sides run in turns within one run; medians. GFLOP/s counts visible "
        f"pairs; *limit* is its share of the {limits['fma_gflops']:.0f} GFLOP/s of float32 multiply-adds that the "
        f"machine reached in the best probe of the run. {len(SHOWN)} of the {len(rows)} rows of that run:",
        "",
        "| work | dtype | B × H | L | torch ms | mmha ms | × torch | GFLOP/s | limit |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        *(line(rows[name]) for name in SHOWN),
    ]
    return "\n".join(lines)


def line(row: Mapping[str, Any]) -> str:
    """One row of the table."""
    size = row["sizes"]
    heads = f"{size['batch']} × {size['heads']}" + (f"/{size['kv_heads']}" if size["kv_heads"] != size["heads"] else "")
    length = f"{size['q_len']} × {size['k_len']}" if size["q_len"] != size["k_len"] else str(size["k_len"])
    return (
        f"| {row['direction']}, {KINDS[row['kind']]} | {row['dtype']} | {heads} | {length} "
        f"| {ms_text(row['torch_ms'])} | {ms_text(row['mmha_ms'])} "
        f"| {row['ratio']:.2f} | {row['gflops']:.0f} | {row['share_of_limit']:.0%} |"
    )


def ms_text(ms: float) -> str:
    """Three significant digits, and all of those before the point: 0.0264, 16.2, 1471."""
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"


def sections(results: Path) -> dict[str, str]:
    """What belongs between the comments of each name, from the runs that are there."""
    runs = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in results.glob("*.json")}
    made = {"bench": section(runs["bench"])} if "bench" in runs else {}
    if {"bench", "decode_peers"} <= set(runs):
        for name, words in (("headline", headline_section.ENGLISH), ("headline_zh", headline_section.CHINESE)):
            made[name] = headline_section.section(runs["bench"], runs["decode_peers"], words)
    if {"decode_peers", "generation"} <= set(runs):
        made["decode"] = decode_section.section(runs["decode_peers"], runs["generation"])
    if "end_to_end" in runs:
        made["end_to_end"] = end_to_end_section.section(runs["end_to_end"])
    if "bert" in runs:
        made["bert"] = bert_section.section(runs["bert"])
    if "bert_twin" in runs:
        made["bert_twin"] = bert_section.twin(runs["bert_twin"])
    if "tagging_transfer" in runs:
        made["tagging_transfer"] = bert_section.transfer(runs["tagging_transfer"])
    if "translation" in runs:
        made["translation"] = translation_section.section(runs["translation"])
    if "speech" in runs:
        made["speech"] = speech_section.section(runs["speech"])
    if "speech_ablation" in runs:
        made["speech_ablation"] = speech_section.ablation(runs["speech_ablation"])
    return made


def main(results: Path) -> None:
    """Replace the sections of the pages."""
    for name, made in sections(results).items():
        page = HERE.parent / PAGES[name]
        fill(page, name, made)
        twin = HERE.parent / PAGES[name].replace("docs/", "docs/zh/")
        if twin != page and twin.exists():
            fill(twin, name, made)


def fill(page: Path, name: str, made: str) -> None:
    """Replace one section of one page."""
    text = page.read_text(encoding="utf-8")
    parts = re.fullmatch(rf"(.*<!-- {name} -->\n).*(\n<!-- /{name} -->.*)", text, re.DOTALL)
    if parts is None:
        raise SystemExit(f"{page}: expected the comments <!-- {name} --> and <!-- /{name} -->, got none")
    page.write_text(parts[1] + made + parts[2], encoding="utf-8")


if __name__ == "__main__":
    main(HERE / "results")
