"""What users of torch report about its attention, a test an issue: what torch does today, and that ours is right.

Each test is named by the numbers of PyTorch's issues. What torch does is asserted where it is cheap and deterministic,
so that these tests notice when torch changes; docs/differences.md says the same in words.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mmha
from mmha.masks import Causal, Documents, Keys, Predicate, StrictCausal
from mmha.nn.functional import scaled_dot_product_attention
from tolerances import assert_near

N, L, E, H = 2, 5, 6, 2
NAN = torch.tensor(math.nan)
LATER = torch.ones(L, L, dtype=torch.bool).triu(1)  # True = hidden, as torch.nn says it
FULLY_HIDDEN = torch.zeros(L, L, dtype=torch.bool)
FULLY_HIDDEN[2] = True
PADDING = torch.tensor([[False, False, False, True, True], [False, False, True, True, True]])


@pytest.fixture(autouse=True)
def one(one_thread: None) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
        yield


def pair(
    embed_dim: int = E, heads: int = H, **options: Any
) -> tuple[nn.MultiheadAttention, mmha.nn.MultiheadAttention]:
    """torch's module and ours with the same weights."""
    theirs = nn.MultiheadAttention(embed_dim, heads, batch_first=True, **options)
    ours = mmha.nn.MultiheadAttention(embed_dim, heads, batch_first=True, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def encoders(**options: Any) -> tuple[nn.TransformerEncoder, mmha.nn.TransformerEncoder]:
    sizes: Any = {"dim_feedforward": 11, "dropout": 0.0, "batch_first": True}
    theirs = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, H, **sizes), 2, **options)
    ours = mmha.nn.TransformerEncoder(mmha.nn.TransformerEncoderLayer(E, H, **sizes), 2, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def attend(module: nn.Module, x: Tensor, **arguments: Any) -> Tensor:
    out: Tensor = module(x, x, x, **arguments)[0]
    return out


def evaluated(module: nn.Module, *x: Tensor, **arguments: Any) -> Any:
    with torch.no_grad():
        return module.eval()(*x, **arguments)


def own_influence(function: Any, x: Tensor) -> Tensor:
    """(T,): the largest derivative of output row t by input row t."""
    jacobian = torch.autograd.functional.jacobian(function, x)  # type: ignore[no-untyped-call]
    return torch.stack([jacobian[t, :, t].abs().max() for t in range(len(x))])


def test_143287_a_strictly_causal_mask_does_not_hide_the_query() -> None:
    """A mask hides keys. The query still comes from the token itself, and a residual carries it: `exclude_self`."""
    theirs, ours = pair()
    strict = ~torch.ones(L, L, dtype=torch.bool).tril(-1)
    x = torch.randn(1, L, E)
    assert theirs(x, x, x, attn_mask=strict)[0][0, 0].isnan().all()  # the first token sees nothing
    out, weights = ours(x, x, x, attn_mask=StrictCausal())
    assert torch.equal(out, attend(ours, x, attn_mask=strict))
    assert torch.equal(out[0, 0], ours.out_proj.bias)
    assert not weights.triu().any()
    found = own_influence(lambda rows: attend(ours, rows[None], mask=StrictCausal())[0], x[0])
    assert (found[2:] > 0).all()  # row 0 sees nothing, row 1 one key, whatever its query is

    _, plain = encoders()
    excluding = mmha.nn.TransformerEncoder(plain.layers[0], 2, exclude_self=True)
    assert (own_influence(lambda rows: plain(rows[None], StrictCausal())[0], x[0]) > 0).all()
    assert not own_influence(lambda rows: excluding(rows[None])[0], x[0]).any()


@pytest.mark.parametrize("need_weights", [True, False])
def test_41508_24816_160064_fully_hidden_row(need_weights: bool) -> None:
    theirs, ours = pair()
    x = torch.randn(N, L, E, requires_grad=True)
    wrong = attend(theirs, x, attn_mask=FULLY_HIDDEN, need_weights=need_weights)
    assert bool(wrong[:, 2].isnan().all()) == need_weights
    assert bool(torch.autograd.grad(wrong.sum(), x)[0].isnan().any()) == need_weights
    assert evaluated(theirs, x, x, x, attn_mask=FULLY_HIDDEN, need_weights=need_weights)[0][:, 2].isnan().all()

    out, weights = ours(x, x, x, attn_mask=FULLY_HIDDEN, need_weights=need_weights)
    assert torch.equal(out[:, 2], ours.out_proj.bias.expand(N, E))
    assert weights is None or not weights[:, 2].any()
    assert not torch.autograd.grad(out[:, 2].sum(), x, retain_graph=True)[0].any()
    assert torch.autograd.grad(out.sum(), x)[0].isfinite().all()
    again = evaluated(ours, x, x, x, attn_mask=FULLY_HIDDEN, need_weights=need_weights)[0]
    assert torch.equal(again, out)


def test_160064_one_head_fully_hidden() -> None:
    theirs, ours = pair()
    x = torch.randn(N, L, E)
    hidden = torch.zeros(N, H, L, L, dtype=torch.bool)
    hidden[:, 1] = True
    assert attend(theirs, x, attn_mask=hidden.view(N * H, L, L)).isnan().all()
    out, weights = ours(x, x, x, attn_mask=hidden.view(N * H, L, L), average_attn_weights=False)
    assert not weights[:, 1].any()
    assert torch.equal(weights[:, 0], ours(x, x, x, average_attn_weights=False)[1][:, 0])
    assert out.isfinite().all()


def test_131060_133882_safe_softmax() -> None:
    q, k, v = torch.randn(3, N, H, L, 3, requires_grad=True).unbind(0)
    for attention in (F.scaled_dot_product_attention, scaled_dot_product_attention):
        out = attention(q, k, v, ~FULLY_HIDDEN)
        assert not out[:, :, 2].any()
        assert not torch.autograd.grad(out.sum(), q, retain_graph=True)[0][:, :, 2].any()
    assert not mmha.attention(q, k, v, ~FULLY_HIDDEN)[:, :, 2].any()


@pytest.mark.parametrize("need_weights", [True, False])
def test_101967_nan_in_hidden_keys(need_weights: bool) -> None:
    theirs, ours = pair()
    x = torch.randn(N, L, E)
    poisoned = torch.where(PADDING[..., None], NAN, x)
    arguments: Any = {"key_padding_mask": PADDING, "need_weights": need_weights}
    assert theirs(x, poisoned, poisoned, **arguments)[0].isnan().any()
    assert evaluated(theirs, x, poisoned, poisoned, **arguments)[0].isnan().any()
    clean = x.clone()  # another tensor than the query: then both sides take the same products
    assert torch.equal(ours(x, poisoned, poisoned, **arguments)[0], ours(x, clean, clean, **arguments)[0])
    assert F.scaled_dot_product_attention(x, poisoned, poisoned, ~PADDING[:, None]).isnan().any()
    assert scaled_dot_product_attention(x, poisoned, poisoned, ~PADDING[:, None]).isfinite().all()


def test_178677_a_batch_of_padding_in_eval() -> None:
    theirs, ours = encoders()
    x, padding = torch.randn(N, L, E), torch.ones(N, L, dtype=torch.bool)
    with pytest.raises(RuntimeError):
        evaluated(theirs, x, src_key_padding_mask=padding)
    out = evaluated(ours, x, src_key_padding_mask=padding)
    assert out.isfinite().all()
    assert torch.equal(out, ours.train()(x, src_key_padding_mask=padding))


def test_118972_172338_195660_118025_131254_is_causal_beside_a_mask() -> None:
    """In torch a hint: it needs a mask, and then what the mask says is not read. Here a mask: both hold."""
    theirs, ours = pair()
    x = torch.randn(N, L, E)
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        attend(theirs, x, is_causal=True)
    causal = attend(ours, x, attn_mask=LATER)
    assert torch.equal(attend(ours, x, is_causal=True), causal)
    assert torch.equal(attend(ours, x, mask=Causal()), causal)

    another = torch.zeros(L, L, dtype=torch.bool)
    another[:, 1] = True
    wrong = attend(theirs, x, attn_mask=another, is_causal=True, need_weights=False)
    assert_near(wrong, attend(theirs, x, attn_mask=LATER, need_weights=False), torch.float32, factor=5)
    for need_weights in (True, False):
        both = attend(ours, x, attn_mask=another, is_causal=True, need_weights=need_weights)
        assert_near(both, attend(ours, x, attn_mask=another | LATER), torch.float32)


def test_108108_103082_144858_fewer_queries_than_keys() -> None:
    """One query over five keys: the last token of five. Where torch's own function is asked for, its meaning stays."""
    _, ours = pair()
    q, k, v = torch.randn(1, H, 1, 3), torch.randn(1, H, L, 3), torch.randn(1, H, L, 3)
    first_key = v[:, :, :1]
    assert_near(F.scaled_dot_product_attention(q, k, v, is_causal=True), first_key, torch.float32)
    assert_near(scaled_dot_product_attention(q, k, v, is_causal=True), first_key, torch.float32)
    assert torch.equal(mmha.attention(q, k, v, Causal()), mmha.attention(q, k, v))
    x = torch.randn(N, L, E)
    whole, last = attend(ours, x, is_causal=True), ours(x[:, -2:], x, x, is_causal=True)[0]
    assert_near(last, whole[:, -2:], torch.float32)


def test_120668_114083_170400_polarity() -> None:
    """torch.nn: True = hidden. torch's function: True = visible. Ours keeps either; `mask=` says what is visible."""
    theirs, ours = pair()
    x = torch.randn(N, L, E)
    exact = attend(theirs, x, attn_mask=LATER)
    assert_near(attend(ours, x, attn_mask=LATER), exact, torch.float32, factor=5)
    assert torch.equal(attend(ours, x, mask=~LATER), attend(ours, x, attn_mask=LATER))
    padded = attend(ours, x, key_padding_mask=PADDING)
    assert torch.equal(padded, attend(ours, x, mask=Keys(~PADDING)))
    q, k, v = torch.randn(3, N, H, L, 3).unbind(0)
    exact = F.scaled_dot_product_attention(q, k, v, ~LATER)
    for found in (scaled_dot_product_attention(q, k, v, ~LATER), mmha.attention(q, k, v, ~LATER)):
        assert_near(found, exact, torch.float32, factor=5)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8], ids=str)
