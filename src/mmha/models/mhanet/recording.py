"""Recordings of any rate and number of channels through a network that hears one at 16 kHz."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmha.models.mhanet.frames import RATE, SHIFT
from mmha.models.mhanet.stream import LATENCY, Enhancer, check
from mmha.resampling import Resampler


class Recording:
    """A recording, piece by piece: what comes out is aligned with what came in, and in the end as long, to the sample.

    Each channel is enhanced by itself. Other rates than 16 kHz are resampled (soxr) and back; what lies above 8 kHz is
    lost. Memory is bounded, as that of `Stream`.

    Args: enhancer; rate in Hz, 1000 to 768000; channels, 1 to 64.

    >>> from mmha.models.mhanet import MHANet, small
    >>> recording = Recording(Enhancer(MHANet(small())), rate=44100, channels=2)
    >>> pieces = [recording.push(torch.zeros(2, 5003)), recording.finish()]
    >>> torch.cat(pieces, 1).shape
    torch.Size([2, 5003])
    """

    def __init__(self, enhancer: Enhancer, rate: int, channels: int) -> None:
        self.channels = channels
        self.stream = enhancer.stream(channels)
        self._there, self._back = Resampler(rate, RATE, channels), Resampler(RATE, rate, channels)
        self._before = LATENCY - SHIFT  # samples that come out of the stream ahead of the sound
        self._taken = self._given = self._made = 0

    def push(self, sound: Tensor) -> Tensor:
        """More of it, float32 (channels, n) → (channels, m): what is ready. Raises: as `Stream.push`."""
        check(sound, self.channels)
        self._taken += sound.shape[1]
        made = self._aligned(self.stream.push(_by(self._there.push, sound)))
        self._made += made.shape[1]
        out = _by(self._back.push, made)
        self._given += out.shape[1]
        return out

    def finish(self) -> Tensor:
        """The rest."""
        first = self.stream.push(_tensor(self._there.finish()))
        heard = self.stream.taken
        rest = self._aligned(torch.cat([first, self.stream.finish()], 1))[:, : heard - self._made]
        out = torch.cat([_by(self._back.push, rest), _tensor(self._back.finish())], 1)
        missing = self._taken - self._given  # there and back makes a sample more or less
        return torch.nn.functional.pad(out, (0, missing - out.shape[1]))

    def _aligned(self, made: Tensor) -> Tensor:
        """Without what stands before the sound."""
        dropped = min(self._before, made.shape[1])
        self._before -= dropped
        return made[:, dropped:]


def _by(step: Callable[[NDArray[np.float32]], NDArray[np.float32]], sound: Tensor) -> Tensor:
    """A step of a resampler, which holds samples by channels the other way round."""
    return _tensor(step(sound.T.numpy()))


def _tensor(block: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(block).T
