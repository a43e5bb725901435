"""The mask value that a model is handed, against the dense tensor that transformers makes for "eager"."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, MistralConfig, StaticCache, masking_utils

from mmha.huggingface.carrier import MaskTensor
from mmha.huggingface.masks import attention_mask
from mmha.masks import Causal, Full, Predicate, Window

WINDOW, CHUNK = 5, 7
LEFT = torch.tensor([[True] * 13, [False] * 3 + [True] * 10, [False] * 8 + [True] * 5])
HOLES = torch.tensor([[True] * 11 + [False] * 2, [True, False] * 6 + [True], [True] * 13])
PACKED = torch.tensor(
    [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 7], list(range(13)), [0, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]
)
BLOCKS = torch.tensor([[-1] * 3 + [0] * 4 + [-1] * 6, [0] * 2 + [1] * 3 + [-1] * 2 + [2] * 6, [-1] * 12 + [0]])

CAUSAL, SLIDING, CHUNKED = (
    masking_utils.create_causal_mask,
    masking_utils.create_sliding_window_causal_mask,
    masking_utils.create_chunked_causal_mask,
)
BOTH_WAYS, NEAR = masking_utils.create_bidirectional_mask, masking_utils.create_bidirectional_sliding_window_mask


def config(name: str = "eager", sliding: bool = False) -> Any:
    make = MistralConfig if sliding else LlamaConfig
    sizes = {"hidden_size": 12, "num_attention_heads": 3, "num_key_value_heads": 1, "num_hidden_layers": 1}
    made = make(**sizes, attention_chunk_size=CHUNK)
    made.sliding_window = WINDOW
    made._attn_implementation = name
    return made


def both(make: Callable[..., Any], q_len: int = 13, batch: int = 3, **given: Any) -> tuple[Tensor, MaskTensor]:
    """The same mask twice: transformers' own for eager, and ours."""
    given = {"attention_mask": None, "cache": None, "inputs_embeds": torch.zeros(batch, q_len, 12), **given}
    dense, ours = (make(config=config(name), **given) for name in ("eager", "mmha"))
    assert isinstance(ours, MaskTensor)
    assert ours.shape == dense.shape
    return dense, ours


def is_known(ours: MaskTensor) -> bool:
    return re.search("Predicate|Dense|Spans", ours.value.flatten()[0]) is None


@pytest.mark.parametrize("make", [CAUSAL, SLIDING, CHUNKED, NEAR])
@pytest.mark.parametrize("padding", [None, LEFT, HOLES])
def test_patterns(make: Callable[..., Any], padding: Tensor | None) -> None:
    dense, ours = both(make, attention_mask=padding)
    assert torch.equal(ours.dense(), dense)
    assert is_known(ours)


@pytest.mark.parametrize("make", [CAUSAL, SLIDING, CHUNKED])
@pytest.mark.parametrize("blocks", [None, BLOCKS])
def test_packed(make: Callable[..., Any], blocks: Tensor | None) -> None:
    dense, ours = both(make, position_ids=PACKED, block_sequence_ids=blocks)
    assert torch.equal(ours.dense(), dense)
    assert is_known(ours)


@pytest.mark.parametrize("make", [CAUSAL, SLIDING, CHUNKED])
def test_blocks(make: Callable[..., Any]) -> None:
    dense, ours = both(make, block_sequence_ids=BLOCKS, attention_mask=LEFT)
    assert torch.equal(ours.dense(), dense)
    assert is_known(ours)


def test_names() -> None:
    assert both(CAUSAL)[1].value == Causal()
    assert both(SLIDING)[1].value == Window(WINDOW - 1, None) & Causal()
    assert both(BOTH_WAYS, attention_mask=LEFT)[1].value.flatten()[0] == "Keys($0)"
    assert both(CHUNKED)[1].value.flatten()[0] == "Chunked(7) & Causal()"


def test_bidirectional() -> None:
    dense, ours = both(BOTH_WAYS, attention_mask=HOLES, encoder_hidden_states=torch.zeros(3, 13, 12), q_len=4)
    assert torch.equal(ours.dense(), dense)
    given = {"attention_mask": LEFT | True, "inputs_embeds": torch.zeros(3, 13, 12)}
    assert BOTH_WAYS(config("mmha"), **given) is None
    shown = BOTH_WAYS(config("mmha"), **given, allow_is_bidirectional_skip=False)
    assert shown.value == Full()


