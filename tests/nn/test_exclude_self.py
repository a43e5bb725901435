"""exclude_self: what no row of the output depends on, by Jacobians; and that a mask alone does not hide as much."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmha.masks import Causal, KeyPadding, Mask, StrictCausal
from mmha.nn import Rotary, TransformerEncoder, TransformerEncoderLayer, sinusoidal

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTH, WIDTH = 5, 6
APART = ~torch.eye(LENGTH, dtype=torch.bool)


def encoder(
    depth: int, exclude_self: bool = True, dtype: torch.dtype = torch.float32, **given: Any
) -> TransformerEncoder:
    """Layers that are not alike."""
    layer = TransformerEncoderLayer(WIDTH, 2, 11, 0.0, batch_first=True, dtype=dtype, **given)
    made = TransformerEncoder(layer, depth, nn.LayerNorm(WIDTH, dtype=dtype), exclude_self=exclude_self)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def reaches(model: nn.Module, *masks: Any, batch: int = 1) -> Tensor:
    """(batch, T, T): the largest derivative of row i of the output by token j, within each sequence."""
    x = torch.randn(batch, LENGTH, WIDTH, dtype=next(model.parameters()).dtype)
    jacobian: Any = torch.autograd.functional.jacobian(lambda x: model(x, *masks).sum(0), x)  # type: ignore[no-untyped-call]
    return jacobian.abs().amax((1, 4)).transpose(0, 1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("mask", [None, Causal(), StrictCausal()], ids=repr)
def test_a_row_depends_on_every_visible_token_but_its_own(depth: int, norm_first: bool, mask: Mask | None) -> None:
    found = reaches(encoder(depth, norm_first=norm_first), mask)[0]
    wanted = APART if mask is None else APART.tril()
    assert (found.diagonal() == 0).all()
    assert torch.equal(found > 0, wanted)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_strictly_causal_mask_alone_leaks_the_token_into_its_own_row(depth: int) -> None:
    found = reaches(encoder(depth, exclude_self=False), StrictCausal())[0]
    assert torch.equal(found > 0, torch.ones(LENGTH, LENGTH).tril() > 0)


def test_a_mask_without_the_diagonal_alone_leaks_through_the_query_and_deeper_layers() -> None:
    hidden = torch.eye(LENGTH, dtype=torch.bool)
    for depth in (1, 2):
        assert (reaches(encoder(depth, exclude_self=False), hidden)[0].diagonal() > 0).all()


@pytest.mark.parametrize("given", [{}, {"rotary": Rotary(2)}, {"num_kv_heads": 1}], ids=str)
def test_joined_with_padding_and_tensors(given: dict[str, Any]) -> None:
    model = encoder(2, **given)
    causal = nn.Transformer.generate_square_subsequent_mask(LENGTH)
    padding = torch.arange(LENGTH) >= torch.tensor([LENGTH, 3])[:, None]
    wanted = APART & ~padding[:, None]
    for masks in ((None, padding), (None, KeyPadding([LENGTH, 3])), (torch.randn(LENGTH, LENGTH), padding)):
        assert torch.equal(reaches(model, *masks, batch=2) > 0, wanted)
    assert torch.equal(reaches(model, causal, padding, batch=2) > 0, wanted.tril())
    assert torch.equal(reaches(model, None, padding, True, batch=2) > 0, wanted.tril())


class Named(TransformerEncoderLayer):
    """A layer with a forward of its own."""

    def forward(self, src: Tensor, **named: Any) -> Tensor:  # type: ignore[override]
        return super().forward(src, **named)


def test_layers_with_a_forward_of_their_own_exclude_as_well() -> None:
    model = TransformerEncoder(Named(WIDTH, 2, 11, 0.0, batch_first=True), 2, exclude_self=True)
    assert torch.equal(reaches(model)[0] > 0, APART)


def test_nan_in_a_token_does_not_reach_its_own_row() -> None:
    model, x = encoder(3), torch.randn(1, LENGTH, WIDTH)
    spoilt = x.clone()
    spoilt[0, 2] = torch.nan
    assert torch.equal(model(spoilt)[0, 2], model(x)[0, 2])
    assert model(spoilt)[0, APART[2]].isnan().all()
    assert torch.equal(model(spoilt, Causal())[0, :3], model(x, Causal())[0, :3])


def by_hand(model: TransformerEncoder, x: Tensor) -> Tensor:
    """Pre-norm and post-norm layers written out once more, for one sequence (T, WIDTH) in float64."""
    places = sinusoidal(torch.arange(LENGTH), WIDTH).double()
    stream = (model.start + places).detach()
    for layer in model.layers:
        first = layer.norm_first  # type: ignore[union-attr]
        q, keys = (layer.norm1(stream), layer.norm1(x)) if first else (stream, x)  # type: ignore[operator]
        weight, bias = layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias  # type: ignore[union-attr]
        parts = [
            nn.functional.linear(y, w, b).view(LENGTH, 2, -1).transpose(0, 1)
            for y, w, b in zip((q, keys, keys), weight.chunk(3), bias.chunk(3), strict=True)  # type: ignore[operator, union-attr]
        ]
        scores = (parts[0] @ parts[1].mT / (WIDTH // 2) ** 0.5).masked_fill(~APART, -torch.inf)
        mixed = (scores.softmax(-1) @ parts[2]).transpose(0, 1).flatten(1)
        stream = stream + layer.self_attn.out_proj(mixed)  # type: ignore[operator, union-attr]
        stream = stream if first else layer.norm1(stream)  # type: ignore[operator]
        inner = layer.norm2(stream) if first else stream  # type: ignore[operator]
        stream = stream + layer.linear2(layer.linear1(inner).relu())  # type: ignore[operator]
        stream = stream if first else layer.norm2(stream)  # type: ignore[operator]
    return model.norm(stream)  # type: ignore[misc]


@pytest.mark.parametrize("norm_first", [False, True])
def test_it_is_its_formula(norm_first: bool) -> None:
    model, x = encoder(3, norm_first=norm_first, dtype=torch.float64), torch.randn(2, LENGTH, WIDTH).double()
    wanted = torch.stack([by_hand(model, row) for row in x])
    torch.testing.assert_close(model(x), wanted)
    torch.testing.assert_close(model(x[0]), wanted[0])
    for layer in model.layers:
        layer.self_attn.batch_first = False  # type: ignore[union-attr]
    torch.testing.assert_close(model(x.transpose(0, 1)).transpose(0, 1), wanted)


def test_the_learned_vector() -> None:
    model = encoder(2)
    assert {*model.state_dict()} - {*encoder(2, exclude_self=False).state_dict()} == {"start"}
    model(torch.randn(1, LENGTH, WIDTH)).sum().backward()
    assert model.start.grad is not None
    odd = TransformerEncoder(TransformerEncoderLayer(5, 1, 7, dtype=torch.bfloat16), 1, exclude_self=True)
    assert odd.start.dtype == torch.bfloat16
    assert odd(torch.zeros(3, 2, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_it_needs_layers_that_take_keys_from_elsewhere() -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, 2)
    expected = (
        r"`encoder_layer`: expected a mmha.nn.TransformerEncoderLayer with exclude_self, got TransformerEncoderLayer"
    )
    with pytest.raises(TypeError, match=re.escape(expected)):
        TransformerEncoder(layer, 2, exclude_self=True)
    ours = TransformerEncoderLayer(WIDTH, 2)
    with pytest.raises(
        ValueError, match=r"`keys_from`: expected 6 features in the last dimension, got shape \(3, 2, 7\)"
    ):
        ours(torch.zeros(3, 2, 6), keys_from=torch.zeros(3, 2, 7))
    with pytest.raises(ValueError, match="`src`: expected 2 dimensions"):
        encoder(1)(torch.zeros(WIDTH))
