"""The operators torch knows attention by, so that autograd, torch.compile and torch.export carry it through.

`mmha::attention_forward` and its backward run the kernels; `mmha::attention_reference_forward` and its backward also
take an additive tensor and return the weights. A mask crosses as its notation and its tensors. Registered with
`Library.define` and `impl`: a call through `torch.library.custom_op` costs three times as much.
"""

from __future__ import annotations

from typing import Any

import torch

from mmha.ops import autograd, operators

_MASK = "Tensor[] mask_tensors, str mask, Tensor? q_start, float? scale"
_SCHEMAS = {
    "forward": f"(Tensor q, Tensor k, Tensor v, {_MASK}) -> (Tensor, Tensor)",
    "backward": f"(Tensor[] saved, Tensor grad_out, Tensor? grad_lse, {_MASK}) -> (Tensor, Tensor, Tensor)",
    "reference_forward": (
        f"(Tensor q, Tensor k, Tensor v, Tensor? additive, bool weights, {_MASK}) -> (Tensor, Tensor, Tensor)"
    ),
    "reference_backward": (
        f"(Tensor[] saved, Tensor? additive, Tensor?[] grads, bool additive_grad, {_MASK}) -> "
        "(Tensor, Tensor, Tensor, Tensor)"
    ),
}

#: Registrations live as long as this object.
LIBRARY: Any = torch.library.Library("mmha", "FRAGMENT")  # type: ignore[no-untyped-call]

for _name, _schema in _SCHEMAS.items():
    LIBRARY.define(f"attention_{_name}{_schema}", tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(f"attention_{_name}", getattr(operators, _name), "CPU")
    LIBRARY.impl(f"attention_{_name}", getattr(autograd, _name), "Autograd")
    torch.library.register_fake(f"mmha::attention_{_name}", getattr(operators, f"{_name}_like"), lib=LIBRARY)


def _no_vmap(*_: Any) -> Any:
    raise RuntimeError(autograd.NO_VMAP)


for _name in _SCHEMAS:
    torch.library.register_vmap(f"mmha::attention_{_name}", _no_vmap, lib=LIBRARY)