@pytest.mark.parametrize("make", [CAUSAL, BOTH_WAYS, SLIDING])
@pytest.mark.parametrize("padding", [None, LEFT])
def test_functions_of_ones_own(make: Callable[..., Any], padding: Tensor | None) -> None:
    table = torch.rand(3, 13, 13) < 0.3

    def shown(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return table[b][q][k] | (h > 0)  # only indices that are single numbers, as under vmap, may be used like this

    def hidden(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q + k) % 3 != b

    dense, ours = both(make, attention_mask=padding, or_mask_function=shown, and_mask_function=hidden)
    assert torch.equal(ours.dense(), dense)
    plan = ours.value.plan(3, 1, 13, 13, ours.q_start)
    assert plan.visible == int((dense == 0).sum())
    assert not is_known(ours)


def test_rules_by_hand() -> None:
    packed = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    steps = torch.tensor([[0, 2, 1, 0, 1, 2, 3]])  # positions that do not rise by one: no window of indices
    rules = masking_utils
    for rule in (
        rules.and_masks(
            rules.remap_positions_for_packed_sequence(rules.causal_mask_function, steps),
            rules.packed_sequence_mask_function(packed),
        ),
        rules.remap_positions_for_packed_sequence(rules.sliding_window_overlay(2), steps),
        rules.remap_positions_for_packed_sequence(rules.padding_mask_function(packed == 0), steps),
        rules.remap_positions_for_packed_sequence(
            rules.remap_positions_for_packed_sequence(rules.causal_mask_function, steps), steps
        ),
        rules.or_masks(rules.bidirectional_mask_function, rules.causal_mask_function),
        rules.or_masks(rules.causal_mask_function),
        rules.and_masks(rules.bidirectional_mask_function),
        rules.sliding_window_overlay(0),
        lambda b, h, q, k: (q + 2 * k) % 5 > 1,
    ):
        dense = masking_utils.eager_mask(1, 7, 7, mask_function=rule)
        ours = attention_mask(1, 7, 7, mask_function=rule)
        assert isinstance(ours, MaskTensor)
        assert torch.equal(ours.dense(), dense)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("sliding", [False, True])
@pytest.mark.parametrize("steps", [(13,), (1, 1, 1, 1, 1, 1, 1, 1), (3, 1, 4, 1), (8, 5, 1, 3), (4, 9)])
@pytest.mark.parametrize("padded", [False, True])
def test_caches(kind: str, sliding: bool, steps: tuple[int, ...], padded: bool) -> None:
    own = config("eager", sliding)
    cache = DynamicCache(config=own) if kind == "dynamic" else StaticCache(config=own, max_cache_len=17)
    make = SLIDING if sliding else CAUSAL
    seen = 0
    for q_len in steps:
        seen += q_len
        dense, ours = both(make, q_len, cache=cache, attention_mask=LEFT[:, :seen] if padded else None)
        assert torch.equal(ours.dense(), dense)
        assert is_known(ours)
        keys, _ = cache.update(torch.zeros(3, 1, q_len, 4), torch.zeros(3, 1, q_len, 4), 0)
        assert keys.shape[2] == ours.shape[3]


def test_offset_chunks() -> None:
    """Chunks are counted from the first real token, wherever the first key of the cache stands."""
    for k_offset, left in ((0, [0, 0]), (7, [0, 0]), (5, [0, 0]), (3, [3, 3]), (4, [1, 6])):
        rule = masking_utils.chunked_causal_mask_function(CHUNK, torch.tensor(left))
        given = {"q_offset": k_offset + 3, "kv_offset": k_offset, "mask_function": rule}
        dense, ours = (
            masking_utils.eager_mask(2, 4, 9, **given),
            attention_mask(2, 4, 9, **given),
        )
        assert isinstance(ours, MaskTensor)
        assert torch.equal(ours.dense(), dense)
        assert is_known(ours)


def test_a_query_before_the_keys() -> None:
    rule = masking_utils.packed_sequence_mask_function(torch.arange(9)[None] // 2)
    given = {"q_offset": 1, "kv_offset": 3, "mask_function": rule}
    ours = attention_mask(1, 4, 5, **given)
    assert isinstance(ours, MaskTensor)
    assert isinstance(ours.value, Predicate)
    assert torch.equal(ours.dense(), masking_utils.eager_mask(1, 4, 5, **given))
