"""The tagger: who sees whom, sentences kept apart, the quick twin, files, and the weights that ship."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmha.data.sentence import UPOS
from mmha.models.tagger import SHIPPED, Lexicon, Tagger, load, save, small
from mmha.models.tagger.config import LONGEST, TABLES, Config
from mmha.models.tagger.model import only, sight
from mmha.models.tagger.quick import QuickTagger

SENTENCES = [
    ["I", "saw", "a", "saw"],
    ["Well", "!"],
    ["The", "1961", "report", "doesn't", "say", "``", "why", "''", "it", "rains", "."],
]


def make(**other: object) -> Tagger:
    lexicon = Lexicon.count(SENTENCES, UPOS, least_word=1, least_piece=1)
    config = Config(**{**vars(small(lexicon)), "layers": 2, "taps": (-1, 1, -2), "width": 28, **other})  # type: ignore[arg-type]
    return Tagger(config, lexicon).eval()


@pytest.mark.parametrize("offset", [-3, -1, 1, 2])
def test_only_shows_exactly_one_neighbour(offset: int) -> None:
    seen = only(offset).dense(1, 1, 7, 7)[0, 0]
    assert torch.equal(seen, torch.eye(7, dtype=torch.bool).roll(offset, 1) & _inside(offset))


def _inside(offset: int) -> torch.Tensor:
    i, j = torch.arange(7)[:, None], torch.arange(7)[None]
    return j - i == offset


def test_sight_keeps_sentences_apart_and_gives_each_head_its_view() -> None:
    config = make().config
    seen = sight(config, [3, 2]).dense(1, 4, 5, 5)[0].int().tolist()
    assert seen[0] == [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 0]]
    assert seen[1] == [[0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    assert seen[2] == [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert seen[3] == [[1, 1, 1, 0, 0]] * 3 + [[0, 0, 0, 1, 1]] * 2


@torch.no_grad()
def test_a_sentence_scores_the_same_alone_and_packed() -> None:
    model = make()
    packed = model(*model.encode(SENTENCES)).split([len(words) for words in SENTENCES])
    for words, scores in zip(SENTENCES, packed, strict=True):
        torch.testing.assert_close(model(*model.encode([words])), scores, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_the_quick_twin_gives_the_same_scores(tmp_path: Path, isa: str) -> None:
    save(make(), tmp_path / "tagger.json", {})
    model, quick = load(tmp_path / "tagger.json"), QuickTagger(tmp_path / "tagger.json")
    for words in [*SENTENCES, ["unseen"], [f"w{i}" for i in range(61)]]:
        np.testing.assert_allclose(quick.scores(words), model(*model.encode([words])).numpy(), rtol=1e-4, atol=1e-5)
    assert quick.tag([*SENTENCES, []]) == model.tag([*SENTENCES, []])


def test_the_quick_twin_needs_no_torch() -> None:
    code = "import sys, mmha.models.tagger.quick, mmha.cli.tag; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_loading_draws_no_random_numbers_and_imports_no_compiler() -> None:
    code = (
        "import sys, torch; from mmha.models.tagger import load; torch.manual_seed(3); load(); "
        "a = torch.rand(2); torch.manual_seed(3); print(torch.equal(a, torch.rand(2)), 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_any_length_is_tagged() -> None:
    model = make()
    long = ["saw"] * (2 * LONGEST + 3)
    tags = model.tag([[], long, ["saw"], []], tokens=97)
    assert [len(found) for found in tags] == [0, len(long), 1, 0]
    assert tags[1][:LONGEST] == model.tag([long[:LONGEST]])[0]
    assert model.tag([]) == []


def test_what_a_word_looked_at_adds_up_to_one() -> None:
    weights = make().looked_at(SENTENCES[2])
    assert weights.shape == (11, 11)
    torch.testing.assert_close(weights.sum(-1), torch.ones(11))


def test_a_word_is_known_by_sight_or_by_its_letters() -> None:
    lexicon = Lexicon.count([["Saw", "saw", "log", "lag"]], UPOS, least_word=2, least_piece=2)
    assert lexicon.words == ("", "saw")
    assert set(lexicon.pieces) == {"", "^s", "^sa", "^saw", "w$", "aw$", "saw$", "#x", "^l", "g$"}
    words, pieces, lengths = lexicon.encode([["SAW", "log"], ["?"]])
    assert words.tolist() == [1, 0, 0]
    assert lengths == [2, 1]
    assert sorted(lexicon.pieces[i] for i in pieces[1] if i) == ["#x", "^l", "g$"]
    assert pieces[2].tolist() == [0] * 10


def test_a_saved_tagger_comes_back_rounded(tmp_path: Path) -> None:
    model = make()
    save(model, tmp_path / "tagger.json", {"data": "none"}, "tagger.safetensors")
    again = load(tmp_path / "tagger.json")
    assert (again.config, again.lexicon.words) == (model.config, model.lexicon.words)
    for name, value in model.state_dict().items():
        if name in TABLES:  # 8 bits: within half a step of 1/127 of the row's largest, and the scale's own rounding
            step = value.abs().amax(1, keepdim=True) / 127
            assert ((again.state_dict()[name] - value).abs() <= 0.6 * step + 1e-7).all(), name
        else:
            assert torch.equal(again.state_dict()[name], value.half().float()), name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tagger.json", "tagger.safetensors"]


@pytest.mark.parametrize("reader", [load, QuickTagger])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "bert"}, "expected a tagger, got 'bert'"),
        ({"config": {}}, "expected sizes that fit together, got others"),
        ({"config": 3}, "expected sizes of a tagger, got 3"),
        ({"lexicon": {}}, "expected a tagger, got a document that does not fit"),
        ({"lexicon": {"words": "a", "pieces": "b", "tags": "c"}}, "expected a lexicon of"),
    ],
)
def test_another_model_is_refused(tmp_path: Path, reader: type, change: dict[str, object], message: str) -> None:
    save(make(), tmp_path / "tagger.json", {})
    document = json.loads((tmp_path / "tagger.json").read_text())
    (tmp_path / "tagger.json").write_text(json.dumps(document | change))
    with pytest.raises(ValueError, match=message):
        reader(tmp_path / "tagger.json")


def test_the_shipped_tagger_tells_a_verb_from_a_noun_by_its_place() -> None:
    wanted = [["PRON", "VERB", "DET", "NOUN"]]
    assert load().tag([["I", "saw", "a", "saw"]]) == wanted
    assert QuickTagger().tag([["I", "saw", "a", "saw"]]) == wanted
    assert SHIPPED.stat().st_size + SHIPPED.with_suffix(".safetensors").stat().st_size < 14e6


def test_the_shipped_document_says_where_the_weights_come_from() -> None:
    about = json.loads(SHIPPED.read_text("utf-8"))["about"]
    assert about["data"] == "brown"
    assert about["test_accuracy"] >= 0.975
    assert {"seed", "epochs", "rate", "tokens", "dev_accuracy", "seconds", "parameters"} <= set(about)
