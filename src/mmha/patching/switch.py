"""Who is sent to mmha, and when: functions of torch are replaced by ones that ask, and put back in order."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from mmha.patching import route
from mmha.patching.route import DEPTH, STATE


class Switch:
    """One function of torch: it is replaced while somebody uses the patch, and put back after the last.

    make: from what stands there to what shall stand there; the same for the same. What somebody else has put there
    in the meantime is never removed: it is wrapped again by the next user, and left when the last one goes.
    """

    def __init__(self, module: ModuleType, name: str, make: Callable[[Any], Any]) -> None:
        self._module, self._name, self._make = module, name, make
        self._users: dict[Any, int] = {}

    def enter(self) -> Any:
        """Make sure that ours stands there, and say which of ours that is."""
        ours = getattr(self._module, self._name)
        if ours not in self._users:
            ours = self._make(ours)
            setattr(self._module, self._name, ours)
        self._users[ours] = self._users.get(ours, 0) + 1
        return ours

    def leave(self, ours: Any) -> None:
        """Put back what stood there, when nobody else uses ours and nobody has put something over it."""
        self._users[ours] -= 1
        if not self._users[ours]:
            del self._users[ours]
            if getattr(self._module, self._name) is ours:
                setattr(self._module, self._name, ours.previous)


_LOCK = threading.RLock()
os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)
_SWITCHES = (
    Switch(F, "scaled_dot_product_attention", route.scaled_dot_product),
    Switch(F, "multi_head_attention_forward", route.multi_head),
    Switch(torch.backends.mha, "get_fastpath_enabled", route.fast_path),
)


def _enter() -> list[Any]:
    with _LOCK:
        return [switch.enter() for switch in _SWITCHES]


def _leave(entered: list[Any]) -> None:
    with _LOCK:
        for switch, ours in zip(_SWITCHES, entered, strict=True):
            switch.leave(ours)


class Patched:
    """What `mmha.patch()` returns: from `__enter__` to `__exit__`, in this thread or task, attention goes to mmha."""

    def __init__(self) -> None:
        self._entered: list[list[Any]] = []

    def __enter__(self) -> None:
        self._entered.append(_enter())
        DEPTH.set(DEPTH.get() + 1)

    def __exit__(self, *_: object) -> None:
        DEPTH.set(DEPTH.get() - 1)
        _leave(self._entered.pop())


class Patch:
    """Send torch's attention functions to mmha, on a CPU and with unchanged meaning; the rest goes on to torch.

    `with mmha.patch():` holds in this thread, or asyncio task, until the end of the block; `mmha.patch.install()` in
    the whole process until `mmha.patch.uninstall()`. Reached is whoever calls
    `torch.nn.functional.scaled_dot_product_attention` or `multi_head_attention_forward` through the module, among them
    torch.nn.MultiheadAttention and the Transformer layers, whose fused inference path is off while this is on.
    docs/patch.md says what is passed on to torch, and what is not reached.

    float32, bfloat16 and float16 CPU tensors are taken; shapes and dtypes of what is returned are torch's.

    Raises: what torch raises, for what torch refuses; RuntimeError for a second derivative of an attention that was
    computed here. TypeError: the functions themselves take no arguments.

    Source: torch's documentation of the two functions.

    >>> import torch, mmha
    >>> import torch.nn.functional as F
    >>> q, k, v = torch.randn(3, 2, 5, 7, 8).unbind()
    >>> v[:, :, 6] = torch.nan
    >>> seen = torch.arange(7) < 6
    >>> with mmha.patch():
    ...     out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen.expand(7, 7))
    >>> bool(out.isfinite().all())  # what is hidden has no influence
    True
    """

    def __init__(self) -> None:
        self._installed: list[Any] | None = None

    def __call__(self) -> Patched:
        """A context manager that sends the calls of this thread, or task, to mmha."""
        return Patched()

    def install(self) -> None:
        """Send the calls of all threads to mmha, until `uninstall`; a second call changes nothing."""
        with _LOCK:
            if self._installed is None:
                self._installed = _enter()
                STATE.installed = True

    def uninstall(self) -> None:
        """End what `install` began, if it was called."""
        with _LOCK:
            if self._installed is not None:
                STATE.installed = False
                _leave(self._installed)
                self._installed = None
