"""Measures of speech against closed forms, definitions followed frame by frame, and the packages of the field."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import solve_toeplitz, toeplitz

from mmha.metrics import hearing, speech

RATE = 16000
Floats = NDArray[np.float64]


def voice(seconds: float, seed: int = 7) -> Floats:
    """Something that PESQ and STOI take for speech: a buzz of a moving pitch in syllables, through two resonances."""
    draw = np.random.default_rng(seed)
    n = round(seconds * RATE)
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * np.arange(n) / RATE)
    buzz = np.sign(np.sin(2 * np.pi * np.cumsum(pitch) / RATE)) + 0.1 * draw.standard_normal(n)
    spectrum = np.fft.rfft(buzz)
    hertz = np.fft.rfftfreq(n, 1 / RATE)
    spectrum *= sum(np.exp(-(((hertz - centre) / 300) ** 2)) for centre in (600, 1700, 2900)) + 0.01
    syllables = np.clip(np.sin(2 * np.pi * 3 * np.arange(n) / RATE), 0, 1)
    made = np.fft.irfft(spectrum, n) * syllables
    return made * 0.1 / np.abs(made).max()


def noisy(sound: Floats, level: float, seed: int = 3) -> Floats:
    return sound + level * np.random.default_rng(seed).standard_normal(len(sound))


@pytest.mark.parametrize("delay", [-211, 0, 1, 3989])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_delay_is_found_whatever_the_sign(delay: int, sign: float) -> None:
    sound = np.random.default_rng(1).standard_normal(9001)
    late = speech.shifted(sign * 0.3 * sound, -delay, 9001)
    assert speech.delay(sound, late) == delay
    back = speech.align(sound, late)
    inside = slice(max(0, -delay), 9001 - max(0, delay))
    assert len(back) == 9001
    np.testing.assert_array_equal(back[inside], sign * 0.3 * sound[inside])


def test_no_further_than_the_limit_and_nothing_in_nothing() -> None:
    sound = np.random.default_rng(1).standard_normal(997)
    assert speech.delay(sound, speech.shifted(sound, -101, 997), limit=53) != 101
    assert speech.delay(np.zeros(7), np.zeros(7)) == 0
    assert speech.align(np.ones(3), np.zeros(0)).tolist() == [0, 0, 0]
    assert speech.align(np.ones(1), np.full(1, 5.0)).tolist() == [5]


def test_si_sdr_is_that_of_a_right_triangle() -> None:
    draw = np.random.default_rng(2)
    s = draw.standard_normal(1009)
    rest = draw.standard_normal(1009)
    rest -= (rest @ s) / (s @ s) * s
    for decibels in (-20.0, 0.0, 13.0):
        scaled = rest * math.sqrt((s @ s) / (rest @ rest) / 10 ** (decibels / 10))
        assert speech.si_sdr(s, 7 * (s + scaled)) == pytest.approx(decibels, abs=1e-9)
    assert speech.si_sdr([1.0, 0.0], [3.0, 0.0]) == math.inf
    assert speech.si_sdr([1.0, 0.0], [0.0, 1.0]) == -math.inf
    assert speech.si_sdr([1.0, 0.0], [0.0, 0.0]) == -math.inf


def test_segmental_snr_is_a_mean_of_bounded_frames() -> None:
    s = np.random.default_rng(4).standard_normal(2003)
    assert speech.segmental_snr(s, s * 1.1) == pytest.approx(20.0, abs=1e-9)
    assert speech.segmental_snr(s, s) == 35.0
    assert speech.segmental_snr(s, 11 * s) == pytest.approx(-10.0)
    x = noisy(s, 0.2)
    window = 0.5 * (1 - np.cos(2 * np.pi * np.arange(1, 481) / 481))
    frames = []
    for start in range(0, (len(s) - 480) // 120 * 120, 120):
        clean, rest = (part[start : start + 480] * window for part in (s, s - x))
        frames.append(min(35.0, max(-10.0, 10 * math.log10((clean @ clean) / (rest @ rest)))))
    assert speech.segmental_snr(s, x) == pytest.approx(float(np.mean(frames)), abs=1e-9)


def likelihoods(s: Floats, x: Floats, order: int = 16) -> float:
    """LLR with scipy's solution of the normal equations, frame by frame."""
    found = []
    for clean, other in zip(hearing.frames(s, RATE), hearing.frames(x, RATE), strict=True):
        r, q = (np.correlate(part, part, "full")[len(part) - 1 :][: order + 1] for part in (clean, other))
        own, foreign = (np.concatenate([[1.0], -solve_toeplitz(c[:-1], c[1:])]) for c in (r, q))
        matrix = toeplitz(r)
        found.append(math.log((foreign @ matrix @ foreign) / (own @ matrix @ own)))
    return float(np.sort(found)[: max(1, round(0.95 * len(found)))].mean())


