"""The masks of the rows, counted in closed form or held against what their names say."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from mmha.bench import patterns
from mmha.bench.cases import Kind, sizes
from mmha.bench.patterns import PATTERNS, document_lengths, half_full, mask_of

L, B = 599, 3
SEEN: dict[Kind, int] = {
    "causal": L * (L + 1) // 2,
    "padding": L * (L * 3 // 4),
    "window": 256 * L - 256 * 255 // 2,
    "documents": sum(n * (n + 1) // 2 for n in document_lengths(L)),
}


@pytest.mark.parametrize(("kind", "visible"), SEEN.items())
def test_masks_show_what_they_are_named_for(kind: Kind, visible: int) -> None:
    mask = mask_of(kind, sizes(L))
    assert mask is not None
    assert mask.plan(1, 1, L, L).visible == visible


def test_no_mask_is_none() -> None:
    assert mask_of("dense", sizes(L)) is None


@pytest.mark.parametrize("kind", [kind for kind in get_args(Kind) if kind in PATTERNS and kind != "dense"])
def test_masks_are_the_same_at_every_run(kind: Kind) -> None:
    assert mask_of(kind, sizes(L, batch=B)) == mask_of(kind, sizes(L, batch=B))


@pytest.mark.parametrize(("kind", "share"), [("random", 0.1), ("blocks", 0.2 + 0.8 / 31)])  # with the diagonal
def test_random_masks_are_as_full_as_they_say(kind: Kind, share: float) -> None:
    length = 64 * 31
    mask = mask_of(kind, sizes(length))
    assert mask is not None
    assert mask.plan(1, 1, length, length).density == pytest.approx(share, rel=0.1)


def test_longformer_has_a_window_on_both_sides_and_global_tokens() -> None:
    length = 1031
    mask = mask_of("longformer", sizes(length))
    assert mask is not None
    i, j = torch.arange(length)[:, None], torch.arange(length)
    assert torch.equal(mask.dense(1, 1, length, length)[0, 0], ((i - j).abs() <= 256) | (i % 512 == 0) | (j % 512 == 0))


def test_blocks_are_whole_and_hold_the_diagonal() -> None:
    length = 64 * 5
    mask = mask_of("blocks", sizes(length))
    assert mask is not None
    tiles = mask.dense(1, 1, length, length)[0, 0].reshape(5, 64, 5, 64)
    assert torch.equal(tiles.all(3).all(1), tiles.any(3).any(1))
    assert bool(tiles.all(3).all(1).diagonal().all())


def test_bigbird_has_window_global_tokens_and_random_blocks() -> None:
    length = 64 * 13
    dense = mask_of("bigbird", sizes(length)).dense(1, 1, length, length)[0, 0]  # type: ignore[union-attr]
    away = torch.arange(length) - torch.arange(length)[:, None]
    assert bool(dense[away.abs() <= 96].all())
    assert bool(dense[:64].all())
    assert bool(dense[:, :64].all())
    far = dense & (away.abs() > 96)
    assert 0 < int(far[64:, 64:].sum(1).max()) <= patterns.RANDOM_BLOCKS * 64


def test_a_node_of_the_tree_sees_the_past_its_ancestors_and_itself() -> None:
    mask = mask_of("tree", sizes(31, q_len=7))
    assert mask is not None
    seen = mask.dense(1, 1, 7, 31)[0, 0]
    assert bool(seen[:, :24].all())
    assert [row.nonzero().flatten().tolist() for row in seen[:, 24:]] == [
        [0], [0, 1], [0, 2], [0, 1, 3], [0, 1, 4], [0, 2, 5], [0, 2, 6],
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["padded", "packed"])
def test_padded_and_packed_show_the_same_pairs(kind: Kind) -> None:
    lengths = half_full(B, L)
    mask = mask_of(kind, sizes(L, batch=B))
    assert mask is not None
    batch, length = (B, L) if kind == "padded" else (1, sum(lengths))
    assert mask.plan(batch, 1, length, length).visible == sum(n * n for n in lengths)


@pytest.mark.parametrize("length", [29, 2048])
def test_documents_are_uneven_and_fill_the_row(length: int) -> None:
    lengths = document_lengths(length)
    assert sum(lengths) == length
    assert len(lengths) == patterns.DOCUMENTS
    assert min(lengths) > 0
    assert len(set(lengths)) > 1


@pytest.mark.parametrize(("batch", "length"), [(16, 512), (7, 101)])
def test_half_of_the_padded_batch_is_filled(batch: int, length: int) -> None:
    lengths = half_full(batch, length)
    assert len(lengths) == batch
    assert all(0 < n < length for n in lengths)
    assert len(set(lengths)) > batch // 2
    assert sum(lengths) == batch // 2 * length + batch % 2 * (length // 2)
