"""What a translator has to beat: the source as it is, and the translation of the nearest sentence that is known.

    python benchmarks/translation_baselines.py [--data help-de] [--json FILE]

The nearest sentence is the trained-on one whose letters are most like it: TF-IDF of the runs of 2 to 5 letters within
words, cosine. It is what a translator's fuzzy match does, without a threshold. chrF and BLEU are those of the test
pages, which neither the model nor the memory has seen.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmha import checkpoint, metrics
from mmha.data import parallel, registry

AT_A_TIME = 256


def nearest(known: Sequence[str], asked: Sequence[str]) -> list[int]:
    """The number of the known sentence that is most like each of those asked."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    rows, questions = vectors.fit_transform(known), vectors.transform(asked)
    found: list[int] = []
    for at in range(0, len(asked), AT_A_TIME):
        found += (questions[at : at + AT_A_TIME] @ rows.T).argmax(axis=1).ravel().tolist()[0]
    return found


def scores(parts: parallel.Split) -> dict[str, Any]:
    """chrF and BLEU of both on the test pages."""
    sources, references = [pair.source for pair in parts.test], [pair.target for pair in parts.test]
    memory = [parts.train[i].target for i in nearest([pair.source for pair in parts.train], sources)]
    return {
        "the source as it is": metrics.translation(sources, references),
        "translation memory": metrics.translation(memory, references),
    }


def main() -> None:
    """Print the figures, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="help-de", choices=list(parallel.LANGUAGES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    parts = parallel.split(parallel.help_pages(registry.get(options.data), options.data))
    counts = {name: len(getattr(parts, name)) for name in ("train", "dev", "test")} | {"repeated": parts.repeated}
    print(f"{options.data}: {counts}")
    found = scores(parts)
    for name, figures in found.items():
        for metric, (score, signature) in figures.items():
            print(f"{name:<22}{metric:<6}{score:6.1f}  {signature}")
    if options.json:
        run = {"data": options.data, "pairs": counts, "test": found}
        checkpoint.write(options.json, (json.dumps(run, indent=1, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
