"""Checkpoints of a BERT: a JSON document with the tokenizer in it, and safetensors beside it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mmha import checkpoint, checks
from mmha.models.bert.config import SHIPPED, Config, read_config
from mmha.models.bert.model import Bert
from mmha.models.bert.tokenizer import Tokenizer

FOREIGN = "config.json"  # by which a Hugging Face folder is known


def save(model: Bert, tokenizer: Tokenizer, path: Path, about: dict[str, Any], name: str | None = None) -> None:
    """Write the model to `path` (.json), tokenizer included, and its weights beside it in 16 bits.

    Raises: OSError when the folder cannot be written, ValueError for weights that 16 bits cannot hold.
    """
    weights = {name: weight.half() for name, weight in model.state_dict().items()}
    for name, weight in weights.items():
        fits = not bool(weight.isinf().any())
        checks.require(fits, "model", f"weights of at most {torch.finfo(torch.float16).max:,.0f}", f"larger in {name}")
    document = {"model": "bert", "about": about, "config": asdict(model.config), "tokenizer": tokenizer.definition}
    checkpoint.save(path, weights, document, name)


def load(place: Path | str = SHIPPED) -> tuple[Bert, Tokenizer]:
    """The model and its tokenizer from a checkpoint, by default those that ship with mmha.

    Args: place: a checkpoint (.json), the folder that holds it, or a Hugging Face folder (`load_huggingface`).
    Raises: FileNotFoundError when it is not there, ValueError when it is damaged or of another model.
    """
    path = Path(place)
    folder = path.parent if path.name == FOREIGN else path
    if (folder / FOREIGN).exists() and not (folder / SHIPPED.name).exists():
        from mmha.models.bert.huggingface import load_huggingface

        return load_huggingface(folder)
    if path.is_dir():
        path = path / SHIPPED.name
        if not path.exists():
            raise FileNotFoundError(2, f"expected {SHIPPED.name} or {FOREIGN} in it, got neither", str(folder))
    document, data = checkpoint.read(path)
    config = read_config(document, path)
    try:
        tokenizer = Tokenizer(document["tokenizer"])
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected a tokenizer, got another thing ({error})") from None
    if tokenizer.vocabulary > config.vocabulary:
        raise ValueError(f"{path}: expected at most {config.vocabulary} tokens, got {tokenizer.vocabulary}")
    return assembled(config, checkpoint.tensors(data, path), path), tokenizer


def assembled(config: Config, weights: dict[str, Tensor], path: Path) -> Bert:
    """The model of these sizes with these weights, in float32, for evaluation.

    Raises: ValueError when they do not fit; no memory is taken for sizes that a file claims.
    """
    held = sum(v.numel() for v in weights.values())
    if held != config.parameters:
        raise ValueError(f"{path}: expected {config.parameters} weights for these sizes, got {held}")
    with torch.device("meta"), _Undrawn():
        model = Bert(config)
    try:
        model.load_state_dict({k: v.float() for k, v in weights.items()}, assign=True)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{path}: expected the weights of these sizes, got others ({said[:200]})") from None
    return model.eval()


class _Undrawn(TorchFunctionMode):
    """Within it nothing is written into tensors, so that none is drawn that a file is about to replace.

    On the meta device there is nothing to draw, and yet torch imports its compiler to draw it, which takes seconds.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__.endswith("_") and not func.__name__.endswith("__"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
