"""From one sample rate to another, by soxr: whole, or block by block with the same result."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmha import checks

LOWEST, HIGHEST = 1000, 768_000  # Hz
Samples = NDArray[np.float32]


class Resampler:
    """Blocks float32 (n, channels) at `source` Hz → blocks at `target` Hz, aligned with them.

    What comes out in all is soxr's of the whole sound, round(N · target / source) samples or nearly so; at equal rates
    blocks go through untouched.

    Raises: ValueError for rates below 1 or above 768 kHz. ImportError naming the extra.

    >>> to_half = Resampler(16000, 8000, channels=2)
    >>> len(to_half.push(np.zeros((500, 2), np.float32))) + len(to_half.finish())
    250
    """

    def __init__(self, source: int, target: int, channels: int) -> None:
        _check(source, target)
        self.channels = channels
        self._stream = None if source == target else _soxr().ResampleStream(source, target, channels, dtype="float32")

    def push(self, block: Samples) -> Samples:
        """More of the sound → what is ready of it."""
        if self._stream is None:
            return block
        made: Samples = self._stream.resample_chunk(np.ascontiguousarray(block))
        return made

    def finish(self) -> Samples:
        """The rest."""
        none = np.zeros((0, self.channels), np.float32)
        if self._stream is None:
            return none
        made: Samples = self._stream.resample_chunk(none, last=True)
        return made


def resample(sound: Samples, source: int, target: int) -> Samples:
    """The whole sound float32 (N, channels) at another rate. Raises: as `Resampler`."""
    _check(source, target)
    if source == target:
        return sound
    made: Samples = _soxr().resample(np.ascontiguousarray(sound), source, target)
    return made


def _check(*rates: int) -> None:
    for rate in rates:
        checks.integer("rate", rate, LOWEST, HIGHEST)


def _soxr() -> Any:
    try:
        import soxr
    except ImportError:
        raise ImportError('resampling needs soxr: pip install "mmha[speech]"') from None
    return soxr
