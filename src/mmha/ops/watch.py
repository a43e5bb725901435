"""Who else has a say in a call: whether tensors are torch's plain ones, and whether anyone wants to see the operator."""

from __future__ import annotations

import torch
from torch import Tensor

_keys = torch._C._dispatch_keys
_modes, _transforms, _tracing = (
    torch._C._len_torch_dispatch_stack, torch._C._are_functorch_transforms_active, torch._C._is_tracing,
)  # fmt: skip

_ORDINARY = frozenset((Tensor, torch.nn.Parameter))


def _probe() -> int:
    return int(_keys(torch.empty(0, device="cpu")).raw_repr())


with torch.inference_mode():
    _INFERENCE = _probe()
with torch.inference_mode(False):
    #: What torch dispatches a plain tensor by. A nested, sparse, quantized, meta, fake or wrapped one has other keys, and so
    #: has a view with a negative bit or a zero tensor, whose numbers are not what is in memory.
    _PLAIN = frozenset((_probe(), _INFERENCE))


def is_plain(*tensors: Tensor) -> bool:
    """Whether these are dense tensors of this machine whose memory holds their numbers, and no subclass."""
    if torch.compiler.is_compiling():
        return False
    for x in tensors:  # noqa: SIM110 -- a generator costs more than all of this
        if type(x) not in _ORDINARY or _keys(x).raw_repr() not in _PLAIN:
            return False
    return True


def is_watched() -> bool:
    """Whether a compiler, tracer, mode, transform or profiler is there that must see the operator being called."""
    return (
        torch.compiler.is_compiling()
        or _modes() != 0
        or _transforms()
        or torch.autograd.profiler._is_profiler_enabled
        or _tracing()
    )


def is_transformed() -> bool:
    """Whether a transform of torch.func is active."""
    return not torch.compiler.is_compiling() and _transforms()
