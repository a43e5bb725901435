"""Two distances between spectra that listeners' opinions were fitted to: of their envelopes and of their slopes.

Both look at frames of 30 ms under a Hann window every 7.5 ms, and leave out the worst twentieth of them.
Source: Hu and Loizou (2008); Quackenbush, Barnwell and Clements (1988); Klatt (1982).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
KEPT = 0.95
TINY = np.finfo(np.float64).eps

# Critical bands: centres and widths in Hz.
CENTRES = np.array([
    50.0, 120.0, 190.0, 260.0, 330.0, 400.0, 470.0, 540.0, 617.372, 703.378, 798.717, 904.128, 1020.38, 1148.30,
    1288.72, 1442.54, 1610.70, 1794.16, 1993.93, 2211.08, 2446.71, 2701.97, 2978.04, 3276.17, 3597.63,
])  # fmt: skip
WIDTHS = np.array([
    70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 77.3724, 86.0056, 95.3398, 105.411, 116.256, 127.914, 140.423,
    153.823, 168.154, 183.457, 199.776, 217.153, 235.631, 255.255, 276.072, 298.126, 321.465, 346.136,
])  # fmt: skip
GLOBAL_PEAK, LOCAL_PEAK = 20.0, 1.0  # Klatt's weights of how far a band lies below the peaks, dB


def frames(sound: Floats, rate: int) -> Floats:
    """Frames of 30 ms, every 7.5 ms, under a Hann window that is nowhere 0: (count, samples). The last whole one is
    left out, as in published figures.

    Raises: ValueError for a sound shorter than two frames' starts.

    >>> frames(np.ones(1000), 16000).shape
    (4, 480)
    """
    size = round(0.03 * rate)
    shift = size // 4
    count = (len(sound) - size) // shift
    if count < 1:
        raise ValueError(f"`found`: expected {size + shift} samples or more, got {len(sound)}")
    window = np.hanning(size + 2)[1:-1]
    made: Floats = np.lib.stride_tricks.sliding_window_view(sound, size)[::shift][:count] * window
    return made


def likelihood_ratio(reference: Any, found: Any, rate: int = 16000) -> float:
    """log(aₓ R aₓᵀ / aₛ R aₛᵀ), the mean over frames (LLR): how much worse than its own the other's filter predicts s.

    a are the coefficients of linear prediction of order 16 (10 below 10 kHz) of s and of x, R the Toeplitz matrix of
    the autocorrelation of s.

    >>> noise = np.random.default_rng(0).standard_normal(4000)
    >>> likelihood_ratio(noise, 0.5 * noise) < 1e-9 < 0.1 < likelihood_ratio(noise, np.cumsum(noise))
    True
    """
    order = 10 if rate < 10000 else 16
    clean, other = (_correlation(frames(np.asarray(x, np.float64) + TINY, rate), order) for x in (reference, found))
    own, foreign = _predictor(clean), _predictor(other)
    matrices = clean[:, np.abs(np.subtract.outer(np.arange(order + 1), np.arange(order + 1)))]
    errors = [np.einsum("ti,tij,tj->t", a, matrices, a) for a in (foreign, own)]
    return _mean_of_best(np.log(np.maximum(errors[0], TINY**2) / np.maximum(errors[1], TINY**2)))


def slope_distance(reference: Any, found: Any, rate: int = 16000) -> float:
    """Σ_b w_b (slope of s − slope of x)² / Σ_b w_b over critical bands, the mean over frames (WSS).

    The slope of band b is the dB to the next one. w is the mean of both sounds' Kmax/(Kmax + max − E_b) ·
    Kloc/(Kloc + peak_b − E_b), with the nearest peak uphill, Kmax = 20, Kloc = 1: near peaks differences weigh more.
    Where the way up is to the right, the peak is taken to be the band before it, as in the program of Loizou's book
    that published figures come from.

    >>> noise = np.random.default_rng(0).standard_normal(4000)
    >>> slope_distance(noise, noise), bool(slope_distance(noise, np.cumsum(noise)) > 1)
    (0.0, True)
    """
    clean, other = (_bands(frames(np.asarray(x, np.float64), rate), rate) for x in (reference, found))
    weight = (_weights(clean) + _weights(other)) / 2
    differences = np.square(np.diff(clean, axis=1) - np.diff(other, axis=1))
    return _mean_of_best((weight * differences).sum(1) / weight.sum(1))


def _mean_of_best(distances: Floats) -> float:
    count = max(1, round(KEPT * len(distances)))
    return float(np.sort(distances)[:count].mean())


def _correlation(sections: Floats, order: int) -> Floats:
    """r[k] = Σ_n x[n]·x[n + k] of each frame, k from 0 to order: (count, order + 1)."""
    size = 1 << (2 * sections.shape[1]).bit_length()
    power = np.square(np.abs(np.fft.rfft(sections, size)))
    made: Floats = np.fft.irfft(power, size)[:, : order + 1]
    return made


def _predictor(correlation: Floats) -> Floats:
    """(1, −a₁, …, −a_p) with the least error of Σ_k a_k x[n − k] as x[n], by Levinson and Durbin: (count, p + 1)."""
    count, width = correlation.shape
    made = np.zeros((count, width))
    made[:, 0] = 1.0
    error = np.maximum(correlation[:, 0], TINY**2)
    for order in range(1, width):
        reflection = -np.einsum("ti,ti->t", made[:, :order], correlation[:, order:0:-1]) / error
        made[:, : order + 1] += reflection[:, None] * made[:, order::-1]
        error = np.maximum(error * (1.0 - np.square(reflection)), TINY**2)
    return made


def _bands(sections: Floats, rate: int) -> Floats:
    """The energy of critical bands in dB, -100 at least: (count, 25)."""
    size = 1 << int(np.ceil(np.log2(2 * sections.shape[1])))
    power = np.square(np.abs(np.fft.rfft(sections, size)))[:, : size // 2] / sections.shape[1]
    energy = power @ _filters(size // 2, rate).T
    made: Floats = 10 * np.log10(np.maximum(energy, 1e-10))
    return made


def _filters(bins: int, rate: int) -> Floats:
    """Gaussian shapes on the bins of a spectrum, of one area, cut off 30 dB below their tops: (25, bins)."""
    centre, width = np.floor(CENTRES * 2 / rate * bins)[:, None], (WIDTHS * 2 / rate * bins)[:, None]
    shape = np.exp(-11.0 * np.square((np.arange(bins) - centre) / width) + np.log(WIDTHS[0] / WIDTHS)[:, None])
    made: Floats = shape * (shape > np.exp(-30.0 / (2 * 2.303)))
    return made


def _weights(energy: Floats) -> Floats:
    """How much the slope of each band but the last counts: (count, 24)."""
    slopes = np.diff(energy, axis=1)
    right, left = energy[:, :-1].copy(), energy[:, :-1].copy()
    for band in range(slopes.shape[1] - 2, -1, -1):
        right[:, band] = np.where(slopes[:, band + 1] > 0, right[:, band + 1], right[:, band])
    for band in range(1, slopes.shape[1]):
        left[:, band] = np.where(slopes[:, band - 1] <= 0, left[:, band - 1], left[:, band])
    peaks = np.where(slopes > 0, right, left)
    top = energy.max(1, keepdims=True)
    below = energy[:, :-1]
    made: Floats = GLOBAL_PEAK / (GLOBAL_PEAK + top - below) * LOCAL_PEAK / (LOCAL_PEAK + peaks - below)
    return made
