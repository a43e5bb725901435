"""The a-priori SNR as a number between 0 and 1 that a network can learn, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST = 1e-12
# A sigmoid in float32 reaches 0 and 1, where the way back has no end.
EDGE = 1e-7


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and standard deviation in dB of the a-priori SNR of each bin, float32 (257,)."""

    mean: Tensor
    deviation: Tensor

    def map(self, ratio: Tensor) -> Tensor:
        """ξ̄ = ½(1 + erf((ξ_dB − μ)/(σ√2))) of ξ float32 (..., 257): its normal distribution function.

        >>> Statistics(torch.zeros(1), torch.ones(1)).map(torch.tensor([1.0]))
        tensor([0.5000])
        """
        return 0.5 * (1.0 + torch.erf((decibel(ratio) - self.mean) / (self.deviation * math.sqrt(2.0))))

    def ratio(self, mapped: Tensor) -> Tensor:
        """ξ = 10^((σ√2·erfinv(2ξ̄ − 1) + μ)/10): the way back, from 1e-12 to 1e12.

        >>> Statistics(torch.zeros(1), torch.ones(1)).ratio(torch.tensor([0.5]))
        tensor([1.])
        """
        return torch.pow(10.0, self.decibels(mapped) / 10.0).float()

    def decibels(self, mapped: Tensor) -> Tensor:
        """The same in dB, float64 from -120 to 120.

        >>> Statistics(torch.tensor([3.0]), torch.ones(1)).decibels(torch.tensor([0.5]))
        tensor([3.], dtype=torch.float64)
        """
        inside = mapped.double().clamp(EDGE, 1.0 - EDGE)
        decibels = self.deviation * math.sqrt(2.0) * torch.erfinv(2.0 * inside - 1.0) + self.mean
        return decibels.clamp(-120.0, 120.0)


def a_priori(speech: Tensor, noise: Tensor) -> Tensor:
    """ξ = |S|² / max(|D|², 1e-12) of complex spectra (..., 257).

    >>> a_priori(torch.tensor([2.0 + 0j]), torch.tensor([0j + 1]))
    tensor([4.])
    """
    return speech.abs().square() / noise.abs().square().clamp_min(SMALLEST)


def decibel(ratio: Tensor) -> Tensor:
    """10·log₁₀(max(ξ, 1e-12)).

    >>> decibel(torch.tensor([0.0, 1.0, 100.0]))
    tensor([-120.,    0.,   20.])
    """
    return 10.0 * torch.log10(ratio.clamp_min(SMALLEST))


class Moments:
    """Mean and population standard deviation of ξ_dB by bin, added up frame by frame in float64.

    >>> moments = Moments(2)
    >>> moments.add(torch.tensor([[1.0, 10.0], [100.0, 10.0]]))
    >>> found = moments.statistics()
    >>> found.mean, found.deviation
    (tensor([10., 10.]), tensor([10.,  0.]))
    """

    def __init__(self, bins: int) -> None:
        self.count = 0
        self.mean, self.spread = torch.zeros(bins, dtype=torch.float64), torch.zeros(bins, dtype=torch.float64)

    def add(self, ratio: Tensor) -> None:
        """More frames: ξ float32 (frames, bins)."""
        if not len(ratio):
            return
        values = decibel(ratio.double())
        mean = values.mean(0)
        total = self.count + len(values)
        step = mean - self.mean
        self.spread += (values - mean).square().sum(0) + step.square() * (self.count * len(values) / total)
        self.mean = self.mean + step * (len(values) / total)
        self.count = total

    def statistics(self) -> Statistics:
        """Of all that was added."""
        return Statistics(self.mean.float(), (self.spread / max(1, self.count)).sqrt().float())
