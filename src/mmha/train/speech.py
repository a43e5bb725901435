"""What is particular to training a speech enhancer: noisy speech, mixed anew for each step. Sounds are passed in.

A row of a batch is some seconds of one speaker after another, some of noise, and how loud each is. Its only source of
chance is (seed, step, row), so a batch is the same in every run and on any number of processes.

- Speech: random stretches of the recordings, end to end. Two rows in three are played 0.75 to 1.2 times as fast, which
  makes other voices of the few; one in four goes through a room, if there are impulse responses.
- Noise: a random section of a recording, played 0.7 to 1.6 times as fast, in half of the rows a second one at 0 to
  10 dB less; in one row of ten random noise of a random colour instead. White noise 25 to 50 dB below it keeps bands
  that a recording lacks from being silent, where the ratio of speech to noise would have no meaning.
- Half of the rows of speech, and half of those of noise, go through a random filter, as if recorded elsewhere.
- The ratio of their energies over the row is a whole number of dB, -10 to 20; the speech's level -38 to -16 dB of full
  scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmha import checks

RATE = 16000
Sounds = Sequence[NDArray[np.int16]]
Floats = NDArray[np.float32]

SNR = (-10, 20)  # dB
LEVEL = (-38.0, -16.0)  # dB of full scale
SPEECH_SPEED, NOISE_SPEED = (0.75, 1.2), (0.7, 1.6)
TRAIN, STATISTICS, DEV = range(3)  # what a stream of random numbers is for
TOGETHER = 8  # mixtures at a time, where it makes no difference


class Batch(NamedTuple):
    """Frames of noisy speech: |X| float32 (B, T, F), what to find out about them (B, T, F), frames of each row (B,)."""

    magnitudes: Tensor
    ratio: Tensor
    lengths: Tensor


Frames = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(speech, noise), float32 (B, N) → |X| and the a-priori SNR ξ of the frames of their sum, (B, T, F) each."""


class Mixer:
    """Speech and noise to be added.

    Args: speech, noise, rooms (impulse responses, may be none): recordings at 16 kHz in 16 bits; seconds, of a row.
    Raises: ValueError when there is no speech or no noise.

    >>> tone = (1000 * np.sin(np.arange(9000))).astype(np.int16)
    >>> speech, noise = Mixer([tone], [tone[::3]], [], 0.25, seed=1)(0, 0)
    >>> speech.shape, noise.dtype
    ((4000,), dtype('float32'))
    >>> round(float(10 * np.log10(np.square(speech).sum() / np.square(noise).sum())), 3) in range(-10, 21)
    True
    """

    def __init__(self, speech: Sounds, noise: Sounds, rooms: Sounds, seconds: float, seed: int) -> None:
        checks.require(len(speech) > 0, "speech", "recordings of speech", "none but silence")
        checks.require(len(noise) > 0, "noise", "recordings of noise", "none but silence")
        self.speech, self.noise, self.rooms, self.seed = speech, noise, rooms, seed
        self.samples = max(1, round(seconds * RATE))

    def __call__(self, step: int, row: int, purpose: int = TRAIN) -> tuple[Floats, Floats]:
        """Speech and noise float32 (samples,) of that row of that step; their sum stays within full scale."""
        draw = np.random.default_rng([self.seed, purpose, step, row])
        speech, noise = self._speech(draw), self._noise(draw)
        speech *= _rms(10 ** (draw.uniform(*LEVEL) / 20), speech)
        ratio = draw.integers(SNR[0], SNR[1] + 1)
        noise *= _rms(float(np.sqrt(np.square(speech).mean())) * 10 ** (-ratio / 20), noise)
        peak = max(1.0, float(np.abs(speech + noise).max()))
        return (speech / peak).astype(np.float32), (noise / peak).astype(np.float32)

    def rows(self, numbers: Sequence[int], step: int, purpose: int = TRAIN) -> tuple[Tensor, Tensor]:
        """Some rows of a step, (B, samples) each."""
        pairs = [self(step, row, purpose) for row in numbers]
        speech, noise = (np.array([pair[side] for pair in pairs], np.float32) for side in (0, 1))
        shape = (len(pairs), self.samples)
        return torch.from_numpy(speech.reshape(shape)), torch.from_numpy(noise.reshape(shape))

    def _speech(self, draw: np.random.Generator) -> NDArray[np.float64]:
        speed = draw.uniform(*SPEECH_SPEED) if draw.random() < 2 / 3 else 1.0
        need, parts = int(self.samples * speed) + 2, list[NDArray[Any]]()
        while need > 0:
            recording = self.speech[int(draw.integers(len(self.speech)))]
            start = draw.integers(max(1, len(recording) - need + 1))
            parts.append(recording[start:][:need])
            need -= len(parts[-1])
        made = at_speed(np.concatenate(parts), speed, self.samples)
        if self.rooms and draw.random() < 1 / 4:
            made = reverberate(made, self.rooms[int(draw.integers(len(self.rooms)))])
        return filtered(draw, made) if draw.random() < 0.5 else made

    def _noise(self, draw: np.random.Generator) -> NDArray[np.float64]:
        if draw.random() < 0.1:
            made = coloured(draw, self.samples)
        else:
            made = self._section(draw)
            if draw.random() < 0.5:
                second = self._section(draw)
                level = 10 ** (-draw.uniform(0, 10) / 20)
                made += second * _rms(level * float(np.sqrt(np.square(made).mean())), second)
        if draw.random() < 0.5:
            made = filtered(draw, made)
        floor = draw.standard_normal(self.samples)
        level = max(float(np.sqrt(np.square(made).mean())), 1e-5) * 10 ** (-draw.uniform(25, 50) / 20)
        return made + level * floor

    def _section(self, draw: np.random.Generator) -> NDArray[np.float64]:
        """Of a random recording from a random place on, and from its beginning again where it is too short."""
        recording = self.noise[int(draw.integers(len(self.noise)))]
        speed = draw.uniform(*NOISE_SPEED)
        need = int(self.samples * speed) + 2
        start = draw.integers(len(recording))
        return at_speed(np.resize(np.roll(recording, -start), need), speed, self.samples)


