"""Sound as overlapping frames and back: short-time spectra, and the overlap-add that undoes them.

16 kHz, frames of 512 samples (32 ms) every 256 (16 ms), a Hamming window, 257 bins. The sound is taken to begin after
half a frame of silence, so that each of its samples lies in two frames and the first ones come back as exactly as the
others: N samples make ceil(N / 256) + 1 frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

RATE = 16000  # Hz
FRAME = 512
SHIFT = 256
BINS = FRAME // 2 + 1


def window() -> Tensor:
    """The Hamming window, symmetric, float32 (512,)."""
    return torch.hamming_window(FRAME, periodic=False)


def weight() -> Tensor:
    """The sum of the squares of the windows that overlap at a sample, float32 (256,)."""
    squares = window() ** 2
    return squares[:SHIFT] + squares[SHIFT:]


def frame_count(samples: int) -> int:
    """Frames of so many samples.

    >>> [frame_count(n) for n in (0, 1, 256, 257)]
    [0, 2, 2, 3]
    """
    return -(-samples // SHIFT) + 1 if samples else 0


def spectra(sound: Tensor) -> Tensor:
    """The spectra of all frames.

    X[k, f] = Σ_n w[n] · x[256·(k−1) + n] · e^(−2πi·f·n/512), x = 0 outside the sound.

    Args: sound float32 (..., N), full scale = 1.
    Returns: complex64 (..., frames, 257).

    >>> spectra(torch.zeros(1000)).shape
    torch.Size([5, 257])
    """
    count = frame_count(sound.shape[-1])
    if not count:
        return sound.new_zeros((*sound.shape[:-1], 0, BINS), dtype=torch.complex64)
    after = (count + 1) * SHIFT - SHIFT - sound.shape[-1]
    frames = torch.nn.functional.pad(sound, (SHIFT, after)).unfold(-1, FRAME, SHIFT)
    found: Tensor = torch.fft.rfft(frames * window())
    return found


def sound(spectra: Tensor, samples: int) -> Tensor:
    """The sound whose frames have these spectra: overlap-add under the window, over the sum of its squares.

    Args: spectra complex64 (..., frames, 257) with frames = frame_count(samples).
    Returns: float32 (..., samples).

    >>> x = torch.randn(1000)
    >>> torch.allclose(sound(spectra(x), 1000), x, atol=1e-6)
    True
    """
    if not samples:
        return spectra.real.new_zeros((*spectra.shape[:-2], 0))
    frames = torch.fft.irfft(spectra, FRAME) * window()
    halves = (frames[..., 1:, :SHIFT] + frames[..., :-1, SHIFT:]) / weight()
    made: Tensor = halves.flatten(-2)[..., :samples]
    return made
