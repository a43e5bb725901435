"""The language model that ships: what it has learned, how it was made, and its score on works it has never seen."""

from __future__ import annotations

import json
import math

import pytest
import torch

from mmha.data import registry, shakespeare
from mmha.models.causal_lm import SHIPPED, base, load
from mmha.train import language

VERSES = """Is this a dagger which I see before me,
The handle toward my hand? Come, let me clutch thee:--
I have thee not, and yet I see thee still.
Art thou not, fatal vision, sensible
To feeling as to sight? or art thou but
A dagger of the mind, a false creation,
Proceeding from the heat-oppressed brain?
"""


@torch.no_grad()
def test_the_model_that_ships_has_learned_its_language() -> None:
    model, tokenizer = load()
    assert model.config == base(2048)
    ids = [tokenizer.end, *tokenizer.encode(VERSES)]  # from Macbeth, which it has never seen
    lost = torch.nn.functional.cross_entropy(model(torch.tensor([ids[:-1]]))[0], torch.tensor(ids[1:]), reduction="sum")
    assert float(lost) / math.log(2.0) / len(VERSES.encode()) < 2.4
    for text, next_one in (("Good morrow, my", " lord"), ("I do beseech", " you"), ("KING HENRY.\nMy lord", ",")):
        best = model(torch.tensor([[tokenizer.end, *tokenizer.encode(text)]]))[0, -1].argmax()
        assert tokenizer.decode([int(best)]) == next_one


def test_what_ships_says_how_it_was_made() -> None:
    document = json.loads(SHIPPED.read_text("utf-8"))
    about = document["about"]
    assert (about["data"], about["size"], about["vocabulary"]) == ("shakespeare", "base", 2048)
    assert {"seed", "steps", "step", "rate", "rows", "seconds", "train_bytes", "digest"} <= set(about)
    assert 1.0 < about["test_bits_per_byte"] < 2.1
    assert (SHIPPED.parent / document["tensors"]).stat().st_size < 6_000_000


@pytest.mark.slow
@pytest.mark.network
def test_its_score_on_the_test_works_is_the_one_it_names() -> None:
    model, tokenizer = load()
    texts = shakespeare.read(shakespeare.split(shakespeare.files(registry.get("shakespeare")))[2])
    documents = [tokenizer.encode(text) for text in texts]
    found = language.bits(model, documents, tokenizer.end, 256, 64) / sum(len(text.encode()) for text in texts)
    assert found == pytest.approx(json.loads(SHIPPED.read_text("utf-8"))["about"]["test_bits_per_byte"], abs=1e-4)
