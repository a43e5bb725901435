"""Put the figures of the `make bench` family into the READMEs and the docs: python benchmarks/fill_readme.py

Everything between the two comments of a name in `PAGES` is replaced by what the files in results/ say, so that no
figure is ever typed, and in the page's twin by the same in Chinese. What has no results yet stays as it is.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import attention_section
import bert_section
import decode_section
import end_to_end_section
import fmri_section
import fuzz_section
import growth_section
import headline_section
import long_section
import peers_section
import speech_section
import translation_section
import wheels_section

HERE = Path(__file__).parent
PAGES = {
    "headline": "README.md",
    "bench": "docs/speed.md",
    "decode": "docs/speed.md",
    "end_to_end": "docs/speed.md",
    "peers": "docs/peers.md",
    "peers_decoding": "docs/peers.md",
    "peers_translating": "docs/peers.md",
    "growth": "docs/speed.md",
    "long_runs": "docs/correctness.md",
    "bert": "docs/bert.md",
    "bert_twin": "docs/bert.md",
    "fmri": "docs/fmri.md",
    "fmri_simulation": "docs/fmri.md",
    "fmri_stage_1": "docs/fmri.md",
    "fuzz": "docs/correctness.md",
    "fuzz_readers": "docs/correctness.md",
    "speech": "docs/speech.md",
    "speech_ablation": "docs/speech.md",
    "streaming": "docs/speech.md",
    "tagging_transfer": "docs/bert.md",
    "translation": "docs/translation.md",
    "wheels": "docs/correctness.md",
}
WRITERS: dict[str, tuple[ModuleType, str, tuple[str, ...]]] = {
    "headline": (headline_section, "section", ("bench", "decode_peers")),
    "bench": (attention_section, "section", ("bench",)),
    "decode": (decode_section, "section", ("decode_peers", "generation")),
    "end_to_end": (end_to_end_section, "section", ("end_to_end",)),
    "peers": (peers_section, "section", ("peers",)),
    "peers_decoding": (peers_section, "decoding", ("decode_peers",)),
    "peers_translating": (peers_section, "translating", ("translation",)),
    "growth": (growth_section, "section", ("growth",)),
    "long_runs": (long_section, "section", ("long_runs",)),
    "bert": (bert_section, "section", ("bert",)),
    "bert_twin": (bert_section, "twin", ("bert_twin",)),
    "fmri": (fmri_section, "haxby", ("fmri",)),
    "fmri_simulation": (fmri_section, "simulation", ("fmri",)),
    "fmri_stage_1": (fmri_section, "stage_1", ("fmri_stage_1",)),
    "fuzz": (fuzz_section, "section", ("fuzz",)),
    "fuzz_readers": (fuzz_section, "readers", ("fuzz_readers",)),
    "speech": (speech_section, "section", ("speech",)),
    "speech_ablation": (speech_section, "ablation", ("speech_ablation",)),
    "streaming": (speech_section, "streaming", ("streaming",)),
    "tagging_transfer": (bert_section, "transfer", ("tagging_transfer",)),
    "translation": (translation_section, "section", ("translation",)),
    "wheels": (wheels_section, "section", ("wheels",)),
}
"""The module and function that writes each section, and the runs that it writes from."""


def sections(results: Path, language: str = "ENGLISH") -> dict[str, str]:
    """What belongs between the comments of each name, in ENGLISH or in CHINESE, from the runs that are there."""
    runs = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in results.glob("*.json")}
    return {
        name: getattr(room, function)(*(runs[run] for run in of), getattr(room, language))
        for name, (room, function, of) in WRITERS.items()
        if set(of) <= set(runs)
    }


def twin(page: str) -> str:
    """The page in Chinese."""
    return "README.zh-CN.md" if page == "README.md" else page.replace("docs/", "docs/zh/")


def main(results: Path) -> None:
    """Replace the sections of the pages."""
    for language, place in (("ENGLISH", str), ("CHINESE", twin)):
        for name, made in sections(results, language).items():
            page = HERE.parent / place(PAGES[name])
            if page.exists():  # there may be no twin yet
                fill(page, name, made)


def fill(page: Path, name: str, made: str) -> None:
    """Replace one section of one page."""
    text = page.read_text(encoding="utf-8")
    parts = re.fullmatch(rf"(.*<!-- {name} -->\n).*(\n<!-- /{name} -->.*)", text, re.DOTALL)
    if parts is None:
        raise SystemExit(f"{page}: expected the comments <!-- {name} --> and <!-- /{name} -->, got none")
    page.write_text(parts[1] + made + parts[2], encoding="utf-8")


if __name__ == "__main__":
    main(HERE / "results")
