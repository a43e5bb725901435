"""Masks filled: the probabilities of transformers on the same weights, in any company, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import transformers

from bert_twins import PIECES, made, saved
from mmha.models.bert import Bert, Tokenizer, load
from mmha.models.bert.filling import Filling, encode, fill, looks
from mmha.models.bert.smiles import SYMBOL

TEXTS = ("the [MASK] sat!", "[MASK]", "[MASK] the[MASK]", "The CAT [SEP] sat [MASK]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(made("BertForMaskedLM", vocab_size=len(PIECES)), tmp_path_factory.mktemp("twin"))


@pytest.fixture(scope="module")
def bert(folder: Path) -> tuple[Bert, Tokenizer]:
    return load(folder)


def chances(filling: Filling) -> list[dict[int, float]]:
    return [{c.number: c.probability for c in blank.candidates} for blank in filling.blanks]


def test_probabilities_are_those_of_transformers(folder: Path, bert: tuple[Bert, Tokenizer]) -> None:
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    twin = transformers.BertForMaskedLM.from_pretrained(folder, attn_implementation="eager")
    pipe = transformers.pipeline("fill-mask", model=twin, tokenizer=tokenizer, top_k=len(PIECES))
    for text, filling in zip(TEXTS, fill(*bert, TEXTS, top=len(PIECES)), strict=True):
        theirs = pipe(text)
        theirs = theirs if isinstance(theirs[0], list) else [theirs]
        assert len(theirs) == len(filling.blanks) == text.count("[MASK]")
        for blank, expected in zip(filling.blanks, theirs, strict=True):
            found = {c.token: c.probability for c in blank.candidates}
            assert found == pytest.approx({row["token_str"]: row["score"] for row in expected}, abs=1e-5)
            assert [c.token for c in blank.candidates] == [row["token_str"] for row in expected]


def test_a_text_is_filled_alike_alone_and_among_others(
    bert: tuple[Bert, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [chances(fill(*bert, [text], top=7)[0]) for text in TEXTS]
    for tokens, masks in ((4096, 256), (7, 1)):
        monkeypatch.setattr("mmha.models.bert.filling.TOKENS", tokens)
        monkeypatch.setattr("mmha.models.bert.filling.MASKS", masks)
        for one, among in zip(alone, map(chances, fill(*bert, TEXTS, top=7)), strict=True):
            for a, b in zip(one, among, strict=True):
                assert a == pytest.approx(b, abs=1e-6)
    assert fill(*bert, []) == []


def test_the_text_is_kept_but_for_its_masks(bert: tuple[Bert, Tokenizer]) -> None:
    for text, filling in zip(TEXTS, fill(*bert, TEXTS, top=1), strict=True):
        best = [blank.candidates[0].token for blank in filling.blanks]
        assert filling.text == text
        assert [filling.tokens[blank.position] for blank in filling.blanks] == ["[MASK]"] * text.count("[MASK]")
        expected = text
        for token in best:
            joined = r"\s*\[MASK\]" if token.startswith("##") else r"\[MASK\]"
            expected = re.sub(joined, token.removeprefix("##"), expected, count=1)
        assert filling.filled == expected


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "AlbertForMaskedLM"])
def test_where_the_tokens_looked_is_what_transformers_weighs(architecture: str, tmp_path: Path) -> None:
    folder = saved(made(architecture, vocab_size=len(PIECES)), tmp_path)
    twin = getattr(transformers, architecture).from_pretrained(folder, attn_implementation="eager").eval()
    model, tokenizer = load(folder)
    tokens = torch.tensor([encode(model, tokenizer, TEXTS[0])])
    with torch.no_grad():
        seen = twin(input_ids=tokens, output_attentions=True).attentions[-1]
    torch.testing.assert_close(looks(model, tokenizer, TEXTS[0]), seen[0].mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["the cat"], r"`texts\[0\]`: expected a text with at least one \[MASK\], got str 'the cat'"),
        (["[MASK]", ""], r"`texts\[1\]`: expected a text with at least one \[MASK\], got str ''"),
        (["[MASK]" + " the" * 15], r"`texts\[0\]`: expected at most 17 tokens, \[CLS\] included, got 18"),
        (["the [mask]"], r"`texts\[0\]`: expected a text with at least one \[MASK\]"),
    ],
)
def test_texts_that_cannot_be_filled(bert: tuple[Bert, Tokenizer], texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fill(*bert, texts)


def test_a_model_that_cannot_fill(tmp_path: Path, bert: tuple[Bert, Tokenizer]) -> None:
    model, tokenizer = load(saved(made("BertModel", vocab_size=len(PIECES)), tmp_path / "bare"))
    with pytest.raises(ValueError, match="`model`: expected one with a head for masked words, got one without"):
        fill(model, tokenizer, ["[MASK]"])
    with pytest.raises(ValueError, match="`top`: expected an integer >= 1, got 0"):
        fill(*bert, ["[MASK]"], top=0)


def cut(smiles: str, pieces: Sequence[str]) -> list[int]:
    """The tokens by the published expression, markers around them."""
    found = re.findall(r"\[[^]]+\]|Br|Cl|>>|%\d\d|.", smiles)
    return [pieces.index(piece) for piece in ("[CLS]", *found, "[SEP]")]


@pytest.mark.network
def test_reactions_are_filled_as_by_transformers(fetched: Callable[[str], Path]) -> None:
    folder = fetched("albert-rxn")
    model, tokenizer = load(folder)
    twin = transformers.AlbertForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
    texts = ("CC(=O)O.OCC>>CC[MASK]C(C)=O", "[MASK]c1ccccc1.OB(O)c1[MASK]cccc1>>c1ccc(-c2ccccc2)cc1", "[MASK]")
    for text, filling in zip(texts, fill(model, tokenizer, texts, top=591), strict=True):
        tokens = torch.tensor([cut(text, tokenizer.pieces)])
        with torch.no_grad():
            expected = twin(input_ids=tokens).logits[tokens == tokenizer.mask].softmax(-1)
        for row, found in zip(expected, chances(filling), strict=True):
            torch.testing.assert_close(torch.tensor([found[n] for n in range(591)]), row, rtol=0, atol=1e-5)
    assert fill(model, tokenizer, texts[:1])[0].blanks[0].candidates[0].token == "O"  # an ester, from its reaction
    assert all(re.fullmatch(SYMBOL, piece) for piece in tokenizer.pieces)
