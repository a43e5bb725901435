"""Language modelling: the windows of a run, the loss and bits per byte, against loops that do it token by token."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmha.models.causal_lm import CausalLM, Config
from mmha.train import language

CONFIG = Config(vocabulary=263, width=60, layers=2, heads=6, kv_heads=2, hidden=23, context=11)
END = 262


def make() -> CausalLM:
    model = CausalLM(CONFIG).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, 1.0 if weight.ndim == 1 else 0.0, 0.2)
    return model


def test_a_pass_shows_every_window_once_and_the_next_one_cuts_elsewhere() -> None:
    stream = torch.arange(1000)
    windows = language.Windows(stream, context=7, rows=3, steps=47, seed=5)
    assert windows.windows == 141  # 142 fit in 999 tokens, one is left out
    first, second = windows(0), windows(1)
    for batches in (first, second):
        found = torch.cat(batches)
        assert found.shape == (141, 8)
        assert torch.equal(found - found[:, :1], torch.arange(8).expand(141, 8))
        starts = found[:, 0].sort().values
        assert set((starts[1:] - starts[:-1]).tolist()) == {7}
    assert len({int(windows(number)[0][0, 0]) % 7 for number in range(5)}) > 1
    assert all(torch.equal(a, b) for a, b in zip(first, windows(0), strict=True))
    other = language.Windows(stream, context=7, rows=3, steps=47, seed=6)(0)
    assert not torch.equal(other[0], first[0])


def test_rounds_go_on_where_the_last_one_ended() -> None:
    stream = torch.arange(223)
    long = language.Windows(stream, context=7, rows=3, steps=35, seed=5)(0)
    short = language.Windows(stream, context=7, rows=3, steps=5, seed=5)
    again = [batch for number in range(7) for batch in short(number)]
    assert all(torch.equal(a, b) for a, b in zip(long, again, strict=True))


def test_a_text_of_one_window_is_enough_and_less_is_not() -> None:
    batches = language.Windows(torch.arange(8), context=7, rows=3, steps=2, seed=5)(3)
    assert all(torch.equal(batch, torch.arange(8).expand(3, 8)) for batch in batches)
    with pytest.raises(ValueError, match="`text`: expected at least 8 tokens, got 7"):
        language.Windows(torch.arange(7), context=7, rows=3, steps=2, seed=5)


@torch.no_grad()
def one_by_one(model: CausalLM, tokens: list[int], context: int) -> list[float]:
    """−log₂ of the probability of each token, each from a forward of its own over all that is before it."""
    lost = []
    for at in range(len(tokens)):
        seen = [END, *tokens[:at]][-context:]
        scores = model(torch.tensor([seen]))[0, -1].double().log_softmax(-1)
        lost.append(-float(scores[tokens[at]]) / math.log(2.0))
    return lost


@torch.no_grad()
def test_the_loss_is_the_mean_over_positions() -> None:
    model, batch = make(), torch.randint(0, 263, (3, 12))
    exact = 0.0
    for row in batch:
        for at in range(11):
            exact -= float(model(row[None, : at + 1])[0, -1].double().log_softmax(-1)[row[at + 1]]) / 33
    assert language.loss(model, batch).item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("length", [0, 1, 10, 11, 12, 37])
def test_bits_with_a_stride_of_one_are_those_of_each_token_with_full_context(length: int) -> None:
    model, tokens = make(), torch.randint(0, 262, (length,)).tolist()
    found = language.bits(model, [tokens], END, context=11, stride=1)
    assert found == pytest.approx(sum(one_by_one(model, tokens, 11)), rel=1e-5)


@pytest.mark.parametrize("stride", [2, 3, 11])
def test_longer_strides_count_every_token_once(stride: int) -> None:
    class Uniform(torch.nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return torch.zeros(*tokens.shape, 263)

    documents = [list(range(n)) for n in (0, 1, 11, 12, 29, 97)]
    found = language.bits(Uniform(), documents, END, context=11, stride=stride, rows=3)
    assert found == pytest.approx(150 * math.log2(263), rel=1e-6)


def test_documents_shorter_than_a_window_do_not_depend_on_the_stride_or_the_batch() -> None:
    model, documents = make(), [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11, 12]]
    exact = sum(sum(one_by_one(model, tokens, 11)) for tokens in documents)
    for stride, rows in ((1, 1), (11, 2), (4, 16)):
        found = language.bits(model, documents, END, context=11, stride=stride, rows=rows)
        assert found == pytest.approx(exact, rel=1e-5)
    with pytest.raises(ValueError, match="`stride`: expected an integer >= 1 and <= 11, got 12"):
        language.bits(model, documents, END, context=11, stride=12)
