"""The transformer classes against torch.nn's own, with equal weights: values, gradients, modes, weights drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmha.masks import Causal, Dense, KeyPadding, Keys, Mask, StrictCausal
from transformer_twins import (
    BAND,
    BATCH,
    CAUSAL,
    HEADS,
    LENGTHS,
    MASKS,
    OPTIONS,
    PADDING,
    SCORES,
    SRC,
    compare,
    for_torch,
    tokens,
    twins,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")
options = pytest.mark.parametrize("given", OPTIONS.values(), ids=OPTIONS)
masks = pytest.mark.parametrize("pair", MASKS.values(), ids=MASKS)
NAMES = [f"Transformer{kind}" for kind in ("EncoderLayer", "Encoder", "DecoderLayer", "Decoder", "")]
names = pytest.mark.parametrize("name", NAMES)


def encoder_arguments(name: str, mask: Any, padding: Any) -> dict[str, Any]:
    return {"src_mask" if name.endswith("Layer") else "mask": mask, "src_key_padding_mask": padding}


@pytest.mark.parametrize("name", ["TransformerEncoderLayer", "TransformerEncoder"])
@options
@masks
def test_the_encoder_is_torchs(name: str, given: dict[str, Any], pair: Any) -> None:
    theirs = encoder_arguments(name, *for_torch(*pair))
    x = [tokens(SRC, given.get("batch_first", False))]
    compare(twins(name, **given), x, theirs, encoder_arguments(name, *pair), torch.float64)


@masks
def test_the_encoder_is_torchs_in_float32_on_every_instruction_set(pair: Any, isa: str) -> None:
    theirs, ours = encoder_arguments("", *for_torch(*pair)), encoder_arguments("", *pair)
    compare(twins("TransformerEncoder", torch.float32), [tokens(SRC)], theirs, ours, torch.float32)


@pytest.mark.parametrize("name", ["TransformerEncoderLayer", "TransformerEncoder"])
def test_masks_as_values_say_what_tensors_say(name: str) -> None:
    x, ours = tokens(SRC), twins(name)[1]
    values: list[tuple[tuple[Mask | None, Mask | None], tuple[Tensor | None, Tensor | None]]] = [
        ((Causal(), None), (CAUSAL, None)),
        ((None, KeyPadding(LENGTHS)), (None, PADDING)),
        ((Causal(), Keys(~PADDING)), (CAUSAL, PADDING)),
        ((Dense(~BAND), KeyPadding(LENGTHS)), (BAND, PADDING)),
        ((Causal() & KeyPadding(LENGTHS), None), (CAUSAL, PADDING)),
    ]
    for value, tensor in values:
        wanted = ours(x, **encoder_arguments(name, *tensor))
        assert torch.equal(ours(x, **encoder_arguments(name, *value)), wanted)
    integers = encoder_arguments(name, BAND.int(), PADDING.to(torch.uint8))
    assert torch.equal(ours(x, **integers), ours(x, **encoder_arguments(name, BAND, PADDING)))
    four = BAND.expand(BATCH, 1, SRC, SRC)
    for shaped in (four, four[:, 0], four.expand(-1, HEADS, -1, -1)):
        assert torch.equal(ours(x, **encoder_arguments(name, shaped, None)), ours(x, BAND))


@pytest.mark.parametrize("name", ["TransformerEncoderLayer", "TransformerEncoder"])
def test_is_causal_needs_no_mask_and_hides_no_mask(name: str) -> None:
    x, ours = tokens(SRC), twins(name)[1]
    assert torch.equal(ours(x, is_causal=True), ours(x, CAUSAL))
    assert torch.equal(ours(x, CAUSAL, is_causal=True), ours(x, CAUSAL))
    assert torch.equal(ours(x, BAND, is_causal=True), ours(x, BAND | CAUSAL.isinf()))
    assert torch.equal(ours(x, src_key_padding_mask=PADDING, is_causal=True), ours(x, CAUSAL, PADDING))


def test_unbatched_input() -> None:
    for pair in ((None, None), (CAUSAL, PADDING[1]), (SCORES.expand(HEADS, -1, -1), None)):
        theirs, ours = (encoder_arguments("", *x) for x in (for_torch(*pair), pair))
        compare(twins("TransformerEncoder"), [tokens(SRC)[:, 0]], theirs, ours, torch.float64)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_batch_of_nothing_but_padding(batch_first: bool) -> None:
    ours, x = twins("TransformerEncoder", batch_first=batch_first)[1], tokens(SRC, batch_first).requires_grad_()
    for hidden in (torch.ones(BATCH, SRC, dtype=torch.bool), KeyPadding(0), torch.full((BATCH, SRC), -torch.inf)):
        out = ours(x, None, hidden)
        assert torch.equal(ours.eval()(x, None, hidden), out)
        (grad,) = torch.autograd.grad(out.sum(), x)
        assert out.isfinite().all()
        assert grad.isfinite().all()
    # Every token alone: attention adds nothing but the bias of its last projection.
    alone = out
    for layer in [*ours.layers][:1]:
        first = layer.norm1(x + layer.self_attn.out_proj.bias)
        alone = layer.norm2(first + layer.linear2(layer.linear1(first).relu()))
    torch.testing.assert_close(ours.layers[0](x, None, KeyPadding(0)), alone)


def test_padded_rows_are_neither_cut_off_nor_zeroed_and_nan_in_them_stays_there() -> None:
    theirs, ours = twins("TransformerEncoder", batch_first=True)
    x, all_hidden_at_the_end = tokens(SRC, True), torch.arange(SRC) >= 4
    padding = all_hidden_at_the_end.expand(BATCH, -1)
    wanted = theirs(x, src_key_padding_mask=padding)
    with torch.inference_mode():
        got = ours.eval()(x, src_key_padding_mask=padding)
    assert_close = torch.testing.assert_close
    assert_close(got, wanted.detach())
    assert got[:, 4:].abs().min() > 0
    x[:, 4:] = torch.nan
    spoilt = ours(x, src_key_padding_mask=padding)
    assert torch.equal(spoilt[:, :4], got[:, :4])
    assert spoilt[:, 4:].isnan().all()


def test_strictly_causal_masks_work_as_they_are() -> None:
    ours, x = twins("TransformerEncoder")[1], tokens(SRC).requires_grad_()
    strict = torch.ones(SRC, SRC).triu() > 0
    out = ours(x, StrictCausal())
    assert torch.equal(ours(x, strict), out)
    assert torch.equal(ours(x, torch.zeros(SRC, SRC).masked_fill(strict, -torch.inf)), out)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert out.isfinite().all()
    assert grad.isfinite().all()


@pytest.mark.parametrize("scores", [SCORES, torch.zeros(SRC, SRC)], ids=["numbers", "zeros"])
def test_a_learned_mask_gets_its_gradient(scores: Tensor) -> None:
    theirs, ours = twins("TransformerEncoder")
    x = tokens(SRC)
    seed = torch.randn_like(x)
    wanted, alone, joined = (scores.double().masked_fill(BAND, -torch.inf).requires_grad_() for _ in range(3))
    (theirs(x, wanted) * seed).sum().backward()
    (ours(x, alone) * seed).sum().backward()
    (ours(x, joined, KeyPadding(SRC)) * seed).sum().backward()
    for found in (alone, joined):
        torch.testing.assert_close(found.grad, wanted.grad.masked_fill(BAND, 0.0))
