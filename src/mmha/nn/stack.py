"""What the layers of a stack share: what their masks say, found once and handed to every layer."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmha import checks
from mmha.masks import Mask, as_mask
from mmha.nn.multihead_forward import check_inputs, join_masks
from mmha.nn.refusals import refused
from mmha.ops.autograd import float_mask

Activation = str | Callable[[Tensor], Tensor]
AnyMask = Mask | Tensor | None
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


def activation_of(activation: Activation) -> Callable[[Tensor], Tensor]:
    """The function that an activation names, as torch.nn's layers take it; `Refused` for another name.

    >>> activation_of("gelu")(torch.zeros(1))
    tensor([0.])
    """
    if not isinstance(activation, str):
        return activation
    if activation not in ACTIVATIONS:
        raise refused("activation", "'relu', 'gelu' or a function of a tensor", activation)
    return ACTIVATIONS[activation]


def take_values(layers: nn.ModuleList, kind: type[nn.Module], required: bool) -> bool:
    """Whether masks go to these layers as values; TypeError when they must and cannot.

    A subclass with a forward of its own is given tensors when the caller gave tensors: it may look into them.
    """
    if not required:
        return all(isinstance(layer, kind) and type(layer).forward is kind.forward for layer in layers)
    for layer in layers:
        if not isinstance(layer, kind):
            expected = f"mmha.nn.{kind.__name__}s, for a mask that is a value"
            raise TypeError(checks.message("layers", expected, type(layer).__qualname__))
    return True


def settle(
    attention: nn.MultiheadAttention, query: Tensor, key: Tensor, attn_mask: AnyMask, padding: AnyMask,
    is_causal: bool, more: Mask | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """attn_mask and key_padding_mask that say together what all of this says, for attentions that are alike.

    What hides becomes one mask, so that its plan is found by its identity; what is added is told from it here and not
    by every layer.
    """
    features = attention.embed_dim, attention.kdim, attention.vdim
    layout = check_inputs(query, key, key, features, attention.batch_first)
    sizes = layout.sizes(query, key, attention.num_heads)
    with _versioned():
        mask, bias = join_masks(query, layout, sizes, attn_mask, padding, is_causal, more)
        added = () if bias is None else bias.parts().additives
        if isinstance(mask, Tensor) and mask.dtype != torch.bool:
            if torch.compiler.is_compiling():  # its numbers cannot be looked at yet
                return mask, None
            visible, flags = float_mask(mask)
            everywhere, plain = flags.tolist()
            added = () if plain and not mask.requires_grad else (mask,)
            mask = None if everywhere else visible
        mask = as_mask(mask) if isinstance(mask, Tensor) else mask
        if not added:
            return mask, None
        total = added[0] if len(added) == 1 else functools.reduce(operator.add, [x.double() for x in added])
        finite = total.masked_fill(total == -torch.inf, 0.0)  # what hides is in the mask
        return finite.expand(*finite.shape[:-2], sizes.q_len, sizes.k_len), mask


def _versioned() -> contextlib.AbstractContextManager[Any]:
    """A tensor made for inference has no version, and a plan could not be found by it."""
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        return contextlib.nullcontext()
    return torch.inference_mode(False)
