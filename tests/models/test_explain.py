"""The explanation of a text against the formula written out, and against the model on each beginning of the text."""

from __future__ import annotations

import re

import pytest
import torch

from mmha.models.causal_lm import CausalLM, Tokenizer
from mmha.models.causal_lm.explanation import explain, shown
from small_lm import build, next_logits

pytestmark = pytest.mark.usefixtures("one_thread")
TOKENIZER = Tokenizer([("Ġ", "a"), ("i", "t")])
TEXT = "as it is a bit"


@pytest.fixture(scope="module")
def model() -> CausalLM:
    return build(TOKENIZER.vocab_size)


def rotated(x: torch.Tensor) -> torch.Tensor:
    """x (T, D) with the pairs (i, i + D/2) as complex numbers, turned by position · 10000^(−2i/D)."""
    length, size = x.shape
    angles = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, size, 2) / size)
    turned = torch.complex(x[:, : size // 2], x[:, size // 2 :]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), dim=1)


@torch.no_grad()
def test_scores_are_the_formula(model: CausalLM) -> None:
    ids = TOKENIZER.encode(TEXT)
    x = model.embedding.weight[ids]
    x = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()  # RMSNorm with its initial weights of 1
    projected = (x @ model.layers[0].attention.project_in.weight.T).view(len(ids), 6 + 3 + 3, 4)
    for head in (0, 3, 5):
        q, k = rotated(projected[:, head]), rotated(projected[:, 6 + head // 2])
        wanted = q @ k.T / 2.0
        seen = explain(model, TOKENIZER, TEXT, layer=0, head=head)
        for i in range(len(ids)):
            torch.testing.assert_close(seen.scores[i, : i + 1], wanted[i, : i + 1], atol=1e-4, rtol=1e-4)
            assert seen.scores[i, i + 1 :].tolist() == [-float("inf")] * (len(ids) - i - 1)
            weights = wanted[i, : i + 1].exp() / wanted[i, : i + 1].exp().sum()
            torch.testing.assert_close(seen.weights[i, : i + 1], weights, atol=1e-4, rtol=1e-4)
            assert seen.weights[i, i + 1 :].count_nonzero() == 0


def test_steps_are_what_the_model_says_of_each_beginning(model: CausalLM) -> None:
    ids = TOKENIZER.encode(TEXT)
    seen = explain(model, TOKENIZER, TEXT, layer=-1, head=-2, count=3)
    assert (seen.layer, seen.head, seen.head_dim, seen.vocabulary) == (1, 4, 4, TOKENIZER.vocab_size)
    assert seen.tokens == ("a", "s", "␣", "it", "␣", "i", "s", "␣a", "␣", "b", "it")
    assert [step.visible for step in seen.steps] == list(range(1, len(ids) + 1))
    for step in seen.steps:
        p = next_logits(model, ids[: step.visible]).softmax(-1)
        top = p.topk(3)
        assert [c.token for c in step.candidates] == [shown(TOKENIZER, i) for i in top.indices.tolist()]
        assert [c.probability for c in step.candidates] == pytest.approx(top.values.tolist(), abs=1e-4)
        assert [c.rank for c in step.candidates] == [0, 1, 2]
        if step.visible == len(ids):
            assert step.following is None
        else:
            following = ids[step.visible]
            assert step.following is not None
            assert step.following.token == shown(TOKENIZER, following)
            assert step.following.probability == pytest.approx(float(p[following]), abs=1e-4)
            assert step.following.rank == int((p > p[following]).sum())


def test_what_cannot_be_explained_is_refused(model: CausalLM) -> None:
    for text, values, message in (
        ("", {}, "`text`: expected 1 to 64 tokens, got 0 tokens"),
        ("b" * 65, {}, "`text`: expected 1 to 64 tokens, got 65 tokens"),
        ("b", {"layer": 2}, "`layer`: expected an integer >= -2 and <= 1, got 2"),
        ("b", {"head": -7}, "`head`: expected an integer >= -6 and <= 5, got -7"),
        ("b", {"count": 0}, "`count`: expected an integer >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            explain(model, TOKENIZER, text, **values)


def test_tokens_are_shown_in_one_visible_line() -> None:
    tokenizer = Tokenizer([("Ġ", "a"), ("Ã", "©")])
    texts = [shown(tokenizer, i) for i in (*tokenizer.encode(" a é\t\n\x1b"), 0xE2, tokenizer.end)]
    assert texts == ["␣a", "␣", "é", "⇥", "⏎", r"\x1b", r"\xe2", "<end>"]