def test_92554_95702_96103_masks_of_any_dtype(kind: torch.dtype) -> None:
    """torch warns of masks of two dtypes, refuses integers, and float64 fails in a product."""
    theirs, ours = pair()
    x = torch.randn(N, L, E)
    exact = attend(ours, x, key_padding_mask=PADDING, attn_mask=LATER)
    padding = PADDING.to(kind)
    if kind.is_floating_point:
        padding = torch.zeros(N, L, dtype=kind).masked_fill(PADDING, -math.inf)
    assert_near(attend(ours, x, key_padding_mask=padding, attn_mask=LATER), exact, torch.float32)
    if kind.is_floating_point:
        with pytest.warns(UserWarning, match="mismatched"):
            attend(theirs, x, key_padding_mask=padding.float(), attn_mask=LATER)
    else:
        with pytest.raises(AssertionError, match="only bool and floating types"):
            attend(theirs, x, key_padding_mask=padding)


def test_97409_97605_97128_86120_eval_computes_what_train_does() -> None:
    """3-D masks with padding, no bias, an odd number of heads: the same bits in both modes (torch: close)."""
    theirs, ours = pair(9, 3, bias=False)
    x, mask = torch.randn(N, L, 9), torch.zeros(N * 3, L, L, dtype=torch.bool)
    mask[:, :, 1] = True
    for module in (theirs, ours):
        trained = attend(module.train(), x, attn_mask=mask, key_padding_mask=PADDING)
        found = evaluated(module, x, x, x, attn_mask=mask, key_padding_mask=PADDING)[0]
        assert_near(found, trained, torch.float32, factor=5)
        assert module is theirs or torch.equal(found, trained)


