"""benchmarks/lm_baselines.py: every row is charged for the whole test text and for nothing else."""

from __future__ import annotations

import gzip
import importlib
import lzma
import math
from pathlib import Path

import pytest
import torch

from mmha.bench.kneser_ney import KneserNey
from mmha.models.causal_lm import CausalLM, Tokenizer, small

TRAIN = ["The quick brown fox jumps over the lazy dog.\n" * 3, "Pack my box with five dozen liquor jugs.\n"]
TEST = ["The five boxing wizards jump quickly.\n", "Fox and dog.\n"]


def test_every_row_is_charged_for_the_whole_test_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    script = importlib.import_module("lm_baselines")
    tokenizer = Tokenizer([("h", "e"), ("Ġ", "f")])
    model = CausalLM(small(tokenizer.vocab_size)).eval()
    torch.nn.init.zeros_(model.embedding.weight)  # then every token is as likely as every other
    found = script.rows(model, tokenizer, TRAIN, TEST)
    tokens = sum(len(tokenizer.encode(text)) for text in TEST)
    assert found["mmha causal_lm"] == pytest.approx(tokens * math.log2(259), rel=1e-5)
    data = "".join(TEST).encode()
    assert found["gzip -9"] == 8 * len(gzip.compress(data, 9, mtime=0))
    assert found["xz -9e"] == 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    assert 0 < found["xz -9e after the training text"] < found["xz -9e"]
    stream = [byte for text in TRAIN for byte in (256, *text.encode())]
    exact = 0.0
    for text in TEST:
        for p in KneserNey(stream, 257, 5).probabilities([256, *text.encode()])[1:]:
            exact -= math.log2(p)
    assert found["Kneser-Ney 5, bytes"] == pytest.approx(exact, rel=1e-12)
    assert found["Kneser-Ney 5, tokens"] < tokens * math.log2(259)
