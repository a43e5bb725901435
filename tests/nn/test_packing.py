"""Packing: against loops over the sequences, and a whole encoder packed, padded, and one sequence at a time."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmha
from mmha.masks import Causal, Documents, Full, KeyPadding, Mask, QueryPadding, Window
from mmha.nn import Block, packed_positions, sinusoidal
from tolerances import assert_near

LENGTHS = [7, 0, 5, 11, 1, 11]
BATCH, LENGTH, TOKENS = len(LENGTHS), 13, sum(LENGTHS)


def by_hand(x: Tensor, side: str) -> Tensor:
    """(1, N, ...) by a loop over the rows."""
    rows = [row[:n] if side == "right" else row[len(row) - n :] for row, n in zip(x, LENGTHS, strict=True)]
    return torch.cat(rows)[None]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("trailing", [(), (3,), (2, 3, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_pack_and_unpack_are_a_loop_over_the_rows(side: Any, trailing: tuple[int, ...], dtype: torch.dtype) -> None:
    x = (torch.randn(BATCH, LENGTH, *trailing) * 3).to(dtype)
    packed, mask = mmha.pack(x, LENGTHS, padding_side=side)
    assert packed.dtype == dtype
    assert torch.equal(packed, by_hand(x, side))
    assert mask == Documents.from_lengths(LENGTHS)
    wanted = torch.zeros_like(x)
    for b, n in enumerate(LENGTHS):
        real = slice(0, n) if side == "right" else slice(LENGTH - n, LENGTH)
        wanted[b, real] = x[b, real]
    got = mmha.unpack(packed, LENGTHS, LENGTH, padding_side=side)
    assert got.dtype == dtype
    assert torch.equal(got, wanted)


def test_unpack_is_as_long_as_the_longest_unless_told() -> None:
    packed = torch.randn(1, TOKENS, 2)
    assert mmha.unpack(packed, LENGTHS).shape == (BATCH, 11, 2)
    assert mmha.unpack(packed, LENGTHS, 17).shape == (BATCH, 17, 2)
    assert torch.equal(mmha.unpack(packed, LENGTHS, 17)[:, :11], mmha.unpack(packed, LENGTHS))


@pytest.mark.parametrize("made", [tuple, np.array, torch.tensor, lambda n: torch.tensor(n, dtype=torch.uint8)])
def test_lengths_come_as_any_integers(made: Any) -> None:
    x = torch.randn(BATCH, LENGTH)
    packed, mask = mmha.pack(x, made(LENGTHS))
    assert torch.equal(packed, by_hand(x, "right"))
    assert mask == Documents.from_lengths(made(LENGTHS)) == Documents.from_lengths(LENGTHS)
    assert torch.equal(mmha.unpack(packed, made(LENGTHS)), mmha.unpack(packed, LENGTHS))
    assert torch.equal(packed_positions(made(LENGTHS)), torch.cat([torch.arange(n) for n in LENGTHS]))


@pytest.mark.parametrize("side", ["right", "left"])
def test_gradients_pass_and_are_zero_at_padding(side: Any) -> None:
    x = torch.randn(BATCH, LENGTH, 3, requires_grad=True)
    packed, _ = mmha.pack(x, LENGTHS, padding_side=side)
    weight = torch.randn_like(packed)
    packed.backward(weight)
    assert torch.equal(x.grad, mmha.unpack(weight, LENGTHS, LENGTH, padding_side=side))  # type: ignore[arg-type]
    row, weight = packed.detach().requires_grad_(), torch.randn(BATCH, LENGTH, 3)
    mmha.unpack(row, LENGTHS, LENGTH, padding_side=side).backward(weight)
    assert torch.equal(row.grad, by_hand(weight, side))  # type: ignore[arg-type]


def test_gradients_of_gradients() -> None:
    def there_and_back(x: Tensor) -> Tensor:
        return mmha.unpack(mmha.pack(x, LENGTHS)[0] ** 3, LENGTHS, LENGTH)

    x = torch.randn(BATCH, LENGTH, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(there_and_back, x)


def test_padding_is_never_read() -> None:
    x = torch.full((BATCH, LENGTH), torch.nan)
    for b, n in enumerate(LENGTHS):
        x[b, :n] = b
    packed, _ = mmha.pack(x.requires_grad_(), LENGTHS)
    assert not packed.isnan().any()
    mmha.unpack(packed, LENGTHS, LENGTH).square().sum().backward()
    assert torch.equal(x.grad, 2 * x.detach().nan_to_num(0.0))  # type: ignore[arg-type]


def test_strides_do_not_matter() -> None:
    x = torch.randn(5, LENGTH, BATCH).permute(2, 1, 0)
    assert torch.equal(mmha.pack(x, LENGTHS)[0], by_hand(x, "right"))
    assert torch.equal(mmha.pack(x[:1, :1].expand(BATCH, LENGTH, 5), LENGTHS)[0], x[0, 0].expand(1, TOKENS, 5))


@pytest.mark.parametrize(
    ("lengths", "shape"), [([], (0, 3, 2)), ([0, 0], (2, 3, 2)), ([0], (1, 0, 2)), ([3], (1, 3, 0))]
)
def test_nothing_to_pack(lengths: list[int], shape: tuple[int, ...]) -> None:
    packed, mask = mmha.pack(torch.ones(shape), lengths)
    assert packed.shape == (1, sum(lengths), shape[2])
    assert mask.ids.tolist() == [0] * sum(lengths)
    assert torch.equal(mmha.unpack(packed, lengths, shape[1]), torch.zeros(shape))
    q = packed[:, None]
    assert mmha.attention(q, q, q, mask).shape == q.shape


X, P = torch.zeros(2, 3, 5), torch.zeros(1, 4, 5)
BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: mmha.pack(X, [1]), ValueError, "`lengths`: expected shape (B,) = (2,), got (1,)"),
    (lambda: mmha.pack(X, [[1, 2]]), ValueError, "`lengths`: expected integers of shape (B,), got shape (1, 2)"),
    (lambda: mmha.pack(X, 3), ValueError, "`lengths`: expected integers of shape (B,), got shape ()"),
    (lambda: mmha.pack(X, [4, 2]), ValueError, "`lengths`: expected integers <= T = 3, got 4"),
    (lambda: mmha.pack(X, [-1, 2]), ValueError, "`lengths`: expected integers >= 0, got -1"),
    (lambda: mmha.pack(X, [1.0, 2.0]), TypeError, "`lengths`: expected integers of shape (B,), got a float32 tensor"),
    (lambda: mmha.pack(X, X[:, 0, 0] > 0), TypeError, "`lengths`: expected integers of shape (B,), got a bool tensor"),
    (lambda: mmha.pack(X, None), TypeError, "`lengths`: expected integers of shape (B,), got None"),
    (lambda: mmha.pack(X[0, 0], [1]), ValueError, "`x`: expected shape (B, T, ...), got (5,)"),
    (lambda: mmha.pack([1], [1]), TypeError, "`x`: expected a tensor of shape (B, T, ...), got list [1]"),
    (lambda: mmha.pack(X.to_sparse(), [1, 2]), TypeError, "`x`: expected a dense (strided) tensor, got layout sparse"),
    (
        lambda: mmha.pack(torch.nested.nested_tensor([X[0]], layout=torch.jagged), [3]),
        TypeError,
        "`x`: expected a dense (strided) tensor, got a nested tensor",
    ),
    (
        lambda: mmha.pack(X, [1, 2], padding_side="lft"),
        ValueError,
        "`padding_side`: expected 'right' or 'left', got 'lft'; did you mean 'left'?",
    ),
    (
        lambda: mmha.unpack(P, [1, 2]),
        ValueError,
        "`packed`: expected shape (1, N, ...) with N = sum(lengths) = 3, got (1, 4, 5)",
    ),
    (
        lambda: mmha.unpack(X, [1, 2]),
        ValueError,
        "`packed`: expected shape (1, N, ...) with N = sum(lengths) = 3, got (2, 3, 5)",
    ),
    (lambda: mmha.unpack(P[0, :, 0], [4]), ValueError, "`packed`: expected shape (1, N, ...), got (4,)"),
    (lambda: mmha.unpack(P, [5, -1]), ValueError, "`lengths`: expected integers >= 0, got -1"),
    (lambda: mmha.unpack(P, [1, 3], 2), ValueError, "`length`: expected an integer >= 3, got 2"),
    (lambda: mmha.unpack(P, [1, 3], 3.0), TypeError, "`length`: expected an integer >= 3, got 3.0"),
    (lambda: packed_positions([2, -3]), ValueError, "`lengths`: expected integers >= 0, got -3"),
    (lambda: packed_positions(["a"]), TypeError, "`lengths`: expected integers of shape (B,), got list ['a']"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message for _, _, message in BAD])
def test_bad_input_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()


class Encoder(nn.Module):
    """Token ids and their positions through two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(19, 15)
        self.blocks = nn.ModuleList(Block(width=15, heads=3, hidden=23) for _ in range(2))

    def forward(self, ids: Tensor, positions: Tensor, mask: Mask | None) -> Tensor:
        x = self.embedding(ids) + sinusoidal(positions, 16)[..., :15]
        for block in self.blocks:
            x = block(x, mask)
        return x


