"""Files of an encoder–decoder: a JSON document with sizes and tokenizer, and its weights beside it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mmha import checkpoint, checks
from mmha.models.seq2seq.config import read_config
from mmha.models.seq2seq.model import Seq2Seq
from mmha.subwords import Tokenizer

NAME = "seq2seq.json"


def save(
    model: Seq2Seq, tokenizer: Tokenizer, path: Path, about: dict[str, Any], name: str | None = None, *, bits: int = 16
) -> None:
    """Write the model to `path` (.json), tokenizer included, and its weights beside it.

    Args: bits: 16, or 8 for what is a matrix, with a scale for each of its rows.

    Raises: OSError when the folder cannot be written.
    """
    merges = "\n".join(" ".join(pair) for pair in tokenizer.merges)
    document = {"model": "seq2seq", "about": about, "config": asdict(model.config), "merges": merges}
    state = model.state_dict()
    checks.require(bits in (8, 16), "bits", "8 or 16", bits)
    matrices = [k for k, v in state.items() if v.ndim == 2] if bits == 8 else ()
    checkpoint.save(path, checkpoint.narrow(state, matrices), document, name)


def load(place: Path | str) -> tuple[Seq2Seq, Tokenizer]:
    """The model and its tokenizer from a checkpoint, or from the folder that holds `seq2seq.json`.

    Raises: FileNotFoundError when it is not there, ValueError when it is damaged or of another model.
    """
    path = Path(place)
    path = path / NAME if path.is_dir() else path
    document, data = checkpoint.read(path)
    config = read_config(document, path)
    try:
        tokenizer = Tokenizer((first, second) for first, second in map(str.split, document["merges"].splitlines()))
    except (KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: expected the pairs of a tokenizer, got others ({error!r})") from None
    if tokenizer.vocab_size != config.vocabulary:
        raise ValueError(f"{path}: expected {config.vocabulary} tokens, got {tokenizer.vocab_size}")
    weights = checkpoint.widen(checkpoint.tensors(data, path))
    held = sum(v.numel() for v in weights.values())
    if held != config.parameters:  # before any memory is taken for sizes that a file claims
        raise ValueError(f"{path}: expected {config.parameters} weights for these sizes, got {held}")
    with torch.random.fork_rng(devices=[]):
        model = Seq2Seq(config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path}: expected the weights of these sizes, got others ({error})") from None
    return model.eval(), tokenizer
