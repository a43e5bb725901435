"""Generation: cached and batched it writes what whole forward passes say; stops, ends, streams and windows."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from mmha import masks
from mmha.models.causal_lm import CausalLM, Tokenizer
from mmha.models.causal_lm.generation import Completion, Limits, Piece, generate, prefill, step, stream
from mmha.models.causal_lm.sampling import Sampling
from small_lm import Letters, build, next_logits

pytestmark = pytest.mark.usefixtures("one_thread")
GREEDY = Sampling(temperature=0)
TOKENIZER = Tokenizer([("t", "h"), ("th", "e"), ("Ġ", "the"), ("o", "Ġ")])
PROMPTS = ["to be", "the rest is silence, said the", "ü", ""]


@pytest.fixture(scope="module")
def model() -> CausalLM:
    return build(TOKENIZER.vocab_size)


@pytest.fixture(scope="module")
def letters_model() -> CausalLM:
    return build(5)


def start(prompt: str) -> list[int]:
    return TOKENIZER.encode(prompt) or [TOKENIZER.end]


def test_greedy_is_the_argmax_of_whole_forward_passes(model: CausalLM) -> None:
    for prompt, found in zip(PROMPTS, generate(model, TOKENIZER, PROMPTS, GREEDY, Limits(11, chunk=4)), strict=True):
        tokens = start(prompt)
        assert found.prompt_tokens == len(tokens)
        for token, log_probability in zip(found.tokens, found.log_probabilities, strict=True):
            logits = next_logits(model, tokens)
            assert token == int(logits.argmax())
            assert log_probability == pytest.approx(float(logits.log_softmax(-1)[token]), abs=1e-4)
            tokens.append(token)
        assert len(found.tokens) == 11
        assert found.reason == "length"
        assert found.text == TOKENIZER.decode(found.tokens)


def test_the_penalty_minds_the_prompt_and_what_was_written(model: CausalLM) -> None:
    limits = Limits(19)
    for prompt, found in zip(
        PROMPTS, generate(model, TOKENIZER, PROMPTS, Sampling(0, repetition_penalty=3.0), limits), strict=True
    ):
        tokens = start(prompt)
        for token in found.tokens:
            logits = next_logits(model, tokens)
            for seen in set(tokens):
                logits[seen] = logits[seen] / 3.0 if logits[seen] > 0 else logits[seen] * 3.0
            assert token == int(logits.argmax())
            tokens.append(token)


def test_rows_without_a_token_do_not_grow(model: CausalLM) -> None:
    caches = model.new_caches(3, 11)
    prefill(model, caches, [[1, 2, 3], [4], [5, 6]], 2)
    with torch.no_grad():
        logits = step(model, caches, {2: 7, 0: 8})
    assert [cache.lengths.tolist() for cache in caches] == [[4, 1, 3]] * 2
    torch.testing.assert_close(logits[2].double(), next_logits(model, [5, 6, 7]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits[0].double(), next_logits(model, [1, 2, 3, 8]), atol=1e-4, rtol=1e-4)


def test_a_row_is_the_same_in_any_company(model: CausalLM) -> None:
    sampling = Sampling(temperature=0.9, top_k=50, top_p=0.95, min_p=0.01, repetition_penalty=1.2)
    together = generate(model, TOKENIZER, PROMPTS, sampling, Limits(13), seed=5)
    assert len({found.tokens for found in together}) == len(PROMPTS)
    for row, (prompt, found) in enumerate(zip(PROMPTS, together, strict=True)):
        alone = generate(model, TOKENIZER, [prompt], sampling, Limits(13), seed=5 + row)[0]
        assert (alone.prompt, alone.text, alone.tokens) == (found.prompt, found.text, found.tokens)


def test_a_seed_decides_the_text(model: CausalLM) -> None:
    texts = [generate(model, TOKENIZER, ["to be"], limits=Limits(17), seed=seed)[0].text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_prompts_are_read_in_chunks_of_any_size(model: CausalLM, chunk: int) -> None:
    whole = generate(model, TOKENIZER, PROMPTS, GREEDY, Limits(5))
    cut = generate(model, TOKENIZER, PROMPTS, GREEDY, Limits(5, chunk=chunk))
    for one, other in zip(whole, cut, strict=True):
        assert one.tokens == other.tokens
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-5)


def test_rows_that_finish_leave_the_others_alone(letters_model: CausalLM) -> None:
    prompts = ["abc", "d", "bbad", "ca", "a"]
    limits = Limits(29, stop=("dd", "ca"))
    together = generate(letters_model, Letters(), prompts, limits=limits, seed=1)
    assert {found.reason for found in together} == {"stop", "end"} or len({f.reason for f in together}) == 3
    assert len({len(found.tokens) for found in together}) > 2
    for row, (prompt, found) in enumerate(zip(prompts, together, strict=True)):
        assert generate(letters_model, Letters(), [prompt], limits=limits, seed=1 + row)[0].tokens == found.tokens


def test_a_text_ends_before_its_stop_string(letters_model: CausalLM) -> None:
    whole = generate(letters_model, Letters(), ["ab"], GREEDY, Limits(23))[0]
    for at in range(1, len(whole.text) - 3):
        stop = whole.text[at : at + 3]
        found = generate(letters_model, Letters(), ["ab"], GREEDY, Limits(23, stop=("never", stop)))[0]
        end = whole.text.index(stop)
        assert (found.text, found.reason) == (whole.text[:end], "stop")
        assert found.tokens == whole.tokens[: end + 3]


def test_a_text_ends_with_the_end_token(letters_model: CausalLM) -> None:
    found = generate(letters_model, Letters(), ["ab"] * 7, limits=Limits(101), seed=2)
    ended = [text for text in found if text.reason == "end"]
    assert ended
    for text in ended:
        assert text.tokens[-1] == Letters().end
        assert text.text == Letters().decode(text.tokens[:-1])


def test_pieces_come_as_they_are_written(model: CausalLM) -> None:
    passes: list[int] = []
    hook = model.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        pieces = stream(model, TOKENIZER, ["to be", "or"], limits=Limits(19), seed=3)
        first = next(pieces)
        assert len(passes) == 1  # the prompts have been read, and nothing more
        rest = list(pieces)
    finally:
        hook.remove()
    assert len(passes) == 19
    found = generate(model, TOKENIZER, ["to be", "or"], limits=Limits(19), seed=3)
    for row in (0, 1):
        own = [piece for piece in (first, *rest) if piece.row == row]
        assert "".join(piece.text for piece in own) == found[row].text
        assert [piece.completion for piece in own if piece.completion] == [own[-1].completion] == [found[row]]


def test_no_piece_has_half_a_character(model: CausalLM) -> None:
    # Every byte is a token: the most probable continuations are turned into a snowman's three bytes by a bias.
    snowman = TOKENIZER.encode("☃")
    assert len(snowman) == 3
    pieces: list[Piece] = []

    def prefer(_module: Any, _given: Any, logits: torch.Tensor) -> torch.Tensor:
        wanted = snowman[len(seen) % 3]
        seen.append(wanted)
        return logits + 1000.0 * torch.nn.functional.one_hot(torch.tensor(wanted), logits.shape[-1])

    seen: list[int] = []
    hook = model.register_forward_hook(prefer)
    try:
        pieces = list(stream(model, TOKENIZER, ["x"], GREEDY, Limits(7)))
    finally:
        hook.remove()
    assert [piece.text for piece in pieces] == ["☃", "☃", "\ufffd"]


@torch.no_grad()
def windowed_logits(model: CausalLM, tokens: list[int], window: int, sinks: int) -> torch.Tensor:
    """The whole text through the layers under the mask that a window with sinks means."""
    mask = masks.Causal() & (masks.Window(window - 1, 0) | masks.Global(range(sinks)))
    x = model.embedding(torch.tensor([tokens]))
    for layer in model.layers:
        x = layer(x, lambda heads: model.rotary(heads, torch.arange(len(tokens))), mask)
    return torch.nn.functional.linear(model.norm(x), model.embedding.weight)[0].double()


@pytest.mark.parametrize(("window", "sinks"), [(5, 0), (7, 2), (13, 3)])
@pytest.mark.parametrize("chunk", [4, 256])
def test_a_text_grows_beyond_its_window(model: CausalLM, window: int, sinks: int, chunk: int) -> None:
    prompts = ["the rest is silence, said the", "to"]
    limits = Limits(41, window=window, sinks=sinks, chunk=chunk)
    for prompt, found in zip(prompts, generate(model, TOKENIZER, prompts, GREEDY, limits), strict=True):
        tokens = start(prompt)
        logits = windowed_logits(model, [*tokens, *found.tokens], window, sinks)[len(tokens) - 1 : -1]
        assert found.tokens == tuple(logits.argmax(-1).tolist())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8])
def test_caches_of_fewer_bits_say_nearly_the_same(model: CausalLM, dtype: torch.dtype) -> None:
    exact = generate(model, TOKENIZER, PROMPTS, GREEDY, Limits(1))
    for one, other in zip(exact, generate(model, TOKENIZER, PROMPTS, GREEDY, Limits(1, dtype=dtype)), strict=True):
        assert one.tokens == other.tokens
        assert one.log_probabilities != other.log_probabilities
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_new_tokens": 0}, "`max_new_tokens`: expected an integer >= 1, got 0"),
        ({"stop": "END"}, "`stop`: expected a list of texts, got str 'END'"),
        ({"window": 0}, "`window`: expected an integer >= 1, got 0"),
        ({"sinks": -1}, "`sinks`: expected an integer >= 0, got -1"),
        ({"sinks": 2}, "`sinks`: expected 0 without a window, got 2"),
        ({"chunk": 0}, "`chunk`: expected an integer >= 1, got 0"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}$"):
        Limits(**values)


def test_prompts_that_cannot_be_meant_are_refused(model: CausalLM) -> None:
    for prompts, message in (
        ([], "`prompts`: expected at least one, got none"),
        ("to be", "`prompts`: expected a list of texts, got str 'to be'"),
        ([7], "`prompts`: expected a list of texts, got list [7]"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}$"):
            generate(model, TOKENIZER, prompts)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^`seed`: expected an integer >= 0 and <= \d+, got -1$"):
        generate(model, TOKENIZER, ["a"], seed=-1)


def test_damaged_weights_are_said_to_be() -> None:
    broken = build(5)
    torch.nn.init.constant_(broken.norm.weight, float("nan"))
    with pytest.raises(ValueError, match=r"^`model`: expected finite logits, got NaN: its weights are damaged$"):
        generate(broken, Letters(), ["a"])


def test_a_completion_is_a_value(model: CausalLM) -> None:
    one, other = (generate(model, TOKENIZER, ["a"], limits=Limits(3)) for _ in range(2))
    assert one == other
    assert isinstance(one[0], Completion)