def at_speed(sound: NDArray[Any], speed: float, samples: int) -> NDArray[np.float64]:
    """So many samples of a sound in 16 bits, played so many times as fast, full scale 1.

    Raises: ImportError naming the extra when soxr is missing.
    """
    try:
        import soxr
    except ImportError:
        raise ImportError('mixing speech and noise needs soxr: pip install "mmha[speech]"') from None
    made = np.asarray(sound, np.float64) / 32768
    if speed != 1.0:
        made = soxr.resample(made, speed, 1.0, "LQ")
    return np.resize(made, samples) if len(made) < samples else made[:samples].copy()


def reverberate(sound: NDArray[np.float64], response: NDArray[Any]) -> NDArray[np.float64]:
    """The sound in a room of that impulse response, as long as before and not delayed: the response's peak is time 0.

    >>> reverberate(np.array([1.0, 0.0, 0.0]), np.array([0, 2, 1])).round(9) + 0.0
    array([2., 1., 0.])
    """
    tail = response[int(np.abs(response.astype(np.float64)).argmax()) :].astype(np.float64)
    size = 1 << (len(sound) + len(tail)).bit_length()
    made: NDArray[np.float64] = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[: len(sound)]
    return made


def filtered(draw: np.random.Generator, sound: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sound through (1 + a₁z⁻¹ + a₂z⁻²) / (1 + b₁z⁻¹ + b₂z⁻²), each number between -3/8 and 3/8.

    So small, they keep it stable, and no frequency is lost.
    Source: Valin, *A hybrid DSP/deep learning approach to real-time full-band speech enhancement* (2018).
    Raises: ImportError naming the extra when scipy is missing.
    """
    try:
        from scipy.signal import lfilter
    except ImportError:
        raise ImportError('mixing speech and noise needs scipy: pip install "mmha[speech]"') from None
    above, below = draw.uniform(-3 / 8, 3 / 8, (2, 2))
    made: NDArray[np.float64] = lfilter([1.0, *above], [1.0, *below], sound)
    return made


def coloured(draw: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """Gaussian noise whose power falls with the frequency f as f^-a, a between 0 (white) and 2 (brown), rms 1."""
    slope = draw.uniform(0, 2)
    spectrum = np.fft.rfft(draw.standard_normal(samples))
    spectrum *= np.maximum(1, np.arange(len(spectrum))) ** (-slope / 2)
    made = np.fft.irfft(spectrum, samples)
    return made * _rms(1.0, made)


def _rms(level: float, sound: NDArray[np.float64]) -> float:
    """The factor that brings a sound to that level; that of silence is 0."""
    have = float(np.sqrt(np.square(sound).mean()))
    return level / have if have > 0 else 0.0


class Batches:
    """Mixtures to train on, for `mmha.train.run`: a step has so many rows."""

    def __init__(self, mixer: Mixer, rows: int, frames: Frames) -> None:
        self.mixer, self.rows, self.frames = mixer, rows, frames

    def __call__(self, step: int, part: int, parts: int) -> Batch:
        return self.batch(range(self.rows)[part::parts], step, TRAIN)

    def batch(self, numbers: Sequence[int], step: int, purpose: int) -> Batch:
        # A part without rows, of which torch makes no spectra, is a row of no frames.
        magnitudes, ratio = self.frames(*self.mixer.rows(numbers or [0], step, purpose))
        return Batch(magnitudes, ratio, torch.full((len(magnitudes),), magnitudes.shape[1] if numbers else 0))

    def fixed(self, purpose: int, count: int) -> Iterator[Batch]:
        """So many mixtures in batches, the same each time: for statistics, or to score on."""
        for at in range(0, count, TOGETHER):
            yield self.batch(range(at, min(at + TOGETHER, count)), 0, purpose)


def counts(batch: Batch) -> list[float]:
    """The bins of the real frames."""
    return [float(batch.lengths.sum()) * batch.magnitudes.shape[-1]]