def results(encoder: Encoder, outs: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    """What came out for each sequence, and the gradients of the parameters under the weighted sum of it."""
    encoder.zero_grad()
    torch.autograd.backward(outs, weights)
    return [torch.cat(outs).detach(), *[p.grad for p in encoder.parameters() if p.grad is not None]]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("inner", [Full(), Causal(), Causal() & Window(4)], ids=str)
def test_an_encoder_packed_equals_padded_equals_each_sequence_alone(inner: Mask, side: Any, isa: str) -> None:
    encoder, ids = Encoder(), torch.randint(19, (BATCH, LENGTH))
    weights = [torch.randn(n, 15) for n in LENGTHS]
    starts = [0 if side == "right" else LENGTH - n for n in LENGTHS]
    real = [slice(s, s + n) for s, n in zip(starts, LENGTHS, strict=True)]
    alone = [
        encoder(ids[b : b + 1, r], torch.arange(n), inner)[0]
        for b, (r, n) in enumerate(zip(real, LENGTHS, strict=True))
    ]
    expected = results(encoder, alone, weights)

    row, mask = mmha.pack(ids, LENGTHS, padding_side=side)
    out = mmha.unpack(encoder(row, packed_positions(LENGTHS), inner & mask), LENGTHS, LENGTH, padding_side=side)
    packed = results(encoder, [out[b, r] for b, r in enumerate(real)], weights)

    padding = KeyPadding(LENGTHS) & QueryPadding(LENGTHS) if side == "right" else KeyPadding.left(starts)
    out = encoder(ids, torch.arange(LENGTH) - torch.tensor(starts)[:, None], inner & padding)
    padded = results(encoder, [out[b, r] for b, r in enumerate(real)], weights)

    for one, other, third in zip(expected, packed, padded, strict=True):
        assert_near(other, one, torch.float32, factor=4)
        assert_near(third, one, torch.float32, factor=4)


def test_packed_attention_equals_each_document_alone_across_tiles(isa: str) -> None:
    # Documents that begin and end inside tiles of 32 rows and 256 keys, at their edges, and are empty.
    lengths, heads, dim = [250, 6, 0, 300, 1, 31, 0, 90], 3, 7
    q, k, v, weight = torch.randn(4, 1, heads, sum(lengths), dim).unbind()
    for inner in (Full(), Causal()):
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        out = mmha.attention(*inputs, inner & Documents.from_lengths(lengths))
        got = [out, *torch.autograd.grad(out, inputs, weight)]
        pieces = []
        for *parts, grad in zip(*[x.split(lengths, dim=2) for x in (q, k, v, weight)], strict=True):
            parts = [x.clone().requires_grad_() for x in parts]
            one = mmha.attention(*parts, inner)
            pieces.append([one, *torch.autograd.grad(one, parts, grad)])
        for have, want in zip(got, zip(*pieces, strict=True), strict=True):
            assert_near(have, torch.cat(want, dim=2), torch.float32)


def test_padding_costs_no_visible_pair() -> None:
    pairs = 3 * sum(n * n for n in LENGTHS)
    padded = KeyPadding(LENGTHS) & QueryPadding(LENGTHS)
    _, mask = mmha.pack(torch.zeros(BATCH, LENGTH), LENGTHS)
    assert padded.plan(BATCH, 3, LENGTH, LENGTH).visible == mask.plan(1, 3, TOKENS, TOKENS).visible == pairs


def test_very_many_documents_are_lowered_in_linear_time() -> None:
    lengths = np.random.default_rng(0).integers(0, 5, 100_003)  # one in five is empty
    stops = lengths.cumsum().repeat(lengths)
    tokens = len(stops)
    begun = time.perf_counter()
    plan = (Causal() & Documents.from_lengths(torch.from_numpy(lengths))).plan(1, 1, tokens, tokens)
    whole = Documents.from_lengths(lengths).plan(1, 1, tokens, tokens)
    assert time.perf_counter() - begun < 10  # a twentieth of a second; documents x tokens would take an hour
    assert plan.kind == whole.kind == "spans"
    assert max(plan.nbytes, whole.nbytes) < 16 * tokens
    assert plan.visible == int((lengths * (lengths + 1) // 2).sum())
    assert whole.visible == int((lengths**2).sum())
    for i in (0, 1, tokens // 2, tokens - 1):
        start = int(stops[i] - lengths[np.searchsorted(lengths.cumsum(), i, side="right")])
        assert plan.row(i) == [(start, i + 1)]
        assert whole.row(i) == [(start, int(stops[i]))]
