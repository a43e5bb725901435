"""How good speech is beside the same speech without noise: the measures that the field reports.

PESQ (ITU-T P.862, P.862.2) and STOI are those of the packages `pesq` and `pystoi`; the others are computed here. All
compare sample with sample, so what was delayed is brought in line first: `align`. Sounds are float arrays (N,) at
16 kHz, full scale 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmha.metrics.hearing import frames, likelihood_ratio, slope_distance

Floats = NDArray[np.float64]
RATE = 16000
LIMIT = 4000  # samples of delay that are looked for: a quarter of a second
QUIETEST, LOUDEST = -10.0, 35.0  # dB, bounds of a segment's SNR


def align(reference: Any, found: Any, limit: int = LIMIT) -> Floats:
    """`found`, shifted by the delay between -limit and limit at which |Σ_n reference[n] · found[n + delay]| is largest.

    Returns: float64, as long as `reference`; zeros where nothing is found.

    >>> align([0.0, 1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 2.0])
    array([0., 1., 2., 0., 0.])
    """
    return shifted(found, delay(reference, found, limit), len(reference))


def delay(reference: Any, found: Any, limit: int = LIMIT) -> int:
    """How many samples `found` comes later than `reference`; of equal ones the smallest.

    >>> delay([0.0, 1.0, 2.0, 0.0], [1.0, 2.0, 0.0, 0.0]), delay([], [1.0])
    (-1, 0)
    """
    first, second = np.asarray(reference, np.float64), np.asarray(found, np.float64)
    if not len(first) or not len(second):
        return 0
    size = 1 << (len(first) + len(second)).bit_length()
    product = np.fft.irfft(np.fft.rfft(second, size) * np.fft.rfft(first, size).conj(), size)
    limit = min(limit, len(first) - 1, len(second) - 1) if min(len(first), len(second)) > 1 else 0
    lags = np.arange(-limit, limit + 1)
    likeness = np.abs(product[lags])
    best = lags[likeness >= likeness.max() * (1 - 1e-9)]
    return int(best[np.abs(best).argmin()])


def shifted(sound: Any, delay: int, samples: int) -> Floats:
    """So many samples of a sound from sample `delay` on, zeros where it has none.

    >>> shifted([1.0, 2.0, 3.0], -1, 5), shifted([1.0, 2.0, 3.0], 2, 2)
    (array([0., 1., 2., 3., 0.]), array([3., 0.]))
    """
    made = np.zeros(samples)
    source = np.asarray(sound, np.float64)[max(0, delay) :]
    start = max(0, -delay)
    part = source[: max(0, samples - start)]
    made[start : start + len(part)] = part
    return made


def si_sdr(reference: Any, found: Any) -> float:
    """10·log₁₀(|αs|² / |αs − x|²) in dB, α = ⟨x, s⟩/|s|²: the scale-invariant ratio of signal to distortion.

    Infinite where x is a multiple of s; -infinity where it has nothing of s.
    Raises: ValueError for sounds of other lengths, or a silent reference.
    Source: Le Roux et al. (2019), *SDR – half-baked or well done?*, equation 4.

    >>> round(si_sdr([1.0, 0.0], [2.0, 0.2]), 6)
    20.0
    """
    s, x = pair(reference, found)
    part = (x @ s) / (s @ s) * s
    signal, rest = float(part @ part), float((part - x) @ (part - x))
    with np.errstate(divide="ignore"):
        return float(10 * (np.log10(signal) - np.log10(rest))) if signal or rest else -np.inf


def segmental_snr(reference: Any, found: Any, rate: int = RATE) -> float:
    """The mean over frames of 10·log₁₀(Σ s² / Σ (s − x)²) in dB, each frame's kept within -10 and 35 dB.

    Frames of 30 ms under a Hann window, every 7.5 ms.
    Raises: ValueError for sounds of other lengths, shorter than two frames, or a silent reference.
    Source: Hansen and Pellom (1998); Hu and Loizou (2008).

    >>> tone = np.sin(np.arange(1600.0))
    >>> round(segmental_snr(tone, 0.9 * tone), 6), segmental_snr(tone, tone)
    (20.0, 35.0)
    """
    s, x = pair(reference, found)
    clean, rest = frames(s, rate), frames(s - x, rate)
    tiny = np.finfo(np.float64).eps
    ratio = 10 * np.log10(np.square(clean).sum(1) / (np.square(rest).sum(1) + tiny) + tiny)
    return float(ratio.clip(QUIETEST, LOUDEST).mean())


def pesq(reference: Any, found: Any, band: str = "wb", rate: int = RATE) -> float:
    """PESQ as MOS-LQO: wide band ("wb", P.862.2, 16 kHz; 1.04 to 4.64) or narrow band ("nb", P.862.1; 1.02 to 4.55).

    Raises: ValueError for sounds of other lengths, or in which no speech is found; ImportError naming the extra.
    """
    s, x = pair(reference, found)
    try:
        from pesq import PesqError
        from pesq import pesq as measure
    except ImportError:
        raise ImportError('PESQ needs pesq: pip install "mmha[metrics]"') from None
    try:
        return float(measure(rate, s.astype(np.float32), x.astype(np.float32), band))
    except PesqError as error:
        what = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"`reference`: expected speech that PESQ can judge, got sound without ({what})") from None


def stoi(reference: Any, found: Any, rate: int = RATE, extended: bool = False) -> float:
    """Short-time objective intelligibility, about 0 to 1; `extended`: ESTOI.

    Raises: ValueError for sounds of other lengths; ImportError naming the extra.
    Source: Taal et al. (2011); Jensen and Taal (2016).
    """
    s, x = pair(reference, found)
    try:
        from pystoi import stoi as measure
    except ImportError:
        raise ImportError('STOI needs pystoi: pip install "mmha[metrics]"') from None
    return float(measure(s, x, rate, extended=extended))


def composite(pesq: float, likelihood: float, slope: float, segmental: float) -> dict[str, float]:
    """CSIG, CBAK and COVL, each from 1 to 5: what listeners would say of the speech, of the background, of the whole.

    CSIG = 3.093 − 1.029·LLR + 0.603·PESQ − 0.009·WSS; CBAK = 1.634 + 0.478·PESQ − 0.007·WSS + 0.063·segSNR;
    COVL = 1.594 + 0.805·PESQ − 0.512·LLR − 0.007·WSS.

    Source: Hu and Loizou (2008), *Evaluation of objective quality measures for speech enhancement*, table VI.

    >>> composite(pesq=2.0, likelihood=1.0, slope=10.0, segmental=5.0)
    {'CSIG': 3.18, 'CBAK': 2.835, 'COVL': 2.622}
    """
    found = {
        "CSIG": 3.093 - 1.029 * likelihood + 0.603 * pesq - 0.009 * slope,
        "CBAK": 1.634 + 0.478 * pesq - 0.007 * slope + 0.063 * segmental,
        "COVL": 1.594 + 0.805 * pesq - 0.512 * likelihood - 0.007 * slope,
    }
    return {name: round(min(5.0, max(1.0, value)), 12) for name, value in found.items()}


def measures(reference: Any, found: Any, limit: int = LIMIT) -> dict[str, float]:
    """All of them at 16 kHz, after `align`: PESQ-WB, PESQ-NB, STOI and ESTOI in percent, SI-SDR and segSNR in dB, CSIG,
    CBAK and COVL (with wide-band PESQ, as is usual at 16 kHz).

    Raises: as the measures.
    """
    s = np.asarray(reference, np.float64)
    x = align(s, found, limit)
    wide, segmental = pesq(s, x), segmental_snr(s, x)
    return {
        "PESQ-WB": wide,
        "PESQ-NB": pesq(s, x, "nb"),
        "STOI": 100 * stoi(s, x),
        "ESTOI": 100 * stoi(s, x, extended=True),
        "SI-SDR": si_sdr(s, x),
        "segSNR": segmental,
    } | composite(wide, likelihood_ratio(s, x), slope_distance(s, x), segmental)


def pair(reference: Any, found: Any) -> tuple[Floats, Floats]:
    """Both as float64 (N,). Raises: ValueError where they cannot be compared."""
    s, x = np.asarray(reference, np.float64), np.asarray(found, np.float64)
    if s.ndim != 1 or s.shape != x.shape:
        raise ValueError(f"`found`: expected shape {s.shape}, as the reference's, one channel, got {x.shape}")
    if not s.any():
        raise ValueError("`reference`: expected speech, got silence")
    return s, x
