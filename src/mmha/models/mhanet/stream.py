"""Noisy sound in, clean sound out: as it comes in, or whole."""

from __future__ import annotations

import torch
from torch import Tensor

from mmha import checks
from mmha.models.mhanet.frames import BINS, FRAME, SHIFT, weight, window
from mmha.models.mhanet.gains import GAINS, Shape, Table
from mmha.models.mhanet.model import MHANet
from mmha.models.mhanet.step import Step

WINDOW = 256  # frames that a stream looks back on where the model has no window of its own: 4.1 s
LATENCY = FRAME  # samples from a sound's coming in to its going out, 32 ms: a frame must be complete
LOUDEST = 1e9  # beyond it squares of sums of squares leave float32
MOST_CHANNELS = 64  # each takes a cache of its own
WEIGHTS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
GAIN = "cwf"
RELEASE = 200.0  # dB a second; with the gain, what scored best on voices that training had not heard
LIMIT = float("inf")  # dB
AT_A_TIME = 64  # frames that go through the network together when so many have come in


class Enhancer:
    """A trained network, and the gain with which its a-priori SNR is put to use.

    Args: model, whose weights are taken as they are now; gain, one of `gains.GAINS`; window, the frames that a frame
        sees, itself among them, None = the model's, or 256 (4.1 s) where the model has none; weights, "int8" for
        a live stream that is to cost least, with gains that are hundredths of a dB off, "bfloat16" for half of either;
        release and limit, how fast the gain of a bin may fall, in dB a second, and how far noise is attenuated at most,
        in dB: `gains.Shape`. Infinite, what comes out is what the gain alone makes of it.
    Raises: ValueError for another gain or weights, or a model that looks ahead; as `gains.Shape`.

    >>> from mmha.models.mhanet import small
    >>> Enhancer(MHANet(small())).enhance(torch.zeros(1000)).shape
    torch.Size([1000])
    """

    def __init__(
        self,
        model: MHANet,
        gain: str = GAIN,
        window: int | None = None,
        weights: str = "float32",
        release: float = RELEASE,
        limit: float = LIMIT,
    ) -> None:
        checks.one_of("gain", gain, tuple(GAINS))
        checks.one_of("weights", weights, tuple(WEIGHTS))
        checks.require(model.config.causal, "model", "a causal one, for a stream", "one that looks ahead")
        self.model, self.gain = model.eval(), gain
        self.step, self.table = Step(model, WEIGHTS[weights]), Table(gain)
        self.shape = Shape(release, limit)
        own = model.config.window or WINDOW
        self.window = own if window is None else checks.integer("window", window, 1, model.config.window)

    def stream(self, channels: int | None = None) -> Stream:
        """A new stream of one sound (n,), or of several at once (channels, n), none of which hears the others.

        Its state is its own, the weights are shared.
        """
        return Stream(self, channels)

    def enhance(self, sound: Tensor, rate: int = 16000) -> Tensor:
        """The whole sound, float32 (N,) or (channels, N), at any rate in Hz: the same shape, aligned with it.

        Above 16 kHz what lies beyond 8 kHz is lost. Memory does not grow with N beyond both. Raises: as `Stream.push`;
        ValueError for a rate below 1 or above 768 kHz; ImportError naming the extra when a rate needs soxr.
        """
        from mmha.models.mhanet.recording import Recording

        one = sound[None] if isinstance(sound, Tensor) and sound.ndim == 1 else sound
        check(one, None)
        recording = Recording(self, rate, len(one))
        made = torch.cat([recording.push(one), recording.finish()], 1)
        return made[0] if sound.ndim == 1 else made


