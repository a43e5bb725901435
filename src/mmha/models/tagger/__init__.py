"""The part-of-speech tagger: `load()` gives the one that ships, `load().tag([["I", "saw", "a", "saw"]])` tags.

`model` is the thing itself, in torch; `quick` is the same forward pass without torch, for a few sentences; `lexicon`
turns words into numbers; `config` names the sizes. Names are imported at their first use, so that `quick` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmha.models.tagger.config import BUILDERS as BUILDERS
    from mmha.models.tagger.config import SHIPPED as SHIPPED
    from mmha.models.tagger.config import Config as Config
    from mmha.models.tagger.config import base as base
    from mmha.models.tagger.config import small as small
    from mmha.models.tagger.lexicon import Lexicon as Lexicon
    from mmha.models.tagger.model import Tagger as Tagger
    from mmha.models.tagger.model import load as load
    from mmha.models.tagger.model import save as save

_HOME = {
    **dict.fromkeys(("BUILDERS", "SHIPPED", "Config", "base", "small"), "config"),
    "Lexicon": "lexicon",
    **dict.fromkeys(("Tagger", "load", "save"), "model"),
}

__all__ = ["BUILDERS", "SHIPPED", "Config", "Lexicon", "Tagger", "base", "load", "save", "small"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
