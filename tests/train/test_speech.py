"""Mixtures of speech and noise: how loud, from where, the same for any number of parts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from mmha.cli.speech_job import loss, mixed
from mmha.models import mhanet
from mmha.train import speech

RNG = np.random.default_rng(11)
VOICES = [(3000 * RNG.standard_normal(n)).astype(np.int16) for n in (1, 701, 9973, 40009)]
NOISES = [(500 * RNG.standard_normal(n)).astype(np.int16) for n in (3, 997, 20011)]
ROOM = np.array([0, 9000, 0, -3000], np.int16)


def decibel(sound: np.ndarray) -> float:
    return float(10 * np.log10(np.square(sound.astype(np.float64)).mean()))


def test_ratios_are_whole_decibels_and_nothing_is_clipped() -> None:
    mixer = speech.Mixer(VOICES, NOISES, [ROOM], 0.3, seed=5)
    ratios, levels = set(), []
    for row in range(151):
        clean, noise = mixer(0, row)
        ratio = decibel(clean) - decibel(noise)
        assert clean.dtype == noise.dtype == np.float32
        assert clean.shape == noise.shape == (4800,)
        assert ratio == pytest.approx(round(ratio), abs=1e-3)
        assert np.abs(clean + noise).max() <= 1 + 1e-6
        ratios.add(round(ratio))
        levels.append(decibel(clean))
    assert min(ratios) == -10
    assert max(ratios) == 20
    assert ratios <= set(range(-10, 21))
    assert max(levels) <= -16 + 1e-3
    assert max(levels) - min(levels) > 15


def test_a_row_is_a_function_of_seed_step_and_row_alone() -> None:
    def row(*where: int, seed: int = 5) -> np.ndarray:
        return np.concatenate(speech.Mixer(VOICES, NOISES, [ROOM], 0.11, seed)(*where))

    np.testing.assert_array_equal(row(3, 2), row(3, 2))
    others = [row(2, 3), row(3, 1), row(3, 2, speech.DEV), row(3, 2, speech.STATISTICS), row(3, 2, seed=6), row(3, 2)]
    for one, other in pairwise(others):
        assert not np.array_equal(one, other)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_the_parts_of_a_step_are_the_whole(parts: int) -> None:
    batches = speech.Batches(speech.Mixer(VOICES, NOISES, [], 0.11, seed=2), 5, mixed)
    whole = batches(4, 0, 1)
    found = [batches(4, part, parts) for part in range(parts)]
    for number in range(5):
        torch.testing.assert_close(found[number % parts].magnitudes[number // parts], whole.magnitudes[number])
        torch.testing.assert_close(found[number % parts].ratio[number // parts], whole.ratio[number])
    assert sum(speech.counts(batch)[0] for batch in found) == speech.counts(whole)[0] == 5 * 8 * 257

    model = mhanet.MHANet(mhanet.Config(width=14, layers=1, heads=2, hidden=11, window=3))
    torch.testing.assert_close(sum(loss(model, batch) for batch in found), loss(model, whole), rtol=1e-4, atol=0)


def test_the_loss_is_summed_over_real_frames() -> None:
    batches = speech.Batches(speech.Mixer(VOICES, NOISES, [], 0.11, seed=2), 3, mixed)
    batch = batches(0, 0, 1)
    model = mhanet.MHANet(mhanet.Config(width=14, layers=1, heads=2, hidden=11))
    lengths = torch.tensor([8, 0, 5])
    damaged = batch.magnitudes.clone()
    damaged[1], damaged[2, 5:] = 7.0, 7.0
    found = loss(model, speech.Batch(damaged, batch.ratio, lengths))
    rows = [(0, 8), (2, 5)]
    logits = [model(batch.magnitudes[row : row + 1, :n])[0] for row, n in rows]
    chances = torch.cat(logits).double().sigmoid()
    target = model.statistics.map(torch.cat([batch.ratio[row, :n] for row, n in rows])).double()
    wanted = -(target * chances.log() + (1 - target) * (1 - chances).log()).sum()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert speech.counts(speech.Batch(damaged, batch.ratio, lengths)) == [13 * 257]


def test_mixed_is_the_spectrum_of_the_sum_and_the_ratio_of_the_parts() -> None:
    clean, noise = torch.randn(2, 701), torch.randn(2, 701)
    magnitudes, ratio = mixed(clean, noise)
    torch.testing.assert_close(magnitudes, mhanet.frames.spectra(clean + noise).abs(), atol=1e-4, rtol=1e-4)
    both = [mhanet.frames.spectra(part).abs().double() ** 2 for part in (clean, noise)]
    torch.testing.assert_close(ratio.double(), both[0] / both[1].clamp_min(1e-12), rtol=1e-4, atol=1e-9)


def test_played_faster_a_tone_is_higher() -> None:
    tone = (9000 * np.sin(2 * np.pi * 500 * np.arange(16000) / 16000)).astype(np.int16)
    made = speech.at_speed(tone, 1.5, 8000)
    assert np.abs(np.fft.rfft(made)).argmax() * 2 == 750
    np.testing.assert_array_equal(speech.at_speed(tone, 1.0, 7), tone[:7] / 32768)


class Known:
    """A generator whose uniform numbers are known."""

    standard_normal = staticmethod(np.random.default_rng(3).standard_normal)

    def __init__(self, given: object) -> None:
        self.given = given

    def uniform(self, low: float, high: float, size: object = None) -> object:
        return self.given


@pytest.mark.parametrize("numbers", [(0.0, 0.0, 0.0, 0.0), (0.3, -0.1, 0.25, -0.375), (-0.375, 0.375, -0.375, -0.375)])
def test_a_filter_is_its_difference_equation(numbers: tuple[float, ...]) -> None:
    a1, a2, b1, b2 = numbers
    x = np.random.default_rng(7).standard_normal(307)
    wanted = np.zeros(2 + len(x))
    padded = np.concatenate([[0.0, 0.0], x])
    for n in range(2, len(padded)):
        wanted[n] = padded[n] + a1 * padded[n - 1] + a2 * padded[n - 2] - b1 * wanted[n - 1] - b2 * wanted[n - 2]
    found = speech.filtered(Known(np.reshape(numbers, (2, 2))), x)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, wanted[2:], rtol=0, atol=1e-12)


def test_filters_are_drawn_from_a_range_where_all_are_stable() -> None:
    for seed in range(101):
        rings = speech.filtered(np.random.default_rng(seed), np.eye(1, 400)[0])
        assert rings[0] == 1.0
        assert np.abs(rings[200:]).max() < 1e-6
        # From 0.25 / 1.75 to 1.75 / 0.25: nothing is lost.
        assert 0.14 < np.abs(np.fft.rfft(rings)).min() <= np.abs(np.fft.rfft(rings)).max() < 7.1


@pytest.mark.parametrize("slope", [0.0, 2.0])
def test_the_colour_of_noise_is_the_slope_of_its_spectrum(slope: float) -> None:
    made = speech.coloured(Known(slope), 1 << 16)  # type: ignore[arg-type]
    power = np.abs(np.fft.rfft(made)) ** 2
    low, high = power[100:200].mean(), power[10000:20000].mean()
    assert 10 * np.log10(low / high) == pytest.approx(10 * slope * 2, abs=1.5)
    assert np.sqrt(np.square(made).mean()) == pytest.approx(1.0)


def test_nothing_to_mix_is_refused() -> None:
    with pytest.raises(ValueError, match="`speech`: expected recordings of speech, got none but silence"):
        speech.Mixer([], NOISES, [], 1.0, 1)
    with pytest.raises(ValueError, match="`noise`: expected recordings of noise, got none but silence"):
        speech.Mixer(VOICES, [], [], 1.0, 1)