def slopes(s: Floats, x: Floats) -> float:
    """WSS band by band, with a walk to the nearest peak; up to the right it ends one band early, as published."""

    def energies(frame: Floats) -> Floats:
        power = np.abs(np.fft.fft(frame, 1024)[:512]) ** 2 / len(frame)
        bands = []
        for centre, width in zip(hearing.CENTRES, hearing.WIDTHS, strict=True):
            at, wide = math.floor(centre / 8000 * 512), width / 8000 * 512
            shape = np.exp(-11 * ((np.arange(512) - at) / wide) ** 2) * 70 / width
            bands.append(power @ (shape * (shape > math.exp(-30 / 4.606))))
        return 10 * np.log10(np.maximum(bands, 1e-10))

    def weights(energy: Floats) -> Floats:
        slope, made = np.diff(energy), []
        for band in range(24):
            at = band
            if slope[band] > 0:
                while at < 24 and slope[at] > 0:
                    at += 1
                at -= 1
            else:
                while at > 0 and slope[at - 1] <= 0:
                    at -= 1
            made.append(20 / (20 + energy.max() - energy[band]) / (1 + energy[at] - energy[band]))
        return np.array(made)

    found = []
    for pair in zip(hearing.frames(s, RATE), hearing.frames(x, RATE), strict=True):
        a, b = map(energies, pair)
        w = (weights(a) + weights(b)) / 2
        found.append((w @ (np.diff(a) - np.diff(b)) ** 2) / w.sum())
    return float(np.sort(found)[: max(1, round(0.95 * len(found)))].mean())


def test_the_spectral_distances_follow_their_definitions() -> None:
    s = noisy(voice(0.43), 1e-3)
    x = noisy(s, 0.02, seed=5)
    assert hearing.likelihood_ratio(s, x) == pytest.approx(likelihoods(s, x), rel=1e-6)
    assert hearing.slope_distance(s, x) == pytest.approx(slopes(s, x), rel=1e-9)
    assert hearing.likelihood_ratio(s, s) == pytest.approx(0.0, abs=1e-12)
    assert hearing.slope_distance(s, s) == 0.0


def test_silent_frames_have_finite_distances() -> None:
    s = voice(0.37)
    s[1000:3000] = 0.0
    for x in (np.zeros_like(s), noisy(s, 0.01)):
        assert math.isfinite(hearing.likelihood_ratio(s, x))
        assert math.isfinite(hearing.slope_distance(s, x))
        assert math.isfinite(speech.segmental_snr(s, x))


def test_composites_stay_between_1_and_5() -> None:
    found = speech.composite(pesq=3.0, likelihood=0.5, slope=20.0, segmental=8.0)
    assert found == pytest.approx({"CSIG": 4.2075, "CBAK": 3.432, "COVL": 3.613})
    assert set(speech.composite(1.0, 9.0, 200.0, -10.0).values()) == {1.0}
    assert set(speech.composite(9.0, 0.0, 0.0, 35.0).values()) == {5.0}


def test_pesq_and_stoi_are_the_packages_at_the_place_that_fits() -> None:
    import pesq
    import pystoi

    s = voice(1.7)
    x = noisy(s, 0.003)
    late = speech.shifted(x, -307, len(x))
    found = speech.measures(s, late)
    there = speech.align(s, late)
    single = [part.astype(np.float32) for part in (s, there)]
    assert found["PESQ-WB"] == pytest.approx(pesq.pesq(RATE, *single, "wb"))
    assert found["PESQ-NB"] == pytest.approx(pesq.pesq(RATE, *single, "nb"))
    assert found["STOI"] == pytest.approx(100 * pystoi.stoi(s, there, RATE))
    assert found["ESTOI"] == pytest.approx(100 * pystoi.stoi(s, there, RATE, extended=True))
    assert found["SI-SDR"] > speech.si_sdr(s, late) + 10
    assert found["CSIG"] == pytest.approx(
        speech.composite(
            found["PESQ-WB"],
            hearing.likelihood_ratio(s, there),
            hearing.slope_distance(s, there),
            speech.segmental_snr(s, there),
        )["CSIG"]
    )


@pytest.mark.parametrize("measure", [speech.si_sdr, speech.segmental_snr, speech.pesq, speech.stoi])
def test_what_cannot_be_compared_is_refused(measure: Any) -> None:
    with pytest.raises(ValueError, match=r"^`found`: expected shape \(7,\), as the reference's.*got \(5,\)$"):
        measure(np.ones(7), np.ones(5))
    with pytest.raises(ValueError, match=r"^`reference`: expected speech, got silence$"):
        measure(np.zeros(701), np.ones(701))


def test_too_short_for_a_frame() -> None:
    with pytest.raises(ValueError, match=r"^`found`: expected 600 samples or more, got 599$"):
        speech.segmental_snr(np.ones(599), np.ones(599))
