"""Gradients of one key/value head on two threads, which share out its rows and its tiles of 128 keys."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import mmha
from mmha.masks import KeyPadding, Mask, PerHead, Window

Q, DIM = 331, 67


pytestmark = pytest.mark.usefixtures("two_threads")


def gradients(mask: Mask, heads: int, keys: int, exact: bool) -> list[Tensor]:
    draw = torch.Generator().manual_seed(keys)
    shapes = ((1, heads, Q, DIM), (1, 1, keys, DIM), (1, 1, keys, DIM))
    q, k, v, d_out = (torch.randn(shape, generator=draw) for shape in (*shapes, shapes[0]))
    leaves = [x.double() if exact else x for x in (q, k, v)]
    for leaf in leaves:
        leaf.requires_grad_()
    out = mmha.attention(*leaves, mask)  # float64 goes through the reference
    out.backward(d_out.to(out.dtype))
    return [leaf.grad for leaf in leaves if leaf.grad is not None]


def check(mask: Mask, heads: int, keys: int) -> None:
    for found, wanted in zip(gradients(mask, heads, keys, False), gradients(mask, heads, keys, True), strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("stop", [127, 128, 129, 257, 300])
def test_a_tile_of_which_one_key_is_seen(stop: int) -> None:
    check(KeyPadding([stop]), 1, 307)


@pytest.mark.parametrize("others", [KeyPadding([101]), Window(3, 5)])
def test_heads_of_a_group_with_masks_of_their_own(others: Mask) -> None:
    check(PerHead([others, KeyPadding([300])]), 2, 307)
    check(PerHead([KeyPadding([300]), others]), 2, 307)
