"""MHANet's stream with weights in bfloat16 and int8."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mmha.models import mhanet
from mmha.models.mhanet.step import Step

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = mhanet.Config(width=22, layers=2, heads=2, hidden=13, window=5)


def model() -> mhanet.MHANet:
    torch.manual_seed(3)
    made = mhanet.MHANet(TINY)
    made.mean.copy_(torch.linspace(4, -7, 257))
    made.deviation.copy_(torch.linspace(23, 27, 257))
    return made.eval()


def noise(samples: int) -> Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(1)) * 0.1


def narrowed(weight: Tensor, weights: str) -> Tensor:
    if weights == "bfloat16":
        return weight.bfloat16().float()
    scale = (weight.abs().amax(1, keepdim=True) / 127).bfloat16().float()
    return (weight / scale).round() * scale


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_a_stream_in_any_pieces_gives_what_the_whole_gives(weights: str) -> None:
    enhancer = mhanet.Enhancer(model(), weights=weights)
    x = noise(20011)
    whole = enhancer.enhance(x)
    for size in (256, 1009):
        stream = enhancer.stream()
        out = torch.cat([*map(stream.push, x.split(size)), stream.finish()])
        assert torch.allclose(out[256:][: len(x)], whole, atol=1e-5)
    pair = enhancer.enhance(torch.stack([x.flip(0), x]))
    assert torch.allclose(pair[1], whole, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_the_weights_are_rounded_but_for_the_first_and_what_is_between_moves_logits_little(weights: str) -> None:
    net = model()
    magnitudes = noise(2 * 19 * 257).abs().view(2, 19, 257)
    rounded = copy.deepcopy(net)
    for name, layer in rounded.named_modules():
        if isinstance(layer, nn.Linear) and name != "project_in":
            layer.weight.copy_(narrowed(layer.weight, weights))
    wanted = rounded(magnitudes)
    step = Step(net, torch.int8 if weights == "int8" else torch.bfloat16)
    found = step(magnitudes, net.new_caches(5, 19, 2, step.dtype))
    assert found.dtype == torch.float32
    assert (found - wanted).norm() < 0.008 * wanted.norm()
    assert (found - wanted).norm() > 0


@torch.no_grad()
@pytest.mark.parametrize("weights", [torch.bfloat16, torch.int8])
def test_the_caches_hold_all_that_the_network_made(weights: torch.dtype) -> None:
    """Keys and values are bfloat16 before they are stored: caches in float32 change no bit."""
    net = model()
    magnitudes = noise(11 * 257).abs().view(1, 11, 257)
    step = Step(net, weights)
    narrow, wide = (net.new_caches(5, 1, 1, dtype) for dtype in (torch.bfloat16, torch.float32))
    for frame in magnitudes.split(1, 1):
        assert step(frame, narrow).equal(step(frame, wide))
    for one, other in zip(narrow, wide, strict=True):
        assert all(a.equal(b) for a, b in zip(one.to_dense(), other.to_dense(), strict=True))
