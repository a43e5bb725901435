"""Vectors written to a .npy or .safetensors file row by row, whose number need not be known before the last one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from mmha import checkpoint
from mmha.cli.files import writable

if TYPE_CHECKING:
    from torch import Tensor

ENDINGS = (".npy", ".safetensors")
NAME = "embeddings"
_ROOM = 256  # bytes of a safetensors header, filled up with spaces, as the format allows


def check(option: str, path: Path | None) -> None:
    """Raise ValueError when the path has neither ending, or as `writable`."""
    from mmha.checks import listed, require

    if path is not None:
        require(path.suffix.lower() in ENDINGS, option, f"a file ending in {listed(ENDINGS)}", path.name)
        writable(option, path)


class Rows:
    """A file of float32 rows (n, width), which is there when all of them are, and not before.

    Used by `with`; an exception inside leaves no file, and one that stood there before as it was.
    """

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.width, self.count = path, width, 0
        self._part = checkpoint.part_of(path)

    def __enter__(self) -> Rows:
        self._stream = self._part.open("wb")
        self._stream.write(self._header())
        return self

    def append(self, rows: Tensor) -> None:
        """Write rows float32 (m, width)."""
        self._stream.write(rows.contiguous().numpy().astype("<f4", copy=False).tobytes())
        self.count += len(rows)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._stream:
                if kind is None:
                    self._stream.seek(0)
                    self._stream.write(self._header())  # as long as the first: the number of rows has room in it
                    self._stream.flush()
                    os.fsync(self._stream.fileno())
            if kind is None:
                self._part.replace(self.path)
        finally:
            self._part.unlink(missing_ok=True)

    def _header(self) -> bytes:
        shape = (self.count, self.width)
        if self.path.suffix.lower() == ".npy":
            import io

            import numpy as np

            made = io.BytesIO()
            np.lib.format.write_array_header_1_0(made, {"descr": "<f4", "fortran_order": False, "shape": shape})
            return made.getvalue()
        tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * self.count * self.width]}
        return _ROOM.to_bytes(8, "little") + json.dumps({NAME: tensor}).encode().ljust(_ROOM)
