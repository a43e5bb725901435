"""BERT: its sizes, packed sequences, its heads, what it refuses, and its checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmha.models.bert import BUILDERS, Bert, Config, Tokenizer, base, load, save

CONFIG = Config(vocabulary=101, width=42, layers=3, heads=7, hidden=23, positions=17)
ALBERT = replace(CONFIG, layers=6, embedding=13, groups=2, activation="gelu_new")
LENGTHS = [5, 1, 7]
TOKENS = torch.randint(0, 101, (13,), generator=torch.Generator().manual_seed(3))
SEGMENTS = (TOKENS > 50).long()
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##n", "sat", "cat"]


def make(config: Config = CONFIG) -> Bert:
    model = Bert(config).eval()
    for name, weight in model.named_parameters():  # large enough that attention matters
        scales = "norm" in name and name.endswith("weight")
        torch.nn.init.normal_(weight, 1.0 if scales else 0.0, 0.4)
    return model


@pytest.mark.parametrize("config", [CONFIG, ALBERT, replace(CONFIG, parts=("words",)), replace(ALBERT, parts=())])
def test_the_number_of_weights_is_the_one_that_is_claimed(config: Config) -> None:
    assert sum(p.numel() for p in Bert(config).parameters()) == config.parameters


def test_base_has_the_weights_of_the_original() -> None:
    from transformers import BertConfig, BertForPreTraining

    with torch.device("meta"):
        theirs, ours = BertForPreTraining(BertConfig()), Bert(base())
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in theirs.parameters()) == base().parameters == 110_106_428


def test_builders_are_the_published_sizes() -> None:
    sizes = {name: (make().layers, make().width) for name, make in BUILDERS.items()}
    published = {"tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "base": (12, 768), "large": (24, 1024)}
    assert sizes == published | {"nano": (4, 160)}  # the one that ships is ours
    assert all(BUILDERS[name]().heads * 64 == width for name, (_, width) in published.items())
    assert all(make().hidden == 4 * make().width for make in BUILDERS.values())


def test_initial_weights_are_small_and_cut_off() -> None:
    torch.manual_seed(5)
    weight = Bert(replace(CONFIG, width=168, parts=())).layers[1].self_attn.in_proj_weight.detach()
    assert weight.abs().max() <= 0.04
    # The deviation of a normal cut off at two of its own is 0.8796 of it.
    assert weight.std().item() == pytest.approx(0.02 * 0.8796, rel=0.01)


@pytest.mark.parametrize("config", [CONFIG, ALBERT])
@torch.no_grad()
def test_packed_sequences_are_as_alone(config: Config) -> None:
    model = make(config)
    hidden = model(TOKENS, LENGTHS, SEGMENTS)
    pooled = model.pool(hidden, LENGTHS)
    alone = [
        model(tokens, [len(tokens)], segments)
        for tokens, segments in zip(TOKENS.split(LENGTHS), SEGMENTS.split(LENGTHS), strict=True)
    ]
    torch.testing.assert_close(hidden, torch.cat(alone), rtol=1e-5, atol=1e-5)
    firsts = torch.cat([model.pool(part, [len(part)]) for part in alone])
    torch.testing.assert_close(pooled, firsts, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(hidden, model(TOKENS, [13], SEGMENTS), atol=1e-2)
    assert not torch.allclose(hidden, model(TOKENS, LENGTHS), atol=1e-2)


def test_nothing_gives_nothing() -> None:
    model = make()
    hidden = model(TOKENS[:0], [])
    assert hidden.shape == (0, 42)
    assert model(TOKENS[:0], [0, 0]).shape == (0, 42)
    assert model.words(hidden).shape == (0, 101)
    assert model.next(model.pool(hidden, [])).shape == (0, 2)


def test_dropout_is_where_the_original_has_it() -> None:
    layer = make(replace(CONFIG, dropout=0.3, attention_dropout=0.2)).layers[0]
    assert (layer.dropout.p, layer.dropout1.p, layer.dropout2.p, layer.self_attn.dropout) == (0.0, 0.3, 0.3, 0.2)
    assert make(replace(CONFIG, dropout=0.3)).layers[0].self_attn.dropout == 0.3


X = torch.zeros(7, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X.float(), [7]), TypeError, "`tokens`: expected a tensor of int64 or int32, got float32"),
        ((X[None], [7]), ValueError, "`tokens`: expected 1 dimension (N,), got (1, 7)"),
        ((X + 101, [7]), ValueError, "`tokens`: expected numbers from 0 to 100, got 101 to 101"),
        ((X, [5]), ValueError, "`lengths`: expected lengths of sum N = 7, got sum 5"),
        ((X, [18]), ValueError, "`lengths`: expected sequences of at most 17 tokens, got 18"),
        ((X, 7), ValueError, "`lengths`: expected integers of shape (B,), got shape ()"),
        ((X, None), TypeError, "`lengths`: expected integers of shape (B,), got None"),
        ((X, [-1, 8]), ValueError, "`lengths`: expected integers >= 0, got -1"),
        ((X, [7], X[:5]), ValueError, "`segments`: expected shape (N,) = (7,), got (5,)"),
        ((X, [7], X + 2), ValueError, "`segments`: expected numbers from 0 to 1, got 2 to 2"),
    ],
)
def test_bad_input_is_named(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        make()(*arguments)
    assert str(caught.value) == message


def test_a_sequence_without_tokens_has_no_first_one() -> None:
    with pytest.raises(ValueError, match=r"^`lengths`: expected sequences of at least one token, got list \[7, 0\]$"):
        make().pool(torch.zeros(7, 42), [7, 0])


@pytest.mark.parametrize(
    ("part", "arguments", "error", "message"),
    [
        ("pool", (X.float()[:, None], [7]), ValueError, "`hidden`: expected shape (N, width) = (N, 42), got (7, 1)"),
        ("pool", (torch.zeros(7, 42), [3, 5]), ValueError, "`lengths`: expected lengths of sum N = 7, got sum 8"),
        ("words", (torch.zeros(42),), ValueError, "`hidden`: expected shape (M, width) = (M, 42), got (42,)"),
        ("next", (torch.zeros(3, 41),), ValueError, "`pooled`: expected shape (B, width) = (B, 42), got (3, 41)"),
        ("next", ([3],), TypeError, "`pooled`: expected a tensor (B, width), got list [3]"),
    ],
)
def test_heads_name_what_does_not_fit(
    part: str, arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        getattr(make(), part)(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "`width`: expected a multiple of heads = 5, got 42"),
        ({"layers": 0}, "`layers`: expected an integer >= 1 and <= 1024, got 0"),
        ({"layers": 1025}, "`layers`: expected an integer >= 1 and <= 1024, got 1025"),
        ({"groups": 2}, "`groups`: expected a divisor of layers = 3, got 2"),
        ({"embedding": 0}, "`embedding`: expected an integer >= 1, got 0"),
        ({"dropout": 1.0}, "`dropout`: expected a number in [0, 1), got 1.0"),
        ({"dropout": None}, "`dropout`: expected a number in [0, 1), got None"),
        ({"norm_eps": 0.0}, "`norm_eps`: expected a number > 0, got 0.0"),
        ({"activation": "gelo"}, "`activation`: expected 'gelu', 'gelu_new' or 'relu', got 'gelo'; did you mean"),
        ({"parts": ("word",)}, "`parts`: expected some of pooler, words or next, got tuple ('word',)"),
    ],
)
def test_sizes_must_fit_together(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        replace(CONFIG, **change)
    assert str(caught.value).startswith(message)


def test_a_head_that_is_not_there_is_named_and_can_be_added() -> None:
    model = make(replace(CONFIG, parts=("pooler",)))
    hidden = torch.randn(3, 42)
    with pytest.raises(ValueError, match=r"^`words`: expected a model with a head for masked words, got one with only"):
        model.words(hidden)
    with pytest.raises(ValueError, match=r"^`next`: expected a model with a head for the next sentence, got one with"):
        model.next(hidden)
    with pytest.raises(ValueError, match=r"^`pooler`: expected a model with a pooler, got one with none of its heads$"):
        make(replace(CONFIG, parts=())).pool(hidden, [3])
    pooler = model.heads["pooler"]
    model.add("next", "words", "pooler")
    assert model.config == CONFIG
    assert model.heads["pooler"] is pooler
    assert model.words(hidden).shape == (3, 101)
    assert sum(p.numel() for p in model.parameters()) == CONFIG.parameters


@pytest.mark.parametrize("config", [CONFIG, replace(ALBERT, parts=("words",))])
def test_a_saved_model_comes_back_rounded_to_16_bits(tmp_path: Path, config: Config) -> None:
    model, tokenizer = make(config), Tokenizer.of(PIECES)
    save(model, tokenizer, tmp_path / "bert.json", {"note": "é"})
    for place in (tmp_path, tmp_path / "bert.json", str(tmp_path)):
        found, again = load(place)
        assert found.config == config
        assert again.pieces == tokenizer.pieces
        for name, weight in model.state_dict().items():
            assert torch.equal(found.state_dict()[name], weight.half().float())
    assert not found.training
    assert all(weight.requires_grad for weight in found.parameters())
    assert json.loads((tmp_path / "bert.json").read_text("utf-8"))["about"] == {"note": "é"}


def test_weights_that_16_bits_cannot_hold_are_not_saved(tmp_path: Path) -> None:
    model = make()
    model.layers[1].linear1.bias.data[3] = -65520.0  # rounds to infinity
    with pytest.raises(
        ValueError, match=r"^`model`: expected weights of at most 65,504, got larger in layers\.1\.linear1"
    ):
        save(model, Tokenizer.of(PIECES), tmp_path / "bert.json", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "tagger"}, "expected a BERT, got 'tagger'"),
        ({"config": {"speed": 3}}, "expected sizes of a BERT, got dict {'speed': 3}"),
        ({"config": {"width": 3}}, "expected sizes that fit together, got others"),
        ({"config": {**vars(CONFIG), "width": 43}}, "expected sizes that fit together, got others (`width`"),
        ({"config": {**vars(CONFIG), "parts": 3}}, "expected sizes that fit together, got others (`parts`"),
        ({"config": {**vars(CONFIG), "positions": 10**12}}, "expected 42000000036460 weights for these sizes, got"),
        ({"config": {**vars(CONFIG), "vocabulary": 5}}, "expected at most 5 tokens, got 9"),
        ({"tokenizer": 7}, "expected a tokenizer, got another thing"),
        ({"tokenizer": {"model": 3}}, "expected a tokenizer, got another thing (`definition`: expected the content"),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "bert.json"
    save(make(), Tokenizer.of(PIECES), path, {})
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_the_loss_has_a_gradient_for_every_weight() -> None:
    model = make(ALBERT).train()
    hidden: Tensor = model(TOKENS, LENGTHS, SEGMENTS)
    (model.words(hidden).logsumexp(1).sum() + model.next(model.pool(hidden, LENGTHS)).logsumexp(1).sum()).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_a_folder_without_a_model_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected bert\.json or config\.json in it, got neither"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nowhere")
