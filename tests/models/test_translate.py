"""Decoding against whole forward passes: step by step, every text there is, and a beam search without caches."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from mmha.models.seq2seq import Beams, Seq2Seq, Translation, attention, translate
from mmha.models.seq2seq.decoding import Decoder
from seq2seq_twins import Twin, build, trained

pytestmark = pytest.mark.usefixtures("one_thread")
Text = tuple[int, ...]
WORDS = 11
SOURCES = [[3, 1, 4, 1, 5], [], [9], [2, 6, 5, 3, 5, 8, 9], [7, 9]]


@pytest.fixture(scope="module", params=[False, True], ids=["post-LN", "pre-LN"])
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return trained(request.param)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each step of a decoder computes, as they come."""
    seen: list[int] = []
    step = Decoder.step

    def counted(self: Decoder, tokens: Tensor) -> Tensor:
        seen.append(len(tokens))
        return step(self, tokens)

    monkeypatch.setattr(Decoder, "step", counted)
    return seen


@functools.cache
def likely(model: Seq2Seq, source: Text, text: Text) -> list[float]:
    """Log-probabilities of what may follow a target."""
    known: list[float] = following(model, list(source), text)[-1].log_softmax(-1).tolist()
    return known


@torch.no_grad()
def following(model: Seq2Seq, source: list[int], text: Text) -> Tensor:
    """The oracle: logits after each token of the target, by one whole forward pass; float64 (1 + len(text), V)."""
    whole, target = torch.tensor([*source, model.end]), torch.tensor([model.end, *text])
    return model(whole, [len(whole)], target, [len(target)]).double()


class Oracle:
    """Log-probabilities of targets, one forward pass over source and target a token."""

    def __init__(self, model: Seq2Seq, source: list[int], extra: int, alpha: float) -> None:
        self.model, self.source, self.alpha = model, source, alpha
        self.longest = len(source) + 1 + extra

    def grown(self, text: Text) -> list[tuple[float, Text]]:
        known = likely(self.model, tuple(self.source), text)
        return [(value, (*text, token)) for token, value in enumerate(known)]

    def ended(self, text: Text) -> bool:
        return len(text) == self.longest or text[-1] == self.model.end

    def score(self, total: float, text: Text) -> float:
        return total / ((5 + len(text)) / 6) ** self.alpha

    def best(self, done: list[tuple[float, Text]], count: int) -> list[tuple[float, Text]]:
        return sorted(((self.score(*pair), pair[1]) for pair in done), key=lambda pair: -pair[0])[:count]

    def every(self, count: int) -> list[tuple[float, Text]]:
        """The best of all targets there are."""
        found: list[tuple[float, Text]] = []
        growing: list[tuple[float, Text]] = [(0.0, ())]
        while growing:
            total, text = growing.pop()
            for value, longer in self.grown(text):
                (found if self.ended(longer) else growing).append((total + value, longer))
        assert sum(torch.tensor([total for total, _ in found]).exp()) == pytest.approx(1.0, abs=1e-5)
        return self.best(found, count)

    def search(self, width: int, count: int) -> list[tuple[float, Text]]:
        """Beam search as it is defined, without caches and without ending early."""
        alive: list[tuple[float, Text]] = [(0.0, ())]
        done: list[tuple[float, Text]] = []
        while alive:
            grown = [(total + value, longer) for total, text in alive for value, longer in self.grown(text)]
            grown.sort(key=lambda pair: -pair[0])
            done += [pair for pair in grown[:width] if self.ended(pair[1])]
            alive = [pair for pair in grown if not self.ended(pair[1])][:width]
        return self.best(done, count)


@functools.cache
def few_words() -> Seq2Seq:
    return build(4)


def agrees(found: list[Translation], wanted: list[tuple[float, Text]], end: int) -> None:
    assert [(*one.tokens, end) if one.ended else one.tokens for one in found] == [text for _, text in wanted]
    assert [one.score for one in found] == pytest.approx([score for score, _ in wanted], abs=1e-5)


def test_a_token_at_a_time_is_the_whole_target_at_once(model: Seq2Seq) -> None:
    """Rows go on from others, multiply and leave on the way, whole sources with them."""
    whole = [[*source, model.end] for source in SOURCES]
    decoder = Decoder(model, whole, 3, 13)
    decoder.step(torch.full((5,), model.end))
    written: list[tuple[int, Text]] = [(source, ()) for source in range(5)]
    for parents in (
        [0, 0, 1, 2, 3, 3, 3, 4, 4],
        [1, 0, 2, 4, 5, 6, 8, 7, 7],
        [0, 3, 4, 6],
        [0, 3],
        [1, 1, 1],
        [2],
        [0],
    ):
        decoder.follow(parents)
        tokens = torch.randint(0, WORDS, (len(parents),))
        written = [
            (written[parent][0], (*written[parent][1], int(token)))
            for parent, token in zip(parents, tokens, strict=True)
        ]
        logits = decoder.step(tokens)
        exact = torch.stack([following(model, SOURCES[source], text)[-1] for source, text in written])
        torch.testing.assert_close(logits.detach().double(), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.6, -0.5, 2.0])
def test_beams_for_all_targets_find_the_best_of_all_targets(alpha: float) -> None:
    few = few_words()
    sources = [[1], [], [0, 2]]
    found = translate(few, sources, Beams(81, alpha, n_best=23, extra=2))
    for source, own in zip(sources, found, strict=True):
        wanted = Oracle(few, source, 2, alpha).every(23)
        agrees(own, wanted, few.end)
        for one in own:
            assert len(one.log_probabilities) == len(one.tokens) + one.ended
            known = following(few, source, one.tokens).log_softmax(-1)
            text = [*one.tokens, few.end][: len(one.log_probabilities)]
            assert list(one.log_probabilities) == pytest.approx(
                [float(k[t]) for k, t in zip(known, text, strict=False)], abs=1e-5
            )


