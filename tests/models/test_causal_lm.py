"""The causal language model: its formula, what it must not see, packed documents, the decode, files, and what ships."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmha import checkpoint
from mmha.models.causal_lm import CausalLM, Config, Tokenizer, base, load, save

CONFIG = Config(vocabulary=263, width=42, layers=2, heads=7, kv_heads=7, hidden=23, context=11, rotary_base=97.0)
GROUPED = Config(vocabulary=263, width=60, layers=2, heads=6, kv_heads=2, hidden=23, context=11)


def make(config: Config = GROUPED) -> CausalLM:
    model = CausalLM(config).eval()
    for weight in model.parameters():  # large enough that attention matters
        torch.nn.init.normal_(weight, 1.0 if weight.ndim == 1 else 0.0, 0.2)
    return model


def tokens(*shape: int) -> Tensor:
    return torch.randint(0, 263, shape)


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def by_hand(model: CausalLM, row: Tensor) -> Tensor:
    """Logits (T, vocabulary) in float64 by loops over heads, queries and keys; row (T,)."""
    config, w = model.config, {k: v.double() for k, v in model.state_dict().items()}
    size, length = config.head_dim, len(row)
    x = w["embedding.weight"][row]
    rates = config.rotary_base ** (-2 * torch.arange(size // 2).double() / size)
    turns = torch.polar(torch.ones(length, size // 2).double(), torch.arange(length).double()[:, None] * rates)

    def turned(head: Tensor) -> Tensor:
        number = torch.complex(head[:, : size // 2], head[:, size // 2 :]) * turns
        return torch.cat((number.real, number.imag), -1)

    for n in range(config.layers):
        layer = f"layers.{n}."
        heads = (norm(x, w[layer + "norm_attention.weight"]) @ w[layer + "attention.project_in.weight"].T).split(
            size, -1
        )
        seen = []
        for h in range(config.heads):
            shared = h // (config.heads // config.kv_heads)
            q, k = turned(heads[h]), turned(heads[config.heads + shared])
            v = heads[config.heads + config.kv_heads + shared]
            rows = [((k[: i + 1] @ q[i]) / math.sqrt(size)).softmax(0) @ v[: i + 1] for i in range(length)]
            seen.append(torch.stack(rows))
        x = x + torch.cat(seen, -1) @ w[layer + "attention.project_out.weight"].T
        up = norm(x, w[layer + "norm_feed_forward.weight"]) @ w[layer + "feed_forward.up.weight"].T
        gate, value = up[:, : config.hidden], up[:, config.hidden :]
        x = x + (gate / (1 + (-gate).exp()) * value) @ w[layer + "feed_forward.down.weight"].T
    return norm(x, w["norm.weight"]) @ w["embedding.weight"].T


@pytest.mark.parametrize("config", [CONFIG, GROUPED])
def test_it_is_its_formula(config: Config) -> None:
    model, x = make(config), tokens(3, 13)
    exact = torch.stack([by_hand(model, row) for row in x])
    torch.testing.assert_close(model(x).double(), exact, rtol=1e-4, atol=1e-5)


def test_a_token_sees_nothing_that_follows() -> None:
    model, x = make(), tokens(2, 13)
    other = torch.cat((x[:, :7], tokens(2, 6)), 1)
    assert torch.equal(model(x)[:, :7], model(other)[:, :7])
    assert not torch.allclose(model(x)[:, 7:], model(other)[:, 7:])


def test_packed_documents_are_as_alone() -> None:
    model, lengths = make(), [5, 1, 7]
    parts = [tokens(1, n) for n in lengths]
    packed = model(torch.cat(parts, 1), documents=lengths).split(lengths, 1)
    for part, found in zip(parts, packed, strict=True):
        torch.testing.assert_close(found, model(part), rtol=1e-5, atol=1e-5)


def test_tokens_are_embedded_and_scored_by_the_same_table() -> None:
    names = list(make().state_dict())
    assert names[0] == "embedding.weight"
    assert not [name for name in names if "bias" in name or "head" in name]
    for config in (CONFIG, GROUPED, base(2048)):
        assert sum(p.numel() for p in CausalLM(config).parameters()) == config.parameters
    assert base(2048).parameters == 2_755_008


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 7}, "`width`: expected a multiple of 2 · heads = 14, got 60"),
        ({"kv_heads": 4}, "`kv_heads`: expected a divisor of heads = 6, got 4"),
        ({"layers": 0}, "`layers`: expected an integer >= 1, got 0"),
        ({"dropout": 1.0}, "`dropout`: expected a number in [0, 1), got 1.0"),
        ({"rotary_base": 0.0}, "`rotary_base`: expected a number > 0, got 0.0"),
    ],
)
def test_sizes_must_fit_together(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Config(**{**vars(GROUPED), **change})  # type: ignore[arg-type]
    assert str(caught.value) == message


X = torch.zeros(2, 5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "more", "error", "message"),
    [
        ((X.float(),), {}, TypeError, "`tokens`: expected a tensor of int64 or int32, got float32"),
        ((X[0],), {}, ValueError, "`tokens`: expected 2 dimensions (B, T), got (5,)"),
        ((X + 263,), {}, ValueError, "`tokens`: expected numbers from 0 to 262, got 263 to 263"),
        ((X - 1,), {}, ValueError, "`tokens`: expected numbers from 0 to 262, got -1 to -1"),
        ((X, [None]), {}, ValueError, "`caches`: expected one a layer = 2, got 1"),
        ((X, None, [1, 2, 3]), {}, ValueError, "`counts`: expected shape (B,) = (2,), got (3,)"),
        ((X, None, [1, 6]), {}, ValueError, "`counts`: expected numbers from 0 to T = 5, got [1, 6]"),
        ((X, None, [1.0, 2.0]), {}, TypeError, "`counts`: expected a tensor of int64 or int32, got float32"),
        ((X,), {"documents": [2, 3]}, ValueError, "`tokens`: expected B = 1 for packed documents, got (2, 5)"),
        ((X[:1],), {"documents": [2, 2]}, ValueError, "`documents`: expected lengths of sum T = 5, got 4"),
        ((X[:1], [None, None]), {"documents": [5]}, ValueError,
         "`documents`: expected no caches beside them, got caches"),
    ],
)  # fmt: skip
def test_bad_input_is_named(
    arguments: tuple[Tensor], more: dict[str, list[int]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        make()(*arguments, **more)
    assert str(caught.value) == message


def test_no_rows_and_no_tokens_are_fine() -> None:
    assert make()(tokens(0, 5)).shape == (0, 5, 263)
    assert make()(tokens(3, 0)).shape == (3, 0, 263)


TOKENIZER = Tokenizer([("t", "h"), ("th", "e"), ("Ġ", "a"), ("r", "e"), ("Ġa", "re"), ("e", "r")])


def test_a_saved_model_comes_back_rounded_to_16_bits(tmp_path: Path) -> None:
    model = make()
    save(model, TOKENIZER, tmp_path / "causal_lm.json", {"note": "é"}, "causal_lm.safetensors")
    for place in (tmp_path, tmp_path / "causal_lm.json", str(tmp_path)):
        found, tokenizer = load(place)
        assert found.config == model.config
        assert tokenizer.merges == TOKENIZER.merges
        for name, weight in model.state_dict().items():
            assert torch.equal(found.state_dict()[name], weight.half().float())
    assert json.loads((tmp_path / "causal_lm.json").read_text("utf-8"))["about"] == {"note": "é"}
    assert not found.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "tagger"}, "expected a causal language model, got 'tagger'"),
        ({"config": {"speed": 3}}, "expected sizes of a causal language model, got dict {'speed': 3}"),
        ({"config": {"width": 3}}, "expected sizes that fit together, got others"),
        ({"config": {**vars(GROUPED), "width": 61}}, "expected sizes that fit together, got others (`width`"),
        ({"config": {**vars(GROUPED), "layers": 10**9}}, "expected 13860000015840 weights for these sizes, got 43560"),
        ({"config": {**vars(GROUPED), "layers": 3}}, "expected 57420 weights for these sizes, got 43560"),
        ({"config": {**vars(GROUPED), "vocabulary": 264}}, "expected 264 tokens, got 263"),
        ({"merges": "t h\nx yz"}, "expected the pairs of a tokenizer, got others"),
        ({"merges": "t h e"}, "expected the pairs of a tokenizer, got others"),
        ({"merges": 7}, "expected the pairs of a tokenizer, got others"),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "causal_lm.json"
    save(make(), TOKENIZER, path, {}, "causal_lm.safetensors")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "causal_lm.json"
    document = {"model": "causal_lm", "config": vars(GROUPED), "merges": "\n".join(map(" ".join, TOKENIZER.merges))}
    checkpoint.save(path, {"weight": torch.zeros(GROUPED.parameters)}, document)
    with pytest.raises(ValueError, match="expected the weights of these sizes, got others"):
        load(path)


def test_a_model_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path)


def close(found: Tensor, exact: Tensor) -> None:
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [CONFIG, GROUPED])
@pytest.mark.parametrize("chunks", [[1] * 13, [13], [5, 1, 7], [1, 11, 1], [2, 0, 3, 8]])
@torch.no_grad()
def test_a_decode_in_any_chunks_is_the_full_forward(config: Config, chunks: list[int]) -> None:
    model, x = make(config), tokens(3, 13)
    caches = model.new_caches(3, 17)
    found = [model(part, caches) for part in x.split(chunks, 1)]
    close(torch.cat(found, 1), model(x))
    assert all(cache.lengths.tolist() == [13, 13, 13] for cache in caches)


@torch.no_grad()
def test_prompts_of_different_lengths_decode_as_each_alone() -> None:
    model, x, counts = make(), tokens(4, 9), [3, 9, 0, 1]
    caches = model.new_caches(4, 17)
    begun, more = model(x, caches, counts), tokens(4, 5)
    for b, n in enumerate(counts):
        close(begun[b, :n], model(x[b : b + 1, :n])[0])
    found = [model(more[:, :1], caches), model(more[:, 1:4], caches, [3, 1, 2, 0]), model(more[:, 4:], caches)]
    taken = [[0, 1, 2, 3, 4], [0, 1, 4], [0, 1, 2, 4], [0, 4]]
    for b, places in enumerate(taken):
        exact = model(torch.cat((x[b, : counts[b]], more[b, places]))[None])[0, counts[b] :]
        close(torch.cat(found, 1)[b, places], exact)
    assert caches[1].lengths.tolist() == [8, 12, 4, 3]


def test_the_training_loss_is_the_loss_of_the_decode_position_by_position() -> None:
    model, x = make(), tokens(2, 14)
    whole = torch.nn.functional.cross_entropy(model(x[:, :-1]).transpose(1, 2), x[:, 1:], reduction="none")
    caches = model.new_caches(2, 13)
    for at in range(13):
        logits = model(x[:, at : at + 1], caches)[:, 0]
        assert not logits.requires_grad
        close(torch.nn.functional.cross_entropy(logits, x[:, at + 1], reduction="none"), whole[:, at].detach())


@torch.no_grad()
def test_a_window_with_sinks_goes_on_without_end_and_is_the_whole_while_it_fits() -> None:
    model, x = make(), tokens(2, 29)
    caches = model.new_caches(2, 1, window=7, sinks=2)
    steps = torch.cat([model(x[:, at : at + 1], caches) for at in range(29)], 1)
    close(steps[:, :7], model(x[:, :7]))
    chunks = model.new_caches(2, 7 + 2 + 5, window=7, sinks=2)
    close(torch.cat([model(part, chunks) for part in x.split(5, 1)], 1), steps)
    assert not torch.allclose(steps[:, 12:], model(x)[:, 12:])
    assert caches[0].lengths.tolist() == [29, 29]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8])
@torch.no_grad()
def test_smaller_caches_are_near(dtype: torch.dtype) -> None:
    model, x = make(), tokens(2, 13)
    caches = model.new_caches(2, 13, dtype=dtype)
    found = torch.cat([model(x[:, at : at + 1], caches) for at in range(13)], 1)
    exact = model(x)
    assert 0 < float((found - exact).abs().max() / exact.abs().max()) < 0.05
