"""BERT: `load(FOLDER)` gives a model and its tokenizer, from a checkpoint of ours or a Hugging Face folder.

`model` is the encoder with its heads, `tokenizer` turns text into numbers and back, `config` names the sizes;
`files` keeps checkpoints, `huggingface` reads and writes transformers' folders. `filling` says what stands behind a
[MASK], `tagging` puts a tagger on the encoder; `smiles` cuts molecules instead of words.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmha.models.bert.config import BUILDERS as BUILDERS
    from mmha.models.bert.config import SHIPPED as SHIPPED
    from mmha.models.bert.config import Config as Config
    from mmha.models.bert.config import base as base
    from mmha.models.bert.config import large as large
    from mmha.models.bert.config import mini as mini
    from mmha.models.bert.config import nano as nano
    from mmha.models.bert.config import small as small
    from mmha.models.bert.config import tiny as tiny
    from mmha.models.bert.files import load as load
    from mmha.models.bert.files import save as save
    from mmha.models.bert.filling import Filling as Filling
    from mmha.models.bert.filling import fill as fill
    from mmha.models.bert.huggingface import load_huggingface as load_huggingface
    from mmha.models.bert.huggingface import save_huggingface as save_huggingface
    from mmha.models.bert.model import Bert as Bert
    from mmha.models.bert.tokenizer import Tokenizer as Tokenizer

_HOME = {
    **dict.fromkeys(("BUILDERS", "SHIPPED", "Config", "base", "large", "mini", "nano", "small", "tiny"), "config"),
    **dict.fromkeys(("load", "save"), "files"),
    **dict.fromkeys(("Filling", "fill"), "filling"),
    **dict.fromkeys(("load_huggingface", "save_huggingface"), "huggingface"),
    "Bert": "model",
    "Tokenizer": "tokenizer",
}

__all__ = [
    "BUILDERS",
    "SHIPPED",
    "Bert",
    "Config",
    "Filling",
    "Tokenizer",
    "base",
    "fill",
    "large",
    "load",
    "load_huggingface",
    "mini",
    "nano",
    "save",
    "save_huggingface",
    "small",
    "tiny",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