@pytest.mark.parametrize(
    ("width", "alpha", "n_best"), [(4, 0.6, 1), (2, 0.0, 2), (3, 1.5, 1), (5, -0.5, 4), (13, 0.6, 5)]
)
def test_few_beams_keep_what_the_definition_keeps(model: Seq2Seq, width: int, alpha: float, n_best: int) -> None:
    """Targets that cannot win any more are dropped, sentences that are done leave: the result is that of neither."""
    found = translate(model, SOURCES, Beams(width, alpha, n_best, extra=4))
    for source, own in zip(SOURCES, found, strict=True):
        agrees(own, Oracle(model, source, 4, alpha).search(width, n_best), model.end)


def test_as_many_go_on_when_some_end_at_once(rows: list[int]) -> None:
    few, source = few_words(), [1, 1, 2]
    best = sorted(likely(few, tuple(source), ()), reverse=True)[:3]
    assert likely(few, tuple(source), ())[few.end] in best
    (found,) = translate(few, [source], Beams(3, n_best=3, extra=1))
    agrees(found, Oracle(few, source, 1, 0.6).search(3, 3), few.end)
    assert rows[:2] == [1, 3]


def test_one_beam_is_greedy(model: Seq2Seq) -> None:
    for source, (own,) in zip(SOURCES, translate(model, SOURCES, Beams(1, extra=9)), strict=True):
        text: Text = ()
        while len(text) < len(source) + 10 and model.end not in text:
            text = (*text, int(following(model, source, text)[-1].argmax()))
        assert own.tokens == tuple(token for token in text if token != model.end)
        assert own.ended == (model.end in text)


def test_sentences_of_a_batch_are_as_alone(model: Seq2Seq) -> None:
    beams = Beams(3, n_best=3, extra=11)
    together = translate(model, SOURCES, beams)
    assert [len(own) for own in together] == [3] * 5
    for batch in (1, 2, 3):
        assert_same(translate(model, SOURCES, beams, batch), together)
    assert_same([translate(model, [source], beams)[0] for source in SOURCES], together)


def assert_same(some: list[list[Translation]], others: list[list[Translation]]) -> None:
    for own, other in zip(some, others, strict=True):
        assert [one.tokens for one in own] == [one.tokens for one in other]
        assert [one.score for one in own] == pytest.approx([one.score for one in other], abs=1e-5)
        for one, two in zip(own, other, strict=True):
            assert one.log_probabilities == pytest.approx(two.log_probabilities, abs=1e-5)


def test_what_is_done_is_not_computed_further(model: Seq2Seq, rows: list[int]) -> None:
    found = translate(model, SOURCES, Beams(1, extra=9))
    lengths = sorted(len(own.log_probabilities) for (own,) in found)
    assert len(set(lengths)) > 1
    assert rows == [sum(n > at for n in lengths) for at in range(lengths[-1])]


def test_no_sources_and_no_room_are_fine(model: Seq2Seq) -> None:
    assert translate(model, []) == []
    (found,) = translate(model, [[]], Beams(2, n_best=2, extra=0))  # a single token
    assert [len(one.log_probabilities) for one in found] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "`width`: expected an integer >= 1, got 0"),
        ({"alpha": float("nan")}, "`alpha`: expected a finite number, got nan"),
        ({"n_best": 5}, "`n_best`: expected an integer >= 1 and <= 4, got 5"),
        ({"extra": -1}, "`extra`: expected an integer >= 0, got -1"),
    ],
)
def test_a_search_that_cannot_be_meant_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Beams(**arguments)
    assert str(caught.value) == message


def test_bad_sources_and_damaged_weights_are_named(model: Seq2Seq) -> None:
    with pytest.raises(ValueError, match=r"^`sources`: expected an integer >= 0 and <= 10, got 11$"):
        translate(model, [[3], [11]])
    with pytest.raises(ValueError, match=r"^`batch`: expected an integer >= 1, got 0$"):
        translate(model, [[3]], batch=0)
    damaged = build(WORDS)
    damaged.embedding.weight.data[3] = float("nan")
    with pytest.raises(ValueError, match=r"^`model`: expected finite logits, got NaN: its weights are damaged$"):
        translate(damaged, [[3]])


def test_attention_is_that_of_torchs_transformer(model: Seq2Seq) -> None:
    twin, source, target = Twin(model), [3, 1, 4, 1], [7, 2]
    inputs: list[Any] = []
    layers = twin.body.decoder.layers
    for layer in layers:
        layer.multihead_attn.register_forward_pre_hook(lambda _, given: inputs.append(given))
    twin(torch.tensor([[*source, model.end]]), [5], torch.tensor([[model.end, *target]]))
    pairs = list(zip(layers, inputs, strict=True))  # before the hooks add what is asked for now
    exact = [layer.multihead_attn(*given, average_attn_weights=False)[1] for layer, given in pairs]
    found = attention(model, source, target)
    assert found.shape == (2, 7, 3, 5)
    torch.testing.assert_close(found.double(), torch.cat(exact), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(attention(model, [], []), torch.ones(2, 7, 1, 1))
    assert not model.decoder[0].cross._forward_pre_hooks
