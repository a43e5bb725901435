"""MAMSM: against transformers' BERT with the same weights, against the formulas in float64, and values as tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmha.models import mamsm
from mmha.models.mamsm import CLS, MAMSM, SEP, SPECIAL, Config, Scale, frame

CONFIG = Config(vocabulary=101, width=22, layers=3, heads=2, head_dim=7, hidden=17, positions=31, segments=2)


def made(config: Config, seed: int = 1) -> MAMSM:
    """A model whose weights are all far from 0 and 1, biases and norms too."""
    torch.manual_seed(seed)
    model = MAMSM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model


def norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    scaled = x / (x.square().mean(-1, keepdim=True) + 1e-12).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def by_hand(model: MAMSM, tokens: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
    """One sequence in float64: what the last layer says, and the first row of its attention, (heads, T)."""
    c, w = model.config, {name: weight.double() for name, weight in model.state_dict().items()}

    def apply(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    at = torch.arange(len(tokens))
    parts = ("tokens", tokens), ("positions", at), ("segments", segments)
    x = norm(sum(w[f"embedding.{name}.weight"][ids] for name, ids in parts), w, "embedding.norm")  # type: ignore[arg-type]
    visible = torch.ones(len(at), len(at), dtype=torch.bool)
    if c.window is not None:
        visible = ((at[:, None] - at).abs() <= c.window) | (at[:, None] == 0) | (at == 0)
    for i in range(c.layers):
        name = f"layers.{i}"
        q, k, v = apply(x, f"{name}.attention.project_in").view(-1, 3, c.heads, c.head_dim).permute(1, 2, 0, 3)
        p = (q @ k.mT / c.head_dim**0.5).masked_fill(~visible, -torch.inf).softmax(-1)
        heads = (p @ v).permute(1, 0, 2).flatten(1)
        x = norm(x + apply(heads, f"{name}.attention.project_out"), w, f"{name}.norm_attention")
        fed = apply(gelu(apply(x, f"{name}.feed_forward.up")), f"{name}.feed_forward.down")
        x = fed if c.faithful else norm(x + fed, w, f"{name}.norm_feed_forward")
    return x, p[:, 0]


@pytest.mark.parametrize("change", [{}, {"faithful": True}, {"window": 3}, {"window": 0, "faithful": True}])
def test_the_model_is_its_formulas(change: dict[str, Any]) -> None:
    model = made(replace(CONFIG, **change))
    draw = torch.Generator().manual_seed(2)
    sequences = [frame(torch.randint(SPECIAL, 101, (1, n), generator=draw))[0] for n in (11, 1, 0, 5)]
    segments = [torch.randint(0, 2, (len(s),), generator=draw) for s in sequences]
    hidden = model(torch.cat(sequences), [len(s) for s in sequences], torch.cat(segments))
    wanted = [by_hand(model, s, g)[0] for s, g in zip(sequences, segments, strict=True)]
    torch.testing.assert_close(hidden.double(), torch.cat(wanted), rtol=3e-5, atol=3e-5)
    plain = [by_hand(model, s, torch.zeros_like(s))[1][:, 1:-1] for s in (sequences[0], sequences[0].flip(0).clamp(5))]
    rows = model.attention_of_cls(torch.stack([sequences[0][1:-1], sequences[0].flip(0).clamp(5)[1:-1]]))
    torch.testing.assert_close(rows[0].double(), plain[0], rtol=3e-5, atol=3e-5)
    assert rows.shape == (2, 2, 11)
    assert (rows.sum(-1) < 1).all()


def test_no_values_and_no_series() -> None:
    model = made(CONFIG)
    assert model(torch.zeros(0, dtype=torch.int64), []).shape == (0, 22)
    assert model.attention_of_cls(torch.zeros(0, 5, dtype=torch.int64)).shape == (0, 2, 5)
    assert model.attention_of_cls(torch.zeros(3, 0, dtype=torch.int64)).shape == (3, 2, 0)


def test_the_same_as_transformers_with_the_same_weights() -> None:
    transformers = pytest.importorskip("transformers")
    config = replace(CONFIG, width=14, segments=1)
    model = made(config)
    sizes = transformers.BertConfig(
        vocab_size=101, hidden_size=14, num_hidden_layers=3, num_attention_heads=2, intermediate_size=17,
        max_position_embeddings=31, type_vocab_size=1, hidden_act="gelu",
    )  # fmt: skip
    peer = transformers.BertForMaskedLM(sizes).eval()
    own, theirs = model.state_dict(), dict(peer.named_parameters())
    names = {"tokens": "word_embeddings", "positions": "position_embeddings", "segments": "token_type_embeddings"}
    copies = {f"bert.embeddings.{theirs}.weight": own[f"embedding.{ours}.weight"] for ours, theirs in names.items()}
    pairs = {"bert.embeddings.LayerNorm": "embedding.norm", "cls.predictions.transform.dense": "head.dense"}
    pairs["cls.predictions.transform.LayerNorm"] = "head.norm"
    for i in range(3):
        there, here = f"bert.encoder.layer.{i}", f"layers.{i}"
        pairs |= {
            f"{there}.attention.output.dense": f"{here}.attention.project_out",
            f"{there}.attention.output.LayerNorm": f"{here}.norm_attention",
            f"{there}.intermediate.dense": f"{here}.feed_forward.up",
            f"{there}.output.dense": f"{here}.feed_forward.down",
            f"{there}.output.LayerNorm": f"{here}.norm_feed_forward",
        }
        for kind in ("weight", "bias"):
            parts = own[f"{here}.attention.project_in.{kind}"].chunk(3)
            for name, part in zip(("query", "key", "value"), parts, strict=True):
                copies[f"{there}.attention.self.{name}.{kind}"] = part
    for there, here in pairs.items():
        copies |= {f"{there}.{kind}": own[f"{here}.{kind}"] for kind in ("weight", "bias")}
    copies["cls.predictions.bias"] = own["head.bias"]
    assert set(theirs) == set(copies)
    with torch.no_grad():
        for name, weight in copies.items():
            theirs[name].copy_(weight)
    lengths = [13, 7]
    padded = torch.randint(SPECIAL, 101, (2, 13))
    real = torch.arange(13) < torch.tensor(lengths)[:, None]
    wanted = peer(input_ids=padded, attention_mask=real.long()).logits[real]
    found = model.values(model(padded[real], lengths))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_scale_is_its_closed_form() -> None:
    values = np.random.default_rng(3).normal(size=(7, 13))
    scale = Scale.of(values, step=0.001)
    assert (scale.low, scale.high, scale.vocabulary) == (values.min(), values.max(), 1005)
    tokens = scale.encode(values)
    wanted = np.rint(1000 * (values - values.min()) / (values.max() - values.min())).astype(int) + 4
    np.testing.assert_array_equal(tokens.numpy(), wanted)
    assert (tokens.min(), tokens.max()) == (4, 1004)
    assert abs(scale.decode(tokens).numpy() - values).max() <= 0.5e-3 * (scale.high - scale.low) + 1e-6
    assert scale.encode([-99.0, 99.0]).tolist() == [4, 1004]
    assert scale.encode(np.zeros((0, 3))).shape == (0, 3)
    assert frame(tokens).shape == (7, 15)
    assert frame(tokens)[:, [0, -1]].tolist() == [[CLS, SEP]] * 7


def test_what_is_no_scale_is_refused() -> None:
    for make, said in (
        (lambda: Scale(1.0, 1.0), r"^`high`: expected a number above low = 1, got 1\.0$"),
        (lambda: Scale(0.0, 1.0, 0.3), r"^`step`: expected 1 / n of the range, n a whole number, got 0\.3$"),
        (lambda: Scale(0.0, 1.0, 0.0), r"^`step`: expected 1 / n"),
        (lambda: Scale.of(np.array([])), r"^`values`: expected at least two values, got none$"),
        (lambda: Scale.of(np.array([1.0, np.nan])), r"^`low`: expected a finite number, got nan$"),
        (lambda: Scale(0.0, 1.0).encode([np.nan]), r"^`values`: expected numbers, got NaN$"),
        (lambda: Scale(0.0, 1.0).decode([3, 9]), r"^`tokens`: expected tokens of values, 4 to 1004, got 3 to 9$"),
    ):
        with pytest.raises(ValueError, match=said):
            make()


def test_sizes_are_counted_and_checked() -> None:
    for config in (CONFIG, replace(CONFIG, faithful=True), mamsm.published(positions=53), mamsm.small(97)):
        assert config.parameters == sum(p.numel() for p in MAMSM(config).parameters())
    assert (mamsm.published().vocabulary, mamsm.published().heads * mamsm.published().head_dim) == (1005, 384)
    for change, said in (
        ({"heads": 0}, r"^`heads`: expected an integer >= 1, got 0$"),
        ({"window": -1}, r"^`window`: expected an integer >= 0, got -1$"),
        ({"dropout": 1.0}, r"^`dropout`: expected a number in \[0, 1\), got 1\.0$"),
        ({"vocabulary": 4}, r"^`vocabulary`: expected an integer >= 5, got 4$"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(CONFIG, **change)
    with pytest.raises(TypeError, match=r"^`faithful`: expected True or False, got 1$"):
        replace(CONFIG, faithful=1)  # type: ignore[arg-type]


def test_tokens_that_do_not_fit_are_refused() -> None:
    model = made(CONFIG)
    for call, said in (
        (lambda: model(torch.tensor([101]), [1]), r"^`tokens`: expected numbers from 0 to 100, got 101 to 101$"),
        (lambda: model(torch.zeros(32, dtype=torch.int64), [32]), r"^`lengths`: expected series of at most 31 tokens"),
        (
            lambda: model(torch.zeros(3, dtype=torch.int64), [2]),
            r"^`lengths`: expected lengths of sum N = 3, got sum 2$",
        ),
        (
            lambda: model.attention_of_cls(torch.zeros(3).long()),
            r"^`tokens`: expected 2 dimensions \(B, T\), got \(3,\)$",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(TypeError, match=r"^`tokens`: expected a tensor of int64 or int32, got float32$"):
        model(torch.zeros(1), [1])


def test_near_values_begin_with_near_vectors() -> None:
    torch.manual_seed(4)
    plain = MAMSM(mamsm.small(faithful=True)).embedding.tokens.weight.detach()
    torch.manual_seed(4)
    e = MAMSM(mamsm.small()).embedding.tokens.weight.detach()
    assert torch.equal(e[:SPECIAL], plain[:SPECIAL])
    assert torch.cosine_similarity(plain[SPECIAL:-1], plain[SPECIAL + 1 :]).mean().abs() < 0.1
    assert e[SPECIAL:].std() == pytest.approx(0.02, rel=1e-3)
    cosine = torch.cosine_similarity(e[SPECIAL:-100], e[SPECIAL + 100 :]).mean()
    near = torch.cosine_similarity(e[SPECIAL:-1], e[SPECIAL + 1 :]).mean()
    assert near > 0.99 > 0.9 > cosine


def test_files_give_the_model_back(tmp_path: Path) -> None:
    model, scale = made(CONFIG), Scale(-2.0, 3.0, 1 / 96)
    mamsm.save(model, scale, tmp_path / "mamsm.json", {"seed": 3})
    again, same = mamsm.load(tmp_path)
    assert (same, again.config) == (scale, CONFIG)
    assert json.loads((tmp_path / "mamsm.json").read_text())["about"] == {"seed": 3}
    tokens = torch.arange(SPECIAL, 20)
    torch.testing.assert_close(again(tokens, [16]), model(tokens, [16]), rtol=3e-2, atol=3e-2)
    document = json.loads((tmp_path / "mamsm.json").read_text())
    for change, said in (
        ({"model": "bert"}, r"mamsm\.json: expected a MAMSM, got 'bert'$"),
        ({"scale": {"low": 1}}, r"mamsm\.json: expected a scale of values, got dict"),
        ({"scale": {"low": 0.0, "high": 1.0}}, r"mamsm\.json: expected a scale of 101 tokens, got 1005$"),
        ({"config": {"width": 3}}, r"mamsm\.json: expected sizes that fit together, got others"),
        ({"config": document["config"] | {"hidden": 10**9}}, r"mamsm\.json: expected \d+ weights for these sizes, got"),
    ):
        (tmp_path / "mamsm.json").write_text(json.dumps(document | change))
        with pytest.raises(ValueError, match=said):
            mamsm.load(tmp_path)
