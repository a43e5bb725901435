"""The BERT that ships: what it has learned, how it was made, and its score on documents it has never seen."""

from __future__ import annotations

import json

import pytest

from mmha.data import brown, documents, registry
from mmha.models.bert import SHIPPED, load, nano
from mmha.models.bert.filling import fill
from mmha.train import pretraining
from mmha.train.masking import Masking
from mmha.train.pairs import Pairs


def about() -> dict[str, float]:
    found: dict[str, float] = json.loads(SHIPPED.read_text("utf-8"))["about"]
    return found


def test_what_ships_says_how_it_was_made_and_is_small() -> None:
    document = json.loads(SHIPPED.read_text("utf-8"))
    made = document["about"]
    assert (made["data"], made["size"], made["seed"]) == ("brown", "nano", 1)
    assert made["command"].startswith("mmha train bert --")
    assert {"digest", "steps", "step", "rate", "rows", "seconds", "train_documents", "train_tokens"} <= set(made)
    assert (SHIPPED.parent / document["tensors"]).stat().st_size < 4_200_000
    assert load()[0].config == nano(load()[1].vocabulary)


def test_it_has_learned_its_language() -> None:
    said = {
        "The president of the United [MASK] said so.": "states",
        "a [MASK] years ago": "few",
        "in the middle [MASK] the night": "of",
        "Mr. and [MASK]. Smith were there.": "mrs",
    }
    found = fill(*load(), list(said))
    assert [filling.blanks[0].candidates[0].token for filling in found] == list(said.values())


def test_it_finds_more_words_than_counting_does() -> None:
    made = about()
    assert made["test_words"] > made["test_words_neighbours"] > made["test_words_most_frequent"]
    assert made["test_next"] > made["test_next_majority"]


@pytest.mark.slow
@pytest.mark.network
def test_its_scores_on_the_test_documents_are_those_it_names() -> None:
    model, tokenizer = load()
    test = documents.brown(brown.split(brown.files(registry.get("brown")))[2])
    markers = (tokenizer.pad, tokenizer.unknown, tokenizer.cls, tokenizer.sep, tokenizer.mask)
    masking = Masking(tokenizer.mask, markers, tokenizer.vocabulary, hidden=1.0, random=0.0)
    pairs = Pairs([tokenizer.encode_all(document) for document in test], 128)
    batches = pretraining.Batches(pairs, pretraining.Frame(tokenizer.cls, tokenizer.sep), masking, 32, 0)
    scores = pretraining.evaluate(model, batches.once())
    assert scores.words.value == pytest.approx(about()["test_words"], abs=1e-4)
    assert scores.next.value == pytest.approx(about()["test_next"], abs=1e-3)
    assert scores.loss == pytest.approx(about()["test_loss"], abs=1e-4)
