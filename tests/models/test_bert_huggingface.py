"""Folders of transformers: the same outputs there and back, and every damaged file refused in one line."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bert_twins import LENGTHS, PIECES, assert_same, batch, made, ours, saved, theirs
from mmha.models.bert import Bert, Config, Tokenizer, load, load_huggingface, save_huggingface

PARTS = {
    "BertModel": ("pooler",),
    "BertForMaskedLM": ("words",),
    "BertForPreTraining": ("pooler", "words", "next"),
    "AlbertModel": ("pooler",),
    "AlbertForMaskedLM": ("words",),
    "AlbertForPreTraining": ("pooler", "words", "next"),
}
OTHER_SIZES: dict[str, dict[str, Any]] = {
    "BertForMaskedLM": {"hidden_act": "relu", "type_vocab_size": 3, "layer_norm_eps": 0.01},
    "AlbertForMaskedLM": {"num_hidden_groups": 3, "hidden_act": "gelu"},
    "AlbertModel": {"num_hidden_groups": 2, "embedding_size": 42},
}


@pytest.mark.parametrize("architecture", PARTS)
def test_outputs_are_those_of_transformers_and_come_back(architecture: str, tmp_path: Path) -> None:
    twin = made(architecture, **OTHER_SIZES.get(architecture, {}))
    model, tokenizer = load_huggingface(saved(twin, tmp_path / "theirs"))
    assert model.config.parts == PARTS[architecture]
    assert not model.training
    inputs = batch(LENGTHS, 101)
    expected = theirs(twin, inputs)
    assert_same(ours(model, inputs), expected)
    for row in range(len(LENGTHS)):  # each alone, in a batch of one
        alone = tuple(x[row : row + 1, : LENGTHS[row]] for x in inputs)
        assert_same(ours(model, alone), theirs(twin, alone))
    exact = copy.deepcopy(model).double(), copy.deepcopy(twin).double()
    assert_same(ours(exact[0], inputs), theirs(exact[1], inputs), 1e-11)

    save_huggingface(model, tokenizer, tmp_path / "ours")
    again = getattr(transformers, architecture).from_pretrained(tmp_path / "ours").eval()
    assert again.config.architectures == [architecture]
    assert_same(theirs(again, inputs), expected)
    second, _ = load(tmp_path / "ours" / "config.json")
    assert second.config == model.config
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])


def test_a_pickled_file_with_the_names_of_old_is_the_same_model(tmp_path: Path) -> None:
    twin = made("BertForPreTraining")
    new, _ = load_huggingface(saved(twin, tmp_path / "new"))
    folder = saved(twin, tmp_path / "old", bin=True)
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
        for name, weight in state.items()
        if name != "cls.predictions.bias"  # its other name, cls.predictions.decoder.bias, stays
    }
    old["bert.embeddings.position_ids"] = torch.arange(17)[None]
    for zipped in (True, False):
        torch.save(old, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        found, _ = load_huggingface(folder)
        assert found.config == new.config
        for name, weight in new.state_dict().items():
            assert torch.equal(weight, found.state_dict()[name])


def test_weights_of_16_bits_are_widened(tmp_path: Path) -> None:
    twin = made("BertModel")
    folder = saved(twin.half(), tmp_path / "half")
    model, _ = load_huggingface(folder)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert torch.equal(model.embedding.positions.weight, twin.embeddings.position_embeddings.weight.float())


TEXTS = ("The cat sat then!", "thenn [MASK] É", "")


@pytest.mark.parametrize("lower", [True, False])
def test_the_tokenizer_comes_back_as_transformers_reads_it(lower: bool, tmp_path: Path) -> None:
    folder = saved(made("BertModel"), tmp_path / "theirs")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model, tokenizer = load_huggingface(folder)
    save_huggingface(model, tokenizer, tmp_path / "ours")
    for place in (folder, tmp_path / "ours"):
        theirs = transformers.AutoTokenizer.from_pretrained(place)
        for text in TEXTS:
            ids = theirs(text, "cat")
            whole = [2, *tokenizer.encode(text, markers=True), 3]
            assert ids["input_ids"] == [*whole, *tokenizer.encode("cat"), 3]
            assert ids["token_type_ids"] == [0] * len(whole) + [1, 1]
    assert theirs.model_max_length == 17
    _, again = load_huggingface(tmp_path / "ours")
    assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]


def test_a_tokenizer_that_is_no_wordpiece_is_kept(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Theirs
    from tokenizers import models, pre_tokenizers

    pieces = [
        ("<pad>", 0.0),
        ("<unk>", 0.0),
        ("[CLS]", 0.0),
        ("[SEP]", 0.0),
        ("[MASK]", 0.0),
        ("▁c", -1.0),
        ("at", -2.0),
    ]
    coder = Theirs(models.Unigram(pieces, unk_id=1))
    coder.pre_tokenizer = pre_tokenizers.Metaspace()
    folder = saved(made("AlbertModel"), tmp_path / "theirs")
    coder.save(str(folder / "tokenizer.json"))
    model, tokenizer = load_huggingface(folder)
    assert (tokenizer.pad, tokenizer.encode("cat"), tokenizer.pieces[5]) == (0, [5, 6], "▁c")
    save_huggingface(model, tokenizer, tmp_path / "ours")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert theirs("cat")["input_ids"] == [2, 5, 6, 3]
    assert theirs.mask_token_id == 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(made("BertForMaskedLM"), tmp_path / "folder")


def refused(folder: Path) -> str:
    with pytest.raises((ValueError, OSError)) as caught:
        load_huggingface(folder)
    said = str(caught.value)
    assert "\n" not in said
    assert str(folder) in said
    return said.replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "config.json: expected model_type bert or albert, got str 'llama'"),
        ({"model_type": ["bert"]}, "config.json: expected model_type bert or albert, got list ['bert']"),
        ({"is_decoder": True}, "config.json: expected is_decoder = False, got True"),
        ({"position_embedding_type": "relative_key"}, "config.json: expected position_embedding_type = absolute, go"),
        ({"hidden_size": 41}, "config.json: `hidden_size`: expected a mult"),
        ({"hidden_act": "swish"}, "config.json: `hidden_act`: expected 'ge"),
        ({"vocab_size": "many"}, "config.json: `vocab_size`: expected an"),
        ({"num_hidden_layers": 10**9}, "config.json: `num_hidden_layers`"),
        ({"vocab_size": 10**12}, "model.safetensors: expected 43000000030939 weights for these sizes, got 35282"),
        ({"vocab_size": 7}, "expected at most 7 tokens, got 10"),
        ({"num_hidden_layers": 4}, "model.safetensors: expected a weight bert.encoder.layer.3.attention.self.query."),
        ({"num_hidden_layers": 2}, "model.safetensors: expected only weights that config.json asks for, got bert.en"),
        ({"intermediate_size": 29}, "model.safetensors: expected 36812 weights for these sizes, got 35282"),
        ({"max_position_embeddings": 16, "type_vocab_size": 3}, "model.safetensors: expected the weights of these s"),
    ],
)  # fmt: skip
def test_sizes_that_are_not_those_of_the_file_are_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    said = refused(folder).removeprefix(f"{folder}: ").replace("expected sizes that fit together, got others (", "")
    assert said.startswith(message)


def _untied(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": 0}))
    _rewritten(folder, {"cls.predictions.decoder.weight": torch.zeros(101, 42)})


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _unknown(path: Path) -> None:
    definition = Tokenizer.of(PIECES).definition
    definition["model"]["unk_token"] = "[none]"
    path.write_text(json.dumps(definition))


def _rewritten(folder: Path, changes: dict[str, Any]) -> None:
    state = load_file(folder / "model.safetensors") | changes
    save_file({name: weight for name, weight in state.items() if weight is not None}, folder / "model.safetensors")


def _pickle(folder: Path, content: Any) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")


def _deflated(folder: Path) -> None:
    _pickle(folder, {"a": torch.zeros(10**6)})
    path = folder / "pytorch_model.bin"
    with zipfile.ZipFile(path) as packed:
        records = {name: packed.read(name) for name in packed.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in records.items():
            packed.writestr(name, content)


def _cut_off(folder: Path) -> None:
    _pickle(folder, {"a": torch.zeros(3000)})
    with (folder / "pytorch_model.bin").open("r+b") as stream:
        stream.truncate(5000)


class Payload:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return print, ("executed",)


QUERY = "bert.encoder.layer.1.attention.self.query.weight"
DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda f: (f / "config.json").unlink(), "config.json'"),
    (lambda f: (f / "config.json").write_text("{"), "config.json: expected JSON, got something else (Expecting"),
    (lambda f: (f / "config.json").write_text("[" * 10**5), "config.json: expected JSON, got something else ("),
    (lambda f: (f / "config.json").write_text("[1]"), "config.json: expected a JSON object, got list [1]"),
    (lambda f: (f / "config.json").write_bytes(b'{"\xff'), "config.json: expected UTF-8 text, got byte 0xff"),
    (lambda f: (f / "vocab.txt").unlink(), "expected tokenizer.json or vocab.txt in it, got neither"),
    (lambda f: (f / "vocab.txt").write_text("a\na\n"), "vocab.txt: expected a tokenizer, got another thing (`pieces`"),
    (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json: expected a tokenizer, got another thing ("),
    (lambda f: _folder(f / "model.safetensors"), "model.safetensors'"),
    (lambda f: _folder(f / "vocab.txt"), "vocab.txt'"),
    (lambda f: _unknown(f / "tokenizer.json"), "tokenizer.json: expected a tokenizer, got another thing (`definition`"),
    (lambda f: (f / "model.safetensors").unlink(), "expected model.safetensors or pytorch_model.bin in it, got nei"),
    (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors: expected safetensors, got a damaged"),
    (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 99), "model.safetensors: expected safetensors, got a d"),
    (_untied, "model.safetensors: expected cls.predictions.decoder.weight tied to the embedding, got one of its own"),
    (lambda f: _rewritten(f, {QUERY: None}), f"model.safetensors: expected a weight {QUERY}, got none"),
    (lambda f: _rewritten(f, {QUERY: torch.zeros(42)}), f"model.safetensors: expected {QUERY} and its like of one sh"),
    (lambda f: _rewritten(f, {QUERY: torch.zeros(42, 42).long()}), "model.safetensors: expected floating-point numbe"),
    (lambda f: _rewritten(f, {"cls.predictions.bias": None}), "model.safetensors: expected the weight cls.predictions"),
    (lambda f: _pickle(f, Payload()), "pytorch_model.bin: expected weights written by torch.save, got others ("),
    (lambda f: _pickle(f, {"a": Payload()}), "pytorch_model.bin: expected weights written by torch.save, got others"),
    (lambda f: _pickle(f, [1]), "pytorch_model.bin: expected weights by their names, got list [1]"),
    (lambda f: _pickle(f, {"a": 1}), "pytorch_model.bin: expected weights by their names, got 1 as 'a'"),
    (lambda f: _pickle(f, {"a": torch.zeros(1).expand(10**12)}), "pytorch_model.bin: expected weights of the file's"),
    (_cut_off, "pytorch_model.bin: expected weights written by torch.save, got others ("),
    (_deflated, "pytorch_model.bin: expected weights written by torch.save, got others (4,000,"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(DAMAGES)))
def test_a_damaged_folder_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], case: int) -> None:
    damage, message = DAMAGES[case]
    damage(folder)
    assert message in refused(folder)
    assert capsys.readouterr().out == ""


def test_a_vocabulary_without_end_is_not_read(folder: Path) -> None:
    with (folder / "vocab.txt").open("wb") as stream:
        stream.truncate(2**40)
    assert refused(folder).startswith("vocab.txt: expected at most 67,108,864 bytes, got 1,099,511,627,776")


def test_sizes_that_transformers_has_no_model_for_are_refused(tmp_path: Path) -> None:
    model = Bert(Config(11, 4, 2, 2, 3, groups=1))
    with pytest.raises(
        ValueError, match=r"^`config`: expected layers of their own, or an embedding beside shared ones"
    ):
        save_huggingface(model, Tokenizer.of(PIECES), tmp_path / "x")
    assert not (tmp_path / "x").exists()
