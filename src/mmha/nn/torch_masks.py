"""torch.nn's mask arguments as one mmha mask and what is added to the scores.

torch.nn's polarity is the reverse of ours: in a bool `attn_mask` or `key_padding_mask` True means *not* visible. Each
is turned round here, once; a mask value, and `mask=`, say what is visible.
"""

from __future__ import annotations

import functools
import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmha import checks
from mmha.bias import Additive, Bias
from mmha.masks import Causal, Keys, Mask, as_mask
from mmha.masks.held import Shared
from mmha.nn.refusals import refused, require
from mmha.ops.arguments import causal_bias
from mmha.ops.autograd import float_mask

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Sizes(NamedTuple):
    """N (1 for unbatched input), H, L queries and S keys."""

    batch: int
    heads: int
    q_len: int
    k_len: int


class Joined(NamedTuple):
    """What `mmha.attention` takes: a mask, value or tensor (True = visible, float = added), and a bias."""

    mask: Mask | Tensor | None = None
    bias: Bias | None = None


def join(
    sizes: Sizes,
    attn_mask: Tensor | Mask | None = None,
    key_padding_mask: Tensor | Mask | None = None,
    is_causal: bool = False,
    mask: Mask | Tensor | None = None,
) -> Joined:
    """Everything that hides or adds, joined: a pair is visible when all that is given says so.

    Args:
        attn_mask: bool, or integers 0 and 1, True = NOT visible; or float, added to the scores, -inf hides; of shape
            (L, S), (N * H, L, S), (N, L, S) or (N or 1, H or 1, L, S). Or a `Mask`, which says what is visible.
            (N * H, L, S) is torch's; N * H = N only for H = 1, where the two 3-D shapes mean the same.
        key_padding_mask: the same for keys, of shape (N, S): True = NOT visible.
        is_causal: whether row i sees only the keys up to S - L + i, so that the last query stands at the last key.
        mask: a `Mask`, or a bool tensor broadcastable to (N, H, L, S), True = visible.

    Raises:
        Refused: (a ValueError, an AssertionError and a RuntimeError) for a shape or numbers that do not fit.
        TypeError: for what is no mask at all.

    >>> import torch
    >>> join(Sizes(2, 3, 5, 5), key_padding_mask=torch.zeros(2, 5, dtype=torch.bool), is_causal=True).mask
    Keys([[True, True, True, True, True], [True, True, True, True, True]]) & Causal()
    """
    seen: list[Mask | Tensor] = []
    added: list[Tensor] = []
    if attn_mask is not None:
        _sort(_on_pairs(attn_mask, sizes), seen, added)
    if key_padding_mask is not None:
        keys = _on_keys(key_padding_mask, sizes)
        if isinstance(keys, Tensor) and keys.dtype != torch.bool:
            added.append(keys[:, None, None])
        else:
            seen.append(keys if isinstance(keys, Mask) else Keys(Shared(keys.logical_not())))  # type: ignore[arg-type]
    if mask is not None:
        seen.append(_on_visible(mask))
    if is_causal:
        seen.append(Causal())
    if len(seen) + len(added) <= 1:
        return Joined((*seen, *added, None)[0])
    return _together(seen, added)


def _sort(given: Mask | Tensor, seen: list[Mask | Tensor], added: list[Tensor]) -> None:
    if isinstance(given, Mask):
        seen.append(given)
    elif given.dtype == torch.bool:
        seen.append(given.logical_not())
    else:
        added.append(given)


def _together(seen: list[Mask | Tensor], added: list[Tensor]) -> Joined:
    """The visible pairs of all as one mask, and what remains to be added."""
    masks, terms = [as_mask(x) for x in seen], []
    for x in added:
        visible, flags = float_mask(x)
        everywhere, plain = (False, False) if torch.compiler.is_compiling() else flags.tolist()
        if not everywhere:
            masks.append(as_mask(visible))
        if not plain or x.requires_grad:
            terms.append(Additive(x))
    mask = functools.reduce(operator.and_, masks) if masks else None
    bias: Bias | None = functools.reduce(operator.add, terms) if terms else None
    return Joined(mask, bias)


def _on_pairs(given: Any, sizes: Sizes) -> Mask | Tensor:
    """attn_mask as a mask, or a bool or float tensor of 2 or 4 dimensions."""
    if isinstance(given, Mask):
        return given
    x = _readable("attn_mask", given)
    batch, heads, q_len, k_len = sizes
    if x.dim() in (2, 3, 4) and x.shape[-2:] == (q_len, k_len):
        if x.dim() == 2:
            return x
        if x.dim() == 3 and x.shape[0] == batch * heads:
            return x.view(batch, heads, q_len, k_len)
        if x.dim() == 3 and x.shape[0] == batch:
            return x.unsqueeze(1)
        if x.dim() == 4 and x.shape[0] in (1, batch) and x.shape[1] in (1, heads):
            return x
    expected = (
        "shape (L, S), (N * H, L, S), (N, L, S) or (N, H or 1, L, S) with "
        f"N = {batch}, H = {heads}, L = {q_len}, S = {k_len}"
    )
    raise refused("attn_mask", expected, checks.shape_text(x.shape))


def _on_keys(given: Any, sizes: Sizes) -> Mask | Tensor:
    """key_padding_mask as a mask, or a bool or float tensor (N, S)."""
    if isinstance(given, Mask):
        return given
    x = _readable("key_padding_mask", given)
    if x.shape != (sizes.batch, sizes.k_len):
        expected = f"shape (N, S) = ({sizes.batch}, {sizes.k_len}), or (S,) for unbatched input"
        raise refused("key_padding_mask", expected, checks.shape_text(x.shape))
    return x


def _on_visible(given: Any) -> Mask | Tensor:
    if not isinstance(given, Mask) and (not isinstance(given, Tensor) or given.dtype != torch.bool):
        raise checks.type_error("mask", "a Mask or a bool tensor (True = visible)", given)
    return given


def _readable(argument: str, given: Any) -> Tensor:
    """A bool or float tensor; integers 0 and 1 become bools."""
    expected = "a bool tensor (True = not visible), a float tensor (added to the scores) or a Mask"
    if not isinstance(given, Tensor) or causal_bias(given):
        raise checks.type_error(argument, expected, given)
    if given.dtype == torch.bool or given.is_floating_point():
        return given
    require(given.dtype in INTEGERS, argument, expected, given)
    found = given != 0
    if not torch.compiler.is_compiling():
        require(torch.equal(found, given == 1), argument, "integers 0 and 1 (1 = not visible)", "others among them")
    return found
