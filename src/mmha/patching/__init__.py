"""`mmha.patch`: torch's own attention functions, sent to mmha."""

from __future__ import annotations

from mmha.patching.switch import Patch

patch = Patch()

__all__ = ["Patch", "patch"]
