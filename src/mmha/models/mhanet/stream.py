"""Noisy sound in, clean sound out: as it comes in, or whole."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmha import checks
from mmha.models.mhanet.frames import FRAME, SHIFT, weight, window
from mmha.models.mhanet.gains import GAINS, gain
from mmha.models.mhanet.model import MHANet

WINDOW = 256  # frames that a stream looks back on where the model has no window of its own: 4.1 s
LATENCY = FRAME  # samples from a sound's coming in to its going out, 32 ms: a frame must be complete
AT_A_TIME = 64  # frames that go through the network together when so many have come in


class Enhancer:
    """A trained network, and the gain with which its a-priori SNR is put to use.

    Args: model; name, one of `gains.GAINS`; window, the frames that a frame sees, itself among them, None = the
        model's, or 256 (4.1 s) where the model has none.
    Raises: ValueError for another gain, or a model that looks ahead.

    >>> from mmha.models.mhanet import small
    >>> Enhancer(MHANet(small())).enhance(torch.zeros(1000)).shape
    torch.Size([1000])
    """

    def __init__(self, model: MHANet, gain: str = "mmse-lsa", window: int | None = None) -> None:
        checks.one_of("gain", gain, tuple(GAINS))
        checks.require(model.config.causal, "model", "a causal one, for a stream", "one that looks ahead")
        self.model, self.gain = model.eval(), gain
        own = model.config.window or WINDOW
        self.window = own if window is None else checks.integer("window", window, 1, model.config.window)

    def stream(self) -> Stream:
        """A new stream: its state is its own, the weights are shared."""
        return Stream(self)

    def enhance(self, sound: Tensor) -> Tensor:
        """The whole sound, float32 (N,) at 16 kHz → (N,), aligned with it; memory does not grow with N beyond both."""
        stream = self.stream()
        made = torch.cat([stream.push(sound), stream.finish()])
        return made[LATENCY - SHIFT :][: len(sound)] if len(sound) else made


class Stream:
    """Sound at 16 kHz, piece by piece; what comes out is LATENCY − SHIFT samples late at the earliest.

    `push` takes any number of samples and gives back those that are ready: a frame is worked on as soon as it is
    complete, every 256 samples (16 ms). The n-th sample that comes out belongs to the sound's sample n − 256; together
    with the wait for a frame to be complete that is an algorithmic latency of 512 samples = 32 ms. Memory is bounded: a
    cache of the window's keys and values for each block and one frame of sound.
    """

    def __init__(self, enhancer: Enhancer) -> None:
        self.enhancer = enhancer
        self.caches = enhancer.model.new_caches(enhancer.window, AT_A_TIME)
        self.waiting = torch.zeros(SHIFT)  # half a frame of silence stands before the sound
        self.tail = torch.zeros(SHIFT)
        self.window, self.weight = window(), weight()
        self.taken = 0

    @torch.inference_mode()
    def push(self, sound: Tensor) -> Tensor:
        """More sound, float32 (n,) → float32 (m,): what is ready, a multiple of 256 samples.

        Raises: ValueError or TypeError for another shape or dtype, or numbers that are not finite; none is taken then.
        """
        _check(sound)
        self.taken += len(sound)
        self.waiting = torch.cat([self.waiting, sound])
        ready = max(0, (len(self.waiting) - FRAME) // SHIFT + 1)
        made = [self._frames(min(AT_A_TIME, ready - at)) for at in range(0, ready, AT_A_TIME)]
        return torch.cat(made) if made else torch.zeros(0)

    def finish(self) -> Tensor:
        """The rest of the sound, after which all that came in has gone out (and up to 511 samples of silence)."""
        if not self.taken:
            return torch.zeros(0)
        return self.push(torch.zeros(-self.taken % SHIFT + SHIFT))

    def _frames(self, count: int) -> Tensor:
        """The next frames, from spectrum to sound."""
        span = (count + 1) * SHIFT
        frames = self.waiting[:span].unfold(0, FRAME, SHIFT) * self.window
        self.waiting = self.waiting[count * SHIFT :]
        seen = torch.fft.rfft(frames)
        mapped = torch.sigmoid(self.enhancer.model(seen.abs()[None], self.caches)[0])
        ratio = self.enhancer.model.statistics.ratio(mapped)
        factor = torch.from_numpy(gain(self.enhancer.gain, ratio.numpy()).astype(np.float32))
        made = torch.fft.irfft(seen * factor, FRAME) * self.window
        firsts = torch.cat([self.tail[None], made[:-1, SHIFT:]])
        self.tail = made[-1, SHIFT:].clone()
        out: Tensor = ((made[:, :SHIFT] + firsts) / self.weight).flatten()
        return out


def _check(sound: Tensor) -> None:
    checks.dtype_in("sound", sound, ("float32",))
    checks.require(sound.ndim == 1, "sound", "shape (samples,)", checks.shape_text(sound.shape))
    checks.require(bool(sound.isfinite().all()), "sound", "finite numbers", "NaN or infinity")
