"""What the page shows is what the models do: weights against softmax(q·kᵀ/√D), steps against the next token."""

from __future__ import annotations

import base64
import io
import math
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmha.models import bert, causal_lm, mhanet
from mmha.models.bert.looks import attention
from mmha.models.seq2seq import explanation
from mmha.models.seq2seq.text import translate_texts
from mmha.view import gather, looks, page


@pytest.fixture(scope="module")
def models() -> gather.Models:
    return gather.Models()


WORDS = ["The", "old", "man", "the", "boat", "."]


def softmax(q: Tensor, k: Tensor, visible: Tensor | None = None) -> Tensor:
    """From the formula, in float64; q and k (H, T, D)."""
    scores = q.double() @ k.double().transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (scores if visible is None else scores.masked_fill(~visible, -math.inf)).softmax(-1).nan_to_num(0.0)


def dense(rows: Sequence[Any], columns: int) -> Tensor:
    """The numbers of a page as a tensor again."""
    if rows and isinstance(rows[0], list) and isinstance((rows[0] or [0])[0], list):
        return torch.stack([dense(part, columns) for part in rows])
    return torch.tensor([[*row, *[0] * (columns - len(row))] for row in rows], dtype=torch.float64) / 1000


@torch.no_grad()
def test_the_tagger_looks_as_the_formula_says(models: gather.Models) -> None:
    model = models.get("tagger")
    look = looks.tagged(model, WORDS)
    n, heads = len(WORDS), model.config.heads
    assert look["labels"] == model.tag([WORDS])[0]
    weights = dense(look["weights"], n)
    assert weights.shape == (model.config.layers, heads, n, n)
    words, pieces, lengths = model.encode([WORDS])
    block = model.blocks[0]
    q, k, _ = block.attention.split(block.norm_attention(model.embed(words, pieces, lengths)))  # type: ignore
    offset = torch.arange(n) - torch.arange(n)[:, None]
    visible = torch.stack(
        [offset == tap for tap in model.config.taps] + [offset > -n] * (heads - len(model.config.taps))
    )
    assert torch.allclose(weights[0], softmax(q[0], k[0], visible), atol=6e-4)


