"""Files of an encoder–decoder: a JSON document with sizes and tokenizer, and its weights beside it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmha import checkpoint, checks, subwords
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
    document = {
        "model": "seq2seq",
        "about": about,
        "config": asdict(model.config),
        "merges": subwords.stored(tokenizer),
    }
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
    tokenizer = subwords.restored(document, config.vocabulary, path)
    weights = checkpoint.widen(checkpoint.tensors(data, path), path)
    return checkpoint.fill(lambda: Seq2Seq(config), weights, config.parameters, path), tokenizer
