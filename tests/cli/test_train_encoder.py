"""`mmha train tagger --encoder`: a BERT learns to tag, pretrained or not, on a part of the data; and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmha.cli import app
from mmha.data.conllu import block_of
from mmha.models import bert
from mmha.models.bert import Bert, Config, Tokenizer
from mmha.models.bert import tagging as models

WORDS = ("the", "dogs", "runs", "!")
TAGS = ("DET", "NOUN", "VERB", "PUNCT")
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "dog", "cat", "run", "##s", "!"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def treebank(tmp_path: Path) -> Path:
    path = tmp_path / "bank.conllu"
    path.write_text(
        "".join(block_of((*WORDS[:1], ("dogs", "cats")[i % 2], *WORDS[2:])).tagged(TAGS) for i in range(41))
    )
    return path


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    model = Bert(Config(len(PIECES), width=12, layers=2, heads=3, hidden=17, positions=13))
    bert.save(model, Tokenizer.of(PIECES), tmp_path / "encoder.json", {})
    return tmp_path / "encoder.json"


def command(treebank: Path, out: Path, *options: str) -> list[str]:
    files = ["--train", str(treebank), "--dev", str(treebank), "--test", str(treebank)]
    return ["train", "tagger", "--out", str(out), "--tokens", "32", "--json", *files, *options]


def test_an_encoder_learns_to_tag(
    treebank: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--encoder", str(encoder), "--rate", "0.02", "--head-rate", "0.03", "--epochs", "9"]
    assert app.run(command(treebank, tmp_path / "out", *options)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["test_accuracy"] == 1.0
    assert (result["rate"], result["head_rate"], result["from_scratch"]) == (0.02, 0.03, False)
    assert app.run(["tag", "the cats runs!", "--model", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == "the/DET  cats/NOUN  runs/VERB  !/PUNCT\n"
    assert app.run(["tag", str(treebank), "--score", "--model", result["model"]]) == 0
    assert capsys.readouterr().out == "100.00 % (164 of 164)\n"
    assert app.run(["tag", "the cats runs!", "--model", str(tmp_path / "out"), "--attention", "--json"]) == 0
    (drawn,) = json.loads(capsys.readouterr().out)
    assert [sum(row) for row in drawn["attention"]] == pytest.approx([1.0] * 4, abs=1e-5)


def test_it_starts_from_the_encoder_or_from_scratch(
    treebank: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = bert.load(encoder)[0].state_dict()
    moved = {}
    for option in ([], ["--from-scratch"]):
        out = tmp_path / f"out{len(option)}"
        options = ["--encoder", str(encoder), "--rate", "1e-9", "--head-rate", "0.01", "--epochs", "1", *option]
        assert app.run(command(treebank, out, *options)) == 0
        assert json.loads(capsys.readouterr().out)["from_scratch"] is bool(option)
        model = models.load(out / "tagger.json")
        assert float(model.head.bias.detach().abs().max()) > 1e-3  # began at 0, at a rate of its own
        state = model.encoder.state_dict()
        moved[bool(option)] = max(float((start[k] - v).abs().max()) for k, v in state.items())
    assert moved[False] < 1e-6
    assert moved[True] > 1e-2


def test_a_share_is_a_part_of_what_is_trained_and_chosen_on(
    treebank: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--encoder", str(encoder), "--share", "0.1", "--epochs", "1"]
    assert app.run(command(treebank, tmp_path / "out", *options)) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["share"], result["train_words"]) == (0.1, 16)
    state = json.loads((tmp_path / "out" / "state.json").read_text())
    assert state["progress"]["steps"] == 1
    assert app.run(command(treebank, tmp_path / "out", *options[:-3], "0.2", "--epochs", "1", "--resume")) == 2
    assert "expected a run with digest = " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from-scratch"], "--from-scratch: expected it with --encoder, got it alone"),
        (["--head-rate", "1"], "--head-rate: expected it with --encoder, got it alone"),
        (["--encoder", "{encoder}", "--size", "base"], "--size: expected it without --encoder, got both"),
        (["--encoder", "{encoder}", "--head-rate", "0"], "`head_rate`: expected a learning rate > 0, got 0.0"),
        (["--share", "0"], "`share`: expected a number above 0 and at most 1, got 0.0"),
        (["--share", "1.5"], "`share`: expected a number above 0 and at most 1, got 1.5"),
        (
            ["--encoder", "nowhere"],
            "--encoder: expected a file, a folder, shipped, albert-rxn or minilm, got 'nowhere'",
        ),
        (["--encoder", "{treebank}"], "{treebank}: expected a checkpoint, got a damaged document"),
    ],
)
def test_bad_options_are_one_line(
    options: list[str], message: str, treebank: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"encoder": str(encoder), "treebank": str(treebank)}
    given = [option.format(**names) for option in options]
    assert app.run(command(treebank, tmp_path / "out", *given)) == 2
    said = capsys.readouterr()
    assert said.err.startswith("mmha: " + message.format(**names))
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_damaged_tagger_on_an_encoder_is_one_line(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = bert.load(encoder)
    models.save(models.Tagger(model, tokenizer, TAGS), tmp_path / "tagger.json", {}, "tagger.safetensors")
    document = json.loads((tmp_path / "tagger.json").read_text())
    (tmp_path / "tagger.json").write_text(json.dumps(document | {"tags": 3}))
    for extra in ([], ["--attention"]):
        assert app.run(["tag", "the dogs", "--model", str(tmp_path), *extra]) == 2
        assert capsys.readouterr().err == f"mmha: {tmp_path / 'tagger.json'}: expected a list of tags, got 3\n"
    torch.save({}, tmp_path / "tagger.safetensors")
    assert app.run(["tag", "the dogs", "--model", str(tmp_path)]) == 2
    assert "expected the tensors that tagger.json names, got a damaged file" in capsys.readouterr().err
