"""Sentence embeddings beside transformers' states, pooled by the formula; how a folder says its model pools."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from bert_twins import made, saved
from mmha.models.bert import Bert, Config, Tokenizer, embedding, load
from mmha.models.bert.embedding import Pooling, embed, read_pooling

TEXTS = ["the cat sat", "", "!", "cat " * 40, "thenn [MASK] cat", " \t", "sat! the cat sat!"]
SENTENCES = (
    "The cat sleeps on the warm stones.",
    "A cat is lying asleep on stones that the sun has warmed.",
    "Bread.",
    "Rain is expected in the north, with strong winds and a chance of thunder towards the evening. " * 20,
    "Größe und Übermut, naïveté — 東京!",
)


def by_transformers(model: Any, tokenizer: Any, texts: Sequence[str], most: int, first: bool = False) -> Tensor:
    batch = tokenizer(list(texts), padding=True, truncation=True, max_length=most, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    real = batch["attention_mask"].unsqueeze(2)
    pooled = states[:, 0] if first else (states * real).sum(1) / real.sum(1)
    return pooled / pooled.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("pooling", [Pooling(), Pooling(tokens=7), Pooling("first", tokens=99)])
def test_vectors_are_the_mean_of_transformers_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: Pooling
) -> None:
    monkeypatch.setattr(embedding, "TOKENS", 19)  # several groups
    twin = made("BertModel")
    folder = saved(twin, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    most = min(pooling.tokens or 17, 17)
    expected = by_transformers(twin, theirs, TEXTS, most, pooling.over == "first")
    expected[[1, 5]] = 0.0  # what has no tokens
    model, tokenizer = load(folder)
    quoted = [text for text in TEXTS if "[" not in text]
    found = embed(model, tokenizer, quoted, pooling)
    torch.testing.assert_close(found.vectors, expected[[0, 1, 2, 3, 5, 6]], rtol=1e-5, atol=1e-5)
    assert found.cut == ([3] if most == 17 else [3, 5])
    assert not found.vectors.requires_grad


def test_no_texts_give_no_vectors() -> None:
    model, tokenizer = Bert(Config(7, 6, 1, 2, 5)), Tokenizer.of(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])
    assert embed(model, tokenizer, []).vectors.shape == (0, 6)
    assert embed(model, tokenizer, [""]).vectors.tolist() == [[0.0] * 6]


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-6), (torch.float16, 0.01), (torch.bfloat16, 0.05)])
def test_512_texts_are_embedded_as_each_alone_in_every_precision(dtype: torch.dtype, allowed: float) -> None:
    tokenizer = Tokenizer.of(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"])
    model = Bert(Config(7, 22, 2, 2, 5, positions=13)).eval()
    texts = ["ab  " * 3 + "a b " * (n % 7) for n in range(512)]
    exact = torch.cat([embed(model, tokenizer, [text]).vectors for text in texts[:7]])
    found = embed(model.to(dtype), tokenizer, texts).vectors
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact[torch.arange(512) % 7], rtol=0.0, atol=allowed)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(512))  # also where the model has 8 bits


def test_a_model_without_room_for_a_token_is_refused() -> None:
    tokenizer = Tokenizer.of(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])
    with pytest.raises(ValueError, match=r"^`model`: expected one with at least 3 positions, got 2$"):
        embed(Bert(Config(6, 6, 1, 2, 5, positions=2)), tokenizer, ["a"])
    assert embed(Bert(Config(6, 6, 1, 2, 5, positions=3)), tokenizer, ["a", "a a"]).cut == [1]
    with pytest.raises(TypeError, match=r"^`texts`: expected a sequence of texts, got str 'aa'$"):
        embed(Bert(Config(6, 6, 1, 2, 5)), tokenizer, "aa")


@pytest.mark.network
def test_minilm_embeds_as_by_transformers(fetched: Callable[[str], Path]) -> None:
    folder = fetched("minilm")
    twin = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    pooling = read_pooling(folder)
    assert pooling == Pooling("mean", 256)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    expected = by_transformers(twin, theirs, SENTENCES, 256)
    found = embed(*load(folder), SENTENCES, pooling)
    torch.testing.assert_close(found.vectors, expected, rtol=0.0, atol=1e-5)
    assert found.cut == [3]


MODULES = [
    {"path": "", "type": "sentence_transformers.models.Transformer"},
    {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def written(folder: Path, files: dict[str, Any]) -> Path:
    (folder / "1_Pooling").mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, Pooling()),
        ({"modules.json": MODULES}, Pooling()),
        ({"modules.json": MODULES, "sentence_bert_config.json": {"max_seq_length": 128}}, Pooling("mean", 128)),
        ({"modules.json": MODULES, "1_Pooling/config.json": {"pooling_mode_cls_token": True}}, Pooling("first")),
    ],
)
def test_a_folder_says_how_its_model_pools(tmp_path: Path, files: dict[str, Any], expected: Pooling) -> None:
    assert read_pooling(written(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"modules.json": 3}, "modules.json: expected a list of modules, got 3"),
        ({"modules.json": ["x"]}, "modules.json: expected a list of modules, got list ['x']"),
        (
            {"modules.json": [*MODULES, {"path": "2_Dense", "type": "sentence_transformers.models.De\nnse"}]},
            r"modules.json: expected modules Transformer, Pooling and Normalize, got 'De\nnse'",
        ),
        (
            {"modules.json": MODULES, "1_Pooling/config.json": {"pooling_mode_max\ntokens": True}},
            r"1_Pooling/config.json: expected pooling by mean_tokens or cls_token, got 'max\ntokens'",
        ),
        (
            {"modules.json": MODULES, "sentence_bert_config.json": {"max_seq_length": 2}},
            "sentence_bert_config.json: expected a max_seq_length that fits, got another (`tokens`: expected an",
        ),
    ],
)
def test_what_is_not_computed_here_is_refused(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_pooling(written(tmp_path, files))
    assert str(caught.value).startswith(f"{tmp_path}/{message}")
