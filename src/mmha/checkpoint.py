"""Checkpoints: a JSON document that names a safetensors file beside it, replaced as one.

The tensors are written first, under a name of their own; then the document is renamed into place; then the tensors of
the document before it are deleted. A crash at any moment leaves a document whose tensors are there and whole.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mmha import checks

if TYPE_CHECKING:
    from torch import Tensor, nn

Model = TypeVar("Model", bound="nn.Module")
Sizes = TypeVar("Sizes")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def part_of(path: Path) -> Path:
    """Where this process writes the file until it is whole. What killed processes left of the file is removed."""
    _sweep(path.parent, glob.escape(path.name))
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.part")


def _host() -> str:
    """This machine's name, for names of files: on a disk that others share, a process is known by its machine, too."""
    return re.sub(r"\W", "_", socket.gethostname())


def _sweep(folder: Path, names: str) -> None:
    """Remove what is left of the files, a pattern, that processes of this machine which have ended did not finish."""
    for part in folder.glob(f".{names}.{_host()}.*.part"):
        pid = part.name.split(".")[-2]
        if pid.isdecimal() and not _runs(int(pid)):
            part.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def write(path: Path, data: bytes | Iterator[bytes]) -> None:
    """Write the file whole or not at all, in one piece or as the pieces come.

    Raises: OSError when the folder cannot be written, and what the iterator raises.
    """
    part = part_of(path)
    try:
        with part.open("wb") as stream:
            stream.writelines([data] if isinstance(data, bytes) else data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _tensors_of(path: Path) -> str:
    """The pattern of the names that `save` makes from digests."""
    return f"{glob.escape(path.stem)}-{'?' * 12}.safetensors"


def save(path: Path, state: dict[str, Tensor], document: dict[str, Any], name: str | None = None) -> None:
    """Write the document to `path` (.json) and the tensors beside it, to `name` or to one made from their digest.

    Raises: OSError when the folder cannot be written.
    """
    from safetensors.torch import save as pack

    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent, _tensors_of(path))  # their name does not come again, so that no `write` would find them
    data = pack({k: v.contiguous() for k, v in state.items()})
    digest = _digest(data)
    name = name or f"{path.stem}-{digest[:12]}.safetensors"
    write(path.parent / name, data)
    text = json.dumps({"tensors": name, "sha256": digest, **document}, indent=1, ensure_ascii=False)
    write(path, text.encode())
    for old in path.parent.glob(_tensors_of(path)):
        if old.name != name:
            old.unlink()


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    """The document and the packed tensors of a checkpoint, checked against the digest in the document; no torch needed.

    Raises: FileNotFoundError when either file is missing, ValueError when either is not what was written.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        name, digest = document["tensors"], document["sha256"]
        if Path(name).name != name or not name.isprintable() or not name:
            raise ValueError("the tensors' name is not a plain file name")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: expected a checkpoint, got a damaged document ({error})") from None
    data = (path.parent / name).read_bytes()
    if _digest(data) != digest:
        raise ValueError(f"{path.parent / name}: expected the tensors that {path.name} names, got a damaged file")
    return document, data


def tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """Packed tensors, unpacked.

    Raises: ValueError when they are not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as unpack

    try:
        return unpack(data)
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a dtype that torch lacks
        raise ValueError(f"{path}: expected safetensors, got a damaged file ({error})") from None


def load(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The document and the tensors of a checkpoint. Raises: as `read` and `tensors`."""
    document, data = read(path)
    return document, tensors(data, path)


def scale_name(table: str) -> str:
    """Where the scales of a narrowed table's rows are stored."""
    return f"{table}.scale"


def narrow(state: dict[str, Tensor], tables: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors in 16 bits, and those of `tables` (rows, columns) in 8: row = scale · int8, scale = max |row| / 127.

    >>> import torch
    >>> packed = narrow({"e": torch.tensor([[127.0, -1.0], [0.0, 0.0]]), "b": torch.ones(1)}, ["e"])
    >>> packed["e"], packed["b"].dtype
    (tensor([[127,  -1],
            [  0,   0]], dtype=torch.int8), torch.float16)
    >>> widen(packed, Path("e.json"))["e"]
    tensor([[127.,  -1.],
            [  0.,   0.]])
    """
    import torch

    packed = {k: v.half() for k, v in state.items()}
    for table in tables:
        rows = state[table]
        # Rows are divided by the scale as stored; the bound is the smallest number of 16 bits, for rows of zeros.
        scale = (rows.abs().amax(1, keepdim=True) / 127).clamp_min(2.0**-24).half()
        packed[table] = (rows / scale.float()).round().clamp(-127, 127).to(torch.int8)
        packed[scale_name(table)] = scale
    return packed


def widen(packed: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors of the file in float32 again.

    Raises: ValueError when the scales of a table are not one a row.
    """
    for table, rows in packed.items():
        scale = packed.get(scale_name(table))
        if scale is not None and (rows.ndim != 2 or scale.shape != (rows.shape[0], 1)):
            shapes = f"{tuple(scale.shape)} for {tuple(rows.shape)}"
            raise ValueError(f"{path}: expected a scale for each row of {table}, got shapes {shapes}")
    state = {k: v.float() for k, v in packed.items()}
    for table in packed:
        if scale_name(table) in packed:
            state[table] = state[table] * state.pop(scale_name(table))
    return state


def sizes(document: dict[str, Any], path: Path, config: type[Sizes], model: str, what: str) -> Sizes:
    """The sizes of a model in its checkpoint's document, a frozen dataclass that checks them; `what` it is, for people.

    Raises: ValueError when the document is of another model, or its sizes are not such a model's.
    """
    if document.get("model") != model:
        raise ValueError(f"{path}: expected {what}, got {document.get('model')!r}")
    given = document.get("config")
    known = {field.name for field in fields(config)}  # type: ignore[arg-type]
    if not isinstance(given, dict) or not set(given) <= known:
        raise ValueError(f"{path}: expected sizes of {what}, got {checks.describe(given)}")
    try:
        return config(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected sizes that fit together, got others ({error})") from None


def fill(make: Callable[[], Model], weights: dict[str, Tensor], numbers: int, path: Path) -> Model:
    """The model that `make` makes, with the weights of `path`, for evaluation; `numbers` is how many it has to have.

    Raises: ValueError when these are not its weights; no memory is taken for sizes that a file only claims.
    """
    import torch

    held = sum(v.numel() for v in weights.values())
    if held != numbers:
        raise ValueError(f"{path}: expected {numbers} weights for these sizes, got {held}")
    with torch.random.fork_rng(devices=[]):
        model = make()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{path}: expected the weights of these sizes, got others ({said[:200]})") from None
    return model.eval()