class Stream:
    """Sound at 16 kHz, piece by piece; what comes out is LATENCY − SHIFT samples late at the earliest.

    `push` takes any number of samples and gives back those that are ready: a frame is worked on as soon as it is
    complete, every 256 samples (16 ms). The n-th sample that comes out belongs to the sound's sample n − 256; together
    with the wait for a frame to be complete that is an algorithmic latency of 512 samples = 32 ms. Memory is bounded: a
    cache of the window's keys and values for each block, one frame of sound and of gains, for each channel.
    """

    def __init__(self, enhancer: Enhancer, channels: int | None = None) -> None:
        self.enhancer, self.channels = enhancer, channels
        rows = 1 if channels is None else checks.integer("channels", channels, 1, MOST_CHANNELS)
        self.caches = enhancer.model.new_caches(enhancer.window, AT_A_TIME, rows, enhancer.step.dtype)
        self.waiting = torch.zeros(rows, SHIFT)  # half a frame of silence stands before the sound
        self.tail = torch.zeros(rows, SHIFT)
        self.held = torch.zeros(rows, BINS)
        self.window, self.weight = window(), weight()
        self.taken = 0

    @torch.inference_mode()
    def push(self, sound: Tensor) -> Tensor:
        """More sound, float32 (n,) → float32 (m,): what is ready, a multiple of 256 samples; (channels, n) of several.

        Raises: ValueError or TypeError for another shape or dtype, NaN, infinity or samples beyond ±1e9; none is taken
            then.
        """
        check(sound, self.channels, alone=self.channels is None)
        sound = sound.reshape(len(self.waiting), -1)
        self.taken += sound.shape[1]
        self.waiting = torch.cat([self.waiting, sound], 1)
        ready = max(0, (self.waiting.shape[1] - FRAME) // SHIFT + 1)
        made = [self._frames(min(AT_A_TIME, ready - at)) for at in range(0, ready, AT_A_TIME)]
        out = torch.cat(made, 1) if made else self.tail[:, :0]
        return out[0] if self.channels is None else out

    def finish(self) -> Tensor:
        """The rest of the sound, after which all that came in has gone out (and up to 511 samples of silence)."""
        rest = torch.zeros(len(self.waiting), -self.taken % SHIFT + SHIFT if self.taken else 0)
        return self.push(rest[0] if self.channels is None else rest)

    def _frames(self, count: int) -> Tensor:
        """The next frames, from spectrum to sound, float32 (channels, 256 · count)."""
        frames = self.waiting[:, : (count + 1) * SHIFT].unfold(1, FRAME, SHIFT) * self.window
        self.waiting = self.waiting[:, count * SHIFT :]
        seen = torch.fft.rfft(frames)
        mapped = torch.sigmoid(self.enhancer.step(seen.abs(), self.caches))
        gains = self.enhancer.table(self.enhancer.model.statistics.decibels(mapped))
        factor = self.enhancer.shape(gains, self.held)
        made = torch.fft.irfft(seen * factor, FRAME) * self.window
        firsts = torch.cat([self.tail[:, None], made[:, :-1, SHIFT:]], 1)
        self.tail = made[:, -1, SHIFT:].clone()
        out: Tensor = ((made[..., :SHIFT] + firsts) / self.weight).flatten(1)
        return out


def check(sound: Tensor, channels: int | None, alone: bool = False) -> None:
    """Raise ValueError or TypeError unless it is float32 (channels, n), None = any number, or `alone` (n,)."""
    checks.dtype_in("sound", sound, ("float32",))
    fits = sound.ndim == (1 if alone else 2) and channels in (None, len(sound))
    wanted = "(samples,)" if alone else f"({channels or 'channels'}, samples)"
    checks.require(fits, "sound", f"shape {wanted}", checks.shape_text(sound.shape))
    if not alone:
        checks.integer("channels", len(sound), 1, MOST_CHANNELS)
    loudest = float(sound.abs().max()) if sound.numel() else 0.0
    finite = "finite numbers up to 1e9 (full scale is 1)"
    checks.require(loudest <= LOUDEST, "sound", finite, f"{loudest:.3g}" if loudest > LOUDEST else "NaN")
