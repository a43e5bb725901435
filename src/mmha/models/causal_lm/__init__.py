"""The causal language model: `load()` gives the one that ships and its tokenizer.

`model` is the decoder, `tokenizer` turns text into numbers and back, `config` names the sizes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmha.models.causal_lm.config import BUILDERS as BUILDERS
    from mmha.models.causal_lm.config import SHIPPED as SHIPPED
    from mmha.models.causal_lm.config import Config as Config
    from mmha.models.causal_lm.config import base as base
    from mmha.models.causal_lm.config import small as small
    from mmha.models.causal_lm.model import CausalLM as CausalLM
    from mmha.models.causal_lm.model import load as load
    from mmha.models.causal_lm.model import save as save
    from mmha.models.causal_lm.tokenizer import Tokenizer as Tokenizer

_HOME = {
    **dict.fromkeys(("BUILDERS", "SHIPPED", "Config", "base", "small"), "config"),
    "Tokenizer": "tokenizer",
    **dict.fromkeys(("CausalLM", "load", "save"), "model"),
}

__all__ = ["BUILDERS", "SHIPPED", "CausalLM", "Config", "Tokenizer", "base", "load", "save", "small"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
