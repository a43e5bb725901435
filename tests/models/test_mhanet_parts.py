"""The front end, the mapped SNR and the gains, each against a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, signal, special
from torch import Tensor

from mmha.models.mhanet import GAINS, Moments, Statistics, a_priori, frames, gain, noise_power
from mmha.models.mhanet.gains import Shape, Table

RATIOS = 10.0 ** np.linspace(-12, 12, 97)


def test_frames_are_those_of_scipy() -> None:
    x = torch.randn(1999, generator=torch.Generator().manual_seed(1))
    found = frames.spectra(x)
    assert found.shape == (frames.frame_count(1999), 257) == (9, 257)
    padded = np.pad(x.numpy().astype(np.float64), (256, 9 * 256 + 256 - 256 - 1999))
    hamming = signal.windows.hamming(512)
    for k in range(9):
        wanted = np.fft.rfft(padded[k * 256 : k * 256 + 512] * hamming)
        assert np.allclose(found[k].numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("samples", [0, 1, 256, 257, 1021])
def test_overlap_add_gives_every_sample_back(samples: int) -> None:
    x = torch.randn(3, samples, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(frames.sound(frames.spectra(x), samples), x, atol=1e-6)


def test_the_mapped_snr_is_the_distribution_function_and_comes_back() -> None:
    mean, deviation = torch.tensor([4.1, -7.3, 0.0]), torch.tensor([23.1, 26.9, 1.0])
    found = Statistics(mean, deviation)
    ratio = torch.from_numpy(RATIOS).float()[:, None].expand(-1, 3)
    wanted = special.ndtr((10 * np.log10(RATIOS)[:, None] - mean.numpy()) / deviation.numpy())
    mapped = found.map(ratio)
    assert np.allclose(mapped.numpy(), wanted, atol=1e-6)
    back = found.ratio(mapped)
    inside = (mapped > 1e-3) & (mapped < 1 - 1e-3)
    assert torch.allclose(10 * back[inside].log10(), 10 * ratio[inside].log10(), atol=0.05)
    assert back.isfinite().all()
    ends = found.ratio(torch.tensor([[0.0] * 3, [1.0] * 3]))
    assert ends.min() >= 0.99e-12
    assert ends.max() <= 1.01e12


def test_the_ratio_of_silence_is_defined() -> None:
    zero = torch.zeros(2, dtype=torch.complex64)
    one = torch.ones(2, dtype=torch.complex64)
    assert a_priori(zero, one).tolist() == [0.0, 0.0]
    assert a_priori(one, zero).tolist() == pytest.approx([1e12, 1e12])
    assert a_priori(zero, zero).tolist() == [0.0, 0.0]


def test_moments_in_pieces_are_those_of_the_whole() -> None:
    ratio = 10.0 ** torch.randn(101, 7, generator=torch.Generator().manual_seed(3))
    moments = Moments(7)
    for piece in ratio.split([1, 0, 60, 40]):
        moments.add(piece)
    found = moments.statistics()
    decibels = 10 * ratio.double().log10()
    assert torch.allclose(found.mean, decibels.mean(0).float(), atol=1e-4)
    assert torch.allclose(found.deviation, decibels.std(0, correction=0).float(), atol=1e-4)


def by_definition(name: str, xi: float, gamma: float) -> float:
    """Each formula as it is printed, in float64; E1 as its integral."""
    nu = xi * gamma / (1 + xi)
    if name == "mmse-lsa":
        e1 = integrate.quad(lambda t: np.exp(-nu * np.exp(t)), 0, np.log1p(750 / nu), limit=500)[0]
        return xi / (1 + xi) * np.exp(e1 / 2)
    if name == "mmse-stsa":
        bessel = (1 + nu) * special.i0(nu / 2) + nu * special.i1(nu / 2)
        return np.sqrt(np.pi) / 2 * np.sqrt(nu) / gamma * np.exp(-nu / 2) * bessel
    formulas = {
        "wf": xi / (1 + xi),
        "srwf": np.sqrt(xi / (1 + xi)),
        "irm": np.sqrt(xi / (1 + xi)),
        "cwf": np.sqrt(xi) / (1 + np.sqrt(xi)),
        "ibm": float(xi > 1),
    }
    return formulas[name]


@pytest.mark.parametrize("name", GAINS)
def test_gains_are_their_formulas_over_the_whole_range(name: str) -> None:
    found = gain(name, RATIOS)
    assert np.isfinite(found).all()
    for gamma in (None, RATIOS[::-1].copy()):
        found = gain(name, RATIOS, gamma)
        assert np.isfinite(found).all()
        posterior = RATIOS + 1 if gamma is None else gamma
        for xi, g, value in zip(RATIOS, posterior, found, strict=True):
            if xi * g / (1 + xi) < 500 or not name.startswith("mmse"):  # beyond, the printed form overflows
                assert value == pytest.approx(by_definition(name, xi, g), rel=1e-6)
    # Much speech: all of it goes through, whatever the gain.
    assert gain(name, [1e12]).item() == pytest.approx(1.0, abs=2e-6)
    assert np.isfinite(gain(name, [0.0, 1e30])).all()


@pytest.mark.parametrize("name", GAINS)
def test_looked_up_gains_are_those_computed(name: str) -> None:
    decibels = torch.linspace(-120, 120, 100_003, dtype=torch.float64)
    wanted = gain(name, 10.0 ** (decibels.numpy() / 10))
    found = Table(name)(decibels)
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - wanted).max() < 1e-6
    assert np.abs(found.numpy() / np.maximum(wanted, 1e-30) - 1)[wanted > 0].max() < 1e-5


def test_noise_power_is_its_formula_and_keeps_the_power_without_speech() -> None:
    xi, power = RATIOS[:60], np.linspace(0.1, 3, 60)
    wanted = power * (1 / (1 + xi) ** 2 + xi / ((xi + 1) * (1 + xi)))
    assert np.allclose(noise_power(power, xi), wanted, rtol=1e-12)
    assert noise_power([7.0], [0.0]).item() == pytest.approx(7.0)


def test_float32_of_torch_is_taken() -> None:
    xi: Tensor = torch.tensor([1.0, 3.0])
    assert gain("wf", xi.numpy()).tolist() == [0.5, 0.75]


@pytest.mark.parametrize(("release", "limit"), [(29.0, 7.0), (torch.inf, 7.0), (613.0, torch.inf), (torch.inf, 0)])
@pytest.mark.parametrize("count", [0, 1, 19])
def test_gains_fall_slowly_and_leave_a_share_of_the_noise(count: int, release: float, limit: float) -> None:
    draw = np.random.default_rng(5)
    gains = draw.random((count, 7)) ** 5
    fall, left = (10 ** (-decibels / 20) for decibels in (release * 256 / 16000, limit))
    held, wanted = np.zeros(7), np.empty((count, 7))
    for now, factor in zip(gains, wanted, strict=True):
        held = np.where(now > held * fall, now, held * fall)
        factor[:] = held - left * (held - 1)
    shape, x = Shape(release, limit), torch.from_numpy(gains).float()
    last = torch.zeros(2, 7)
    both = torch.stack([x, 0 * x])
    parts = [shape(part, last) for part in both.split([count // 3, count - count // 3], 1)]
    found = torch.cat(parts, 1)
    assert torch.allclose(found[0], torch.from_numpy(wanted).float(), atol=1e-6)
    assert torch.allclose(found[1], torch.tensor(left).float())
    assert torch.allclose(last[0], torch.from_numpy(held).float(), atol=1e-6)
    assert torch.equal(both[0], x)
