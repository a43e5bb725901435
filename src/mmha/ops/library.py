"""The operators torch knows attention by, so that autograd, torch.compile and torch.export carry it through.

The last result of `mmha::attention_forward`, and of `mmha::attention_weights_forward`, which returns the weights as
well, is for the backward alone. `mmha::float_mask` looks at a float mask. A mask crosses as its notation and its
tensors. Registered with `Library.define` and `impl`: a call through `torch.library.custom_op` costs three times as
much.
"""

from __future__ import annotations

from typing import Any

import torch

from mmha.ops import batched, operators

NO_VMAP = "mmha.attention: torch.vmap is not available; put the mapped dimension into the batch of q, k and v"

# The order of `mmha.ops.call.Call`.
_CALL = (
    "Tensor[] mask_tensors, str mask, Tensor? q_start, float? scale, Tensor? slopes, Tensor? table, "
    "Tensor[] additives, Tensor? sinks, float? softcap, float dropout_p, Tensor? seed"
)
_INPUTS = f"(Tensor q, Tensor k, Tensor v, bool for_backward, {_CALL})"
_BACKWARD = (
    "(Tensor[] saved, Tensor? grad_out, Tensor? grad_lse, Tensor? grad_weights, bool[] wanted, "
    f"{_CALL}) -> (Tensor, Tensor, Tensor, Tensor[])"
)
_SCHEMAS = {
    "attention_forward": f"{_INPUTS} -> (Tensor, Tensor, Tensor)",
    "attention_backward": _BACKWARD,
    "attention_weights_forward": f"{_INPUTS} -> (Tensor, Tensor, Tensor, Tensor)",
    "attention_weights_backward": _BACKWARD,
    "float_mask": "(Tensor mask) -> (Tensor, Tensor)",
}

#: Registrations live as long as this object.
LIBRARY: Any = torch.library.Library("mmha", "FRAGMENT")  # type: ignore[no-untyped-call]


def _no_vmap(*_: Any) -> Any:
    raise RuntimeError(NO_VMAP)


def _register(name: str, schema: str) -> Any:
    made = name.removeprefix("attention_")
    LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, getattr(operators, made), "CPU")
    torch.library.register_fake(f"mmha::{name}", getattr(operators, f"{made}_like"), lib=LIBRARY)
    torch.library.register_vmap(f"mmha::{name}", _no_vmap, lib=LIBRARY)
    operator = getattr(torch.ops.mmha, name).default
    if name.endswith("_backward"):
        LIBRARY.impl(name, batched.one_by_one(operator, NO_VMAP), "Batched")
    return operator


FORWARD, BACKWARD, WEIGHTS_FORWARD, WEIGHTS_BACKWARD, FLOAT_MASK = [_register(*item) for item in _SCHEMAS.items()]