@torch.no_grad()
def test_every_layer_of_a_bert_looks_as_the_formula_says() -> None:
    torch.manual_seed(3)
    model = bert.Bert(bert.Config(13, width=15, layers=4, heads=3, hidden=19, positions=11, groups=2)).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    tokens = torch.tensor([3, 5, 7, 11, 2, 0, 1])
    found = attention(model, tokens, [4, 3])
    x = model.embedding(tokens, torch.tensor([0, 1, 2, 3, 0, 1, 2]), None)
    visible = torch.block_diag(torch.ones(4, 4), torch.ones(3, 3)).bool()
    for number in range(4):
        layer = model.layers[number // 2]
        q, k = torch.nn.functional.linear(x, layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias)[
            :, :30
        ].split(15, 1)  # type: ignore
        q, k = (part.view(7, 3, 5).transpose(0, 1) for part in (q, k))
        assert torch.allclose(found[number].double(), softmax(q, k, visible), atol=1e-5)
        x = layer(x, visible.logical_not())


def test_a_masked_word_has_its_filling_below_it(models: gather.Models) -> None:
    model, tokenizer = models.get("bert")
    look = looks.encoded(model, tokenizer, "the [MASK] sat")
    best = bert.fill(model, tokenizer, ["the [MASK] sat"], 1)[0].blanks[0]
    assert look["rows"][best.position] == "[MASK]"
    assert look["labels"][best.position].startswith(best.candidates[0].token)
    assert looks.encoded(model, tokenizer, "the cat sat")["labels"] is None


def test_step_n_sees_n_tokens_and_goes_on_as_the_model_does(models: gather.Models) -> None:
    model, tokenizer = models.get("causal_lm")
    text = looks.generated(model, tokenizer, "I have a dream", 3)
    ids = tokenizer.encode("I have a dream")
    n = len(ids) + 3
    assert text["prompt"] == len(ids)
    assert len(text["tokens"]) == len(text["steps"]) == n
    weights = dense(text["weights"], n)
    assert torch.equal(weights, weights.tril())
    assert torch.allclose(weights.sum(-1), torch.ones(()).double(), atol=0.5e-3 * n)
    for number in range(len(ids), n):  # what was written is the most probable, by the model read once more
        with torch.no_grad():
            probabilities = model(torch.tensor([ids]))[0, -1].double().softmax(-1)
        ids.append(int(probabilities.argmax()))
        token, chance, rank = text["steps"][number - 1]["next"]
        assert (token, rank) == (text["tokens"][number], 0)
        assert chance == pytest.approx(1000 * float(probabilities.max()), abs=0.06)
    assert text["steps"][-1]["next"] is None


def test_a_translation_looks_at_the_words_of_its_source(models: gather.Models) -> None:
    model, tokenizer = models.get("seq2seq")
    look = looks.translated(model, tokenizer, " Open the file. ")
    assert look["columns"] == ["Open", "the", "file", ".", "<end>"]
    weights = dense(look["weights"], 5)
    assert torch.allclose(weights.sum(-1), torch.ones(()).double(), atol=3e-3)
    best = next(translate_texts(model, tokenizer, ["Open the file."])).wordings[0]
    every = explanation.attention(model, tokenizer.encode("Open the file."), best.tokens)
    assert torch.allclose(weights[:, :, -1, -1], every[:, :, -1, -1].double(), atol=6e-4)  # the ends are one token each


def test_a_recording_has_its_spectra_its_gains_and_weights_that_look_back(models: gather.Models) -> None:
    sound = torch.randn(256 * 37, generator=torch.Generator().manual_seed(5)) * 0.1
    enhancer = mhanet.Enhancer(models.get("mhanet"))
    found = looks.recorded(enhancer, sound)
    frames, reach = found["frames"], found["reach"]
    assert (frames, reach) == (38, 38)

    def numbers(text: str, width: int) -> Tensor:
        return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8).view(frames, width).double() / 255

    spectrum = torch.fft.rfft(sound[256 * 10 : 256 * 12] * torch.hamming_window(512, periodic=False)).abs()
    decibels = (numbers(found["level"], 257)[11] - 1) * found["range"]  # frame 0 begins half a frame before the sound
    assert torch.allclose(decibels - decibels.max(), (20 * (spectrum / spectrum.max()).log10()).double(), atol=0.3)
    gain = 10 ** ((numbers(found["gain"], 257) - 1) * found["depth"] / 20)
    assert torch.allclose(gain, mhanet.look(enhancer, sound).gain.clamp(0.01, 1).double(), rtol=0.02)
    for block in found["back"]:
        weights = numbers(block, reach) ** 2
        assert torch.allclose(weights.sum(1), torch.ones(()).double(), atol=0.03)
        assert torch.equal(weights, weights.tril())  # no frame looks at what was before the first
    clean = enhancer.enhance(sound, rate=16000)
    for name, heard in (("before", sound), ("after", clean)):
        with wave.open(io.BytesIO(base64.b64decode(found["sounds"][name]))) as file:
            assert file.getparams()[:3] == (1, 2, 16000)
            samples = torch.frombuffer(bytearray(file.readframes(99999)), dtype=torch.int16) / 32767
        assert torch.allclose(samples, heard, atol=2e-5)
    loud = looks.recorded(enhancer, 20 * sound)["sounds"]
    with wave.open(io.BytesIO(base64.b64decode(loud["before"]))) as file:  # made quieter, and not clipped
        assert torch.frombuffer(bytearray(file.readframes(99999)), dtype=torch.int16).abs().eq(32767).sum() <= 1
    with pytest.raises(ValueError, match=r"`recording`: expected at least 256 samples at 16000 Hz, got 255"):
        looks.recorded(enhancer, sound[:255])


def test_what_a_page_has_no_room_for_is_refused(models: gather.Models) -> None:
    with pytest.raises(ValueError, match=r"`--sentence`: expected 1 to 64 words, got 65 words"):
        looks.tagged(models.get("tagger"), ["a"] * 65, "--sentence")
    with pytest.raises(ValueError, match=r"`sentence`: expected 1 to 64 words, got 0 words"):
        looks.tagged(models.get("tagger"), [])
    with pytest.raises(ValueError, match=r"`source`: expected 1 to 64 tokens, got 0 tokens"):
        looks.translated(*models.get("seq2seq"), "  ")


def test_the_page_of_shipped_models_is_small(models: gather.Models) -> None:
    longest = gather.Texts(sentence=" ".join(["word"] * 60), prompt="I have a dream " * 5, source="Open the file. " * 9)
    built = page.build(gather.gather(models, longest)).encode()
    assert 300_000 < len(built) < 2_000_000


def test_models_are_known_by_what_their_files_say(models: gather.Models, tmp_path: Path) -> None:
    found = gather.placed([gather.SHIPPED / "bert.json"])
    assert found == gather.DEFAULTS
    with pytest.raises(ValueError, match="one model of a kind, got two of kind 'bert'"):
        gather.placed([gather.SHIPPED / "bert.json", gather.SHIPPED / "bert.json"])
    with pytest.raises(
        FileNotFoundError, match=r"expected one of tagger.json, bert.json, causal_lm.json, seq2seq.json or mhanet.json"
    ):
        gather.placed([tmp_path])
    causal_lm.save(*models.get("causal_lm"), tmp_path / "causal_lm.json", {})
    assert gather.placed([tmp_path])["causal_lm"] == tmp_path / "causal_lm.json"
