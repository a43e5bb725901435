"""The causal language model: `load()` gives the one that ships and its tokenizer, `generate(*load(), ["ROMEO."])` text.

`model` is the decoder, `mmha.subwords` turns text into numbers and back, `config` names the sizes. `generation`
continues texts by `sampling` up to where `stopping` says; `beam` searches for the most probable ones; `explanation`
shows how.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmha.models.causal_lm.beam import Beams as Beams
    from mmha.models.causal_lm.beam import beam_search as beam_search
    from mmha.models.causal_lm.config import BUILDERS as BUILDERS
    from mmha.models.causal_lm.config import SHIPPED as SHIPPED
    from mmha.models.causal_lm.config import Config as Config
    from mmha.models.causal_lm.config import base as base
    from mmha.models.causal_lm.config import small as small
    from mmha.models.causal_lm.explanation import Explanation as Explanation
    from mmha.models.causal_lm.explanation import explain as explain
    from mmha.models.causal_lm.generation import Completion as Completion
    from mmha.models.causal_lm.generation import Limits as Limits
    from mmha.models.causal_lm.generation import Piece as Piece
    from mmha.models.causal_lm.generation import generate as generate
    from mmha.models.causal_lm.generation import stream as stream
    from mmha.models.causal_lm.model import CausalLM as CausalLM
    from mmha.models.causal_lm.model import load as load
    from mmha.models.causal_lm.model import save as save
    from mmha.models.causal_lm.sampling import Sampling as Sampling
    from mmha.subwords import Tokenizer as Tokenizer

_HOME = {
    **dict.fromkeys(("BUILDERS", "SHIPPED", "Config", "base", "small"), ".config"),
    **dict.fromkeys(("Beams", "beam_search"), ".beam"),
    **dict.fromkeys(("Explanation", "explain"), ".explanation"),
    **dict.fromkeys(("Completion", "Limits", "Piece", "generate", "stream"), ".generation"),
    "Sampling": ".sampling",
    "Tokenizer": "mmha.subwords",
    **dict.fromkeys(("CausalLM", "load", "save"), ".model"),
}

__all__ = [
    "BUILDERS",
    "SHIPPED",
    "Beams",
    "CausalLM",
    "Completion",
    "Config",
    "Explanation",
    "Limits",
    "Piece",
    "Sampling",
    "Tokenizer",
    "base",
    "beam_search",
    "explain",
    "generate",
    "load",
    "save",
    "small",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
