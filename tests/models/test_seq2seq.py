"""The encoder–decoder: torch.nn's transformer with the same weights, what it must not see, sizes, files, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmha import checkpoint
from mmha.models.seq2seq import Config, Seq2Seq, Tokenizer, base, big, load, save, tiny
from mmha.models.seq2seq.model import cross_mask
from seq2seq_twins import SIZES, Twin, build

SOURCES, TARGETS = [5, 1, 11, 3], [7, 2, 1, 13]
WORDS = 41


def tokens(lengths: list[int], seed: int = 7) -> Tensor:
    return torch.randint(0, WORDS, (sum(lengths),), generator=torch.Generator().manual_seed(seed))


def padded(row: Tensor, lengths: list[int]) -> Tensor:
    """Side by side, and tokens of another sentence where nothing stands."""
    out = torch.full((len(lengths), max(lengths)), 13)
    for to, part in zip(out, row.split(lengths), strict=True):
        to[: len(part)] = part
    return out


@pytest.mark.parametrize("norm_first", [False, True])
def test_it_is_torchs_transformer(norm_first: bool) -> None:
    model = build(WORDS, norm_first)
    source, target = tokens(SOURCES), tokens(TARGETS, 8)
    wanted = Twin(model)(padded(source, SOURCES), SOURCES, padded(target, TARGETS))
    packed = model(source, SOURCES, target, TARGETS)
    exact = torch.cat([row[:n] for row, n in zip(wanted, TARGETS, strict=True)]).detach()
    torch.testing.assert_close(packed.double(), exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max()))
    beside = model(padded(source, SOURCES), SOURCES, padded(target, TARGETS), TARGETS)
    assert torch.equal(torch.cat([row[:n] for row, n in zip(beside, TARGETS, strict=True)]), packed)
    assert not beside[1, 2:].any()


@pytest.mark.parametrize("norm_first", [False, True])
def test_gradients_are_those_of_torchs_transformer(norm_first: bool) -> None:
    model = build(WORDS, norm_first)
    twin = Twin(model)
    source, target = tokens(SOURCES), tokens(TARGETS, 8)
    table = twin.table.detach().requires_grad_()
    twin.table = table
    wanted = twin(padded(source, SOURCES), SOURCES, padded(target, TARGETS))
    torch.stack([row[:n].square().sum() for row, n in zip(wanted, TARGETS, strict=True)]).sum().backward()
    model(source, SOURCES, target, TARGETS).square().sum().backward()
    assert table.grad is not None
    scale = float(table.grad.abs().max())
    torch.testing.assert_close(model.embedding.weight.grad.double(), table.grad, rtol=1e-4, atol=1e-5 * scale)
    exact = twin.body.decoder.layers[0].multihead_attn.in_proj_weight.grad
    ours = model.decoder[0].cross.in_proj_weight.grad.double()
    torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


def test_sentences_of_a_row_are_as_alone() -> None:
    model = build(WORDS)
    source, target = tokens(SOURCES), tokens(TARGETS, 8)
    together = model(source, SOURCES, target, TARGETS).split(TARGETS)
    for s, t, found in zip(source.split(SOURCES), target.split(TARGETS), together, strict=True):
        torch.testing.assert_close(found, model(s, [len(s)], t, [len(t)]), rtol=1e-5, atol=1e-5)


def test_a_token_sees_its_source_and_nothing_that_follows() -> None:
    model = build(WORDS)
    source, target = tokens([7]), tokens([11], 8)
    known = model(source, [7], target, [11])
    later = torch.cat((target[:5], tokens([6], 9)))
    assert torch.equal(model(source, [7], later, [11])[:5], known[:5])
    assert not torch.allclose(model(source, [7], later, [11])[5:], known[5:])
    other = torch.cat((source[:6], (source[6:] + 1) % WORDS))
    assert not torch.allclose(model(other, [7], target, [11])[0], known[0])


def test_sentences_without_tokens_are_fine() -> None:
    model = build(WORDS)
    source, target = tokens([3, 4]), tokens([2, 5], 8)
    whole = model(source, [3, 4], target, [2, 5])
    torch.testing.assert_close(model(source, [3, 0, 4], target, [2, 0, 5]), whole, rtol=1e-5, atol=1e-5)
    alone = model(source, [3, 4], target[:2], [0, 2])
    torch.testing.assert_close(alone, model(source[3:], [4], target[:2], [2]), rtol=1e-5, atol=1e-5)
    unsourced = model(source[:0], [0], target, [7])  # nothing to see is defined: attention gives 0
    assert unsourced.isfinite().all()
    empty = torch.zeros(0, dtype=torch.int64)
    assert model(empty, [], empty, []).shape == (0, WORDS)
    assert model(empty.view(0, 5), [], empty.view(0, 3), []).shape == (0, 3, WORDS)


def test_the_source_of_each_sentence_is_visible_to_it_alone() -> None:
    sources, targets = [3, 0, 2, 5], [2, 3, 0, 1]
    of_target = torch.arange(4).repeat_interleave(torch.tensor(targets))
    of_source = torch.arange(4).repeat_interleave(torch.tensor(sources))
    found = cross_mask(targets, sources).dense(1, 1, 6, 10)
    assert torch.equal(found[0, 0], of_target[:, None] == of_source)


def test_dropout_is_drawn_in_training_alone() -> None:
    config = Config(WORDS, **{**SIZES, "dropout": 0.3, "attention_dropout": 0.2})  # type: ignore[arg-type]
    model, batch = Seq2Seq(config), (tokens(SOURCES), SOURCES, tokens(TARGETS, 8), TARGETS)
    torch.manual_seed(5)
    first, second = model(*batch), model(*batch)
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(model(*batch), first)
    assert {model.decoder[0].own.dropout, model.encoder[0].own.dropout, model.decoder[1].cross.dropout} == {0.2}
    model.eval()
    assert torch.equal(model(*batch), model(*batch))


def test_sizes_are_the_published_ones() -> None:
    """Table 3 has 65 and 213 million for a vocabulary of about 37 000."""
    assert base().parameters == 63_082_496
    assert big().parameters == 214_245_376
    for config in (base(), big(), tiny(WORDS), Config(WORDS, **SIZES, norm_first=True)):  # type: ignore[arg-type]
        with torch.device("meta"):
            model = Seq2Seq(config)
        assert sum(p.numel() for p in model.parameters()) == config.parameters


def test_embeddings_begin_with_the_size_of_positions() -> None:
    model = Seq2Seq(Config(499, 64, 1, 1, 1, 1, dropout=0.0))
    x = model.embed(torch.arange(499), torch.zeros(499, dtype=torch.int64)).detach()
    assert float(x[:, ::2].std()) == pytest.approx(1.0, abs=0.03)  # sin 0 = 0: the embedding alone
    assert model.end == 498


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"heads": 3}, ValueError, "`width`: expected a multiple of heads = 3, got 28"),
        ({"width": 21}, ValueError, "`width`: expected an even number, for sines and cosines, got 21"),
        ({"decoder_layers": 0}, ValueError, "`decoder_layers`: expected an integer >= 1, got 0"),
        ({"dropout": 1.0}, ValueError, "`dropout`: expected a number in [0, 1), got 1.0"),
        ({"attention_dropout": -0.1}, ValueError, "`attention_dropout`: expected a number in [0, 1), got -0.1"),
        ({"norm_first": 1}, TypeError, "`norm_first`: expected True or False, got 1"),
    ],
)
def test_sizes_must_fit_together(change: dict[str, float], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        Config(WORDS, **{**SIZES, **change})  # type: ignore[arg-type]
    assert str(caught.value) == message


X = torch.zeros(5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X.float(), [5], X, [5]), TypeError, "`source`: expected a tensor of int64 or int32, got float32"),
        ((X, [5], X[None, None], [5]), ValueError, "`target`: expected shape (N,) or (B, T), got (1, 1, 5)"),
        ((X + WORDS, [5], X, [5]), ValueError, "`source`: expected numbers from 0 to 40, got 41 to 41"),
        ((X, [5], X - 1, [5]), ValueError, "`target`: expected numbers from 0 to 40, got -1 to -1"),
        ((X, [4], X, [5]), ValueError, "`source_lengths`: expected lengths of sum N = 5, got 4"),
        ((X, [-1, 6], X, [5]), ValueError, "`source_lengths`: expected an integer >= 0, got -1"),
        ((X, [5], X, [2, 3]), ValueError, "`target_lengths`: expected B = 1 integers, got 2"),
        ((X, [5], X[None], [6]), ValueError, "`target_lengths`: expected integers <= T = 5, got 6"),
        ((X, [5], X[None], [2, 2]), ValueError, "`target_lengths`: expected shape (B,) = (1,), got (2,)"),
    ],
)  # fmt: skip
def test_bad_input_is_named(arguments: tuple[Tensor, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        build(WORDS)(*arguments)
    assert str(caught.value) == message


TOKENIZER = Tokenizer([("t", "h"), ("th", "e"), ("Ġ", "a"), ("r", "e"), ("Ġa", "re"), ("e", "r")])
SMALL = Config(263, **SIZES)  # type: ignore[arg-type]


def test_matrices_are_stored_in_8_bits_when_asked(tmp_path: Path) -> None:
    torch.manual_seed(4)
    model = Seq2Seq(tiny(257))
    save(model, Tokenizer([]), tmp_path / "seq2seq.json", {}, bits=8)
    found, _ = load(tmp_path)
    for name, weight in model.state_dict().items():
        step = weight.abs().amax(-1, keepdim=True) / 127 if weight.ndim == 2 else weight.abs() * 2.0**-10
        assert ((found.state_dict()[name] - weight).abs() <= step * 0.51).all(), name
    assert next(tmp_path.glob("*.safetensors")).stat().st_size < 1.5 * model.config.parameters
    with pytest.raises(ValueError, match="`bits`: expected 8 or 16, got 4"):
        save(model, Tokenizer([]), tmp_path / "seq2seq.json", {}, bits=4)


def test_a_saved_model_comes_back_rounded_to_16_bits(tmp_path: Path) -> None:
    model = Seq2Seq(SMALL)
    save(model, TOKENIZER, tmp_path / "seq2seq.json", {"note": "é"}, "seq2seq.safetensors")
    for place in (tmp_path, tmp_path / "seq2seq.json", str(tmp_path)):
        found, tokenizer = load(place)
        assert found.config == model.config
        assert tokenizer.merges == TOKENIZER.merges
        for name, weight in model.state_dict().items():
            assert torch.equal(found.state_dict()[name], weight.half().float())
    assert json.loads((tmp_path / "seq2seq.json").read_text("utf-8"))["about"] == {"note": "é"}
    assert not found.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "tagger"}, "expected an encoder-decoder, got 'tagger'"),
        ({"config": {"speed": 3}}, "expected sizes of an encoder-decoder, got dict {'speed': 3}"),
        ({"config": {"width": 3}}, "expected sizes that fit together, got others"),
        ({"config": {**vars(SMALL), "heads": 3}}, "expected sizes that fit together, got others (`width`"),
        (
            {"config": {**vars(SMALL), "encoder_layers": 10**9}},
            "expected 5497000024966 weights for these sizes, got 41457",
        ),
        ({"config": {**vars(SMALL), "vocabulary": 264}}, "expected 264 tokens, got 263"),
        ({"merges": "t h\nx yz"}, "expected the pairs of a tokenizer, got others"),
        ({"merges": 7}, "expected the pairs of a tokenizer, got others"),
    ],
)
def test_a_changed_file_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "seq2seq.json"
    save(Seq2Seq(SMALL), TOKENIZER, path, {})
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_other_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "seq2seq.json"
    save(Seq2Seq(SMALL), TOKENIZER, path, {})
    document, state = checkpoint.load(path)
    renamed = {name.replace("cross", "across"): weight for name, weight in state.items()}
    checkpoint.save(path, renamed, {k: v for k, v in document.items() if k not in ("tensors", "sha256")})
    with pytest.raises(ValueError, match="expected the weights of these sizes, got others"):
        load(path)
