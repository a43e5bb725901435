"""Files of a model folder that anybody may have written: read whole or refused in one line; nothing in them runs."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmha import checks

MOST_TEXT = 64 << 20  # bytes of a JSON document or a vocabulary
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def text(path: Path) -> str:
    """The UTF-8 text of a file of at most 64 MB.

    Raises: OSError when it cannot be read, ValueError when it is larger or no text.
    """
    size = path.stat().st_size
    if size > MOST_TEXT:
        raise ValueError(f"{path}: expected at most {MOST_TEXT:,} bytes, got {size:,}")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, got byte {error.object[error.start]:#x}") from None


def content(path: Path) -> Any:
    """What the JSON in a file says. Raises: as `text`, and ValueError when it is no JSON."""
    try:
        return json.loads(text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, got something else ({error})") from None


def document(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises: as `content`, and ValueError when it is no object."""
    found = content(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object, got {checks.describe(found)}")
    return found


def weights(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """The weights in a folder, and their file: model.safetensors or else pytorch_model.bin.

    They take no more memory than the file has bytes, whatever sizes it claims.

    Raises: FileNotFoundError when there is neither, ValueError for a damaged file or one that holds other things.
    """
    path = next((p for name in ("model.safetensors", "pytorch_model.bin") if (p := folder / name).exists()), None)
    if path is None:
        raise FileNotFoundError(2, "expected model.safetensors or pytorch_model.bin in it, got neither", str(folder))
    if path.is_dir():
        raise IsADirectoryError(21, "expected a file of weights, got a folder", str(path))
    found = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    taken, size = 0, path.stat().st_size
    for name, tensor in found.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ValueError(f"{path}: expected weights by their names, got {checks.describe(tensor)} as {name!r}")
        taken += tensor.numel() * tensor.element_size()
    if taken > 2 * size:  # a tied weight may stand in a file under two names
        raise ValueError(f"{path}: expected weights of the file's {size:,} bytes, got {taken:,} bytes claimed")
    return path, found


def floating(tensor: Tensor, name: str, path: Path) -> Tensor:
    """The tensor in float32. Raises: ValueError when it holds no floating-point numbers."""
    if tensor.dtype not in _FLOATS:
        raise ValueError(f"{path}: expected floating-point numbers in {name}, got {str(tensor.dtype)[6:]}")
    return tensor.detach().float()


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: expected safetensors, got a damaged file ({_line(error)})") from None


def _pickled(path: Path) -> dict[str, Tensor]:
    """torch's own format, of which torch unpickles tensors and refuses everything that could run."""
    size = path.stat().st_size
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                unpacked = sum(entry.file_size for entry in packed.infolist())
            if unpacked > size:
                raise ValueError(f"{unpacked:,} bytes packed into {size:,}")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises nearly anything, also an OSError about no file
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(f"{path}: expected weights written by torch.save, got others ({_line(error)})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected weights by their names, got {checks.describe(found)}")
    return {str(name): tensor for name, tensor in found.items()}


def _line(error: Exception) -> str:
    said = " ".join(str(error).split())
    return said if len(said) <= 160 else said[:157] + "..."
