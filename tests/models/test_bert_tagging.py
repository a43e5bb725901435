"""The tagger on BERT: the scores of transformers on the same weights, parts of long sentences, and files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from bert_twins import PIECES, made, saved
from mmha.models.bert import Bert, Config, Tokenizer, load
from mmha.models.bert import tagging as models
from mmha.models.bert.looks import looked_at
from mmha.models.bert.tagging import Tagger, bare

TAGS = ("A", "B", "C")
SENTENCES = [["the", "catn", "sat"], ["!"], ["sat", "'", "the", "thenn", "cat!the"]]
POSITIONS = 11


def make(positions: int = POSITIONS, **sizes: int) -> Tagger:
    tokenizer = Tokenizer.of([*PIECES, '"'])
    sizes = {"width": 21, "layers": 2, "heads": 3, "hidden": 13} | sizes
    model = Tagger(Bert(Config(tokenizer.vocabulary, positions=positions, **sizes)), tokenizer, TAGS)
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.5)
    return model.eval()


@torch.no_grad()
def test_the_scores_are_those_of_transformers(tmp_path: Path) -> None:
    twin = made("BertForTokenClassification", vocab_size=len(PIECES), num_labels=3)
    encoder, tokenizer = load(saved(twin, tmp_path))
    model = Tagger(bare(encoder), tokenizer, TAGS).eval()
    model.head.load_state_dict(twin.classifier.state_dict())
    inputs = transformers.BertTokenizer.from_pretrained(tmp_path)(
        SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt"
    )
    logits = twin(**inputs).logits
    expected = []
    for row in range(len(SENTENCES)):
        words = inputs.word_ids(row)
        expected += [logits[row, words.index(word)] for word in range(len(SENTENCES[row]))]
    torch.testing.assert_close(model(*model.encode(SENTENCES)), torch.stack(expected), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_long_sentence_is_read_in_parts_that_fit() -> None:
    model = make()
    # 9 pieces fit between the markers: 2 + 1 + 1 + 4, then 4 + 5 · 1, then what is left.
    long = ["catn", "the", "sat", "thennn", "catnnn", "the", "sat", "sat", "sat", "sat", "sat"]
    whole = model(*model.encode([["sat"], long, [], ["the"]]))
    tokens, lengths, first = model._sequences(*model.encode([["sat"], long, [], ["the"]]))
    assert lengths == [3, 10, 11, 3, 3]
    apart, at = [], 0
    for length in lengths:
        inside = tokens[at + 1 : at + length - 1].tolist()
        assert (tokens[at], tokens[at + length - 1]) == (model.tokenizer.cls, model.tokenizer.sep)
        words = [model.tokenizer.pieces[n] for n in inside]
        joined = " ".join(words).replace(" ##", "").split()
        apart.append(model(*model.encode([joined])))
        at += length
    torch.testing.assert_close(whole, torch.cat(apart), rtol=1e-5, atol=1e-5)
    assert len(first) == len(long) + 2


def test_words_without_pieces_or_with_many_have_their_place() -> None:
    model = make(positions=100)
    counts, pieces, lengths = model.encode([["\x00", "the" + "n" * 29], [], ["``", "”"]])
    assert counts.tolist() == [1, models.MOST_PIECES, 1, 1]
    assert pieces[0, 0] == model.tokenizer.unknown
    assert pieces[2:, 0].tolist() == [model.tokenizer.pieces.index('"')] * 2
    assert lengths == [2, 0, 2]
    assert [len(tags) for tags in model.tag([["\x00", "the" + "n" * 29], [], ["``", "”"]])] == lengths
    assert model.tag([]) == []
    assert model.tag([[]]) == [[]]


def test_tags_do_not_depend_on_the_company() -> None:
    model = make(layers=3)
    many = SENTENCES * 5 + [["sat"] * 31]
    alone = [model.tag([words])[0] for words in many]
    assert len({tag for tags in alone for tag in tags}) > 1
    assert model.tag(many) == model.tag(many, tokens=7) == alone


def test_a_word_looks_with_its_first_piece_at_all_pieces_of_a_word() -> None:
    model = make(positions=13)
    counts, pieces, lengths = model.encode([SENTENCES[2]])
    assert counts.tolist() == [1, 1, 1, 3, 3]
    tokens, parts, _ = model._sequences(counts, pieces, lengths)
    weights = looked_at(model.encoder, tokens, parts)
    ends = [(1, 2), (2, 3), (3, 4), (4, 7), (7, 10)]
    expected = torch.tensor([[weights[i, a:b].sum() for a, b in ends] for i, _ in ends])
    found = model.looked_at(SENTENCES[2])
    torch.testing.assert_close(found, expected / expected.sum(1, keepdim=True))
    assert expected.sum(1).max() < 0.95  # the markers were looked at, too
    assert make().looked_at(["sat"] * 20).shape == (9, 9)
    assert model.looked_at([]).shape == (0, 0)


def test_a_saved_tagger_comes_back_rounded(tmp_path: Path) -> None:
    model = make()
    models.save(model, tmp_path / "tagger.json", {"data": "none"}, "tagger.safetensors")
    again = models.load(tmp_path / "tagger.json")
    assert (again.tags, again.tokenizer.pieces) == (model.tags, model.tokenizer.pieces)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.half().float()), name
    assert not again.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "tagger"}, "expected a tagger on BERT, got 'tagger'"),
        ({"tags": []}, r"expected a list of tags, got list \[\]"),
        ({"tags": ["A", "B"]}, "expected the weights of a head of 2 tags, got others"),
        ({"tokenizer": {}}, "expected a tokenizer, got another thing"),
        ({"config": {"vocabulary": 3}}, "expected sizes that fit together, got others"),
    ],
)
def test_another_document_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "tagger.json"
    models.save(make(), path, {})
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        models.load(path)


def test_a_bare_copy_shares_nothing_with_the_model() -> None:
    model = Bert(Config(13, width=21, layers=2, heads=3, hidden=13, dropout=0.0))
    copy = bare(model)
    assert (copy.config.parts, copy.config.dropout) == ((), 0.1)
    tokens = torch.arange(7)
    assert not torch.equal(copy(tokens, [4, 3]), copy(tokens, [4, 3]))
    torch.testing.assert_close(copy.eval()(tokens, [4, 3]), model(tokens, [4, 3]))
    copy.embedding.tokens.weight.data.zero_()
    assert model.embedding.tokens.weight.abs().sum() > 0