def test_83142_97111_88806_padded_rows_in_eval() -> None:
    theirs, ours = encoders()
    x = torch.randn(N, L, E)
    wrong = evaluated(theirs, x, src_key_padding_mask=PADDING)
    assert not wrong[PADDING].any()
    trained = ours.train()(x, src_key_padding_mask=PADDING)
    assert torch.equal(evaluated(ours, x, src_key_padding_mask=PADDING), trained)
    assert_near(trained, theirs.train()(x, src_key_padding_mask=PADDING), torch.float32, factor=5)


def test_64706_28884_116472_masks_of_a_batch() -> None:
    """(N, L, S) and (N, H, L, S), besides torch's (N * H, L, S)."""
    theirs, ours = pair()
    x, hidden = torch.randn(N, L, E), torch.rand(N, L, L) < 0.4
    hidden[:, :, 0] = False
    per_head = hidden.repeat_interleave(H, 0)
    exact = attend(theirs, x, attn_mask=per_head)
    for mask in (hidden, hidden[:, None], per_head.view(N, H, L, L), per_head):
        assert_near(attend(ours, x, attn_mask=mask), exact, torch.float32, factor=5)
    with pytest.raises(RuntimeError, match="3D attn_mask"):
        attend(theirs, x, attn_mask=hidden)
    with pytest.raises(AssertionError, match="4-D"):
        attend(theirs, x, attn_mask=hidden[:, None])


def test_27461_add_zero_attn_with_a_causal_mask() -> None:
    """The key of zeros is visible to every query; with it a row that sees nothing else has the weight 1 there."""
    theirs, ours = pair(add_zero_attn=True, add_bias_kv=True)
    x = torch.randn(N, L, E)
    exact, exact_weights = theirs(x, x, x, attn_mask=LATER)
    for arguments in ({"attn_mask": LATER}, {"is_causal": True}, {"mask": Causal()}):
        out, weights = ours(x, x, x, **arguments)
        assert_near(out, exact, torch.float32, factor=5)
        assert_near(weights, exact_weights, torch.float32, factor=5)


