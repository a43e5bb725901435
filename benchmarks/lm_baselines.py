"""Bits per byte of the held-out works: the language model that ships, n-grams of the same text, and compressors.

    python benchmarks/lm_baselines.py [--model PATH] [--json FILE]

The model and the n-grams give each token of a work a probability from what stands before it in the same work, the end
token at the start; bits per byte are −Σ log₂ p over the bytes of the raw text. The n-grams are interpolated modified
Kneser-Ney of order 5, over the model's own tokens and over bytes. They come from mmha.bench.kneser_ney, because nltk.lm
takes seconds for each probability. Compressors see the test text alone; in the row `after the training text` xz is
charged for what the test text adds to the training text. No setting of any row was chosen on the test works.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmha.bench.kneser_ney import KneserNey
from mmha.data import registry, shakespeare
from mmha.models import causal_lm
from mmha.train import language

ORDER = 5
STRIDE = 16  # the model predicts a token from at least context - 15 tokens, once a work has that many


def model_bits(model: Any, tokenizer: Any, texts: Sequence[str]) -> float:
    documents = [tokenizer.encode(text) for text in texts]
    return language.bits(model, documents, tokenizer.end, model.config.context, STRIDE)


def kneser_ney_bits(train: Sequence[Sequence[int]], test: Sequence[Sequence[int]], end: int) -> float:
    model = KneserNey(language.stream(train, end).numpy(), end + 1, ORDER)
    return sum(float(-np.log2(model.probabilities([end, *tokens])[1:]).sum()) for tokens in test)


def xz(data: bytes) -> int:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, filters=filters))


def rows(model: Any, tokenizer: Any, train: Sequence[str], test: Sequence[str]) -> dict[str, float]:
    """Bits in all, by the name of the row."""
    before, data = ("".join(part).encode() for part in (train, test))
    tokens = [[tokenizer.encode(text) for text in part] for part in (train, test)]
    raw = [[list(text.encode()) for text in part] for part in (train, test)]
    return {
        "mmha causal_lm": model_bits(model, tokenizer, test),
        f"Kneser-Ney {ORDER}, tokens": kneser_ney_bits(*tokens, tokenizer.end),
        f"Kneser-Ney {ORDER}, bytes": kneser_ney_bits(*raw, 256),
        "xz -9e after the training text": 8.0 * (xz(before + data) - xz(before)),
        "xz -9e": 8.0 * xz(data),
        "gzip -9": 8.0 * len(gzip.compress(data, 9, mtime=0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=causal_lm.SHIPPED, help="a model of `mmha train lm`")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    args = parser.parse_args()
    parts = shakespeare.split(shakespeare.files(registry.get("shakespeare")))
    train, _, test = map(shakespeare.read, parts)
    size = sum(len(text.encode()) for text in test)
    found = {name: bits / size for name, bits in rows(*causal_lm.load(args.model), train, test).items()}
    print(f"bits per byte of {size:,} bytes: {', '.join(shakespeare.TEST)}")
    for name, value in found.items():
        print(f"{name:<32} {value:6.3f}")
    if args.json:
        args.json.write_text(json.dumps({"bytes": size, "bits_per_byte": found}, indent=1))


if __name__ == "__main__":
    main()
