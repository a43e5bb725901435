"""Files of a MAMSM: a JSON document with its sizes and its scale of values, and its weights beside it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmha import checkpoint, checks
from mmha.models.mamsm.config import read_config
from mmha.models.mamsm.model import MAMSM
from mmha.models.mamsm.scale import Scale

NAME = "mamsm.json"


def save(model: MAMSM, scale: Scale, path: Path | str, about: dict[str, Any], name: str | None = None) -> None:
    """Write the model to `path` (.json), its scale and what is known about it, and its weights (float16) beside it.

    Raises: OSError when the folder cannot be written.
    """
    document = {"model": "mamsm", "about": about, "config": asdict(model.config), "scale": asdict(scale)}
    checkpoint.save(Path(path), checkpoint.narrow(model.state_dict()), document, name)


def load(place: Path | str) -> tuple[MAMSM, Scale]:
    """The model and its scale from a checkpoint, or from the folder that holds `mamsm.json`.

    Raises: FileNotFoundError when it is not there, ValueError when it is damaged or of another model.
    """
    path = Path(place)
    path = path / NAME if path.is_dir() else path
    document, data = checkpoint.read(path)
    config = read_config(document, path)
    try:
        scale = Scale(**document["scale"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a scale of values, got {checks.describe(document.get('scale'))}") from error
    wanted = f"{path}: expected a scale of {config.vocabulary} tokens, got {scale.vocabulary}"
    if scale.vocabulary != config.vocabulary:
        raise ValueError(wanted)
    weights = checkpoint.widen(checkpoint.tensors(data, path), path)
    return checkpoint.fill(lambda: MAMSM(config), weights, config.parameters, path), scale