def test_weights_are_those_before_dropout() -> None:
    theirs, ours = pair(dropout=0.5)
    x = torch.randn(N, L, E)
    assert (theirs(x, x, x)[1].sum(-1) - 1).abs().max() > 0.1
    out, weights = ours(x, x, x)
    assert_near(weights.sum(-1), torch.ones(N, L), torch.float32)
    assert torch.equal(weights, ours.eval()(x, x, x)[1])
    assert not torch.equal(out, ours(x, x, x)[0])


def test_eval_has_no_second_path() -> None:
    """torch's eval is slower than its train for padded input; ours is the same computation, whatever is asked for."""
    _, ours = pair()
    x = torch.randn(N, L, E)
    with_weights = attend(ours, x, key_padding_mask=PADDING)
    assert_near(attend(ours, x, key_padding_mask=PADDING, need_weights=False), with_weights, torch.float32)
    assert torch.equal(evaluated(ours, x, x, x, key_padding_mask=PADDING)[0], with_weights)


def test_134616_91171_101487_export() -> None:
    """Whether a mask is causal is a question that torch's encoder asks of the numbers, which a graph cannot hold."""
    theirs, ours = encoders()
    x, other = torch.randn(N, L, E), torch.randn(N, L, E)
    with pytest.raises(Exception, match="data-dependent"):
        torch.export.export(theirs, (x,), {"mask": LATER})  # logs its graph, too
    arguments: Any = {"mask": LATER}
    graph = torch.export.export(ours, (x,), arguments).module()
    assert_near(graph(other, **arguments), ours(other, **arguments), torch.float32)


def test_97899_179747_grouped_heads_rotary_and_cache() -> None:
    """A decode in chunks through a cache equals the whole, with fewer heads of keys and rotated positions."""
    with pytest.raises(TypeError):
        nn.MultiheadAttention(12, 4, num_kv_heads=2)  # type: ignore[call-arg]
    ours = mmha.nn.MultiheadAttention(24, 4, batch_first=True, num_kv_heads=2, rotary=mmha.Rotary(6), qk_norm=True)
    x, cache = torch.randn(N, 7, 24), mmha.KVCache(N, 2, 11, 6)
    whole = attend(ours.eval(), x, is_causal=True)
    with torch.no_grad():
        chunks = [attend(ours, part, mask=Causal(), need_weights=False, cache=cache) for part in x.split([3, 1, 3], 1)]
    assert_near(torch.cat(chunks, 1), whole, torch.float32, factor=5)


def test_jagged_sequences_with_a_mask() -> None:
    """Sequences of several lengths are packed into one row; a nested tensor is refused, by name."""
    parts = [torch.randn(length, H, 3) for length in (3, 5, 2)]
    jagged = torch.nested.nested_tensor(parts, layout=torch.jagged).transpose(1, 2)
    with pytest.raises(ValueError, match="Masks are not yet supported"):
        F.scaled_dot_product_attention(jagged, jagged, jagged, torch.ones(3, 1, 5, 5, dtype=torch.bool))
    with pytest.raises(TypeError, match="nested"):
        mmha.attention(jagged, jagged, jagged)
    row = torch.cat(parts).transpose(0, 1)[None]
    packed = mmha.attention(row, row, row, Causal() & Documents.from_lengths([3, 5, 2]))
    alone = [mmha.attention(x, x, x, Causal()) for x in row.split([3, 5, 2], 2)]
    assert_near(packed, torch.cat(alone, 2), torch.float32)


def test_148752_169224_gradients_under_a_mask_of_ones_own() -> None:
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = torch.randn(3, N, H, L, 3, requires_grad=True).unbind(0)
    with pytest.raises(NotImplementedError, match="backward on CPU"):
        flex_attention(q, k, v)
    mask = Predicate(lambda b, h, p, j: (p - j) % (h + 2) == 0)
    visible = torch.stack([(torch.arange(L)[:, None] - torch.arange(L)) % (h + 2) == 0 for h in range(H)])
    found = torch.autograd.grad(mmha.attention(q, k, v, mask).square().sum(), (q, k, v), retain_graph=True)
    exact = torch.autograd.grad(F.scaled_dot_product_attention(q, k, v, visible).square().sum(), (q, k, v))
    for got, wanted in zip(found, exact, strict=True):
        assert_near(got, wanted, torch.float32, factor=5)


def test_152028_mask_dropout_and_weights() -> None:
    theirs, ours = pair(dropout=0.5)
    x = torch.randn(N, L, E, requires_grad=True)
    assert attend(theirs, x, attn_mask=FULLY_HIDDEN).isnan().any()
    out, weights = ours(x, x, x, attn_mask=FULLY_HIDDEN)
    assert out.isfinite().all()
    assert not weights[:, 2].any()
    assert torch.equal(out[:, 2], ours.out_proj.bias.expand(N, E))
    assert torch.autograd.grad(out.square().sum(), x)[0].isfinite().all()
