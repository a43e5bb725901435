"""Masks of callers as values: what a float mask hides, and how long what was made of a tensor is remembered."""

from __future__ import annotations

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import mmha
from mmha.masks import Mask
from mmha.patching.remembered import MAX_MASKS, Remembered, float_as_mask, hidden_as_mask, visible_as_mask

LENGTH = 211  # its square is more than is remembered by content
LOWER = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
MIN = torch.finfo(torch.float32).min
FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def hiding(visible: Tensor, low: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, low)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_float_mask_that_only_hides_is_its_visible_pairs(dtype: torch.dtype) -> None:
    lows = [-torch.inf] if dtype == torch.float16 else [-torch.inf, torch.finfo(dtype).min, MIN * 0.9]
    for low in lows:
        made = float_as_mask(hiding(LOWER, low, dtype))
        assert made is not None
        assert torch.equal(made.dense(1, 1, LENGTH, LENGTH)[0, 0], LOWER)


def test_other_float_masks_are_left_to_be_added() -> None:
    seen = torch.tensor([[True, False], [False, False]])
    hidden_row = hiding(seen, -torch.inf)
    assert float_as_mask(hidden_row) is not None
    for mask in (
        hiding(seen, MIN),  # row 1 is the mean of its values
        hidden_row.masked_fill(torch.tensor([[False, False], [False, True]]), MIN),
        hiding(seen, -1e9),  # scores may be as large
        hiding(seen, torch.nan),
        hiding(seen, torch.inf),
        torch.full((2, 2), 1e-9),
        hiding(seen, torch.finfo(torch.float16).min, torch.float16),
    ):
        assert float_as_mask(mask) is None
    assert float_as_mask(torch.tensor(0.0)) is not None
    assert float_as_mask(torch.zeros(3, 0)) is not None


def rows(dtype: torch.dtype = torch.float32, length: int = LENGTH) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = torch.randn(3, 1, 2, length, 7, dtype=dtype)
    return q, k, v


@pytest.mark.parametrize("dtype", FLOATS[:3])
@pytest.mark.parametrize("low", [MIN, -torch.inf, -1e4, -3.0])
def test_float_masks_mean_what_they_mean_to_torch(dtype: torch.dtype, low: float) -> None:
    q, k, v = rows(dtype, 17)
    seen = torch.rand(2, 17, 17) > 0.6
    seen[0, 3], seen[1, 5] = False, False
    for mask in (hiding(seen, low), hiding(seen | (torch.arange(17) == 0), low)):
        theirs = F.scaled_dot_product_attention(q, k, v, mask)
        with mmha.patch():
            mine = F.scaled_dot_product_attention(q, k, v, mask)
        coarse = 2e-2 if dtype != torch.float32 else 2e-3  # -1e4 + score: float32 keeps 3 digits of the score
        within = (
            {}
            if (low, dtype) in ((MIN, torch.float32), (-torch.inf, torch.float32))
            else {"atol": coarse, "rtol": coarse}
        )
        torch.testing.assert_close(mine, theirs, **within)


@pytest.mark.parametrize("spoiled", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_what_the_lowest_number_hides_has_no_influence(spoiled: float) -> None:
    q, k, v = rows()
    seen = (torch.arange(LENGTH) < 200).expand(LENGTH, LENGTH)
    theirs = F.scaled_dot_product_attention(q, k, v, seen)
    k[:, :, 205], v[:, :, 203] = spoiled, spoiled
    with mmha.patch():
        mine = F.scaled_dot_product_attention(q, k, v, hiding(seen, MIN))
    torch.testing.assert_close(mine, theirs)


def test_one_value_for_one_tensor_and_its_views() -> None:
    for make, mask in (
        (visible_as_mask, LOWER.clone()),
        (hidden_as_mask, ~LOWER),
        (visible_as_mask, hiding(LOWER, MIN)),
    ):
        made = make(mask)
        assert isinstance(made, Mask)
        assert make(mask) is made
        view = mask[None, None, :, :190]
        assert make(view) is make(mask[None, None, :, :190])
        assert torch.equal(make(view).dense(1, 1, LENGTH, 190)[0, 0], LOWER[:, :190])
        with torch.no_grad():
            assert make(mask[None, None, :, :190]) is make(view)


def test_writes_are_noticed_by_the_value_of_the_next_call() -> None:
    q, k, v = rows()
    for mask in (LOWER.clone(), hiding(LOWER, -torch.inf)):
        with mmha.patch():
            F.scaled_dot_product_attention(q, k, v, mask)
            mask[:, 0] = False if mask.dtype == torch.bool else -torch.inf
            mine = F.scaled_dot_product_attention(q, k, v, mask)
        torch.testing.assert_close(mine, F.scaled_dot_product_attention(q, k, v, mask))
        mask.view(-1)[LENGTH + 1] = False if mask.dtype == torch.bool else -torch.inf
        with mmha.patch():
            mine = F.scaled_dot_product_attention(q, k, v, mask)
        assert torch.count_nonzero(mine[:, :, 1]) == 0


def test_a_mask_is_lowered_once_so_a_write_past_torch_is_not_seen() -> None:
    q, k, v = rows()
    mask = LOWER.clone()
    with mmha.patch():
        before = F.scaled_dot_product_attention(q, k, v, mask)
        mask.numpy()[:, 0] = False
        assert torch.equal(F.scaled_dot_product_attention(q, k, v, mask), before)


def test_a_write_between_forward_and_backward_is_an_error() -> None:
    q, k, v = rows()
    mask = LOWER.clone()
    with mmha.patch():
        out = F.scaled_dot_product_attention(q.requires_grad_(), k, v, mask)
    mask[3, 0] = False
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_what_is_not_remembered_stays_right() -> None:
    q, k, v = rows()
    with torch.inference_mode(), mmha.patch():
        mask = LOWER.clone()
        F.scaled_dot_product_attention(q, k, v, mask)
        mask[:, 0] = False
        mine = F.scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(mine, F.scaled_dot_product_attention(q, k, v, mask))
    small, learned = torch.ones(3, 3, dtype=torch.bool), torch.zeros(LENGTH, LENGTH, requires_grad=True)
    assert visible_as_mask(small) is small
    assert visible_as_mask(learned) is learned


def test_a_mask_made_before_inference_mode_is_remembered_in_it() -> None:
    mask = hiding(LOWER, MIN)
    with torch.inference_mode():
        made = visible_as_mask(mask)
    assert isinstance(made, Mask)
    assert not made.flatten()[1][0].is_inference()
    assert visible_as_mask(mask) is made


def test_memory_ends_with_the_tensor_and_is_bounded() -> None:
    memory = Remembered()
    mask = LOWER.clone()
    memory.get(mask, float_as_mask)
    memory.get(mask[1:], float_as_mask)
    assert len(memory._made) == 2
    del mask
    gc.collect()
    assert not memory._made
    masks = [torch.zeros(2, 2) for _ in range(MAX_MASKS + 3)]
    for mask in masks:
        memory.get(mask, float_as_mask)
    assert len(memory._made) == MAX_MASKS


def test_bool_masks_are_not_copied() -> None:
    mask = LOWER.clone()
    made = visible_as_mask(mask)
    assert isinstance(made, Mask)
    assert made.flatten()[1][0].data_ptr() == mask.data_ptr()
