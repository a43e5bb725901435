"""The Transformer, which translates: `Seq2Seq` is the model, `save` and `load` keep it in files, `translate` uses it.

`model` is the encoder and the decoder, `config` names the sizes, `mmha.subwords` turns text into numbers and back.
`decoding` writes a token at a time with what is cached, `search` decides which; `explanation` shows what it looked at.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmha.models.seq2seq.checkpoint import load as load
    from mmha.models.seq2seq.checkpoint import save as save
    from mmha.models.seq2seq.config import BUILDERS as BUILDERS
    from mmha.models.seq2seq.config import SHIPPED as SHIPPED
    from mmha.models.seq2seq.config import Config as Config
    from mmha.models.seq2seq.config import base as base
    from mmha.models.seq2seq.config import big as big
    from mmha.models.seq2seq.config import small as small
    from mmha.models.seq2seq.config import tiny as tiny
    from mmha.models.seq2seq.explanation import attention as attention
    from mmha.models.seq2seq.model import Seq2Seq as Seq2Seq
    from mmha.models.seq2seq.search import Beams as Beams
    from mmha.models.seq2seq.search import Translation as Translation
    from mmha.models.seq2seq.search import translate as translate
    from mmha.subwords import Tokenizer as Tokenizer

_HOME = {
    **dict.fromkeys(("BUILDERS", "SHIPPED", "Config", "base", "big", "small", "tiny"), ".config"),
    **dict.fromkeys(("load", "save"), ".checkpoint"),
    **dict.fromkeys(("Beams", "Translation", "translate"), ".search"),
    "Seq2Seq": ".model",
    "attention": ".explanation",
    "Tokenizer": "mmha.subwords",
}

__all__ = [
    "BUILDERS", "SHIPPED", "Beams", "Config", "Seq2Seq", "Tokenizer", "Translation", "attention", "base", "big", "load",
    "save", "small", "tiny", "translate",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
