"""The decoder and the whole transformer against torch.nn's own, with equal weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmha.masks import Causal, Dense, KeyPadding, Mask
from transformer_twins import (
    BAND,
    BATCH,
    HEADS,
    LENGTHS,
    OPTIONS,
    PADDING,
    SCORES,
    SRC,
    TGT,
    compare,
    for_torch,
    tokens,
    twins,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")
options = pytest.mark.parametrize("given", OPTIONS.values(), ids=OPTIONS)

FUTURE = nn.Transformer.generate_square_subsequent_mask(TGT)
ENDS = torch.arange(TGT) >= torch.tensor([5, 3])[:, None]
#: tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask.
MASKS: dict[str, tuple[Tensor | None, ...]] = {
    "none": (None, None, None, None),
    "causal": (FUTURE, None, None, None),
    "padding": (FUTURE, None, ENDS, PADDING),
    "all": (FUTURE.isinf(), BAND[:TGT], ENDS, PADDING),
    "added": (SCORES[:TGT, :TGT], SCORES[:TGT], ENDS, torch.linspace(-1.0, 1.0, BATCH * SRC).view(BATCH, SRC)),
    "heads apart": (None, torch.stack([BAND[:TGT], BAND[1 : TGT + 1], SCORES[:TGT] > 1] * BATCH), None, None),
}
masks = pytest.mark.parametrize("four", MASKS.values(), ids=MASKS)
FOUR = ("tgt_mask", "memory_mask", "tgt_key_padding_mask", "memory_key_padding_mask")
VALUES: tuple[Mask, ...] = (Causal(), Dense(~BAND[:TGT]), KeyPadding([5, 3]), KeyPadding(LENGTHS))


def named(four: Any) -> dict[str, Any]:
    return dict(zip(FOUR, four, strict=True))


@pytest.mark.parametrize("name", ["TransformerDecoderLayer", "TransformerDecoder"])
@options
@masks
def test_the_decoder_is_torchs(name: str, given: dict[str, Any], four: Any) -> None:
    first = given.get("batch_first", False)
    inputs = [tokens(TGT, first), tokens(SRC, first)]
    compare(twins(name, **given), inputs, named(for_torch(*four)), named(four), torch.float64)


@masks
def test_the_decoder_is_torchs_in_float32(four: Any) -> None:
    inputs = [tokens(TGT), tokens(SRC)]
    both = twins("TransformerDecoder", torch.float32)
    compare(both, inputs, named(for_torch(*four)), named(four), torch.float32)


@pytest.mark.parametrize("name", ["TransformerDecoderLayer", "TransformerDecoder"])
def test_masks_as_values_and_hints(name: str) -> None:
    ours, inputs = twins(name)[1], (tokens(TGT), tokens(SRC))
    wanted = ours(*inputs, **named(MASKS["all"]))
    assert torch.equal(ours(*inputs, **named(VALUES)), wanted)
    hinted = {**named(VALUES), "tgt_mask": None, "tgt_is_causal": True}
    assert torch.equal(ours(*inputs, **hinted), wanted)
    # Fewer queries than keys: the last query stands at the last key.
    last = torch.ones(TGT, SRC).triu(1 + SRC - TGT) > 0
    assert torch.equal(ours(*inputs, memory_is_causal=True), ours(*inputs, memory_mask=last))


@pytest.mark.parametrize("batched", [True, False])
@options
def test_the_whole_transformer_is_torchs(given: dict[str, Any], batched: bool) -> None:
    first = given.get("batch_first", False)
    inputs = [tokens(SRC, first), tokens(TGT, first)]
    named_masks = {
        "src_mask": BAND, "tgt_mask": FUTURE, "memory_mask": SCORES[:TGT], "src_key_padding_mask": PADDING,
        "tgt_key_padding_mask": ENDS, "memory_key_padding_mask": PADDING,
    }  # fmt: skip
    if not batched:
        inputs = [x[1] if first else x[:, 1] for x in inputs]
        named_masks = {key: x[1] if key.endswith("padding_mask") else x for key, x in named_masks.items()}
    theirs: dict[str, Any] = dict(zip(named_masks, for_torch(*named_masks.values()), strict=True))
    compare(twins("Transformer", **given), inputs, theirs, named_masks, torch.float64)


def test_the_whole_transformer_takes_values_and_refuses_what_torch_refuses() -> None:
    ours, src, tgt = twins("Transformer")[1], tokens(SRC), tokens(TGT)
    values = {"src_mask": Dense(~BAND), "tgt_mask": Causal(), "src_key_padding_mask": KeyPadding(LENGTHS)}
    wanted = ours(src, tgt, BAND, ours.generate_square_subsequent_mask(TGT), src_key_padding_mask=PADDING)
    assert torch.equal(ours(src, tgt, **values, memory_mask=None), wanted)
    hints = {"src_mask": BAND, "tgt_is_causal": True, "src_key_padding_mask": PADDING}
    assert torch.equal(ours(src, tgt, **hints), wanted)
    with pytest.raises(RuntimeError, match="the batch number of src and tgt must be equal"):
        ours(src, tgt[:, :1])
    with pytest.raises(RuntimeError, match="the feature number of src and tgt must be equal to d_model"):
        ours(src[..., 1:], tgt[..., 1:])


def test_messages_name_the_argument() -> None:
    tgt, memory, wrong = tokens(TGT), tokens(SRC), torch.ones(2, 3)
    for name in ("TransformerDecoderLayer", "TransformerDecoder"):
        ours = twins(name)[1]
        for argument, lengths in (("tgt_mask", "L = 5, S = 5"), ("memory_mask", "L = 5, S = 7")):
            message = rf"`{argument}`: expected shape \(L, S\), .* N = 2, H = {HEADS}, {lengths}, got \(2, 3\)"
            with pytest.raises(ValueError, match=message):
                ours(tgt, memory, **{argument: wrong})
        for argument, keys in (("tgt_key_padding_mask", TGT), ("memory_key_padding_mask", SRC)):
            message = rf"`{argument}`: expected shape \(N, S\) = \(2, {keys}\), .* got \(2, 3\)"
            with pytest.raises(ValueError, match=message):
                ours(tgt, memory, **{argument: wrong})
        with pytest.raises(ValueError, match="`memory`: expected 3 dimensions, as the query has, got shape"):
            ours(tgt, memory[0])
