"""What a spectrum is multiplied by once the a-priori SNR of each of its bins is known.

ξ = |S|² / |D|² is the a-priori SNR, speech over noise; γ = |X|² / |D|² the a-posteriori SNR, for which ξ + 1 stands
where only ξ is known; ν = ξγ / (1 + ξ). ξ and γ are kept at 1e-12 or more. All is in float64, on arrays of any shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmha import checks
from mmha.models.mhanet.frames import RATE, SHIFT

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
SMALLEST = 1e-12
LIMIT, PER_DECIBEL = 120, 100


def mmse_lsa(xi: Floats, gamma: Floats) -> Floats:
    """ξ/(1+ξ) · exp(½E₁(ν)): the least error of the logarithm of the amplitude.

    Source: Ephraim and Malah (1985), equation 20.

    >>> mmse_lsa(np.array([1.0]), np.array([2.0])).round(4)
    array([0.558])
    """
    from scipy.special import exp1

    made: Floats = xi / (1 + xi) * np.exp(0.5 * exp1(_nu(xi, gamma)))
    return made


def mmse_stsa(xi: Floats, gamma: Floats) -> Floats:
    """(√π/2) · (√ν/γ) · e^(−ν/2) · [(1+ν)·I₀(ν/2) + ν·I₁(ν/2)]: the least error of the amplitude.

    The exponential is taken into the Bessel functions, which would overflow without it.
    Source: Ephraim and Malah (1984), equation 7.

    >>> mmse_stsa(np.array([1.0]), np.array([2.0])).round(4)
    array([0.641])
    """
    from scipy.special import i0e, i1e

    nu = _nu(xi, gamma)
    made: Floats = np.sqrt(np.pi) / 2 * np.sqrt(nu) / gamma * ((1 + nu) * i0e(nu / 2) + nu * i1e(nu / 2))
    return made


def wiener(xi: Floats, gamma: Floats) -> Floats:
    """ξ/(1+ξ): the least error of the complex spectrum (WF)."""
    return xi / (1 + xi)


def square_root_wiener(xi: Floats, gamma: Floats) -> Floats:
    """√(ξ/(1+ξ)) (SRWF), which is also the ideal ratio mask (IRM)."""
    made: Floats = np.sqrt(xi / (1 + xi))
    return made


def constrained_wiener(xi: Floats, gamma: Floats) -> Floats:
    """√ξ/(1+√ξ) (cWF).  Source: Loizou, *Speech Enhancement*, 2nd edition, section 6.6."""
    made: Floats = np.sqrt(xi) / (1 + np.sqrt(xi))
    return made


def ideal_binary(xi: Floats, gamma: Floats) -> Floats:
    """1 where ξ > 1, else 0: the ideal binary mask (IBM)."""
    return (xi > 1).astype(np.float64)


GAINS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "mmse-lsa": mmse_lsa,
    "mmse-stsa": mmse_stsa,
    "wf": wiener,
    "srwf": square_root_wiener,
    "cwf": constrained_wiener,
    "irm": square_root_wiener,
    "ibm": ideal_binary,
}


def gain(name: str, xi: Any, gamma: Any = None) -> Floats:
    """The gain of that name.

    Args: name, one of `GAINS`; xi, the a-priori SNR ξ >= 0, a ratio and not dB; gamma, the a-posteriori SNR, None =
        ξ + 1.
    Returns: float64, the shape of xi; finite for every finite ξ and γ.
    Raises: ValueError for another name. ImportError naming the extra when scipy is missing.
    Source: Nicolson and Paliwal (2019), *Deep learning for minimum mean-square error approaches to speech enhancement*.

    >>> gain("wf", [1.0, 3.0])
    array([0.5 , 0.75])
    """
    checks.one_of("gain", name, tuple(GAINS))
    ratio = np.maximum(np.asarray(xi, dtype=np.float64), SMALLEST)
    posterior = ratio + 1 if gamma is None else np.maximum(np.asarray(gamma, dtype=np.float64), SMALLEST)
    try:
        return GAINS[name](ratio, posterior)
    except ImportError:
        raise ImportError(f'gain: {name} needs scipy: pip install "mmha[speech]"') from None


class Table:
    """A gain of the a-priori SNR alone, looked up: 20 times as fast where the formula asks for E₁ or Bessel functions.

    g(ξ), γ = ξ + 1, is kept every 0.01 dB from -120 to 120 and interpolated between; it is off by less than 1e-6.

    Shapes: decibels float64 (...), ξ in dB → float32 (...).
    Raises: as `gain`.

    >>> import torch
    >>> Table("wf")(torch.tensor([0.0], dtype=torch.float64))
    tensor([0.5000])
    """

    def __init__(self, name: str) -> None:
        import torch

        grid = np.linspace(-LIMIT, LIMIT, 2 * LIMIT * PER_DECIBEL + 1)
        self.values = torch.from_numpy(gain(name, 10.0 ** (grid / 10)))
        self.steps = self.values.diff()
        self.is_binary = name == "ibm"

    def __call__(self, decibels: Tensor) -> Tensor:
        if self.is_binary:
            return (decibels > 0.0).float()
        place = (decibels + LIMIT) * PER_DECIBEL
        below = place.long().clamp_(0, len(self.steps) - 1)
        return (self.values[below] + self.steps[below] * (place - below)).float()


class Shape:
    """What a stream makes of its gains g: they fall slowly, and leave a share of the noise.

    h[t] = max(g[t], ρ · h[t − 1]), ρ = 10^(−release · 0.016 / 20), of each bin; what its spectrum is multiplied by is
    ℓ + (1 − ℓ) · h[t], ℓ = 10^(−limit / 20). Before the sound h is 0.

    Args: release, the dB a second by which h falls at most, > 0; limit, the dB by which noise is attenuated at most,
        >= 0. Infinite, either does nothing.
    Raises: ValueError or TypeError for other numbers.
    Source for h: Valin, *A hybrid DSP/deep learning approach to real-time full-band speech enhancement* (2018).

    >>> import torch
    >>> shape, last = Shape(release=375.0, limit=20.0), torch.zeros(1)
    >>> shape(torch.tensor([[1.0], [0.0], [0.9]]), last).flatten(), last
    (tensor([1.0000, 0.5511, 0.9100]), tensor([0.9000]))
    """

    def __init__(self, release: float, limit: float) -> None:
        checks.require(_decibels("release", release) > 0, "release", "dB a second > 0", release)
        checks.require(_decibels("limit", limit) >= 0, "limit", "dB >= 0", limit)
        self.release, self.limit = release, limit
        self.kept, self.left = 10 ** (-release * SHIFT / RATE / 20), 10 ** (-limit / 20)

    def __call__(self, gains: Tensor, last: Tensor) -> Tensor:
        """The factors of the next frames, float32 (..., T, 257), of their gains; `last` (..., 257), h, moves on."""
        held = gains.clone()
        before = last
        for now in held.unbind(-2):
            before = now.copy_(now.maximum(before * self.kept))
        last.copy_(before)
        return held.mul_(1 - self.left).add_(self.left)


def noise_power(power: Any, xi: Any, gamma: Any = None) -> Floats:
    """|X|² · [1/(1+ξ)² + ξ/(γ(1+ξ))]: the expected power of the noise in each bin (DeepMMSE).

    Args: power, |X|², any unit; xi and gamma as for `gain`.
    Source: Zhang et al. (2020), *DeepMMSE: A Deep Learning Approach to MMSE-Based Noise Power Spectral Density
        Estimation*.

    >>> noise_power([4.0], [1.0])
    array([2.])
    """
    ratio = np.maximum(np.asarray(xi, dtype=np.float64), SMALLEST)
    posterior = ratio + 1 if gamma is None else np.maximum(np.asarray(gamma, dtype=np.float64), SMALLEST)
    made: Floats = np.asarray(power, dtype=np.float64) * (1 / (1 + ratio) ** 2 + ratio / (posterior * (1 + ratio)))
    return made


def _decibels(name: str, value: float) -> float:
    """The value, which may be infinite."""
    return value if value == float("inf") else checks.number(name, value)


def _nu(xi: Floats, gamma: Floats) -> Floats:
    return xi * gamma / (1 + xi)
